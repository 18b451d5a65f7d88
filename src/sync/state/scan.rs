//! A scan: a piece of work with fixed bounds, and how far it has come.

use serde::{Deserialize, Serialize};

use super::event_filter::EventFilter;
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
    /// What has arrived since the last scan.
    Tail,
    /// What has arrived since the last check with a position before the late window.
    Late,
    /// What exports have left out.
    Repair,
}

/// A piece of work with fixed bounds, so that the rows in it do not change while it is read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scan {
    /// What it is for.
    pub kind: ScanKind,
    /// Positions to read.
    #[serde(flatten)]
    pub interval: Interval,
    /// Only rows received at this time or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrived_from: Option<Timestamp>,
    /// Only rows received before this time; the watermark when the scan is done.
    pub until: Timestamp,
    /// Only rows that arrived at quite another time than they are about; see [`Table::far`].
    ///
    /// [`Table::far`]: crate::streams::Table::far
    #[serde(default, skip_serializing_if = "is_default")]
    pub far: bool,
    /// The events that have been chosen; unknown in states of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<EventFilter>,
    /// What has been read and agreed upon.
    #[serde(default)]
    pub closed: Intervals,
    /// Windows that have been read in part.
    #[serde(default)]
    pub open: Vec<OpenWindow>,
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
        Self { sort_key: key.sort_key, id: key.id }
    }
}

impl Scan {
    /// Whether what has been read of it is of use to somebody who wants these events at `wanted`.
    pub fn serves(&self, names: &EventFilter, wanted: Interval, incremental: bool) -> bool {
        let chosen = self.names.as_ref().is_none_or(|before| names.is_within(before));
        // An incremental sync reads afterwards what other dates have added.
        chosen && (incremental || self.interval.intersection(wanted) == wanted)
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
