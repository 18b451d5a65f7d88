//! What has been emitted of a project's events, in figures that `PostHog` can be asked for.
//!
//! A watermark can only be believed; a figure can be compared. The ledger keeps, for each cell (a
//! [`Period`] of event time × a [`Slice`] of ingestion time), a [`Fingerprint`] of the rows that have been
//! emitted. A sync asks `PostHog` for the same figures, reads the cells that differ, and is complete when
//! none does:
//!
//! ```text
//! plan ─► hogql::observation ─► compare ─► (hogql::distinct) ─► decide ─► read ─► Ledger::enter
//!   ▲                                                                                  │
//!   └──────────────── nothing differs: tidy, done; after three rounds: INCOMPLETE ◄────┘
//! ```
//!
//! Values and decisions only: no input or output, no clock. Times are arguments.

mod assumption;
mod by_period;
mod cell;
mod choice;
mod combine;
mod compare;
mod day_set;
mod decide;
mod fold;
mod folded_months;
mod forgotten;
mod full_observation;
pub mod hogql;
#[cfg(test)]
mod model_test;
mod period;
mod plan;
mod reread;
mod rules;
mod scope;
mod slice;
mod state;

use std::collections::BTreeMap;

use crate::records::Fingerprint;
use crate::time::Timestamp;

/// Figures of cells, by the end of their slice and their period.
pub type CellFigures = BTreeMap<Timestamp, BTreeMap<Period, Fingerprint>>;

pub use assumption::{Assumption, FutureState};
pub use cell::{Cell, Figures};
pub use choice::{Choice, ChoiceChange, Names};
pub use compare::{Difference, DifferenceKind, differences, prove};
pub use day_set::DaySet;
pub use decide::{Decision, ROUNDS, decide, has_grown};
pub use fold::{UNFOLDED_DAYS, tidy};
pub use folded_months::FoldedMonths;
pub use forgotten::Forgotten;
pub use full_observation::FullObservation;
pub use hogql::names_condition;
pub use period::{Days, Period};
pub use plan::{BYTES_A_ROW, CHEAP_BYTES, bound, observation};
pub use scope::Scope;
pub use slice::{CellKey, Part, Slice};
pub use state::{Ledger, NarrowedFigures, OpenCell, SortKey};
