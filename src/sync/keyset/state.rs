//! How far a keyset stream has been read, as the state keeps it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::windows::NumberRange;
use crate::sync::state::stream::{FieldsEntry, is_default};
use crate::time::Timestamp;

/// How far a keyset stream of one project has been read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeysetState {
    /// Number of the part under way.
    #[serde(skip_serializing_if = "is_default")]
    pub part: u64,
    /// The window of the part that is under way, if the stream has windows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<NumberRange>,
    /// What the last row that was read is ordered by.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<Value>,
    /// Records of the part or window so far.
    #[serde(skip_serializing_if = "is_default")]
    pub rows: u64,
    /// Value of the cursor field that the last sync has come to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watermark: Option<Value>,
    /// Fingerprint of the query that is read, and of its order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// The last value of the cursor field in this sync that was not ahead of its begin: a row with a
    /// future value must not make later syncs skip the rows before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reached: Option<Value>,
    /// When the sync under way was begun, by the server's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub begun: Option<Timestamp>,
    /// Whether a full refresh has read this project.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub done: bool,
}

impl FieldsEntry for KeysetState {}

impl KeysetState {
    /// Forgets the place in the rows of the part or window under way.
    pub(super) fn rewind(&mut self) {
        (self.after, self.rows) = (Vec::new(), 0);
    }
}
