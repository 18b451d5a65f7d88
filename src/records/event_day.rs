//! The records of `event_days`.

use serde_json::json;

use super::fingerprint::Fingerprint;
use super::frame::RecordEnvelope;
use crate::protocol::StreamDescriptor;
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
    project: u64,
    checked_at: Timestamp,
}

impl EventDayWriter {
    /// A writer for what PostHog had received before `checked_at`.
    pub fn new(stream: &StreamDescriptor, project: u64, checked_at: Timestamp) -> Self {
        Self { envelope: RecordEnvelope::new(stream), project, checked_at }
    }

    /// Appends the record of a day, numbered since the epoch, to `lines`.
    pub fn write(&self, day: i64, events: Fingerprint, proof: DayProof, lines: &mut Vec<u8>) {
        let data = json!({
            "project_id": self.project,
            "day": Timestamp::from_day(day).date().to_string(),
            "events": events.count,
            "checksum": events.checksum.to_string(),
            "checked_at": self.checked_at,
            "proof": proof.name(),
        });
        self.envelope.write(lines, |lines| lines.extend_from_slice(data.to_string().as_bytes()));
    }
}
