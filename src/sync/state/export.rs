//! Where reading a project by exports stands, as the state keeps it.
//!
//! ```json
//! {"until": "2026-11-23T14:00:00.000000Z",
//!  "windows": [{"from": "…", "to": "…", "run": "0190…", "files": ["0191…"]}],
//!  "compared_until": "…", "received": {"498734": 1234}, "far": {"498734": 5}, "compared_at": "…", "bytes": 1234}
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::stream::is_default;
use crate::sync::state::interval::Interval;
use crate::time::Timestamp;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExportState {
    /// Where the pass under way will end; none between syncs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Windows with a run, in order; the first one is being read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<ExportWindow>,
    /// Everything received before this has been compared with PostHog's count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compared_until: Option<Timestamp>,
    /// Records emitted since then, by hour of their arrival since the epoch.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub received: BTreeMap<i64, u64>,
    /// Those among them that arrived more than a day before or after the time that they are about.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub far: BTreeMap<i64, u64>,
    /// When it was compared last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compared_at: Option<Timestamp>,
    /// Bytes that the count made the server read, which decides how often it is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// A window of ingestion time whose run has been started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportWindow {
    /// Times of ingestion.
    #[serde(flatten)]
    pub interval: Interval,
    /// The run's id.
    pub run: String,
    /// Files whose records have been emitted.
    #[serde(default)]
    pub files: Vec<String>,
    /// Rows that these files have.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rows: u64,
    /// Their records by hour of arrival; they go with the run when it has to be started again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub received: BTreeMap<i64, u64>,
    /// Those among them that are about quite another time.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub far: BTreeMap<i64, u64>,
    /// Whether all files have been read; then the records count as received.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub done: bool,
}

impl ExportWindow {
    /// A window whose run has just been started.
    pub(crate) fn new(interval: Interval, run: String) -> Self {
        Self { interval, run, files: Vec::new(), rows: 0, received: BTreeMap::new(), far: BTreeMap::new(), done: false }
    }
}

impl ExportState {
    /// All files of the first window have been read.
    pub(crate) fn complete_first(&mut self) {
        let Some(window) = self.windows.first_mut() else { return };
        window.done = true;
        add(&mut self.received, std::mem::take(&mut window.received));
        add(&mut self.far, std::mem::take(&mut window.far));
    }
}

/// Adds counts to others, hour by hour.
pub(crate) fn add(sum: &mut BTreeMap<i64, u64>, more: BTreeMap<i64, u64>) {
    for (hour, count) in more {
        *sum.entry(hour).or_default() += count;
    }
}

/// Microseconds of an hour.
pub(crate) const HOUR: i64 = 3_600_000_000;

/// The number of the hour since the epoch.
pub(crate) fn hour_of(instant: Timestamp) -> i64 {
    instant.micros().div_euclid(HOUR)
}

/// The first instant of an hour.
pub(crate) fn start_of(hour: i64) -> Timestamp {
    Timestamp::from_micros(hour.saturating_mul(HOUR))
}
