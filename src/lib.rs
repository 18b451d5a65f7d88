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

pub mod config;
pub mod destination;
pub mod error;
mod help;
mod net;
pub mod posthog;
pub mod program;
pub mod progress;
pub mod protocol;
pub mod records;
pub mod secret;
pub mod source;
pub mod streams;
pub mod sync;
pub mod time;
