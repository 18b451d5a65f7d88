//! The cells of a ledger that an export reads.

use crate::records::{LineTimes, day_of};
use crate::sync::ledger::{CellFigures, FoldedMonths, Names, Period};
use crate::sync::state::interval::Interval;
use crate::time::Timestamp;

/// The cells of a ledger that are read.
#[derive(Debug)]
pub struct Cells {
    /// Events that they are about.
    pub(super) names: Names,
    /// Ends of the ledger's slices.
    pub(super) bounds: Vec<Timestamp>,
    pub(super) months: FoldedMonths,
    /// The cells; their figures are of no meaning here.
    pub(super) wanted: CellFigures,
    /// Event times that the configuration asks for; a part of the first and the last day.
    pub(super) asked: Interval,
}

impl Cells {
    /// The cell of a line, by the end of its slice and its period, if it is one of these.
    pub(super) fn cell_of(&self, times: &LineTimes) -> Option<(Timestamp, Period)> {
        if times.sort_key < self.asked.from || self.asked.to <= times.sort_key {
            return None;
        }
        let slice = *self.bounds.get(self.bounds.partition_point(|until| *until <= times.received))?;
        let period = self.months.period_of(day_of(times.sort_key));
        self.wanted.get(&slice)?.contains_key(&period).then_some((slice, period))
    }
}
