//! How far a list has been read, as the state keeps it.

use serde::{Deserialize, Serialize};

use super::sent::Sent;
use crate::sync::state::stream::{FieldsEntry, is_default};
use crate::time::Timestamp;

/// How far a list of one project has been read.
///
/// It holds no offset: objects that are deleted between two syncs would shift what comes after it. (`next` of a nested
/// list is a cursor.)
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
    /// When the last sync began that looked for objects that come late.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub late_look: Option<Timestamp>,
    /// Of a nested list, the parent under way; those before it are done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Query string of the next page of the parent's objects; none at their beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// What the destination has of objects that later syncs meet again.
    #[serde(rename = "emitted", skip_serializing_if = "Sent::is_empty")]
    pub sent: Sent,
    /// Whether a full refresh has read this project.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub done: bool,
}

impl FieldsEntry for ListState {}
