//! The records of streams about the account.

use serde_json::value::RawValue;

use super::frame::{RecordEnvelope, append_changes};
use super::nulled::NulledValues;
use super::value;
use crate::posthog::AtMostMembers;
use crate::protocol::StreamDescriptor;
use crate::streams::{AccountStream, Kind, Selection};

/// Writes records of an account stream: the fields of the schema that the server sends.
pub struct AccountWriter {
    envelope: RecordEnvelope,
    fields: Vec<(String, Kind)>,
    nulled: NulledValues,
}

impl AccountWriter {
    /// A writer for the records of `account`.
    pub fn new(account: &'static AccountStream, selection: &Selection, stream: &StreamDescriptor) -> Self {
        let fields = account.fields.iter().filter(|column| selection.has_column(column));
        let fields = fields.map(|column| (column.field.to_owned(), Kind::of_schema(&column.schema())));
        Self { envelope: RecordEnvelope::new(stream), fields: fields.collect(), nulled: NulledValues::default() }
    }

    /// Appends the record of an object to `lines`.
    ///
    /// # Errors
    /// When it is not a JSON object; `lines` is unchanged then.
    pub fn write(&self, object: &RawValue, lines: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        let AtMostMembers(values) = serde_json::from_str::<AtMostMembers<10_000, &RawValue>>(object.get())?;
        self.envelope.write(lines, |lines| {
            let mut undecoded = Vec::new();
            lines.push(b'{');
            let sent = self.fields.iter().filter_map(|(field, kind)| Some((field, *kind, values.get(field)?)));
            for (place, (field, kind, text)) in sent.enumerate() {
                lines.extend_from_slice(if place > 0 { b"," } else { b"" });
                lines.extend_from_slice(format!("\"{field}\":").as_bytes());
                if !value::append(kind, text.get(), lines) {
                    undecoded.push(field.as_str());
                }
            }
            lines.push(b'}');
            append_changes(&undecoded, &self.nulled, lines);
        });
        Ok(())
    }
}
