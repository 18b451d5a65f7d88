//! What a sync has observed.

use super::period::Days;

/// What a sync has observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope {
    /// Days that were observed.
    pub days: Days,
    /// Whether these are all that were asked for.
    pub is_full: bool,
    /// Whether nothing differs in them.
    pub is_complete: bool,
    /// Bytes that the server read for the observation, if it said so.
    pub bytes: Option<u64>,
}
