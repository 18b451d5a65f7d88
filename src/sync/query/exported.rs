//! Whether all rows that exports must have had came, by day.
//!
//! A run proves that its rows came, but not that it had all that it should have had: rows can become visible after
//! it, and before September 2026 runs did not say a number at all. So the rows of a table that shows its changes are
//! counted by the day of their position while files are read, and PostHog counts them once afterwards.
//!
//! What is counted had its last change before the end of the pass, so every run of it had the row as it is now. A row
//! that has changed since may have been exported, too: there may be more here, but not fewer. What exports leave out
//! is read by query in any case, so it is not counted ([`super::changes`]).

use std::sync::Arc;

use super::reader::ProjectReader;
use super::window::SETTLING;
use crate::error::Error;
use crate::sync::figure_row;
use crate::sync::ledger::{Days, Period, hogql};
use crate::sync::report::{Counts, Proof};
use crate::sync::state::day_counts::DayCounts;
use crate::sync::state::interval::{Interval, Intervals};
use crate::sync::state::scan::{Changed, Scan, ScanKind};
use crate::time::{Timestamp, days};

/// Days that are named in the log.
const MOST_NAMED: usize = 10;

/// The first position that a pass is compared for. PostHog finds sessions as if none began earlier than three days
/// before its events (`SESSION_BUFFER_DAYS` in `where_clause_extractor.py`), and so do its exports.
pub(crate) fn first_position(from: Timestamp) -> Timestamp {
    from.minus(days(3))
}

/// A day of which fewer rows came than PostHog has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct MissingDay {
    day: i64,
    here: u64,
    posthog: u64,
}

/// The days of which rows are missing, in ascending order.
fn missing(here: &DayCounts, posthog: &DayCounts) -> Vec<MissingDay> {
    let day = |(day, posthog)| MissingDay { day, here: here.of(day), posthog };
    posthog.iter().map(day).filter(|day| day.here < day.posthog).collect()
}

/// What came of what PostHog has, day by day: more of one day do not make up for fewer of another.
fn counts(here: &DayCounts, posthog: &DayCounts) -> Counts {
    let of_day = |(day, posthog): (i64, u64)| here.of(day).min(posthog);
    Counts::of(posthog.iter().map(of_day).sum(), posthog.iter().map(|(_, rows)| rows).sum())
}

/// A scan of these days, and of nothing between them.
fn scan_of(days: &[MissingDay], whole: Interval, changed: Changed) -> Scan {
    let mut closed = Intervals::default();
    let mut from = whole.from;
    for MissingDay { day, .. } in days {
        let (begin, end) = (Timestamp::from_day(*day), Timestamp::from_day(day + 1));
        closed.add(Interval { from, to: begin.max(whole.from) });
        from = end.min(whole.to);
    }
    closed.add(Interval { from, ..whole });
    // What is counted has not changed for a while, so all of it is compared with the count.
    let until = changed.interval.to.minus(-SETTLING);
    Scan { changed: Some(changed), closed, ..Scan::new(ScanKind::Tail, whole, until) }
}

/// The days with both numbers, for people.
fn describe(days: &[MissingDay]) -> String {
    let named = days.iter().take(MOST_NAMED);
    let named: Vec<String> =
        named.map(|day| format!("{} ({} of {})", Period::day(day.day), day.here, day.posthog)).collect();
    match days.len().saturating_sub(MOST_NAMED) {
        0 => named.join(", "),
        more => format!("{} and {more} more days", named.join(", ")),
    }
}

