//! Lines of exported files as records.
//!
//! A line is one JSON object (`batch_exports/…/sql/*.py` has the fields). Only the fields that the
//! stream has are looked at; the rest of the line is only checked to be JSON.

use std::borrow::Cow;
use std::ops::Range;

use serde_json::value::RawValue;

use super::frame::RecordFrame;
use super::json_fields::{FieldNames, read_object};
use super::nulled::NulledValues;
use super::transcode;
use crate::posthog::Malformed;
use crate::protocol::StreamDescriptor;
use crate::streams::Selection;
use crate::streams::{Column, ExportedAs};
use crate::streams::{PROPERTIES_FIELD, Table, VERSION_FIELD};
use crate::time::Timestamp;

/// Writes the records of one table and one project from lines of exported files.
pub struct ExportWriter {
    frame: RecordFrame,
    /// Names in the line, and the columns that they fill.
    fields: FieldNames,
    /// Names in the line's `properties`, and the columns that they fill.
    properties: FieldNames,
    id: usize,
    sort_key: usize,
    ingestion_time: Option<usize>,
    version: Option<usize>,
    /// Where the time of the last change and the end of the row are, of a table that shows its changes.
    changes: Option<[usize; 2]>,
    document: Option<usize>,
    /// Where the columns' values stand in the line.
    found: Vec<Option<Range<usize>>>,
    /// Scratch space; see [`transcode::find`].
    open: Vec<u8>,
}

/// Event and ingestion time of a record's row, for filtering and counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineTimes {
    /// Value of the table's position, such as `timestamp` of events.
    pub sort_key: Timestamp,
    /// When the server received it; the position where the table has no such column.
    pub received: Timestamp,
}

impl ExportWriter {
    /// A writer for the exported columns of `table`; its records have the fields of `selection`.
    pub fn new(table: &Table, selection: &Selection, stream: &StreamDescriptor, project: u64) -> Self {
        let columns = table.exported(selection);
        let place = |field: &str| columns.iter().position(|column| column.field == field);
        let (mut fields, mut properties) = (FieldNames::default(), FieldNames::default());
        for (index, column) in columns.iter().enumerate() {
            match column.exported {
                ExportedAs::Field(name) => fields.add(name, index),
                ExportedAs::Property(name) => properties.add(name, index),
                ExportedAs::Nowhere => {}
            }
        }
        let ingestion_time =
            |column: &Column| table.ingestion_time.is_some() && column.expression == table.ingestion_time;
        Self {
            frame: RecordFrame::new(table, &columns, selection, stream, project),
            fields,
            properties,
            id: place(table.id_field).unwrap_or_default(),
            sort_key: place(table.sort_key_field).unwrap_or_default(),
            ingestion_time: columns.iter().position(ingestion_time),
            version: place(VERSION_FIELD),
            changes: table.changes.as_ref().and_then(|changes| {
                let [changed, end] = changes.fields().map(place);
                Some([changed?, end?])
            }),
            document: place(PROPERTIES_FIELD),
            found: vec![None; columns.len()],
            open: Vec::new(),
        }
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

    /// Takes a line apart, for [`ExportWriter::write`]. Returns its times.
    ///
    /// # Errors
    /// When the line is not one JSON object with the row's key.
    pub fn parse(&mut self, line: &[u8]) -> Result<LineTimes, Malformed> {
        let line = std::str::from_utf8(line).map_err(|error| Malformed(format!("a line is not UTF-8: {error}")))?;
        self.find(line)?;
        let text =
            |index: usize| self.found.get(index).and_then(|place| text_at(line, place.as_ref())).unwrap_or("null");
        let sort_key = Timestamp::parse_json(text(self.sort_key))
            .ok_or_else(|| Malformed(format!("a line has the unusable time {:.60}", text(self.sort_key))))?;
        let ingestion_time = self.ingestion_time.and_then(|column| Timestamp::parse_json(text(column)));
        let id = text(self.id);
        if !id.starts_with('"') {
            return Err(Malformed(format!("a line has the unusable key {id:.60}")));
        }
        Ok(LineTimes { sort_key, received: ingestion_time.unwrap_or(sort_key) })
    }

    /// The id of the line that was parsed last, without quotes.
    pub fn id<'l>(&self, line: &'l [u8]) -> &'l [u8] {
        let place = self.found.get(self.id).cloned().flatten().unwrap_or_default();
        line.get(place.start + 1..place.end.saturating_sub(1)).unwrap_or_default()
    }

    /// The version of the line that was parsed last, as JSON text; `null` if it has none.
    pub fn version<'l>(&self, line: &'l [u8]) -> &'l [u8] {
        let place = self.version.and_then(|version| self.found.get(version)?.clone());
        place.and_then(|place| line.get(place)).unwrap_or(b"null")
    }

    /// When the row of the line that was parsed last has changed, and up to when it tells, if its table shows that.
    pub fn changed(&self, line: &[u8]) -> Option<(Timestamp, Timestamp)> {
        let line = std::str::from_utf8(line).ok()?;
        let time = |index: usize| Timestamp::parse_json(text_at(line, self.found.get(index)?.as_ref())?);
        let [changed, end] = self.changes?;
        let end = time(end)?;
        Some((time(changed).unwrap_or(end), end))
    }

    /// Appends the record of the line that was parsed last to `lines`.
    ///
    /// # Errors
    /// When the line is not UTF-8; `lines` is unchanged then.
    pub fn write(&mut self, line: &[u8], lines: &mut Vec<u8>) -> Result<(), Malformed> {
        let line = std::str::from_utf8(line).map_err(|error| Malformed(format!("a line is not UTF-8: {error}")))?;
        let Self { frame, found, properties, .. } = self;
        let values = found.iter().enumerate().map(|(index, place)| match text_at(line, place.as_ref()) {
            None => Cow::Borrowed("null"),
            Some(found) if properties.fills(index) => as_text(found),
            Some(found) => Cow::Borrowed(found),
        });
        let id = found.get(self.id).and_then(|place| text_at(line, place.as_ref()));
        frame.append(id.unwrap_or("null"), values, lines);
        Ok(())
    }

    /// Finds the columns' values, the fast way if that knows the line's spelling.
    fn find(&mut self, line: &str) -> Result<(), Malformed> {
        let inner = self.document.filter(|_| !self.properties.is_empty());
        let inner = inner.map(|place| transcode::Inner { place, names: &self.properties });
        self.found.fill(None);
        if transcode::find(line.as_bytes(), &self.fields, inner.as_ref(), &mut self.found, &mut self.open).is_ok() {
            return Ok(());
        }
        self.find_plainly(line)
    }

    fn find_plainly(&mut self, line: &str) -> Result<(), Malformed> {
        let mut found: Vec<Option<&RawValue>> = vec![None; self.found.len()];
        read_object(line, &self.fields, &mut found)
            .map_err(|error| Malformed(format!("a line is not a JSON object: {error}")))?;
        let document = self.document.filter(|_| !self.properties.is_empty());
        let document = document.and_then(|place| found.get(place).copied().flatten());
        if let Some(document) = document.filter(|document| document.get().starts_with('{')) {
            read_object(document.get(), &self.properties, &mut found)
                .map_err(|error| Malformed(format!("properties are not usable: {error}")))?;
        }
        let place = |value: &RawValue| {
            let begin = value.get().as_ptr().addr() - line.as_ptr().addr();
            begin..begin + value.get().len()
        };
        for (place_of, found) in self.found.iter_mut().zip(found) {
            *place_of = found.map(place);
        }
        Ok(())
    }
}

