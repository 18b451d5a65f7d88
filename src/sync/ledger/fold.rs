//! Keeps the ledger small: slices merge, and days fold into months. All of it is addition.

use std::collections::BTreeMap;

use super::cell::Cell;
use super::combine::combine;
use super::full_observation::{FullObservation, SETTLED};
use super::period::{Days, Period};
use super::rules::{Rule, holds};
use super::scope::Scope;
use super::slice::Slice;
use super::state::Ledger;
use crate::time::Timestamp;

/// Young slices that are kept apart.
const MOST_SLICES: usize = 7;
/// Slices after syncs that did not end complete, until the next one does.
const MOST_INCOMPLETE: usize = 24;
/// Days before today that are not folded.
pub const UNFOLDED_DAYS: i64 = 60;

/// Merges slices and folds days at the end of a sync; `clock` is the server's time of its last
/// observation.
///
/// Slices in which not all days have been observed merge only with each other: a late event of a day
/// that was not observed would otherwise make a cell of the past differ and come again with all of it.
pub fn tidy(ledger: &mut Ledger, scope: Scope, clock: Timestamp) {
    let Some(until) = ledger.until() else { return };
    if !scope.is_complete {
        merge_young(ledger, scope, clock, MOST_INCOMPLETE);
        return;
    }
    if scope.is_full {
        ledger.full = Some(FullObservation { until, days: scope.days, bytes: scope.bytes });
        ledger.open.clear();
        if ledger.assumed.is_some_and(|assumed| scope.days.contains_all(assumed.days)) {
            ledger.assumed = None;
        }
        let mut base = 0;
        while ledger.slices.get(base + 1).is_some_and(|next| next.until.plus_micros(SETTLED) < clock) {
            if may_merge(ledger, base) {
                merge(ledger, base, scope, clock);
            } else {
                base += 1;
            }
        }
    }
    merge_young(ledger, scope, clock, MOST_SLICES);
    if scope.is_full {
        fold(ledger, scope.days, clock);
    }
}

/// Whether a slice may merge with the next one.
fn may_merge(ledger: &Ledger, index: usize) -> bool {
    let until = ledger.slices[index].until;
    let assumed = ledger.assumed.is_some_and(|assumed| assumed.ingested_before == until);
    let observed = ledger.full.is_some_and(|full| full.until == until);
    let is_border = (assumed && holds(Rule::KeepAssumptionApart)) || (observed && holds(Rule::MergeWithinObservation));
    !is_border
}

/// Merges young slices pairwise, like the digits of a counter: the pair that is shortest for its age.
fn merge_young(ledger: &mut Ledger, scope: Scope, clock: Timestamp, most: usize) {
    while ledger.slices.len() > most {
        let slices = &ledger.slices;
        let span = |index: usize| i128::from(slices[index + 1].until.micros() - slices[index - 1].until.micros());
        let age = |index: usize| i128::from((clock.micros() - slices[index].until.micros()).max(1));
        let pairs = (1..slices.len() - 1).filter(|&index| may_merge(ledger, index));
        // span / age, without division.
        let best = pairs.min_by(|&a, &b| (span(a) * age(b)).cmp(&(span(b) * age(a))));
        let Some(index) = best else { return };
        merge(ledger, index, scope, clock);
    }
}

/// Merges a slice with the next one.
fn merge(ledger: &mut Ledger, index: usize, scope: Scope, clock: Timestamp) {
    let observed = ledger.months.whole_periods(scope.days);
    let older = ledger.slices.remove(index);
    let Some(newer) = ledger.slices.get_mut(index) else { return };
    let is_settled = scope.is_complete && clock >= newer.until.plus_micros(SETTLED);
    let is_proven = |period: Period| is_settled && observed.contains_all(period.days());
    *newer = Slice {
        until: newer.until,
        cells: combine(older.cells, std::mem::take(&mut newer.cells), is_proven),
        added: combine(older.added, std::mem::take(&mut newer.added), is_proven),
    };
}

