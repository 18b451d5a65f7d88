//! One pass over times of ingestion: windows, their runs, and what becomes of each.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use chrono::TimeDelta;

use super::file::FilesRead;
use super::reader::{ExportReader, begins};
use super::run::{Prepared, Running};
use super::shared::{Begin, join};
use super::starts::Start;
use super::stored::StoredByHour;
use super::windows::Windows;
use crate::error::Error;
use crate::posthog::exports::LONGEST_INTERVAL;
use crate::posthog::http::{Failure, NextAttempt, Retry};
use crate::sync::observer::OnEstimate;
use crate::sync::query::reader::ProjectReader;
use crate::sync::read_plan::{PlannedMethod, PlannedRead};
use crate::sync::state::day_counts::DayCounts;
use crate::sync::state::export::{ExportState, ExportWindow, ExportedDays, HOUR};
use crate::sync::state::interval::Interval;
use crate::sync::state::table::{LastMethod, ProjectState};
use crate::time::Timestamp;

/// Runs of a window that may fail in a row.
const MOST_RUNS: usize = 6;
/// How many times the files of a window may differ from the number of rows that PostHog reports.
const MOST_DIFFERING: u32 = 2;
/// Where exports have not been proven to work, the first run has a window of a day at most.
const PROOF_WINDOW: i64 = 24 * HOUR;
/// How much earlier an interval ends that PostHog's clock has not reached.
const CLOCK_STEP: TimeDelta = TimeDelta::seconds(30);

/// How reading by exports has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportOutcome {
    /// Everything has been read.
    Complete,
    /// Exports do not work here; queries have to read what is missing.
    Impossible,
}

/// How exporting the windows of a pass has ended.
enum ExportEnd {
    Complete(ExportTotals),
    Impossible,
}

/// What has become of runs that were to be started ahead.
enum Started {
    /// So many more run.
    Runs(u64),
    /// Exports do not work here.
    Impossible(String),
}

/// What a pass has exported, for the user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct ExportTotals {
    runs: u64,
    rows: u64,
}

impl ExportReader {
    /// Reads what has been stored since the state, or everything; two streams from the same runs.
    ///
    /// # Errors
    /// When a run cannot be finished; windows that have been closed stay closed.
    pub async fn run(&self, on_estimate: OnEstimate<'_>) -> Result<ExportOutcome, Error> {
        let mut passes = Vec::new();
        for reader in self.streams() {
            let state = reader.checkpoint.project(reader.context.project).await;
            if state.scan.is_some() || state.distinct_ids.is_some() {
                // Its watermark has not moved yet, so nothing is lost.
                tracing::info!("a read by query was interrupted; it is replaced by file exports");
                let change = |state: &mut ProjectState| (state.scan, state.distinct_ids) = (None, None);
                reader.checkpoint.update(reader.context.project, change).await?;
            }
            passes.extend(self.pass(reader).await?.map(|pass| (reader, pass)));
        }
        let (this, mut pass) = match passes.as_slice() {
            [] => return Ok(ExportOutcome::Complete),
            [(reader, pass)] => (Self { reader: Arc::clone(reader), companion: None, ..self.clone() }, *pass),
            [(_, pass), (_, other), ..] => {
                let both = Interval { from: pass.from.min(other.from), to: pass.to.max(other.to) };
                (self.clone(), both)
            }
        };
        if let [(first, own), (second, other), ..] = passes.as_slice() {
            pass.from = self.join_runs((first, own.from), (second, other.from)).await?.unwrap_or(pass.from);
        }
        this.update(|state| {
            this.count_days(state, pass);
            state.export.until = Some(pass.to);
            state.covered = Some(this.covered(state));
            state.names = Some(this.names());
        })
        .await?;
        let known = this.reader.checkpoint.project(this.reader.context.project).await.export.days;
        let this = Self { counted_from: known.map(|days| days.from), ..this };
        let outcome = this.export_pass(pass, on_estimate).await?;
        if outcome == ExportOutcome::Complete {
            this.update(|state| state.export.until = None).await?;
        }
        Ok(outcome)
    }

    /// Has the rows of a new pass counted by day, where PostHog can be asked for the same. A pass that is resumed goes on
    /// counting; of one that has not been counted from its beginning, nothing would be known.
    fn count_days(&self, state: &mut ProjectState, pass: Interval) {
        let export = &mut state.export;
        let is_resumed = export.until == Some(pass.to) || !export.windows.is_empty();
        let may_count = self.may_query && self.reader.table.changes.is_some();
        if !is_resumed || !may_count {
            let days = ExportedDays { from: pass.from, rows: DayCounts::default() };
            export.days = may_count.then_some(days);
        }
    }

