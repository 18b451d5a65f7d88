//! A slice of ingestion time with its cells.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::cell::Cell;
use super::period::Period;
use crate::time::Timestamp;

/// Which of the two ledgers that share their slices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The events that have been chosen from the beginning.
    #[default]
    Main,
    /// Names that were added and have not all been read yet.
    Added,
}

/// A cell by the number of its slice and its period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CellKey {
    /// Index into [`Ledger::slices`](super::Ledger::slices).
    pub slice: usize,
    /// Event time.
    pub period: Period,
}

/// A half-open interval of ingestion time: from the end of the slice before (or from the beginning of
/// time) to `until`. Its bounds are the bounds of earlier syncs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slice {
    /// First ingestion time after it.
    pub until: Timestamp,
    /// What has been emitted, by period. A period without a cell is one without rows.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cells: BTreeMap<Period, Cell>,
    /// What has been emitted of added names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub added: BTreeMap<Period, Cell>,
}

impl Slice {
    /// A slice of which nothing has been emitted.
    pub fn new(until: Timestamp) -> Self {
        Self { until, cells: BTreeMap::new(), added: BTreeMap::new() }
    }

    /// The cells of one part.
    pub fn part(&self, part: Part) -> &BTreeMap<Period, Cell> {
        match part {
            Part::Main => &self.cells,
            Part::Added => &self.added,
        }
    }

    /// The cells of one part, to change.
    pub(super) fn part_mut(&mut self, part: Part) -> &mut BTreeMap<Period, Cell> {
        match part {
            Part::Main => &mut self.cells,
            Part::Added => &mut self.added,
        }
    }

    /// Returns true if nothing has been emitted of it.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty() && self.added.is_empty()
    }
}
