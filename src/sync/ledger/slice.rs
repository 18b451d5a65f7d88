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
#[serde(try_from = "SavedSlice", into = "SavedSlice")]
pub struct Slice {
    /// First ingestion time after it.
    pub until: Timestamp,
    /// What has been emitted, by period. A period without a cell is one without rows.
    pub cells: BTreeMap<Period, Cell>,
    /// What has been emitted of added names.
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

/// A slice as the state keeps it. Cells that are not settled are kept apart and not marked one by one: that
/// is shorter, for all cells of a young slice are unsettled, and nearly none of an old one.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedSlice {
    until: Timestamp,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    cells: BTreeMap<Period, Cell>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    unsettled: BTreeMap<Period, Cell>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    added: BTreeMap<Period, Cell>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    added_unsettled: BTreeMap<Period, Cell>,
}

impl From<Slice> for SavedSlice {
    fn from(slice: Slice) -> Self {
        let (cells, unsettled) = slice.cells.into_iter().partition(|(_, cell)| cell.settled);
        let (added, added_unsettled) = slice.added.into_iter().partition(|(_, cell)| cell.settled);
        Self { until: slice.until, cells, unsettled, added, added_unsettled }
    }
}

impl TryFrom<SavedSlice> for Slice {
    type Error = String;

    fn try_from(saved: SavedSlice) -> Result<Self, String> {
        let both = |mut cells: BTreeMap<Period, Cell>, unsettled: BTreeMap<Period, Cell>| {
            for (period, cell) in unsettled {
                if cells.insert(period, Cell { settled: false, ..cell }).is_some() {
                    return Err(format!("{period} is both settled and unsettled"));
                }
            }
            Ok(cells)
        };
        let (cells, added) = (both(saved.cells, saved.unsettled)?, both(saved.added, saved.added_unsettled)?);
        Ok(Self { until: saved.until, cells, added })
    }
}
