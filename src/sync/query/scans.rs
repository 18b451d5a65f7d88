//! Brings one table of one project up to date, scan by scan.
//!
//! The first scan reads everything from the start date on that was received before now. Each later
//! sync reads what has been received since, looking back over the late window, and from time to
//! time what arrived with an even older timestamp.

use std::collections::VecDeque;
use std::sync::Arc;

use chrono::TimeDelta;
use tokio::task::JoinSet;
use tracing::Instrument;

use super::plan::{Window, windows};
use super::reader::{Histogram, ProjectReader, sum};
use super::window::Outcome;
use crate::error::Error;
use crate::sync::observer::OnEstimate;
use crate::sync::state::error::warn_if_ahead;
use crate::sync::state::event_filter::EventFilter;
use crate::sync::state::export::ExportState;
use crate::sync::state::interval::{Interval, Intervals};
use crate::sync::state::scan::{OpenWindow, Scan, ScanKind};
use crate::sync::state::table::{LastMethod, LateCheck, ProjectState};
use crate::time::Timestamp;

/// A check for very late rows that reads less than this is part of every sync (2 % of the hourly
/// budget of a free project).
pub(crate) const CHEAP_CHECK_BYTES: u64 = 400_000_000;
/// A dearer one is done once in so much time.
pub(crate) const DEAR_CHECK_INTERVAL: TimeDelta = TimeDelta::hours(24);
/// After a scan that took longer than this (or the overlap, if longer), what has arrived meanwhile
/// is read in the same sync.
const LONG_SCAN: TimeDelta = TimeDelta::minutes(15);

/// How often the days of a scan are counted before their disagreement with the count of all is final:
/// copies that are merged between two answers make them differ once.
const HISTOGRAMS: u32 = 3;

impl ProjectReader {
    /// Reads what is new since the state, or everything.
    ///
    /// # Errors
    /// When a scan cannot be finished; what it has closed stays closed.
    pub async fn run(self: &Arc<Self>, on_estimate: OnEstimate<'_>) -> Result<(), Error> {
        let mut scanned = Vec::new();
        loop {
            let state = self.checkpoint.project(self.context.project).await;
            let Some(scan) = self.next_scan(&state, &scanned) else { return Ok(()) };
            if scanned.is_empty() {
                self.warn_about_state(&state);
            }
            scanned.push(scan.kind);
            let bytes = self.run_scan(scan.clone(), on_estimate).await?;
            self.checkpoint.update(self.context.project, |project| self.finish(project, &scan, bytes)).await?;
        }
    }

    /// Enters a finished scan into the state.
    fn finish(&self, project: &mut ProjectState, scan: &Scan, bytes: Option<u64>) {
        let wanted = self.wanted();
        // What another connector has read counts as covered.
        let covered = match project.resume_from {
            Some(_) => Interval { from: wanted.from, ..scan.interval },
            None => scan.interval,
        };
        project.covered = Some(match (scan.kind, project.covered) {
            (ScanKind::Backfill, _) | (ScanKind::Extension, None) => covered,
            (ScanKind::Extension, Some(known)) if known.intersection(wanted).is_empty() => covered,
            (ScanKind::Extension, Some(known)) => {
                Interval { from: known.from.min(covered.from), to: known.to.max(covered.to) }
            }
            (ScanKind::Tail | ScanKind::Late | ScanKind::Repair, known) => known.unwrap_or(wanted).intersection(wanted),
        });
        match scan.kind {
            ScanKind::Backfill => {
                project.watermark = Some(scan.until);
                // What came in after another connector had stopped can be about an earlier time.
                project.late_check = Some(project.resume_from.map_or(LateCheck::of(scan.until), |from| LateCheck {
                    before: Some(from.minus(self.context.config.method.query.lookback)),
                    ..LateCheck::of(from)
                }));
            }
            // Very late rows of what it has added are not looked for yet.
            ScanKind::Extension => {
                if let Some(check) = &mut project.late_check {
                    check.until = check.until.min(scan.until);
                }
            }
            ScanKind::Repair => {}
            ScanKind::Tail => {
                project.watermark = Some(scan.until);
                if let Some(check) = project.late_check.as_mut().filter(|_| scan.arrived_from.is_some()) {
                    check.before = check.before.max(Some(scan.interval.from));
                }
            }
            // What has come in since the tail was begun is the next one's, whose window may be shorter then.
            ScanKind::Late => {
                let until = project.watermark.map_or(scan.until, |watermark| watermark.min(scan.until));
                project.late_check = Some(LateCheck { until, bytes, before: None });
            }
        }
        project.names = Some(self.names());
        project.scan = None;
        if scan.kind != ScanKind::Repair {
            if let Some(compared) = project.export.compared_until {
                // Exports may have left out what arrived since.
                if let Some(check) = &mut project.late_check {
                    check.until = check.until.min(compared);
                }
                if !matches!(scan.kind, ScanKind::Backfill | ScanKind::Tail) {
                    project.watermark = project.watermark.map(|watermark| watermark.min(compared));
                }
            }
            project.method = Some(LastMethod::Query);
            project.export = ExportState::default();
        }
        project.resume_from = None;
    }

