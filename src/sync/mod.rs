//! Reads tables completely: scans, windows, pages, the audit and the state.
//!
//! ```text
//! project ─► scan (fixed bounds) ─► windows (whole days) ─► pages (keyset) ─► audit ─► closed in the state
//! project ─► windows of ingestion time ─► export runs ─► files ─► comparison ─► watermark in the state
//! ```
//!
//! A scan's bounds on arrival never change, so what it reads does not grow while it is read. A window
//! is closed only when the number of its records agrees with the server's count.

mod context;
mod deleted_persons;
mod distinct_ids;
mod emitted_rows;
mod events;
mod explain;
mod export;
mod figure_row;
mod keyset;
pub mod ledger;
mod list;
mod observer;
mod page_size;
mod query;
mod read_plan;
mod report;
mod state;

pub use context::ReadContext;
pub use deleted_persons::DeletedPersonReader;
pub use distinct_ids::DistinctIdReader;
pub use emitted_rows::EmittedRows;
pub use events::{ComparedDays, EventDayReader, EventDaysState, EventReader, EventsRead, count_days};
pub use export::{ExportOutcome, ExportReader, Rights, RowLimit, Supervision};
pub use keyset::{KeysetReader, KeysetState};
pub use list::{ListReader, ListState, NestedListReader};
pub use observer::{OnEstimate, StreamObserver};
pub use page_size::PageSize;
pub use query::reader::ProjectReader;
pub use read_plan::{PlannedMethod, PlannedRead, ReadPlan};
pub use report::{Proof, StreamReport};
pub use state::checkpoint::Checkpoint;
pub use state::stream::{ProjectEntry, StreamState};
pub use state::table::{LastMethod, ProjectState};
