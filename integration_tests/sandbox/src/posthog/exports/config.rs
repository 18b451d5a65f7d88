//! How runs go in one test: how long they take, and what becomes of them.

use std::time::Duration;

/// How file download exports behave. What differs between instances of PostHog is in
/// [`ExportServer`](super::ExportServer).
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
    /// How long after that its first file is noted. Until then it is shown as `Running`, although it is
    /// done.
    pub completed_lag: Duration,
    /// How long after each other the files of a run appear.
    pub files_apart: Duration,
    /// How long the link to a file works; for ever if there is none.
    pub url_lifetime: Option<Duration>,
    /// How long a file exists; for ever if there is none.
    pub file_lifetime: Option<Duration>,
    /// Rows per file at most.
    pub rows_per_file: Option<usize>,
    /// Runs that don't end as `Completed`. PostHog tries again without limit, so its runs hardly ever
    /// end in any of these ways; see [`Exports::hanging`].
    pub outcomes: Vec<ExportOutcome>,
    /// Runs that stay `Running` until they are cancelled.
    pub hanging: Vec<HangingRuns>,
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
            rows_per_file: None,
            outcomes: Vec::new(),
            hanging: Vec::new(),
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
    /// `Failed`, `FailedRetryable`, `FailedBilling`, `Terminated` or `TimedOut`.
    pub status: String,
    /// What `error` says.
    pub error: String,
}

/// Runs that hang: all that meet each of the conditions that are set, or every run if none is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HangingRuns {
    /// Only runs over more hours than that, which are too much for one attempt.
    pub over_hours: Option<u32>,
    /// Only these, counted as in [`ExportOutcome::nth`].
    pub nth: Vec<u64>,
    /// Only of these models.
    pub models: Vec<String>,
}

impl HangingRuns {
    pub(super) fn matches(&self, number: u64, model: &str, micros: i64) -> bool {
        self.over_hours.is_none_or(|hours| micros > i64::from(hours) * 3_600_000_000)
            && (self.nth.is_empty() || self.nth.contains(&number))
            && (self.models.is_empty() || self.models.iter().any(|own| own == model))
    }
}
