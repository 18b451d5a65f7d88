//! `read`: all chosen streams of all projects, side by side. What limits them is what `PostHog` limits: requests
//! ([`crate::posthog::http::RateLimiter`]) and export runs ([`Supervision`]).

pub(super) mod follow;
mod jobs;
pub(super) mod plan;
mod setup;
mod summary;
mod tables;

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use chrono::TimeDelta;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use indicatif::HumanCount;
use tokio::sync::OnceCell;
use tracing::Instrument;

use jobs::{Job, JobKind, Jobs, in_order, jobs, warn_about_missing, with_shared_runs};
pub(super) use setup::Account;
use setup::{Setup, saved_states};
use summary::{Ending, StreamEnd, Summary};

use super::account_streams::AccountReader;
use super::cli::ReadArguments;
use super::method::{ChosenMethod, is_posthog_cloud};
use super::unmatched;
use crate::config::Config;
use crate::error::{Error, FailureType};
use crate::lock::lock;
use crate::posthog::account::{ApiKey, QUERY_SCOPE};
use crate::posthog::exports::Exports;
use crate::posthog::http::{Client, FileClient, Silent};
use crate::progress::Progress;
use crate::protocol::state::SavedStates;
use crate::protocol::{Message, Output, StreamDescriptor, StreamStatus};
use crate::records::NulledValues;
use crate::streams::{EVENTS, ORGANIZATIONS, PERSONS, Selection, Table};
use crate::sync::{
    Checkpoint, ComparedDays, EventDayReader, EventDaysState, KeysetReader, ListReader, NestedListReader, PageSize,
    PlannedMethod, PlannedRead, ProjectEntry, ProjectReader, ProjectState, Proof, ReadContext, ReadPlan, RowLimit,
    StreamObserver, StreamReport, StreamState, Supervision,
};

/// Where exports have failed, `auto` does without them for so long.
const FAILED_EXPORTS_REST: TimeDelta = TimeDelta::hours(24);

/// What all streams of a sync share.
struct Sync {
    config: Arc<Config>,
    client: Client,
    files: Arc<OnceCell<FileClient>>,
    key: Option<ApiKey>,
    projects: Vec<ProjectPlan>,
    output: Output,
    /// Rows of all streams that are going to be read, as far as they have been counted.
    expected: AtomicU64,
    reports: Mutex<HashMap<Arc<StreamDescriptor>, StreamReport>>,
    /// What has been compared of the events of each project that were read; none where that has failed.
    compared: Mutex<HashMap<u64, Option<ComparedDays>>>,
    summary: Arc<Summary>,
    /// Where is entered what would be read, if nothing is to be read.
    plan: Option<ReadPlan>,
}

/// A sync that has been prepared, and its streams.
struct Prepared {
    sync: Sync,
    jobs: Vec<Job>,
    reads_events: bool,
    reads_persons: bool,
    /// Whether the start date is in the future.
    starts_later: bool,
}

/// A project and how its tables are read.
struct ProjectPlan {
    id: u64,
    /// Or why that could not be found out.
    method: Result<ChosenMethod, Error>,
    /// What is known of its exports.
    supervision: Arc<Supervision>,
}

/// How streams have ended, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// All has been read.
    Complete,
    /// Something has failed, which has been reported; a later sync may succeed.
    Failed,
    /// The same, but no sync will succeed before the user has changed something.
    Misconfigured,
}

/// Which streams a sync reads, and from where on.
struct Round<'r> {
    saved: &'r SavedStates,
    /// Whether it reads lists, and what is read in full.
    is_full: bool,
    /// What the key may read, if it is known.
    account: Option<Account>,
    /// Where is entered what would be read, if nothing is to be read.
    plan: Option<ReadPlan>,
    quiet: bool,
}

/// Reads the chosen streams. Returns false when one has failed, which has been reported then.
pub(super) async fn read(arguments: &ReadArguments, output: &Output) -> Result<bool, Error> {
    let outcome = with_summary(arguments.metrics_file.as_deref(), output, async |summary| {
        let saved = saved_states(&arguments.sync)?;
        let setup = Setup::from_arguments(&arguments.sync).await?;
        read_round(&setup, Round::new(&saved, arguments.quiet), output, summary).await
    });
    Ok(outcome.await? == Outcome::Complete)
}

