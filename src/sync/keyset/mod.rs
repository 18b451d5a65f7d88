//! Reads tables without a time and custom queries, in the order of a key.

mod cursor;
mod owners;
mod reader;
mod state;
mod windows;

pub use reader::KeysetReader;
pub use state::KeysetState;
