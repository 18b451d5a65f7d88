//! What the pages of a list have shown, and whether that is all of it.
//!
//! Offsets shift when objects are created or deleted meanwhile. So each page begins with the last object
//! of the page before: if an object that has been seen comes first, nothing between the two pages was
//! skipped, as long as the list keeps its order.

use std::collections::HashSet;

use crate::sync::report::{Counts, Proof, StreamReport};

/// The objects of a list, read once from its first page to its last.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Keys of the objects.
    pub(super) keys: HashSet<String>,
    /// The highest count of any page, if the server reports one: an object that is deleted meanwhile moves
    /// another one across a page boundary, where it could be skipped.
    pub(super) count: Option<u64>,
    pub(super) pages: u64,
}

/// What a listing is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Complete,
    /// The server counts so many objects, and fewer came.
    Missing(u64),
    /// Nothing proves that the pages of one list belong together.
    Unproven,
}

impl Listing {
    /// Whether everything has come. Without a count, a list of several pages has to be the same twice.
    pub(super) fn verdict(&self, before: Option<&Self>) -> Verdict {
        match self.count {
            Some(count) if (self.keys.len() as u64) < count => Verdict::Missing(count),
            Some(_) => Verdict::Complete,
            None if self.pages < 2 || before.is_some_and(|before| before.keys == self.keys) => Verdict::Complete,
            None => Verdict::Unproven,
        }
    }

    /// Reports by what a complete listing is known to be complete.
    pub(super) fn report(&self, is_second: bool, report: &StreamReport) {
        match self.count {
            Some(count) => report.counted(Proof::Counted, Counts::of(self.keys.len() as u64, count)),
            None if is_second => report.proven_by(Proof::ListedTwice),
            None => report.proven_by(Proof::ReadToEnd),
        }
    }
}

/// Where a page begins that is to overlap with the one before, which began at `current`; `next` is where the
/// server would go on.
pub(super) fn overlapping(current: usize, next: usize) -> usize {
    let overlapping = next.saturating_sub(1);
    if overlapping > current { overlapping } else { next }
}

/// Where to look instead, after a page at `offset` did not begin with an object that has been seen. `steps` is
/// how often that has happened in a row.
pub(super) fn step_back(offset: usize, steps: u32) -> usize {
    offset.saturating_sub(1_usize.checked_shl(steps).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(keys: &[&str], count: Option<u64>, pages: u64) -> Listing {
        Listing { keys: keys.iter().map(ToString::to_string).collect(), count, pages }
    }

    #[test]
    fn listings_need_a_count_or_a_second_opinion() {
        assert_eq!(listing(&["a", "b"], Some(2), 2).verdict(None), Verdict::Complete);
        assert_eq!(listing(&["a", "b"], Some(3), 2).verdict(None), Verdict::Missing(3));
        assert_eq!(listing(&["a", "b"], None, 1).verdict(None), Verdict::Complete);
        let first = listing(&["a", "b"], None, 2);
        assert_eq!(first.verdict(None), Verdict::Unproven);
        assert_eq!(listing(&["b", "a"], None, 2).verdict(Some(&first)), Verdict::Complete);
        assert_eq!(listing(&["a", "c"], None, 2).verdict(Some(&first)), Verdict::Unproven);
    }

    #[test]
    fn pages_overlap_and_go_back_faster_and_faster() {
        assert_eq!([overlapping(0, 100), overlapping(99, 199), overlapping(0, 1)], [99, 198, 1]);
        assert_eq!([step_back(99, 0), step_back(98, 1), step_back(96, 5), step_back(10, 5)], [98, 96, 64, 0]);
        assert_eq!(step_back(99, 64), 0);
    }
}