    /// Makes both states know the runs that both can go on with. Returns where to begin, if there are none.
    async fn join_runs(
        &self,
        (first, first_from): (&Arc<ProjectReader>, Timestamp),
        (second, second_from): (&Arc<ProjectReader>, Timestamp),
    ) -> Result<Option<Timestamp>, Error> {
        let project = self.reader.context.project;
        let known = [
            first.checkpoint.project(project).await.export.windows,
            second.checkpoint.project(project).await.export.windows,
        ];
        let [own, other] = known.clone();
        let joined = join(Begin { from: first_from, windows: own }, Begin { from: second_from, windows: other });
        if let Some(windows) = joined {
            if known.iter().any(|known| *known != windows) {
                self.update(|state| state.export.windows.clone_from(&windows)).await?;
            }
            return Ok(None);
        }
        tracing::info!("export runs in progress do not cover both streams, so they are started again");
        let runs: BTreeSet<String> = known.into_iter().flatten().map(|window| window.run).collect();
        self.update(|state| state.export.windows.clear()).await?;
        for run in runs {
            self.cancel(&run).await;
        }
        let mut from: Option<Timestamp> = None;
        for reader in [first, second] {
            let own = self.pass(reader).await?.map(|pass| pass.from);
            from = from.into_iter().chain(own).min();
        }
        Ok(from)
    }

    /// Exports what was ingested in an interval.
    pub(super) async fn export_pass(
        &self,
        mut pass: Interval,
        on_estimate: OnEstimate<'_>,
    ) -> Result<ExportOutcome, Error> {
        let (reader, project) = (&self.reader, self.reader.context.project);
        let before = reader.checkpoint.project(project).await;
        let mut stored = self.stored(pass).await?;
        if let Some(stored) = &mut stored {
            if self.cells.is_none() && begins(&before) {
                pass.from = pass.from.min(stored.first());
                if let Some(first) = self.hidden_before(stored).await? {
                    pass.from = pass.from.min(first);
                }
            }
            if self.cells.is_none() {
                on_estimate(stored.rows_since(pass.from));
            }
            let (now, bytes) = (reader.context.client.now(), stored.bytes);
            reader
                .checkpoint
                .note(project, |state| {
                    state.export.counted_at = Some(now);
                    state.export.bytes = bytes.or(state.export.bytes);
                })
                .await;
        }
        tracing::info!("exporting {} ingested from {pass}", reader.table.stream);
        if reader.table.fed_by.is_some() && !self.may_query {
            tracing::warn!(
                "PostHog does not export {} whose events are ingested three or more days after they end; to have them read by query, give the API key the scope `query:read`",
                reader.table.stream
            );
        }
        if reader.context.plan.is_some() {
            self.plan_runs(pass, stored.as_ref()).await;
            return Ok(ExportOutcome::Complete);
        }
        let ExportEnd::Complete(exported) = self.windows(pass, stored.as_ref()).await? else {
            return Ok(ExportOutcome::Impossible);
        };
        if exported.runs > 0 {
            tracing::info!(
                "{} rows of {} exported in {} runs; PostHog may bill exported rows",
                exported.rows,
                reader.table.stream,
                exported.runs
            );
        }
        Ok(ExportOutcome::Complete)
    }