impl ProjectReader {
    /// Compares what the last pass has exported with PostHog's number of rows of every day, and reads the days that
    /// lack some.
    ///
    /// # Errors
    /// When PostHog does not answer, or a day still differs when it has been read; it stays noted.
    pub async fn compare_exported(self: &Arc<Self>) -> Result<(), Error> {
        let project = self.context.project;
        let state = self.checkpoint.project(project).await;
        let (Some(_), Some(exported), Some(to)) = (&self.table.changes, &state.export.days, state.watermark) else {
            return Ok(());
        };
        let is_over = state.export.until.is_none_or(|until| until <= to);
        if !is_over || self.context.plan.is_some() {
            return Ok(());
        }
        let asked = state.covered.unwrap_or(self.wanted()).intersection(self.wanted());
        let interval = Interval { from: first_position(exported.from), to }.intersection(asked);
        let changed = Changed { exported: true, ..Changed::within(Interval { from: exported.from, to }) };
        let is_under_way = |scan: &Scan| scan.changed.is_some_and(|changed| changed.exported);
        let reader = Self { changed: Some(changed), ..Self::clone(self) };
        let posthog = reader.count_days(interval).await?;
        let (here, days) = (counts(&exported.rows, &posthog), missing(&exported.rows, &posthog));
        let unread = state.scan.filter(is_under_way);
        if days.is_empty() && unread.is_none() {
            self.context.report.counted(Proof::CountedByDay, here);
            self.checkpoint.note(project, |state| state.export.days = None).await;
            return Ok(());
        }
        let scan = unread.unwrap_or_else(|| {
            tracing::warn!(
                "exports lack {} that PostHog counts, so these days are read by query: {}",
                self.table.stream,
                describe(&days)
            );
            self.context.report.repeated(days.iter().map(|day| day.here).sum());
            scan_of(&days, interval, changed)
        });
        if let Err(error) = self.run_to_end(&scan, &|_| {}).await {
            self.context.report.counted(Proof::CountedByDay, here);
            return Err(error);
        }
        self.context.report.counted(Proof::CountedByDay, Counts::of(here.posthog, here.posthog));
        Ok(())
    }

    /// Counts the rows of every day of an interval, in one row.
    async fn count_days(&self, interval: Interval) -> Result<DayCounts, Error> {
        let mut counts = DayCounts::default();
        let mut parts = vec![interval];
        while let Some(part) = parts.pop().filter(|part| !part.is_empty()) {
            let columns = format!("{} AS day, count() AS row_count", self.table.day);
            let mut query = self.predicate(part).select(&columns, self.table.from, "GROUP BY day");
            query.text = hogql::one_row("day, row_count", &query.text);
            let answer = match figure_row::ask(&self.context, self.table.stream, &query, 1).await {
                Ok(answer) => answer,
                Err(give_up) => return Err(give_up.into()),
            };
            let Some(answer) = answer else {
                parts.extend(self.halve(part)?);
                continue;
            };
            for row in answer.rows {
                let [day, rows] = row.0.as_slice() else { continue };
                if Days::ALL.contains(day.day()) {
                    counts.add(day.day(), rows.unsigned());
                }
            }
        }
        Ok(counts)
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn counts_of(days: &[(i64, u64)]) -> DayCounts {
        let mut counts = DayCounts::default();
        for (day, rows) in days {
            counts.add(*day, *rows);
        }
        counts
    }

    #[test]
    fn only_days_with_fewer_rows_are_missing() {
        let here = counts_of(&[(1, 5), (2, 7), (4, 1)]);
        let posthog = counts_of(&[(1, 5), (2, 6), (3, 2), (4, 3)]);
        let days = missing(&here, &posthog);
        let expected = [MissingDay { day: 3, here: 0, posthog: 2 }, MissingDay { day: 4, here: 1, posthog: 3 }];
        assert_eq!(days, expected);
        assert_eq!(describe(&days), "1970-01-04 (0 of 2), 1970-01-05 (1 of 3)");
        assert_eq!(counts(&here, &posthog), Counts::of(12, 16), "the 7 of day 2 do not make up for day 3");
        assert_eq!(missing(&posthog, &posthog), []);
    }

    #[test]
    fn nothing_is_read_between_the_days() {
        let at = |day: i64, hours: i64| Timestamp::from_day(day).minus(TimeDelta::hours(-hours));
        let whole = Interval { from: at(10, 6), to: at(20, 6) };
        let day = |day| MissingDay { day, here: 0, posthog: 1 };
        let changed = Changed { exported: true, ..Changed::within(whole) };
        for (days, gaps) in [
            (vec![12], vec![(at(12, 0), at(13, 0))]),
            (vec![10, 14, 15, 20], vec![(at(10, 6), at(11, 0)), (at(14, 0), at(16, 0)), (at(20, 0), at(20, 6))]),
        ] {
            let days: Vec<MissingDay> = days.into_iter().map(day).collect();
            let scan = scan_of(&days, whole, changed);
            let gaps: Vec<Interval> = gaps.into_iter().map(|(from, to)| Interval { from, to }).collect();
            assert_eq!(scan.closed.gaps(whole), gaps);
            assert!(scan.until > whole.to);
        }
    }
}
