//! `persons`: the people behind the events.
//!
//! Exports include the time of the last update and deleted persons; they have one line per distinct id,
//! of which one becomes a record. Queries have no time of change. `last_seen_at` is the nearest: it moves
//! with every event of a person, and with it the person's properties, but an edit of properties
//! without an event may not move it. `PostHog` rounds it down to the hour
//! (`person-property-service.ts`). `created_at` stands in where it is empty.

use chrono::TimeDelta;

use super::column::{Column, ExportedAs, Kind, Properties};
use super::selection::Selection;
use super::table::{Table, VERSION_FIELD};

const LAST_SEEN: &str = "coalesce(last_seen_at, created_at)";

const fn columns(updated_at: &'static str, last_seen_at: Column) -> [Column; 10] {
    [
        Column::new("id", Kind::String, "Identifies the person.").exported_as(ExportedAs::Field("person_id")),
        Column::new("created_at", Kind::Timestamp, "When the person was seen first."),
        Column::new(
            "updated_at",
            Kind::Timestamp,
            "When the person last changed: exact in file exports; in queries, when the person was last seen.",
        )
        .selected_as(updated_at)
        .exported_as(ExportedAs::Field("_inserted_at")),
        last_seen_at,
        Column::new("is_identified", Kind::Boolean, "Whether the person has been identified. Only filled by queries.")
            .exported_as(ExportedAs::Nowhere),
        Column::new("properties", Kind::Json, "Properties of the person.").holding(Properties::OfPerson),
        Column::new("name", Kind::String, "Always empty; what PostHog shows as the name is one of the properties.")
            .nowhere(),
        Column::new("distinct_ids", Kind::Strings, "Always empty; see the stream `person_distinct_ids`.").nowhere(),
        Column::new(
            "is_deleted",
            Kind::Boolean,
            "Whether the person was deleted or merged into another. Merged persons are only found by queries.",
        )
        .selected_as("false"),
        Column::new(
            "version",
            Kind::Integer,
            "Increases with every change of the person. Queries only fill it for deleted and merged persons.",
        )
        .not_selected()
        .exported_as(ExportedAs::Field("person_version")),
    ]
}

const LAST_SEEN_AT: Column =
    Column::new("last_seen_at", Kind::Timestamp, "When the person was seen last. Only filled by queries.")
        .exported_as(ExportedAs::Nowhere);

const fn persons(
    columns: &'static [Column],
    sort_key: &'static str,
    day: &'static str,
    rounds_to: TimeDelta,
    without: Option<(&'static str, &'static Table)>,
) -> Table {
    Table {
        stream: "persons",
        from: "persons",
        columns,
        optional_columns: &[],
        sort_key,
        sort_key_field: "updated_at",
        day,
        id: "id",
        id_field: "id",
        id_alias: Some("uuid"),
        primary_key: &["id"],
        ingestion_time: None,
        identity: &[],
        duplicates: None,
        cursor_field: "updated_at",
        event_name_column: None,
        bounded_by_dates: false,
        rows_move: true,
        grows_for: TimeDelta::zero(),
        rounds_to,
        without,
        changes: None,
        fed_by: None,
        export: Some("persons"),
    }
}

/// Columns of a deleted person, from [`newest_of_person`]. When it was deleted is not known; `updated_at` is
/// when that was noticed, and put in by the reader.
static DELETED_PERSON: [Column; 7] = [
    Column::new("id", Kind::String, ""),
    Column::new("created_at", Kind::Timestamp, "").selected_as("first_seen"),
    Column::new("updated_at", Kind::Timestamp, "").selected_as("noticed_at"),
    Column::new("is_identified", Kind::Boolean, "").selected_as("was_identified"),
    Column::new("properties", Kind::Json, "").selected_as("last_properties").holding(Properties::OfPerson),
    Column::new("is_deleted", Kind::Boolean, "").selected_as("gone"),
    Column::new("version", Kind::Integer, "").selected_as("last_version"),
];

/// The newest version of a person, by the names that [`DELETED_PERSON`] has for its columns.
const NEWEST_OF_PERSON: [(&str, &str); 5] = [
    ("first_seen", "argMax(created_at, version)"),
    ("was_identified", "argMax(is_identified, version)"),
    ("last_properties", "argMax(properties, version)"),
    ("gone", "argMax(is_deleted, version)"),
    ("last_version", "max(version)"),
];

/// The columns of a deleted person that are wanted, its key, and its version as the last one; see
/// [`newest_of_person`].
pub fn deleted_person(selection: &Selection) -> Vec<Column> {
    let is_read = |column: &Column| {
        selection.has(column.field) || PERSONS.needs(column, selection) || column.field == VERSION_FIELD
    };
    DELETED_PERSON.iter().filter(|column| is_read(column)).copied().collect()
}

/// What to select from [`RAW_PERSONS`], grouped by `id`, for these columns, and for `gone`.
pub fn newest_of_person(columns: &[Column]) -> String {
    let is_read = |name: &str| name == "gone" || columns.iter().any(|column| column.expression == Some(name));
    let newest = NEWEST_OF_PERSON.iter().filter(|(name, _)| is_read(name));
    newest.fold("id".to_owned(), |text, (name, expression)| format!("{text}, {expression} AS {name}"))
}

/// All versions of all persons, deleted ones included (`hogql/database/schema/persons.py`).
pub const RAW_PERSONS: &str = "raw_persons";

/// The stream.
pub static PERSONS: Table = persons(
    &columns(LAST_SEEN, LAST_SEEN_AT),
    LAST_SEEN,
    "intDiv(toUnixTimestamp(coalesce(last_seen_at, created_at)), 86400)",
    TimeDelta::hours(1),
    Some(("last_seen_at", &PERSONS_BY_CREATION)),
);

/// The stream on instances from before February 2026, which do not store when a person was last seen.
static PERSONS_BY_CREATION: Table = persons(
    &columns("created_at", LAST_SEEN_AT.not_selected()),
    "created_at",
    "intDiv(toUnixTimestamp(created_at), 86400)",
    TimeDelta::zero(),
    None,
);
