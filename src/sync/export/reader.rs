//! What reading by exports needs, whichever part of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::TimeDelta;

use super::cells::Cells;
use super::supervision::Supervision;
use crate::error::Error;
use crate::posthog::exports::{ExportRequest, Exports, LONGEST_INTERVAL};
use crate::posthog::http::FileClient;
use crate::streams::Table;
use crate::sync::context::LOOKBACK;
use crate::sync::emitted_rows::EmittedRows;
use crate::sync::ledger::Names;
use crate::sync::query::exported::first_position;
use crate::sync::query::reader::ProjectReader;
use crate::sync::state::interval::Interval;
use crate::sync::state::table::ProjectState;
use crate::time::{DAY, Timestamp, days};

/// Clocks of senders may be ahead: an event of the start date can have been ingested the day before.
pub(super) const CLOCKS_AHEAD: u32 = 1;

/// What the key and the configuration allow beside exports.
#[derive(Debug, Clone, Copy)]
pub struct Rights {
    /// Whether the key may query.
    pub may_query: bool,
    /// Whether queries may read what PostHog does not export for this organization.
    pub falls_back: bool,
}

/// Reads one table of one project by exports. Cheap to clone.
#[derive(Clone)]
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
    /// Whether queries may read what PostHog does not export for this organization.
    pub falls_back: bool,
    /// What is known of the project's exports.
    pub supervision: Arc<Supervision>,
    /// The cells of a ledger to read; if none, everything of the configured dates.
    pub cells: Option<Arc<Cells>>,
    /// Another stream that is read from the same files.
    pub companion: Option<Arc<ProjectReader>>,
    /// The persons and distinct ids that this sync has emitted.
    pub emitted_rows: Arc<EmittedRows>,
    /// Where the pass began, if its rows are counted by day afterwards.
    pub counted_from: Option<Timestamp>,
}

impl ExportReader {
    /// A reader of everything of the configured dates, for one stream.
    pub fn new(reader: Arc<ProjectReader>, files: FileClient, supervision: Arc<Supervision>, rights: Rights) -> Self {
        let model = reader.table.export.unwrap_or_default();
        let ingestion_delay = reader.context.config.method.ingestion_delay;
        let Rights { may_query, falls_back } = rights;
        let emitted_rows = Arc::default();
        Self {
            reader,
            files,
            ingestion_delay,
            model,
            may_query,
            falls_back,
            supervision,
            cells: None,
            companion: None,
            emitted_rows,
            counted_from: None,
        }
    }

    /// The streams that are read from the files.
    pub(super) fn streams(&self) -> impl Iterator<Item = &Arc<ProjectReader>> {
        [&self.reader].into_iter().chain(&self.companion)
    }

    /// Whether a line becomes a record: not, when it is about a row that has been emitted in the same version.
    pub(super) fn is_new_row(&self, table: &Table, id: &[u8], version: &[u8]) -> bool {
        !table.exports_repeat_rows() || self.emitted_rows.is_new(table.stream, id, version)
    }

    /// The day that a row is counted for, if exports of any version must have had it in this pass: by its position,
    /// and by the times at which it has changed and until which it tells.
    pub(super) fn counted_day(&self, position: Timestamp, times: Option<(Timestamp, Timestamp)>) -> Option<i64> {
        let (from, (changed, end)) = self.counted_from.zip(times)?;
        (first_position(from) <= position && from <= end && changed < end.minus(-LOOKBACK)).then(|| position.day())
    }

    /// Changes what the state of each stream keeps for the project, and emits the states.
    ///
    /// # Errors
    /// When stdout has been closed by its reader.
    pub(super) async fn update(&self, change: impl Fn(&mut ProjectState)) -> Result<(), Error> {
        for reader in self.streams() {
            reader.checkpoint.update(reader.context.project, &change).await?;
        }
        Ok(())
    }

    pub(super) fn exports(&self) -> Exports<'_> {
        Exports::new(&self.reader.context.client, self.reader.context.project, &self.reader.context.observer)
    }

    /// What the run of a window has to contain.
    pub(crate) fn request(&self, interval: Interval) -> ExportRequest {
        let (include, exclude) = if self.reader.table.event_name_column.is_some() {
            match self.names() {
                Names::Only(names) => (names, BTreeSet::new()),
                Names::AllBut(names) => (BTreeSet::new(), names),
            }
        } else {
            Default::default()
        };
        ExportRequest { model: self.model, from: interval.from, to: interval.to, include, exclude }
    }

    /// Events that are read.
    pub(super) fn names(&self) -> Names {
        self.cells.as_ref().map_or_else(|| self.reader.names(), |cells| cells.names.clone())
    }

    /// Days of the longest window.
    pub(crate) fn window_days(&self) -> i64 {
        let longest = LONGEST_INTERVAL / DAY;
        self.reader.context.config.window_days.map_or(longest, |days| longest.min(days.into()))
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
