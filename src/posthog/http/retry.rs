//! How often and after which waits something is tried again.
//!
//! The policy belongs to a piece of progress (a window, a list), not to a request: a body that is
//! cut after some rows has brought those rows, so the count starts again.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;

use super::failure::Failure;
use super::rate_limit::RateLimiter;
use super::refusal::Refusal;
use crate::error::Error;

const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// A limit that stays used up for this long without any progress is not a matter of waiting.
pub(crate) const LONGEST_THROTTLING: Duration = Duration::from_hours(4);
/// Gateway time-outs in a row after which the query is taken to be too large.
const GATEWAY_PATIENCE: u32 = 2;

/// Counts failures since the last progress.
pub struct Retry {
    waits: ExponentialBackoff,
    attempts: usize,
    most: usize,
    gateway_timeouts: u32,
    throttled_since: Option<Instant>,
}

/// Why no more attempts are made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum GiveUp {
    /// Neither waiting nor `PostHog` can help.
    #[error("{0}")]
    Fatal(Error),
    /// The server has refused the request for good.
    #[error("{0}")]
    Refused(Refusal),
    /// The server cannot answer in time, and nothing smaller can be asked for.
    #[error("{message}")]
    TooLarge {
        /// The server's words.
        message: String,
    },
    /// Every attempt has failed.
    #[error("{attempts} attempts failed, the last with: {last}")]
    Attempts {
        /// How many.
        attempts: usize,
        /// What the last one ended with.
        last: String,
    },
    /// A limit has been used up for longer than anybody should wait.
    #[error("{message}")]
    Limits {
        /// The server's words.
        message: String,
    },
    /// The response makes no sense.
    #[error("{0}")]
    Unusable(String),
}

impl From<Error> for GiveUp {
    fn from(error: Error) -> Self {
        Self::Fatal(error)
    }
}

/// What to do after a failure that is not final.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextAttempt {
    /// Ask for the same again.
    Same,
    /// Ask for less.
    Smaller,
}

impl Retry {
    /// Gives up after `most` attempts in a row without progress.
    pub fn with_attempts(most: usize) -> Self {
        Self { waits: waits(), attempts: 0, most, gateway_timeouts: 0, throttled_since: None }
    }

    /// Something has been achieved: failures before it no longer count.
    pub fn progress(&mut self) {
        if self.attempts > 0 || self.throttled_since.is_some() {
            *self = Self::with_attempts(self.most);
        }
        self.gateway_timeouts = 0;
    }

    /// Waits as the failure demands and returns how to go on.
    ///
    /// # Errors
    /// When the failure is final, or has happened too often.
    pub async fn after(&mut self, failure: Failure, limiter: &RateLimiter) -> Result<NextAttempt, GiveUp> {
        // A refusal can be what the caller has asked for, and ends the request in any case.
        if !matches!(failure, Failure::Fatal(_) | Failure::Refused(_)) {
            limiter.failed(failure.to_string());
        }
        let (message, asks_for_less) = match failure {
            Failure::Fatal(error) => return Err(GiveUp::Fatal(error)),
            Failure::Refused(refusal) => return Err(GiveUp::Refused(refusal)),
            Failure::TooLarge { message } => {
                tracing::info!("PostHog finds the query too large, asking for less: {message}");
                return Ok(NextAttempt::Smaller);
            }
            Failure::Throttled { class, pause, message } => {
                let since = *self.throttled_since.get_or_insert_with(Instant::now);
                if since.elapsed() > LONGEST_THROTTLING {
                    return Err(GiveUp::Limits { message });
                }
                let wait = pause.unwrap_or_else(|| self.next_wait());
                limiter.pause(class, wait, &message);
                return Ok(NextAttempt::Same);
            }
            Failure::Transient { message, perhaps_too_large } => {
                self.gateway_timeouts += u32::from(perhaps_too_large);
                (message, perhaps_too_large && self.gateway_timeouts >= GATEWAY_PATIENCE)
            }
        };
        // Asking for less is an attempt as well: a gateway without a server behind it never gets better.
        self.attempts += 1;
        if self.attempts >= self.most {
            return Err(GiveUp::Attempts { attempts: self.attempts, last: message });
        }
        if asks_for_less {
            tracing::info!("a gateway in front of PostHog gave up repeatedly, asking for less: {message}");
            return Ok(NextAttempt::Smaller);
        }
        let wait = self.next_wait();
        tracing::info!(
            "attempt {} of {} failed, retrying in {:.1} s: {message}",
            self.attempts,
            self.most,
            wait.as_secs_f64()
        );
        tokio::time::sleep(wait).await;
        Ok(NextAttempt::Same)
    }

