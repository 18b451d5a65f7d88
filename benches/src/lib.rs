//! Measures the built programs.
//!
//! The server keeps rendered answers in memory, so that what is measured is the program that reads
//! them; the driver runs every subject as a process of its own, next to the plainest program that
//! moves the same bytes. Figures are ratios between neighbours in one run: machines differ, and so
//! does what else they do.

pub mod airbyte;
pub mod concurrency;
pub mod costs;
pub mod drain;
pub mod events;
pub mod http;
pub mod machine;
pub mod measure;
pub mod pace;
pub mod planning;
pub mod plot;
pub mod programs;
pub mod report;
pub mod results;
pub mod server;
pub mod targets;
pub mod throughput;
