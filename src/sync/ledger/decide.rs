//! Decides what to do with cells that differ.

use super::cell::{Cell, Figures};
use super::compare::Difference;
use super::rules::{Rule, holds};
use crate::records::Fingerprint;

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

/// Whether a cell that this sync has read differs only because rows have become visible since: it had
/// `observed_before` rows when it was decided to read it by query, duplicates included, and no fewer have come.
/// (Files may lack rows; then as many others that are new would hide them.)
///
/// Such a cell is left to the next sync, which finds that it differs. To read it until it stands still would
/// repeat it again and again while events come in.
pub fn has_grown(cell: &Cell, observed_before: Option<u64>, figures: Figures, is_settled: bool) -> bool {
    let Some(before) = observed_before else { return false };
    let duplicates = figures.raw.count.saturating_sub(figures.distinct.count);
    let is_whole = cell.emitted.count + duplicates >= before || !holds(Rule::GrownCellsAreWhole);
    is_whole && figures.distinct.count > cell.emitted.count && !is_settled
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
