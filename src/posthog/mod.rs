//! `PostHog`'s private API as it is: queries, their rows, and what a key can see.

pub mod account;
pub mod exports;
pub mod hogql;
pub mod lines;
pub mod lists;
pub mod query;
pub mod rows;

pub use hogql::{After, Key, Predicate, Query};
pub use rows::{Malformed, Row, TakeRows, Taken};
