//! Rows of keyset streams as records.

use serde_json::Value;

use super::frame::RecordFrame;
use super::nulled::NulledValues;
use crate::posthog::{Malformed, Row};
use crate::protocol::StreamDescriptor;
use crate::streams::{KeysetStream, KeysetTable, Kind, Selection};
use crate::time::Timestamp;

/// Writes the records of one part of a keyset stream and one project. A row consists of the columns,
/// followed by what it is ordered by.
pub struct KeysetRowWriter {
    frame: RecordFrame,
    order: usize,
    cursor: Option<Kind>,
    last: Vec<Value>,
}

/// Where a row stands after another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It has the same key.
    Duplicate,
    After,
    /// The server sends rows in ascending order, so this one is not what was asked for.
    Before,
}

impl KeysetRowWriter {
    /// A writer for `part`, whose rows have the columns of `selection` and end with `order` values that they are
    /// ordered by.
    pub fn new(
        keyset: &KeysetStream,
        part: &KeysetTable,
        selection: &Selection,
        order: usize,
        stream: &StreamDescriptor,
        project: u64,
    ) -> Self {
        let mut frame = RecordFrame::of_columns(None, &keyset.selected(selection), selection, stream, project);
        if let Some((label, value)) = part.label {
            frame.add_constant(label, value, selection);
        }
        Self { frame, order, cursor: None, last: Vec::new() }
    }

    /// Warns through `nulled` of values that become null.
    #[must_use]
    pub fn warning(mut self, nulled: &NulledValues) -> Self {
        self.frame.set_nulled_values(nulled);
        self
    }

    /// The first of the values that rows are ordered by is of this kind; the others are texts.
    #[must_use]
    pub fn ordered_by(mut self, cursor: Option<Kind>) -> Self {
        self.cursor = cursor;
        self
    }

    /// Continues after a row with these values.
    pub fn continue_after(&mut self, last: &[Value]) {
        self.last = last.to_vec();
    }

    /// Sets `emitted_at` of the following records to now.
    pub fn stamp(&mut self) {
        self.frame.stamp();
    }

    /// Appends the record of `row`. Returns false when it is a duplicate of the row before.
    ///
    /// # Errors
    /// When the row does not have the columns that were asked for, or is not in the order that was asked for:
    /// a row that comes in place of another would go unnoticed, because only the number of rows is compared
    /// with the count. `lines` is unchanged then.
    pub fn write(&mut self, row: &Row<'_>, lines: &mut Vec<u8>) -> Result<bool, Malformed> {
        let width = self.frame.width();
        let (Some(values), Some(key)) = (row.get(..width), row.get(width..)) else {
            return Err(Malformed(format!("a row has only {} columns", row.len())));
        };
        if key.len() != self.order {
            return Err(Malformed(format!("a row has {} columns instead of {}", row.len(), width + self.order)));
        }
        let key: Vec<Value> = key
            .iter()
            .map(|value| serde_json::from_str(value.get()).map_err(|error| Malformed(error.to_string())))
            .collect::<Result<_, _>>()?;
        match place(&self.last, &key, self.cursor) {
            Place::After => {}
            Place::Duplicate => return Ok(false),
            Place::Before => return Err(Malformed(format!("the row {} is out of order", Value::from(key)))),
        }
        self.frame.append("null", values.iter().map(|value| value.get()), lines);
        self.last = key;
        Ok(true)
    }

    /// The first value that the last row is ordered by.
    pub fn position(&self) -> Option<&Value> {
        self.last.first()
    }

    /// What the last row is ordered by; empty before the first row.
    pub fn last(&self) -> &[Value] {
        &self.last
    }
}

/// Compares what two rows are ordered by. Values whose order cannot be derived from their JSON count as
/// ascending.
fn place(last: &[Value], next: &[Value], cursor: Option<Kind>) -> Place {
    if last.is_empty() {
        return Place::After;
    }
    match last.iter().zip(next).enumerate().find(|(_, (last, next))| last != next) {
        None => Place::Duplicate,
        Some((index, (last, next))) if is_before(cursor.filter(|_| index == 0), next, last) => Place::Before,
        Some(_) => Place::After,
    }
}

/// Whether a text certainly comes before another one. ClickHouse compares texts by their bytes; what is not
/// UTF-8 arrives with replacement characters, which say nothing about the order.
pub(super) fn text_is_before(text: &str, other: &str) -> bool {
    text < other && !text.contains('\u{fffd}') && !other.contains('\u{fffd}')
}

/// Whether a value certainly comes before another one.
fn is_before(kind: Option<Kind>, value: &Value, other: &Value) -> bool {
    match (kind, value, other) {
        (Some(Kind::Timestamp), _, _) => {
            let instant = |value: &Value| Timestamp::parse_json(&value.to_string());
            instant(value).zip(instant(other)).is_some_and(|(value, other)| value < other)
        }
        (_, Value::Number(value), Value::Number(other)) => match (value.as_i64(), other.as_i64()) {
            (Some(value), Some(other)) => value < other,
            _ => value.as_u64().zip(other.as_u64()).is_some_and(|(value, other)| value < other),
        },
        (_, Value::String(value), Value::String(other)) => text_is_before(value, other),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_have_to_grow() {
        let time = Some(Kind::Timestamp);
        for (last, next, cursor, expected) in [
            (json!([]), json!(["a"]), None, Place::After),
            (json!(["a", "b"]), json!(["a", "b"]), None, Place::Duplicate),
            (json!(["a", "b"]), json!(["a", "ba"]), None, Place::After),
            (json!(["10", "b"]), json!(["9", "a"]), None, Place::After),
            (json!(["b", "a"]), json!(["a", "z"]), None, Place::Before),
            (json!(["z"]), json!(["Z"]), None, Place::Before),
            (json!(["Z"]), json!(["é"]), None, Place::After),
            (json!(["b\u{fffd}"]), json!(["a"]), None, Place::After),
            (json!([9, "a"]), json!([10, "a"]), Some(Kind::Integer), Place::After),
            (json!([10, "a"]), json!([9, "z"]), Some(Kind::Integer), Place::Before),
            (json!([u64::MAX, "a"]), json!([u64::MAX - 1, "z"]), Some(Kind::Integer), Place::Before),
            (json!([-1, "a"]), json!([0, "a"]), Some(Kind::Integer), Place::After),
            (json!(["2026-01-02", "a"]), json!(["2026-01-01", "b"]), Some(Kind::Date), Place::Before),
            // As texts, these are in the other order.
            (json!(["2026-01-01T00:00:00Z", "a"]), json!(["2026-01-01T00:00:00.5Z", "a"]), time, Place::After),
            (json!(["2026-01-01T00:00:00.5Z", "a"]), json!(["2026-01-01T00:00:00Z", "b"]), time, Place::Before),
            // Nanoseconds are not told apart.
            (json!(["2026-01-01T00:00:00.123456789Z"]), json!(["2026-01-01T00:00:00.123456788Z"]), time, Place::After),
        ] {
            let values = |json: &Value| json.as_array().unwrap().clone();
            assert_eq!(place(&values(&last), &values(&next), cursor), expected, "{last} {next}");
        }
    }
}
