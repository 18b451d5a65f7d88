//! Requests that are polite and patient: limits, failures, retries.

mod client;
mod failure;
mod gate;
mod retry;

pub use client::{Answer, Client, Request};
pub use failure::{Failure, describe, retry_after};
pub use gate::{Class, Gate, Observer, Silent, Slot};
pub use retry::{Next, Retry};