/// Does a sync, and says how it has ended.
async fn with_summary(
    metrics_file: Option<&Path>,
    output: &Output,
    sync: impl AsyncFnOnce(&Arc<Summary>) -> Result<Outcome, Error>,
) -> Result<Outcome, Error> {
    let summary = Arc::new(Summary::begin(metrics_file.map(Path::to_owned), output.clone()));
    output.at_interruption(end_by_signal(Arc::clone(&summary), std::future::ready(())));
    let result = sync(&summary).await;
    summary.end(if matches!(result, Ok(Outcome::Complete)) { Ending::Complete } else { Ending::Failed });
    result
}

/// What is done when a signal ends the sync.
async fn end_by_signal(summary: Arc<Summary>, cleanup: impl Future<Output = ()>) {
    summary.end_by_signal().await;
    cleanup.await;
}

async fn read_round(
    setup: &Setup,
    round: Round<'_>,
    output: &Output,
    summary: &Arc<Summary>,
) -> Result<Outcome, Error> {
    let is_full = round.is_full;
    let Prepared { sync, jobs, reads_events, reads_persons, starts_later } =
        prepare(setup, round, output, summary).await?;
    output.at_interruption(end_by_signal(Arc::clone(summary), sync.cancel_unread_runs()));
    let mut worst = Outcome::Complete;
    let mut streams: FuturesUnordered<_> =
        with_shared_runs(in_order(jobs)).into_iter().map(|jobs| sync.run_jobs(jobs).boxed_local()).collect();
    while let Some(outcome) = streams.next().await {
        worst = worst.max(outcome?);
    }
    if is_full && !starts_later {
        sync.warn_about_unmatched(reads_events, reads_persons).await;
    }
    Ok(worst)
}

/// Checks the states, and finds out how each project is read.
async fn prepare(setup: &Setup, round: Round<'_>, output: &Output, summary: &Arc<Summary>) -> Result<Prepared, Error> {
    let Setup { config, custom, client, files, .. } = setup;
    let Round { saved, is_full, account, plan, quiet } = round;
    let jobs = jobs(config, &setup.streams(is_full), saved, custom)?;
    if is_full {
        saved.warn_of_others(jobs.iter().map(|job| &*job.stream));
    }
    let tables = jobs.iter().any(|job| matches!(&job.kind, JobKind::Table { table, .. } if table.export.is_some()));
    let Account { key, methods } = match account {
        Some(account) => account,
        None => Account::of(setup, tables).await?,
    };
    if is_full && config.project_ids.is_none() {
        warn_about_missing(&jobs, &methods.iter().map(|(id, _)| *id).collect::<Vec<_>>());
    }
    let reads = |table: &Table| {
        jobs.iter().any(|job| matches!(&job.kind, JobKind::Table { table: other, .. } if other.stream == table.stream))
    };
    let (reads_events, reads_persons) = (reads(&EVENTS), reads(&PERSONS));
    let future_start = unmatched::future_start(config, client.now()).filter(|_| reads_events);
    if let Some(notice) = future_start.as_ref().filter(|_| is_full) {
        tracing::warn!("{notice}");
    }
    let until = client.now().minus(config.method.ingestion_delay);
    summary.reads_until(config.end.map_or(until, |end| end.min(until)));
    output.show(Progress::start("read", quiet));
    let row_limit = RowLimit::new(config.max_exported_rows);
    let mut projects = Vec::with_capacity(methods.len());
    for (id, method) in methods {
        if let Some(method) = method.as_ref().ok().filter(|_| tables) {
            tracing::info!("project {id} is read by {method}");
        }
        let supervision = Supervision::new(config.export_deadline, config.export_runs, is_posthog_cloud(client.base()));
        let supervision = Arc::new(supervision.with_row_limit(row_limit.clone()));
        projects.push(ProjectPlan { id, method, supervision });
    }
    let sync = Sync {
        files: Arc::clone(files),
        config: Arc::clone(config),
        client: client.clone(),
        key,
        projects,
        output: output.clone(),
        expected: AtomicU64::new(0),
        reports: Mutex::default(),
        compared: Mutex::default(),
        summary: Arc::clone(summary),
        plan,
    };
    sync.recall_failed_exports(&jobs);
    Ok(Prepared { sync, jobs, reads_events, reads_persons, starts_later: future_start.is_some() })
}

impl Outcome {
    fn of(failure: &Error) -> Self {
        if failure.failure_type() == FailureType::Config { Self::Misconfigured } else { Self::Failed }
    }
}

impl<'r> Round<'r> {
    /// A sync of all streams.
    fn new(saved: &'r SavedStates, quiet: bool) -> Self {
        Self { saved, is_full: true, account: None, plan: None, quiet }
    }
}

