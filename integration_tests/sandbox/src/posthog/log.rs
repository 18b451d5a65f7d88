//! What was asked and what was answered.

use chrono::{DateTime, Utc};
use tokio::time::Instant;

#[derive(Debug, Clone)]
pub struct RequestLog {
    id: u64,
    /// When it came.
    pub at: DateTime<Utc>,
    /// The same by the clock of the runtime, which a test may stop and turn.
    pub instant: Instant,
    /// HTTP method.
    pub method: String,
    /// Path with its query string.
    pub path: String,
    /// Whether there was an `Authorization` header.
    pub authorized: bool,
    /// Whether an answer in zstd would be taken.
    pub accepts_zstd: bool,
    /// HogQL as it was sent, with its placeholders.
    pub sql: Option<String>,
    /// Status of the answer; `None` while it is awaited, and if the connection was reset instead.
    pub status: Option<u16>,
    /// Name of the fault that was applied, as [`Action::name`](super::faults::Action::name) gives it.
    pub fault: Option<&'static str>,
    /// Rows in the answer of a query.
    pub rows: Option<usize>,
    /// Bytes a query read by the sandbox's estimate.
    pub bytes_read: Option<u64>,
    /// Length of the body that was (to be) sent.
    pub bytes_sent: usize,
}

/// Sums over all requests since the last `clear_requests`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    pub requests: u64,
    /// Requests that were in work at the same time, at most.
    pub peak_requests: usize,
    /// Queries of all projects that ran, or waited for their turn, at the same time, at most.
    pub peak_queries: usize,
    /// Rows returned by queries.
    pub rows: usize,
    /// Bytes read by queries.
    pub bytes_read: u64,
}

/// The log and its counters.
#[derive(Debug, Default)]
pub(crate) struct Log {
    next: u64,
    active: usize,
    queries: usize,
    pub(crate) stats: Stats,
    pub(crate) requests: Vec<RequestLog>,
}

impl Log {
    pub(crate) fn begin(&mut self, method: &str, path: &str, sql: Option<String>) -> u64 {
        self.next += 1;
        self.active += 1;
        self.stats.requests += 1;
        self.stats.peak_requests = self.stats.peak_requests.max(self.active);
        self.requests.push(RequestLog {
            id: self.next,
            at: Utc::now(),
            instant: Instant::now(),
            method: method.to_owned(),
            path: path.to_owned(),
            authorized: false,
            accepts_zstd: false,
            sql,
            status: None,
            fault: None,
            rows: None,
            bytes_read: None,
            bytes_sent: 0,
        });
        self.next
    }

    pub(crate) fn end(&mut self) {
        self.active = self.active.saturating_sub(1);
    }

    pub(crate) fn query_begins(&mut self) {
        self.queries += 1;
        self.stats.peak_queries = self.stats.peak_queries.max(self.queries);
    }

    pub(crate) fn query_ends(&mut self) {
        self.queries = self.queries.saturating_sub(1);
    }

    /// Changes the entry of a request, unless it has been cleared.
    pub(crate) fn note(&mut self, id: u64, change: impl FnOnce(&mut RequestLog)) {
        if let Some(entry) = self.requests.iter_mut().rev().find(|entry| entry.id == id) {
            change(entry);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.requests.clear();
        self.stats = Stats::default();
    }
}
