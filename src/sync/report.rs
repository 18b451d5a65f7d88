//! What a stream reports at its end: how many records, and by what they are known to be all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use indicatif::HumanCount;

use crate::lock::lock;

/// So many days that differ are named.
const MOST_DAYS: usize = 5;

/// By what a stream is known to be complete, from the strongest proof to the weakest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Proof {
    /// Number and checksum of every day are PostHog's.
    Compared,
    /// The same of recent days; all days are compared once a day.
    ComparedRecently,
    /// As many were exported of every day as PostHog counts. They are part of what it has exported.
    CountedByDay,
    /// As many came as PostHog counts.
    Counted,
    /// Every export run delivered as many rows as PostHog has exported.
    Exported,
    /// PostHog does not say how many rows it has exported: every file that it lists was read.
    FilesListed,
    /// PostHog does not count these objects: two listings show the same.
    ListedTwice,
    /// PostHog does not count these objects: they were read to the end.
    ReadToEnd,
    /// PostHog's figures are those at the last read.
    Unchanged,
    /// What is read are PostHog's figures themselves.
    Figures,
    /// A state without figures says that some have been emitted before.
    Assumed,
}

/// What has been emitted, and what PostHog has, by one proof.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// What came here: over all syncs if days are compared, otherwise in this one.
    pub here: u64,
    /// What PostHog has.
    pub posthog: u64,
    /// Rows that became visible while their days were read; the next sync reads them.
    pub later: u64,
}

/// What the projects of a stream report. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct StreamReport(Arc<Mutex<Totals>>);

/// The sum of what the projects of a stream have reported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Records that an earlier sync had emitted, too.
    pub repeats: u64,
    /// The days that differ, each with both numbers.
    pub differing: Vec<String>,
    proofs: BTreeMap<Proof, Counts>,
}

impl StreamReport {
    /// A part of the stream is complete by a proof without numbers.
    pub fn proven_by(&self, proof: Proof) {
        self.counted(proof, Counts::default());
    }

    /// A part of the stream has been compared with what PostHog has.
    pub fn counted(&self, proof: Proof, counts: Counts) {
        let mut totals = lock(&self.0);
        let sum = totals.proofs.entry(proof).or_default();
        sum.here += counts.here;
        sum.posthog += counts.posthog;
        sum.later += counts.later;
    }

    /// These days differ, each with both numbers.
    pub fn differ(&self, days: Vec<String>) {
        lock(&self.0).differing.extend(days);
    }

    /// So many of the records had been emitted before.
    pub fn repeated(&self, records: u64) {
        lock(&self.0).repeats += records;
    }

    /// What has been reported so far.
    pub fn totals(&self) -> Totals {
        lock(&self.0).clone()
    }
}

impl Counts {
    /// As many here as PostHog has.
    pub fn of(here: u64, posthog: u64) -> Self {
        Self { here, posthog, later: 0 }
    }

    fn agree(self, proof: Proof) -> bool {
        let due = self.posthog.saturating_sub(self.later);
        // Rows that are deleted or move on while they are read have been read all the same.
        if matches!(proof, Proof::Counted | Proof::CountedByDay) { self.here >= due } else { self.here == due }
    }
}