impl Sync {
    /// Reads streams that are read together.
    async fn run_jobs(&self, jobs: Jobs) -> Result<Outcome, Error> {
        match jobs {
            Jobs::One(job) => self.run(job).await,
            Jobs::Two(persons, distinct_ids) => self.run_both(persons, distinct_ids).await,
            Jobs::EventsAndDays(events, days) => Ok(self.run(events).await?.max(self.run(days).await?)),
        }
    }

    /// Reports that a stream begins.
    async fn begin(&self, stream: &Arc<StreamDescriptor>) -> Result<(), Error> {
        self.summary.stream_begins(stream);
        self.output.message(&Message::status(StreamDescriptor::clone(stream), StreamStatus::Started)).await
    }

    /// Reads one stream and reports how it ended.
    async fn run(&self, job: Job) -> Result<Outcome, Error> {
        let begin = Instant::now();
        let Job { stream, incremental, selection, kind } = job;
        self.begin(&stream).await?;
        let failures = self.read_job(kind, &selection, &stream, incremental).await?;
        self.finish(&stream, &failures, begin).await
    }

    /// Reads one stream of all projects. Returns what went wrong.
    async fn read_job(
        &self,
        kind: JobKind,
        selection: &Selection,
        stream: &Arc<StreamDescriptor>,
        incremental: bool,
    ) -> Result<Vec<Error>, Error> {
        Ok(match kind {
            JobKind::Account(account) if account.stream == ORGANIZATIONS.stream && !self.may(account.scope) => {
                vec![missing_scope(account.stream, account.scope)]
            }
            JobKind::Account(account) => {
                let projects: Vec<u64> = self.projects.iter().map(|plan| plan.id).collect();
                if let Some(plan) = &self.plan {
                    // One request for each project; one for all organizations, unless they are very many.
                    let most = if account.stream == ORGANIZATIONS.stream { 1 } else { usize::MAX };
                    let planned =
                        PlannedRead { rows: Some(1).filter(|_| most > 1), queries: 1, ..PlannedRead::default() };
                    let projects = projects.into_iter().take(most);
                    projects.for_each(|id| plan.add(account.stream, id, PlannedMethod::List, planned.clone()));
                    return Ok(Vec::new());
                }
                let (client, output) = (&self.client, &self.output);
                let reader = AccountReader { client, output, stream, account, selection };
                let failures = reader.run(self.key.as_ref(), projects).await?;
                self.report(stream).proven_by(Proof::ReadToEnd);
                failures
            }
            JobKind::EventDays { .. } if !self.may(QUERY_SCOPE) => vec![missing_scope(&stream.name, QUERY_SCOPE)],
            JobKind::EventDays { state } => {
                self.read_each(state, stream, selection, incremental, |context, checkpoint| {
                    self.read_days(context, checkpoint)
                })
                .await?
            }
            JobKind::Failed(error) => vec![error],
            JobKind::Table { table, state } => self.read_table(table, state, selection, stream, incremental).await?,
            JobKind::Keyset { keyset, state } => {
                self.read_each(state, stream, selection, incremental, |context, checkpoint| async {
                    let page_size = PageSize::new(self.config.method.query.page_size);
                    KeysetReader { context, keyset, page_size, checkpoint }.run().await
                })
                .await?
            }
            JobKind::List { list, .. } if !self.may(list.scope) => vec![missing_scope(list.stream, list.scope)],
            JobKind::List { list, state } => {
                self.read_each(state, stream, selection, incremental, |context, checkpoint| async {
                    ListReader { context, list, checkpoint }.run().await
                })
                .await?
            }
            JobKind::Nested { nested, .. } if !self.may(nested.list.scope) => {
                vec![missing_scope(nested.list.stream, nested.list.scope)]
            }
            JobKind::Nested { nested, state } => {
                self.read_each(state, stream, selection, incremental, |context, checkpoint| async {
                    NestedListReader { context, nested, checkpoint }.run().await
                })
                .await?
            }
        })
    }

    /// Reports how a stream has ended.
    async fn finish(
        &self,
        stream: &Arc<StreamDescriptor>,
        failures: &[Error],
        begin: Instant,
    ) -> Result<Outcome, Error> {
        let descriptor = StreamDescriptor::clone(stream);
        for error in failures {
            self.output.message(&Message::error(error, Some(descriptor.clone()))).await?;
        }
        let complete = failures.is_empty();
        let status = if complete { StreamStatus::Complete } else { StreamStatus::Incomplete };
        self.log_end(stream, complete, begin);
        let records = self.output.records_of(stream);
        if records > 0 {
            // The estimate becomes what it was about.
            self.output.message(&Message::estimate(stream, records)).await?;
        }
        self.output.message(&Message::status(descriptor, status)).await?;
        Ok(failures.iter().map(Outcome::of).max().unwrap_or(Outcome::Complete))
    }

