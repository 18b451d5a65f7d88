//! A scan: a piece of work with fixed bounds, and how far it has come.

use serde::{Deserialize, Serialize};

use super::interval::{Interval, Intervals};
use super::stream::is_default;
use crate::posthog::RowKey;
use crate::time::Timestamp;

/// What a scan is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScanKind {
    /// Everything from the start date on.
    Backfill,
    /// What other dates in the configuration have added.
    Extension,
    /// What has changed since the last scan.
    Tail,
}

/// A piece of work with fixed bounds, so that the rows in it do not change while it is read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scan {
    /// What it is for.
    pub kind: ScanKind,
    /// Positions to read.
    #[serde(flatten)]
    pub interval: Interval,
    /// The watermark when the scan is done.
    pub until: Timestamp,
    /// Which rows to read; all of them without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<Changed>,
    /// Bytes that the server has read to count the rows, if it reports them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// What has been read and agreed upon.
    #[serde(default)]
    pub closed: Intervals,
    /// Windows that have been read in part.
    #[serde(default)]
    pub open: Vec<OpenWindow>,
}

/// Rows that have changed in some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// When the changes were ingested.
    #[serde(flatten)]
    pub interval: Interval,
    /// Whether only those rows are meant that exports of that time may have left out.
    #[serde(default, skip_serializing_if = "is_default")]
    pub left_out: bool,
    /// Whether only those rows are meant that exports of that time must have had, by whatever version.
    #[serde(default, skip_serializing_if = "is_default")]
    pub exported: bool,
}

impl Changed {
    /// All rows that have changed in this time.
    pub(crate) fn within(interval: Interval) -> Self {
        Self { interval, left_out: false, exported: false }
    }
}

/// Up to when changes have been read, of a table that shows them ([`Changes`](crate::streams::Changes)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangesRead {
    /// Changes of recent rows.
    pub recent: Timestamp,
    /// Changes of all rows.
    pub all: Timestamp,
    /// Bytes that the server reads to count the changes of all rows, if it reports them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// A window that has been read in part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpenWindow {
    /// Positions of the window.
    #[serde(flatten)]
    pub interval: Interval,
    /// The last row that has been emitted.
    pub after: SavedKey,
    /// Records emitted so far.
    pub rows: u64,
}

/// A [`RowKey`] as the state keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedKey {
    #[serde(rename = "position")]
    sort_key: Timestamp,
    id: String,
}

impl From<RowKey> for SavedKey {
    fn from(key: RowKey) -> Self {
        Self { sort_key: key.sort_key, id: key.id }
    }
}

impl From<SavedKey> for RowKey {
    fn from(key: SavedKey) -> Self {
        Self { sort_key: key.sort_key, id: key.id, identity: Vec::new() }
    }
}

impl Scan {
    /// A scan of all rows of an interval of which nothing has been read.
    pub fn new(kind: ScanKind, interval: Interval, until: Timestamp) -> Self {
        Self { kind, interval, until, changed: None, bytes: None, closed: Intervals::default(), open: Vec::new() }
    }

    /// Whether what has been read of it is of use to a sync that asks for `wanted`.
    pub fn serves(&self, wanted: Interval, incremental: bool) -> bool {
        // An incremental sync reads afterwards what other dates have added.
        incremental || self.interval.intersection(wanted) == wanted
    }

    /// Marks a window as read and agreed upon.
    pub fn close(&mut self, interval: Interval) {
        self.open.retain(|open| open.interval.from != interval.from);
        self.closed.add(interval);
    }

    /// Remembers how far a window has been read; none when it is read anew.
    pub fn set_open(&mut self, interval: Interval, progress: Option<(RowKey, u64)>) {
        self.open.retain(|open| open.interval.from != interval.from);
        if let Some((after, rows)) = progress {
            self.open.push(OpenWindow { interval, after: after.into(), rows });
            self.open.sort_unstable_by_key(|open| open.interval.from);
        }
    }
}
