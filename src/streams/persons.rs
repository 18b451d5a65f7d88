//! `persons`: the people behind the events.
//!
//! `PostHog` keeps no time of change for persons. `last_seen_at` is the nearest: it moves with every
//! event of a person, and with it the person's properties, but an edit of properties without an
//! event may not move it. `created_at` stands in where it is empty.

use super::column::{Column, Kind};
use super::table::Table;

/// The stream.
pub static PERSONS: Table = Table {
    stream: "persons",
    from: "persons",
    columns: &[
        Column { field: "id", expression: "id", kind: Kind::Text, description: "Identifies the person." },
        Column {
            field: "created_at",
            expression: "created_at",
            kind: Kind::Timestamp,
            description: "When the person was seen first.",
        },
        Column {
            field: "last_seen_at",
            expression: "coalesce(last_seen_at, created_at)",
            kind: Kind::Timestamp,
            description: "When the person was seen last; `created_at` where PostHog has not noted it.",
        },
        Column {
            field: "is_identified",
            expression: "is_identified",
            kind: Kind::Boolean,
            description: "Whether the person has been identified.",
        },
        Column {
            field: "properties",
            expression: "properties",
            kind: Kind::Document,
            description: "Properties of the person.",
        },
    ],
    optional_columns: &[],
    position: "coalesce(last_seen_at, created_at)",
    position_field: "last_seen_at",
    day: "intDiv(toUnixTimestamp(coalesce(last_seen_at, created_at)), 86400)",
    id: "id",
    id_field: "id",
    id_copy: Some("uuid"),
    arrival: None,
    copies: None,
    cursor_field: "last_seen_at",
    name_column: None,
    bounded_by_dates: false,
    rows_move: true,
};
