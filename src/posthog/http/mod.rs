//! HTTP client for one `PostHog` instance: rate limits, error classification, retries, downloads.

mod client;
mod clock;
mod download;
mod failure;
mod rate_limit;
mod redirect;
mod refusal;
mod retry;

pub(crate) use client::BYTES_READ;
pub use client::{Client, Request, Response};
pub use download::{FileClient, FileResponse};
pub use failure::Failure;
pub use rate_limit::{Class, Observer, Permit, RateLimiter, Silent};
pub use refusal::{Reason, Refusal};
pub(crate) use retry::LONGEST_THROTTLING;
pub use retry::{GiveUp, NextAttempt, Retry};
