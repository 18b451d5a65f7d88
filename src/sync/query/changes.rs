//! Rows that have changed, found by the time at which their changes were ingested.
//!
//! Only some tables show that time ([`Changes`](crate::streams::Changes)), and none is ordered by it: HogQL finds the rows of sessions by
//! their start (`hogql/database/schema/util/where_clause_extractor.py`), and a condition on anything else reads all
//! that there are. So most syncs look at recent rows only, and at all of them once a day, or whenever that is cheap.

use std::sync::Arc;

use chrono::TimeDelta;

use super::reader::ProjectReader;
use crate::error::Error;
use crate::sync::context::LOOKBACK;
use crate::sync::ledger::CHEAP_BYTES;
use crate::sync::state::interval::Interval;
use crate::sync::state::scan::{Changed, ChangesRead, Scan, ScanKind};
use crate::sync::state::table::ProjectState;
use crate::time::Timestamp;

/// Rows whose position is not older than this are recent.
const RECENT: TimeDelta = TimeDelta::days(10);
/// All rows are looked at when that has not been done for so long, or when it is cheap ([`CHEAP_BYTES`]).
const ALL_EVERY: TimeDelta = TimeDelta::hours(24);

/// Where to look for changes that have not been read yet, and since when.
fn look(wanted: Interval, known: ChangesRead, now: Timestamp) -> (Interval, Timestamp) {
    let recent = Interval { from: wanted.from.max(now.minus(RECENT)), ..wanted };
    let is_due = known.all <= now.minus(ALL_EVERY) || known.bytes.is_some_and(|bytes| bytes < CHEAP_BYTES);
    if is_due || recent.is_empty() {
        (wanted, known.all.minus(LOOKBACK))
    } else {
        (recent, known.recent.minus(LOOKBACK))
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
        let changed = Changed::within(Interval { from, to: Timestamp::MAX });
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
        let scan = state.scan.filter(is_under_way).or_else(|| {
            let nothing = ChangesRead { recent: Timestamp::MIN, all: Timestamp::MIN, bytes: None };
            let known = state.changes.unwrap_or(nothing);
            let (interval, from) = look(self.wanted(), known, self.context.client.now());
            let changed = Changed { left_out: true, ..Changed::within(Interval { from, to: watermark }) };
            scan_of(interval, watermark, changed).filter(|_| known.recent < watermark)
        });
        match scan {
            Some(scan) => self.run_to_end(&scan, &|_| {}).await,
            None => Ok(()),
        }
    }
}

fn scan_of(interval: Interval, until: Timestamp, changed: Changed) -> Option<Scan> {
    let scan = Scan { changed: Some(changed), ..Scan::new(ScanKind::Tail, interval, until) };
    (!interval.is_empty()).then_some(scan)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    #[test]
    fn all_rows_are_looked_at_once_a_day_or_where_that_is_cheap() {
        let wanted = Interval { from: at("2026-01-01"), to: Timestamp::MAX };
        let now = at("2026-06-20T12:00:00Z");
        let known = ChangesRead { recent: at("2026-06-20T11:00:00Z"), all: at("2026-06-20T01:00:00Z"), bytes: None };
        let all = (wanted, at("2026-06-20T00:00:00Z"));
        let recent = (Interval { from: at("2026-06-10T12:00:00Z"), ..wanted }, at("2026-06-20T10:00:00Z"));
        assert_eq!(look(wanted, known, now), recent);
        assert_eq!(look(wanted, ChangesRead { bytes: Some(CHEAP_BYTES), ..known }, now), recent);
        assert_eq!(look(wanted, ChangesRead { bytes: Some(1), ..known }, now), all);
        assert_eq!(look(wanted, known, at("2026-06-21T01:00:00Z")), all);
        // Nothing that is asked for is recent.
        let past = Interval { to: at("2026-03-01"), ..wanted };
        assert_eq!(look(past, known, now), (past, all.1));
    }

    #[test]
    fn what_has_been_looked_at_is_noted_as_such() {
        let wanted = Interval { from: at("2026-01-01"), to: Timestamp::MAX };
        let changed = Changed::within(wanted);
        let until = at("2026-06-20");
        let before = ChangesRead { recent: at("2026-06-19"), all: at("2026-06-18"), bytes: Some(5) };
        let recent = scan_of(Interval { from: at("2026-06-10"), ..wanted }, until, changed).unwrap();
        assert_eq!(looked(&recent, wanted, Some(before), Some(1)), ChangesRead { recent: until, ..before });
        let all = scan_of(wanted, until, changed).unwrap();
        let expected = ChangesRead { recent: until, all: until, bytes: Some(7) };
        assert_eq!(looked(&all, wanted, Some(before), Some(7)), expected);
        assert_eq!(looked(&all, wanted, Some(before), None).bytes, before.bytes);
    }
}
