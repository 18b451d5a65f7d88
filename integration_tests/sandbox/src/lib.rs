//! Stand-ins for the two services that the connectors talk to.
//!
//! [`posthog`] behaves like PostHog's private API and capture endpoints, [`patterns`] like a
//! Patterns webhook node. Both listen on loopback, keep state, enforce limits and break on request.
//! [`network`] puts encryption or a proxy in front of them.

pub mod network;
pub mod patterns;
pub mod posthog;
