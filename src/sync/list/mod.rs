//! Reads the streams of list endpoints.

mod checksums;
mod emitter;
mod listing;
mod offsets;
mod reader;
mod recordings;
mod state;

pub use reader::ListReader;
pub use state::ListState;
