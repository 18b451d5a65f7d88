//! Rows of distinct ids as records: of all rows of one, the one with the greatest version.

use serde_json::value::RawValue;

use super::frame::RecordFrame;
use super::keyset_row::text_is_before;
use super::nulled::NulledValues;
use crate::posthog::{Malformed, Row};
use crate::protocol::StreamDescriptor;
use crate::streams::{Column, Selection, Table};

/// Writes the records of one project from rows in the order of their distinct ids.
///
/// `ClickHouse` keeps older versions of a row for a while. A record is written once the next distinct id
/// comes, or by [`DistinctIdWriter::finish`].
pub struct DistinctIdWriter {
    frame: RecordFrame,
    id: usize,
    version: Option<usize>,
    /// The newest row of the distinct id whose rows are coming.
    held: Option<Held>,
    /// The last distinct id of which a record has been written.
    written: Option<String>,
}

struct Held {
    distinct_id: String,
    version: i64,
    values: Vec<String>,
}

impl DistinctIdWriter {
    /// A writer for `columns` of `table`. Rows follow after `after`.
    pub fn new(
        table: &Table,
        columns: &[Column],
        selection: &Selection,
        stream: &StreamDescriptor,
        project: u64,
        after: Option<String>,
    ) -> Self {
        let place = |field: &str| columns.iter().position(|column| column.field == field);
        Self {
            frame: RecordFrame::new(table, columns, selection, stream, project),
            id: place(table.id_field).unwrap_or_default(),
            version: place(table.cursor_field),
            held: None,
            written: after,
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

    /// Takes a row. Returns true if the record of the distinct id before has been appended to `lines`.
    ///
    /// # Errors
    /// When the row does not have the columns that were asked for, or stands where it does not belong.
    pub fn write(&mut self, row: &Row<'_>, lines: &mut Vec<u8>) -> Result<bool, Malformed> {
        self.frame.check_width(row.len())?;
        let text = |place: usize| row.get(place).map_or("null", |value| value.get());
        let distinct_id: String = serde_json::from_str(text(self.id))
            .map_err(|_| Malformed(format!("a row has the unusable key {:.60}", text(self.id))))?;
        let version = match self.version {
            None => 0,
            Some(place) => serde_json::from_str(text(place))
                .map_err(|_| Malformed(format!("a row has the unusable version {:.60}", text(place))))?,
        };
        if self.held.as_ref().is_some_and(|held| held.distinct_id == distinct_id) {
            if self.held.as_ref().is_some_and(|held| held.version < version) {
                self.held = Some(Held { distinct_id, version, values: values(row) });
            }
            return Ok(false);
        }
        let before = self.held.as_ref().map(|held| &held.distinct_id).or(self.written.as_ref());
        if before.is_some_and(|before| *before == distinct_id || text_is_before(&distinct_id, before)) {
            return Err(Malformed(format!("the row of {:.60} is out of order", text(self.id))));
        }
        let complete = self.finish(lines);
        self.held = Some(Held { distinct_id, version, values: values(row) });
        Ok(complete)
    }

    /// There are no more rows of the last distinct id: appends its record. Returns whether there was one.
    pub fn finish(&mut self, lines: &mut Vec<u8>) -> bool {
        let Some(held) = self.held.take() else { return false };
        self.frame.append("null", held.values.iter(), lines);
        self.written = Some(held.distinct_id);
        true
    }

    /// There may be more rows of the last distinct id, which will come again. Returns it.
    pub fn drop_last(&mut self) -> Option<String> {
        self.held.take().map(|held| held.distinct_id)
    }

    /// The last distinct id of which a record has been written.
    pub fn written(&self) -> Option<&str> {
        self.written.as_deref()
    }
}

fn values(row: &[&RawValue]) -> Vec<String> {
    row.iter().map(|value| value.get().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::streams::PERSON_DISTINCT_IDS;

    fn writer(after: Option<&str>) -> DistinctIdWriter {
        let stream = StreamDescriptor { name: "person_distinct_ids".into(), namespace: None };
        let (all, after) = (Selection::all(), after.map(str::to_owned));
        let columns = PERSON_DISTINCT_IDS.selected(false, &all);
        DistinctIdWriter::new(&PERSON_DISTINCT_IDS, &columns, &all, &stream, 7, after)
    }

    fn write(writer: &mut DistinctIdWriter, row: &Value, lines: &mut Vec<u8>) -> Result<bool, Malformed> {
        let texts: Vec<String> = row.as_array().unwrap().iter().map(Value::to_string).collect();
        let raw: Vec<Box<RawValue>> = texts.into_iter().map(|text| RawValue::from_string(text).unwrap()).collect();
        writer.write(&raw.iter().map(AsRef::as_ref).collect::<Vec<_>>(), lines)
    }

    fn persons(lines: &[u8]) -> Vec<(String, String)> {
        let lines = serde_json::Deserializer::from_slice(lines).into_iter::<Value>().map(Result::unwrap);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        lines
            .map(|line| (text(&line["record"]["data"]["distinct_id"]), text(&line["record"]["data"]["person_id"])))
            .collect()
    }

    #[test]
    fn newest_row_of_each_distinct_id_becomes_a_record() {
        let (mut writer, mut lines) = (writer(None), Vec::new());
        for (row, complete) in [
            (json!(["a", "old", false, 0]), false),
            (json!(["a", "new", false, 2]), false),
            (json!(["a", "older", false, 1]), false),
            (json!(["b", "p", true, 100]), true),
            (json!(["é", "q", false, 0]), true),
        ] {
            assert_eq!(write(&mut writer, &row, &mut lines), Ok(complete), "{row}");
        }
        assert_eq!(writer.written(), Some("b"));
        assert_eq!(writer.drop_last(), Some("é".to_owned()));
        assert_eq!(write(&mut writer, &json!(["é", "q", false, 0]), &mut lines), Ok(false));
        assert!(writer.finish(&mut lines) && !writer.finish(&mut lines));
        let expected = [("a", "new"), ("b", "p"), ("é", "q")].map(|(id, person)| (id.to_owned(), person.to_owned()));
        assert_eq!(persons(&lines), expected);
    }

    #[test]
    fn rows_out_of_order_are_rejected() {
        for (after, rows) in [(Some("b"), vec!["a"]), (Some("b"), vec!["b"]), (None, vec!["b", "a"])] {
            let (mut writer, mut lines) = (writer(after), Vec::new());
            let written = rows.iter().map(|id| write(&mut writer, &json!([id, "p", false, 0]), &mut lines));
            assert!(written.last().unwrap().is_err(), "{after:?} {rows:?}");
        }
        // The first of these was not UTF-8 where the server has put it in order.
        let (mut damaged, mut lines) = (writer(None), Vec::new());
        for id in ["b\u{fffd}", "a", "c"] {
            assert!(write(&mut damaged, &json!([id, "p", false, 0]), &mut lines).is_ok(), "{id}");
        }
        let (mut writer, mut lines) = (writer(None), Vec::new());
        assert!(write(&mut writer, &json!(["a", "p", false]), &mut lines).is_err());
        assert!(write(&mut writer, &json!([1, "p", false, 0]), &mut lines).is_err());
        assert!(write(&mut writer, &json!(["a", "p", false, null]), &mut lines).is_err());
    }
}