    /// Reads window after window, while the next runs are being prepared.
    async fn windows(&self, pass: Interval, stored: Option<&StoredByHour>) -> Result<ExportEnd, Error> {
        let reader = &self.reader;
        let (mut running, mut windows, longest) = self.resumed(pass).await;
        let mut exported = ExportTotals::default();
        let mut failures = Retry::with_attempts(MOST_RUNS);
        let mut differing = 0;
        let mut probing = !self.supervision.is_proven();
        if probing {
            windows.shorten(PROOF_WINDOW);
        }
        loop {
            if probing && self.supervision.is_proven() {
                probing = false;
                windows.lengthen(longest);
            }
            let started = self.start_ahead(&mut running, &mut windows, probing, stored).await?;
            exported.runs += match started {
                Started::Runs(runs) => runs,
                Started::Impossible(reason) => return self.give_up_exports(&mut running, &reason).await,
            };
            let Some(first) = running.front().cloned() else { break };
            let window = &first.window;
            let prepared = if window.done { Prepared::read() } else { self.prepared(&first).await? };
            let (reason, too_long) = match prepared {
                Prepared::Files { files, rows } => match self.read_files(&first, &files, rows).await? {
                    FilesRead::Complete(read) => {
                        first.exported(rows.unwrap_or(read));
                        self.supervision.read(window.interval.length());
                        exported.rows += read;
                        failures.progress();
                        differing = 0;
                        if !window.done {
                            self.update(|state| state.export.complete_first()).await?;
                        }
                        self.supervision.ended(&window.run);
                        running.pop_front();
                        self.close(window.interval.to, &running).await?;
                        continue;
                    }
                    FilesRead::Expired => ("its files have expired".to_owned(), false),
                    FilesRead::RowsDiffer { read, completed } => {
                        first.exported(completed);
                        differing += 1;
                        let reason = format!("its files have {read} rows, but PostHog has exported {completed}");
                        if differing < MOST_DIFFERING {
                            (reason, false)
                        } else {
                            self.skip(&mut running, &reason).await?;
                            differing = 0;
                            continue;
                        }
                    }
                },
                Prepared::Failed { reason, too_long } => (reason, too_long),
                Prepared::Refused(reason) => return self.give_up_exports(&mut running, &reason).await,
                Prepared::Cancelled => {
                    tracing::info!("export run {} was cancelled with its sync; it is started again", window.run);
                    self.supervision.ended(&window.run);
                    self.start_again(&mut running, &mut windows, stored).await?;
                    continue;
                }
                Prepared::Late(deadline) => {
                    if !self.supervision.is_proven() {
                        let reason = format!("the first export has not ended in {} s", deadline.as_secs());
                        return self.give_up_exports(&mut running, &reason).await;
                    }
                    self.cancel(&window.run).await;
                    (format!("it has not ended in {} s", deadline.as_secs()), true)
                }
            };
            let (interval, run) = (window.interval, window.run.clone());
            self.supervision.ended(&run);
            if too_long && let Some(runs) = self.start_in_parts(&mut running, &mut windows, stored, &reason).await? {
                exported.runs += runs;
                continue;
            }
            tracing::warn!("export run {run} of {interval}: {reason}; it is started again");
            let failure = Failure::transient(format!("export run of {interval}: {reason}"));
            match failures.after(failure, reader.context.client.limiter()).await {
                Ok(NextAttempt::Same | NextAttempt::Smaller) => {
                    exported.runs += 1;
                    self.start_again(&mut running, &mut windows, stored).await?;
                }
                Err(give_up) if !self.may_query => return Err(give_up.into()),
                Err(_) if reader.table.ingestion_time.is_none() => {
                    running.pop_front();
                    return self.give_up_exports(&mut running, &reason).await;
                }
                Err(_) => {
                    self.skip(&mut running, &reason).await?;
                    failures.progress();
                }
            }
        }
        self.close(windows.to(), &running).await?;
        Ok(ExportEnd::Complete(exported))
    }

    /// Enters the runs that would be started. Once the first one has ended, exports are proven to work, and windows
    /// may be as long as `longest`.
    async fn plan_runs(&self, pass: Interval, stored: Option<&StoredByHour>) {
        let (running, mut windows, longest) = self.resumed(pass).await;
        if running.is_empty() && !self.supervision.is_proven() {
            windows.shorten(PROOF_WINDOW);
        }
        let bytes = stored.and_then(|stored| stored.bytes).unwrap_or_default();
        let mut planned = PlannedRead { bytes, ..PlannedRead::default() };
        while let Some(interval) = self.next_window(&mut windows, stored) {
            let exported_rows = self.rows_of(interval, stored);
            planned.add(PlannedRead { runs: 1, exported_rows, ..PlannedRead::default() });
            windows.lengthen(longest);
        }
        for reader in self.streams() {
            // Another stream is read from the same runs.
            reader.context.plan_read(PlannedMethod::Export, std::mem::take(&mut planned));
        }
    }

    /// Rows of a run, if they have been counted: of a table that another one feeds, the rows of the other have.
    pub(super) fn rows_of(&self, interval: Interval, stored: Option<&StoredByHour>) -> Option<u64> {
        stored.filter(|_| self.reader.table.fed_by.is_none()).map(|stored| stored.rows_in(interval))
    }

    /// The next window that may have rows. One with more rows than a sync may export is cut, since it would never be exported.
    fn next_window(&self, windows: &mut Windows, stored: Option<&StoredByHour>) -> Option<Interval> {
        loop {
            let to = windows.to();
            let window =
                windows.take(|from| stored.map_or(from, |stored| stored.first_after(from).min(to).max(from)))?;
            let fits = self.supervision.row_limit.fits_ever(self.rows_of(window, stored));
            let Some(parts) = Windows::parts(window).filter(|_| !fits) else { return Some(window) };
            windows.put_back(parts.into_iter());
        }
    }

    /// The runs that an earlier sync has started, the windows that follow them, and how long those may be.
    async fn resumed(&self, pass: Interval) -> (VecDeque<Running>, Windows, i64) {
        let context = &self.reader.context;
        let known = self.reader.checkpoint.project(context.project).await.export.windows;
        for window in &known {
            self.supervision.started(&window.run);
        }
        let running: VecDeque<Running> = known.into_iter().map(Running::resumed).collect();
        let next = running.back().map_or(pass.from, |running| running.window.interval.to);
        let step = context.config.window_days.map_or(i64::MAX, |days| i64::from(days) * 24 * HOUR);
        let longest = LONGEST_INTERVAL.min(step).min(self.supervision.longest_window());
        (running, Windows::new(next, pass.to, longest), longest)
    }

