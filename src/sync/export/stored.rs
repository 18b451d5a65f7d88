//! Counts what a pass has to export, to plan its windows.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use serde_json::value::RawValue;

use super::reader::{ExportReader, begins};
use crate::error::{Error, FailureType};
use crate::posthog::Predicate;
use crate::sync::state::export::{hour_of, start_of};
use crate::sync::state::interval::Interval;
use crate::time::Timestamp;

/// A count that reads less than this (2 % of the hourly budget of a free project) is part of every sync.
const CHEAP_BYTES: u64 = 400_000_000;
/// A more expensive one is done once in so much time.
const EXPENSIVE_EVERY: TimeDelta = TimeDelta::hours(24);
/// A window is taken for empty when nothing was received in it nor for so long before it.
const EMPTY_BEFORE: i64 = 24;

/// Rows that `PostHog` counts, by hour of their arrival since the epoch.
#[derive(Debug, Default)]
pub(crate) struct StoredByHour {
    rows: BTreeMap<i64, u64>,
    /// From this day on there may be rows that were not counted: see [`ExportReader::hidden_before`].
    hidden_from: Option<Timestamp>,
    /// Bytes that the server has read for it, when it counts them.
    pub(super) bytes: Option<u64>,
}

impl StoredByHour {
    /// Rows that arrived at `from` or later.
    pub(crate) fn rows_since(&self, from: Timestamp) -> u64 {
        self.rows.range(hour_of(from)..).map(|(_, rows)| rows).sum()
    }

    /// Rows that arrived in an interval. Of intervals that follow each other, each hour counts for one.
    pub(super) fn rows_in(&self, interval: Interval) -> u64 {
        let (from, to) = (hour_of(interval.from), hour_of(interval.to));
        let is_last = self.rows.keys().next_back().is_none_or(|last| *last <= to);
        let rows = self.rows.range(from..).take_while(|(hour, _)| is_last || **hour < to);
        rows.map(|(_, rows)| rows).sum()
    }

    /// The hour of the first row.
    pub(crate) fn first(&self) -> Timestamp {
        let first = self.rows.iter().find(|(_, rows)| **rows > 0);
        first.map_or(Timestamp::MAX, |(hour, _)| start_of(*hour))
    }

    /// The first instant at `from` or later whose neighbourhood has rows.
    pub(crate) fn first_after(&self, from: Timestamp) -> Timestamp {
        if let Some(hidden_from) = self.hidden_from.filter(|_| from < self.first()) {
            return from.max(hidden_from);
        }
        let first = self.rows.range(hour_of(from) - EMPTY_BEFORE..).find(|(_, rows)| **rows > 0);
        first.map_or(Timestamp::MAX, |(hour, _)| start_of(*hour).max(from))
    }
}

impl ExportReader {
    /// Counts what `PostHog` holds of a pass; none when it cannot be counted, or is not counted this time.
    pub(crate) async fn stored(&self, pass: Interval) -> Result<Option<StoredByHour>, Error> {
        let (reader, project) = (&self.reader, self.reader.context.project);
        if !self.may_query || reader.table.ingestion_time.is_none() && reader.table.fed_by.is_none() {
            return Ok(None);
        }
        let state = reader.checkpoint.project(project).await;
        // What was imported may be older than its project.
        let earliest = if begins(&state) { pass.from.min(self.earliest()) } else { pass.from };
        let state = state.export;
        let recently = state.counted_at.is_some_and(|at| at > reader.context.client.now().minus(EXPENSIVE_EVERY));
        // A limit for exported rows needs the count.
        let recently = recently && !self.supervision.row_limit.is_set();
        if recently && state.bytes.is_some_and(|bytes| bytes > CHEAP_BYTES) {
            return Ok(None);
        }
        let from = earliest.minus(TimeDelta::hours(EMPTY_BEFORE));
        match self.arrivals(start_of(hour_of(from)), pass.to).await {
            Ok(Some((rows, bytes))) => Ok(Some(StoredByHour { rows, bytes, hidden_from: None })),
            Ok(None) => Ok(None),
            Err(error) if error.failure_type() == FailureType::Config => {
                tracing::warn!("what there is to export cannot be counted: {error}");
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
        stored.hidden_from = first.map(|first| Timestamp::from_day(first.day()));
        Ok(stored.hidden_from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_begin_where_rows_may_be() {
        let hour = |day: i64, hour: i64| start_of(hour_of(Timestamp::from_day(day)) + hour);
        let rows = BTreeMap::from([(hour_of(hour(20_000, 10)), 5)]);
        let counted = StoredByHour { rows: rows.clone(), ..StoredByHour::default() };
        assert_eq!(counted.first_after(hour(19_000, 0)), hour(20_000, 10));
        assert_eq!(counted.first_after(hour(20_000, 12)), hour(20_000, 12));
        assert_eq!(counted.first_after(hour(20_002, 0)), Timestamp::MAX);

        // No window is spent on the time before rows that were not counted.
        let hidden = StoredByHour { rows, hidden_from: Some(hour(19_500, 0)), bytes: None };
        assert_eq!(hidden.first_after(hour(19_000, 0)), hour(19_500, 0));
        assert_eq!(hidden.first_after(hour(19_600, 0)), hour(19_600, 0));
        assert_eq!(hidden.first_after(hour(20_000, 12)), hour(20_000, 12));
    }
}
