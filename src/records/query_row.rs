//! Rows of queries as records.

use std::collections::BTreeSet;
use std::sync::Arc;

use fearless_simd::{Level, Simd, dispatch};

use super::day_figures::DayFigures;
use super::fingerprint::Fingerprint;
use super::frame::RecordFrame;
use super::last_row::{LastRow, is_behind, is_copy};
use super::nulled::NulledValues;
use super::remembered::Remembered;
use super::transcode::{self, Scratch, Sink, Stop};
use super::value;
use crate::posthog::{Consumed, Malformed, Row, RowKey};
use crate::protocol::Lines;
use crate::protocol::StreamDescriptor;
use crate::streams::Column;
use crate::streams::Selection;
use crate::streams::Table;
use crate::time::Timestamp;

/// What records need beyond the bytes of their rows is mostly less than this for a whole piece of an
/// answer.
const SPARE: usize = 16 * 1024;

/// Writes the records of one table and one project from rows of queries.
pub struct RowWriter {
    frame: RecordFrame,
    /// See [`RecordFrame::is_clean`].
    has_clean_frame: bool,
    sort_key: usize,
    id: usize,
    /// Columns that tell rows of one id apart.
    identity: Vec<usize>,
    last: LastRow,
    settling: Option<Settling>,
    figures: Option<DayFigures>,
    remembered: Remembered,
    scratch: Scratch,
    /// What the processor can do; see [`transcode`].
    level: Level,
}

/// Counts records that are so recent that the server may not show all of their neighbours yet.
struct Settling {
    from: Timestamp,
    /// The same as the JSON text of an instant.
    from_text: String,
    records: u64,
}

/// What became of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    Record,
    /// It is another copy of the row before and was left out.
    Copy,
    /// It has been emitted before and was left out. The figures count it.
    Known,
}

impl RowWriter {
    /// A writer for `columns` of `table`, as selected for `project`; its records have the fields of `selection`.
    pub fn new(
        table: &Table,
        columns: &[Column],
        selection: &Selection,
        stream: &StreamDescriptor,
        project: u64,
    ) -> Self {
        let place = |field: &str| columns.iter().position(|column| column.field == field).unwrap_or_default();
        let frame = RecordFrame::new(table, columns, selection, stream, project);
        Self {
            has_clean_frame: frame.is_clean(),
            frame,
            sort_key: place(table.sort_key_field),
            id: place(table.id_field),
            identity: table.identity.iter().map(|field| place(field)).collect(),
            last: LastRow::default(),
            settling: None,
            figures: None,
            remembered: Remembered::default(),
            scratch: Scratch::default(),
            level: Level::new(),
        }
    }

    /// For a processor that can do this and no more.
    #[cfg(test)]
    #[must_use]
    pub(super) fn at_level(mut self, level: Level) -> Self {
        self.level = level;
        self
    }

    /// Counts, from now on, the rows whose sort key is not before `from`; see [`RowWriter::settling`].
    #[must_use]
    pub fn counting_recent_rows(mut self, from: Timestamp) -> Self {
        self.settling = Some(Settling { from, from_text: format!("\"{from}\""), records: 0 });
        self
    }

    /// Counts records by day, from now on; see [`RowWriter::take_figures`].
    #[must_use]
    pub fn counting_days(mut self) -> Self {
        self.figures = Some(DayFigures::default());
        self
    }

    /// Number and checksum of the records written since the last call, by UTC day since the epoch, in order.
    pub fn take_figures(&mut self) -> Vec<(i64, Fingerprint)> {
        self.figures.as_mut().map(DayFigures::take).unwrap_or_default()
    }

    /// Leaves out the rows with these numbers, from now on.
    #[must_use]
    pub fn leaving_out(mut self, known: Arc<BTreeSet<u64>>) -> Self {
        self.remembered = Remembered::new(known, false);
        self
    }

    /// Remembers the numbers of rows, from now on; see [`RowWriter::take_numbers`].
    #[must_use]
    pub fn remembering(mut self) -> Self {
        self.remembered = Remembered::new(Arc::default(), true);
        self
    }

    /// Numbers of the rows written since the last call.
    pub fn take_numbers(&mut self) -> BTreeSet<u64> {
        self.remembered.take()
    }

