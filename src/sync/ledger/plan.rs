//! The plan of a sync: up to when, in which new slices, and which days are observed.

use chrono::TimeDelta;

use super::period::Days;
use super::rules::{Rule, holds};
use super::slice::Slice;
use super::state::Ledger;
use crate::time::{DAY, Timestamp};

/// The end of a sync is kept in slices that are this long and up to its bound, because rows that become
/// visible late mostly do so soon: what has to be read again is then small.
const TAIL: [TimeDelta; 3] = [TimeDelta::hours(24), TimeDelta::hours(1), TimeDelta::minutes(10)];
/// Days are observed all at once at least every so many microseconds.
const FULL_EVERY: i64 = DAY;
/// Observing all days is cheap up to this many bytes read by the server, and done by every sync.
pub const CHEAP_BYTES: u64 = 200_000_000;
/// Bytes that counting reads for each row, where the server does not report how many it has read.
pub const BYTES_A_ROW: u64 = 40;
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
    /// Cuts slices of which nothing has been emitted at these times.
    pub fn split(&mut self, cuts: &[Timestamp]) {
        for &cut in cuts {
            let index = self.slices.partition_point(|slice| slice.until < cut);
            if self.slices.get(index).is_some_and(|slice| slice.is_empty() && slice.until > cut) {
                self.slices.insert(index, Slice::new(cut));
            }
        }
    }

    /// Opens slices for what was ingested since the last sync, up to `bound`.
    ///
    /// Slices at the end that hold nothing are replaced: syncs of a project without new events, or syncs
    /// that were interrupted early, leave no trace.
    ///
    /// `cuts` are further ends of slices, such as those of export windows. The slices up to the one that ends
    /// at `keep` stay even if they hold nothing.
    pub fn open_slices(
        &mut self,
        bound: Timestamp,
        cuts: impl IntoIterator<Item = Timestamp>,
        keep: Option<Timestamp>,
    ) {
        let kept = self.slices.iter().rposition(|slice| !slice.is_empty()).map_or(0, |last| last + 1);
        let is_open = |until| self.open.iter().any(|open| open.ingested_before == until);
        let opened = self.slices.iter().rposition(|slice| is_open(slice.until)).map_or(0, |last| last + 1);
        let used = keep.map_or(0, |keep| self.slices.partition_point(|slice| slice.until <= keep));
        self.slices.truncate(kept.max(opened).max(used));
        let mut cuts: Vec<Timestamp> = cuts.into_iter().filter(|cut| *cut < bound).collect();
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
        cuts.dedup();
        for cut in cuts {
            if self.until().is_none_or(|until| until < cut) || !holds(Rule::BoundNeverGoesBack) {
                self.slices.push(Slice::new(cut));
            }
        }
    }
}
