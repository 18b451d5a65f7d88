//! The Airbyte protocol: messages, also as text for people, catalogs, state files, and the one owner of stdout.
//!
//! Shapes follow `airbyte_protocol.yaml`, protocol version 0.2. Unknown properties are accepted
//! everywhere, because platforms add their own.

mod api_catalog;
mod batch;
pub mod catalog;
mod lines;
pub mod logging;
pub mod message;
pub mod output;
mod people;
mod separators;
pub mod state;
#[cfg(test)]
mod state_test;

pub use batch::Batch;
pub use catalog::{Catalog, ConfiguredCatalog, ConfiguredStream, Stream, StreamDescriptor, SyncMode};
pub use lines::Lines;
pub use message::{Message, StreamStatus};
pub use output::{Output, Writer};
pub use people::{Audience, LogFormat};
pub(crate) use separators::{has_separators, write_escaped};
