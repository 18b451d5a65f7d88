//! Compares what has been exported with what `PostHog` counts, and reads what is missing.
//!
//! An export leaves out events whose `timestamp` is far from their ingestion (`lookback_days` in
//! `batch_exports/…/sql/events.py`), without a word. `HogQL` does not show the time of ingestion that
//! exports go by, but `created_at`, which precedes it by seconds to minutes. So records are counted
//! by hour of `created_at`, and hours are compared an hour after their end.

use std::collections::BTreeMap;

use chrono::TimeDelta;

use super::reader::{ExportReader, begins};
use serde_json::value::RawValue;

use crate::error::{Error, FailureType};
use crate::posthog::Predicate;
use crate::sync::observer::OnEstimate;
use crate::sync::query::scans::{CHEAP_CHECK_BYTES, DEAR_CHECK_INTERVAL};
use crate::sync::state::export::{HOUR, hour_of, start_of};
use crate::sync::state::interval::{Interval, Intervals};
use crate::sync::state::scan::{Scan, ScanKind};
use crate::sync::state::table::ProjectState;
use crate::time::Timestamp;

/// From an event's reception to its being stored, at most.
const STORED_WITHIN: TimeDelta = TimeDelta::hours(1);
/// A window is taken for empty when nothing was received in it nor for so long before it.
const EMPTY_BEFORE: i64 = 24;

/// Rows that `PostHog` counts, by hour of their arrival since the epoch.
#[derive(Debug, Default)]
pub(crate) struct StoredByHour {
    rows: BTreeMap<i64, u64>,
    /// Hours before the first row may have rows all the same: see [`ExportReader::hidden_before`].
    hides_older: bool,
    /// Bytes that the server has read for it, when it counts them.
    pub(super) bytes: Option<u64>,
}

impl StoredByHour {
    /// Rows that arrived at `from` or later.
    pub(crate) fn rows_since(&self, from: Timestamp) -> u64 {
        self.rows.range(hour_of(from)..).map(|(_, rows)| rows).sum()
    }

    /// The hour of the first row.
    pub(crate) fn first(&self) -> Timestamp {
        let first = self.rows.iter().find(|(_, rows)| **rows > 0);
        first.map_or(Timestamp::MAX, |(hour, _)| start_of(*hour))
    }

    /// The first instant at `from` or later whose neighbourhood has rows.
    pub(crate) fn first_after(&self, from: Timestamp) -> Timestamp {
        if self.hides_older && from < self.first() {
            return from;
        }
        let first = self.rows.range(hour_of(from) - EMPTY_BEFORE..).find(|(_, rows)| **rows > 0);
        first.map_or(Timestamp::MAX, |(hour, _)| start_of(*hour).max(from))
    }
}

impl ExportReader {
    /// Whether what a window has is compared with `PostHog`'s count sooner or later. The end of a full
    /// refresh is not, because there is no next sync.
    pub(crate) async fn is_compared(&self, window: Interval) -> bool {
        let reader = &self.reader;
        let is_last = async || {
            let until = reader.checkpoint.project(reader.context.project).await.export.until;
            until.is_none_or(|until| window.to > until.minus(STORED_WITHIN * 2))
        };
        self.may_query && reader.table.ingestion_time.is_some() && (reader.context.incremental || !is_last().await)
    }