    /// The positions that the configuration asks for.
    pub(crate) fn wanted(&self) -> Interval {
        Interval { from: self.start(), to: self.end() }
    }

    pub(crate) fn names(&self) -> EventFilter {
        match self.table.event_name_column {
            Some(_) => EventFilter {
                include: self.context.config.include_events.clone(),
                exclude: self.context.config.exclude_events.clone(),
            },
            None => EventFilter::default(),
        }
    }

    /// The first position to read.
    fn start(&self) -> Timestamp {
        if self.table.bounded_by_dates { self.context.config.start } else { Timestamp::MIN }
    }

    pub(crate) fn end(&self) -> Timestamp {
        self.context.config.end.filter(|_| self.table.bounded_by_dates).unwrap_or(Timestamp::MAX)
    }

    /// Decides what to do next; `scanned` is what this sync has done already.
    fn next_scan(&self, state: &ProjectState, scanned: &[ScanKind]) -> Option<Scan> {
        if let Some(scan) = &state.scan {
            if scan.serves(&self.names(), self.wanted(), self.context.incremental) {
                return Some(Scan { names: Some(self.names()), ..scan.clone() });
            }
            tracing::info!(
                "events or dates are chosen now that the {} under way has left out; it is started again",
                self.table.stream
            );
        }
        let now = self.context.client.now();
        let scan = |kind, from: Timestamp, to: Timestamp, arrived_from| {
            let interval = Interval { from, to };
            let (closed, open) = (Intervals::default(), Vec::new());
            (!interval.is_empty()).then_some(Scan {
                kind,
                interval,
                arrived_from,
                until: now,
                far: false,
                names: Some(self.names()),
                closed,
                open,
            })
        };
        let lookback = self.context.config.method.query.lookback;
        // Exports may have left out what has not been compared yet.
        let compared = state.export.compared_until.unwrap_or(Timestamp::MAX);
        // A full refresh that has left out what is wanted now has not read this project.
        let lacks_events = !self.context.incremental && self.wants_more_events(state);
        let watermark = state.watermark.filter(|_| !lacks_events);
        let Some(watermark) = watermark.map(|watermark| watermark.min(compared)) else {
            let resume = state.resume_from.map_or(Timestamp::MIN, |from| from.minus(lookback));
            return scan(ScanKind::Backfill, self.start().max(resume), self.end(), None);
        };
        // Other dates in the configuration: read what they add before going on.
        let wanted = self.wanted();
        let covered = state.covered.unwrap_or(wanted).intersection(wanted);
        let missing = if covered.is_empty() {
            wanted
        } else if covered.from > wanted.from {
            Interval { to: covered.from, ..wanted }
        } else {
            Interval { from: covered.to, ..wanted }
        };
        if let Some(extension) = scan(ScanKind::Extension, missing.from, missing.to, None) {
            return Some(Scan { until: watermark, ..extension });
        }
        if !self.context.incremental {
            return None;
        }
        let behind = TimeDelta::microseconds(now.micros() - watermark.micros());
        let arrived = watermark.minus(lookback + self.table.grows_for + self.table.rounds_to);
        if self.table.ingestion_time.is_none() {
            let due = !scanned.contains(&ScanKind::Tail) && !scanned.contains(&ScanKind::Backfill)
                || (behind > lookback.max(LONG_SCAN) && self.table.grows_for.is_zero());
            return due.then(|| scan(ScanKind::Tail, arrived.max(self.start()), self.end(), None)).flatten();
        }
        let late_bound = arrived.minus(self.context.config.method.query.late_window).max(self.start());
        // None when the end date lies before everything that the tail looks at.
        let tail = scan(ScanKind::Tail, late_bound, self.end(), Some(arrived));
        let first = scanned.iter().all(|kind| *kind == ScanKind::Extension);
        if tail.is_some() && (first || behind > lookback.max(LONG_SCAN)) {
            return tail;
        }
        if scanned.contains(&ScanKind::Late) || (tail.is_some() && !scanned.contains(&ScanKind::Tail)) {
            return None;
        }
        let check = state.late_check.unwrap_or(LateCheck::of(watermark));
        let cheap = check.bytes.is_none_or(|bytes| bytes.saturating_mul(2) <= CHEAP_CHECK_BYTES);
        let old = TimeDelta::microseconds(now.micros() - check.until.micros()) >= DEAR_CHECK_INTERVAL;
        let to = late_bound.max(check.before.unwrap_or(Timestamp::MIN)).min(self.end());
        (cheap || old).then(|| scan(ScanKind::Late, self.start(), to, Some(check.until.minus(lookback)))).flatten()
    }

