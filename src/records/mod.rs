//! From what `PostHog` answers to RECORD lines: rows, exported lines and objects of lists.

mod account;
mod day_figures;
mod distinct_id_row;
mod document;
mod event_day;
mod export_line;
mod fingerprint;
mod fixed;
mod frame;
mod json_fields;
mod keyset_row;
mod last_row;
mod list_object;
mod nulled;
mod property_columns;
mod property_filter;
mod query_row;
mod record_sink;
mod remembered;
pub mod transcode;
mod value;

pub use account::AccountWriter;
pub use day_figures::day_of;
pub use distinct_id_row::DistinctIdWriter;
pub use event_day::{DayProof, EventDayWriter};
pub use export_line::{ExportWriter, LineTimes};
pub use fingerprint::{Fingerprint, checksum_of};
pub use keyset_row::KeysetRowWriter;
pub use list_object::{Object, ObjectWriter, key_number};
pub use nulled::NulledValues;
pub use query_row::{RowWriter, Written};
pub use record_sink::{RecordSink, RowCounts};
