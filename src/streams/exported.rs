//! Lines of exported files as records.
//!
//! A line is one JSON object (`batch_exports/…/sql/*.py` has the fields). Only the fields that the
//! stream has are looked at; the rest of the line is only checked to be JSON.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::column::{Column, Exported};
use super::lifted::Lifted;
use super::object::{Names, read_object};
use super::record::RecordFrame;
use super::table::Table;
use crate::posthog::Malformed;
use crate::protocol::message::StreamDescriptor;
use crate::time::Timestamp;

/// Writes the records of one table and one project from lines of exported files.
pub struct ExportWriter {
    frame: RecordFrame,
    /// Names in the line, and the columns that they fill.
    fields: Names,
    /// Names in the line's `properties`, and the columns that they fill.
    properties: Names,
    width: usize,
    id: usize,
    position: usize,
    arrival: Option<usize>,
    document: Option<usize>,
}

/// When a record's row happened and arrived, for whoever filters and counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Value of the table's position, such as `timestamp` of events.
    pub position: Timestamp,
    /// When the server received it; the position where the table has no such column.
    pub received: Timestamp,
}

impl ExportWriter {
    /// A writer for the exported columns of `table`.
    pub fn new(table: &Table, stream: &StreamDescriptor, project: u64) -> Self {
        let columns = table.exported();
        let place = |field: &str| columns.iter().position(|column| column.field == field);
        let (mut fields, mut properties) = (Names::default(), Names::default());
        for (index, column) in columns.iter().enumerate() {
            match column.exported {
                Exported::Field(name) => fields.add(name, index),
                Exported::Property(name) => properties.add(name, index),
                Exported::Nowhere => {}
            }
        }
        let arrival = |column: &Column| table.arrival.is_some() && column.expression == table.arrival;
        Self {
            frame: RecordFrame::new(table, &columns, stream, project),
            fields,
            properties,
            width: columns.len(),
            id: place(table.id_field).unwrap_or_default(),
            position: place(table.position_field).unwrap_or_default(),
            arrival: columns.iter().position(arrival),
            document: place("properties"),
        }
    }

    /// Adds properties as fields of their own.
    #[must_use]
    pub fn lifting(mut self, lifted: &Arc<Lifted>) -> Self {
        self.frame.lift(lifted);
        self
    }

    /// Sets `emitted_at` of the following records to now.
    pub fn stamp(&mut self) {
        self.frame.stamp();
    }

    /// Appends the record of `line` to `lines` if `wanted` says so. Returns whether it did.
    ///
    /// # Errors
    /// When the line is not one JSON object with the row's key; `lines` is unchanged then.
    pub fn write(
        &self,
        line: &[u8],
        lines: &mut Vec<u8>,
        wanted: impl FnOnce(Arrival) -> bool,
    ) -> Result<bool, Malformed> {
        let line = std::str::from_utf8(line).map_err(|error| Malformed(format!("a line is not UTF-8: {error}")))?;
        let mut found: Vec<Option<&RawValue>> = vec![None; self.width];
        read_object(line, &self.fields, &mut found)
            .map_err(|error| Malformed(format!("a line is not a JSON object: {error}")))?;
        let value = |index: usize| found.get(index).copied().flatten().map_or("null", RawValue::get);
        let instant = |index: usize| {
            let text = value(index);
            Timestamp::parse(text.trim_matches('"'))
                .ok_or_else(|| Malformed(format!("a line has the unusable time {text:.60}")))
        };
        let position = instant(self.position)?;
        let received = self.arrival.map_or(Ok(position), instant)?;
        if !value(self.id).starts_with('"') {
            return Err(Malformed(format!("a line has the unusable key {:.60}", value(self.id))));
        }
        if !wanted(Arrival { position, received }) {
            return Ok(false);
        }
        let id = value(self.id);
        if let Some(document) = self.document.filter(|_| !self.properties.is_empty()) {
            let text = value(document);
            if text.starts_with('{') {
                read_object(text, &self.properties, &mut found)
                    .map_err(|error| Malformed(format!("properties are not usable: {error}")))?;
            }
        }
        let values: Vec<Cow<'_, str>> = found
            .iter()
            .enumerate()
            .map(|(index, found)| match found {
                None => Cow::Borrowed("null"),
                Some(found) if self.properties.fills(index) => as_text(found.get()),
                Some(found) => Cow::Borrowed(found.get()),
            })
            .collect();
        self.frame.append(id, values.iter().map(AsRef::as_ref), lines)?;
        Ok(true)
    }
}

