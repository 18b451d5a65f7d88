//! `person_distinct_ids`: which person a distinct id belongs to today.
//!
//! Exports of persons have a line for each distinct id of every person that has changed, and of every
//! person that has got another distinct id (`batch_exports/sql/persons.py`), so both streams are read from
//! the same files. Queries read the table behind `person_distinct_ids` itself, in the order in which
//! `ClickHouse` keeps it.

use chrono::TimeDelta;

use super::column::{Column, ExportedAs, Kind};
use super::table::Table;

/// The stream. Queries do not read it as they read other tables: see `sync/distinct_ids.rs`.
pub static PERSON_DISTINCT_IDS: Table = Table {
    stream: "person_distinct_ids",
    from: "raw_person_distinct_ids",
    columns: &[
        Column::new("distinct_id", Kind::String, "A distinct id that events are sent with."),
        Column::new("person_id", Kind::String, "The person that the distinct id belongs to."),
        Column::new("is_deleted", Kind::Boolean, "Whether the distinct id was deleted, together with its person."),
        Column::new(
            "version",
            Kind::Integer,
            "Increases when the distinct id moves to another person or is deleted: of two records, the one with the higher version is current.",
        )
        .exported_as(ExportedAs::Field("person_distinct_id_version")),
        Column::new("updated_at", Kind::Timestamp, "When the distinct id or its person last changed. Only filled by file exports.")
            .not_selected()
            .exported_as(ExportedAs::Field("_inserted_at")),
    ],
    optional_columns: &[],
    sort_key: "distinct_id",
    sort_key_field: "updated_at",
    day: "0",
    id: "distinct_id",
    id_field: "distinct_id",
    id_alias: None,
    primary_key: &["project_id", "distinct_id"],
    ingestion_time: None,
    changes: None,
    identity: &[],
    duplicates: None,
    cursor_field: "version",
    event_name_column: None,
    bounded_by_dates: false,
    rows_move: false,
    grows_for: TimeDelta::zero(),
    rounds_to: TimeDelta::zero(),
    without: None,
    fed_by: None,
    export: Some("persons"),
};

/// The same table as `PostHog` shows it to users: without deleted ids, and without versions. Some
/// instances may have nothing else.
pub const WITHOUT_VERSIONS: &str = "person_distinct_ids";
