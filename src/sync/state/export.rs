//! Where reading a project by exports stands, as the state keeps it.
//!
//! ```json
//! {"until": "2026-11-23T14:00:00.000000Z",
//!  "windows": [{"from": "…", "to": "…", "run": "0190…", "files": ["0191…"]}],
//!  "cells": {"bounds": ["…"], "emitted": {"2026-11-23T13:00:00.000000Z": {"2026-11-23": "1200 9f3c"}}}}
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::day_counts::DayCounts;
use super::stream::is_default;
use crate::records::Fingerprint;
use crate::sync::ledger::{CellFigures, Part};
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
    /// The cells of a ledger that the pass reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cells: Option<ExportedCells>,
    /// What has been exported of a table whose rows are counted by day afterwards, until that has been done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub days: Option<ExportedDays>,
    /// When rows were counted last, to plan a pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counted_at: Option<Timestamp>,
    /// Bytes that the count made the server read, which decides how often it is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// In states of version 1: what was ingested before this has been compared with PostHog's count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compared_until: Option<Timestamp>,
}

/// The cells of a ledger that a pass reads, and what has been emitted of each by the windows that are done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedCells {
    /// Which of the two ledgers.
    #[serde(default, skip_serializing_if = "is_default")]
    pub part: Part,
    /// Ends of the ledger's slices. With others, these are other cells.
    pub bounds: Vec<Timestamp>,
    /// Every cell that is read, also those of which nothing has been emitted yet.
    pub emitted: CellFigures,
    /// Where the next window begins: what was ingested before has been read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Timestamp>,
}

/// What a pass has exported, by day: of rows whose last export cannot have been before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedDays {
    /// Where the pass began.
    pub from: Timestamp,
    /// Rows of the windows that are done.
    pub rows: DayCounts,
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
    /// What has been emitted of each cell; it goes with the run when that has to be started again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub emitted: CellFigures,
    /// Rows by day, where these are counted afterwards; they go with the run, too.
    #[serde(default, skip_serializing_if = "is_default")]
    pub days: DayCounts,
    /// Whether all files have been read; then the records count as emitted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub done: bool,
}

impl ExportWindow {
    /// A window whose run has just been started.
    pub(crate) fn new(interval: Interval, run: String) -> Self {
        Self {
            interval,
            run,
            files: Vec::new(),
            rows: 0,
            emitted: CellFigures::new(),
            days: DayCounts::default(),
            done: false,
        }
    }
}

impl ExportState {
    /// All files of the first window have been read.
    pub(crate) fn complete_first(&mut self) {
        let Some(window) = self.windows.first_mut() else { return };
        window.done = true;
        let emitted = std::mem::take(&mut window.emitted);
        let days = std::mem::take(&mut window.days);
        if let Some(cells) = &mut self.cells {
            add(&mut cells.emitted, emitted);
        }
        if let Some(exported) = &mut self.days {
            exported.rows.add_all(&days);
        }
    }
}

/// Adds figures to others, cell by cell.
pub(crate) fn add(sum: &mut CellFigures, more: CellFigures) {
    for (slice, periods) in more {
        let slice = sum.entry(slice).or_default();
        for (period, figure) in periods {
            let cell: &mut Fingerprint = slice.entry(period).or_default();
            *cell = cell.plus(figure);
        }
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
