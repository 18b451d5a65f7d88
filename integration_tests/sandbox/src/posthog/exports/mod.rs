//! File download batch exports: runs that leave compressed files on another host.
//!
//! [`Exports`] says how they behave; without it the feature is missing, as it is on PostHog for those
//! who don't have it. A run starts, runs for a while and then reads its rows, so that what was taken in
//! meanwhile is in its files. `api` answers on PostHog's paths, `host` is where the files are fetched.

mod api;
mod files;
mod host;
mod request;
mod rows;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;
use uuid::Uuid;

use super::{Shared, lock};
use files::File;
use request::Asked;

pub(crate) use api::answer;
pub(crate) use host::{Signed, back, serve};

/// How file download exports behave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exports {
    /// Whether there are any.
    pub enabled: bool,
    /// Status of the answers if there aren't: 403, or else 404.
    pub missing_status: u16,
    /// How long a run is `Starting`.
    pub starting: Duration,
    /// How long it is `Running` after that. Then it reads its rows.
    pub running: Duration,
    /// How much longer it is shown as `Running` although it is done.
    pub completed_lag: Duration,
    /// How long after each other the files of a run appear.
    pub files_apart: Duration,
    /// How long the link to a file works; for ever if there is none.
    pub url_lifetime: Option<Duration>,
    /// How long a file exists; for ever if there is none.
    pub file_lifetime: Option<Duration>,
    /// Leaves out events whose timestamp is so many days before the interval, or one day after it.
    pub lookback_days: Option<u32>,
    /// Rows per file at most.
    pub rows_per_file: Option<usize>,
    /// Runs that don't end as `Completed`.
    pub outcomes: Vec<ExportOutcome>,
    /// Requests to start a run that fail with 500. Counted as in [`ExportOutcome::nth`].
    pub start_errors: Vec<u64>,
    /// Whether the file host knows `Range`.
    pub ranges: bool,
    /// So many redirects within the file host before the file comes.
    pub redirects: u32,
    /// The file host first redirects to the host of the API, which redirects to the file host again.
    pub redirect_back: bool,
}

impl Default for Exports {
    /// Enabled, done at once, in one file that stays.
    fn default() -> Self {
        Self {
            enabled: true,
            missing_status: 404,
            starting: Duration::ZERO,
            running: Duration::ZERO,
            completed_lag: Duration::ZERO,
            files_apart: Duration::ZERO,
            url_lifetime: None,
            file_lifetime: None,
            lookback_days: None,
            rows_per_file: None,
            outcomes: Vec::new(),
            start_errors: Vec::new(),
            ranges: true,
            redirects: 0,
            redirect_back: false,
        }
    }
}

/// How some runs end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportOutcome {
    /// Which: valid requests to start a run, counted from 1 over the life of the sandbox.
    pub nth: Vec<u64>,
    /// `Failed`, `FailedRetryable`, `FailedBilling`, `Terminated` or `TimedOut`; or `Running`, to never end.
    pub status: String,
    /// What `error` says.
    pub error: String,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportRun {
    /// Its number in paths.
    pub id: Uuid,
    /// Its project.
    pub project: u64,
    /// `events`, `persons` or `sessions`.
    pub model: String,
    /// Start of the interval in microseconds since 1970.
    pub start: i64,
    /// End of the interval in microseconds since 1970; rows of this instant are left out.
    pub end: i64,
    /// Names of events that are wanted, all if empty.
    pub include: Vec<String>,
    /// Names of events that aren't.
    pub exclude: Vec<String>,
    /// Status as the API shows it.
    pub status: String,
    /// How many files there are.
    pub files: usize,
    /// Rows in all of them.
    pub rows: usize,
    /// When it was started.
    pub started_at: DateTime<Utc>,
}

/// A request to the file host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRequest {
    id: u64,
    /// Path with its query string.
    pub path: String,
    /// The `Range` header.
    pub range: Option<String>,
    /// Status of the answer; `None` while it is awaited, and if the connection was reset instead.
    pub status: Option<u16>,
    /// Whether there was an `Authorization` header.
    pub authorized: bool,
    /// Name of the fault that was applied, as [`Action::name`](super::faults::Action::name) gives it.
    pub fault: Option<&'static str>,
}

/// Everything about exports.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) config: Exports,
    api: SocketAddr,
    host: SocketAddr,
    /// Requests to start a run, failed ones too.
    started: u64,
    runs: Vec<Run>,
    /// Links by their signature.
    signed: HashMap<String, Signed>,
    next_request: u64,
    pub(crate) requests: Vec<FileRequest>,
    pub(crate) leaks: usize,
}

impl State {
    /// Without a configuration there are no exports.
    pub(crate) fn new(config: Option<Exports>, api: SocketAddr, host: SocketAddr) -> Self {
        let config = config.unwrap_or(Exports { enabled: false, ..Exports::default() });
        Self {
            config,
            api,
            host,
            started: 0,
            runs: Vec::new(),
            signed: HashMap::new(),
            next_request: 0,
            requests: Vec::new(),
            leaks: 0,
        }
    }

    pub(crate) fn runs(&self) -> Vec<ExportRun> {
        self.runs.iter().map(Run::summary).collect()
    }

