//! The hot path: from the bytes of an answer to RECORD lines.
//!
//! # Equivalence target
//! [`RowWriter::write`](super::RowWriter::write), fed by serde: the same lines, the same copies left
//! out, the same last key. A differential test compares both over random answers, cut into pieces
//! of 1 to 30 bytes.
//!
//! # How it works
//! A row is read once, from left to right, and its record is written at the same time. Columns are
//! known beforehand, because the query named them; so their keys are ready-made. A document such as
//! `properties`, which is JSON text inside a JSON string, is unescaped and checked in the same pass;
//! see [`document`]. Its usual members, key and value, are found in one look at 64 bytes. What a row
//! writes lies in one buffer that is used again; nothing is allocated per row. When the bytes end inside
//! a row, everything that it has written is taken back.
//!
//! # Fallback
//! Only what is plainly right is written here. Anything else (a column that is a list, a document
//! that is not JSON, white space other than spaces, a time in another zone, a lone surrogate, a row
//! of another width) is [`Stop::Unsupported`]: it leaves no trace, and the plain
//! path reads the row again and decides. So this path may refuse a sound row, which costs time, but
//! may never accept a row that the plain path refuses or writes differently.
//!
//! # Vectors
//! The vectors are those of the processor at hand, found out when the program starts: a function that
//! looks at bytes takes a token `simd`, which stands for what the processor can do, and exists once for
//! each kind. So that all that it calls belongs to the same kind, all of it is inlined; the tests of rows
//! run every kind that the machine has.

#![expect(
    clippy::inline_always,
    reason = "what is not inlined into a function for a kind of processor is compiled for any and cannot use its vectors"
)]

pub mod document;
mod object;
mod row;
pub mod scan;
pub mod sink;
#[cfg(test)]
mod tests;

pub(super) use object::{Inner, find};
pub(super) use row::{Scratch, row_begin, write_row};
pub use scan::Stop;
pub use sink::Sink;