/// Folds days that are long past into months, where all days of a month were observed: a month that is
/// asked for in part would have rows that are not to be read.
fn fold(ledger: &mut Ledger, observed: Days, clock: Timestamp) {
    let old = Days { from: Days::ALL.from, to: Period::month_of(clock.day() - UNFOLDED_DAYS).first() };
    let days = observed.intersection(old);
    let months = if holds(Rule::FoldWholeMonths) {
        days.whole_months()
    } else {
        Days { from: Period::month_of(days.from).first(), ..days }
    };
    if months.is_empty() || ledger.months.ranges().iter().any(|range| range.contains_all(months)) {
        return;
    }
    ledger.months.add(months);
    for slice in &mut ledger.slices {
        for cells in [&mut slice.cells, &mut slice.added] {
            let mut folded: BTreeMap<Period, Cell> = BTreeMap::new();
            for (period, cell) in std::mem::take(cells) {
                let period = ledger.months.period_of(period.first());
                let sum = match folded.get(&period) {
                    Some(&other) if holds(Rule::FoldAdds) => cell.plus(other),
                    _ => cell,
                };
                folded.insert(period, sum);
            }
            *cells = folded;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::assumption::Assumption;
    use super::super::choice::Choice;
    use super::super::rules::BROKEN;
    use super::*;
    use crate::records::Fingerprint;

    /// A ledger with one slice a day that ends at each of these days, and a cell in each.
    fn ledger(ends: impl Iterator<Item = i64>) -> Ledger {
        let mut ledger = Ledger::new(Choice::all(), None);
        for end in ends {
            let mut slice = Slice::new(Timestamp::from_day(end));
            let cell = Cell { settled: true, ..Cell::emitted(Fingerprint::new(1, 1)) };
            slice.cells.insert(Period::day(end - 1), cell);
            ledger.slices.push(slice);
        }
        ledger
    }

    fn scope(from: i64, is_full: bool) -> Scope {
        Scope { days: Days { from, to: Days::ALL.to }, is_full, is_complete: true, bytes: None }
    }

    fn has_bound(ledger: &Ledger, day: i64) -> bool {
        ledger.slices.iter().any(|slice| slice.until == Timestamp::from_day(day))
    }

    #[test]
    fn a_cell_of_a_day_that_is_not_asked_for_does_not_stay_settled_in_a_merge() {
        for (rule, settled) in [(None, false), (Some(Rule::UnsettleUnproven), true)] {
            BROKEN.set(rule);
            let mut ledger = ledger(101..=102);
            tidy(&mut ledger, scope(101, true), Timestamp::from_day(110));
            BROKEN.set(None);
            assert_eq!(ledger.slices.len(), 1);
            assert_eq!(ledger.slices[0].cells[&Period::day(100)].settled, settled);
            assert!(ledger.slices[0].cells[&Period::day(101)].settled);
        }
    }

    #[test]
    fn slices_from_before_and_after_a_full_observation_do_not_merge_without_another_one() {
        for (rule, kept) in [(None, true), (Some(Rule::MergeWithinObservation), false)] {
            BROKEN.set(rule);
            let mut ledger = ledger(101..=130);
            let until = Timestamp::from_day(104);
            ledger.full = Some(FullObservation { until, days: Days::ALL, bytes: None });
            tidy(&mut ledger, scope(101, false), Timestamp::from_day(130));
            BROKEN.set(None);
            assert_eq!((has_bound(&ledger, 104), ledger.slices.len()), (kept, MOST_SLICES));
        }
    }

    #[test]
    fn slices_from_before_and_after_an_assumption_do_not_merge() {
        for (rule, kept) in [(None, true), (Some(Rule::KeepAssumptionApart), false)] {
            BROKEN.set(rule);
            let mut ledger = ledger(101..=110);
            ledger.assumed = Some(Assumption { days: Days::ALL, ingested_before: Timestamp::from_day(104) });
            tidy(&mut ledger, scope(101, true), Timestamp::from_day(120));
            BROKEN.set(None);
            assert_eq!(has_bound(&ledger, 104), kept);
        }
    }

    #[test]
    fn merging_and_folding_keep_the_sum() {
        let mut ledger = ledger(101..=200);
        tidy(&mut ledger, scope(Days::ALL.from, true), Timestamp::from_day(200));
        let cells = || ledger.slices.iter().flat_map(|slice| slice.cells.values());
        let sum = cells().fold(Fingerprint::EMPTY, |sum, cell| sum.plus(cell.emitted));
        assert_eq!(sum, Fingerprint::new(100, 100));
        assert!(ledger.slices[0].cells.keys().any(|period| period.is_month()));
    }
}
