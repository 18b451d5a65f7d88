//! Rows of keyset streams as records.

use serde_json::Value;

use super::frame::RecordFrame;
use super::nulled::NulledValues;
use crate::posthog::{Malformed, Row};
use crate::protocol::StreamDescriptor;
use crate::streams::{KeysetStream, KeysetTable};

/// Writes the records of one part of a keyset stream and one project. A row consists of the columns,
/// followed by what it is ordered by.
pub struct KeysetRowWriter {
    frame: RecordFrame,
    order: usize,
    last: Vec<String>,
}

impl KeysetRowWriter {
    /// A writer for `part`, whose rows end with `order` values that they are ordered by.
    pub fn new(
        keyset: &KeysetStream,
        part: &KeysetTable,
        order: usize,
        stream: &StreamDescriptor,
        project: u64,
    ) -> Self {
        let mut frame = RecordFrame::of_columns(None, keyset.columns, stream, project);
        if let Some((label, value)) = part.label {
            frame.add_constant(label, value);
        }
        Self { frame, order, last: Vec::new() }
    }

    /// Warns through `nulled` of values that become null.
    #[must_use]
    pub fn warning(mut self, nulled: &NulledValues) -> Self {
        self.frame.set_nulled_values(nulled);
        self
    }

    /// Sets `emitted_at` of the following records to now.
    pub fn stamp(&mut self) {
        self.frame.stamp();
    }

    /// Appends the record of `row`. Returns false when it is another copy of the row before.
    ///
    /// # Errors
    /// When the row does not have the columns that were asked for; `lines` is unchanged then.
    pub fn write(&mut self, row: &Row<'_>, lines: &mut Vec<u8>) -> Result<bool, Malformed> {
        let width = self.frame.width();
        let (Some(values), Some(key)) = (row.get(..width), row.get(width..)) else {
            return Err(Malformed(format!("a row has only {} columns", row.len())));
        };
        if key.len() != self.order {
            return Err(Malformed(format!("a row has {} columns instead of {}", row.len(), width + self.order)));
        }
        let key: Vec<String> = key.iter().map(|value| value.get().to_owned()).collect();
        if key == self.last {
            return Ok(false);
        }
        self.frame.append("null", values.iter().map(|value| value.get()), lines);
        self.last = key;
        Ok(true)
    }

    /// The first value that the last row is ordered by.
    pub fn position(&self) -> Option<Value> {
        serde_json::from_str(self.last.first()?).ok()
    }

    /// What the last row is ordered by, as JSON values; empty before the first row.
    ///
    /// # Errors
    /// When the server's values are not valid JSON.
    pub fn last(&self) -> Result<Vec<Value>, Malformed> {
        self.last.iter().map(|text| serde_json::from_str(text).map_err(|error| Malformed(error.to_string()))).collect()
    }
}
