//! Whether the first read of a stream is quicker by query or by export.

use std::fmt;
use std::time::Duration;

use crate::time::DAY;

/// What a page of rows takes, from the request to its last row.
const PAGE: Duration = Duration::from_secs(5);
/// Bytes that `PostHog` reads for a row, properties included.
pub(super) const ROW_BYTES: u64 = 500;
/// Bytes that a project may read in an hour, on the smallest plan.
const BYTES_PER_HOUR: u64 = 20_000_000_000;
/// What a run takes: `PostHog` waits half a minute until the interval is old enough, and prepares files.
const RUN: Duration = Duration::from_secs(45);
/// Days of one run.
const RUN_DAYS: u64 = 7;

/// What there is to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FirstRead {
    pub rows: u64,
    /// Rows of a page.
    pub page_size: u64,
    /// Pages that are read at a time.
    pub pages_at_a_time: u64,
    /// Whether each page makes the server read all rows, because it looks for the newest version of each.
    pub pages_read_all: bool,
    /// From the first possible change until now, in microseconds.
    pub age: i64,
    pub runs_at_a_time: u64,
}

/// Estimates for both ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FirstReadTimes {
    pub query: Duration,
    pub export: Duration,
    pub runs: u64,
}

impl FirstRead {
    /// How long it takes either way.
    pub(super) fn estimate(&self) -> FirstReadTimes {
        let pages = self.rows.div_ceil(self.page_size.max(1)).max(1);
        let rows_read = if self.pages_read_all { self.rows.saturating_mul(pages) } else { self.rows };
        let query = query_time(pages, self.pages_at_a_time, rows_read.saturating_mul(ROW_BYTES));
        let days = u64::try_from(self.age / DAY).unwrap_or_default() + 1;
        let runs = days.div_ceil(RUN_DAYS);
        FirstReadTimes { query, export: export_time(runs, self.runs_at_a_time), runs }
    }
}

impl FirstReadTimes {
    /// Whether queries are quicker.
    pub(super) fn is_quicker_by_query(&self) -> bool {
        self.query <= self.export
    }
}

impl fmt::Display for FirstReadTimes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = |time: Duration| time.as_secs().div_ceil(60);
        let (query, export) = (minutes(self.query), minutes(self.export));
        write!(formatter, "about {query} min by query, {export} min by {} export runs", self.runs)
    }
}

/// How long so many pages take, which read so many bytes on the server.
pub(super) fn query_time(pages: u64, at_a_time: u64, bytes: u64) -> Duration {
    times(PAGE, pages.div_ceil(at_a_time.max(1))).max(seconds(bytes / (BYTES_PER_HOUR / 3600)))
}

/// How long so many export runs take.
pub(super) fn export_time(runs: u64, at_a_time: u64) -> Duration {
    times(RUN, runs.div_ceil(at_a_time.max(1)))
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn times(duration: Duration, count: u64) -> Duration {
    seconds(duration.as_secs().saturating_mul(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn persons(rows: u64, days: i64) -> FirstReadTimes {
        let read = FirstRead {
            rows,
            page_size: 10_000,
            pages_at_a_time: 1,
            pages_read_all: true,
            age: days * DAY,
            runs_at_a_time: 3,
        };
        read.estimate()
    }

    #[test]
    fn few_persons_of_an_old_project_are_read_by_query() {
        let estimate = persons(350, 280);
        assert_eq!((estimate.query, estimate.runs), (PAGE, 41));
        assert!(estimate.is_quicker_by_query());
        assert_eq!(estimate.to_string(), "about 1 min by query, 11 min by 41 export runs");
    }

    #[test]
    fn many_persons_are_exported_because_each_page_reads_all_of_them() {
        assert!(persons(200_000, 365).is_quicker_by_query());
        assert!(!persons(1_000_000, 365).is_quicker_by_query(), "50 GB are two and a half hours of the budget");
        assert!(!persons(u64::MAX, i64::MAX / DAY).is_quicker_by_query());
        let linear = FirstRead {
            rows: 1_000_000,
            page_size: 10_000,
            pages_at_a_time: 1,
            pages_read_all: false,
            age: 365 * DAY,
            runs_at_a_time: 3,
        };
        assert!(linear.estimate().is_quicker_by_query());
    }

    #[test]
    fn a_project_of_today_needs_one_run() {
        assert_eq!(persons(5, 0), FirstReadTimes { query: PAGE, export: RUN, runs: 1 });
        assert!(!persons(500_000, 0).is_quicker_by_query());
    }
}
