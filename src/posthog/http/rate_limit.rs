//! Limits all requests: how many run in parallel, how many in a minute and an hour, and none while a
//! limit is used up.
//!
//! `PostHog` counts requests in sliding windows per key, runs three queries of a project at a time,
//! and has a byte budget per project (`rate_limit.py`, `api_queries_budget.py`). The limiter stays
//! below the request limits by itself; any other response with 429 pauses all requests of its class,
//! because the limits are shared. Places are given in the order in which they are asked for, so no stream
//! waits for ever.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::lock::lock;

/// Shorter waits are not reported.
const WORTH_MENTIONING: Duration = Duration::from_secs(3);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
/// So many other requests run at a time for each query that may.
const OTHERS_PER_QUERY: usize = 2;
/// Queries of all projects at a time: the rows of each that is being read take some megabytes.
const MOST_QUERIES: usize = 9;

/// The classes of requests that `PostHog` counts apart, with requests per minute and per hour. A limit
/// that is used up pauses its own class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// `POST /query/` of a project: 240 a minute, 2,400 an hour over all projects.
    Query(u64),
    /// Everything else that this connector uses: 480 a minute, 4,800 an hour.
    General,
    /// The list of session recordings, which has a throttle of its own besides.
    Recordings,
}

/// Is notified of waits, to report them to the user.
pub trait Observer: Send + Sync {
    /// Requests wait until `until`, because of `reason`.
    fn waiting(&self, reason: &str, until: DateTime<Utc>);
}

/// Reports nothing.
pub struct Silent;

impl Observer for Silent {
    fn waiting(&self, _: &str, _: DateTime<Utc>) {}
}

/// Admits requests. Shared by all tasks of a process.
pub struct RateLimiter {
    /// Queries at a time in one project.
    concurrency: usize,
    queries_by_project: Mutex<HashMap<u64, Arc<Semaphore>>>,
    queries: Arc<Semaphore>,
    others: Arc<Semaphore>,
    counters: Mutex<Counters>,
    /// What the last request that failed and was sent again ended with.
    last_failure: Mutex<Option<String>>,
}

struct Counters {
    query: [RequestWindow; 2],
    general: [RequestWindow; 2],
    /// Until when, and why, by class.
    paused: [Option<(Instant, String)>; 3],
}

/// Keeps a request's place until it is dropped.
pub struct Permit {
    _permits: [Option<OwnedSemaphorePermit>; 2],
}

impl RateLimiter {
    /// A limiter for `concurrency` parallel queries of each project that uses `share` (above 0, up to 1) of the
    /// limits.
    pub fn new(concurrency: usize, share: f64) -> Self {
        let window = |count: u32, length| RequestWindow::new(part(count, share), length);
        Self {
            concurrency,
            queries_by_project: Mutex::default(),
            queries: Arc::new(Semaphore::new(MOST_QUERIES.max(concurrency))),
            others: Arc::new(Semaphore::new(concurrency * OTHERS_PER_QUERY)),
            counters: Mutex::new(Counters {
                query: [window(240, MINUTE), window(2_400, HOUR)],
                general: [window(480, MINUTE), window(4_800, HOUR)],
                paused: [None, None, None],
            }),
            last_failure: Mutex::default(),
        }
    }

    /// Waits until a request of this class may be sent, and counts it.
    pub async fn acquire(&self, class: Class, observer: &dyn Observer) -> Permit {
        loop {
            self.wait(class, observer).await;
            // Only after the wait, so that requests waiting for a limit do not hold places that others could
            // use.
            let permit = Permit { _permits: self.places(class).await };
            let mut counters = self.counters();
            if counters.wait(class).is_none() {
                counters.count(class);
                return permit;
            }
        }
    }

    /// Waits for a place among the requests that run. The semaphores are never closed, so that none is missing.
    async fn places(&self, class: Class) -> [Option<OwnedSemaphorePermit>; 2] {
        let Class::Query(project) = class else {
            return [Arc::clone(&self.others).acquire_owned().await.ok(), None];
        };
        let of_project = {
            let mut projects = lock(&self.queries_by_project);
            Arc::clone(projects.entry(project).or_insert_with(|| Arc::new(Semaphore::new(self.concurrency))))
        };
        // In this order, a project that waits for a place of its own holds none that others could use.
        let own = of_project.acquire_owned().await.ok();
        [own, Arc::clone(&self.queries).acquire_owned().await.ok()]
    }

