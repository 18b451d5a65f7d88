//! The records of streams about the account.

use std::collections::HashMap;

use serde_json::value::RawValue;

use super::document;
use super::frame::RecordEnvelope;
use crate::protocol::StreamDescriptor;
use crate::streams::AccountStream;

/// Writes records of an account stream: the fields of the schema, values as the server wrote them.
pub struct AccountWriter {
    account: &'static AccountStream,
    envelope: RecordEnvelope,
}

impl AccountWriter {
    /// A writer for the records of `account`.
    pub fn new(account: &'static AccountStream, stream: &StreamDescriptor) -> Self {
        Self { account, envelope: RecordEnvelope::new(stream) }
    }

    /// Appends the record of an object to `lines`.
    ///
    /// # Errors
    /// When it is not a JSON object; `lines` is unchanged then.
    pub fn write(&self, object: &RawValue, lines: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        let values: HashMap<String, &RawValue> = serde_json::from_str(object.get())?;
        self.envelope.write(lines, |lines| {
            let mut separator = b'{';
            for (field, value) in
                self.account.fields.iter().filter_map(|(field, ..)| Some((*field, values.get(*field)?)))
            {
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
