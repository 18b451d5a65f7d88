//! Reads a table by queries: scans, windows, pages and the audit.

mod changes;
pub(crate) mod columns;
pub(crate) mod exported;
mod plan;
pub(crate) mod reader;
pub(crate) mod scans;
mod window;