/// The JSON text at a place, if there is one.
fn text_at<'l>(line: &'l str, place: Option<&Range<usize>>) -> Option<&'l str> {
    line.get(place?.clone())
}

/// A property as the column that `PostHog` derives from it: always a string.
fn as_text(property: &str) -> Cow<'_, str> {
    if property.starts_with('"') || property == "null" {
        return Cow::Borrowed(property);
    }
    Cow::Owned(serde_json::Value::from(property).to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::streams::{EVENTS, PERSONS};

    fn write(table: &Table, line: &str) -> Result<Value, Malformed> {
        let stream = StreamDescriptor { name: table.stream.into(), namespace: None };
        let mut writer = ExportWriter::new(table, &Selection::all(), &stream, 7);
        let mut lines = Vec::new();
        writer.parse(line.as_bytes())?;
        writer.write(line.as_bytes(), &mut lines)?;
        Ok(serde_json::from_slice(&lines).unwrap())
    }

    const LINE: &str = r#"{"uuid":"u-1","event":"e","distinct_id":"d","person_id":"p","properties":{"$session_id":"s","$group_0":5,"x":[{"$window_id":"no"}],"\u0024window_id":"w","big":123456789012345678901234567890},"person_properties":{"a":1},"elements_chain":"","timestamp":"2026-01-01T00:00:00.5+00:00","created_at":"2026-01-01T00:00:01+00:00","_inserted_at":"2026-01-01T00:00:02+00:00","something_new":{"a":[1]}}"#;

    #[test]
    fn export_line_becomes_the_same_record_as_a_query_row() {
        let message = write(&EVENTS, LINE).unwrap();
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
    fn parsed_line_has_its_event_time_and_ingestion_time() {
        let stream = StreamDescriptor { name: "events".into(), namespace: None };
        let times = ExportWriter::new(&EVENTS, &Selection::all(), &stream, 7).parse(LINE.as_bytes()).unwrap();
        assert_eq!(times.sort_key, Timestamp::parse("2026-01-01T00:00:00.5Z").unwrap());
        assert_eq!(times.received, Timestamp::parse("2026-01-01T00:00:01Z").unwrap());
    }

    #[test]
    fn person_fields_are_renamed_from_their_export_names() {
        let line = r#"{"team_id":7,"distinct_id":"d","person_id":"p","properties":{"a":null},"person_distinct_id_version":0,"person_version":3,"created_at":"2026-01-01T00:00:00+00:00","_inserted_at":"2026-01-02T00:00:00+00:00","is_deleted":false}"#;
        let message = write(&PERSONS, line).unwrap();
        let data = &message["record"]["data"];
        assert_eq!((&data["id"], &data["uuid"]), (&"p".into(), &"p".into()));
        assert_eq!((&data["version"], &data["is_deleted"]), (&3.into(), &false.into()));
        assert_eq!(data["updated_at"], "2026-01-02T00:00:00.000000Z");
    }

    #[test]
    fn truncated_lines_are_rejected_at_every_length() {
        for part in (0..LINE.len()).filter_map(|end| LINE.get(..end)) {
            assert!(write(&EVENTS, part).is_err(), "cut at {}", part.len());
        }
        for line in ["null", "[]", "{}", &format!("{LINE}{LINE}"), &format!("{LINE},"), &LINE.replace("\"u-1\"", "1")] {
            assert!(write(&EVENTS, line).is_err(), "{line:.40}");
        }
        let deep = LINE.replace("\"w\"", &format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000)));
        let stream = StreamDescriptor { name: "events".into(), namespace: None };
        let mut writer = ExportWriter::new(&EVENTS, &Selection::all(), &stream, 7);
        writer.parse(deep.as_bytes()).unwrap();
        writer.write(deep.as_bytes(), &mut Vec::new()).unwrap();
    }

    /// A member's key as it is, or with its first character as an escape.
    fn member() -> impl Strategy<Value = String> {
        let key = prop::sample::select(vec![
            "uuid",
            "event",
            "properties",
            "timestamp",
            "created_at",
            "$session_id",
            "$group_0",
            "other",
            "",
        ]);
        (key, prop::bool::weighted(0.05), "[ ]{0,2}", text()).prop_map(|(key, escaped, spaces, value)| {
            match key.chars().next() {
                Some(first) if escaped => {
                    let rest = key.trim_start_matches(first);
                    format!("\"\\u{:04x}{rest}\"{spaces}:{spaces}{value}", u32::from(first))
                }
                _ => format!("\"{key}\"{spaces}:{spaces}{value}"),
            }
        })
    }

    /// JSON, or nearly.
    fn text() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            "-?[0-9]{1,3}(\\.[0-9]{1,3})?",
            "\"[a-z{}\\[\\],:é]{0,8}(\\\\[\"\\\\/nu])?\"",
            "[a-z0-9{}\"]{0,2}",
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            let pair = ("[a-z]{0,2}", inner.clone()).prop_map(|(key, value)| format!("\"{key}\":{value}"));
            prop_oneof![
                prop::collection::vec(inner, 0..4).prop_map(|values| format!("[{}]", values.join(", "))),
                prop::collection::vec(pair, 0..4).prop_map(|pairs| format!("{{ {}}}", pairs.join(","))),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn fast_path_finds_the_same_members_as_serde(
            members in prop::collection::vec(member(), 0..6), inner in prop::collection::vec(member(), 0..5),
            rest in "[ }\n]{0,1}",
        ) {
            let properties = format!("\"properties\":{{{}}}", inner.join(","));
            let line = format!("{{{}}}{rest}", members.into_iter().chain([properties]).collect::<Vec<_>>().join(","));
            let stream = StreamDescriptor { name: "events".into(), namespace: None };
            let mut writer = ExportWriter::new(&EVENTS, &Selection::all(), &stream, 7);
            let inner = transcode::Inner { place: writer.document.unwrap(), names: &writer.properties };
            let mut found = writer.found.clone();
            let mut open = Vec::new();
            let fast = transcode::find(line.as_bytes(), &writer.fields, Some(&inner), &mut found, &mut open);
            let plain = writer.find_plainly(&line);
            if fast.is_ok() {
                prop_assert_eq!(plain, Ok(()));
                prop_assert_eq!(found, writer.found);
            }
        }
    }

    #[test]
    fn usual_lines_take_the_fast_path() {
        let stream = StreamDescriptor { name: "events".into(), namespace: None };
        let writer = ExportWriter::new(&EVENTS, &Selection::all(), &stream, 7);
        let inner = transcode::Inner { place: writer.document.unwrap(), names: &writer.properties };
        let line = LINE.replace("\\u0024", "$");
        let mut found = writer.found.clone();
        let fast = transcode::find(line.as_bytes(), &writer.fields, Some(&inner), &mut found, &mut Vec::new());
        assert_eq!(fast, Ok(()));
    }
}
