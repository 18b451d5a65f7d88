//! Cuts the cells of a slice that have to be read into windows.

use std::collections::BTreeMap;

use crate::records::Fingerprint;
use crate::sync::ledger::{CellKey, Days, Ledger, OpenCell, Part, Period};

/// Cells of one slice that are read as one, by pages in the order of event time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CellWindow {
    pub(super) slice: usize,
    /// Days of event time, from the first to the last cell.
    pub(super) days: Days,
    /// The cells, ascending.
    pub(super) periods: Vec<Period>,
    /// Rows that PostHog shows, duplicates included.
    pub(super) rows: u64,
    /// How far an earlier sync has read the first cell.
    pub(super) open: Option<OpenCell>,
}

impl CellWindow {
    /// Its days, for messages.
    pub(super) fn describe(&self) -> String {
        match self.periods.as_slice() {
            [period] => period.to_string(),
            [first, .., last] => format!("{first} to {last}"),
            [] => String::new(),
        }
    }
}

/// Cuts cells into windows of about `target` rows and at most `most_days` days each.
///
/// Between the cells of a window lies no cell that is not to be read. A cell that an earlier sync has begun
/// comes first in a window, so that the window goes on where that sync has stopped.
pub(super) fn windows(
    ledger: &Ledger,
    part: Part,
    keys: &[CellKey],
    observed: &BTreeMap<CellKey, Fingerprint>,
    target: u64,
    most_days: i64,
) -> Vec<CellWindow> {
    let mut keys = keys.to_vec();
    keys.sort_unstable();
    let mut windows: Vec<CellWindow> = Vec::new();
    for key in keys {
        let rows = observed.get(&key).map_or(0, |figure| figure.count);
        let days = key.period.days();
        let open = ledger.open(part, key).cloned();
        let joins = windows.last().is_some_and(|last| {
            let between = CellKey { slice: last.slice, period: *last.periods.last().unwrap_or(&key.period) }..key;
            last.slice == key.slice
                && open.is_none()
                && last.rows + rows <= target
                && days.to - last.days.from <= most_days
                && !observed.range(between).skip(1).any(|(_, figure)| !figure.is_empty())
        });
        match windows.last_mut().filter(|_| joins) {
            Some(last) => {
                last.days.to = days.to;
                last.periods.push(key.period);
                last.rows += rows;
            }
            None => windows.push(CellWindow { slice: key.slice, days, periods: vec![key.period], rows, open }),
        }
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::posthog::RowKey;
    use crate::sync::ledger::Choice;
    use crate::time::Timestamp;

    fn cut(ledger: &Ledger, wanted: &[(usize, i64)], observed: &[(usize, i64, u64)]) -> Vec<(usize, i64, i64, u64)> {
        let key = |slice, day| CellKey { slice, period: Period::day(day) };
        let keys: Vec<CellKey> = wanted.iter().map(|(slice, day)| key(*slice, *day)).collect();
        let observed =
            observed.iter().map(|(slice, day, rows)| (key(*slice, *day), Fingerprint::new(*rows, 1))).collect();
        windows(ledger, Part::Main, &keys, &observed, 100, 1000)
            .into_iter()
            .map(|window| (window.slice, window.days.from, window.days.to, window.rows))
            .collect()
    }

    #[test]
    fn neighbours_are_read_together_until_a_page_is_full() {
        let ledger = Ledger::new(Choice::all(), None);
        let observed = [(0, 10, 60), (0, 12, 30), (0, 13, 30), (0, 20, 500), (1, 10, 1)];
        let wanted = [(0, 10), (0, 12), (0, 13), (0, 20), (1, 10)];
        assert_eq!(
            cut(&ledger, &wanted, &observed),
            [(0, 10, 13, 90), (0, 13, 14, 30), (0, 20, 21, 500), (1, 10, 11, 1)]
        );
    }

    #[test]
    fn a_cell_that_is_not_to_be_read_stands_between_two_windows() {
        let ledger = Ledger::new(Choice::all(), None);
        let observed = [(0, 10, 1), (0, 11, 1), (0, 12, 1)];
        assert_eq!(cut(&ledger, &[(0, 10), (0, 12)], &observed), [(0, 10, 11, 1), (0, 12, 13, 1)]);
        assert_eq!(cut(&ledger, &[(0, 10), (0, 12)], &[(0, 10, 1), (0, 12, 1)]), [(0, 10, 13, 2)]);
    }

    #[test]
    fn a_cell_that_was_begun_comes_first_in_a_window() {
        let mut ledger = Ledger::new(Choice::all(), None);
        ledger.open_slices(Timestamp::from_day(20), [], None);
        let after = RowKey { sort_key: Timestamp::from_day(11), id: "u".into(), identity: Vec::new() };
        let key = ledger.key(11, 0).unwrap();
        ledger.set_open(Part::Main, key, after.into(), Fingerprint::new(1, 1));
        let observed = [(0, 10, 1), (0, 11, 1), (0, 12, 1)];
        assert_eq!(cut(&ledger, &[(0, 10), (0, 11), (0, 12)], &observed), [(0, 10, 11, 1), (0, 11, 13, 2)]);
    }
}
