//! PostHog's limits: requests per key, queries at once and bytes read per project, size of one query.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::error::ApiError;

/// What is limited. [`Limits::default`] limits nothing, [`Limits::posthog`] what PostHog Cloud does.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// Requests to `/query/` per key: so many in each sliding window.
    pub query: Vec<(usize, Duration)>,
    /// All other requests per key.
    pub other: Vec<(usize, Duration)>,
    /// Requests to the list of `session_recordings` per key, which don't count among the others. Without
    /// any they do.
    pub recordings: Vec<(usize, Duration)>,
    /// Queries running at once per project.
    pub concurrency: Option<usize>,
    /// How long a query waits for its turn before it is refused.
    pub concurrency_wait: Duration,
    /// Bytes that queries of a project may read.
    pub budget: Option<Budget>,
    /// A query that would return more rows fails with `overload`.
    pub rows_returned: Option<usize>,
    /// A query that has to look at more rows fails with `overload`.
    pub rows_read: Option<usize>,
    /// How a query that is too large fails.
    pub overload: Overload,
    /// Every query takes at least this long.
    pub latency: Duration,
    /// Every other request to the API takes at least this long.
    pub other_latency: Duration,
}

impl Limits {
    /// The limits of PostHog Cloud, except that a query waits 2 s rather than 30 s for its turn.
    pub fn posthog() -> Self {
        let (minute, hour) = (Duration::from_mins(1), Duration::from_hours(1));
        Self {
            query: vec![(240, minute), (2400, hour)],
            other: vec![(480, minute), (4800, hour)],
            recordings: vec![(60, minute), (300, hour)],
            concurrency: Some(3),
            concurrency_wait: Duration::from_secs(2),
            budget: Some(Budget::default()),
            ..Self::default()
        }
    }
}

/// A token bucket of bytes: refilled all the time, empty below zero, in debt for at most an hour.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    /// Refill.
    pub bytes_per_hour: f64,
    /// Where the refill stops.
    pub capacity: f64,
    /// What there is at the start.
    pub start: f64,
}

impl Default for Budget {
    /// PostHog's free plan.
    fn default() -> Self {
        Self { bytes_per_hour: 20e9, capacity: 480e9, start: 480e9 }
    }
}

/// How a query that is too large fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overload {
    /// 504: ran for ten seconds.
    #[default]
    Timeout,
    /// 512: refused by its estimate.
    TooSlow,
    /// 513: out of memory.
    Memory,
}

impl Overload {
    pub(crate) fn error(self) -> ApiError {
        match self {
            Self::Timeout => ApiError::new(
                504,
                "server_error",
                "error",
                "Query has hit the max execution time before completing. See our docs for how to improve your query \
                 performance. You may need to materialize.",
            ),
            Self::TooSlow => ApiError::new(
                512,
                "server_error",
                "estimated_query_execution_time_too_long",
                "Estimated query execution time (42 seconds) is too long. Try reducing its scope by changing the time \
                 range.",
            ),
            Self::Memory => ApiError::new(
                513,
                "server_error",
                "clickhouse_memory_limit_exceeded",
                "This query ran out of memory. Try reducing its scope by changing the time range or selecting fewer \
                 columns.",
            ),
        }
    }
}

/// What a request counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Class {
    Query,
    Other,
    Recordings,
}

/// The counters behind [`Limits`].
#[derive(Debug, Default)]
pub(crate) struct Meter {
    requests: HashMap<(String, Class), VecDeque<Instant>>,
    budgets: HashMap<u64, (f64, Instant)>,
    turns: HashMap<u64, Arc<Semaphore>>,
}

impl Meter {
    /// Counts a request of a key, or says how long the key has to wait. A refused one doesn't count.
    pub(crate) fn admit(&mut self, limits: &Limits, key: &str, class: Class, now: Instant) -> Result<(), ApiError> {
        let (class, windows) = match class {
            Class::Query => (class, &limits.query),
            Class::Recordings if !limits.recordings.is_empty() => (class, &limits.recordings),
            Class::Other | Class::Recordings => (Class::Other, &limits.other),
        };
        let Some(longest) = windows.iter().map(|(_, window)| *window).max() else { return Ok(()) };
        let past = self.requests.entry((key.to_owned(), class)).or_default();
        while past.front().is_some_and(|at| now.duration_since(*at) >= longest) {
            past.pop_front();
        }
        let mut wait = Duration::ZERO;
        for (count, window) in windows {
            // The oldest request that has to leave this window before there is room for another.
            let oldest = past.len().checked_sub(*count).and_then(|index| past.get(index));
            if let Some(at) = oldest {
                wait = wait.max(window.saturating_sub(now.duration_since(*at)));
            }
        }
        if wait > Duration::ZERO {
            let seconds = ceiling(wait.as_secs_f64());
            let plural = if seconds == 1 { "" } else { "s" };
            let detail = format!("Request was throttled. Expected available in {seconds} second{plural}.");
            return Err(throttled("throttled", detail).header("retry-after", seconds.to_string()));
        }
        past.push_back(now);
        Ok(())
    }