    /// Logs how a stream has ended: for people, and the same as fields.
    fn log_end(&self, stream: &Arc<StreamDescriptor>, complete: bool, begin: Instant) {
        let totals = self.report(stream).totals();
        let (records, repeats) = (self.output.records_of(stream), totals.repeats);
        let seconds = begin.elapsed().as_secs_f64();
        self.summary.stream_ends(stream, StreamEnd { complete, records, repeats });
        let again = if repeats > 0 { format!(", {} of them repeats,", HumanCount(repeats)) } else { String::new() };
        tracing::info!(
            stream = stream.name,
            records,
            repeats,
            posthog = totals.posthog(),
            agrees = totals.agrees().map(|agrees| agrees && complete),
            proof = totals.proofs(),
            differing_days = Some(totals.differing.len()).filter(|days| *days > 0),
            seconds = %format_args!("{seconds:.1}"),
            "{}: {}, {} records{again} in {seconds:.1} s{}",
            stream.name,
            if complete { "complete" } else { "incomplete" },
            HumanCount(records),
            totals.describe(),
        );
    }

    /// What the projects of a stream report.
    fn report(&self, stream: &Arc<StreamDescriptor>) -> StreamReport {
        lock(&self.reports).entry(Arc::clone(stream)).or_default().clone()
    }

    /// Names what the configuration asks for and no project has.
    async fn warn_about_unmatched(&self, reads_events: bool, reads_persons: bool) {
        let ids: Vec<u64> = self.projects.iter().map(|plan| plan.id).collect();
        let mut notices = Vec::new();
        if reads_events && self.may(QUERY_SCOPE) {
            notices.extend(unmatched::events(&self.client, &self.config, &ids, &Silent).await);
        }
        if reads_events || reads_persons {
            notices.extend(unmatched::properties(&self.client, &self.config, self.key.as_ref(), &ids, &Silent).await);
        }
        for notice in notices {
            tracing::warn!("{notice}");
        }
    }

    /// If exports have failed for one stream of a project, the project's other streams do not try them
    /// either.
    fn recall_failed_exports(&self, jobs: &[Job]) {
        let rested = self.client.now().minus(FAILED_EXPORTS_REST);
        for plan in self.projects.iter().filter(|plan| plan.method.as_ref().is_ok_and(ChosenMethod::is_automatic)) {
            let failed = jobs.iter().filter_map(|job| match &job.kind {
                JobKind::Table { state, .. } => state.projects.get(&plan.id)?.exports_failed_at,
                _ => None,
            });
            if let Some(at) = failed.max().filter(|at| *at > rested) {
                plan.supervision.fail(&format!("they did not work on {at}; they are tried again a day later"));
            }
        }
    }