    /// Whether events are chosen that have not been when the state was made.
    pub(crate) fn wants_more_events(&self, state: &ProjectState) -> bool {
        state.names.as_ref().is_some_and(|before| !self.names().is_within(before))
    }

    /// What the state says that the next sync will not read, although it may be wanted.
    pub(crate) fn warn_about_state(&self, state: &ProjectState) {
        let Some(watermark) = state.watermark else { return };
        if !self.context.incremental {
            return;
        }
        let from = watermark.minus(self.context.config.method.query.lookback);
        warn_if_ahead(self.table.stream, watermark, from, self.context.client.now());
        // Events that have been chosen later have no effect on what has been read before.
        if self.wants_more_events(state) {
            tracing::warn!(
                "`include_events` or `exclude_events` now choose more events than before; those that PostHog received before {watermark} have not been read. To read them, clear the stream's state"
            );
        }
    }

    /// Reads what is left of a scan. Returns the bytes that planning it made the server read.
    pub(crate) async fn run_scan(
        self: &Arc<Self>,
        scan: Scan,
        on_estimate: OnEstimate<'_>,
    ) -> Result<Option<u64>, Error> {
        self.checkpoint.update(self.context.project, |project| project.scan = Some(scan.clone())).await?;
        let (queue, bytes) = self.plan(&scan).await?;
        let rows: u64 = queue.iter().filter_map(|work| work.window.rows).sum();
        let resumed = if scan.closed == Intervals::default() && scan.open.is_empty() { "" } else { ", continued" };
        tracing::info!(
            "{} by query, {}{resumed}: about {rows} rows in {} windows",
            self.table.stream,
            match scan.kind {
                ScanKind::Backfill => format!("everything from {}", scan.interval.from),
                ScanKind::Extension => format!("added by other dates, {}", scan.interval),
                ScanKind::Tail => format!("new since {}", scan.arrived_from.unwrap_or(scan.interval.from)),
                ScanKind::Late => format!("late ones from before {}", scan.interval.to),
                ScanKind::Repair =>
                    format!("received from {} to {}", scan.arrived_from.unwrap_or(scan.interval.from), scan.until),
            },
            queue.len()
        );
        on_estimate(rows);
        let scan = Arc::new(scan);
        self.run_windows(&scan, queue).await?;
        Ok(bytes)
    }

