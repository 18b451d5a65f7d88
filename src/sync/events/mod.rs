//! Reads events by reconciliation: asks PostHog for the figures that the ledger has, and reads what differs.
//!
//! ```text
//! begin ─► figures ─► ledger::{compare, decide} ─► cells ─► windows ─► pages    ─► ledger in the state
//!             ▲                                      └────► export runs ──────────┘       │
//!             └────────────── until nothing differs, three rounds at most ◄──────────────┘
//! ```
//!
//! Queries and exports are two ways to fetch the rows of a cell. Neither is believed: what has been emitted
//! is compared with PostHog's figures afterwards.

mod begin;
mod day_changes;
mod differing;
mod event_days;
mod figures;
mod pages;
mod reconcile;
mod windows;

pub use event_days::{ComparedDays, EventDayReader, EventDaysState, count_days};
pub use reconcile::{EventReader, EventsRead};
