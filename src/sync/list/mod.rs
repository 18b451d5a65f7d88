//! Reads the streams of list endpoints.

mod emitter;
mod listing;
mod nested;
mod offsets;
mod plan;
mod reader;
mod recordings;
mod sent;
mod spans;
mod state;

pub use nested::NestedListReader;
pub use reader::ListReader;
pub use state::ListState;
