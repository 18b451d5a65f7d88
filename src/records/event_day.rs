//! The records of `event_days`.

use serde_json::{Map, json};

use super::fingerprint::Fingerprint;
use super::frame::RecordEnvelope;
use crate::protocol::StreamDescriptor;
use crate::streams::Selection;
use crate::time::Timestamp;

/// Why the figures of a day are believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DayProof {
    /// What has been emitted agrees with PostHog.
    Compared,
    /// A state says that it was emitted before.
    Assumed,
    /// PostHog has counted it; nothing was emitted.
    Counted,
}

impl DayProof {
    fn name(self) -> &'static str {
        match self {
            Self::Compared => "compared",
            Self::Assumed => "assumed",
            Self::Counted => "counted",
        }
    }
}

/// Writes the records of one project.
pub struct EventDayWriter {
    envelope: RecordEnvelope,
    selection: Selection,
    project: u64,
    checked_at: Timestamp,
}

impl EventDayWriter {
    /// A writer for what PostHog had received before `checked_at`.
    pub fn new(selection: &Selection, stream: &StreamDescriptor, project: u64, checked_at: Timestamp) -> Self {
        Self { envelope: RecordEnvelope::new(stream), selection: selection.clone(), project, checked_at }
    }

    /// Appends the record of a day, numbered since the epoch, to `lines`. `deleted` is how many events have disappeared
    /// from it, if that is known.
    pub fn write(&self, day: i64, events: Fingerprint, deleted: Option<u64>, proof: DayProof, lines: &mut Vec<u8>) {
        let fields = [
            ("project_id", json!(self.project)),
            ("day", json!(Timestamp::from_day(day).date().to_string())),
            ("events", json!(events.count)),
            ("checksum", json!(events.checksum.to_string())),
            ("deleted", json!(deleted)),
            ("checked_at", json!(self.checked_at)),
            ("proof", json!(proof.name())),
        ];
        let wanted = fields.into_iter().filter(|(field, _)| self.selection.has(field));
        let data: Map<_, _> = wanted.map(|(field, value)| (field.to_owned(), value)).collect();
        self.envelope.write(lines, |lines| lines.extend_from_slice(json!(data).to_string().as_bytes()));
    }
}
