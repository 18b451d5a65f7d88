//! Brings one table of one project up to date, scan by scan.
//!
//! The first scan reads everything from the start date on. Each later sync reads what has changed
//! since, with a lookback window.

use std::collections::VecDeque;
use std::sync::Arc;

use chrono::TimeDelta;
use tokio::task::JoinSet;
use tracing::Instrument;

use super::changes::looked;
use super::plan::{Window, narrowed, windows};
use super::reader::{Histogram, ProjectReader, sum};
use super::window::Outcome;
use crate::error::Error;
use crate::sync::context::LOOKBACK;
use crate::sync::ledger::{BYTES_A_ROW, Choice, Names};
use crate::sync::observer::OnEstimate;
use crate::sync::read_plan::{PlannedMethod, PlannedRead};
use crate::sync::report::Proof;
use crate::sync::state::error::refuse_ahead;
use crate::sync::state::export::ExportState;
use crate::sync::state::interval::{Interval, Intervals};
use crate::sync::state::scan::{Changed, OpenWindow, Scan, ScanKind};
use crate::sync::state::table::{LastMethod, ProjectState};
use crate::time::Timestamp;

/// After a scan that took longer than this (or the lookback window, if longer), what has changed
/// meanwhile is read in the same sync.
const LONG_SCAN: TimeDelta = TimeDelta::minutes(15);

