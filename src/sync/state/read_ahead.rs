//! Rows that have been emitted although PostHog received them after the bound of their sync.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// Rows that a sync has emitted ahead of its bound. The next sync finds them in its cells, and leaves them out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadAhead {
    /// All of them were received from then on,
    pub from: Timestamp,
    /// and before.
    pub until: Timestamp,
    /// Their numbers.
    pub rows: BTreeSet<u64>,
}
