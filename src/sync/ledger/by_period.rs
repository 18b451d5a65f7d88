//! The ledger by event time alone, as a table of events would be counted.

use std::collections::BTreeMap;

use super::cell::Cell;
use super::period::Period;
use super::slice::Part;
use super::state::Ledger;

impl Ledger {
    /// What has been emitted of each day, or of each month where days have been folded; names that are being
    /// added included.
    pub fn by_period(&self) -> BTreeMap<Period, Cell> {
        let mut sums: BTreeMap<Period, Cell> = BTreeMap::new();
        let cells = self.slices.iter().flat_map(|slice| [Part::Main, Part::Added].map(|part| slice.part(part)));
        for (&period, &cell) in cells.flatten() {
            sums.entry(period).and_modify(|sum| *sum = sum.plus(cell)).or_insert(cell);
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::super::choice::{Choice, Names};
    use super::super::slice::CellKey;
    use super::*;
    use crate::records::Fingerprint;
    use crate::time::Timestamp;

    #[test]
    fn slices_and_added_names_of_a_day_add_up() {
        let mut ledger = Ledger::new(Choice::all(), None);
        ledger.begin_added(Names::Only(["x".to_owned()].into()));
        ledger.open_slices(Timestamp::from_day(20_000), [], None);
        let key = |slice, day| CellKey { slice, period: Period::day(day) };
        ledger.enter(Part::Main, key(0, 10), Fingerprint::new(1, 5));
        ledger.assume(key(1, 10), Fingerprint::new(2, 6));
        ledger.enter(Part::Added, key(1, 10), Fingerprint::new(4, 7));
        ledger.enter(Part::Main, key(0, 11), Fingerprint::new(8, 8));
        let sums = ledger.by_period();
        assert_eq!(sums[&Period::day(10)].emitted, Fingerprint::new(7, 18));
        assert!(sums[&Period::day(10)].assumed && !sums[&Period::day(11)].assumed);
        assert_eq!(sums.len(), 2);
    }
}
