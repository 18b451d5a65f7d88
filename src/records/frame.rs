//! The fixed parts of a stream's RECORD lines.

use std::sync::Arc;

use serde_json::Value;

use super::fixed::Fixed;
use super::nulled::NulledValues;
use super::property_columns::PropertyWriter;
use super::value;
use crate::posthog::Malformed;
use crate::protocol::StreamDescriptor;
use crate::protocol::message::{now_milliseconds, record_prefix, record_suffix};
use crate::streams::PropertyColumns;
use crate::streams::{Column, Kind};
use crate::streams::{PROJECT_FIELD, Table};

/// The beginning and the end of every RECORD line of a stream, around its data.
pub(super) struct RecordEnvelope {
    prefix: Vec<u8>,
}

impl RecordEnvelope {
    /// The envelope for records of `stream`.
    pub(super) fn new(stream: &StreamDescriptor) -> Self {
        Self { prefix: record_prefix(stream) }
    }

    /// The bytes in front of the data.
    fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// The bytes behind the data of a record that is emitted now.
    fn suffix() -> Vec<u8> {
        record_suffix(now_milliseconds())
    }

    /// Appends one line; `data` appends its data, a JSON object.
    pub(super) fn write(&self, lines: &mut Vec<u8>, data: impl FnOnce(&mut Vec<u8>)) {
        lines.extend_from_slice(&self.prefix);
        data(lines);
        lines.extend_from_slice(&Self::suffix());
    }
}

/// Everything in the records of one table and one project that does not change from row to row.
///
/// A value that cannot be decoded becomes null and is listed in `meta.changes`, so that nothing is
/// lost without a trace.
pub(super) struct RecordFrame {
    /// Everything from the line's beginning to the value of the id's copy, if there is one.
    pub(super) prefix: Fixed,
    /// Everything between the id's copy and the first column.
    pub(super) project: Fixed,
    pub(super) fields: Vec<Field>,
    /// Fields that are not columns, as `,"field":null`.
    pub(super) absent: Vec<u8>,
    pub(super) suffix: Fixed,
    pub(super) has_id_alias: bool,
    /// Properties that are fields of their own.
    property_columns: Option<PropertyWriter>,
    nulled: NulledValues,
}

pub(super) struct Field {
    /// `,"field":`
    pub(super) key: Fixed,
    name: &'static str,
    pub(super) kind: Kind,
}

impl RecordFrame {
    /// The frame for `columns` of `table`; the table's other columns are null.
    pub(super) fn new(table: &Table, columns: &[Column], stream: &StreamDescriptor, project: u64) -> Self {
        let mut absent = Vec::new();
        for other in table.all_columns() {
            if columns.iter().all(|column| column.field != other.field) {
                absent.extend_from_slice(format!(",\"{}\":null", other.field).as_bytes());
            }
        }
        Self { absent, ..Self::of_columns(table.id_alias, columns, stream, project) }
    }

    /// The frame for `columns` alone.
    pub(super) fn of_columns(
        id_alias: Option<&str>,
        columns: &[Column],
        stream: &StreamDescriptor,
        project: u64,
    ) -> Self {
        let mut prefix = RecordEnvelope::new(stream).prefix().to_vec();
        prefix.push(b'{');
        if let Some(copy) = id_alias {
            prefix.extend_from_slice(format!("\"{copy}\":").as_bytes());
        }
        let comma = if id_alias.is_some() { "," } else { "" };
        let fields = columns.iter().map(|column| Field {
            key: format!(",{}:", Value::from(column.field)).into_bytes().into(),
            name: column.field,
            kind: column.kind,
        });
        Self {
            prefix: prefix.into(),
            project: format!("{comma}\"{PROJECT_FIELD}\":{project}").into_bytes().into(),
            fields: fields.collect(),
            absent: Vec::new(),
            suffix: RecordEnvelope::suffix().into(),
            has_id_alias: id_alias.is_some(),
            property_columns: None,
            nulled: NulledValues::default(),
        }
    }

    /// Adds a field that has the same value, given as JSON text, in every record.
    pub(super) fn add_constant(&mut self, field: &str, value: &str) {
        self.absent.extend_from_slice(format!(",\"{field}\":{value}").as_bytes());
    }

    /// Adds properties as fields of their own.
    pub(super) fn set_property_columns(&mut self, property_columns: &Arc<PropertyColumns>) {
        self.property_columns = PropertyWriter::new(property_columns);
    }

    /// Warns through `nulled` of values that become null.
    pub(super) fn set_nulled_values(&mut self, nulled: &NulledValues) {
        self.nulled = nulled.clone();
    }

    /// Whether properties are fields of their own.
    pub(super) fn has_property_columns(&self) -> bool {
        self.property_columns.is_some()
    }

    /// Number of columns.
    pub(super) fn width(&self) -> usize {
        self.fields.len()
    }

    /// Checks that a row has as many columns as were asked for.
    pub(super) fn check_width(&self, columns: usize) -> Result<(), Malformed> {
        if columns == self.width() {
            return Ok(());
        }
        Err(Malformed(format!("a row has {columns} columns instead of {}", self.width())))
    }

    /// Takes the time of emission for the records from now on.
    pub(super) fn stamp(&mut self) {
        self.suffix = RecordEnvelope::suffix().into();
    }

    /// Appends a record with the values' JSON texts, one per column.
    pub(super) fn append(&self, id: &str, values: impl Iterator<Item = impl AsRef<str>>, lines: &mut Vec<u8>) {
        let mut undecoded: Vec<&str> = Vec::new();
        let mut document = 0..0;
        lines.extend_from_slice(self.prefix.as_bytes());
        if self.has_id_alias {
            lines.extend_from_slice(id.as_bytes());
        }
        lines.extend_from_slice(self.project.as_bytes());
        for (field, text) in self.fields.iter().zip(values) {
            lines.extend_from_slice(field.key.as_bytes());
            let begin = lines.len();
            if !value::append(field.kind, text.as_ref(), lines) {
                undecoded.push(field.name);
            }
            if field.name == "properties" {
                document = begin..lines.len();
            }
        }
        lines.extend_from_slice(&self.absent);
        if let Some(property_columns) = &self.property_columns {
            property_columns.append(document, lines, &mut undecoded);
        }
        lines.push(b'}');
        append_changes(&undecoded, &self.nulled, lines);
        lines.extend_from_slice(self.suffix.as_bytes());
    }
}

/// Appends, behind the data of a record, which of its fields are null because they could not be decoded.
pub(super) fn append_changes(undecoded: &[&str], nulled: &NulledValues, lines: &mut Vec<u8>) {
    let Some(field) = undecoded.first() else { return };
    nulled.warn(field);
    let change =
        |field: &&str| serde_json::json!({"field": field, "change": "NULLED", "reason": "SOURCE_SERIALIZATION_ERROR"});
    let changes: Vec<Value> = undecoded.iter().map(change).collect();
    lines.extend_from_slice(format!(",\"meta\":{{\"changes\":{}}}", Value::Array(changes)).as_bytes());
}