/// Changed rows are few and lie far apart, and a page costs all rows of its days: days of a window at most.
const MOST_DAYS_OF_CHANGES: i64 = 7;

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
            if scanned.is_empty() {
                self.check_state(&state)?;
            }
            let Some(scan) = self.next_scan(&state, &scanned) else { return Ok(()) };
            // What has changed before a full refresh was continued is read by another scan.
            if self.context.incremental || state.scan.is_none() || scan.kind != ScanKind::Tail {
                scanned.push(scan.kind);
            }
            self.run_to_end(&scan, on_estimate).await?;
        }
    }

    /// Reads what is left of a scan, and enters it into the state.
    pub(super) async fn run_to_end(self: &Arc<Self>, scan: &Scan, on_estimate: OnEstimate<'_>) -> Result<(), Error> {
        let reader = match scan.changed {
            None => Arc::clone(self),
            changed => Arc::new(Self { changed, ..Self::clone(self) }),
        };
        reader.run_scan(scan.clone(), on_estimate).await?;
        self.checkpoint.update(self.context.project, |project| self.finish(project, scan)).await
    }

    /// Enters a finished scan into the state.
    fn finish(&self, project: &mut ProjectState, scan: &Scan) {
        let wanted = self.wanted();
        let bytes = project.scan.take().and_then(|scan| scan.bytes);
        if scan.changed.is_some_and(|changed| changed.exported) {
            // The exports before it have moved the watermark, and changes are another matter.
            project.export.days = None;
            return;
        }
        if self.table.changes.is_some() && scan.kind != ScanKind::Extension {
            project.changes = Some(looked(scan, wanted, project.changes, bytes));
        }
        if scan.changed.is_some_and(|changed| changed.left_out) {
            // The exports before it have moved the watermark.
            return;
        }
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
            (ScanKind::Tail, known) => known.unwrap_or(wanted).intersection(wanted),
        });
        if scan.kind != ScanKind::Extension {
            project.watermark = Some(scan.until);
        }
        project.method = Some(LastMethod::Query);
        project.export = ExportState::default();
        project.resume_from = None;
    }

    /// The positions that the configuration asks for.
    pub fn wanted(&self) -> Interval {
        Interval { from: self.start(), to: self.end() }
    }

    /// The events that the configuration asks for.
    pub(crate) fn names(&self) -> Names {
        Names::new(&self.context.config.include_events, &self.context.config.exclude_events)
    }

    /// The events that a ledger is about.
    pub(crate) fn choice(&self) -> Choice {
        Choice { names: self.names(), filter: self.context.config.event_filter.clone() }
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
        let wanted = self.wanted();
        if let Some(scan) = &state.scan {
            if scan.serves(wanted, self.context.incremental) {
                return Some(scan.clone());
            }
            tracing::info!(
                "the dates ask for {} that the read under way leaves out; it is started again",
                self.table.stream
            );
        }
        let now = self.context.client.now();
        let scan = |kind, from: Timestamp, to: Timestamp| {
            let interval = Interval { from, to };
            (!interval.is_empty()).then(|| Scan::new(kind, interval, now))
        };
        let lookback = LOOKBACK;
        let Some(watermark) = state.watermark else {
            let resume = state.resume_from.map_or(Timestamp::MIN, |from| from.minus(lookback));
            return scan(ScanKind::Backfill, self.start().max(resume), self.end());
        };
        // Other dates in the configuration: read what they add before going on.
        let covered = state.covered.unwrap_or(wanted).intersection(wanted);
        let missing = if covered.is_empty() {
            wanted
        } else if covered.from > wanted.from {
            Interval { to: covered.from, ..wanted }
        } else {
            Interval { from: covered.to, ..wanted }
        };
        if let Some(extension) = scan(ScanKind::Extension, missing.from, missing.to) {
            return Some(Scan { until: watermark, ..extension });
        }
        if !self.context.incremental && self.table.changes.is_none() {
            return None;
        }
        let behind = TimeDelta::microseconds(now.micros() - watermark.micros());
        let from = watermark.minus(lookback + self.table.grows_for + self.table.rounds_to);
        let due = !scanned.contains(&ScanKind::Tail)
            && (!scanned.contains(&ScanKind::Backfill) || !self.context.incremental)
            || (behind > lookback.max(LONG_SCAN) && self.table.grows_for.is_zero());
        match due {
            false => None,
            true if self.table.changes.is_some() => self.changes_scan(state, watermark, now),
            true => scan(ScanKind::Tail, from.max(self.start()), self.end()),
        }
    }

    /// Refuses a state that is ahead of the server's clock: what it claims has not happened yet.
    ///
    /// # Errors
    /// A config error that says how to go on.
    pub(crate) fn check_state(&self, state: &ProjectState) -> Result<(), Error> {
        let Some(watermark) = state.watermark.filter(|_| self.context.incremental) else { return Ok(()) };
        refuse_ahead(self.table.stream, watermark, watermark.minus(LOOKBACK), self.context.client.now())
    }

    /// Reads what is left of a scan.
    async fn run_scan(self: &Arc<Self>, mut scan: Scan, on_estimate: OnEstimate<'_>) -> Result<(), Error> {
        self.checkpoint.update(self.context.project, |project| project.scan = Some(scan.clone())).await?;
        let (queue, bytes) = self.plan(&scan).await?;
        let rows: u64 = queue.iter().filter_map(|work| work.window.rows).sum();
        let all_rows = scan.changed.is_none().then(|| rows.saturating_mul(BYTES_A_ROW));
        scan.bytes = sum(scan.bytes, bytes.or(all_rows));
        self.checkpoint
            .note(self.context.project, |project| {
                if let Some(known) = &mut project.scan {
                    known.bytes = scan.bytes;
                }
            })
            .await;
        let resumed = if scan.closed == Intervals::default() && scan.open.is_empty() { "" } else { ", continued" };
        tracing::info!(
            "{} by query, {}{resumed}: about {rows} rows in {} windows",
            self.table.stream,
            match (scan.kind, scan.changed) {
                (ScanKind::Backfill, _) => format!("everything from {}", scan.interval.from),
                (ScanKind::Extension, _) => format!("added by other dates, {}", scan.interval),
                (ScanKind::Tail, None) => format!("changed since {}", scan.interval.from),
                (ScanKind::Tail, Some(Changed { interval, exported: true, .. })) => {
                    format!("of days that exports of {interval} lack rows of")
                }
                (ScanKind::Tail, Some(Changed { interval, left_out: false, .. })) => {
                    format!("from {}, changed since {}", scan.interval.from, interval.from)
                }
                (ScanKind::Tail, Some(Changed { interval, left_out: true, .. })) => {
                    format!("from {}, that exports of {interval} may have left out", scan.interval.from)
                }
            },
            queue.len()
        );
        if self.context.plan.is_some() {
            return self.plan_windows(&queue, scan.bytes).await;
        }
        on_estimate(rows);
        self.context.report.proven_by(Proof::Counted);
        let scan = Arc::new(scan);
        self.run_windows(&scan, queue).await
    }

    /// Enters the windows of a scan that would be read, and the bytes that counting their rows reads.
    async fn plan_windows(&self, queue: &VecDeque<Work>, bytes: Option<u64>) -> Result<(), Error> {
        let mut counted = Vec::with_capacity(queue.len());
        for Work { window, .. } in queue {
            counted.push(match window.rows {
                Some(rows) => rows,
                None => self.count_all(window.interval).await?,
            });
        }
        let all: u64 = counted.iter().sum();
        let bytes = bytes.unwrap_or_default();
        let mut planned = PlannedRead { rows: Some(0), bytes, queries: 2, ..PlannedRead::default() };
        for rows in counted.into_iter().filter(|rows| *rows > 0) {
            // Where rows have several versions, each page looks at all of them.
            let scanned = if self.table.rows_move { all } else { rows };
            planned.add(PlannedRead::pages(rows, self.page_size.rows(), scanned));
        }
        self.context.plan_read(PlannedMethod::Query, planned);
        Ok(())
    }

    /// Cuts what is left of a scan into windows, open ones first.
    ///
    /// Also returns the bytes that the server has read to count the rows, if it reports them.
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
        let most_days = self.context.config.window_days.map_or(i64::MAX, i64::from);
        let most_days = if scan.changed.is_some() { most_days.min(MOST_DAYS_OF_CHANGES) } else { most_days };
        let mut bytes = None;
        for gap in known.gaps(scan.interval) {
            let (histogram, is_whole) = self.compared_histogram(gap).await?;
            let target = u64::from(self.page_size.rows());
            bytes = sum(bytes, histogram.bytes);
            let mut planned = windows(gap, &histogram.days, target, most_days);
            if scan.changed.is_some() {
                planned = narrowed(planned, &histogram.days);
            }
            for mut window in planned {
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
    async fn compared_histogram(&self, gap: Interval) -> Result<(Histogram, bool), Error> {
        let mut histogram = Histogram::default();
        for _ in 0..HISTOGRAMS {
            // First all, then each day: what becomes visible meanwhile is only in the second answer.
            let all = self.count_all(gap).await?;
            histogram = self.histogram(gap).await?;
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