    /// Cuts what is left of a scan into windows, open ones first.
    async fn plan(&self, scan: &Scan) -> Result<(VecDeque<Work>, Option<u64>), Error> {
        let mut known = scan.closed.clone();
        let mut queue: VecDeque<Work> = VecDeque::new();
        for open in &scan.open {
            known.add(open.interval);
            queue.push_back(Work {
                window: Window { interval: open.interval, rows: None },
                open: Some(open.clone()),
                length: None,
            });
        }
        let mut bytes = None;
        let most_days = self.context.config.window_days.map_or(i64::MAX, i64::from);
        for gap in known.gaps(scan.interval) {
            let (histogram, is_whole) = self.compared_histogram(scan, gap).await?;
            bytes = sum(bytes, histogram.bytes);
            let target = u64::from(self.page_size.rows());
            for mut window in windows(gap, &histogram.days, target, most_days) {
                window.rows = window.rows.filter(|_| is_whole);
                queue.push_back(Work { window, open: None, length: None });
            }
        }
        if self.table.rows_move {
            queue = ascending_with_open_end(queue);
        }
        Ok((queue, bytes))
    }

    /// Counts the rows of every day of a gap, and compares them with the count of all. Days that an
    /// answer leaves out would be taken for empty, and a page that is cut like it for whole. Returns whether
    /// they agree; if not, the days are good for planning, and nothing else.
    async fn compared_histogram(&self, scan: &Scan, gap: Interval) -> Result<(Histogram, bool), Error> {
        let mut histogram = Histogram::default();
        for _ in 0..HISTOGRAMS {
            // First all, then each day: what becomes visible meanwhile is only in the second answer.
            let all = self.count_all(scan, gap).await?;
            histogram = self.histogram(scan, gap).await?;
            let shown: Option<u64> = histogram.days.iter().map(|day| day.rows).sum();
            if shown.is_none_or(|shown| shown >= all) {
                return Ok((histogram, true));
            }
        }
        tracing::warn!(
            "PostHog counts fewer {} from {gap} day by day than altogether, so they are counted again when they have been read",
            self.table.stream
        );
        Ok((histogram, false))
    }

    /// Works the queue off, several windows at a time.
    async fn run_windows(self: &Arc<Self>, scan: &Arc<Scan>, mut queue: VecDeque<Work>) -> Result<(), Error> {
        // Rows that move to a later position are met again only when windows are read in order.
        let most = if self.table.rows_move { 1 } else { self.context.config.concurrency };
        let mut running = JoinSet::new();
        loop {
            while running.len() < most {
                let Some(mut work) = queue.pop_front() else { break };
                if let Some(length) = work.length {
                    let (first, rest) = work.window.interval.cut(length);
                    work.window.interval = first;
                    if !rest.is_empty() {
                        // Rows are not spread evenly: dare twice as much each time.
                        let length = Some(length.saturating_mul(2));
                        queue.push_front(Work { window: Window { interval: rest, rows: None }, open: None, length });
                    }
                }
                if work.window.rows == Some(0) {
                    self.close(work.window.interval).await?;
                    continue;
                }
                let (reader, scan) = (Arc::clone(self), Arc::clone(scan));
                running.spawn(async move { reader.read_window(&scan, work.window, work.open).await }.in_current_span());
            }
            match running.join_next().await {
                None => return Ok(()),
                Some(Ok(Ok(Outcome::Whole))) => {}
                Some(Ok(Ok(Outcome::Part { read, rest }))) => {
                    let length = Some(read.length());
                    queue.push_front(Work { window: Window { interval: rest, rows: None }, open: None, length });
                }
                Some(Ok(Err(error))) => return Err(error),
                Some(Err(error)) => {
                    return Err(Error::system("a task of this connector has failed").with_details(error.to_string()));
                }
            }
        }
    }
}

/// A window to read, and how far an earlier run has read it.
struct Work {
    window: Window,
    open: Option<OpenWindow>,
    /// How much of it to read at a time, in microseconds, after it has turned out to be too large.
    length: Option<i64>,
}

/// Windows in ascending order. The count of the last one says nothing: rows move there meanwhile.
fn ascending_with_open_end(queue: VecDeque<Work>) -> VecDeque<Work> {
    let mut queue = Vec::from(queue);
    queue.sort_by_key(|work| work.window.interval.from);
    if let Some(last) = queue.last_mut() {
        last.window.rows = None;
    }
    queue.into()
}