    /// Where the queries of a project line up.
    pub(crate) fn turns(&mut self, limits: &Limits, project: u64) -> Option<Arc<Semaphore>> {
        let width = limits.concurrency?;
        Some(Arc::clone(self.turns.entry(project).or_insert_with(|| Arc::new(Semaphore::new(width)))))
    }

    fn balance(&mut self, budget: Budget, project: u64, now: Instant) -> f64 {
        let (value, at) = self.budgets.get(&project).copied().unwrap_or((budget.start, now));
        let refill = now.duration_since(at).as_secs_f64() * budget.bytes_per_hour / 3600.0;
        let value = (value + refill).min(budget.capacity);
        self.budgets.insert(project, (value, now));
        value
    }

    /// Whether the project has anything left to read.
    pub(crate) fn check_budget(&mut self, budget: Budget, project: u64, now: Instant) -> Result<(), ApiError> {
        let value = self.balance(budget, project, now);
        if value > 0.0 {
            return Ok(());
        }
        let seconds = (ceiling(-value / budget.bytes_per_hour * 3600.0) + 1).min(3600);
        let detail = format!(
            "API query budget exceeded: this project has read too much data through the query API. Expected available \
             in {seconds} seconds."
        );
        Err(throttled("api_queries_budget_exceeded", detail).header("retry-after", seconds.to_string()))
    }

    /// Takes what a query read and returns what remains.
    pub(crate) fn debit(&mut self, budget: Budget, project: u64, bytes: u64, now: Instant) -> u64 {
        #[expect(clippy::cast_precision_loss, reason = "a budget isn't exact to the byte")]
        let value = (self.balance(budget, project, now) - bytes as f64).max(-budget.bytes_per_hour);
        self.budgets.insert(project, (value, now));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and capped")]
        let left = value.max(0.0) as u64;
        left
    }
}

/// Waits for a turn; PostHog answers without `Retry-After` when none comes.
pub(crate) async fn take_turn(turns: Arc<Semaphore>, wait: Duration) -> Result<OwnedSemaphorePermit, ApiError> {
    let busy =
        || throttled("throttled", "Too many queries are running right now — please try again in a moment.".to_owned());
    tokio::time::timeout(wait, turns.acquire_owned()).await.map_err(|_| busy())?.map_err(|_| busy())
}

fn throttled(code: &str, detail: String) -> ApiError {
    ApiError::new(429, "throttled_error", code, detail)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive number of seconds")]
fn ceiling(seconds: f64) -> u64 {
    seconds.ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_slides() {
        let limits = Limits { query: vec![(2, Duration::from_secs(10))], ..Limits::default() };
        let (mut meter, start) = (Meter::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(meter.admit(&limits, "a", Class::Query, at(0)).is_ok());
        assert!(meter.admit(&limits, "a", Class::Query, at(4)).is_ok());
        let refused = meter.admit(&limits, "a", Class::Query, at(5)).unwrap_err();
        assert_eq!((refused.status, refused.headers), (429, vec![("retry-after", "5".to_owned())]));
        assert!(meter.admit(&limits, "b", Class::Query, at(5)).is_ok(), "another key has its own window");
        assert!(meter.admit(&limits, "a", Class::Other, at(5)).is_ok(), "other requests aren't limited here");
        assert!(meter.admit(&limits, "a", Class::Query, at(10)).is_ok());
        assert_eq!(meter.admit(&limits, "a", Class::Query, at(11)).unwrap_err().headers[0].1, "3");
    }

    #[test]
    fn a_budget_empties_and_fills() {
        let budget = Budget { bytes_per_hour: 3600.0, capacity: 1000.0, start: 500.0 };
        let (mut meter, start) = (Meter::default(), Instant::now());
        assert!(meter.check_budget(budget, 1, start).is_ok());
        assert_eq!(meter.debit(budget, 1, 600, start), 0);
        let refused = meter.check_budget(budget, 1, start).unwrap_err();
        assert_eq!((refused.code.as_str(), refused.headers[0].1.as_str()), ("api_queries_budget_exceeded", "101"));
        assert!(meter.check_budget(budget, 2, start).is_ok(), "another project has its own budget");
        assert!(meter.check_budget(budget, 1, start + Duration::from_secs(101)).is_ok());
        assert_eq!(meter.debit(budget, 1, 0, start + Duration::from_hours(3)), 1000, "filled to the brim");
    }

    #[tokio::test]
    async fn query_beyond_the_concurrency_limit_is_rejected_after_its_wait() {
        let (mut meter, limits) = (Meter::default(), Limits { concurrency: Some(1), ..Limits::default() });
        let turns = meter.turns(&limits, 1).unwrap();
        let first = take_turn(Arc::clone(&turns), Duration::ZERO).await.unwrap();
        let refused = take_turn(Arc::clone(&turns), Duration::from_millis(1)).await.unwrap_err();
        assert_eq!((refused.status, refused.headers.len()), (429, 0));
        drop(first);
        assert!(take_turn(turns, Duration::ZERO).await.is_ok());
    }
}
