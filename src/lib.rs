//! Airbyte connectors that move `PostHog` data without losing any of it silently.
//!
//! Two programs are built from this library: `source-posthog` ([`source`]), which reads what
//! `PostHog` holds, and `destination-patterns` ([`destination`]), which delivers records to a
//! webhook.
//!
//! ```text
//! source ─► sync ─► records ─► streams ─► posthog ─► protocol, config ─► net, secret, error, time
//! destination ─────────────────────────────────────► protocol, config ─► net, secret, error, time
//! ```
//!
//! A module imports only what stands to the right of it.

// Here and not for the workspace: only this crate has an interface that others build on.
#![warn(missing_docs)]

pub mod destination;
pub mod error;
pub mod program;
pub mod source;

// The inside, which tests, benchmarks and fuzz targets reach, too: no part of the public interface.
mod completions;
#[doc(hidden)]
pub mod config;
mod help;
mod input_file;
mod json_text;
mod large;
mod lock;
mod net;
mod plain;
#[doc(hidden)]
pub mod posthog;
#[doc(hidden)]
pub mod progress;
#[doc(hidden)]
pub mod protocol;
mod readings;
#[doc(hidden)]
pub mod records;
mod secret;
#[doc(hidden)]
pub mod streams;
#[doc(hidden)]
pub mod sync;
#[doc(hidden)]
pub mod time;
