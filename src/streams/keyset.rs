//! Streams that are read by queries from tables without a time: in the order of a key.

use serde_json::{Map, Value, json};

use super::column::{Column, Kind};
use super::selection::Selection;
use super::table::{PROJECT_FIELD, object_schema};

/// A stream that is read page by page in the order of its key.
#[derive(Debug)]
pub struct KeysetStream {
    pub stream: &'static str,
    /// What it is read from, one after the other.
    pub parts: &'static [KeysetTable],
    pub columns: &'static [Column],
    /// Fields that, with the project, identify a row; they become the primary key.
    pub key: &'static [&'static str],
    /// A field with a whole number that the server finds rows by quickly: a table of any size is read in
    /// windows of it, so that no page costs the whole table.
    pub windows: Option<&'static str>,
    /// The list of the objects that `windows` has the numbers of; rows of deleted ones are left out.
    pub owners: Option<&'static str>,
    /// Field by which later syncs continue, if there is one.
    pub cursor: Option<&'static str>,
    /// Whether a row that has the key of another one is another row, and no copy.
    pub key_must_be_unique: bool,
}

/// One of the tables of a stream.
#[derive(Debug)]
pub struct KeysetTable {
    /// A `HogQL` table, or a query in parentheses with a name.
    pub from: &'static str,
    /// A field that identifies this part, and its value as JSON.
    pub label: Option<(&'static str, &'static str)>,
    /// Whether some versions of `PostHog` do without it.
    pub optional: bool,
}

/// The members of all cohorts.
pub static COHORT_PEOPLE: KeysetStream = KeysetStream {
    stream: "cohort_people",
    parts: &[
        KeysetTable { from: "cohort_people", label: Some(("is_static", "false")), optional: false },
        KeysetTable { from: "static_cohort_people", label: Some(("is_static", "true")), optional: true },
    ],
    columns: &[
        Column::new("cohort_id", Kind::Integer, "Number of the cohort."),
        Column::new("person_id", Kind::String, "A member of the cohort."),
    ],
    key: &["cohort_id", "person_id"],
    // The server does not skip anything by a key of two values, but it does by the cohort.
    windows: Some("cohort_id"),
    // Fixed lists of members stay in their table when their cohort is deleted.
    owners: Some("cohorts"),
    cursor: None,
    key_must_be_unique: false,
};

impl KeysetStream {
    pub fn primary_key(&self) -> Vec<&'static str> {
        [PROJECT_FIELD].into_iter().chain(self.key.iter().copied()).collect()
    }

    pub fn expression(&self, field: &str) -> &'static str {
        self.columns
            .iter()
            .find(|column| column.field == field)
            .and_then(|column| column.expression)
            .unwrap_or_default()
    }

    /// The columns that are wanted; what rows are ordered by is read besides.
    pub fn selected(&self, selection: &Selection) -> Vec<Column> {
        self.columns.iter().filter(|column| selection.has_column(column)).copied().collect()
    }

    pub fn schema(&self) -> Value {
        let mut fields = Map::new();
        fields.insert(
            PROJECT_FIELD.to_owned(),
            json!({"type": ["null", "integer"], "description": "Number of the project in PostHog."}),
        );
        if let Some((label, _)) = self.parts.iter().find_map(|part| part.label) {
            fields.insert(
                label.to_owned(),
                json!({"type": ["null", "boolean"], "description": "Whether its members are a fixed list."}),
            );
        }
        for column in self.columns {
            fields.insert(column.field.to_owned(), column.schema());
        }
        object_schema(fields)
    }
}
