//! Which days have other figures than those that have been emitted. Values only.
//!
//! Figures of old days are kept by month, in the state as in the ledger. Where the sum of a month has changed, all of its
//! days are emitted again.

use std::collections::{BTreeMap, BTreeSet};

use crate::records::Fingerprint;
use crate::sync::ledger::{Cell, Days, Period, UNFOLDED_DAYS};
use crate::time::Timestamp;

/// Figures by day, or by month.
pub(super) type DayCells = BTreeMap<Period, Cell>;

/// What has to be emitted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct DayChanges {
    /// Days with their figures; those of days without any event are empty.
    pub(super) days: BTreeMap<i64, Cell>,
    /// Months of which only the sum is known, and has changed.
    pub(super) months: BTreeSet<Period>,
}

/// What has to be emitted when `held` has been emitted before and the figures are `now`.
pub(super) fn changes(held: &DayCells, now: &DayCells) -> DayChanges {
    let mut changes = DayChanges::default();
    for month in months(held.keys().chain(now.keys())) {
        let (held, now) = (of_month(held, month), of_month(now, month));
        let are_days = |cells: &DayCells| cells.keys().all(|period| !period.is_month());
        if !are_days(&held) || !are_days(&now) {
            if same(sum(&held), sum(&now)) {
                continue;
            }
            if !are_days(&now) {
                changes.months.insert(month);
                continue;
            }
        }
        changes.days.extend(days_to_emit(&held, &now, month));
    }
    changes
}

/// The days of a month that have to be emitted when the figures of its days are `now`. Of a month that was
/// kept as a sum, all of them: it is not known which ones have lost their events.
pub(super) fn days_to_emit(held: &DayCells, now: &DayCells, month: Period) -> BTreeMap<i64, Cell> {
    let none = Cell::emitted(Fingerprint::EMPTY);
    let is_sum = held.contains_key(&month);
    let candidates: BTreeSet<i64> = if is_sum {
        (month.days().from..month.days().to).collect()
    } else {
        held.keys().chain(now.keys()).map(|period| period.first()).collect()
    };
    let figure = |cells: &DayCells, day: i64| cells.get(&Period::day(day)).copied().unwrap_or(none);
    candidates
        .into_iter()
        .map(|day| (day, figure(now, day)))
        .filter(|(day, cell)| is_sum || !same(figure(held, *day), *cell))
        .collect()
}

/// Days that are old are kept by month, as far as these lie before `until` and within the days asked for as a whole.
pub(super) fn folded(cells: DayCells, asked: Days, until: Timestamp) -> DayCells {
    let old = asked.intersection(Days { to: until.day() - UNFOLDED_DAYS, ..Days::ALL });
    let mut kept = DayCells::new();
    for (period, cell) in cells {
        let month = Period::month_of(period.first());
        let key = if old.contains_all(month.days()) { month } else { period };
        kept.entry(key).and_modify(|sum| *sum = sum.plus(cell)).or_insert(cell);
    }
    kept
}

/// The cells of a month.
pub(super) fn of_month(cells: &DayCells, month: Period) -> DayCells {
    let within = |period: &Period| month.days().contains_all(period.days());
    cells.iter().filter(|(period, _)| within(period)).map(|(period, cell)| (*period, *cell)).collect()
}

/// The months of these periods.
pub(super) fn months<'p>(periods: impl Iterator<Item = &'p Period>) -> BTreeSet<Period> {
    periods.map(|period| Period::month_of(period.first())).collect()
}

/// All cells together.
pub(super) fn sum(cells: &DayCells) -> Cell {
    let none = Cell::emitted(Fingerprint::EMPTY);
    cells.values().copied().reduce(Cell::plus).unwrap_or(none)
}

/// Whether the same would be emitted.
fn same(a: Cell, b: Cell) -> bool {
    a.emitted == b.emitted && a.assumed == b.assumed
}

