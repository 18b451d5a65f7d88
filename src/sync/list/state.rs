//! How far a list has been read, as the state keeps it.

use serde::{Deserialize, Serialize};

use super::checksums::Checksums;
use crate::sync::state::stream::{FieldsEntry, is_default};
use crate::time::Timestamp;

/// How far a list of one project has been read.
///
/// It holds no offset: objects that are deleted between two syncs would shift what comes after it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListState {
    /// Everything that changed before this has been read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watermark: Option<Timestamp>,
    /// Of a list that begins with the start date, the start date of what has been read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// The watermark when the reading under way is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// The start date of the reading under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<Timestamp>,
    /// Number of the pass, or of the span of time, under way.
    #[serde(skip_serializing_if = "is_default")]
    pub pass: usize,
    /// Of the span of time under way, everything that begins before this has been read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reached: Option<Timestamp>,
    /// Objects that have been emitted and that the next sync meets again.
    #[serde(skip_serializing_if = "Checksums::is_empty")]
    pub sent: Checksums,
    /// Whether a full refresh has read this project.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub done: bool,
}

impl FieldsEntry for ListState {}
