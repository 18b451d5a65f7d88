//! Requests that are polite and patient: limits, failures, retries.

mod body;
mod client;
mod connection;
mod failure;
mod files;
mod gate;
mod redirection;
mod retry;

pub(crate) use client::BYTES_READ;
pub use client::{Answer, Client, Refusal, Request};
pub use connection::{client_builder, misconnection, proxy_refusal, remember_proxy_passwords, unprepared};
pub use failure::{Failure, describe, retry_after};
pub use files::{FileAnswer, FileClient};
pub use gate::{Class, Gate, Observer, Silent, Slot};
pub use retry::{Next, Retry};
