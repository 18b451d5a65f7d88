//! `events`: everything that was captured.
//!
//! Columns are those of PostHog's `events` table in `HogQL` (`hogql/database/schema/events.py`),
//! without `$` in the field names. Exported files have no columns for session, window and groups,
//! but the properties that `PostHog` makes these columns from.

use chrono::TimeDelta;

use super::column::{Column, ExportedAs, Kind, Properties};
use super::table::Table;

const fn from_property(field: &'static str, name: &'static str, column: &'static str, about: &'static str) -> Column {
    Column::new(field, Kind::OptionalString, about)
        .selected_as(column)
        .exported_as(ExportedAs::Property(name))
        .made_from(name)
}

pub static EVENTS: Table = Table {
    stream: "events",
    from: "events",
    columns: &[
        Column::new("uuid", Kind::String, "Identifies the event."),
        Column::new("event", Kind::String, "Name of the event."),
        Column::new("properties", Kind::Json, "What was sent with the event, and what PostHog added.")
            .holding(Properties::OfEvent),
        Column::new("timestamp", Kind::Timestamp, "When it happened, by the sender's clock."),
        Column::new("created_at", Kind::Timestamp, "When PostHog received it."),
        Column::new("distinct_id", Kind::String, "Identifies the user or device, as the sender knows it."),
        Column::new(
            "elements_chain",
            Kind::String,
            "The elements of the page that the event is about, in PostHog's notation.",
        )
        .made_from("$elements_chain"),
        Column::new(
            "person_id",
            Kind::String,
            "The person when the event was ingested; later merges do not change it. `person_distinct_ids` has the person to whom a distinct id belongs today.",
        ),
        from_property("session_id", "$session_id", "`$session_id`", "The session that the event belongs to."),
        from_property("window_id", "$window_id", "`$window_id`", "The browser window or tab."),
        from_property("group_0", "$group_0", "`$group_0`", "Key of the first group type."),
        from_property("group_1", "$group_1", "`$group_1`", "Key of the second group type."),
        from_property("group_2", "$group_2", "`$group_2`", "Key of the third group type."),
        from_property("group_3", "$group_3", "`$group_3`", "Key of the fourth group type."),
        from_property("group_4", "$group_4", "`$group_4`", "Key of the fifth group type."),
        Column::new(
            "person_mode",
            Kind::OptionalString,
            "Whether the event made a person profile: full, propertyless or force_upgrade. Only filled by queries.",
        )
        .exported_as(ExportedAs::Nowhere),
        Column::new("person", Kind::Json, "Always empty; see `person_id` and `person_properties`.").nowhere(),
        Column::new("elements", Kind::List, "Always empty; see `elements_chain`.").nowhere(),
    ],
    optional_columns: &[Column::new(
        "person_properties",
        Kind::Json,
        "Properties of the person. Always filled by file exports; by queries when the configuration asks for it.",
    )
    .selected_as("person.properties")
    .holding(Properties::OfPerson)],
    sort_key: "timestamp",
    sort_key_field: "timestamp",
    // Not toUnixTimestamp: it ends in 2106, and clocks of senders do not.
    day: "intDiv(toUnixTimestamp64Milli(timestamp), 86400000)",
    id: "uuid",
    id_field: "uuid",
    id_alias: Some("id"),
    primary_key: &["id"],
    ingestion_time: Some("created_at"),
    identity: &["event", "distinct_id"],
    duplicates: Some("created_at DESC"),
    cursor_field: "created_at",
    event_name_column: Some("event"),
    bounded_by_dates: true,
    rows_move: false,
    grows_for: TimeDelta::zero(),
    rounds_to: TimeDelta::zero(),
    without: None,
    changes: None,
    fed_by: None,
    export: Some("events"),
};
