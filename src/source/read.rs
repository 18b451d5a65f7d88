//! `read`: all chosen streams, one after the other; their projects in parallel.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use chrono::TimeDelta;
use futures_util::{StreamExt, stream};
use tokio::sync::OnceCell;
use tracing::Instrument;

use super::account_streams::AccountReader;
use super::cli::ReadArguments;
use super::configuration;
use super::custom_queries::CustomStreams;
use super::discover::custom_streams;
use super::first_read::FirstRead;
use super::method::{self, ChosenMethod, is_posthog_cloud};
use super::projects::project_ids;
use super::{property_types, retention, unmatched};
use crate::config::Config;
use crate::error::Error;
use crate::posthog::account::{self, ApiKey};
use crate::posthog::exports::Exports;
use crate::posthog::http::{Client, FileClient, GiveUp, Retry, Silent};
use crate::progress::Progress;
use crate::protocol::state::SavedStates;
use crate::protocol::{ConfiguredCatalog, Message, Output, StreamDescriptor, StreamStatus, SyncMode};
use crate::records::NulledValues;
use crate::streams::{
    self, AccountStream, EVENTS, KeysetStream, List, NestedList, ORGANIZATIONS, PERSON_DISTINCT_IDS, PERSONS,
    PropertyColumns, Source, Table,
};
use crate::sync::{
    Checkpoint, DeletedPersonReader, DistinctIdReader, EmittedRows, EventReader, EventsRead, ExportOutcome,
    ExportReader, KeysetReader, KeysetState, LastMethod, ListReader, ListState, NestedListReader, NestedListState,
    OnEstimate, PageSize, ProjectEntry, ProjectReader, ProjectState, ReadContext, Rights, StreamObserver, StreamState,
    Supervision,
};

/// Where exports have failed, `auto` does without them for so long.
const FAILED_EXPORTS_REST: TimeDelta = TimeDelta::hours(24);

/// Attempts at a request whose answer is only for the log.
const RETENTION_ATTEMPTS: usize = 2;

/// What all streams of a sync share.
struct Sync {
    config: Arc<Config>,
    client: Client,
    /// Made when it is needed first: reading the system's certificates takes its time.
    files: OnceCell<FileClient>,
    key: Option<ApiKey>,
    projects: Vec<ProjectPlan>,
    output: Output,
}

/// A project and how its tables are read.
struct ProjectPlan {
    id: u64,
    /// Or why that could not be found out.
    method: Result<ChosenMethod, Error>,
    /// What is known of its exports.
    supervision: Arc<Supervision>,
}

/// A chosen stream whose settings have been checked.
struct Job {
    stream: Arc<StreamDescriptor>,
    incremental: bool,
    kind: JobKind,
}

