//! File download exports: `PostHog` prepares files, which are then downloaded.
//!
//! `POST /api/projects/:id/file_download_batch_exports/` starts a run for an interval of ingestion
//! time of at most seven days, `GET …/:run/` returns its status, `GET …/:run/download/:file/` redirects
//! to a signed URL on another host (`products/batch_exports/backend/api/file_download.py`).

use reqwest::Method;
use std::collections::BTreeSet;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use url::Url;

use crate::error::Error;
use crate::posthog::AtMost;
use crate::posthog::http::{Class, Client, Failure, GiveUp, Observer, Reason, Refusal, Request, Retry};
use crate::time::{DAY, Timestamp};

/// Longest interval of one run, in microseconds.
pub const LONGEST_INTERVAL: i64 = 7 * DAY;
/// Files are cut at this size, so that little is downloaded twice after an interruption.
const MOST_MEGABYTES: u32 = 128;
/// Most files of a run: a terabyte, compressed. Their ids stand in the state.
const MOST_FILES: usize = 10_000;
/// Ids of `PostHog` are UUIDs.
const LONGEST_ID: usize = 100;
/// Scope that starting a run needs; reading one is part of it.
pub const SCOPE: &str = "batch_export:write";

/// What a run is to contain.
#[derive(Debug, Clone)]
pub struct ExportRequest {
    /// `events`, `persons` or `sessions`.
    pub model: &'static str,
    /// First instant of ingestion.
    pub from: Timestamp,
    /// First instant after it.
    pub to: Timestamp,
    /// Only these events; all when empty.
    pub include: BTreeSet<String>,
    /// Not these events.
    pub exclude: BTreeSet<String>,
}

/// The status of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunStatus {
    /// The files are not ready yet; `PostHog`'s name for the status.
    Preparing(String),
    /// These files can be downloaded.
    Ready {
        /// Their ids.
        files: Vec<String>,
        /// Rows that `PostHog` has exported, which it bills; unknown to servers from before September 2026.
        rows: Option<u64>,
    },
    /// It has been cancelled, by this program or from elsewhere.
    Cancelled,
    /// There will be no files.
    Failed {
        /// `PostHog`'s name for the status, such as `FailedRetryable`.
        status: String,
        /// `PostHog`'s explanation.
        reason: String,
    },
    /// `PostHog` does not know the run (any more).
    Unknown,
}

/// Whether a project can be exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Availability {
    /// It can.
    Available,
    /// The instance has no such endpoint.
    Missing,
    /// The key lacks [`SCOPE`].
    MissingScope,
    /// The server forbids it, with this message.
    Forbidden(String),
}

/// Where a file can be downloaded.
pub enum FileUrl {
    /// Here, for a while.
    At(Url),
    /// The run or its files are gone.
    Gone(String),
}

/// The export endpoints of one project.
pub struct Exports<'a> {
    client: &'a Client,
    project: u64,
    observer: &'a dyn Observer,
}

#[derive(Deserialize)]
struct Started {
    id: String,
}

#[derive(Deserialize)]
struct RunResponse {
    status: String,
    files: Option<AtMost<MOST_FILES, String>>,
    records_completed: Option<u64>,
    error: Option<String>,
}

impl<'a> Exports<'a> {
    /// The endpoints of `project`.
    pub fn new(client: &'a Client, project: u64, observer: &'a dyn Observer) -> Self {
        Self { client, project, observer }
    }

    /// The path of all runs.
    fn runs(&self) -> String {
        format!("api/projects/{}/file_download_batch_exports/", self.project)
    }

