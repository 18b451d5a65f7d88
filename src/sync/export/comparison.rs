//! Compares what has been exported with what `PostHog` counts, and reads what is missing.
//!
//! An export leaves out events whose `timestamp` is far from their ingestion (`lookback_days` in
//! `batch_exports/…/sql/events.py`), without a word. `HogQL` does not show the time of ingestion that
//! exports go by, but `created_at`, which precedes it by seconds to minutes. So records are counted
//! by hour of `created_at`, and hours are compared an hour after their end.

use std::collections::BTreeMap;

use chrono::TimeDelta;

use super::ExportReader;
use super::state::{hour_of, start_of};
use crate::error::{Error, FailureType};
use crate::sync::interval::{Interval, Intervals};
use crate::sync::project::{CHEAP_CHECK_BYTES, DEAR_CHECK_INTERVAL, OnPlan};
use crate::sync::state::{Scan, ScanKind};
use crate::time::Timestamp;

/// From an event's reception to its being stored, at most.
const STORED_WITHIN: TimeDelta = TimeDelta::hours(1);
/// A window is taken for empty when nothing was received in it nor for so long before it.
const EMPTY_BEFORE: i64 = 24;

/// Rows that `PostHog` counts, by hour of their arrival since the epoch.
#[derive(Debug, Default)]
pub(super) struct Stored {
    rows: BTreeMap<i64, u64>,
    /// Bytes that the server has read for it, when it counts them.
    pub(super) bytes: Option<u64>,
}

impl Stored {
    /// Rows that arrived at `from` or later.
    pub(super) fn rows_since(&self, from: Timestamp) -> u64 {
        self.rows.range(hour_of(from)..).map(|(_, rows)| rows).sum()
    }

    /// The first instant at `from` or later whose neighbourhood has rows.
    pub(super) fn first_after(&self, from: Timestamp) -> Timestamp {
        let first = self.rows.range(hour_of(from) - EMPTY_BEFORE..).find(|(_, rows)| **rows > 0);
        first.map_or(Timestamp::MAX, |(hour, _)| start_of(*hour).max(from))
    }
}

impl ExportReader {
    /// Counts what `PostHog` holds of a pass; none when it cannot be counted, or is not counted this
    /// time.
    pub(super) async fn stored(&self, pass: Interval) -> Result<Option<Stored>, Error> {
        let (reader, project) = (&self.reader, self.reader.project);
        if reader.table.arrival.is_none() {
            return Ok(None);
        }
        if !self.may_query {
            tracing::warn!(
                "project {project}: exported {} cannot be compared with PostHog's own count, because the key lacks the scope `query:read`",
                reader.table.stream
            );
            return Ok(None);
        }
        let state = reader.checkpoint.project(project).await.export;
        let recently = state.compared_at.is_some_and(|at| at > reader.client.now().minus(DEAR_CHECK_INTERVAL));
        if recently && state.bytes.is_some_and(|bytes| bytes > CHEAP_CHECK_BYTES) {
            return Ok(None);
        }
        let before = pass.from.minus(TimeDelta::hours(EMPTY_BEFORE));
        let from = state.compared_until.map_or(before, |compared| compared.min(before));
        match reader.arrivals(start_of(hour_of(from)), pass.to).await {
            Ok(Some((rows, bytes))) => Ok(Some(Stored { rows, bytes })),
            Ok(None) => {
                tracing::warn!("project {project}: PostHog cannot count its {} in time, so exports are not compared with its count", reader.table.stream);
                Ok(None)
            }
            Err(error) if error.failure_type() == FailureType::Config => {
                tracing::warn!("project {project}: exports cannot be compared with PostHog's own count: {error}");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Compares what has been exported up to the end of a window, and completes it.
    ///
    /// # Errors
    /// When what is missing cannot be read.
    pub(super) async fn compare(
        &self,
        window: Interval,
        stored: Option<&Stored>,
        on_plan: OnPlan<'_>,
    ) -> Result<(), Error> {
        let (reader, project) = (&self.reader, self.reader.project);
        let Some(stored) = stored else { return Ok(()) };
        let state = reader.checkpoint.project(project).await.export;
        let end = hour_of(window.to.minus(STORED_WITHIN));
        // The first hour of the first window may have begun before it.
        let begin = state.compared_until.map_or_else(|| hour_of(window.from.plus_micros(super::state::HOUR - 1)), hour_of);
        if begin >= end {
            return Ok(());
        }
        let received = |hour: &i64| state.received.get(hour).copied().unwrap_or(0);
        let short: Vec<i64> =
            stored.rows.range(begin..end).filter(|(hour, rows)| received(hour) < **rows).map(|(hour, _)| *hour).collect();
        if let (Some(first), Some(last)) = (short.first(), short.last()) {
            let scan = self.hours(*first, *last);
            // The count has copies of rows in it that exports have only once.
            let counted = reader.count(&scan, reader.wanted()).await?;
            let exported: u64 = state.received.range(*first..=*last).map(|(_, rows)| rows).sum();
            if counted > exported {
                tracing::warn!(
                    "project {project}: exports have left out {} of {counted} {} that arrived from {} to {}; these are read by query",
                    counted - exported,
                    reader.table.stream,
                    start_of(*first),
                    scan.until
                );
                self.repair(scan, on_plan).await?;
            }
        }
        self.compared(end).await
    }

    /// Everything that arrived in these hours, the last one included.
    fn hours(&self, first: i64, last: i64) -> Scan {
        Scan {
            kind: ScanKind::Repair,
            interval: self.reader.wanted(),
            arrived_from: Some(start_of(first)),
            until: start_of(last + 1),
            closed: Intervals::default(),
            open: Vec::new(),
        }
    }

    /// Reads by query what exports have left out, or goes on with it.
    pub(super) async fn repair(&self, scan: Scan, on_plan: OnPlan<'_>) -> Result<(), Error> {
        let end = hour_of(scan.until);
        self.reader.run_scan(scan, on_plan).await?;
        self.reader.checkpoint.update(self.reader.project, |state| state.scan = None).await?;
        self.compared(end).await
    }

    /// Notes that everything that arrived before an hour has been compared.
    async fn compared(&self, end: i64) -> Result<(), Error> {
        let change = |state: &mut crate::sync::state::ProjectState| {
            state.export.received = state.export.received.split_off(&end);
            state.export.compared_until = Some(start_of(end));
        };
        self.reader.checkpoint.update(self.reader.project, change).await
    }
}