    /// Starts runs until as many are under way as may be, or there is no more to start; one when `probing`.
    async fn start_ahead(
        &self,
        running: &mut VecDeque<Running>,
        windows: &mut Windows,
        probing: bool,
        stored: Option<&StoredByHour>,
    ) -> Result<Started, Error> {
        let (mut runs, mut step) = (0, CLOCK_STEP);
        while running.is_empty() || !probing && self.supervision.has_room() {
            let Some(interval) = self.next_window(windows, stored) else { break };
            match self.start(interval, running.is_empty(), stored).await? {
                Start::Started(run) => {
                    runs += 1;
                    running.push_back(run);
                    self.note(running).await?;
                }
                Start::OverLimit(reached) if running.is_empty() => {
                    let what = format!("{} ingested from {interval}", self.reader.table.stream);
                    return Err(reached.into_error(&what));
                }
                Start::NoRoom | Start::OverLimit(_) => {
                    windows.put_back([interval].into_iter());
                    break;
                }
                Start::TooLong if windows.cut(interval, interval.length() / 2) => {
                    windows.put_back([interval].into_iter());
                }
                Start::TooLong => {
                    return Err(Error::transient(format!(
                        "PostHog cannot export even {interval}; try again later, or set `method` to `query`"
                    )));
                }
                Start::InFuture => {
                    let to = interval.to.minus(step);
                    step = step * 2;
                    tracing::info!("PostHog's clock is behind {}; the export ends at {to}", interval.to);
                    windows.end_at(to);
                    windows.put_back([Interval { to, ..interval }].into_iter().filter(|cut| !cut.is_empty()));
                }
                Start::Impossible(reason) => return Ok(Started::Impossible(reason)),
            }
        }
        Ok(Started::Runs(runs))
    }

    /// The first window cannot be exported. Where cells are read, the comparison finds what is missing, and
    /// queries read it.
    async fn skip(&self, running: &mut VecDeque<Running>, reason: &str) -> Result<(), Error> {
        let Some(Running { window, .. }) = running.pop_front() else { return Ok(()) };
        let interval = window.interval;
        self.supervision.ended(&window.run);
        if self.cells.is_none() {
            return Err(Error::transient(format!(
                "{} of {interval} cannot be exported ({reason}); try again later, or set `method` to `query`",
                self.reader.table.stream
            )));
        }
        tracing::warn!("{interval} cannot be exported ({reason}), so it is read by query");
        self.close(interval.to, running).await
    }

    /// Exports do not work here: everything is read by query instead, if that is allowed.
    async fn give_up_exports(&self, running: &mut VecDeque<Running>, reason: &str) -> Result<ExportEnd, Error> {
        for Running { window, .. } in running.drain(..) {
            self.cancel(&window.run).await;
        }
        self.supervision.fail(reason);
        if !self.may_query {
            return Err(Error::config(format!(
                "file exports do not work on this PostHog ({reason}), and the API key lacks the scope `query:read`; add the scope, or make exports work"
            )));
        }
        let (now, incremental) = (self.reader.context.client.now(), self.reader.context.incremental);
        let change = |state: &mut ProjectState| {
            state.export = ExportState::default();
            state.exports_failed_at = Some(now);
            if !incremental {
                // What has been exported is not all, and queries cannot find what is missing.
                (state.watermark, state.covered) = (None, None);
            }
        };
        self.update(change).await?;
        tracing::warn!(
            "file exports do not work on this PostHog ({reason}), so {} are read by query",
            self.reader.table.stream
        );
        Ok(ExportEnd::Impossible)
    }

    /// Notes which runs are under way.
    pub(super) async fn note(&self, running: &VecDeque<Running>) -> Result<(), Error> {
        let windows: Vec<ExportWindow> = running.iter().map(|running| running.window.clone()).collect();
        self.update(|state| state.export.windows.clone_from(&windows)).await
    }

    /// Notes that everything stored before `watermark` has been read.
    async fn close(&self, watermark: Timestamp, running: &VecDeque<Running>) -> Result<(), Error> {
        let windows: Vec<ExportWindow> = running.iter().map(|running| running.window.clone()).collect();
        let reads_cells = self.cells.is_some();
        let change = |state: &mut ProjectState| {
            state.method = Some(LastMethod::Export);
            state.exports_failed_at = None;
            state.export.windows.clone_from(&windows);
            match &mut state.export.cells {
                Some(cells) if reads_cells => cells.next = Some(watermark),
                _ => {
                    // Of two streams, the one that is ahead stays there.
                    state.watermark = state.watermark.max(Some(watermark));
                    state.resume_from = None;
                }
            }
        };
        self.update(change).await
    }
}