enum JobKind {
    Table {
        table: &'static Table,
        state: StreamState<ProjectState>,
        property_columns: Arc<PropertyColumns>,
    },
    Keyset {
        keyset: &'static KeysetStream,
        state: StreamState<KeysetState>,
    },
    List {
        list: &'static List,
        state: StreamState<ListState>,
    },
    Nested {
        nested: &'static NestedList,
        state: StreamState<NestedListState>,
    },
    Account(&'static AccountStream),
    /// A custom query that is wrong.
    Failed(Error),
}

impl JobKind {
    /// The projects in its state.
    fn projects(&self) -> Vec<u64> {
        match self {
            Self::Table { state, .. } => state.projects.keys().copied().collect(),
            Self::Keyset { state, .. } => state.projects.keys().copied().collect(),
            Self::List { state, .. } => state.projects.keys().copied().collect(),
            Self::Nested { state, .. } => state.projects.keys().copied().collect(),
            Self::Account(_) | Self::Failed(_) => Vec::new(),
        }
    }
}

/// Reads the chosen streams. Returns false when one has failed, which has been reported then.
pub(super) async fn read(arguments: &ReadArguments, output: &Output) -> Result<bool, Error> {
    let config = configuration::from_file(&arguments.config)?;
    if !config.method.obsolete.is_empty() {
        tracing::info!(
            "{} has no effect any more: what has been read is compared with PostHog's figures instead",
            config.method.obsolete.join(" and ")
        );
    }
    let catalog = ConfiguredCatalog::from_file(&arguments.catalog)?;
    let state = arguments.state.as_deref().map(SavedStates::from_file).transpose()?.unwrap_or_default();
    let custom =
        custom_streams(&config, |name| catalog.streams.iter().any(|stream| stream.stream.name == name)).await?;
    let jobs = jobs(&config, &catalog, &state, &custom)?;
    state.warn_of_others(jobs.iter().map(|job| &*job.stream));
    let client = Client::new(&config)?;
    let key = ApiKey::fetch(&client, client.retry(), &Silent).await?;
    let ids = project_ids(&client, &config, key.as_ref(), || client.retry(), &Silent).await?;
    if config.project_ids.is_none() {
        warn_about_missing(&jobs, &ids);
    }
    let reads = |table: &Table| {
        jobs.iter().any(|job| matches!(&job.kind, JobKind::Table { table: other, .. } if other.stream == table.stream))
    };
    let (reads_events, reads_persons) = (reads(&EVENTS), reads(&PERSONS));
    let future_start = unmatched::future_start(&config, client.now()).filter(|_| reads_events);
    if let Some(notice) = &future_start {
        tracing::warn!("{notice}");
    }
    output.show(Progress::start("read", arguments.quiet));
    let mut projects = Vec::with_capacity(ids.len());
    let tables = jobs.iter().any(|job| matches!(&job.kind, JobKind::Table { table, .. } if table.export.is_some()));
    for id in ids {
        let method = if tables {
            method::choose(&client, &config, key.as_ref(), id, client.retry(), &Silent).await
        } else {
            Ok(ChosenMethod::Query(None))
        };
        if let Some(method) = method.as_ref().ok().filter(|_| tables) {
            tracing::info!("project {id} is read by {method}");
        }
        let supervision = Arc::new(Supervision::new(config.export_deadline, is_posthog_cloud(client.base())));
        projects.push(ProjectPlan { id, method, supervision });
    }
    let sync = Sync { files: OnceCell::new(), config: Arc::new(config), client, key, projects, output: output.clone() };
    output.at_interruption(sync.cancel_unread_runs());
    sync.recall_failed_exports(&jobs);
    let mut all_complete = true;
    for jobs in with_shared_runs(jobs) {
        all_complete &= match jobs {
            Jobs::One(job) => sync.run(job).await?,
            Jobs::Two(persons, distinct_ids) => sync.run_both(persons, distinct_ids).await?,
        };
    }
    if future_start.is_none() {
        sync.warn_about_unmatched(reads_events, reads_persons).await;
    }
    Ok(all_complete)
}

/// Names the projects that earlier syncs have read and the key does not list any more.
fn warn_about_missing(jobs: &[Job], ids: &[u64]) {
    let known: BTreeSet<u64> = jobs.iter().flat_map(|job| job.kind.projects()).collect();
    for missing in known.into_iter().filter(|id| !ids.contains(id)) {
        tracing::warn!(
            "project {missing} is in the state, but the API key does not list it any more, so it is not read; give the key access to it, or set `project_ids` to those that are wanted"
        );
    }
}

/// Checks the catalog and the states before anything is read.
fn jobs(
    config: &Config,
    catalog: &ConfiguredCatalog,
    state: &SavedStates,
    custom: &CustomStreams,
) -> Result<Vec<Job>, Error> {
    if catalog.streams.is_empty() {
        return Err(Error::config("the catalog has no streams; choose at least one"));
    }
    let mut jobs: Vec<Job> = Vec::new();
    for configured in &catalog.streams {
        let stream = Arc::new(configured.descriptor());
        let name = &stream.name;
        if jobs.iter().any(|job| job.stream == stream) {
            return Err(Error::config(format!("the catalog has the stream `{name}` twice")));
        }
        if let Some((_, error)) = custom.failed.iter().find(|(failed, _)| failed == name) {
            jobs.push(Job { stream, incremental: false, kind: JobKind::Failed(error.clone()) });
            continue;
        }
        let source = Source::find(name, &custom.streams);
        let wanted = configured.sync_mode == SyncMode::Incremental;
        let incremental = wanted && source.is_some_and(Source::is_incremental);
        if wanted && source.is_some() && !incremental {
            // Some drivers ask for every stream in this way.
            tracing::warn!("the stream `{name}` cannot be read incrementally, so it is read in full");
        }
        let kind = match source {
            None => {
                let names = streams::names().join(", ");
                return Err(Error::config(format!("the catalog has the unknown stream `{name}`; there are {names}")));
            }
            Some(Source::Account(account)) => JobKind::Account(account),
            Some(Source::KeysetStream(keyset)) => {
                JobKind::Keyset { keyset, state: saved_state(state, &stream, "", incremental)? }
            }
            Some(Source::List(list)) => JobKind::List { list, state: saved_state(state, &stream, "", incremental)? },
            Some(Source::NestedList(nested)) => {
                JobKind::Nested { nested, state: saved_state(state, &stream, "", incremental)? }
            }
            Some(Source::Table(table)) => {
                let state = saved_state(state, &stream, table.watermark_field(), incremental)?;
                let property_columns =
                    Arc::new(property_types::by_schema(config, table, &configured.stream.json_schema));
                JobKind::Table { table, state, property_columns }
            }
        };
        jobs.push(Job { stream, incremental, kind });
    }
    Ok(jobs)
}

/// The state from which a stream goes on.
fn saved_state<T: ProjectEntry>(
    saved: &SavedStates,
    stream: &StreamDescriptor,
    cursor_field: &'static str,
    incremental: bool,
) -> Result<StreamState<T>, Error> {
    StreamState::parse(saved.stream(stream), cursor_field)
        .map(|state| state.for_mode(incremental))
        .map_err(|error| error.in_context(format_args!("stream `{}`", stream.name)))
}

/// Streams that are read together.
enum Jobs {
    One(Job),
    /// Persons, and which distinct ids are theirs.
    Two(TableJob, TableJob),
}

/// A chosen table.
struct TableJob {
    stream: Arc<StreamDescriptor>,
    incremental: bool,
    table: &'static Table,
    state: StreamState<ProjectState>,
    property_columns: Arc<PropertyColumns>,
}

/// Joins the streams that can be read from the same export runs, where the first of them stands.
fn with_shared_runs(jobs: Vec<Job>) -> Vec<Jobs> {
    let mut joined: Vec<Jobs> = Vec::new();
    for job in jobs {
        let Job { stream, incremental, kind: JobKind::Table { table, state, property_columns } } = job else {
            joined.push(Jobs::One(job));
            continue;
        };
        let of = |table: &Table| [&PERSONS, &PERSON_DISTINCT_IDS].iter().position(|other| other.stream == table.stream);
        let partner = joined.iter().position(|other| {
            matches!(other, Jobs::One(Job { incremental: same, kind: JobKind::Table { table: other, .. }, .. })
                if *same == incremental && of(table).zip(of(other)).is_some_and(|(own, other)| own != other))
        });
        let job = TableJob { stream, incremental, table, state, property_columns };
        match partner.map(|place| (place, joined.remove(place))) {
            Some((
                place,
                Jobs::One(Job { stream, incremental, kind: JobKind::Table { table, state, property_columns } }),
            )) => {
                let other = TableJob { stream, incremental, table, state, property_columns };
                let (persons, ids) = if table.stream == PERSONS.stream { (other, job) } else { (job, other) };
                joined.insert(place, Jobs::Two(persons, ids));
            }
            // Nothing else is a partner.
            Some((place, other)) => {
                joined.insert(place, other);
                joined.push(Jobs::One(job.into()));
            }
            None => joined.push(Jobs::One(job.into())),
        }
    }
    joined
}

impl From<TableJob> for Job {
    fn from(job: TableJob) -> Self {
        let TableJob { stream, incremental, table, state, property_columns } = job;
        Self { stream, incremental, kind: JobKind::Table { table, state, property_columns } }
    }
}

impl Sync {
    /// Reads persons and their distinct ids, from the same export runs where they are exported. Returns
    /// whether both are complete.
    async fn run_both(&self, persons: TableJob, distinct_ids: TableJob) -> Result<bool, Error> {
        let begin = Instant::now();
        let jobs = [persons, distinct_ids];
        for job in &jobs {
            self.output.message(&Message::status(StreamDescriptor::clone(&job.stream), StreamStatus::Started)).await?;
        }
        let streams = jobs.each_ref().map(|job| Arc::clone(&job.stream));
        let mut complete = true;
        for (stream, failures) in streams.iter().zip(self.read_both(jobs).await?) {
            complete &= self.finish(stream, &failures, begin).await?;
        }
        Ok(complete)
    }

