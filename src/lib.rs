//! Airbyte connectors that move `PostHog` data without losing any of it silently.
//!
//! Two programs are built from this library: `source-posthog`, which reads events, persons and
//! projects from `PostHog`, and `destination-patterns`, which delivers records to a Patterns webhook.
//!
//! ```text
//! config ─► plan (projects × windows) ─► window tasks (bounded) ─► bounded channel ─► writer (owns stdout)
//! ```

pub mod config;
pub mod connector;
pub mod error;
mod help;
pub mod http;
pub mod patterns;
pub mod posthog;
pub mod program;
pub mod progress;
pub mod protocol;
pub mod streams;
pub mod sync;
pub mod time;
