//! Compares what `PostHog` shows with the ledger.

use std::collections::BTreeMap;

use super::full_observation::SETTLED;
use super::period::Days;
use super::rules::{Rule, holds};
use super::slice::{CellKey, Part};
use super::state::Ledger;
use crate::records::Fingerprint;
use crate::time::Timestamp;

/// A cell in which `PostHog` and the ledger differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difference {
    /// The cell.
    pub key: CellKey,
    /// In what way.
    pub kind: DifferenceKind,
    /// The raw figure of the ledger.
    pub held: Fingerprint,
    /// The raw figure that `PostHog` shows.
    pub observed: Fingerprint,
}

/// In what way a cell differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DifferenceKind {
    /// Nothing of it has been emitted.
    New,
    /// There are more rows.
    More,
    /// There are fewer rows.
    Fewer,
    /// There are as many rows, but others.
    Changed,
}

/// Returns true if the raw figures agree.
fn agree(held: Fingerprint, observed: Fingerprint) -> bool {
    if holds(Rule::CompareChecksums) { held == observed } else { held.count == observed.count }
}

/// The cells of one part that differ, in order.
///
/// `observed` holds every cell with rows in the `days` that were observed. Months that these touch are
/// observed, and compared, as a whole; all other cells stay as they are.
pub fn differences(
    ledger: &Ledger,
    part: Part,
    observed: &BTreeMap<CellKey, Fingerprint>,
    days: Days,
) -> Vec<Difference> {
    let days = ledger.months.whole_periods(days);
    let is_observed = |key: CellKey| days.contains_all(key.period.days()) || !holds(Rule::UnobservedStays);
    let mut differences = Vec::new();
    for (&key, &figure) in observed {
        if figure.is_empty() || !is_observed(key) {
            continue;
        }
        let held = ledger.cell(part, key).map(|cell| cell.raw);
        if held.is_some_and(|held| agree(held, figure)) {
            continue;
        }
        let kind = match held {
            None => DifferenceKind::New,
            Some(held) if held.count < figure.count => DifferenceKind::More,
            Some(held) if held.count > figure.count => DifferenceKind::Fewer,
            Some(_) => DifferenceKind::Changed,
        };
        differences.push(Difference { key, kind, held: held.unwrap_or_default(), observed: figure });
    }
    for (slice, cells) in ledger.slices.iter().enumerate() {
        for (&period, cell) in cells.part(part) {
            let key = CellKey { slice, period };
            if is_observed(key) && !observed.contains_key(&key) {
                let (held, observed) = (cell.raw, Fingerprint::EMPTY);
                differences.push(Difference { key, kind: DifferenceKind::Fewer, held, observed });
            }
        }
    }
    differences.sort_unstable_by_key(|difference| difference.key);
    differences
}

/// Notes which cells agree though their arrivals are settled. `clock` is the server's time when it was
/// asked.
pub fn prove(ledger: &mut Ledger, part: Part, observed: &BTreeMap<CellKey, Fingerprint>, clock: Timestamp) {
    for (index, slice) in ledger.slices.iter_mut().enumerate() {
        if clock < slice.until.plus_micros(SETTLED) {
            break;
        }
        for (&period, cell) in slice.part_mut(part) {
            if !cell.settled {
                let figure = observed.get(&CellKey { slice: index, period });
                cell.settled = figure.is_some_and(|&figure| agree(cell.raw, figure));
            }
        }
    }
}