    /// Reads two tables of all projects, some projects at a time. Returns what went wrong with each.
    async fn read_both(&self, jobs: [TableJob; 2]) -> Result<[Vec<Error>; 2], Error> {
        let incremental = jobs.iter().all(|job| job.incremental);
        let nulled = NulledValues::default();
        let estimates = [AtomicU64::new(0), AtomicU64::new(0)];
        let [first, second] = jobs.map(|job| {
            let TableJob { stream, table, state, property_columns, .. } = job;
            let state = state.resumed_by(self.projects.iter().map(|project| project.id));
            let checkpoint = Arc::new(Checkpoint::new(self.output.clone(), Arc::clone(&stream), state));
            (stream, table, property_columns, checkpoint)
        });
        let [expect_first, expect_second] = [(&first.0, &estimates[0]), (&second.0, &estimates[1])]
            .map(|(stream, estimate)| move |rows: u64| self.expect(stream, estimate, rows));
        let reads = self.projects.iter().map(|project| {
            let [own, other] = [&first, &second].map(|(stream, table, property_columns, checkpoint)| {
                let context = self.context(project.id, stream, incremental, &nulled);
                self.reader(context, table, property_columns, Arc::clone(checkpoint))
            });
            let span = tracing::info_span!("read", project = project.id);
            let reading = self.read_project_of_both((own, &expect_first), (other, &expect_second)).instrument(span);
            async move { reading.await.map(|result| result.map_err(|error| error.in_project(project.id))) }
        });
        let results: Vec<[Result<(), Error>; 2]> =
            stream::iter(reads).buffer_unordered(self.config.concurrency).collect().await;
        let mut failures = [Vec::new(), Vec::new()];
        for result in results {
            for (failures, result) in failures.iter_mut().zip(result) {
                failures.extend(result.err());
            }
        }
        if let Some(closed) = failures.iter().flatten().find(|error| error.is_output_closed()) {
            return Err(closed.clone());
        }
        for ((_, _, _, checkpoint), failures) in [&first, &second].into_iter().zip(&failures) {
            checkpoint.finish(!incremental && failures.is_empty()).await?;
        }
        Ok(failures)
    }

