//! `events`: everything that was captured.
//!
//! Columns are those of PostHog's `events` table in `HogQL` (`hogql/database/schema/events.py`),
//! without `$` in the field names.

use super::column::{Column, Kind};
use super::table::Table;

/// The stream.
pub static EVENTS: Table = Table {
    stream: "events",
    from: "events",
    columns: &[
        Column { field: "uuid", expression: "uuid", kind: Kind::Text, description: "Identifies the event." },
        Column { field: "event", expression: "event", kind: Kind::Text, description: "Name of the event." },
        Column {
            field: "properties",
            expression: "properties",
            kind: Kind::Document,
            description: "What was sent with the event, and what PostHog added.",
        },
        Column {
            field: "timestamp",
            expression: "timestamp",
            kind: Kind::Timestamp,
            description: "When it happened, by the sender's clock.",
        },
        Column {
            field: "created_at",
            expression: "created_at",
            kind: Kind::Timestamp,
            description: "When PostHog received it.",
        },
        Column {
            field: "distinct_id",
            expression: "distinct_id",
            kind: Kind::Text,
            description: "Identifies the user or device, as the sender knows it.",
        },
        Column {
            field: "elements_chain",
            expression: "elements_chain",
            kind: Kind::Text,
            description: "The elements of the page that the event is about, in PostHog's notation.",
        },
        Column {
            field: "person_id",
            expression: "person_id",
            kind: Kind::Text,
            description: "The person that the distinct id belongs to.",
        },
        Column {
            field: "session_id",
            expression: "`$session_id`",
            kind: Kind::OptionalText,
            description: "The session that the event belongs to.",
        },
        Column {
            field: "window_id",
            expression: "`$window_id`",
            kind: Kind::OptionalText,
            description: "The browser window or tab.",
        },
        Column {
            field: "group_0",
            expression: "`$group_0`",
            kind: Kind::OptionalText,
            description: "Key of the first group type.",
        },
        Column {
            field: "group_1",
            expression: "`$group_1`",
            kind: Kind::OptionalText,
            description: "Key of the second group type.",
        },
        Column {
            field: "group_2",
            expression: "`$group_2`",
            kind: Kind::OptionalText,
            description: "Key of the third group type.",
        },
        Column {
            field: "group_3",
            expression: "`$group_3`",
            kind: Kind::OptionalText,
            description: "Key of the fourth group type.",
        },
        Column {
            field: "group_4",
            expression: "`$group_4`",
            kind: Kind::OptionalText,
            description: "Key of the fifth group type.",
        },
        Column {
            field: "person_mode",
            expression: "person_mode",
            kind: Kind::OptionalText,
            description: "Whether the event made a person profile: full, propertyless or force_upgrade.",
        },
    ],
    optional_columns: &[Column {
        field: "person_properties",
        expression: "person.properties",
        kind: Kind::Document,
        description: "Properties of the person. Filled when the configuration asks for it.",
    }],
    position: "timestamp",
    position_field: "timestamp",
    // Not toUnixTimestamp: it ends in 2106, and clocks of senders do not.
    day: "intDiv(toUnixTimestamp64Milli(timestamp), 86400000)",
    id: "uuid",
    id_field: "uuid",
    id_copy: Some("id"),
    arrival: Some("created_at"),
    copies: Some("created_at DESC"),
    cursor_field: "created_at",
    name_column: Some("event"),
    bounded_by_dates: true,
    rows_move: false,
};
