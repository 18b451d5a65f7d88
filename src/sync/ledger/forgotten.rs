//! What a ledger has forgotten, so that it is read again: records of it are repeats.

use std::collections::BTreeMap;

use super::cell::Cell;
use super::period::{Days, Period};
use super::slice::{CellKey, Part, Slice};
use super::state::Ledger;
use crate::time::Timestamp;

/// Records of some days and of one slice that are not in a ledger any more. Days may have become months since and months days,
/// and the slice may have been cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forgotten {
    part: Part,
    ingested_from: Option<Timestamp>,
    ingested_before: Timestamp,
    days: Days,
    /// Records that have been forgotten, and those that have not.
    records: u64,
    kept: u64,
}

impl Ledger {
    /// What `before` had emitted and this ledger has forgotten.
    pub fn forgotten_since(&self, before: &Self) -> Vec<Forgotten> {
        let mut forgotten = Vec::new();
        for (index, slice) in before.slices.iter().enumerate() {
            for part in [Part::Main, Part::Added] {
                for (period, cell) in slice.part(part) {
                    let mut lost = Forgotten {
                        part,
                        ingested_from: before.ingested_from(index),
                        ingested_before: slice.until,
                        days: period.days(),
                        records: 0,
                        kept: 0,
                    };
                    lost.kept = self.emitted_of(&lost);
                    lost.records = cell.emitted.count.saturating_sub(lost.kept);
                    forgotten.extend(Some(lost).filter(|lost| lost.records > 0));
                }
            }
        }
        forgotten
    }

    /// How many of the records that had been forgotten have come again.
    pub fn emitted_again(&self, forgotten: &[Forgotten]) -> u64 {
        let again = |lost: &Forgotten| lost.records.min(self.emitted_of(lost).saturating_sub(lost.kept));
        forgotten.iter().map(again).sum()
    }

    /// How many records of a cell have come again when `emitted` of it have been emitted now, beside those that are noted of it
    /// as open.
    pub fn repeats(&self, part: Part, key: CellKey, emitted: u64) -> u64 {
        let before = self.cell(part, key).map_or(0, |cell| cell.emitted.count);
        let noted = self.open(part, key).map_or(0, |open| open.emitted.count);
        emitted.min(before).saturating_sub(noted.min(before))
    }

    /// Records of these days and this slice.
    fn emitted_of(&self, of: &Forgotten) -> u64 {
        let is_within =
            |until: Timestamp| of.ingested_from.is_none_or(|from| from < until) && until <= of.ingested_before;
        let is_of = |period: &Period| of.days.contains_all(period.days());
        let count = |cells: &BTreeMap<Period, Cell>| -> u64 {
            cells.iter().filter(|(period, _)| is_of(period)).map(|(_, cell)| cell.emitted.count).sum()
        };
        let slices = self.slices.iter().filter(|slice| is_within(slice.until));
        let closed: u64 = slices.map(|slice: &Slice| count(slice.part(of.part))).sum();
        let open = self.open.iter().filter(|open| open.part == of.part && is_within(open.ingested_before));
        let open: u64 = open.filter(|open| is_of(&open.period)).map(|open| open.emitted.count).sum();
        closed + open
    }
}

#[cfg(test)]
mod tests {
    use super::super::choice::Choice;
    use super::super::state::SortKey;
    use super::*;
    use crate::records::Fingerprint;

    fn ledger(cells: &[(usize, &str, u64)]) -> Ledger {
        let mut ledger = Ledger::new(Choice::all(), None);
        ledger.slices = [100, 200].map(|day| Slice::new(Timestamp::from_day(day))).into();
        for (slice, period, count) in cells {
            let key = CellKey { slice: *slice, period: period.parse().unwrap() };
            ledger.enter(Part::Main, key, Fingerprint::new(*count, 1));
        }
        ledger
    }

    #[test]
    fn only_what_comes_again_is_a_repeat() {
        let before = ledger(&[(0, "1970-01", 30), (0, "1970-03-01", 5), (1, "1970-03-01", 7), (1, "1970-03-02", 9)]);
        let mut now = ledger(&[(0, "1970-01-05", 10), (1, "1970-03-01", 7), (1, "1970-03-02", 4)]);
        let forgotten = now.forgotten_since(&before);
        assert_eq!(
            forgotten.iter().map(|lost| (lost.records, lost.kept)).collect::<Vec<_>>(),
            [(20, 10), (5, 0), (5, 4)]
        );
        assert_eq!(now.emitted_again(&forgotten), 0, "nothing has been read yet");
        let enter = |now: &mut Ledger, slice, period: &str, count| {
            let key = CellKey { slice, period: period.parse().unwrap() };
            now.enter(Part::Main, key, Fingerprint::new(count, 1));
        };
        enter(&mut now, 0, "1970-01-06", 3);
        enter(&mut now, 0, "1970-03-01", 8);
        assert_eq!(now.emitted_again(&forgotten), 3 + 5, "as many as were read, and no more than were forgotten");
        now.slices.insert(0, Slice::new(Timestamp::from_day(50)));
        enter(&mut now, 0, "1970-01-07", 2);
        assert_eq!(now.emitted_again(&forgotten), 5 + 5, "of a slice that has been cut");
    }

    #[test]
    fn repeats_of_a_cell_are_counted_as_it_is_read() {
        let mut ledger = ledger(&[(0, "1970-03-01", 5)]);
        let key = CellKey { slice: 0, period: "1970-03-01".parse().unwrap() };
        assert_eq!((ledger.repeats(Part::Main, key, 3), ledger.repeats(Part::Main, key, 9)), (3, 5));
        let after = SortKey { event_time: Timestamp::from_day(60), uuid: String::new(), identity: Vec::new() };
        ledger.set_open(Part::Main, key, after, Fingerprint::new(3, 1));
        assert_eq!(ledger.repeats(Part::Main, key, 9), 2, "three have been counted");
        assert_eq!(ledger.repeats(Part::Added, key, 9), 0);
    }
}
