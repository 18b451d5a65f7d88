//! `read`: all chosen streams, one after the other; their projects side by side.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use futures_util::{StreamExt, stream};
use tokio::sync::OnceCell;

use super::cli::ReadArguments;
use super::discover::custom_streams;
use super::method::{self, ChosenMethod};
use super::property_types;
use crate::config::Config;
use crate::error::Error;
use crate::posthog::account::{self, ApiKey, project_ids};
use crate::posthog::http::{Client, FileClient, Silent};
use crate::progress::Progress;
use crate::protocol::message::{now_milliseconds, record_prefix, record_suffix};
use crate::protocol::state::SavedStates;
use crate::protocol::{ConfiguredCatalog, Message, Output, StreamDescriptor, StreamStatus, SyncMode};
use crate::records::project;
use crate::streams::{self, KeysetStream, List, PropertyColumns, Source, Table};
use crate::sync::{
    Checkpoint, ExportReader, Journal, KeysetReader, KeysetState, ListReader, ListState, Notes, OnEstimate, PageSize,
    ProjectReader, StreamObserver, TableState, available, parse_notes,
};

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
}

/// A chosen stream whose settings have been checked.
struct Job {
    stream: Arc<StreamDescriptor>,
    kind: JobKind,
}

enum JobKind {
    Table { table: &'static Table, incremental: bool, state: TableState, property_columns: Arc<PropertyColumns> },
    KeysetStream { keyset: &'static KeysetStream, incremental: bool, notes: Notes<KeysetState> },
    List { list: &'static List, incremental: bool, notes: Notes<ListState> },
    Projects,
}

impl JobKind {
    /// The projects in its state.
    fn projects(&self) -> Vec<u64> {
        match self {
            Self::Table { state, .. } => state.projects.keys().copied().collect(),
            Self::KeysetStream { notes, .. } => notes.keys().copied().collect(),
            Self::List { notes, .. } => notes.keys().copied().collect(),
            Self::Projects => Vec::new(),
        }
    }
}

/// Reads the chosen streams. Returns false when one has failed, which has been reported then.
pub(super) async fn read(arguments: &ReadArguments, output: &Output) -> Result<bool, Error> {
    let config = super::configuration(&arguments.config)?;
    let catalog = ConfiguredCatalog::from_file(&arguments.catalog)?;
    let state = arguments.state.as_deref().map(SavedStates::from_file).transpose()?.unwrap_or_default();
    let jobs = jobs(&config, &catalog, &state, &custom_streams(&config).await?)?;
    let client = Client::new(&config)?;
    let key = ApiKey::fetch(&client, client.retry(), &Silent).await?;
    let ids = project_ids(&client, &config, key.as_ref(), || client.retry(), &Silent).await?;
    if config.project_ids.is_none() {
        warn_about_missing(&jobs, &ids);
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
        projects.push(ProjectPlan { id, method });
    }
    let sync = Sync { files: OnceCell::new(), config: Arc::new(config), client, key, projects, output: output.clone() };
    let mut all_complete = true;
    for job in jobs {
        all_complete &= sync.run(job).await?;
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
    custom: &[&'static KeysetStream],
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
        let source = Source::find(name, custom);
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
            Some(Source::Projects) => JobKind::Projects,
            Some(Source::KeysetStream(keyset)) => {
                let notes = parse_notes(state.stream(&stream))
                    .map_err(|error| error.in_context(format_args!("stream `{name}`")))?;
                JobKind::KeysetStream { keyset, incremental, notes }
            }
            Some(Source::List(list)) => {
                let notes = parse_notes(state.stream(&stream))
                    .map_err(|error| error.in_context(format_args!("stream `{name}`")))?;
                JobKind::List { list, incremental, notes }
            }
            Some(Source::Table(table)) => {
                let state = TableState::parse(state.stream(&stream), table.cursor_field)
                    .map_err(|error| error.in_context(format_args!("stream `{name}`")))?;
                let state = state.for_mode(incremental);
                let property_columns =
                    Arc::new(property_types::by_schema(config, table, &configured.stream.json_schema));
                JobKind::Table { table, incremental, state, property_columns }
            }
        };
        jobs.push(Job { stream, kind });
    }
    Ok(jobs)
}

impl Sync {
    /// Reads one stream and reports how it ended. Returns whether it is complete.
    async fn run(&self, job: Job) -> Result<bool, Error> {
        let begin = Instant::now();
        let descriptor = StreamDescriptor::clone(&job.stream);
        self.output.message(&Message::status(descriptor.clone(), StreamStatus::Started)).await?;
        let failures = match job.kind {
            JobKind::Projects => self.read_projects(&job.stream).await?,
            JobKind::Table { table, incremental, state, property_columns } => {
                self.read_table(table, incremental, state, &property_columns, &job.stream).await?
            }
            JobKind::KeysetStream { keyset, incremental, notes } => {
                self.read_keyset(keyset, incremental, notes, &job.stream).await?
            }
            JobKind::List { list, .. } if !self.may(list.scope) => vec![missing_scope(list.stream, list.scope)],
            JobKind::List { list, incremental, notes } => self.read_list(list, incremental, notes, &job.stream).await?,
        };
        for error in &failures {
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

    /// Reads a table of all projects; one that fails does not stop the others.
    async fn read_table(
        &self,
        table: &'static Table,
        incremental: bool,
        state: TableState,
        property_columns: &Arc<PropertyColumns>,
        stream: &Arc<StreamDescriptor>,
    ) -> Result<Vec<Error>, Error> {
        let state = state.resumed_by(self.projects.iter().map(|project| project.id));
        let checkpoint = Arc::new(Checkpoint::new(self.output.clone(), Arc::clone(stream), table.cursor_field, state));
        let estimate = AtomicU64::new(0);
        let on_estimate = |rows: u64| {
            let total = estimate.fetch_add(rows, Ordering::Relaxed) + rows;
            self.output.hint(&Message::estimate(stream, total));
            self.output.progress().expect(total);
        };
        let reads =
            self.projects.iter().map(|project| {
                let mut reader = self.reader(project.id, table, incremental, stream, &checkpoint);
                reader.property_columns = Arc::clone(property_columns);
                let on_estimate = &on_estimate;
                async move {
                    self.read_project(project, reader, on_estimate).await.map_err(|error| named(error, project.id))
                }
            });
        let failures = self.in_parallel(reads).await?;
        checkpoint.finish(!incremental && failures.is_empty()).await?;
        Ok(failures)
    }

    /// Whether the key has a scope, as far as is known.
    fn may(&self, scope: &str) -> bool {
        self.key.as_ref().is_none_or(|key| key.may(scope))
    }

    /// Reads all projects, some at a time, and returns what went wrong.
    async fn in_parallel(
        &self,
        reads: impl Iterator<Item = impl Future<Output = Result<(), Error>>>,
    ) -> Result<Vec<Error>, Error> {
        let results: Vec<Result<(), Error>> =
            stream::iter(reads).buffer_unordered(self.config.concurrency).collect().await;
        let failures: Vec<Error> = results.into_iter().filter_map(Result::err).collect();
        match failures.iter().find(|error| error.is_output_closed()) {
            Some(closed) => Err(closed.clone()),
            None => Ok(failures),
        }
    }

    /// Reads a keyed stream of all projects.
    async fn read_keyset(
        &self,
        keyset: &'static KeysetStream,
        incremental: bool,
        notes: Notes<KeysetState>,
        stream: &Arc<StreamDescriptor>,
    ) -> Result<Vec<Error>, Error> {
        let journal = Arc::new(Journal::new(self.output.clone(), Arc::clone(stream), notes));
        let reads = self.projects.iter().map(|project| {
            let reader = KeysetReader {
                client: self.client.clone(),
                keyset,
                project: project.id,
                incremental,
                options: self.config.method.query.clone(),
                page_size: PageSize::new(self.config.method.query.page_size),
                output: self.output.clone(),
                stream: Arc::clone(stream),
                journal: Arc::clone(&journal),
                observer: StreamObserver { output: self.output.clone(), stream: Arc::clone(stream) },
            };
            async move { reader.run().await.map_err(|error| named(error, reader.project)) }
        });
        let failures = self.in_parallel(reads).await?;
        journal.finish(!incremental && failures.is_empty()).await?;
        Ok(failures)
    }

    /// Reads a list of all projects.
    async fn read_list(
        &self,
        list: &'static List,
        incremental: bool,
        notes: Notes<ListState>,
        stream: &Arc<StreamDescriptor>,
    ) -> Result<Vec<Error>, Error> {
        let journal = Arc::new(Journal::new(self.output.clone(), Arc::clone(stream), notes));
        let reads = self.projects.iter().map(|project| {
            let reader = ListReader {
                client: self.client.clone(),
                list,
                project: project.id,
                incremental,
                start: self.config.start,
                output: self.output.clone(),
                stream: Arc::clone(stream),
                journal: Arc::clone(&journal),
                observer: StreamObserver { output: self.output.clone(), stream: Arc::clone(stream) },
            };
            async move { reader.run().await.map_err(|error| named(error, reader.project)) }
        });
        let failures = self.in_parallel(reads).await?;
        journal.finish(!incremental && failures.is_empty()).await?;
        Ok(failures)
    }

    /// Reads a table of one project by the method that has been chosen for it.
    async fn read_project(
        &self,
        project: &ProjectPlan,
        mut reader: ProjectReader,
        on_estimate: OnEstimate<'_>,
    ) -> Result<(), Error> {
        let method = project.method.as_ref().map_err(Error::clone)?;
        if let (ChosenMethod::Export { .. }, Some(model)) = (method, reader.table.export) {
            let files = self.files.get_or_try_init(|| async { FileClient::new(&self.config) }).await?.clone();
            let ingestion_delay = self.config.method.ingestion_delay;
            let reader = Arc::new(reader);
            let may_query = self.may("query:read");
            return ExportReader { reader, files, ingestion_delay, model, may_query }.run(on_estimate).await;
        }
        if reader.table.columns_vary {
            let (table, columns) = (reader.table, std::mem::take(&mut reader.columns));
            reader.columns = available(&reader.client, project.id, table, columns, &reader.observer).await?;
        }
        Arc::new(reader).run(on_estimate).await
    }

    fn reader(
        &self,
        project: u64,
        table: &'static Table,
        incremental: bool,
        stream: &Arc<StreamDescriptor>,
        checkpoint: &Arc<Checkpoint>,
    ) -> ProjectReader {
        ProjectReader {
            client: self.client.clone(),
            table,
            project,
            incremental,
            columns: table.selected(self.config.method.query.person_properties),
            property_columns: Arc::default(),
            options: self.config.method.query.clone(),
            config: Arc::clone(&self.config),
            page_size: PageSize::new(self.config.method.query.page_size),
            output: self.output.clone(),
            stream: Arc::clone(stream),
            checkpoint: Arc::clone(checkpoint),
            observer: StreamObserver { output: self.output.clone(), stream: Arc::clone(stream) },
        }
    }

    /// Reads the projects themselves.
    async fn read_projects(&self, stream: &Arc<StreamDescriptor>) -> Result<Vec<Error>, Error> {
        let observer = StreamObserver { output: self.output.clone(), stream: Arc::clone(stream) };
        let mut failures = Vec::new();
        for ProjectPlan { id, .. } in &self.projects {
            let record =
                account::project(&self.client, *id, self.client.retry(), &observer).await.and_then(|project| {
                    project::record(&project.json)
                        .map_err(|error| Error::system(format!("its description is not usable: {error}")))
                });
            match record {
                Ok(record) => {
                    let line = [record_prefix(stream), record, record_suffix(now_milliseconds())].concat();
                    self.output.records(stream, line.into(), 1).await?;
                }
                Err(error) => failures.push(named(error, *id)),
            }
        }
        // The stream keeps nothing between syncs; the protocol wants a state all the same.
        self.output.state(stream, serde_json::json!({"version": 1, "complete": failures.is_empty()})).await?;
        Ok(failures)
    }
}

fn missing_scope(stream: &str, scope: &str) -> Error {
    Error::config(format!(
        "the API key lacks the scope `{scope}`, which the stream `{stream}` needs; add it in PostHog under Settings > Personal API keys, or leave the stream out"
    ))
}

/// Says which project failed, unless the message does already.
fn named(error: Error, project: u64) -> Error {
    let name = format!("project {project}");
    if error.message().starts_with(&name) || error.is_output_closed() { error } else { error.in_context(name) }
}