    /// The path of a run, or of what belongs to it.
    ///
    /// # Errors
    /// When an id would lead elsewhere: ids come from servers and from state files, and the request has the key.
    fn path(&self, ids: &[&str], rest: &str) -> Result<String, Failure> {
        let is_id = |id: &str| {
            (1..=LONGEST_ID).contains(&id.len())
                && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        if !ids.iter().all(|id| is_id(id)) {
            return Err(Failure::Fatal(Error::config(
                "the id of an export run or file is too long or has other characters than letters, digits, - and _. If it does not come from PostHog but from the state, start without a state",
            )));
        }
        let ids: String = ids.iter().flat_map(|id| [id, "/"]).collect();
        Ok(format!("{}{ids}{rest}", self.runs()))
    }

    /// Finds out whether the key may start runs and whether the instance has them.
    ///
    /// An incomplete request is sent: a key that may not start runs is rejected for that reason, any other
    /// because the request is incomplete. Nothing is started.
    ///
    /// # Errors
    /// When there is no usable answer.
    pub async fn availability(&self, retry: Retry) -> Result<Availability, GiveUp> {
        let (path, body) = (self.runs(), json!({"model": "events"}));
        let request = Request { method: Method::POST, path: &path, body: Some(&body) };
        let probe = || self.client.json::<IgnoredAny>(Class::General, &request, self.observer);
        match retry.run(self.client.limiter(), probe).await {
            Ok(_) | Err(GiveUp::Refused(Refusal { status: 400, .. })) => Ok(Availability::Available),
            Err(GiveUp::Refused(Refusal { status: 404 | 405, .. })) => Ok(Availability::Missing),
            Err(GiveUp::Refused(Refusal { reason: Reason::MissingScope(scope), .. })) if scope == SCOPE => {
                Ok(Availability::MissingScope)
            }
            Err(GiveUp::Refused(Refusal { status: 402 | 403, detail, .. })) => Ok(Availability::Forbidden(detail)),
            Err(give_up) => Err(give_up),
        }
    }

    /// Starts a run and returns its id.
    ///
    /// # Errors
    /// A [`Failure`]; [`Failure::TooLarge`] when the interval is too long for the server.
    pub async fn start(&self, export: &ExportRequest) -> Result<String, Failure> {
        let mut body = json!({
            "model": export.model,
            "file": {"format": "JSONLines", "compression": "gzip", "max_size_mb": MOST_MEGABYTES},
            "data_interval_start": export.from,
            "data_interval_end": export.to,
        });
        if !export.include.is_empty() {
            body["include"] = json!(export.include);
        }
        if !export.exclude.is_empty() {
            body["exclude"] = json!(export.exclude);
        }
        let path = self.runs();
        let request = Request { method: Method::POST, path: &path, body: Some(&body) };
        match self.client.json::<Started>(Class::General, &request, self.observer).await {
            Ok(started) => self.path(&[&started.id], "").map(|_| started.id),
            Err(Failure::Refused(Refusal { reason: Reason::IntervalTooLong, detail, .. })) => {
                Err(Failure::TooLarge { message: detail })
            }
            Err(failure) => Err(failure),
        }
    }

    /// Cancels a run that will not be read. A run that has ended, or that PostHog does not know, is left
    /// alone.
    ///
    /// # Errors
    /// A [`Failure`], which determines how to go on.
    pub async fn cancel(&self, run: &str) -> Result<(), Failure> {
        let path = self.path(&[run], "cancel/")?;
        let request = Request { method: Method::POST, path: &path, body: Some(&json!({})) };
        match self.client.send(Class::General, &request, self.observer).await {
            Ok(_) | Err(Failure::Refused(Refusal { status: 400 | 404 | 405 | 409 | 410, .. })) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// Asks for the status of a run.
    ///
    /// # Errors
    /// A [`Failure`], which determines how to go on.
    pub async fn status(&self, run: &str) -> Result<RunStatus, Failure> {
        let path = self.path(&[run], "")?;
        let request = Request { method: Method::GET, path: &path, body: None };
        let run: RunResponse = match self.client.json(Class::General, &request, self.observer).await {
            Ok(run) => run,
            Err(Failure::Refused(Refusal { status: 404 | 410, .. })) => return Ok(RunStatus::Unknown),
            Err(failure) => return Err(failure),
        };
        if let Some(files) = &run.files {
            self.path(&files.iter().map(String::as_str).collect::<Vec<_>>(), "")?;
        }
        Ok(match run.status.as_str() {
            "Starting" | "Running" | "ContinuedAsNew" => RunStatus::Preparing(run.status),
            // Between the run's end and the appearance of its files.
            "Completed" if run.files.is_none() => RunStatus::Preparing(run.status),
            "Completed" => RunStatus::Ready { files: run.files.unwrap_or_default().0, rows: run.records_completed },
            "Cancelled" => RunStatus::Cancelled,
            _ => RunStatus::Failed { status: run.status, reason: run.error.unwrap_or_default() },
        })
    }

    /// Whether a run that is reported as running has ended without any files.
    ///
    /// `PostHog` reports such a run as running forever; but a request for its first file is answered with
    /// 404 (no such file) rather than 400 (not ready).
    ///
    /// # Errors
    /// A [`Failure`], which determines how to go on.
    pub async fn has_ended_empty(&self, run: &str) -> Result<bool, Failure> {
        match self.client.location(&self.path(&[run], "download/0/")?, self.observer).await {
            Ok(_) | Err(Failure::Refused(Refusal { status: 400, .. })) => Ok(false),
            Err(Failure::Refused(Refusal { status: 404, .. })) => Ok(true),
            Err(failure) => Err(failure),
        }
    }

    /// Asks where a file is.
    ///
    /// # Errors
    /// A [`Failure`], which determines how to go on.
    pub async fn file(&self, run: &str, file: &str) -> Result<FileUrl, Failure> {
        match self.client.location(&self.path(&[run, "download", file], "")?, self.observer).await {
            Ok(url) => Ok(FileUrl::At(url)),
            Err(Failure::Refused(Refusal { status: 400 | 404 | 410, detail, .. })) => Ok(FileUrl::Gone(detail)),
            Err(failure) => Err(failure),
        }
    }
}
