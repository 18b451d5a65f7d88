//! Reads tables without a time and custom queries, in the order of a key.

mod cursor;
mod reader;

pub use reader::{KeysetReader, KeysetState};
