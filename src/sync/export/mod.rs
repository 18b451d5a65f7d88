//! Reads a table of one project by file download exports.
//!
//! ```text
//! pass (fixed end) ─► windows of ingestion time, at most 7 days ─► run ─► files ─► watermark, or cells of the ledger
//!                                                └ the next runs are being prepared meanwhile
//! ```
//!
//! Windows follow each other without gap or overlap and are read in order. Each run must deliver as many
//! rows as PostHog says. For events, a pass reads cells of the ledger (`cells.rs`), which compares them
//! afterwards. Persons and distinct ids are read from the same files (`shared.rs`).

mod arrivals;
mod bounds;
mod cell_pass;
mod cells;
mod file;
mod pass;
mod reader;
mod row_limit;
mod run;
mod shared;
mod starts;
mod stored;
mod supervision;
mod unchanged;
mod windows;

pub use pass::ExportOutcome;
pub use reader::{ExportReader, Rights};
pub use row_limit::RowLimit;
pub use supervision::Supervision;
