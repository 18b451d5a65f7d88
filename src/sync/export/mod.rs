//! Reads a table of one project by file download exports.
//!
//! ```text
//! pass (fixed end) ─► windows of ingestion time, at most 7 days ─► run ─► files ─► comparison ─► watermark
//!                                                └ the next runs are being prepared meanwhile
//! ```
//!
//! Windows follow each other without gap or overlap and are read in order. What was exported is
//! compared with PostHog's own count by hour of arrival, if the key may query; what is missing, such
//! as events that an export's look-back leaves out, is read by a query.

mod arrivals;
mod comparison;
mod file;
mod run;

use std::collections::VecDeque;
use std::sync::Arc;

use chrono::TimeDelta;

use self::comparison::StoredByHour;
use self::run::{Prepared, Running};
use super::observer::OnEstimate;
use super::query::reader::ProjectReader;
use super::state::export::{self, ExportState, ExportWindow};
use super::state::interval::Interval;
use super::state::scan::ScanKind;
use super::state::table::{LastMethod, LateCheck, ProjectState};
use crate::error::Error;
use crate::posthog::account;
use crate::posthog::exports::{Exports, LONGEST_INTERVAL};
use crate::posthog::http::{Failure, FileClient, GiveUp, NextAttempt, Reason, Refusal, Retry};
use crate::time::{Timestamp, days};

/// Runs of a window that may fail in a row.
const MOST_RUNS: usize = 6;
/// Clocks of senders may be ahead: an event of the start date can have come in the day before.
const CLOCKS_AHEAD: u32 = 1;
/// Windows that are not longer than this are not cut any more when `PostHog` cannot export them.
const SHORTEST_WINDOW: i64 = export::HOUR;

/// Reads one table of one project by exports.
pub struct ExportReader {
    /// What is read and where it goes; asks the queries.
    pub reader: Arc<ProjectReader>,
    /// Downloads files.
    pub files: FileClient,
    /// Age that data must have to be exported.
    pub ingestion_delay: TimeDelta,
    /// Model of the export.
    pub model: &'static str,
    /// Whether the key may query.
    pub may_query: bool,
}

/// What a pass has exported, for the user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct ExportTotals {
    runs: u64,
    rows: u64,
}

impl ExportReader {
    /// Reads what has been stored since the state, or everything.
    ///
    /// # Errors
    /// When a run cannot be finished or what it has exported cannot be completed; windows that have
    /// been closed stay closed.
    pub async fn run(&self, on_estimate: OnEstimate<'_>) -> Result<(), Error> {
        let (reader, project) = (&self.reader, self.reader.context.project);
        self.settle_open_scan(on_estimate).await?;
        let Some(mut pass) = self.pass().await? else { return Ok(()) };
        let before = reader.checkpoint.project(project).await;
        reader
            .checkpoint
            .update(project, |state| {
                state.export.until = Some(pass.to);
                state.covered = Some(self.covered(state));
                state.names = Some(reader.names());
            })
            .await?;
        let stored = self.stored(pass).await?;
        if let Some(stored) = &stored {
            if begins(&before) {
                pass.from = pass.from.min(stored.first());
            }
            on_estimate(stored.rows_since(pass.from));
        }
        tracing::info!("{} by file exports, stored in PostHog {pass}", reader.table.stream);
        if reader.table.fed_by.is_some() {
            tracing::info!(
                "PostHog does not export {} whose events come in three or more days after their end; a full refresh with `method` `query` has them",
                reader.table.stream
            );
        }
        let exported = self.windows(pass, stored.as_ref(), on_estimate).await?;
        if exported.runs > 0 {
            tracing::info!(
                "{} rows of {} exported in {} runs; PostHog may bill exported rows",
                exported.rows,
                reader.table.stream,
                exported.runs
            );
        }
        reader.checkpoint.update(project, |state| self.finish(state, stored.as_ref())).await
    }