    /// Reads persons and distinct ids of one project, from the same runs if both are exported.
    async fn read_project_of_both(
        &self,
        (mut persons, expect_persons): (ProjectReader, OnEstimate<'_>),
        (mut distinct_ids, expect_ids): (ProjectReader, OnEstimate<'_>),
    ) -> [Result<(), Error>; 2] {
        let exports = match self.chosen_exports(&mut persons).await {
            Ok(of_persons) => self.chosen_exports(&mut distinct_ids).await.map(|of_ids| (of_persons, of_ids)),
            Err(error) => Err(error),
        };
        match exports {
            Err(error) => [Err(error.clone()), Err(error)],
            Ok((Some(exports), Some(_))) => {
                let exports = ExportReader { companion: Some(Arc::new(distinct_ids.clone())), ..exports };
                match exports.run(expect_persons).await {
                    Ok(ExportOutcome::Complete) => [self.mark_deleted(&persons, &exports.emitted_rows).await, Ok(())],
                    Ok(ExportOutcome::Impossible) => [
                        self.read_by(persons, None, expect_persons).await,
                        self.read_by(distinct_ids, None, expect_ids).await,
                    ],
                    Err(error) => [Err(error.clone()), Err(error)],
                }
            }
            Ok((of_persons, of_ids)) => [
                self.read_by(persons, of_persons, expect_persons).await,
                self.read_by(distinct_ids, of_ids, expect_ids).await,
            ],
        }
    }

    /// Exports of a table that is no events, if it is to be read by them this time.
    async fn chosen_exports(&self, reader: &mut ProjectReader) -> Result<Option<ExportReader>, Error> {
        let project = reader.context.project;
        let Some(plan) = self.projects.iter().find(|plan| plan.id == project) else { return Ok(None) };
        match self.exports(plan, reader).await? {
            Some(exports) if !self.is_quicker_by_query(reader, &exports).await? => Ok(Some(exports)),
            _ => Ok(None),
        }
    }

    /// Marks the persons that have been deleted, as far as queries show them.
    async fn mark_deleted(&self, reader: &ProjectReader, emitted: &Mutex<EmittedRows>) -> Result<(), Error> {
        if reader.table.stream != PERSONS.stream || !self.may("query:read") {
            return Ok(());
        }
        DeletedPersonReader { reader, emitted }.run().await
    }

    /// Reads one stream and reports how it ended. Returns whether it is complete.
    async fn run(&self, job: Job) -> Result<bool, Error> {
        let begin = Instant::now();
        let Job { stream, incremental, kind } = job;
        self.output.message(&Message::status(StreamDescriptor::clone(&stream), StreamStatus::Started)).await?;
        let failures = match kind {
            JobKind::Account(account) if account.stream == ORGANIZATIONS.stream && !self.may(account.scope) => {
                vec![missing_scope(account.stream, account.scope)]
            }
            JobKind::Account(account) => {
                let (client, output) = (&self.client, &self.output);
                let reader = AccountReader { client, output, stream: &stream, account };
                reader.run(self.key.as_ref(), self.projects.iter().map(|plan| plan.id).collect()).await?
            }
            JobKind::Failed(error) => vec![error],
            JobKind::Table { table, state, property_columns } => {
                self.read_table(table, state, &property_columns, &stream, incremental).await?
            }
            JobKind::Keyset { keyset, state } => {
                self.read_each(state, &stream, incremental, |context, checkpoint| async {
                    let page_size = PageSize::new(self.config.method.query.page_size);
                    KeysetReader { context, keyset, page_size, checkpoint }.run().await
                })
                .await?
            }
            JobKind::List { list, .. } if !self.may(list.scope) => vec![missing_scope(list.stream, list.scope)],
            JobKind::List { list, state } => {
                self.read_each(state, &stream, incremental, |context, checkpoint| async {
                    ListReader { context, list, checkpoint }.run().await
                })
                .await?
            }
            JobKind::Nested { nested, .. } if !self.may(nested.list.scope) => {
                vec![missing_scope(nested.list.stream, nested.list.scope)]
            }
            JobKind::Nested { nested, state } => {
                self.read_each(state, &stream, incremental, |context, checkpoint| async {
                    NestedListReader { context, nested, checkpoint }.run().await
                })
                .await?
            }
        };
        self.finish(&stream, &failures, begin).await
    }

    /// Reports how a stream has ended. Returns whether it is complete.
    async fn finish(&self, stream: &Arc<StreamDescriptor>, failures: &[Error], begin: Instant) -> Result<bool, Error> {
        let descriptor = StreamDescriptor::clone(stream);
        for error in failures {
            self.output.message(&Message::error(error, Some(descriptor.clone()))).await?;
        }
        let complete = failures.is_empty();
        let status = if complete { StreamStatus::Complete } else { StreamStatus::Incomplete };
        tracing::info!(
            "stream {}: {} after {:.1} s",
            descriptor.name,
            if complete { "complete" } else { "incomplete" },
            begin.elapsed().as_secs_f64()
        );
        self.output.message(&Message::status(descriptor, status)).await?;
        Ok(complete)
    }

    /// Names what the configuration asks for and no project has.
    async fn warn_about_unmatched(&self, reads_events: bool, reads_persons: bool) {
        let ids: Vec<u64> = self.projects.iter().map(|plan| plan.id).collect();
        let mut notices = Vec::new();
        if reads_events && self.may("query:read") {
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

    /// Reads a stream of all projects, some at a time; one that fails does not stop the others. Returns
    /// what went wrong.
    async fn read_each<T, F>(
        &self,
        state: StreamState<T>,
        stream: &Arc<StreamDescriptor>,
        incremental: bool,
        read: impl Fn(ReadContext, Arc<Checkpoint<T>>) -> F,
    ) -> Result<Vec<Error>, Error>
    where
        T: ProjectEntry,
        F: Future<Output = Result<(), Error>>,
    {
        let state = state.resumed_by(self.projects.iter().map(|project| project.id));
        let checkpoint = Arc::new(Checkpoint::new(self.output.clone(), Arc::clone(stream), state));
        let nulled = NulledValues::default();
        let reads = self.projects.iter().map(|project| {
            let context = self.context(project.id, stream, incremental, &nulled);
            let span = tracing::info_span!("read", project = project.id, stream = %stream.name);
            let reading = read(context, Arc::clone(&checkpoint)).instrument(span);
            async move { reading.await.map_err(|error| error.in_project(project.id)) }
        });
        let results: Vec<Result<(), Error>> =
            stream::iter(reads).buffer_unordered(self.config.concurrency).collect().await;
        let failures: Vec<Error> = results.into_iter().filter_map(Result::err).collect();
        if let Some(closed) = failures.iter().find(|error| error.is_output_closed()) {
            return Err(closed.clone());
        }
        checkpoint.finish(!incremental && failures.is_empty()).await?;
        Ok(failures)
    }

    /// Reads a table of all projects, each by its method.
    async fn read_table(
        &self,
        table: &'static Table,
        state: StreamState<ProjectState>,
        property_columns: &Arc<PropertyColumns>,
        stream: &Arc<StreamDescriptor>,
        incremental: bool,
    ) -> Result<Vec<Error>, Error> {
        let estimate = AtomicU64::new(0);
        let on_estimate = |rows: u64| self.expect(stream, &estimate, rows);
        self.read_each(state, stream, incremental, |context, checkpoint| {
            self.read_project(self.reader(context, table, property_columns, checkpoint), &on_estimate)
        })
        .await
    }

    /// So many more rows of a stream are going to be read.
    fn expect(&self, stream: &StreamDescriptor, estimate: &AtomicU64, rows: u64) {
        let total = estimate.fetch_add(rows, Ordering::Relaxed) + rows;
        self.output.hint(&Message::estimate(stream, total));
        self.output.progress().expect(total);
    }

    fn reader(
        &self,
        context: ReadContext,
        table: &'static Table,
        property_columns: &Arc<PropertyColumns>,
        checkpoint: Arc<Checkpoint<ProjectState>>,
    ) -> ProjectReader {
        ProjectReader {
            context,
            table,
            columns: table.selected(self.config.method.query.person_properties),
            property_columns: Arc::clone(property_columns),
            page_size: Arc::new(PageSize::new(self.config.method.query.page_size)),
            persons_at_ingestion: table.stream == EVENTS.stream,
            changed: None,
            columns_chosen: false,
            checkpoint,
        }
    }

    /// Reads a table of one project by the method that has been chosen for it.
    async fn read_project(&self, mut reader: ProjectReader, on_estimate: OnEstimate<'_>) -> Result<(), Error> {
        let project = reader.context.project;
        let Some(plan) = self.projects.iter().find(|plan| plan.id == project) else { return Ok(()) };
        if reader.table.stream == EVENTS.stream {
            self.warn_about_retention(project).await;
        }
        let mut exports = self.exports(plan, &reader).await?;
        if reader.table.stream == EVENTS.stream {
            let refused = if self.may("query:read") {
                match EventReader::new(reader.clone(), exports.clone()).run(on_estimate).await? {
                    EventsRead::Complete => return Ok(()),
                    EventsRead::NotComparable(refusal) => Some(refusal),
                }
            } else {
                None
            };
            let refusal =
                refused.as_ref().map_or("the API key lacks the scope `query:read`", |refusal| &refusal.summary);
            let refusal = refusal.to_owned();
            let Some(exports) = &mut exports else {
                let missing = || missing_scope(EVENTS.stream, "query:read");
                return Err(refused.map_or_else(missing, |refusal| GiveUp::Refused(refusal).into()));
            };
            tracing::warn!(
                "what is exported cannot be compared with PostHog's figures ({refusal}); PostHog's number of exported rows is the only proof"
            );
            exports.may_query = false;
        }
        if reader.table.changes.is_some() && self.may("query:read") {
            reader.choose_columns().await?;
            if reader.table.changes.is_none() && exports.take().is_some() {
                tracing::info!(
                    "this PostHog does not show which {stream} have changed, so {stream} that exports omit could not be found; all are read by query",
                    stream = reader.table.stream
                );
            }
        }
        self.read_left_out(&reader).await?;
        let exports = match exports {
            Some(exports)
                if self.is_quicker_by_query(&mut reader, &exports).await? || self.are_few_changes(&reader).await? =>
            {
                None
            }
            exports => exports,
        };
        self.read_by(reader, exports, on_estimate).await
    }

    /// Reads a table by these exports, or by query if there are none or they turn out not to work.
    async fn read_by(
        &self,
        mut reader: ProjectReader,
        exports: Option<ExportReader>,
        on_estimate: OnEstimate<'_>,
    ) -> Result<(), Error> {
        if let Some(exports) = exports {
            match exports.run(on_estimate).await? {
                ExportOutcome::Complete => {
                    self.read_left_out(&reader).await?;
                    return self.mark_deleted(&reader, &exports.emitted_rows).await;
                }
                // Part of it may have been exported before.
                ExportOutcome::Impossible => self.read_left_out(&reader).await?,
            }
        }
        if reader.table.stream == PERSON_DISTINCT_IDS.stream {
            let ProjectReader { context, page_size, checkpoint, .. } = reader;
            return DistinctIdReader { context, page_size, checkpoint }.run().await;
        }
        reader.choose_columns().await?;
        let reader = Arc::new(reader);
        reader.run(on_estimate).await?;
        self.mark_deleted(&reader, &Mutex::default()).await
    }

    /// Exports of a table, if it is to be read by them.
    async fn exports(&self, plan: &ProjectPlan, reader: &ProjectReader) -> Result<Option<ExportReader>, Error> {
        let method = plan.method.as_ref().map_err(Error::clone)?;
        if !method.is_export() || reader.table.export.is_none() || !self.may_export(plan, reader).await {
            return Ok(None);
        }
        let may_query = self.may("query:read");
        let rights = Rights { may_query, falls_back: method.is_automatic() && may_query };
        let files = self.files.get_or_try_init(|| async { FileClient::new(&self.config) }).await?.clone();
        Ok(Some(ExportReader::new(Arc::new(reader.clone()), files, Arc::clone(&plan.supervision), rights)))
    }

    /// Warns where a project hides its older events, with the day from which on there are some. A key that
    /// may not read the project's settings reads events all the same.
    async fn warn_about_retention(&self, project: u64) {
        let retry = Retry::with_attempts(RETENTION_ATTEMPTS);
        if let Ok(settings) = account::project(&self.client, project, retry, &Silent).await
            && let Some(notice) = retention::notice(&settings, self.config.start, self.client.now())
        {
            tracing::warn!("project {project}: {notice}");
        }
    }

    /// Whether queries are quicker for the first read of a table, where exports would need a run for every week
    /// since the project began. `export_above` 0 asks for exports in any case.
    async fn is_quicker_by_query(&self, reader: &mut ProjectReader, exports: &ExportReader) -> Result<bool, Error> {
        let state = reader.checkpoint.project(reader.context.project).await;
        let is_first = state.watermark.is_none() && state.resume_from.is_none() && state.export.windows.is_empty();
        if !is_first || !self.may("query:read") || reader.table.stream == EVENTS.stream || self.config.export_above == 0
        {
            return Ok(false);
        }
        let rows = if reader.table.stream == PERSON_DISTINCT_IDS.stream {
            let ProjectReader { context, page_size, checkpoint, .. } = reader.clone();
            DistinctIdReader { context, page_size, checkpoint }.count_all().await?
        } else {
            reader.choose_columns().await?;
            reader.count_all(reader.wanted()).await?
        };
        let concurrency = u64::try_from(self.config.concurrency).unwrap_or(u64::MAX);
        let is_in_order = reader.table.rows_move || reader.table.stream == PERSON_DISTINCT_IDS.stream;
        let first_read = FirstRead {
            rows,
            page_size: u64::from(reader.page_size.rows()),
            pages_at_a_time: if is_in_order { 1 } else { concurrency },
            pages_read_all: reader.table.rows_move,
            age: self.client.now().micros() - exports.beginning().await?.micros(),
            runs_at_a_time: concurrency,
        };
        let estimate = first_read.estimate();
        let by_query = estimate.is_quicker_by_query();
        tracing::info!(
            "{rows} {}: {estimate}; the first read is by {}, later syncs export the changes",
            reader.table.stream,
            if by_query { "query" } else { "export" }
        );
        Ok(by_query)
    }

    /// Reads what exports have left out by query, where PostHog shows what has changed and the key may query.
    async fn read_left_out(&self, reader: &ProjectReader) -> Result<(), Error> {
        let state = reader.checkpoint.project(reader.context.project).await;
        let has_been_exported = state.method == Some(LastMethod::Export) && state.export.windows.is_empty();
        if reader.table.changes.is_none() || !has_been_exported || !self.may("query:read") {
            return Ok(());
        }
        let reader = Arc::new(reader.clone());
        reader.read_left_out().await?;
        // What has changed in a full refresh has no later sync to be read by.
        if reader.context.incremental { Ok(()) } else { reader.run(&|_| {}).await }
    }

    /// Whether so little has changed that queries read it in seconds, and without a run.
    async fn are_few_changes(&self, reader: &ProjectReader) -> Result<bool, Error> {
        let state = reader.checkpoint.project(reader.context.project).await;
        let may_count = self.may("query:read") && reader.context.incremental && state.export.windows.is_empty();
        if reader.table.changes.is_none() || state.watermark.is_none() || !may_count {
            return Ok(false);
        }
        let few = reader.count_changes().await?.filter(|rows| *rows <= self.config.export_above);
        if let Some(rows) = few {
            tracing::info!(
                "{rows} changed {} are read by query, which is quicker than an export run",
                reader.table.stream
            );
        }
        Ok(few.is_some())
    }

    /// Whether exports may be expected to work; otherwise queries read what exports would have.
    async fn may_export(&self, plan: &ProjectPlan, reader: &ProjectReader) -> bool {
        if reader.checkpoint.project(plan.id).await.method == Some(LastMethod::Export) {
            plan.supervision.prove();
        }
        let Some(reason) = plan.supervision.failure().filter(|_| self.may("query:read")) else { return true };
        tracing::info!("{} are read by query, because file exports do not work here: {reason}", reader.table.stream);
        false
    }

    /// What every reader of a stream has at hand.
    fn context(
        &self,
        project: u64,
        stream: &Arc<StreamDescriptor>,
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
            observer: StreamObserver { output: self.output.clone(), stream: Arc::clone(stream) },
            nulled: nulled.clone(),
        }
    }
}

fn missing_scope(stream: &str, scope: &str) -> Error {
    Error::config(format!(
        "the API key lacks the scope `{scope}`, which the stream `{stream}` needs; add it in PostHog under Settings > Personal API keys, or leave the stream out"
    ))
}
