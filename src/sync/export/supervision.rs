//! How long a run may take, and whether exports work on this instance at all.
//!
//! A run that goes wrong does not fail: PostHog's workflow tries again without limit
//! (`temporal/…/entrypoint.py`), so a window that is too large, or an instance without a bucket for the
//! files, shows as running for ever. Hence every run has a deadline.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use super::row_limit::RowLimit;
use crate::lock::lock;
use crate::time::DAY;

/// A run may take so many times as long as the longest one so far.
const PATIENCE: u32 = 8;
/// No run is given up earlier, however quick the others were.
const SHORTEST_DEADLINE: Duration = Duration::from_secs(15);
/// Where exports have not been proven to work, the first run has to end in this time.
const PROOF: Duration = Duration::from_mins(1);

/// What is known of the exports of one project. Shared by its streams.
#[derive(Debug)]
pub struct Supervision {
    /// The most that a run may take.
    limit: Duration,
    /// Runs at a time.
    most_runs: usize,
    /// Rows that the runs of all projects may export.
    pub(super) row_limit: RowLimit,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    /// Exports have been seen to work here, or are known to.
    proven: bool,
    /// Exports do not work here, for this reason.
    failed: Option<String>,
    /// The longest run that has completed.
    longest_run: Option<Duration>,
    /// Length of the longest window that has been exported, in microseconds.
    longest_window: Option<i64>,
    /// Length of the shortest window whose run was late.
    late_window: Option<i64>,
    /// Runs that have been started and neither read nor cancelled.
    running: BTreeSet<String>,
}

impl Supervision {
    /// Runs may take `limit`, and so many may run at a time; `proven` where exports are known to work.
    pub fn new(limit: Duration, most_runs: usize, proven: bool) -> Self {
        let known = Known {
            proven,
            failed: None,
            longest_run: None,
            longest_window: None,
            late_window: None,
            running: BTreeSet::new(),
        };
        Self { limit, most_runs, row_limit: RowLimit::default(), known: Mutex::new(known) }
    }

    /// The same, with a limit for exported rows.
    #[must_use]
    pub fn with_row_limit(self, row_limit: RowLimit) -> Self {
        Self { row_limit, ..self }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        lock(&self.known)
    }

    /// Whether exports have been seen to work here.
    pub fn is_proven(&self) -> bool {
        self.known().proven
    }

    /// Exports have worked here before.
    pub fn prove(&self) {
        self.known().proven = true;
    }

    /// Why exports do not work here, if that is known.
    pub fn failure(&self) -> Option<String> {
        self.known().failed.clone()
    }

    /// Exports do not work here.
    pub fn fail(&self, reason: &str) {
        self.known().failed.get_or_insert_with(|| reason.to_owned());
    }

    /// How long a run may take, by what others have taken.
    pub(super) fn deadline(&self) -> Duration {
        let known = self.known();
        match known.longest_run {
            Some(longest) => (longest * PATIENCE).clamp(SHORTEST_DEADLINE.min(self.limit), self.limit),
            None if known.proven => self.limit,
            None => PROOF.min(self.limit),
        }
    }

    /// Whether one more run may be started; a stream that has none starts one in any case.
    pub(super) fn has_room(&self) -> bool {
        self.known().running.len() < self.most_runs
    }

    /// A run has been started.
    pub(super) fn started(&self, run: &str) {
        self.known().running.insert(run.to_owned());
    }

    /// A run has completed after this time; unknown for one that an earlier sync has started.
    pub(super) fn completed(&self, duration: Option<Duration>) {
        let mut known = self.known();
        known.proven = true;
        known.longest_run = known.longest_run.max(duration);
    }

    /// A window of this length has been exported.
    pub(super) fn read(&self, length: i64) {
        let mut known = self.known();
        known.longest_window = known.longest_window.max(Some(length));
        // What was late was no sign of what is too long.
        known.late_window = known.late_window.filter(|late| *late > length);
    }

    /// Whether a late run is rather an exception than a sign of what is too long: windows of this length have been
    /// exported, and none has been late since.
    pub(super) fn is_exception(&self, late: i64) -> bool {
        let known = self.known();
        known.late_window.is_none() && known.longest_window.is_some_and(|length| length >= late)
    }

    /// The run of a window of this length was late. Returns the length to try next: one that has been
    /// exported before, otherwise half, and a day at most.
    pub(super) fn length_after(&self, late: i64) -> i64 {
        let mut known = self.known();
        known.late_window = Some(known.late_window.map_or(late, |shortest| shortest.min(late)));
        let exported = known.longest_window.filter(|length| *length < late);
        exported.unwrap_or(DAY).min(late / 2)
    }

    /// The longest window that is worth a run, by what is known: all, until one was late.
    pub(super) fn longest_window(&self) -> i64 {
        let known = self.known();
        known
            .late_window
            .map_or(i64::MAX, |late| known.longest_window.filter(|length| *length < late).unwrap_or(late / 2))
    }

    /// A run has been read or cancelled.
    pub(super) fn ended(&self, run: &str) {
        self.known().running.remove(run);
    }

    /// Runs that would be left unread if this process ended now.
    pub fn unread(&self) -> Vec<String> {
        self.known().running.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadline_follows_the_runs_seen_so_far() {
        let limit = Duration::from_mins(30);
        assert_eq!(Supervision::new(limit, 8, true).deadline(), limit);
        let unproven = Supervision::new(limit, 8, false);
        assert_eq!(unproven.deadline(), PROOF);
        unproven.completed(Some(Duration::from_secs(1)));
        assert!(unproven.is_proven());
        assert_eq!(unproven.deadline(), SHORTEST_DEADLINE);
        unproven.completed(Some(Duration::from_secs(45)));
        assert_eq!(unproven.deadline(), Duration::from_mins(6));
        unproven.completed(Some(Duration::from_mins(20)));
        assert_eq!(unproven.deadline(), limit);
        assert_eq!(Supervision::new(Duration::from_secs(5), 8, false).deadline(), Duration::from_secs(5));
    }

    #[test]
    fn late_window_is_followed_by_one_of_a_length_that_has_worked() {
        let supervision = Supervision::new(Duration::from_mins(30), 8, true);
        assert_eq!(supervision.longest_window(), i64::MAX);
        assert_eq!(supervision.length_after(7 * DAY), DAY);
        supervision.read(DAY / 2);
        assert_eq!(supervision.length_after(7 * DAY), DAY / 2);
        assert_eq!(supervision.longest_window(), DAY / 2);
        assert_eq!(supervision.length_after(DAY / 2), DAY / 4);
        supervision.read(7 * DAY);
        assert_eq!(supervision.longest_window(), i64::MAX, "a longer one has worked");
    }

    #[test]
    fn unread_runs_are_those_neither_read_nor_cancelled() {
        let supervision = Supervision::new(Duration::from_mins(30), 8, true);
        supervision.started("a");
        supervision.started("b");
        supervision.ended("a");
        assert_eq!(supervision.unread(), ["b"]);
    }
}
