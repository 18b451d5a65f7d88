//! A stand-in for PostHog.
