//! `event_days`: how many events each day has, so that a warehouse can be compared with PostHog in SQL.

use serde_json::{Map, Value};

use super::column::{Column, Kind};
use super::table::{PROJECT_FIELD, object_schema};

/// The name of the stream.
pub const EVENT_DAYS: &str = "event_days";

/// What identifies a record.
pub const EVENT_DAYS_KEY: [&str; 2] = [PROJECT_FIELD, "day"];

/// The cursor: it grows with every record of a day.
pub const EVENT_DAYS_CURSOR: &str = "checked_at";

/// The fields of its records, in their order.
const FIELDS: [Column; 7] = [
    Column::new(PROJECT_FIELD, Kind::Integer, "Number of the project in PostHog."),
    Column::new("day", Kind::Date, "UTC day of the events' `timestamp`."),
    Column::new(
        "events",
        Kind::Integer,
        "Number of events; rows that agree in timestamp, uuid, name and distinct ID count once.",
    ),
    Column::new(
        "checksum",
        Kind::String,
        "Sum, modulo 2^64, of the last eight hex digits of the events' uuids, each read as an unsigned integer. A string of decimal digits, because numbers of this size lose digits in some programs.",
    ),
    Column::new(
        "deleted",
        Kind::Integer,
        "Number of events by which the day has become smaller between syncs in which `events` was read and the same events were chosen: deleted, expired or merged in PostHog. Null where that is not known: for days that are kept by month, those older than about two months, and where `proof` is `counted`.",
    ),
    Column::new("checked_at", Kind::Timestamp, "Events that PostHog received before this time are counted."),
    Column::new(
        "proof",
        Kind::String,
        "`compared`: what the stream `events` has emitted agrees with PostHog. `assumed`: a state without figures says that some of it was emitted before. `counted`: PostHog has counted the events; the stream `events` was not part of the sync.",
    ),
];

/// The JSON schema of its records.
pub(super) fn schema() -> Value {
    let fields: Map<String, Value> = FIELDS.iter().map(|field| (field.field.to_owned(), field.schema())).collect();
    object_schema(fields)
}
