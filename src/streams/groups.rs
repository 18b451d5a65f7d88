//! `groups`: companies, teams and other entities that events belong to besides persons.
//!
//! Columns are those of `HogQL`'s `groups` table. Its `updated_at` moves with every change.

use chrono::TimeDelta;

use super::column::{Column, Kind};
use super::table::Table;

pub static GROUPS: Table = Table {
    stream: "groups",
    from: "groups",
    columns: &[
        Column::new("id", Kind::String, "Number of the group's type, a colon, and its key.").selected_as(ID),
        Column::new("group_type_index", Kind::Integer, "Number of the group's type.").selected_as("`index`"),
        Column::new("group_key", Kind::String, "Key of the group.").selected_as("key"),
        Column::new("properties", Kind::Json, "Properties of the group."),
        Column::new("created_at", Kind::Timestamp, "When the group was seen first."),
        Column::new("updated_at", Kind::Timestamp, "When the group changed last."),
    ],
    optional_columns: &[],
    sort_key: "updated_at",
    sort_key_field: "updated_at",
    day: "intDiv(toUnixTimestamp(updated_at), 86400)",
    id: ID,
    id_field: "id",
    id_alias: None,
    primary_key: &["project_id", "id"],
    ingestion_time: None,
    identity: &[],
    duplicates: None,
    cursor_field: "updated_at",
    event_name_column: None,
    bounded_by_dates: false,
    rows_move: true,
    grows_for: TimeDelta::zero(),
    rounds_to: TimeDelta::zero(),
    without: None,
    changes: None,
    fed_by: None,
    export: None,
};

const ID: &str = "concat(toString(`index`), ':', key)";
