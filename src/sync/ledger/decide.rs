//! Decides what to do with cells that differ.

use super::cell::{Cell, Figures};
use super::compare::Difference;
use super::period::Period;
use super::rules::{Rule, holds};
use super::slice::CellKey;
use crate::records::Fingerprint;
use std::collections::BTreeMap;

/// After this many rounds of reading a cell that still differs ends the sync INCOMPLETE.
pub const ROUNDS: u32 = 3;

/// What to do with a cell that differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Believe that it has been emitted, and enter the figure that `PostHog` shows.
    Assume,
    /// Ask for its figures without duplicates, and decide again.
    AskDistinct,
    /// Duplicates came or were merged: note the figures.
    NoteRaw(Figures),
    /// Rows were deleted, have expired, or were merged with a duplicate that was ingested later: note the
    /// figures and report how many.
    NoteGone(Figures, u64),
    Read,
}

/// What to do with a cell that differs: `cell` is what the ledger holds, `figures` are known once they have
/// been asked for.
pub fn decide(cell: Option<&Cell>, is_assumed: bool, observed: Fingerprint, figures: Option<Figures>) -> Decision {
    let Some(cell) = cell else { return if is_assumed { Decision::Assume } else { Decision::Read } };
    let Some(mut figures) = figures else { return Decision::AskDistinct };
    if !holds(Rule::RawFromOneResponse) {
        figures.raw = observed;
    }
    if figures.distinct == cell.emitted {
        return Decision::NoteRaw(figures);
    }
    let settled = cell.settled || !holds(Rule::DeletionsOnlyWhenSettled);
    match cell.emitted.count.checked_sub(figures.distinct.count) {
        Some(gone) if gone > 0 && settled => Decision::NoteGone(figures, gone),
        _ => Decision::Read,
    }
}

/// Cells of one slice to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    pub slice: usize,
    /// Periods, ascending.
    pub periods: Vec<Period>,
    /// Whether one scan over the slice reads nothing but these cells; else they are read one by one.
    pub is_scan: bool,
}

/// Groups cells that have to be read. A slice of which every cell has to be read, such as the newest one, is
/// read as one scan.
pub fn reads(keys: &[CellKey], observed: &BTreeMap<CellKey, Fingerprint>) -> Vec<Read> {
    let mut grouped: BTreeMap<usize, Vec<Period>> = BTreeMap::new();
    for key in keys {
        grouped.entry(key.slice).or_default().push(key.period);
    }
    grouped
        .into_iter()
        .map(|(slice, mut periods)| {
            periods.sort_unstable();
            let is_scan = observed
                .iter()
                .filter(|(key, figure)| key.slice == slice && !figure.is_empty())
                .all(|(key, _)| periods.binary_search(&key.period).is_ok());
            Read { slice, periods, is_scan }
        })
        .collect()
}

impl Difference {
    /// The sentence for a cell that could not be made to agree.
    pub fn describe(&self) -> String {
        format!(
            "{}: {} records (checksum {:x}) were emitted, PostHog shows {} ({:x})",
            self.key.period, self.held.count, self.held.checksum, self.observed.count, self.observed.checksum
        )
    }
}
