//! Reads tables completely: scans, windows, pages, the audit and the state.
//!
//! ```text
//! project ─► scan (fixed bounds) ─► windows (whole days) ─► pages (keyset) ─► audit ─► closed in the state
//! project ─► windows of ingestion time ─► export runs ─► files ─► comparison ─► watermark in the state
//! ```
//!
//! A scan's bounds on arrival never change, so what it reads does not grow while it is read. A window
//! is closed only when the number of its records agrees with the server's count.

mod checkpoint;
mod columns;
mod cursor;
mod export;
mod interval;
mod journal;
mod keyed;
mod list;
mod page_size;
mod plan;
mod project;
mod reader;
mod scan;
mod state;
mod window;

pub use checkpoint::Checkpoint;
pub use columns::available;
pub use export::{ExportReader, ExportState};
pub use journal::{Journal, Notes, parse as parse_notes};
pub use keyed::{KeyedNote, KeyedReader};
pub use list::{ListNote, ListReader};
pub use page_size::PageSize;
pub use project::OnPlan;
pub use reader::{ProjectReader, StreamObserver};
pub use state::TableState;
