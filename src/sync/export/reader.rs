//! What reading by exports needs, whichever part of it.

use std::sync::Arc;

use chrono::TimeDelta;

use super::supervision::Supervision;
use crate::posthog::exports::{ExportRequest, Exports};
use crate::posthog::http::FileClient;
use crate::sync::query::reader::ProjectReader;
use crate::sync::state::interval::Interval;
use crate::sync::state::table::ProjectState;
use crate::time::{Timestamp, days};

/// Clocks of senders may be ahead: an event of the start date can have been ingested the day before.
pub(super) const CLOCKS_AHEAD: u32 = 1;

/// Reads one table of one project by exports.
pub struct ExportReader {
    /// What is read and where it goes; asks the queries.
    pub reader: Arc<ProjectReader>,
    /// Downloads files.
    pub files: FileClient,
    /// Age that data must have to be exported.
    pub ingestion_delay: TimeDelta,
    /// Model of the export.
    pub model: &'static str,
    /// Whether the key may query.
    pub may_query: bool,
    /// What is known of the project's exports.
    pub supervision: Arc<Supervision>,
}

impl ExportReader {
    pub(super) fn exports(&self) -> Exports<'_> {
        Exports::new(&self.reader.context.client, self.reader.context.project, &self.reader.context.observer)
    }

    /// What the run of a window has to contain.
    pub(crate) fn request(&self, interval: Interval) -> ExportRequest<'_> {
        let names = self.reader.table.event_name_column.is_some();
        let config = &self.reader.context.config;
        ExportRequest {
            model: self.model,
            from: interval.from,
            to: interval.to,
            include: if names { &config.include_events } else { &[] },
            exclude: if names { &config.exclude_events } else { &[] },
        }
    }

    /// Events ingested before this are outside the configured dates, unless a clock was ahead.
    pub(super) fn earliest(&self) -> Timestamp {
        self.reader.context.config.start.minus(days(CLOCKS_AHEAD))
    }
}

/// Whether nothing has been exported yet, and no other state contains a starting point.
pub(super) fn begins(state: &ProjectState) -> bool {
    state.watermark.is_none() && state.resume_from.is_none() && state.export.windows.is_empty()
}