    pub(crate) fn expire_files(&mut self) {
        for run in &mut self.runs {
            if let Some(End::Completed { files, .. }) = &mut run.end {
                for file in files {
                    file.expired = true;
                }
            }
        }
    }

    fn run(&mut self, id: Uuid) -> Option<&mut Run> {
        self.runs.iter_mut().find(|run| run.id == id)
    }
}

/// A run with the configuration of the time it was started.
#[derive(Debug)]
struct Run {
    id: Uuid,
    project: u64,
    asked: Arc<Asked>,
    config: Arc<Exports>,
    number: u64,
    started_at: DateTime<Utc>,
    begun: Instant,
    end: Option<End>,
}

#[derive(Debug)]
enum End {
    Completed { at: Instant, files: Vec<File>, rows: usize },
    Cancelled,
    Other { status: String, error: String },
}

impl Run {
    /// The status that the API shows.
    fn status(&self) -> &str {
        match &self.end {
            None if self.begun.elapsed() < self.config.starting => "Starting",
            None => "Running",
            Some(End::Completed { at, .. }) if at.elapsed() < self.config.completed_lag => "Running",
            Some(End::Completed { .. }) => "Completed",
            Some(End::Cancelled) => "Cancelled",
            Some(End::Other { status, .. }) => status,
        }
    }

    /// The files that have appeared by now.
    fn shown_files(&self) -> &[File] {
        let Some(End::Completed { at, files, .. }) = &self.end else { return &[] };
        let elapsed = at.elapsed().as_millis();
        let hidden = (1..files.len()).rev().take_while(|number| {
            elapsed < self.config.files_apart.as_millis() * u128::try_from(*number).unwrap_or(u128::MAX)
        });
        files.get(..files.len() - hidden.count()).unwrap_or_default()
    }

    fn files(&self) -> &[File] {
        if let Some(End::Completed { files, .. }) = &self.end { files } else { &[] }
    }

    fn summary(&self) -> ExportRun {
        let asked = &self.asked;
        ExportRun {
            id: self.id,
            project: self.project,
            model: asked.model.name().to_owned(),
            start: asked.start,
            end: asked.end,
            include: asked.include.clone(),
            exclude: asked.exclude.clone(),
            status: self.status().to_owned(),
            files: self.files().len(),
            rows: if let Some(End::Completed { rows, .. }) = &self.end { *rows } else { 0 },
            started_at: self.started_at,
        }
    }

    fn outcome(&self) -> Option<&ExportOutcome> {
        self.config.outcomes.iter().find(|outcome| outcome.nth.contains(&self.number))
    }
}

/// Starts a run, unless this one has to fail. What takes no time is done when this returns.
async fn start(shared: &Arc<Shared>, project: u64, asked: Asked) -> Option<Uuid> {
    let id = Uuid::now_v7();
    let wait = {
        let state = &mut *lock(&shared.exports);
        state.started += 1;
        if state.config.start_errors.contains(&state.started) {
            return None;
        }
        let config = Arc::new(state.config.clone());
        let wait = config.starting.saturating_add(config.running);
        state.runs.push(Run {
            id,
            project,
            asked: Arc::new(asked),
            config,
            number: state.started,
            started_at: Utc::now(),
            begun: Instant::now(),
            end: None,
        });
        wait
    };
    // On its own, since a client may go away before it has its answer.
    let work = tokio::spawn(complete_later(Arc::downgrade(shared), id, wait));
    if wait.is_zero()
        && let Err(error) = work.await
        && let Some(run) = lock(&shared.exports).run(id)
    {
        run.end = Some(End::Other { status: "Failed".to_owned(), error: error.to_string() });
    }
    Some(id)
}

/// A run that is still waiting doesn't keep a sandbox alive that nobody has any more.
async fn complete_later(shared: Weak<Shared>, id: Uuid, wait: Duration) {
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
    if let Some(shared) = shared.upgrade() {
        complete(shared, id).await;
    }
}

/// Reads the rows of a run that nobody has cancelled.
async fn complete(shared: Arc<Shared>, id: Uuid) {
    let (project, asked, config) = {
        let state = &mut *lock(&shared.exports);
        let Some(run) = state.run(id).filter(|run| run.end.is_none()) else { return };
        if let Some(ExportOutcome { status, error, .. }) = run.outcome().cloned() {
            run.end = Some(End::Other { status, error });
            return;
        }
        (run.project, Arc::clone(&run.asked), Arc::clone(&run.config))
    };
    let read = {
        let shared = Arc::clone(&shared);
        move || {
            let lines = rows::lines(&shared, project, &asked, config.lookback_days)?;
            let files = files::pack(&lines, project, id, &asked, &config)?;
            anyhow::Ok(End::Completed { at: Instant::now(), files, rows: lines.len() })
        }
    };
    let end = tokio::task::spawn_blocking(read).await.map_err(anyhow::Error::from).and_then(|result| result);
    let end = end.unwrap_or_else(|error| End::Other { status: "Failed".to_owned(), error: format!("{error:#}") });
    if let Some(run) = lock(&shared.exports).run(id)
        && run.end.is_none()
    {
        run.end = Some(end);
    }
}
