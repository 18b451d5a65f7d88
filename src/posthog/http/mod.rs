//! HTTP client for one `PostHog` instance: rate limits, error classification, retries, downloads.

mod client;
mod download;
mod failure;
mod rate_limit;
mod redirect;
mod retry;

pub(crate) use client::BYTES_READ;
pub use client::{Answer, Client, Refusal, Request};
pub use download::{FileAnswer, FileClient};
pub use failure::Failure;
pub use rate_limit::{Class, Gate, Observer, Silent, Slot};
pub use retry::{Next, Retry};
