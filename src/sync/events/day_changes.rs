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

/// How many events have disappeared, by day.
pub(super) type DayLosses = BTreeMap<Period, u64>;

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

/// By how many events these days have become smaller, those that had disappeared before included. Of a day of which only the
/// month was kept, nothing is known. If the figures are not `comparable`, nothing new has disappeared.
pub(super) fn losses(held: &DayCells, now: &BTreeMap<i64, Cell>, before: &DayLosses, comparable: bool) -> DayLosses {
    let count = |day: Period| held.get(&day).filter(|_| comparable).map_or(0, |cell| cell.emitted.count);
    let lost = |day: Period, cell: &Cell| count(day).saturating_sub(cell.emitted.count);
    let days = now.iter().map(|(day, cell)| (Period::day(*day), cell));
    days.filter(|(day, _)| !held.contains_key(&Period::month_of(day.first())))
        .map(|(day, cell)| (day, before.get(&day).copied().unwrap_or_default() + lost(day, cell)))
        .collect()
}

/// Days that are old are kept by month, as far as these lie before `until` and within the days asked for as a whole. What
/// has disappeared from them is not known any more.
pub(super) fn folded(cells: DayCells, mut losses: DayLosses, asked: Days, until: Timestamp) -> (DayCells, DayLosses) {
    let old = asked.intersection(Days { to: until.day() - UNFOLDED_DAYS, ..Days::ALL });
    let is_old = |period: &Period| old.contains_all(Period::month_of(period.first()).days());
    let mut kept = DayCells::new();
    for (period, cell) in cells {
        let key = if is_old(&period) { Period::month_of(period.first()) } else { period };
        kept.entry(key).and_modify(|sum| *sum = sum.plus(cell)).or_insert(cell);
    }
    losses.retain(|day, lost| *lost > 0 && !is_old(day));
    (kept, losses)
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
    fn a_day_that_becomes_smaller_has_lost_events() {
        let day = |text: &str| text.parse::<Period>().unwrap();
        let held = cells(&[("2026-08", 50), ("2026-11-01", 10), ("2026-11-02", 10), ("2026-11-03", 10)]);
        let now = cells(&[("2026-08-05", 9), ("2026-11-01", 7), ("2026-11-02", 12), ("2026-11-04", 1)]);
        let now = changes(&held, &now).days;
        let before = [(day("2026-11-01"), 2), (day("2026-11-02"), 4)].into();
        let found = losses(&held, &now, &before, true);
        let expected = [("2026-11-01", 5), ("2026-11-02", 4), ("2026-11-03", 10), ("2026-11-04", 0)];
        assert_eq!(found, expected.map(|(text, lost)| (day(text), lost)).into());
        let found = losses(&held, &now, &before, false);
        let expected = [("2026-11-01", 2), ("2026-11-02", 4), ("2026-11-03", 0), ("2026-11-04", 0)];
        assert_eq!(found, expected.map(|(text, lost)| (day(text), lost)).into());
    }

    #[test]
    fn only_whole_months_that_are_old_are_folded() {
        let until = Timestamp::parse("2026-11-20").unwrap();
        let given = [("2026-07-31", 7), ("2026-08-31", 1), ("2026-08-01", 2), ("2026-09-01", 3), ("2026-11-19", 4)];
        let asked = Days { from: "2026-07-15".parse::<Period>().unwrap().first(), ..Days::ALL };
        let expected = [("2026-07-31", 7), ("2026-08", 3), ("2026-09-01", 3), ("2026-11-19", 4)];
        let losses = |days: &[(&str, u64)]| days.iter().map(|(day, lost)| (day.parse().unwrap(), *lost)).collect();
        let (kept, lost) =
            folded(cells(&given), losses(&[("2026-08-31", 5), ("2026-09-01", 6), ("2026-11-19", 0)]), asked, until);
        assert_eq!((kept, lost), (cells(&expected), losses(&[("2026-09-01", 6)])));
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