/// What is observed, with the figures that are known for what looks the same as before; and the periods whose figures have to
/// be asked for, in as few parts as their neighbourhood allows. Days that were not observed stay as they are.
pub(super) fn known(
    held: &DayCells,
    raw: &BTreeMap<Period, Fingerprint>,
    observed: Days,
) -> (DayCells, BTreeSet<Period>) {
    let (mut known, mut unknown) = (DayCells::new(), BTreeSet::new());
    let as_stored: DayCells = raw.iter().map(|(period, figure)| (*period, Cell::emitted(*figure))).collect();
    for month in months(held.keys().chain(raw.keys())) {
        let (held, shown) = (of_month(held, month), of_month(&as_stored, month));
        if let Some(sum_held) = held.get(&month) {
            let is_same = sum(&shown).raw == sum_held.raw;
            if is_same || !observed.contains_all(month.days()) {
                known.insert(month, *sum_held);
            } else {
                unknown.insert(month);
            }
            continue;
        }
        for (&day, cell) in &held {
            let is_same = shown.get(&day).is_some_and(|shown| shown.raw == cell.raw);
            if is_same || !observed.contains_all(day.days()) {
                known.insert(day, *cell);
            }
        }
        unknown.extend(shown.keys().filter(|day| !known.contains_key(day)));
    }
    (known, unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(figures: &[(&str, u64)]) -> DayCells {
        let cell = |(period, count): &(&str, u64)| {
            (period.parse().unwrap(), Cell::emitted(Fingerprint::new(*count, count * 7)))
        };
        figures.iter().map(cell).collect()
    }

    fn days(changes: &BTreeMap<i64, Cell>) -> Vec<(String, u64)> {
        changes.iter().map(|(day, cell)| (Period::day(*day).to_string(), cell.emitted.count)).collect()
    }

    #[test]
    fn days_that_differ_are_emitted_and_those_that_are_gone_too() {
        let held = cells(&[("2026-11-01", 1), ("2026-11-02", 2), ("2026-11-03", 3)]);
        let now = cells(&[("2026-11-01", 1), ("2026-11-02", 5), ("2026-11-04", 4)]);
        let found = changes(&held, &now);
        let expected = [("2026-11-02", 5), ("2026-11-03", 0), ("2026-11-04", 4)];
        assert_eq!(days(&found.days), expected.map(|(day, count)| (day.to_owned(), count)));
        assert!(found.months.is_empty());
        assert_eq!(changes(&now, &now), DayChanges::default());
    }

    #[test]
    fn figures_that_are_not_assumed_any_more_are_emitted() {
        let now = cells(&[("2026-11-01", 1)]);
        let held = now.iter().map(|(day, cell)| (*day, Cell { assumed: true, ..*cell })).collect();
        assert_eq!(changes(&held, &now).days.len(), 1);
    }

    #[test]
    fn months_are_compared_by_their_sums() {
        let by_day = cells(&[("2026-01-05", 1), ("2026-01-06", 2)]);
        let by_month = cells(&[("2026-01", 3)]);
        assert_eq!(changes(&by_month, &by_day), DayChanges::default());
        assert_eq!(changes(&by_day, &by_month), DayChanges::default());
        let more = cells(&[("2026-01", 4)]);
        assert_eq!(changes(&by_day, &more).months, ["2026-01".parse().unwrap()].into());
        // All days of a month that was a sum: some may have lost their events.
        assert_eq!(changes(&more, &by_day).days.len(), 31);
    }

    #[test]
    fn only_whole_months_that_are_old_are_folded() {
        let until = Timestamp::parse("2026-11-20").unwrap();
        let given = [("2026-07-31", 7), ("2026-08-31", 1), ("2026-08-01", 2), ("2026-09-01", 3), ("2026-11-19", 4)];
        let asked = Days { from: "2026-07-15".parse::<Period>().unwrap().first(), ..Days::ALL };
        let expected = [("2026-07-31", 7), ("2026-08", 3), ("2026-09-01", 3), ("2026-11-19", 4)];
        assert_eq!(folded(cells(&given), asked, until), cells(&expected));
    }

    #[test]
    fn only_what_looks_different_is_asked_for() {
        let held = cells(&[("2026-01", 3), ("2026-02", 9), ("2026-11-01", 1), ("2026-11-02", 2), ("2026-11-03", 3)]);
        let raw = |period: &str, count: u64| (period.parse().unwrap(), Fingerprint::new(count, count * 7));
        let shown = [raw("2026-01-05", 3), raw("2026-02-01", 8), raw("2026-11-01", 1), raw("2026-11-02", 5)].into();
        let (kept, unknown) = known(&held, &shown, Days::ALL);
        assert_eq!(kept, cells(&[("2026-01", 3), ("2026-11-01", 1)]));
        assert_eq!(unknown, ["2026-02".parse().unwrap(), "2026-11-02".parse().unwrap()].into());
        // Nothing but November was observed.
        let november = "2026-11".parse::<Period>().unwrap().days();
        assert_eq!(known(&held, &shown, november).0, cells(&[("2026-01", 3), ("2026-02", 9), ("2026-11-01", 1)]));
    }
}
