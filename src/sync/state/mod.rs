//! What the states of streams hold, and how they are kept and emitted.

mod airbyte;
pub(crate) mod checkpoint;
pub(crate) mod day_counts;
pub(crate) mod error;
pub(crate) mod export;
pub(crate) mod interval;
pub(crate) mod person_figures;
pub(crate) mod read_ahead;
pub(crate) mod scan;
pub(crate) mod stream;
pub(crate) mod table;