impl Proof {
    fn name(self) -> &'static str {
        match self {
            Self::Compared => "compared",
            Self::ComparedRecently => "compared_recently",
            Self::CountedByDay => "counted_by_day",
            Self::Counted => "counted",
            Self::Exported => "exported",
            Self::FilesListed => "files_listed",
            Self::ListedTwice => "listed_twice",
            Self::ReadToEnd => "read_to_end",
            Self::Unchanged => "unchanged",
            Self::Figures => "figures",
            Self::Assumed => "assumed",
        }
    }

    fn has_counts(self) -> bool {
        matches!(self, Self::Compared | Self::ComparedRecently | Self::CountedByDay | Self::Counted | Self::Exported)
    }

    fn describe(self, counts: Counts) -> String {
        let (here, posthog) = (HumanCount(counts.here), HumanCount(counts.posthog));
        let agreement = |what: &str| match (counts.agree(self), counts.later) {
            (true, 0) => format!("{what} agree"),
            (true, later) => {
                format!(
                    "{what} agree, but for {} that became visible meanwhile and are read next time",
                    HumanCount(later)
                )
            }
            (false, _) => "they differ".to_owned(),
        };
        match self {
            Self::Compared => {
                let verdict = agreement("number and checksum of every day");
                format!("PostHog has {posthog}, and {here} of them have been emitted so far: {verdict}")
            }
            Self::ComparedRecently => {
                let verdict = agreement("number and checksum of each of these days");
                format!("PostHog has {posthog} of recent days, and {here} of them have been emitted so far: {verdict}")
            }
            Self::CountedByDay => {
                let verdict = agreement("their numbers of every day");
                format!("PostHog counts {posthog} that it must have exported, and {here} of them came: {verdict}")
            }
            Self::Counted => format!("PostHog counts {posthog}, and {here} were read"),
            Self::Exported => format!("PostHog has exported {posthog} rows, and {here} were read"),
            Self::FilesListed => "all files that PostHog lists were read".to_owned(),
            Self::ListedTwice => "two listings show the same".to_owned(),
            Self::ReadToEnd => "read to the end; PostHog does not count them".to_owned(),
            Self::Unchanged => "PostHog's figures are those of the last read".to_owned(),
            Self::Figures => "these are PostHog's own figures".to_owned(),
            Self::Assumed => format!("{here} of them are assumed to have been emitted before, as the state says"),
        }
    }
}

impl Totals {
    /// What PostHog has, if it was asked.
    pub fn posthog(&self) -> Option<u64> {
        // What is counted by day is in the numbers of exported rows already, where PostHog says these.
        let says_exported = self.proofs.contains_key(&Proof::Exported);
        let numbers = self.counts().filter(|(proof, _)| !(says_exported && *proof == Proof::CountedByDay));
        numbers.map(|(_, counts)| counts.posthog).reduce(|a, b| a + b)
    }

    /// Whether what came is what PostHog has, if it was asked.
    pub fn agrees(&self) -> Option<bool> {
        self.counts().map(|(proof, counts)| counts.agree(proof)).reduce(|a, b| a && b)
    }

    /// The proofs by name.
    pub fn proofs(&self) -> String {
        self.proofs.keys().map(|proof| proof.name()).collect::<Vec<_>>().join(",")
    }

    /// What the proofs are, for people; empty if there is none.
    pub fn describe(&self) -> String {
        let described: Vec<String> =
            self.proofs.iter().map(|(proof, counts)| format!("; {}", proof.describe(*counts))).collect();
        described.concat() + &self.describe_differing()
    }

    /// The first of the days that differ.
    fn describe_differing(&self) -> String {
        let Some((shown, rest)) = self.differing.split_at_checked(MOST_DAYS.min(self.differing.len())) else {
            return String::new();
        };
        let more = if rest.is_empty() { String::new() } else { format!(" and {} more", HumanCount(rest.len() as u64)) };
        if shown.is_empty() { String::new() } else { format!("; these days differ: {}{more}", shown.join(", ")) }
    }

    fn counts(&self) -> impl Iterator<Item = (Proof, Counts)> {
        self.proofs.iter().map(|(proof, counts)| (*proof, *counts)).filter(|(proof, _)| proof.has_counts())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_projects_add_up_and_agree_only_if_all_do() {
        let report = StreamReport::default();
        assert_eq!((report.totals().posthog(), report.totals().agrees()), (None, None));
        report.proven_by(Proof::ReadToEnd);
        assert_eq!((report.totals().posthog(), report.totals().agrees()), (None, None));
        report.counted(Proof::Compared, Counts::of(10, 10));
        report.counted(Proof::Compared, Counts { here: 5, posthog: 7, later: 2 });
        assert_eq!((report.totals().posthog(), report.totals().agrees()), (Some(17), Some(true)));
        assert!(report.totals().describe().contains("but for 2 that became visible"), "{}", report.totals().describe());
        report.counted(Proof::Exported, Counts::of(1, 2));
        assert_eq!((report.totals().posthog(), report.totals().agrees()), (Some(19), Some(false)));
        assert_eq!(report.totals().proofs(), "compared,exported,read_to_end");
    }

    #[test]
    fn rows_that_move_on_while_they_are_read_are_no_disagreement() {
        for (proof, agrees) in [(Proof::Counted, true), (Proof::Compared, false), (Proof::Exported, false)] {
            assert_eq!(Counts::of(11, 10).agree(proof), agrees, "{proof:?}");
        }
    }
}
