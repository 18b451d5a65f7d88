//! The records of the projects themselves.

use std::collections::HashMap;

use serde_json::value::RawValue;

use super::document;
use super::frame::RecordEnvelope;
use crate::protocol::StreamDescriptor;
use crate::streams::projects::FIELDS;

/// Writes records of projects: the fields of the schema, values as the server wrote them.
pub struct ProjectWriter {
    envelope: RecordEnvelope,
}

impl ProjectWriter {
    /// A writer for `stream`.
    pub fn new(stream: &StreamDescriptor) -> Self {
        Self { envelope: RecordEnvelope::new(stream) }
    }

    /// Appends the record of a project to `lines`.
    ///
    /// # Errors
    /// When the description is not a JSON object; `lines` is unchanged then.
    pub fn write(&self, project: &RawValue, lines: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        let values: HashMap<String, &RawValue> = serde_json::from_str(project.get())?;
        self.envelope.write(lines, |lines| {
            let mut separator = b'{';
            for (field, value) in FIELDS.iter().filter_map(|(field, ..)| Some((*field, values.get(*field)?))) {
                lines.push(separator);
                lines.extend_from_slice(format!("\"{field}\":").as_bytes());
                document::append(value.get(), lines);
                separator = b',';
            }
            if separator == b'{' {
                lines.push(b'{');
            }
            lines.push(b'}');
        });
        Ok(())
    }
}
