//! A stream that is read by queries from one `HogQL` table.

use chrono::TimeDelta;
use serde_json::{Map, Value, json};

use super::column::{Column, ExportedAs};
use super::selection::Selection;

/// Everything that distinguishes one table stream from another. A new one is a new constant.
#[derive(Debug)]
pub struct Table {
    pub stream: &'static str,
    pub from: &'static str,
    /// Fields in the order of the records.
    pub columns: &'static [Column],
    /// Fields that queries only read when the user wants them; null otherwise.
    pub optional_columns: &'static [Column],
    /// Expression that rows are ordered and sliced by: an instant that every row has.
    pub sort_key: &'static str,
    /// Field that carries the position.
    pub sort_key_field: &'static str,
    /// Expression that numbers the UTC day of the position since the epoch.
    pub day: &'static str,
    /// Expression that, with the position, identifies a row.
    pub id: &'static str,
    /// Field that carries the id.
    pub id_field: &'static str,
    /// Field for a second copy of the id, for compatibility.
    pub id_alias: Option<&'static str>,
    pub primary_key: &'static [&'static str],
    /// When the server received a row, if that is another instant than the position.
    ///
    /// With it, incremental syncs ask for what has arrived; without it, for what has moved on.
    pub ingestion_time: Option<&'static str>,
    /// Columns that, with sort key and id, identify a row; fields of the same names.
    pub identity: &'static [&'static str],
    /// Order of un-merged copies of one row: the one to keep comes first.
    pub duplicates: Option<&'static str>,
    pub cursor_field: &'static str,
    /// Column that `include_events` and `exclude_events` apply to.
    pub event_name_column: Option<&'static str>,
    /// Whether `start_date` and `end_date` bound the position.
    pub bounded_by_dates: bool,
    /// Whether rows move to a later position while they are read.
    pub rows_move: bool,
    /// How long after its position a row may still change.
    pub grows_for: TimeDelta,
    /// `PostHog` rounds positions down to a multiple of this, so a new row may stand so much before the
    /// time at which it happened.
    pub rounds_to: TimeDelta,
    /// A column that the sort key needs and versions of `PostHog` lack, and the table for those that do.
    pub without: Option<(&'static str, &'static Table)>,
    /// When rows have changed, if the instance shows it. Without it, what has moved on is read, or what may still
    /// have changed.
    pub changes: Option<Changes>,
    /// The table whose new rows make this one's rows change.
    pub fed_by: Option<&'static Table>,
    /// Model of file download exports, if it can be exported.
    pub export: Option<&'static str>,
}

/// How a table shows that its rows have changed: its later syncs ask for that.
#[derive(Debug)]
pub struct Changes {
    /// Expression for the time at which the last change was ingested.
    pub at: &'static str,
    /// Expression for the time up to which the row tells.
    pub end: &'static str,
    /// Field with the later one of both, by which exports go.
    pub changed_field: &'static str,
    /// Field with the time up to which the row tells.
    pub end_field: &'static str,
}

impl Changes {
    /// The fields that show in an exported line when it has changed.
    pub fn fields(&self) -> [&'static str; 2] {
        [self.changed_field, self.end_field]
    }
}

/// The field with the project that a record belongs to.
pub(crate) const PROJECT_FIELD: &str = "project_id";
/// The field with the properties that columns are made from.
pub(crate) const PROPERTIES_FIELD: &str = "properties";
/// The field with the version of a row that can have several lines in exported files.
pub(crate) const VERSION_FIELD: &str = "version";

impl Table {
    /// The columns that queries select: those that are wanted, and those without which rows cannot be read.
    pub fn selected(&self, with_optional: bool, selection: &Selection) -> Vec<Column> {
        let optional = if with_optional { self.optional_columns } else { &[] };
        let columns = self.columns.iter().chain(optional).filter(|column| column.expression.is_some());
        columns.filter(|column| selection.has_column(column) || self.needs(column, selection)).copied().collect()
    }

    /// The columns that are looked for in exported files; see [`Table::selected`].
    pub fn exported(&self, selection: &Selection) -> Vec<Column> {
        let from_properties =
            |column: &Column| matches!(column.exported, ExportedAs::Property(_)) && selection.has_column(column);
        let needs_properties = self.all_columns().any(|column| from_properties(&column));
        let is_read = |column: &Column| {
            selection.has_column(column)
                || self.needs(column, selection)
                || column.field == PROPERTIES_FIELD && needs_properties
                || column.field == VERSION_FIELD
                || self.changes.as_ref().is_some_and(|changes| changes.fields().contains(&column.field))
        };
        self.all_columns().filter(|column| column.exported != ExportedAs::Nowhere && is_read(column)).collect()
    }

    /// Whether a column is read whatever is wanted: what identifies a row, and what other columns are made from.
    pub(super) fn needs(&self, column: &Column, selection: &Selection) -> bool {
        let is_key = [self.id_field, self.sort_key_field, self.cursor_field].contains(&column.field);
        let makes_columns = column.field == PROPERTIES_FIELD && !selection.property_columns().is_empty();
        is_key || self.identity.contains(&column.field) || makes_columns
    }

    pub(crate) fn all_columns(&self) -> impl Iterator<Item = Column> + '_ {
        self.columns.iter().chain(self.optional_columns).copied()
    }

    /// The key of the watermark in the state: the cursor's name where that is a time.
    pub fn watermark_field(&self) -> &'static str {
        if self.exports_repeat_rows() { self.sort_key_field } else { self.cursor_field }
    }

    /// Whether a row can have several lines in exported files: a person has one for each distinct id, and
    /// again when one of them changes later.
    pub fn exports_repeat_rows(&self) -> bool {
        self.export == Some("persons")
    }

    pub fn schema(&self) -> Value {
        let mut properties = Map::new();
        if let Some(copy) = self.id_alias {
            let description = format!("The same as `{}`.", self.id_field);
            properties.insert(copy.to_owned(), json!({"type": ["null", "string"], "description": description}));
        }
        properties.insert(
            PROJECT_FIELD.to_owned(),
            json!({"type": ["null", "integer"], "description": "Number of the project in PostHog."}),
        );
        for column in self.all_columns() {
            properties.insert(column.field.to_owned(), column.schema());
        }
        object_schema(properties)
    }
}

/// The schema (draft 7) of records with these fields.
#[expect(clippy::needless_pass_by_value, reason = "the macro takes a reference, its callers give maps away")]
pub(super) fn object_schema(properties: Map<String, Value>) -> Value {
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "additionalProperties": true,
        "properties": properties,
    })
}
