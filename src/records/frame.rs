//! The fixed parts of a stream's RECORD lines.

use serde_json::Value;

use super::fixed::Fixed;
use super::nulled::NulledValues;
use super::property_columns::PropertyWriter;
use super::property_filter::{FilterScratch, PropertyFilter};
use super::value;
use crate::posthog::Malformed;
use crate::protocol::message::{now_milliseconds, record_prefix, record_suffix};
use crate::protocol::{StreamDescriptor, has_separators};
use crate::streams::{Column, Kind};
use crate::streams::{PROJECT_FIELD, PROPERTIES_FIELD, Selection, Table};

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
    keys: Keys,
    pub(super) suffix: Fixed,
    pub(super) has_id_alias: bool,
    /// Properties that are fields of their own.
    property_columns: Option<PropertyWriter>,
    nulled: NulledValues,
    filtered: FilterScratch,
}

pub(super) struct Field {
    /// `,"field":`
    pub(super) key: Fixed,
    name: &'static str,
    pub(super) kind: Kind,
    /// Whether it is part of the record; otherwise only the reader needs it.
    pub(super) is_emitted: bool,
    /// What becomes of the properties in it.
    pub(super) filter: Option<PropertyFilter>,
    /// Whether its value is emitted as it is, and nothing else is made from it. Most are, so one look has to do.
    pub(super) is_plain: bool,
}

impl Field {
    /// Appends what becomes of the field in a record, given as JSON text, as far as it is part of it. Returns the
    /// fields that `columns` make from it.
    #[cold]
    fn append_special<'l>(
        &'l self,
        text: &str,
        columns: Option<&'l PropertyWriter>,
        lines: &mut Vec<u8>,
        scratch: &mut FilterScratch,
        undecoded: &mut Vec<&'l str>,
    ) -> Option<Vec<u8>> {
        let columns = columns.filter(|_| self.name == PROPERTIES_FIELD);
        if !self.is_emitted && columns.is_none() {
            return None;
        }
        let begin = lines.len();
        lines.extend_from_slice(self.key.as_bytes());
        let value = lines.len();
        let is_decoded = self.append(text, lines, scratch);
        if !is_decoded && self.is_emitted {
            undecoded.push(self.name);
        }
        let fields = columns.map(|columns| columns.fields(lines.get(value..).unwrap_or_default(), undecoded));
        if !self.is_emitted {
            lines.truncate(begin);
        }
        fields
    }

    /// Appends a value, given as JSON text; false if it is null because it could not be decoded.
    fn append(&self, text: &str, lines: &mut Vec<u8>, scratch: &mut FilterScratch) -> bool {
        let Some(filter) = &self.filter else { return value::append(self.kind, text, lines) };
        let begin = lines.len();
        let whole = if matches!(self.kind, Kind::Members(_)) { Kind::Json } else { self.kind };
        let is_decoded = value::append(whole, text, lines);
        filter.apply(lines.get(begin..).unwrap_or_default(), scratch);
        lines.truncate(begin);
        if whole == self.kind {
            lines.extend_from_slice(&scratch.text);
            return is_decoded;
        }
        let members = std::str::from_utf8(&scratch.text).unwrap_or("null");
        value::append(self.kind, members, lines) && is_decoded
    }
}

/// Keys of a record in their order, with the commas between them.
#[derive(Default)]
struct Keys {
    has_any: bool,
}

impl Keys {
    /// The next key, as `,"field":`.
    fn next(&mut self, field: &str) -> Vec<u8> {
        let comma = if std::mem::replace(&mut self.has_any, true) { "," } else { "" };
        format!("{comma}{}:", Value::from(field)).into_bytes()
    }
}

