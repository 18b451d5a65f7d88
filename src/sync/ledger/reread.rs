//! Days that are read once more, because the user asks for it.

use std::collections::BTreeMap;

use super::cell::{Cell, Figures};
use super::day_set::DaySet;
use super::period::Period;
use super::slice::{CellKey, Part};
use super::state::Ledger;

impl Ledger {
    /// Days of `wanted` that have not been forgotten yet, so that they are still to be read again.
    pub fn due(&self, wanted: &DaySet) -> DaySet {
        wanted.minus(&self.reread)
    }

    /// Folded months with some of these days.
    pub fn months_with(&self, days: &DaySet) -> Vec<Period> {
        let cells = self.slices.iter().flat_map(|slice| [Part::Main, Part::Added].map(|part| slice.part(part)));
        let mut months: Vec<Period> =
            cells.flat_map(BTreeMap::keys).copied().filter(|period| period.is_month()).collect();
        // Those without a cell may have assumed ones.
        months.extend(
            days.ranges().iter().flat_map(|range| [range.from, range.to - 1]).map(|day| self.months.period_of(day)),
        );
        months.retain(|period| period.is_month() && days.touches(period.days()));
        months.sort_unstable();
        months.dedup();
        months
    }

    /// Splits a month into its days. `figures` are what PostHog shows of them: where they add up to what is held of
    /// the month in a slice, they are what has been emitted of each day. Elsewhere the whole month is forgotten.
    /// Returns how many records are.
    pub fn unfold(&mut self, month: Period, figures: &BTreeMap<CellKey, Figures>) -> u64 {
        self.months.remove(month);
        self.open.retain(|open| open.period != month);
        let mut forgotten = 0;
        for (index, slice) in self.slices.iter_mut().enumerate() {
            forgotten += slice.added.remove(&month).map_or(0, |cell| cell.emitted.count);
            let Some(cell) = slice.cells.remove(&month) else { continue };
            let is_inside = |key: &CellKey| key.slice == index && month.days().contains(key.period.first());
            let days: Vec<_> = figures.iter().filter(|(key, _)| is_inside(key)).collect();
            let sum = days.iter().fold(Figures::default(), |sum, (_, figures)| Figures {
                raw: sum.raw.plus(figures.raw),
                distinct: sum.distinct.plus(figures.distinct),
            });
            if (sum.raw, sum.distinct) != (cell.raw, cell.emitted) {
                forgotten += cell.emitted.count;
                continue;
            }
            let cells = days
                .into_iter()
                .map(|(key, figures)| (key.period, Cell { emitted: figures.distinct, raw: figures.raw, ..cell }));
            slice.cells.extend(cells);
        }
        forgotten
    }

    /// Forgets what has been emitted of the days of `wanted` that are due, so that they are read, once. Months
    /// with such days have to be unfolded before. Returns how many records are forgotten.
    pub fn forget_days(&mut self, wanted: DaySet) -> u64 {
        let due = self.due(&wanted);
        let is_due = |period: &Period| due.touches(period.days());
        let mut forgotten = 0;
        for slice in &mut self.slices {
            for cells in [&mut slice.cells, &mut slice.added] {
                cells.retain(|period, cell| {
                    let is_kept = !is_due(period);
                    forgotten += if is_kept { 0 } else { cell.emitted.count };
                    is_kept
                });
            }
        }
        self.open.retain(|open| !is_due(&open.period));
        if !due.is_empty() {
            self.full = None;
        }
        // As long as cells are taken for read, those of days that were named before are not.
        let before = std::mem::replace(&mut self.reread, wanted);
        if self.assumed.is_some() {
            before.ranges().iter().for_each(|range| self.reread.add(*range));
        }
        forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::super::assumption::Assumption;
    use super::super::choice::Choice;
    use super::super::period::Days;
    use super::super::slice::Slice;
    use super::*;
    use crate::records::Fingerprint;
    use crate::time::Timestamp;

    fn period(text: &str) -> Period {
        text.parse().unwrap()
    }

    fn days(list: &[&str]) -> DaySet {
        list.iter().map(|text| period(text).days()).collect()
    }

    fn figure(count: u64) -> Fingerprint {
        Fingerprint::new(count, count * 7)
    }

    fn key(day: &str) -> CellKey {
        CellKey { slice: 0, period: period(day) }
    }

    /// One slice, in which May is a month.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::new(Choice::all(), None);
        ledger.slices.push(Slice::new(Timestamp::from_day(21_000)));
        ledger.months.add(period("2026-05").days());
        ledger.enter(Part::Main, key("2026-05"), figure(5));
        ledger.enter(Part::Main, key("2026-06-01"), figure(3));
        ledger
    }

    fn by_day(counts: &[(&str, u64)]) -> BTreeMap<CellKey, Figures> {
        let figures = |count| Figures { raw: figure(count), distinct: figure(count) };
        counts.iter().map(|(day, count)| (key(day), figures(*count))).collect()
    }

    #[test]
    fn one_day_of_a_month_is_forgotten_and_its_other_days_are_kept() {
        let mut ledger = ledger();
        let wanted = days(&["2026-05-14"]);
        assert_eq!(ledger.months_with(&wanted), [period("2026-05")]);
        assert_eq!(ledger.unfold(period("2026-05"), &by_day(&[("2026-05-14", 2), ("2026-05-20", 3)])), 0);
        assert_eq!(ledger.forget_days(wanted.clone()), 2);
        let kept: Vec<Period> = ledger.slices[0].cells.keys().copied().collect();
        assert_eq!(kept, [period("2026-05-20"), period("2026-06-01")]);
        assert_eq!(ledger.forget_days(wanted), 0, "once");
        assert_eq!(Ledger::parse(&ledger.to_value()), Ok(ledger));
    }

    #[test]
    fn a_month_whose_days_do_not_add_up_is_forgotten() {
        let mut ledger = ledger();
        assert_eq!(ledger.unfold(period("2026-05"), &by_day(&[("2026-05-14", 2), ("2026-05-20", 4)])), 5);
        assert_eq!(ledger.slices[0].cells.len(), 1);
    }

    #[test]
    fn assumed_cells_of_a_day_are_read() {
        let mut ledger = ledger();
        ledger.assumed = Some(Assumption { days: Days::ALL, ingested_before: Timestamp::from_day(21_000) });
        let wanted = days(&["2026-07-14"]);
        assert!(ledger.months_with(&wanted).is_empty());
        ledger.forget_days(wanted);
        assert!(!ledger.is_assumed(Part::Main, key("2026-07-14")) && ledger.is_assumed(Part::Main, key("2026-07-15")));
        ledger.forget_days(DaySet::default());
        assert!(!ledger.is_assumed(Part::Main, key("2026-07-14")), "it has not been read yet");
    }

    #[test]
    fn a_day_that_is_named_again_later_is_read_again() {
        let mut ledger = ledger();
        let wanted = days(&["2026-06-01"]);
        assert_eq!(ledger.forget_days(wanted.clone()), 3);
        ledger.forget_days(DaySet::default());
        assert_eq!(ledger.due(&wanted), wanted);
    }
}
