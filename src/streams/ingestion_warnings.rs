//! `ingestion_warnings`: what went wrong when `PostHog` took in events.
//!
//! The endpoints `ingestion_warnings` and `ingestion_warnings_v2` only have summaries with some examples; the
//! `HogQL` table has every warning (`posthog/hogql/database/schema/system.py`). It has no id, so one is made of
//! all that a warning consists of.

use super::column::{Column, Kind};
use super::keyset::{KeysetStream, KeysetTable};

/// The warnings of the last 90 days, which is as long as `PostHog` keeps them.
pub static INGESTION_WARNINGS: KeysetStream = KeysetStream {
    stream: "ingestion_warnings",
    parts: &[KeysetTable { from: "system.ingestion_warnings", label: None, optional: true }],
    columns: &[
        // Loaders that guess types take a text of digits for a number, and round it.
        Column::new("id", Kind::String, "Identifies the warning; a hash of its other fields.")
            .selected_as("concat('warning_', toString(cityHash64(source, type, details, timestamp)))"),
        Column::new("timestamp", Kind::Timestamp, "When the warning was issued."),
        Column::new("type", Kind::String, "Kind of warning, such as message_size_too_large."),
        Column::new("source", Kind::String, "The part of PostHog that issued the warning."),
        Column::new("details", Kind::Json, "Details, which depend on the type."),
    ],
    key: &["id"],
    windows: None,
    owners: None,
    cursor: Some("timestamp"),
    key_must_be_unique: false,
};