impl RecordFrame {
    /// The frame for `columns` of `table`; the table's other columns are null, if they are wanted.
    pub(super) fn new(
        table: &Table,
        columns: &[Column],
        selection: &Selection,
        stream: &StreamDescriptor,
        project: u64,
    ) -> Self {
        let mut frame = Self::of_columns(table.id_alias, columns, selection, stream, project);
        for other in table.all_columns() {
            if columns.iter().all(|column| column.field != other.field) {
                frame.add_constant(other.field, "null", selection);
            }
        }
        frame.property_columns = PropertyWriter::new(selection.property_columns(), |field| frame.keys.next(field));
        if frame.property_columns.is_some() {
            frame.fields.iter_mut().for_each(|field| field.is_plain &= field.name != PROPERTIES_FIELD);
        }
        frame
    }

    /// The frame for `columns` alone.
    pub(super) fn of_columns(
        id_alias: Option<&str>,
        columns: &[Column],
        selection: &Selection,
        stream: &StreamDescriptor,
        project: u64,
    ) -> Self {
        let mut prefix = RecordEnvelope::new(stream).prefix().to_vec();
        prefix.push(b'{');
        let mut keys = Keys::default();
        let id_alias = id_alias.filter(|alias| selection.has(alias));
        if let Some(copy) = id_alias {
            prefix.extend(keys.next(copy));
        }
        let mut project_field = Vec::new();
        if selection.has(PROJECT_FIELD) {
            project_field.extend(keys.next(PROJECT_FIELD));
            project_field.extend_from_slice(project.to_string().as_bytes());
        }
        let mut fields = Vec::with_capacity(columns.len());
        for column in columns {
            let is_emitted = selection.has_column(column);
            let filter = PropertyFilter::of_column(column, selection);
            let key = if is_emitted { keys.next(column.field) } else { Vec::new() };
            let (name, kind, is_plain) = (column.field, column.kind, is_emitted && filter.is_none());
            fields.push(Field { key: key.into(), name, kind, is_emitted, filter, is_plain });
        }
        Self {
            prefix: prefix.into(),
            project: project_field.into(),
            fields,
            absent: Vec::new(),
            keys,
            suffix: RecordEnvelope::suffix().into(),
            has_id_alias: id_alias.is_some(),
            property_columns: None,
            nulled: NulledValues::default(),
            filtered: FilterScratch::default(),
        }
    }

    /// Adds a field that has the same value, given as JSON text, in every record, if it is wanted.
    pub(super) fn add_constant(&mut self, field: &str, value: &str, selection: &Selection) {
        if selection.has(field) {
            self.absent.extend(self.keys.next(field));
            self.absent.extend_from_slice(value.as_bytes());
        }
    }

    /// Warns through `nulled` of values that become null.
    pub(super) fn set_nulled_values(&mut self, nulled: &NulledValues) {
        self.nulled = nulled.clone();
    }

    /// Whether properties are fields of their own.
    pub(super) fn has_property_columns(&self) -> bool {
        self.property_columns.is_some()
    }

    /// Whether what is the same in all records has no separators; the names of streams may be anything.
    pub(super) fn is_clean(&self) -> bool {
        let keys = self.fields.iter().map(|field| field.key.as_bytes());
        !keys.chain([self.prefix.as_bytes(), &self.absent]).any(has_separators)
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
    pub(super) fn append(&mut self, id: &str, values: impl Iterator<Item = impl AsRef<str>>, lines: &mut Vec<u8>) {
        let mut undecoded: Vec<&str> = Vec::new();
        let mut property_fields = Vec::new();
        lines.extend_from_slice(self.prefix.as_bytes());
        if self.has_id_alias {
            lines.extend_from_slice(id.as_bytes());
        }
        lines.extend_from_slice(self.project.as_bytes());
        for (field, text) in self.fields.iter().zip(values) {
            if field.is_plain {
                lines.extend_from_slice(field.key.as_bytes());
                if !value::append(field.kind, text.as_ref(), lines) {
                    undecoded.push(field.name);
                }
                continue;
            }
            let (columns, scratch) = (self.property_columns.as_ref(), &mut self.filtered);
            if let Some(fields) = field.append_special(text.as_ref(), columns, lines, scratch, &mut undecoded) {
                property_fields = fields;
            }
        }
        lines.extend_from_slice(&self.absent);
        lines.extend_from_slice(&property_fields);
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
