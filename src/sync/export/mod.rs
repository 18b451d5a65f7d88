//! Reads a table of one project by file download exports.
//!
//! ```text
//! pass (fixed end) ─► windows of ingestion time, at most 7 days ─► run ─► files ─► comparison ─► watermark
//!                                                └ the next runs are being prepared meanwhile
//! ```
//!
//! Windows follow each other without gap or overlap and are read in order. What was exported is
//! compared with PostHog's own count by hour of arrival, if the key may query; what is missing, such
//! as events that an export's look-back leaves out, is read by a query.

mod arrivals;
mod comparison;
mod file;
mod pass;
mod reader;
mod run;
mod supervision;
mod windows;

pub use pass::ExportOutcome;
pub use reader::ExportReader;
pub use supervision::Supervision;
