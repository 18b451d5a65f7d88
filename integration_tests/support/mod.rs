//! Runs the built programs and reads what they print.

pub(crate) mod messages;
pub(crate) mod program;
pub(crate) mod shell;
pub(crate) mod sources;
pub(crate) mod world;
