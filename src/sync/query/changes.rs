//! Rows that have changed, found by the time at which their changes were ingested.
//!
//! Only some tables show that time ([`Changes`]), and none is ordered by it: HogQL finds the rows of sessions by
//! their start (`hogql/database/schema/util/where_clause_extractor.py`), and a condition on anything else reads all
//! that there are. So most syncs look at recent rows only, and at all of them once a day, or whenever that is cheap.

use std::sync::Arc;

use chrono::TimeDelta;
use serde_json::Map;

use super::reader::ProjectReader;
use crate::error::Error;
use crate::posthog::Predicate;
use crate::streams::Changes;
use crate::sync::context::LOOKBACK;
use crate::sync::state::interval::{Interval, Intervals};
use crate::sync::state::scan::{Changed, ChangesRead, Scan, ScanKind};
use crate::sync::state::table::ProjectState;
use crate::time::Timestamp;

/// Rows whose position is not older than this are recent.
const RECENT: TimeDelta = TimeDelta::days(10);
/// All rows are looked at when that has not been done for so long,
const ALL_EVERY: TimeDelta = TimeDelta::hours(24);
/// or when it reads less than this.
const CHEAP_BYTES: u64 = 200_000_000;

/// What a row is taken to cost where the server does not report the bytes that it reads.
pub(super) const BYTES_A_ROW: u64 = 40;

/// Where to look for changes that have not been read yet, and since when.
fn look(wanted: Interval, read: ChangesRead, now: Timestamp) -> (Interval, Timestamp) {
    let recent = Interval { from: wanted.from.max(now.minus(RECENT)), ..wanted };
    let is_due = read.all <= now.minus(ALL_EVERY) || read.bytes.is_some_and(|bytes| bytes < CHEAP_BYTES);
    if is_due || recent.is_empty() { (wanted, read.all.minus(LOOKBACK)) } else { (recent, read.recent.minus(LOOKBACK)) }
}

/// Leaves rows out that have not changed in the time that is meant.
pub(super) fn restrict(predicate: &mut Predicate, changes: &Changes, changed: Changed) {
    let Changes { at, end } = changes;
    let Interval { from, to } = changed.interval;
    if to < Timestamp::MAX {
        predicate.range(at, from, to);
    } else if from > Timestamp::MIN {
        predicate.from(at, from);
    }
    if changed.left_out {
        // Exports go by the end of a session and by the interval of their run: newer versions leave out what changed
        // three days after it had ended, older ones what changed in a later run. Runs of a sync begin an hour before
        // the end of the last one, so all of these have changed at least an hour after their end. And whatever ends
        // after the last interval has not been exported at all.
        let hour = LOOKBACK.num_hours();
        let late = format!("({at} >= {end} + toIntervalHour({hour}) OR {end} >= {})", to.literal());
        predicate.condition(late, Map::new());
    }
}

/// What has been looked for when `scan` is done.
pub(super) fn looked(scan: &Scan, wanted: Interval, before: Option<ChangesRead>, bytes: Option<u64>) -> ChangesRead {
    let until = scan.until;
    match before {
        Some(before) if scan.interval.from > wanted.from => ChangesRead { recent: until, ..before },
        before => ChangesRead { recent: until, all: until, bytes: bytes.or(before.and_then(|before| before.bytes)) },
    }
}

impl ProjectReader {
    /// The scan for changes since the state.
    pub(super) fn changes_scan(&self, state: &ProjectState, watermark: Timestamp, now: Timestamp) -> Option<Scan> {
        self.table.changes.as_ref()?;
        let (interval, from) = if self.context.incremental {
            let read = state.changes.unwrap_or(ChangesRead { recent: watermark, all: watermark, bytes: None });
            look(self.wanted(), read, now)
        } else {
            // What has changed while it was read: there is no next sync.
            (self.wanted(), watermark)
        };
        let changed = Changed { interval: Interval { from, to: Timestamp::MAX }, left_out: false };
        scan_of(interval, now, changed)
    }

    /// Counts the rows that have changed since the state; none when there is no state, or nothing shows it.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn count_changes(&self) -> Result<Option<u64>, Error> {
        let state = self.checkpoint.project(self.context.project).await;
        let now = self.context.client.now();
        let Some(watermark) = state.watermark else { return Ok(None) };
        let Some(scan) = self.changes_scan(&state, watermark, now) else { return Ok(None) };
        Self { changed: scan.changed, ..self.clone() }.count_all(scan.interval).await.map(Some)
    }

    /// Reads what exports before the watermark may have left out and no query has read, if the table shows it.
    ///
    /// # Errors
    /// When the scan cannot be finished; what it has closed stays closed.
    pub async fn read_left_out(self: &Arc<Self>) -> Result<(), Error> {
        let state = self.checkpoint.project(self.context.project).await;
        let (Some(_), Some(watermark)) = (&self.table.changes, state.watermark) else { return Ok(()) };
        let is_under_way = |scan: &Scan| scan.changed.is_some_and(|changed| changed.left_out);
        let scan = match state.scan.filter(is_under_way) {
            Some(scan) => Some(scan),
            None => {
                let nothing = ChangesRead { recent: Timestamp::MIN, all: Timestamp::MIN, bytes: None };
                let read = state.changes.unwrap_or(nothing);
                if read.recent >= watermark {
                    return Ok(());
                }
                let (interval, from) = look(self.wanted(), read, self.context.client.now());
                scan_of(interval, watermark, Changed { interval: Interval { from, to: watermark }, left_out: true })
            }
        };
        match scan {
            Some(scan) => self.run_to_end(&scan, &|_| {}).await,
            None => Ok(()),
        }
    }
}

fn scan_of(interval: Interval, until: Timestamp, changed: Changed) -> Option<Scan> {
    let (closed, open) = (Intervals::default(), Vec::new());
    let scan = Scan { kind: ScanKind::Tail, interval, until, changed: Some(changed), bytes: None, closed, open };
    (!interval.is_empty()).then_some(scan)
}
