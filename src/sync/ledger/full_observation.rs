//! The last observation of all days.

use serde::{Deserialize, Serialize};

use super::period::Days;
use crate::time::Timestamp;

/// After so many microseconds arrivals are taken for visible.
pub(super) const SETTLED: i64 = 3 * 24 * 3_600_000_000;

/// The last sync that observed all days that were asked for and ended complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FullObservation {
    /// Its bound.
    pub until: Timestamp,
    pub days: Days,
    /// Bytes that the server read for the observation, if it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}
