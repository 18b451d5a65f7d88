//! Stand-ins for the two services that the connectors talk to.
//!
//! [`posthog`] behaves like PostHog's private API and capture endpoints, [`patterns`] like a
//! Patterns webhook node. Both listen on loopback, keep state, enforce limits and break on request.

pub mod patterns;
pub mod posthog;
