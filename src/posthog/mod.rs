//! `PostHog`'s private API as it is: queries, their rows, and what a key can see.

pub mod account;
mod at_most;
pub mod exports;
pub mod hogql;
pub mod http;
pub mod line_reader;
pub mod lists;
pub mod query;
pub mod row_reader;
pub mod turn;

pub use at_most::{AtMost, AtMostMembers};
pub use hogql::{After, Predicate, Query, RowKey};
pub use row_reader::{Consumed, Malformed, Row, RowConsumer, row_size};