    /// Waits until the limits have room for a request of this class.
    async fn wait(&self, class: Class, observer: &dyn Observer) {
        loop {
            let Some((wait, reason)) = self.counters().wait(class) else { return };
            if wait >= WORTH_MENTIONING {
                let until = Utc::now() + wait;
                tracing::info!("waiting {} s: {reason}", wait.as_secs());
                observer.waiting(&reason, until);
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Holds the requests of a class back for `wait`, unless they are held back longer already.
    pub fn pause(&self, class: Class, wait: Duration, reason: &str) {
        let until = Instant::now() + wait;
        let mut counters = self.counters();
        let paused = counters.paused(class);
        if paused.as_ref().is_none_or(|(known, _)| *known < until) {
            *paused = Some((until, reason.to_owned()));
        }
    }

    /// A request has failed, and will be sent again.
    pub(super) fn failed(&self, message: String) {
        *lock(&self.last_failure) = Some(message);
    }

    /// What the last request that failed and was sent again ended with, if there was one.
    pub fn last_failure(&self) -> Option<String> {
        lock(&self.last_failure).clone()
    }

    /// Queries and other requests of the last hour.
    pub fn sent(&self) -> (usize, usize) {
        let counters = self.counters();
        let most = |windows: &[RequestWindow; 2]| windows.iter().map(|window| window.sent.len()).max();
        (most(&counters.query).unwrap_or_default(), most(&counters.general).unwrap_or_default())
    }

    fn counters(&self) -> std::sync::MutexGuard<'_, Counters> {
        lock(&self.counters)
    }
}

impl Counters {
    fn paused(&mut self, class: Class) -> &mut Option<(Instant, String)> {
        let [query, general, recordings] = &mut self.paused;
        match class {
            Class::Query(_) => query,
            Class::General => general,
            Class::Recordings => recordings,
        }
    }

    fn windows(&mut self, class: Class) -> &mut [RequestWindow; 2] {
        match class {
            Class::Query(_) => &mut self.query,
            Class::General | Class::Recordings => &mut self.general,
        }
    }

    /// How long a request has to wait, and why, if it cannot be sent now.
    fn wait(&mut self, class: Class) -> Option<(Duration, String)> {
        let now = Instant::now();
        let paused = self.paused(class);
        if let Some((until, reason)) = paused {
            if *until > now {
                return Some((*until - now, reason.clone()));
            }
            *paused = None;
        }
        let wait = self.windows(class).iter_mut().filter_map(|window| window.wait(now)).max()?;
        Some((wait, "the configured share of PostHog's request limit is used up".to_owned()))
    }

    fn count(&mut self, class: Class) {
        let now = Instant::now();
        for window in self.windows(class) {
            window.sent.push_back(now);
        }
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a small positive number")]
fn part(count: u32, share: f64) -> usize {
    (f64::from(count) * share).floor().max(1.0) as usize
}

/// A sliding window of requests.
struct RequestWindow {
    most: usize,
    length: Duration,
    sent: VecDeque<Instant>,
}

impl RequestWindow {
    fn new(most: usize, length: Duration) -> Self {
        Self { most, length, sent: VecDeque::new() }
    }

    /// How long until one more request fits, if it does not now.
    fn wait(&mut self, now: Instant) -> Option<Duration> {
        while self.sent.front().is_some_and(|sent| now.duration_since(*sent) >= self.length) {
            self.sent.pop_front();
        }
        if self.sent.len() < self.most {
            return None;
        }
        self.sent.front().map(|oldest| self.length.saturating_sub(now.duration_since(*oldest)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn requests_stay_within_the_limits_of_minute_and_hour() {
        let limiter = RateLimiter::new(3, 0.5);
        let begin = Instant::now();
        let mut sent = Vec::new();
        for _ in 0..1_300 {
            let _permit = limiter.acquire(Class::Query(1), &Silent).await;
            sent.push(begin.elapsed());
        }
        for (length, most) in [(MINUTE, 120), (HOUR, 1_200)] {
            for (index, first) in sent.iter().enumerate() {
                let inside = sent[index..].iter().take_while(|later| later.saturating_sub(*first) < length).count();
                assert!(inside <= most, "{inside} requests within {length:?}");
            }
        }
        assert!(*sent.last().unwrap() >= HOUR);
    }

    #[tokio::test(start_paused = true)]
    async fn pause_holds_back_its_class_only() {
        let limiter = RateLimiter::new(1, 1.0);
        limiter.pause(Class::General, Duration::from_secs(40), "because");
        limiter.pause(Class::General, Duration::from_secs(10), "shorter");
        let begin = Instant::now();
        let general = limiter.acquire(Class::General, &Silent);
        let query = async { drop(limiter.acquire(Class::Query(1), &Silent).await) };
        tokio::select! {
            biased;
            _ = general => panic!("the pause does not hold"),
            () = query => assert!(begin.elapsed().is_zero()),
        }
        let _first = limiter.acquire(Class::General, &Silent).await;
        assert_eq!(begin.elapsed().as_secs(), 40);
    }

    #[tokio::test(start_paused = true)]
    async fn slots_bound_the_requests_at_a_time() {
        let limiter = Arc::new(RateLimiter::new(1, 1.0));
        let first = limiter.acquire(Class::Query(1), &Silent).await;
        let second = tokio::spawn({
            let limiter = Arc::clone(&limiter);
            async move {
                let _permit = limiter.acquire(Class::Query(1), &Silent).await;
            }
        });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        // Neither another project nor another kind of request waits for it.
        drop(limiter.acquire(Class::Query(2), &Silent).await);
        drop(limiter.acquire(Class::General, &Silent).await);
        drop(first);
        second.await.unwrap();
    }
}
