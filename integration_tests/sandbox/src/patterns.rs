//! A stand-in for a Patterns webhook.
