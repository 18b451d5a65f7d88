//! File download batch exports: runs that leave compressed files on another host.
//!
//! [`Exports`] says how they behave; without it the feature is missing, as it is on PostHog for those
//! who don't have it. [`ExportServer`] is what the instance adds to it. A run starts, runs for a while and
//! then reads its rows, so that what was taken in meanwhile is in its files. `api` answers on PostHog's
//! paths, `host` is where the files are fetched.

mod api;
mod behaviour;
mod config;
mod files;
mod host;
mod request;
mod rows;
mod run;
mod session_rows;

use std::collections::HashMap;
use std::net::SocketAddr;

use uuid::Uuid;

pub(crate) use api::answer;
pub use behaviour::{ExportServer, InstantFormat, Offset, RecordsCompleted, SessionFields};
pub use config::{ExportOutcome, Exports, HangingRuns};
pub(crate) use host::{Signed, back, serve};
pub use run::ExportRun;
use run::Run;

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
    /// Where links lead instead of to the host itself.
    pub(crate) root: Option<String>,
    /// Requests to start a run, failed ones too.
    started: u64,
    runs: Vec<Run>,
    /// Runs of a project that were under way at the same time, at most.
    pub(crate) most_active: usize,
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
            root: None,
            started: 0,
            runs: Vec::new(),
            most_active: 0,
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
        self.runs.iter_mut().for_each(Run::expire_files);
    }

    fn run(&mut self, id: Uuid) -> Option<&mut Run> {
        self.runs.iter_mut().find(|run| run.id == id)
    }
}
