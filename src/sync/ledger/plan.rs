//! The plan of a sync: up to when, in which new slices, and which days are observed.

use chrono::TimeDelta;

use super::period::Days;
use super::rules::{Rule, holds};
use super::slice::Slice;
use super::state::Ledger;
use crate::time::Timestamp;

/// The end of a sync is kept in slices that are this long and up to its bound, because rows that become
/// visible late mostly do so soon: what has to be read again is then small.
const TAIL: [TimeDelta; 3] = [TimeDelta::hours(24), TimeDelta::hours(1), TimeDelta::minutes(10)];
/// Days are observed all at once at least every so many microseconds.
const FULL_EVERY: i64 = 24 * 3_600_000_000;
/// Observing all days is cheap up to this many bytes read by the server, and done by every sync.
const CHEAP_BYTES: u64 = 200_000_000;
/// Days before the last full observation that are observed by every sync.
const RECENT_DAYS: i64 = 3;

/// The bound on ingestion time of a sync: the server's clock less the ingestion delay, and never before
/// the last bound, so that a clock that goes back opens nothing.
pub fn bound(clock: Timestamp, delay: TimeDelta, ledger: &Ledger) -> Timestamp {
    let bound = clock.minus(delay);
    if holds(Rule::BoundNeverGoesBack) { ledger.until().map_or(bound, |until| bound.max(until)) } else { bound }
}

/// The days to observe: all that are asked for, or only the recent ones.
///
/// Recent days are counted from the last full observation and not from today, so that no day drops out
/// in between: a late event of such a day would make the cells of merged slices differ.
pub fn observation(ledger: &Ledger, asked: Days, bound: Timestamp) -> Days {
    let Some(full) = ledger.full else { return asked };
    let due = bound >= full.until.plus_micros(FULL_EVERY);
    let cheap = full.bytes.is_none_or(|bytes| bytes < CHEAP_BYTES);
    let adding = ledger.added.is_some();
    if due || cheap || adding || !full.days.contains_all(asked) {
        return asked;
    }
    asked.intersection(Days { from: full.until.day() - RECENT_DAYS, ..Days::ALL })
}

impl Ledger {
    /// Opens slices for what was ingested since the last sync, up to `bound`.
    ///
    /// Slices at the end that hold nothing are replaced: syncs of a project without new events, or syncs
    /// that were interrupted early, leave no trace.
    pub fn open_slices(&mut self, bound: Timestamp) {
        let kept = self.slices.iter().rposition(|slice| !slice.is_empty()).map_or(0, |last| last + 1);
        let is_open = |until| self.open.iter().any(|open| open.ingested_before == until);
        let opened = self.slices.iter().rposition(|slice| is_open(slice.until)).map_or(0, |last| last + 1);
        self.slices.truncate(kept.max(opened));
        let mut cuts: Vec<Timestamp> = Vec::with_capacity(TAIL.len() + 2);
        if let Some(assumed) = self.assumed
            && assumed.ingested_before < bound
        {
            cuts.push(assumed.ingested_before);
        }
        if holds(Rule::CutTail) {
            cuts.extend(TAIL.map(|length| bound.minus(length)));
        }
        cuts.push(bound);
        cuts.sort_unstable();
        for cut in cuts {
            if self.until().is_none_or(|until| until < cut) || !holds(Rule::BoundNeverGoesBack) {
                self.slices.push(Slice::new(cut));
            }
        }
    }
}