    /// How many recent rows have been written, if they are counted.
    pub fn settling(&self) -> Option<u64> {
        self.settling.as_ref().map(|settling| settling.records)
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

    /// Appends the record of `row` to `lines`.
    ///
    /// # Errors
    /// When the row does not have the columns that were asked for, or does not belong behind the row
    /// before; `lines` is unchanged then.
    pub fn write(&mut self, row: &Row<'_>, lines: &mut Vec<u8>) -> Result<Written, Malformed> {
        self.frame.check_width(row.len())?;
        let (Some(sort_key), Some(id)) = (row.get(self.sort_key), row.get(self.id)) else {
            return Err(Malformed("a row lacks its key".to_owned()));
        };
        let (sort_key, id) = (sort_key.get(), id.get());
        let texts = [sort_key.as_bytes(), id.as_bytes()];
        let column = |place: &usize| row.get(*place).map_or(&[][..], |value| value.get().as_bytes());
        if is_copy(self.last.texts(), texts, self.last.identity().zip(self.identity.iter().map(column))) {
            return Ok(Written::Copy);
        }
        if Timestamp::parse_json(sort_key).is_none() || !is_text(id) {
            return Err(Malformed(format!("a row has the unusable key {sort_key}, {id}")));
        }
        if is_behind(self.last.texts(), texts) {
            return Err(Malformed(format!("the row {sort_key}, {id} is out of order")));
        }
        let begin = lines.len();
        self.frame.append(id, row.iter().map(|value| value.get()), lines);
        count(&mut self.settling, &mut self.figures, sort_key.as_bytes(), id.as_bytes())
            .inspect_err(|_| lines.truncate(begin))?;
        self.last.set(texts, self.identity.iter().map(column));
        if self.remembered.leaves_out(texts.into_iter().chain(self.identity.iter().map(column))) {
            lines.truncate(begin);
            return Ok(Written::Known);
        }
        Ok(Written::Record)
    }

    /// Appends the records of the whole rows that `bytes` begin with, as far as the hot path knows
    /// how; see [`transcode`](super::transcode). Returns how many records that were.
    pub fn write_bytes(&mut self, bytes: &[u8], first: bool, lines: &mut Lines) -> (Consumed, u64) {
        let (mut taken, mut records) = (Consumed::default(), 0);
        // The id's copy stands in front of all columns, so the id must be the first of them.
        if self.frame.has_property_columns() || (self.frame.has_id_alias && self.id > 0) {
            return (taken, records);
        }
        let mut spare = bytes.len() + SPARE;
        loop {
            let mut sink = Sink::new(lines.spare(spare));
            let stop = dispatch!(self.level, simd => {
                self.write_rows(simd, bytes, first, &mut sink, &mut taken, &mut records)
            });
            let (written, is_clean) = (sink.len(), sink.is_clean() && self.has_clean_frame);
            lines.written(written, is_clean);
            if stop != Stop::BufferFull {
                taken.incomplete = stop == Stop::Incomplete;
                return (taken, records);
            }
            spare *= 2;
        }
    }

    /// Writes records until something is in the way.
    #[expect(clippy::inline_always, reason = "belongs to the kind of processor that it is called for")]
    #[inline(always)]
    fn write_rows<S: Simd>(
        &mut self,
        simd: S,
        bytes: &[u8],
        first: bool,
        sink: &mut Sink<'_>,
        taken: &mut Consumed,
        records: &mut u64,
    ) -> Stop {
        // The row before is compared where it stands; only the last one is kept.
        let mut has_row_before = false;
        loop {
            let written = sink.len();
            match self.write_next(simd, bytes, taken.bytes, first && taken.rows == 0, has_row_before, sink) {
                Ok((end, kind)) => {
                    has_row_before = true;
                    taken.rows += 1;
                    taken.bytes = end;
                    match kind {
                        Written::Record => *records += 1,
                        Written::Copy | Written::Known => sink.truncate(written),
                    }
                }
                Err(stop) => {
                    sink.truncate(written);
                    if has_row_before {
                        let column = |place: &usize| self.scratch.column_before(*place, bytes);
                        let texts = [column(&self.sort_key), column(&self.id)];
                        self.last.set(texts, self.identity.iter().map(column));
                    }
                    return stop;
                }
            }
        }
    }

    #[expect(clippy::inline_always, reason = "belongs to the kind of processor that it is called for")]
    #[inline(always)]
    fn write_next<S: Simd>(
        &mut self,
        simd: S,
        bytes: &[u8],
        at: usize,
        first: bool,
        has_row_before: bool,
        sink: &mut Sink<'_>,
    ) -> Result<(usize, Written), Stop> {
        self.scratch.next_row();
        let begin = transcode::row_begin(bytes, at, first)?;
        let end = transcode::write_row(simd, &self.frame, bytes, begin, sink, &mut self.scratch)?;
        let column = |place: &usize| self.scratch.column(*place, bytes);
        let column_before = |place: &usize| self.scratch.column_before(*place, bytes);
        let texts @ [sort_key, id] = [column(&self.sort_key), column(&self.id)];
        let before =
            if has_row_before { [column_before(&self.sort_key), column_before(&self.id)] } else { self.last.texts() };
        if !is_text(sort_key) || !is_text(id) || is_behind(before, texts) {
            return Err(Stop::Unsupported);
        }
        let identity = self.identity.iter().map(column);
        let is_copy = if has_row_before {
            is_copy(before, texts, self.identity.iter().map(column_before).zip(identity))
        } else {
            is_copy(before, texts, self.last.identity().zip(identity))
        };
        if is_copy {
            return Ok((end, Written::Copy));
        }
        count(&mut self.settling, &mut self.figures, sort_key, id).map_err(|_| Stop::Unsupported)?;
        let is_known = self.remembered.leaves_out([sort_key, id].into_iter().chain(self.identity.iter().map(column)));
        Ok((end, if is_known { Written::Known } else { Written::Record }))
    }

    /// The key of the last row, for asking for what follows it.
    ///
    /// # Errors
    /// When the server's text of the position is not an instant.
    pub fn last_key(&self) -> Result<Option<RowKey>, Malformed> {
        self.last.key()
    }

    /// Forgets the row before, so that a window is read from its beginning again.
    pub fn restart(&mut self) {
        self.last = LastRow::default();
        if let Some(settling) = &mut self.settling {
            settling.records = 0;
        }
    }
}

impl Settling {
    /// Counts a record by the JSON text of its sort key.
    fn count(&mut self, text: &[u8]) -> Result<(), Malformed> {
        let recent = if let Some(instant) = value::canonical(text) {
            instant.as_slice() >= self.from_text.as_bytes()
        } else {
            let text = std::str::from_utf8(text).unwrap_or_default();
            let instant = Timestamp::parse_json(text);
            instant.ok_or_else(|| Malformed(format!("a row has the unusable sort key {text}")))? >= self.from
        };
        self.records += u64::from(recent);
        Ok(())
    }
}

/// Counts a record that has been written, by the JSON texts of its key.
fn count(
    settling: &mut Option<Settling>,
    figures: &mut Option<DayFigures>,
    sort_key: &[u8],
    id: &[u8],
) -> Result<(), Malformed> {
    if let Some(settling) = settling {
        settling.count(sort_key)?;
    }
    if let Some(figures) = figures {
        figures.add(sort_key, id)?;
    }
    Ok(())
}

fn is_text(value: impl AsRef<[u8]>) -> bool {
    value.as_ref().starts_with(b"\"")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use serde_json::value::RawValue;

    use super::*;
    use crate::streams::EVENTS;

    fn row(properties: &str, uuid: &str, timestamp: &str) -> Vec<Box<RawValue>> {
        [
            uuid,
            "\"$pageview\"",
            properties,
            timestamp,
            "\"2026-01-01T00:00:01Z\"",
            "\"me \\u00e9\"",
            "\"\"",
            "\"p\"",
            "\"\"",
            "\"w\"",
            "\"\"",
            "\"\"",
            "\"\"",
            "\"\"",
            "\"g\"",
            "\"full\"",
        ]
        .iter()
        .map(|text| RawValue::from_string((*text).to_owned()).unwrap())
        .collect()
    }

    fn write(writer: &mut RowWriter, row: &[Box<RawValue>]) -> (Result<Written, Malformed>, String) {
        let row: Vec<&RawValue> = row.iter().map(AsRef::as_ref).collect();
        let mut lines = Vec::new();
        let written = writer.write(&row, &mut lines);
        (written, String::from_utf8(lines).unwrap())
    }

    fn writer() -> RowWriter {
        let stream = StreamDescriptor { name: "events".into(), namespace: Some("n".into()) };
        RowWriter::new(&EVENTS, &EVENTS.selected(false, &Selection::all()), &Selection::all(), &stream, 7)
    }

    #[test]
    fn query_row_becomes_a_record() {
        let mut writer = writer();
        let (written, line) = write(
            &mut writer,
            &row(r#""{\"a\":NaN,\"b\":18446744073709551616}""#, "\"u-1\"", "\"2026-01-01T00:00:00.000001Z\""),
        );
        assert_eq!(written, Ok(Written::Record));
        assert!(line.ends_with('\n'));
        let message: Value = serde_json::from_str(&line).unwrap();
        assert!(line.contains(r#""properties":{"a":null,"b":18446744073709551616}"#), "{line}");
        let record = &message["record"];
        assert_eq!((&record["stream"], &record["namespace"]), (&"events".into(), &"n".into()));
        assert!(record["emitted_at"].is_i64() && record["meta"].is_null());
        let data = &record["data"];
        assert_eq!((&data["id"], &data["uuid"], &data["project_id"]), (&"u-1".into(), &"u-1".into(), &7.into()));
        assert_eq!(
            (&data["session_id"], &data["window_id"], &data["group_4"]),
            (&Value::Null, &"w".into(), &"g".into())
        );
        assert_eq!((&data["person_properties"], &data["distinct_id"]), (&Value::Null, &"me é".into()));
        let fields = EVENTS.schema()["properties"].as_object().unwrap().clone();
        assert!(data.as_object().unwrap().keys().all(|field| fields.contains_key(field)));
        assert_eq!(data.as_object().unwrap().len(), fields.len());
    }

    #[test]
    fn duplicate_rows_are_skipped() {
        let mut writer = writer();
        let first = row("\"{}\"", "\"u-1\"", "\"2026-01-01T00:00:00Z\"");
        assert_eq!(write(&mut writer, &first).0, Ok(Written::Record));
        assert_eq!(write(&mut writer, &first), (Ok(Written::Copy), String::new()));
        let tie = row("\"{}\"", "\"u-2\"", "\"2026-01-01T00:00:00Z\"");
        assert_eq!(write(&mut writer, &tie).0, Ok(Written::Record));
        let key = writer.last_key().unwrap().unwrap();
        assert_eq!((key.id.as_str(), key.sort_key.to_string().as_str()), ("u-2", "2026-01-01T00:00:00.000000Z"));
        writer.restart();
        assert_eq!(write(&mut writer, &tie).0, Ok(Written::Record));
    }

    #[test]
    fn rows_that_share_a_uuid_but_not_a_name_are_all_written() {
        let mut writer = writer().counting_days();
        let first = row("\"{}\"", "\"u-1\"", "\"2026-01-01T00:00:00Z\"");
        let mut renamed = first.clone();
        renamed[1] = RawValue::from_string("\"$pageleave\"".to_owned()).unwrap();
        for (row, expected) in [(&first, Written::Record), (&renamed, Written::Record), (&renamed, Written::Copy)] {
            assert_eq!(write(&mut writer, row).0, Ok(expected));
        }
        assert_eq!(writer.last_key().unwrap().unwrap().identity, ["$pageleave", "me é"]);
        assert_eq!(writer.take_figures(), [(20_454, Fingerprint::new(2, 2))]);
    }

    #[test]
    fn rows_that_are_known_are_counted_and_not_written() {
        let mut first = writer().remembering();
        let known = row("\"{}\"", "\"u-1\"", "\"2026-01-01T00:00:00Z\"");
        assert_eq!(write(&mut first, &known).0, Ok(Written::Record));
        let numbers = Arc::new(first.take_numbers());
        assert_eq!((numbers.len(), first.take_numbers().len()), (1, 0));
        let mut second = writer().counting_days().leaving_out(numbers);
        assert_eq!(write(&mut second, &known), (Ok(Written::Known), String::new()));
        assert_eq!(write(&mut second, &known).0, Ok(Written::Copy));
        let mut renamed = known.clone();
        renamed[1] = RawValue::from_string("\"$pageleave\"".to_owned()).unwrap();
        assert_eq!(write(&mut second, &renamed).0, Ok(Written::Record));
        assert_eq!(second.take_figures(), [(20_454, Fingerprint::new(2, 2))]);
    }

    #[test]
    fn recent_records_are_counted() {
        let from = Timestamp::parse("2026-01-01T00:00:30Z").unwrap();
        let mut writer = writer().counting_recent_rows(from);
        for (second, expected) in [(29, 0), (30, 1), (31, 2)] {
            let time = format!("\"2026-01-01T00:00:{second}Z\"");
            write(&mut writer, &row("\"{}\"", "\"u\"", &time)).0.unwrap();
            assert_eq!(writer.settling(), Some(expected));
        }
        writer.restart();
        assert_eq!(writer.settling(), Some(0));
    }

    #[test]
    fn undecodable_values_become_null_and_are_recorded_in_changes() {
        let (written, line) = write(&mut writer(), &row("\"{broken\"", "\"u\"", "\"2026-01-01T02:00:00+02:00\""));
        assert_eq!(written, Ok(Written::Record));
        let record: Value = serde_json::from_str(&line).unwrap();
        let record = &record["record"];
        assert_eq!(record["data"]["properties"], Value::Null);
        assert_eq!(record["data"]["timestamp"], "2026-01-01T00:00:00.000000Z");
        assert_eq!(
            record["meta"]["changes"][0],
            serde_json::json!({"field": "properties", "change": "NULLED", "reason": "SOURCE_SERIALIZATION_ERROR"})
        );
    }

    #[test]
    fn rows_of_another_shape_are_rejected() {
        let mut writer = writer();
        let mut incomplete = row("\"{}\"", "\"u\"", "\"2026-01-01T00:00:00Z\"");
        incomplete.pop();
        assert!(write(&mut writer, &incomplete).0.is_err());
        let (written, line) = write(&mut writer, &row("\"{}\"", "null", "\"2026-01-01T00:00:00Z\""));
        assert!(written.is_err() && line.is_empty());
        assert_eq!(writer.last_key(), Ok(None));
    }
}