    /// Repeats `request` until it succeeds.
    ///
    /// # Errors
    /// When the failure is final, has happened too often, or asks for something smaller.
    pub async fn run<T, F>(mut self, limiter: &RateLimiter, request: impl Fn() -> F) -> Result<T, GiveUp>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        loop {
            let failure = match request().await {
                Ok(value) => return Ok(value),
                Err(failure) => failure,
            };
            let message = failure.to_string();
            match self.after(failure, limiter).await? {
                NextAttempt::Same => {}
                NextAttempt::Smaller => return Err(GiveUp::TooLarge { message }),
            }
        }
    }

    fn next_wait(&mut self) -> Duration {
        self.waits.next().unwrap_or(LONGEST_WAIT)
    }
}

fn waits() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(FIRST_WAIT)
        .with_max_delay(LONGEST_WAIT)
        .without_max_times()
        .with_jitter()
        .build()
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderMap;

    use super::*;
    use crate::posthog::http::rate_limit::Class;

    fn limiter() -> RateLimiter {
        RateLimiter::new(1, 1.0)
    }

    #[tokio::test(start_paused = true)]
    async fn retry_gives_up_after_some_attempts_without_progress() {
        let mut retry = Retry::with_attempts(3);
        for round in 0..5 {
            assert_eq!(
                retry.after(Failure::transient("cut"), &limiter()).await.unwrap(),
                NextAttempt::Same,
                "round {round}"
            );
            assert_eq!(retry.after(Failure::transient("cut"), &limiter()).await.unwrap(), NextAttempt::Same);
            retry.progress();
        }
        retry.after(Failure::transient("cut"), &limiter()).await.unwrap();
        retry.after(Failure::transient("cut"), &limiter()).await.unwrap();
        let error = retry.after(Failure::transient("the last straw"), &limiter()).await.unwrap_err();
        assert!(error.to_string().contains("the last straw"));
    }

    #[tokio::test(start_paused = true)]
    async fn throttling_is_waited_for_and_does_not_count_as_an_attempt() {
        let (mut retry, limiter) = (Retry::with_attempts(2), limiter());
        for _ in 0..20 {
            let failure = Failure::Throttled {
                class: Class::Query(1),
                pause: Some(Duration::from_secs(30)),
                message: "slow down".into(),
            };
            assert_eq!(retry.after(failure, &limiter).await.unwrap(), NextAttempt::Same);
        }
        let begin = Instant::now();
        drop(limiter.acquire(Class::Query(1), &super::super::rate_limit::Silent).await);
        assert_eq!(begin.elapsed().as_secs(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_is_tried_again_is_the_last_failure() {
        let (mut retry, limiter) = (Retry::with_attempts(5), limiter());
        let refusal = || {
            let body = br#"{"type":"validation_error","code":"required","detail":"This field is required."}"#;
            let status = reqwest::StatusCode::BAD_REQUEST;
            Failure::from_response(status, &HeaderMap::new(), body, "/", Class::General, Duration::ZERO)
        };
        assert!(matches!(retry.after(refusal(), &limiter).await, Err(GiveUp::Refused(_))));
        assert_eq!(limiter.last_failure(), None);
        retry.after(Failure::transient("cut"), &limiter).await.unwrap();
        assert!(retry.after(refusal(), &limiter).await.is_err());
        assert_eq!(limiter.last_failure().as_deref(), Some("cut"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_gateway_timeout_asks_for_less() {
        let mut retry = Retry::with_attempts(5);
        let timeout = || Failure::Transient { message: "524".into(), perhaps_too_large: true };
        assert_eq!(retry.after(timeout(), &limiter()).await.unwrap(), NextAttempt::Same);
        assert_eq!(retry.after(timeout(), &limiter()).await.unwrap(), NextAttempt::Smaller);
    }

    #[tokio::test(start_paused = true)]
    async fn a_gateway_that_stays_down_ends_with_its_words_after_all_attempts() {
        let mut retry = Retry::with_attempts(10);
        let mut smaller = 0;
        let give_up = loop {
            let timeout = Failure::Transient { message: "524 A timeout occurred".into(), perhaps_too_large: true };
            match retry.after(timeout, &limiter()).await {
                Ok(next) => smaller += u32::from(next == NextAttempt::Smaller),
                Err(give_up) => break give_up,
            }
        };
        assert_eq!(smaller, 8);
        assert_eq!(give_up.to_string(), "10 attempts failed, the last with: 524 A timeout occurred");
    }
}
