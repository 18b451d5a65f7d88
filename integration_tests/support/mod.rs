//! Runs the built programs and reads what they print.

pub(crate) mod authority;
pub(crate) mod child;
pub(crate) mod destination;
pub(crate) mod messages;
pub(crate) mod modules;
pub(crate) mod program;
pub(crate) mod secrets;
pub(crate) mod shell;
pub(crate) mod sources;
pub(crate) mod terminal;
pub(crate) mod turned_clock;
pub(crate) mod world;
