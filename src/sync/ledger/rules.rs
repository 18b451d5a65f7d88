//! Rules that the model test can switch off, to show that it notices.

/// A rule without which rows are lost, repeated, or a sync never ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code))]
pub(super) enum Rule {
    /// Fewer rows are deletions only where the cell was proven once since its arrivals were settled.
    DeletionsOnlyWhenSettled,
    /// The figure with duplicates is kept beside the one of what was emitted.
    KeepRawFigure,
    /// The raw figure is taken from the response that also shows the distinct one.
    RawFromOneResponse,
    /// Checksums are compared, not only counts.
    CompareChecksums,
    /// Cells add up when slices merge.
    MergeAdds,
    /// Cells add up when days fold into months.
    FoldAdds,
    /// Only months that were observed as a whole are folded.
    FoldWholeMonths,
    /// The end of a sync that covers a long time is cut into slices of its own.
    CutTail,
    /// The bound of a sync is never before the last one.
    BoundNeverGoesBack,
    /// A cell that lacks its counterpart in a merge stays settled only if that is proven to be empty.
    UnsettleUnproven,
    /// Slices from before and after the last observation of all days are not merged.
    MergeWithinObservation,
    /// Slices from before and after the assumption's end are not merged.
    KeepAssumptionApart,
    /// A continued cell that is entered forgets its position.
    EnterForgetsPosition,
    /// A position belongs to one cell with fixed bounds.
    PositionHasBounds,
    /// Cells are narrowed to fewer names only where they agree at the same time.
    NarrowOnlyProven,
    /// A cell that is not covered by what was observed stays as it is.
    UnobservedStays,
    /// A cell has only grown if as many rows were emitted as had been observed.
    GrownCellsAreWhole,
}

#[cfg(test)]
impl Rule {
    pub(super) const ALL: [Self; 17] = [
        Self::DeletionsOnlyWhenSettled,
        Self::KeepRawFigure,
        Self::RawFromOneResponse,
        Self::CompareChecksums,
        Self::MergeAdds,
        Self::FoldAdds,
        Self::FoldWholeMonths,
        Self::CutTail,
        Self::BoundNeverGoesBack,
        Self::UnsettleUnproven,
        Self::MergeWithinObservation,
        Self::KeepAssumptionApart,
        Self::EnterForgetsPosition,
        Self::PositionHasBounds,
        Self::NarrowOnlyProven,
        Self::UnobservedStays,
        Self::GrownCellsAreWhole,
    ];
}

#[cfg(test)]
thread_local! {
    /// The rule that this thread's test has switched off.
    pub(super) static BROKEN: std::cell::Cell<Option<Rule>> = const { std::cell::Cell::new(None) };
}

/// Returns true, except in a test that has switched the rule off.
#[cfg(test)]
pub(super) fn holds(rule: Rule) -> bool {
    BROKEN.get() != Some(rule)
}

/// Returns true, except in a test that has switched the rule off.
#[cfg(not(test))]
pub(super) const fn holds(_rule: Rule) -> bool {
    true
}
