//! A run: what was asked for, how far it is, and what came of it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;
use uuid::Uuid;

use super::behaviour::{ExportServer, RecordsCompleted};
use super::config::{ExportOutcome, Exports};
use super::files::{self, File};
use super::request::Asked;
use super::rows;
use crate::posthog::error::ApiError;
use crate::posthog::{Shared, lock};

/// A run, as the sandbox shows it to tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportRun {
    /// Its number in paths.
    pub id: Uuid,
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
    pub started_at: DateTime<Utc>,
}

/// A run with the configuration of the time it was started.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) id: Uuid,
    pub(super) project: u64,
    pub(super) asked: Arc<Asked>,
    config: Arc<Exports>,
    pub(super) server: ExportServer,
    number: u64,
    pub(super) started_at: DateTime<Utc>,
    begun: Instant,
    pub(super) end: Option<End>,
}

#[derive(Debug)]
pub(super) enum End {
    Completed { at: Instant, files: Vec<File>, rows: usize },
    Cancelled,
    Other { status: String, error: String },
}

impl Run {
    /// The status in PostHog's own books.
    pub(super) fn stored_status(&self) -> &str {
        match &self.end {
            None if self.begun.elapsed() < self.config.starting => "Starting",
            None => "Running",
            Some(End::Completed { .. }) => "Completed",
            Some(End::Cancelled) => "Cancelled",
            Some(End::Other { status, .. }) => status,
        }
    }

    /// The status that the API shows: a run isn't done for it before a file is noted.
    pub(super) fn status(&self) -> &str {
        let Some(End::Completed { at, rows, .. }) = &self.end else { return self.stored_status() };
        let waits = self.shown_files().is_empty()
            && match self.server.records_completed {
                RecordsCompleted::Reported => *rows > 0,
                RecordsCompleted::Null => false,
                RecordsCompleted::Missing => {
                    !self.server.empty_runs_complete || at.elapsed() < self.config.completed_lag
                }
            };
        if waits { "Running" } else { "Completed" }
    }

    pub(super) fn is_active(&self) -> bool {
        self.end.is_none()
    }

    /// Rows of a completed run.
    pub(super) fn rows(&self) -> usize {
        if let Some(End::Completed { rows, .. }) = &self.end { *rows } else { 0 }
    }

    /// The files that have appeared by now.
    pub(super) fn shown_files(&self) -> &[File] {
        let Some(End::Completed { at, files, .. }) = &self.end else { return &[] };
        let elapsed = at.elapsed();
        if elapsed < self.config.completed_lag {
            return &[];
        }
        let hidden = (1..files.len()).rev().take_while(|number| {
            let apart = self.config.files_apart.as_millis() * u128::try_from(*number).unwrap_or(u128::MAX);
            elapsed.as_millis() < apart
        });
        files.get(..files.len() - hidden.count()).unwrap_or_default()
    }

    pub(super) fn files(&self) -> &[File] {
        if let Some(End::Completed { files, .. }) = &self.end { files } else { &[] }
    }

    pub(super) fn expire_files(&mut self) {
        if let Some(End::Completed { files, .. }) = &mut self.end {
            for file in files {
                file.expired = true;
            }
        }
    }

    pub(super) fn summary(&self) -> ExportRun {
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
            rows: self.rows(),
            started_at: self.started_at,
        }
    }

    fn outcome(&self) -> Option<&ExportOutcome> {
        self.config.outcomes.iter().find(|outcome| outcome.nth.contains(&self.number))
    }

    /// Whether it tries for ever, without a bucket or because the test wants it.
    fn hangs(&self) -> bool {
        let asked = &self.asked;
        let matches = |rule: &super::HangingRuns| {
            rule.matches(self.number, asked.model.name(), asked.end.saturating_sub(asked.start))
        };
        !self.server.bucket || self.config.hanging.iter().any(matches)
    }
}

/// Starts a run, unless this one has to fail. What takes no time is done when this returns.
pub(super) async fn start(shared: &Arc<Shared>, project: u64, asked: Asked) -> Result<Uuid, ApiError> {
    let id = Uuid::now_v7();
    let server = shared.server().exports;
    let wait = {
        let state = &mut *lock(&shared.exports);
        let active = state.runs.iter().filter(|run| run.project == project && run.is_active()).count();
        if server.concurrent_runs.is_some_and(|most| active >= most) {
            let detail = "Too many concurrent file download batch exports for this team.";
            return Err(ApiError::new(429, "throttled_error", "too_many_concurrent_file_downloads", detail));
        }
        state.started += 1;
        state.most_active = state.most_active.max(active + 1);
        let config = Arc::new(state.config.clone());
        let failed = !server.temporal || config.start_errors.contains(&state.started);
        let wait = config.starting.saturating_add(config.running);
        let error = || End::Other { status: "Failed".to_owned(), error: "Failed to start".to_owned() };
        if !failed || server.current_answers {
            state.runs.push(Run {
                id,
                project,
                asked: Arc::new(asked),
                config,
                server,
                number: state.started,
                started_at: Utc::now(),
                begun: Instant::now(),
                end: failed.then(error),
            });
        }
        if failed {
            return Err(failed_to_start(server));
        }
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
    Ok(id)
}

fn failed_to_start(server: ExportServer) -> ApiError {
    let advice = if server.current_answers {
        "Check our status page for any ongoing incidents and try again later."
    } else {
        "Please try again later."
    };
    ApiError::bare(500, format!("The batch export failed to start. {advice}"))
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
    let (project, asked, config, server) = {
        let state = &mut *lock(&shared.exports);
        let Some(run) = state.run(id).filter(|run| run.end.is_none() && !run.hangs()) else { return };
        if let Some(ExportOutcome { status, error, .. }) = run.outcome().cloned() {
            run.end = Some(End::Other { status, error });
            return;
        }
        (run.project, Arc::clone(&run.asked), Arc::clone(&run.config), run.server)
    };
    let read = {
        let shared = Arc::clone(&shared);
        move || {
            let lines = rows::lines(&shared, project, &asked, server)?;
            let files = files::pack(&lines, project, id, &asked, &config, server.member_per_line)?;
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
