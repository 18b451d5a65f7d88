//! Adding cells to cells.

use std::collections::BTreeMap;

use super::cell::Cell;
use super::period::Period;
use super::rules::{Rule, holds};

/// Adds cells to others. A cell without a counterpart stays settled only where the absence of rows has
/// been proven since these arrivals were settled.
pub(super) fn combine(
    older: BTreeMap<Period, Cell>,
    mut newer: BTreeMap<Period, Cell>,
    is_proven: impl Fn(Period) -> bool,
) -> BTreeMap<Period, Cell> {
    let stays = |period: Period| is_proven(period) || !holds(Rule::UnsettleUnproven);
    for (period, cell) in &mut newer {
        cell.settled &= older.contains_key(period) || stays(*period);
    }
    for (period, cell) in older {
        let sum = match newer.get(&period) {
            Some(&other) if holds(Rule::MergeAdds) => cell.plus(other),
            Some(_) => cell,
            None => Cell { settled: cell.settled && stays(period), ..cell },
        };
        newer.insert(period, sum);
    }
    newer
}