/// A property as the column that `PostHog` makes from it: a text, whatever it was.
fn as_text(property: &str) -> Cow<'_, str> {
    if property.starts_with('"') || property == "null" {
        return Cow::Borrowed(property);
    }
    Cow::Owned(serde_json::Value::from(property).to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::streams::{EVENTS, PERSONS};

    fn write(table: &Table, line: &str) -> Result<Option<Value>, Malformed> {
        let stream = StreamDescriptor { name: table.stream.into(), namespace: None };
        let mut lines = Vec::new();
        let written = ExportWriter::new(table, &stream, 7).write(line.as_bytes(), &mut lines, |_| true);
        assert!(written.is_ok() || lines.is_empty());
        written.map(|written| written.then(|| serde_json::from_slice(&lines).unwrap()))
    }

    const LINE: &str = r#"{"uuid":"u-1","event":"e","distinct_id":"d","person_id":"p","properties":{"$session_id":"s","$group_0":5,"x":[{"$window_id":"no"}],"\u0024window_id":"w","big":123456789012345678901234567890},"person_properties":{"a":1},"elements_chain":"","timestamp":"2026-01-01T00:00:00.5+00:00","created_at":"2026-01-01T00:00:01+00:00","_inserted_at":"2026-01-01T00:00:02+00:00","something_new":{"a":[1]}}"#;

    #[test]
    fn a_line_becomes_a_record_of_the_same_shape_as_a_row() {
        let message = write(&EVENTS, LINE).unwrap().unwrap();
        let data = message["record"]["data"].as_object().unwrap();
        let fields = EVENTS.schema()["properties"].as_object().unwrap().clone();
        assert_eq!(data.keys().collect::<std::collections::BTreeSet<_>>(), fields.keys().collect());
        for (field, expected) in [
            ("id", "u-1"),
            ("session_id", "s"),
            ("window_id", "w"),
            ("group_0", "5"),
            ("timestamp", "2026-01-01T00:00:00.500000Z"),
            ("created_at", "2026-01-01T00:00:01.000000Z"),
        ] {
            assert_eq!(data[field], expected, "{field}");
        }
        assert_eq!((&data["person_properties"]["a"], &data["project_id"]), (&1.into(), &7.into()));
        assert_eq!((&data["group_1"], &data["person_mode"]), (&Value::Null, &Value::Null));
    }

    #[test]
    fn rows_that_are_not_wanted_leave_no_trace() {
        let stream = StreamDescriptor { name: "events".into(), namespace: None };
        let mut lines = Vec::new();
        let wanted = |arrival: Arrival| {
            assert_eq!(arrival.position, Timestamp::parse("2026-01-01T00:00:00.5Z").unwrap());
            assert_eq!(arrival.received, Timestamp::parse("2026-01-01T00:00:01Z").unwrap());
            false
        };
        assert_eq!(ExportWriter::new(&EVENTS, &stream, 7).write(LINE.as_bytes(), &mut lines, wanted), Ok(false));
        assert!(lines.is_empty());
    }

    #[test]
    fn persons_have_other_names_in_files() {
        let line = r#"{"team_id":7,"distinct_id":"d","person_id":"p","properties":{"a":null},"person_distinct_id_version":0,"person_version":3,"created_at":"2026-01-01T00:00:00+00:00","_inserted_at":"2026-01-02T00:00:00+00:00","is_deleted":false}"#;
        let message = write(&PERSONS, line).unwrap().unwrap();
        let data = &message["record"]["data"];
        assert_eq!((&data["id"], &data["uuid"], &data["distinct_id"]), (&"p".into(), &"p".into(), &"d".into()));
        assert_eq!((&data["version"], &data["is_deleted"]), (&3.into(), &false.into()));
        assert_eq!(data["updated_at"], "2026-01-02T00:00:00.000000Z");
    }

    #[test]
    fn every_cut_of_a_line_is_refused() {
        for part in (0..LINE.len()).filter_map(|end| LINE.get(..end)) {
            assert!(write(&EVENTS, part).is_err(), "cut at {}", part.len());
        }
        for line in ["null", "[]", "{}", &format!("{LINE}{LINE}"), &format!("{LINE},"), &LINE.replace("\"u-1\"", "1")] {
            assert!(write(&EVENTS, line).is_err(), "{line:.40}");
        }
        let deep = LINE.replace("\"w\"", &format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000)));
        let stream = StreamDescriptor { name: "events".into(), namespace: None };
        assert_eq!(ExportWriter::new(&EVENTS, &stream, 7).write(deep.as_bytes(), &mut Vec::new(), |_| true), Ok(true));
    }
}