    /// Counts what `PostHog` holds of a pass; none when it cannot be counted, or is not counted this
    /// time.
    pub(crate) async fn stored(&self, pass: Interval) -> Result<Option<StoredByHour>, Error> {
        let (reader, project) = (&self.reader, self.reader.context.project);
        let compared = reader.table.ingestion_time.is_some();
        if !compared && reader.table.fed_by.is_none() {
            return Ok(None);
        }
        if !self.may_query {
            if compared {
                tracing::warn!(
                    "exported {} cannot be compared with PostHog's own count, because the key lacks the scope `query:read`",
                    reader.table.stream
                );
            }
            return Ok(None);
        }
        let state = reader.checkpoint.project(project).await;
        // What was imported may be older than its project.
        let earliest = if begins(&state) { pass.from.min(self.earliest()) } else { pass.from };
        let state = state.export;
        let recently = state.compared_at.is_some_and(|at| at > reader.context.client.now().minus(DEAR_CHECK_INTERVAL));
        if recently && state.bytes.is_some_and(|bytes| bytes > CHEAP_CHECK_BYTES) {
            return Ok(None);
        }
        let before = earliest.minus(TimeDelta::hours(EMPTY_BEFORE));
        let from = state.compared_until.map_or(before, |compared| compared.min(before));
        match self.arrivals(start_of(hour_of(from)), pass.to).await {
            Ok(Some((rows, bytes))) => Ok(Some(StoredByHour { rows, bytes, hides_older: false })),
            Ok(None) => {
                tracing::warn!(
                    "PostHog cannot count its {} in time, so exports are not compared with its count",
                    reader.table.stream
                );
                Ok(None)
            }
            Err(error) if error.failure_type() == FailureType::Config => {
                tracing::warn!("exports cannot be compared with PostHog's own count: {error}");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Where the rows of a table begin that another one feeds, if that is before the first row of the other:
    /// a project's retention hides its old events from queries, but not the sessions that they were. The
    /// hours before are not taken for empty then.
    pub(super) async fn hidden_before(&self, stored: &mut StoredByHour) -> Result<Option<Timestamp>, Error> {
        let reader = &self.reader;
        if reader.table.fed_by.is_none() {
            return Ok(None);
        }
        let mut predicate = Predicate::default();
        predicate.range(reader.table.sort_key, reader.wanted().from, reader.wanted().to);
        let query = predicate.select(&format!("min({})", reader.table.sort_key), reader.table.from, "LIMIT 1");
        let response = reader.ask::<(Box<RawValue>,)>(&query).await?;
        let first = response.and_then(|response| Timestamp::parse_json(response.rows.first()?.0.get()));
        // The server returns 1970 as the minimum of no rows.
        let first = first.filter(|first| *first > Timestamp::MIN && *first < stored.first());
        stored.hides_older = first.is_some();
        Ok(first.map(|first| Timestamp::from_day(first.day())))
    }

    /// Compares what has been exported up to the end of a window, and completes it.
    ///
    /// # Errors
    /// When what is missing cannot be read.
    pub(crate) async fn compare(
        &self,
        window: Interval,
        stored: Option<&StoredByHour>,
        on_estimate: OnEstimate<'_>,
    ) -> Result<(), Error> {
        let (reader, project) = (&self.reader, self.reader.context.project);
        let Some(stored) = stored.filter(|_| reader.table.ingestion_time.is_some()) else { return Ok(()) };
        let state = reader.checkpoint.project(project).await.export;
        let end = hour_of(window.to.minus(STORED_WITHIN));
        // The first hour of the first window may have begun before it.
        let begin = state.compared_until.map_or_else(|| hour_of(window.from.plus_micros(HOUR - 1)), hour_of);
        if begin >= end {
            // From here on, however short the windows are.
            return if state.compared_until.is_none() { self.compared(begin).await } else { Ok(()) };
        }
        let received = |hour: &i64| state.received.get(hour).copied().unwrap_or(0);
        let short: Vec<i64> = stored
            .rows
            .range(begin..end)
            .filter(|(hour, rows)| received(hour) < **rows)
            .map(|(hour, _)| *hour)
            .collect();
        if let (Some(first), Some(last)) = (short.first(), short.last()) {
            // The count has copies of rows in it, of which an export has one, from whichever hour.
            let counted = reader.count(&self.hours(begin, end - 1, false), reader.wanted()).await?;
            let sum = |hours: &BTreeMap<i64, u64>| hours.range(begin..end).map(|(_, rows)| rows).sum::<u64>();
            let (exported, far) = (sum(&state.received), sum(&state.far));
            // Most likely these are far from the time of their arrival: exports look back some days only.
            // Asked in any case, because a row that came with two runs makes up for one that is missing.
            let scan = self.hours(begin, end - 1, true);
            let counted_far = reader.count(&scan, reader.wanted()).await?;
            if counted > exported || counted_far > far {
                tracing::warn!(
                    "exports have left out {} of {counted} {} that arrived from {} to {}, which is read by query",
                    counted.saturating_sub(exported).max(counted_far.saturating_sub(far)),
                    reader.table.stream,
                    start_of(begin),
                    start_of(end)
                );
                if counted_far > far {
                    self.repair(scan, on_estimate).await?;
                }
                if exported - far + counted_far.max(far) < counted {
                    self.repair(self.hours(*first, *last, false), on_estimate).await?;
                }
            }
        }
        self.compared(end).await
    }

    /// Everything that was ingested in an interval.
    pub(super) fn ingested(&self, interval: Interval) -> Scan {
        Scan {
            arrived_from: Some(interval.from),
            until: interval.to,
            ..self.hours(hour_of(interval.from), hour_of(interval.to), false)
        }
    }

    /// Everything that arrived in these hours, the last one included, or only what is about quite
    /// another time.
    fn hours(&self, first: i64, last: i64, far: bool) -> Scan {
        Scan {
            kind: ScanKind::Repair,
            interval: self.reader.wanted(),
            arrived_from: Some(start_of(first)),
            until: start_of(last + 1),
            far,
            names: Some(self.reader.names()),
            closed: Intervals::default(),
            open: Vec::new(),
        }
    }

    /// Reads by query what exports have left out, or goes on with it.
    pub(crate) async fn repair(&self, scan: Scan, on_estimate: OnEstimate<'_>) -> Result<(), Error> {
        let (end, far) = (hour_of(scan.until), scan.far);
        self.reader.run_scan(scan, on_estimate).await?;
        self.reader.checkpoint.update(self.reader.context.project, |state| state.scan = None).await?;
        // After that which is far there can still be something left to compare.
        if far { Ok(()) } else { self.compared(end).await }
    }

    /// Notes that everything that arrived before an hour has been compared.
    async fn compared(&self, end: i64) -> Result<(), Error> {
        let change = |state: &mut ProjectState| {
            state.export.received = state.export.received.split_off(&end);
            state.export.far = state.export.far.split_off(&end);
            state.export.compared_until = Some(start_of(end));
        };
        self.reader.checkpoint.update(self.reader.context.project, change).await
    }
}