    /// Cancels export runs that would be left unread if the process ended now.
    fn cancel_unread_runs(&self) -> impl Future<Output = ()> + Send + 'static {
        let client = self.client.clone();
        let projects: Vec<_> = self.projects.iter().map(|plan| (plan.id, Arc::clone(&plan.supervision))).collect();
        async move {
            for (project, supervision) in projects {
                for run in supervision.unread() {
                    // The process is about to end: one attempt, and a failure is ignored.
                    drop(Exports::new(&client, project, &Silent).cancel(&run).await);
                }
            }
        }
    }

    /// Whether the key has a scope, as far as is known.
    fn may(&self, scope: &str) -> bool {
        self.key.as_ref().is_none_or(|key| key.may(scope))
    }

    /// Reads a stream of all projects, side by side; one that fails does not stop the others. Returns
    /// what went wrong.
    async fn read_each<T, F>(
        &self,
        state: StreamState<T>,
        stream: &Arc<StreamDescriptor>,
        selection: &Selection,
        incremental: bool,
        read: impl Fn(ReadContext, Arc<Checkpoint<T>>) -> F,
    ) -> Result<Vec<Error>, Error>
    where
        T: ProjectEntry,
        F: Future<Output = Result<(), Error>>,
    {
        let checkpoint = self.checkpoint(stream, state);
        let nulled = NulledValues::default();
        let [failures] = self
            .read_projects(|project| {
                let context = self.context(project, stream, selection, incremental, &nulled);
                let span = tracing::info_span!("read", project, stream = %stream.name);
                let reading = read(context, Arc::clone(&checkpoint)).instrument(span);
                async move { [reading.await] }
            })
            .await?;
        checkpoint.finish(!incremental && failures.is_empty()).await?;
        Ok(failures)
    }

    /// Where the progress of a stream is kept.
    fn checkpoint<T: ProjectEntry>(&self, stream: &Arc<StreamDescriptor>, state: StreamState<T>) -> Arc<Checkpoint<T>> {
        let state = state.resumed_by(self.projects.iter().map(|project| project.id));
        if let Some(others) = state.only_of_others(self.projects.iter().map(|project| project.id)) {
            tracing::warn!(
                "the state of `{}` is about other projects ({others}) than those that are read, so these are read from the beginning",
                stream.name
            );
        }
        Arc::new(Checkpoint::new(self.output.clone(), Arc::clone(stream), state))
    }

    /// Reads all projects side by side; one that fails does not stop the others. Returns what went wrong with each
    /// of the streams that are read together.
    async fn read_projects<const STREAMS: usize, F>(
        &self,
        read: impl Fn(u64) -> F,
    ) -> Result<[Vec<Error>; STREAMS], Error>
    where
        F: Future<Output = [Result<(), Error>; STREAMS]>,
    {
        let reads = self.projects.iter().map(|project| {
            let reading = read(project.id);
            async move { reading.await.map(|result| result.map_err(|error| error.in_project(project.id))) }
        });
        let results: Vec<[Result<(), Error>; STREAMS]> = reads.collect::<FuturesUnordered<_>>().collect().await;
        let mut failures = [const { Vec::new() }; STREAMS];
        for result in results {
            for (failures, result) in failures.iter_mut().zip(result) {
                failures.extend(result.err());
            }
        }
        match failures.iter().flatten().find(|error| error.is_output_closed()) {
            Some(closed) => Err(closed.clone()),
            None => Ok(failures),
        }
    }

    /// Emits the figures of the days of one project.
    async fn read_days(&self, context: ReadContext, checkpoint: Arc<Checkpoint<EventDaysState>>) -> Result<(), Error> {
        if let Some(plan) = self.plan.as_ref().filter(|_| lock(&self.compared).contains_key(&context.project)) {
            // The figures are those of the sync of events.
            plan.add(&context.stream.name, context.project, PlannedMethod::Query, PlannedRead::default());
            return Ok(());
        }
        let compared = lock(&self.compared).get(&context.project).cloned();
        if matches!(compared, Some(None)) {
            return Err(Error::transient(
                "the events have not been read completely, so the figures of their days are not known; the next sync that is complete emits them",
            ));
        }
        EventDayReader { context, checkpoint }.run(compared.flatten()).await
    }

    /// So many more rows of a stream are going to be read. An estimate of none would show as 0 of 0.
    fn expect(&self, stream: &StreamDescriptor, estimate: &AtomicU64, rows: u64) {
        if rows == 0 {
            return;
        }
        let total = estimate.fetch_add(rows, Ordering::Relaxed) + rows;
        self.output.hint(&Message::estimate(stream, total));
        let all = self.expected.fetch_add(rows, Ordering::Relaxed) + rows;
        self.output.progress().expect(all);
    }

    fn reader(
        &self,
        context: ReadContext,
        table: &'static Table,
        checkpoint: Arc<Checkpoint<ProjectState>>,
    ) -> ProjectReader {
        ProjectReader {
            columns: table.selected(self.config.method.query.person_properties, &context.selection),
            context,
            table,
            page_size: Arc::new(PageSize::new(self.config.method.query.page_size)),
            persons_at_ingestion: table.stream == EVENTS.stream,
            changed: None,
            columns_chosen: false,
            checkpoint,
        }
    }

    /// What every reader of a stream has at hand.
    fn context(
        &self,
        project: u64,
        stream: &Arc<StreamDescriptor>,
        selection: &Selection,
        incremental: bool,
        nulled: &NulledValues,
    ) -> ReadContext {
        ReadContext {
            client: self.client.clone(),
            config: Arc::clone(&self.config),
            project,
            incremental,
            output: self.output.clone(),
            stream: Arc::clone(stream),
            selection: selection.clone(),
            observer: StreamObserver { output: self.output.clone(), stream: Arc::clone(stream) },
            nulled: nulled.clone(),
            report: self.report(stream),
            plan: self.plan.clone(),
        }
    }
}

fn missing_scope(stream: &str, scope: &str) -> Error {
    Error::config(format!(
        "the API key lacks the scope `{scope}`, which the stream `{stream}` needs; add it in PostHog under Settings > Personal API keys, or leave the stream out"
    ))
}