    fn exports(&self) -> Exports<'_> {
        Exports::new(&self.reader.context.client, self.reader.context.project, &self.reader.context.observer)
    }

    /// A repair that was interrupted is finished; a scan of the query method is given up, which
    /// loses nothing, because the watermark has not moved yet.
    async fn settle_open_scan(&self, on_estimate: OnEstimate<'_>) -> Result<(), Error> {
        let (reader, project) = (&self.reader, self.reader.context.project);
        let Some(scan) = reader.checkpoint.project(project).await.scan else { return Ok(()) };
        if scan.kind == ScanKind::Repair {
            if self.may_query {
                return self.repair(scan, on_estimate).await;
            }
            return Err(Error::config(format!(
                "exports have left out {}, which only a query can read; add the scope `query:read` to the API key",
                reader.table.stream
            )));
        }
        tracing::info!("a scan by query is under way; it is replaced by file exports");
        reader.checkpoint.update(project, |state| state.scan = None).await
    }

    /// The times of ingestion that this sync reads; none when there is nothing to read.
    async fn pass(&self) -> Result<Option<Interval>, Error> {
        let (reader, project) = (&self.reader, self.reader.context.project);
        let mut state = reader.checkpoint.project(project).await;
        if self.must_start_again(&mut state) {
            let changed = state.clone();
            reader.checkpoint.update(project, |state| *state = changed).await?;
        }
        let lookback = reader.context.config.method.query.lookback;
        let until = state.export.until.unwrap_or_else(|| reader.context.client.now().minus(self.ingestion_delay));
        let from = match (state.export.windows.first(), state.watermark) {
            (Some(window), _) => window.interval.from,
            (None, Some(watermark)) if state.method == Some(LastMethod::Query) => {
                // Very late rows have been looked for until then only.
                state.late_check.map_or(watermark, |check| check.until.min(watermark)).minus(lookback)
            }
            // What the server has stored late is found by comparing, or else by looking back.
            (None, Some(watermark)) if reader.table.ingestion_time.is_none() && watermark < until => {
                watermark.minus(lookback)
            }
            (None, Some(watermark)) => watermark,
            (None, None) => match state.resume_from {
                Some(from) => from.minus(days(CLOCKS_AHEAD)),
                None => self.beginning().await?,
            },
        };
        if state.export.until.is_none() && state.watermark.is_some() && !reader.context.incremental {
            return Ok(None);
        }
        if reader.end().micros() < from.minus(reader.context.config.method.query.late_window).micros() {
            tracing::info!(
                "nothing is exported, because `end_date` lies {} days before what was stored since",
                reader.context.config.method.query.late_window.num_days()
            );
            return Ok(None);
        }
        Ok((from < until).then_some(Interval { from, to: until }))
    }

    /// When the configuration asks for more than runs and watermark are about, they are of no use.
    /// Returns whether `state` has changed.
    fn must_start_again(&self, state: &mut ProjectState) -> bool {
        let reader = &self.reader;
        let mut changed = false;
        let names = reader.names();
        if state.names.as_ref().is_some_and(|before| *before != names) && !state.export.windows.is_empty() {
            tracing::info!("other events are chosen now, so runs under way are started again");
            state.export.windows.clear();
            changed = true;
        }
        if !reader.context.incremental && reader.wants_more_events(state) {
            *state = ProjectState::default();
            return true;
        }
        reader.warn_about_state(state);
        let (wanted, Some(covered)) = (reader.wanted(), state.covered) else { return changed };
        // What has come in before a date can only be about that date if a clock was ahead.
        let restart = if wanted.from < covered.from {
            Some(None)
        } else if wanted.to > covered.to {
            // What has not been compared yet may have been left out.
            let from = covered.to.minus(days(CLOCKS_AHEAD)).min(state.export.compared_until.unwrap_or(Timestamp::MAX));
            Some(state.watermark.map(|watermark| watermark.min(from)))
        } else {
            None
        };
        let Some(watermark) = restart else { return changed };
        tracing::info!("the dates ask for more than before, so it is exported again");
        state.watermark = watermark;
        state.covered = None;
        state.export = ExportState::default();
        true
    }

    /// What has come in before this is not about the configured dates, unless a clock was ahead.
    fn earliest(&self) -> Timestamp {
        self.reader.context.config.start.minus(days(CLOCKS_AHEAD))
    }

    /// The first time of ingestion that can matter, by the project's age.
    async fn beginning(&self) -> Result<Timestamp, Error> {
        let reader = &self.reader;
        let project = account::project(
            &reader.context.client,
            reader.context.project,
            reader.context.client.retry(),
            &reader.context.observer,
        )
        .await;
        let start = self.earliest();
        let created = match project {
            Ok(project) => project.created_at,
            Err(error) => {
                tracing::debug!("{error}");
                None
            }
        };
        let created = created.map(|created| created.minus(days(1)));
        let beginning = match (reader.table.bounded_by_dates, created) {
            (true, created) => created.map_or(start, |created| created.max(start)),
            (false, Some(created)) => created,
            (false, None) => {
                tracing::warn!(
                    "{} from before {start} are not exported, because the key lacks the scope `project:read` and so the project's age is unknown",
                    reader.table.stream
                );
                start
            }
        };
        Ok(Timestamp::from_day(beginning.day()))
    }

    /// Reads window after window, while the next runs are being prepared.
    async fn windows(
        &self,
        pass: Interval,
        stored: Option<&StoredByHour>,
        on_estimate: OnEstimate<'_>,
    ) -> Result<ExportTotals, Error> {
        let (reader, project) = (&self.reader, self.reader.context.project);
        let known = reader.checkpoint.project(project).await.export.windows;
        let mut running: VecDeque<Running> = known.into_iter().map(Running::new).collect();
        let mut pending = VecDeque::new();
        let mut next = running.back().map_or(pass.from, |running| running.window.interval.to);
        let step = reader.context.config.window_days.map_or(i64::MAX, |days| i64::from(days) * 24 * export::HOUR);
        let longest = LONGEST_INTERVAL.min(step);
        let mut exported = ExportTotals::default();
        let mut failures = Retry::with_attempts(MOST_RUNS);
        loop {
            while running.len() < reader.context.config.concurrency {
                let interval = match pending.pop_front() {
                    Some(interval) => interval,
                    None => match next_window(next, pass.to, longest, stored) {
                        Some(interval) => interval,
                        None => break,
                    },
                };
                next = next.max(interval.to);
                let Some(run) = self.start(interval, &mut pending).await? else { continue };
                exported.runs += 1;
                running.push_back(Running::new(ExportWindow::new(interval, run)));
                self.note(&running).await?;
            }
            let Some(first) = running.front().cloned() else { break };
            let window = &first.window;
            let prepared = if window.done { Prepared::Files(Vec::new()) } else { self.prepared(&first).await? };
            match prepared {
                Prepared::Files(files) => {
                    let Some(rows) = self.read_files(window, &files).await? else {
                        exported.runs += 1;
                        self.give_up(window, "its files have expired", &mut failures).await?;
                        self.restart(&mut running, &mut pending, false).await?;
                        continue;
                    };
                    exported.rows += rows;
                    failures.progress();
                    if !window.done {
                        reader.checkpoint.update(project, |state| state.export.complete_first()).await?;
                    }
                    self.compare(window.interval, stored, on_estimate).await?;
                    running.pop_front();
                    self.close(window.interval.to, &running).await?;
                }
                Prepared::Failed { reason, too_large } => {
                    self.give_up(window, &reason, &mut failures).await?;
                    exported.runs += 1;
                    self.restart(&mut running, &mut pending, too_large).await?;
                }
            }
        }
        self.close(pass.to, &running).await?;
        Ok(exported)
    }

    /// Starts the run of a window. None when the window was cut in two, which are pending then.
    async fn start(&self, interval: Interval, pending: &mut VecDeque<Interval>) -> Result<Option<String>, Error> {
        let client = &self.reader.context.client;
        let (exports, request) = (self.exports(), self.request(interval));
        match client.retry().run(client.limiter(), || exports.start(&request)).await {
            Ok(run) => {
                tracing::debug!("export run {run} of {interval} started");
                Ok(Some(run))
            }
            Err(GiveUp::TooLarge { .. }) => {
                let (first, second) = halves(interval).ok_or_else(|| {
                    Error::transient(format!(
                        "PostHog cannot export even {interval}; try again later, or set `method` to `query`"
                    ))
                })?;
                pending.push_front(second);
                pending.push_front(first);
                Ok(None)
            }
            Err(GiveUp::Refused(Refusal { reason: Reason::NotFound | Reason::NotPostHog, .. })) => {
                Err(Error::config("this PostHog has no file download exports; set `method` to `auto` or `query`"))
            }
            Err(give_up) => Err(give_up.into()),
        }
    }

    /// Says that a run is of no use, and waits a little before the next one.
    async fn give_up(&self, window: &ExportWindow, reason: &str, failures: &mut Retry) -> Result<(), Error> {
        let (reader, interval) = (&self.reader, window.interval);
        tracing::warn!("export run {} of {interval}: {reason}; it is started again", window.run);
        let failure = Failure::transient(format!("export run of {interval}: {reason}"));
        match failures.after(failure, reader.context.client.limiter()).await? {
            NextAttempt::Same | NextAttempt::Smaller => Ok(()),
        }
    }

    /// Starts the first window's run again, in two parts if it was too large.
    async fn restart(
        &self,
        running: &mut VecDeque<Running>,
        pending: &mut VecDeque<Interval>,
        too_large: bool,
    ) -> Result<(), Error> {
        let Some(Running { window, .. }) = running.pop_front() else { return Ok(()) };
        let parts = halves(window.interval).filter(|_| too_large);
        let (first, second) = parts.map_or((window.interval, None), |(first, second)| (first, Some(second)));
        for interval in second.into_iter().chain([first]) {
            let mut cut = VecDeque::new();
            if let Some(run) = self.start(interval, &mut cut).await? {
                running.push_front(Running::new(ExportWindow::new(interval, run)));
            } else {
                // Windows are read in order, so those behind it come later, with new runs.
                cut.extend(running.drain(..).map(|running| running.window.interval));
                cut.into_iter().rev().for_each(|interval| pending.push_front(interval));
            }
        }
        self.note(running).await
    }

    /// Notes which runs are under way.
    async fn note(&self, running: &VecDeque<Running>) -> Result<(), Error> {
        let windows: Vec<ExportWindow> = running.iter().map(|running| running.window.clone()).collect();
        self.reader.checkpoint.update(self.reader.context.project, |state| state.export.windows = windows).await
    }

    /// Notes that everything stored before `watermark` has been read.
    async fn close(&self, watermark: Timestamp, running: &VecDeque<Running>) -> Result<(), Error> {
        let windows: Vec<ExportWindow> = running.iter().map(|running| running.window.clone()).collect();
        let change = |state: &mut ProjectState| {
            state.watermark = Some(watermark);
            state.method = Some(LastMethod::Export);
            state.resume_from = None;
            // Exports have late rows as well, however old they are.
            state.late_check = Some(LateCheck::of(watermark));
            state.export.windows = windows;
        };
        self.reader.checkpoint.update(self.reader.context.project, change).await
    }

    /// The positions that everything up to the watermark has been read for.
    fn covered(&self, state: &ProjectState) -> Interval {
        let wanted = self.reader.wanted();
        state.covered.map_or(wanted, |covered| covered.intersection(wanted))
    }

    /// Ends a pass in the state.
    fn finish(&self, state: &mut ProjectState, stored: Option<&StoredByHour>) {
        state.export.until = None;
        if let Some(stored) = stored {
            state.export.compared_at = Some(self.reader.context.client.now());
            state.export.bytes = stored.bytes.or(state.export.bytes);
        }
    }
}

/// Whether nothing has been exported yet, and no other state says where to begin.
fn begins(state: &ProjectState) -> bool {
    state.watermark.is_none() && state.resume_from.is_none() && state.export.windows.is_empty()
}

/// The next window that may have rows; what lies before it is known to be empty.
fn next_window(from: Timestamp, until: Timestamp, longest: i64, stored: Option<&StoredByHour>) -> Option<Interval> {
    let from = stored.map_or(from, |stored| stored.first_after(from).min(until).max(from));
    let interval = Interval { from, to: from.plus_micros(longest).min(until) };
    (!interval.is_empty()).then_some(interval)
}

/// A window in two parts, unless it is short already.
fn halves(interval: Interval) -> Option<(Interval, Interval)> {
    (interval.length() > SHORTEST_WINDOW).then(|| interval.cut(interval.length() / 2))
}
