//! `sessions`: visits, as `PostHog` computes them from events.
//!
//! A session changes as long as its events are ingested, however late. Versions 2 and 3 of the table show
//! when that was last (`max_inserted_at`, since August 2025); of version 1, every sync reads the sessions
//! that may still have changed.
//! Columns are those of PostHog's own export (`batch_exports/…/sql/sessions.py`); older versions
//! lack some of them, which are null then.

use chrono::TimeDelta;

use super::column::{Column, ExportedAs, Kind};
use super::events::EVENTS;
use super::table::{Changes, Table};

/// `PostHog` ends a session after a day, and takes nearly all events for ingested three days later
/// (`SESSIONS_LOOKBACK_DAYS` in `batch_exports/…/sql/sessions.py`).
const MAY_CHANGE_FOR: TimeDelta = TimeDelta::days(4);

/// When the last event of a session was ingested. It is zero for sessions from before the column, which were
/// ingested when they ended.
const CHANGED_AT: &str =
    "if(max_inserted_at > toDateTime64('2000-01-01 00:00:00.000000', 6, 'UTC'), max_inserted_at, `$end_timestamp`)";

/// `_inserted_at` of exports: the later one of both.
const UPDATED_AT: &str = "if(max_inserted_at > `$end_timestamp`, max_inserted_at, `$end_timestamp`)";

const fn text(field: &'static str, expression: &'static str, description: &'static str) -> Column {
    Column::new(field, Kind::OptionalString, description).selected_as(expression)
}

const fn number(field: &'static str, expression: &'static str, description: &'static str) -> Column {
    Column::new(field, Kind::Integer, description).selected_as(expression)
}

const UPDATED: Column = Column::new("updated_at", Kind::Timestamp, "When the session last changed.")
    .selected_as(UPDATED_AT)
    .exported_as(ExportedAs::Field("_inserted_at"));

const fn columns(updated_at: Column) -> [Column; 31] {
    [
        Column::new("session_id", Kind::String, "Identifies the session."),
        Column::new("distinct_id", Kind::OptionalString, "The visitor."),
        // Neither HogQL's nor the export's sessions promise a person; older versions have one.
        Column::new("person_id", Kind::OptionalString, "The person behind the visitor, if PostHog provides it."),
        Column::new("start_timestamp", Kind::Timestamp, "Time of the first event.").selected_as("`$start_timestamp`"),
        Column::new("end_timestamp", Kind::Timestamp, "Time of the last event so far.").selected_as("`$end_timestamp`"),
        updated_at,
        Column::new("urls", Kind::Strings, "URLs that were visited.").selected_as("`$urls`").made_from("$current_url"),
        number("num_uniq_urls", "`$num_uniq_urls`", "Number of different URLs."),
        text("entry_current_url", "`$entry_current_url`", "First URL.").made_from("$current_url"),
        text("entry_pathname", "`$entry_pathname`", "Path of the first URL.").made_from("$current_url"),
        text("entry_hostname", "`$entry_hostname`", "Host of the first URL.").made_from("$current_url"),
        text("end_current_url", "`$end_current_url`", "Last URL.").made_from("$current_url"),
        text("end_pathname", "`$end_pathname`", "Path of the last URL.").made_from("$current_url"),
        text("end_hostname", "`$end_hostname`", "Host of the last URL.").made_from("$current_url"),
        text("entry_referring_domain", "`$entry_referring_domain`", "Where the visitor came from.")
            .made_from("$referring_domain"),
        text("entry_utm_source", "`$entry_utm_source`", "UTM source of the first URL.").made_from("utm_source"),
        text("entry_utm_campaign", "`$entry_utm_campaign`", "UTM campaign of the first URL.").made_from("utm_campaign"),
        text("entry_utm_medium", "`$entry_utm_medium`", "UTM medium of the first URL.").made_from("utm_medium"),
        text("entry_utm_term", "`$entry_utm_term`", "UTM term of the first URL.").made_from("utm_term"),
        text("entry_utm_content", "`$entry_utm_content`", "UTM content of the first URL.").made_from("utm_content"),
        text("entry_gclid", "`$entry_gclid`", "Google click id.").made_from("gclid"),
        text("entry_gad_source", "`$entry_gad_source`", "Google ad source.").made_from("gad_source"),
        text("entry_fbclid", "`$entry_fbclid`", "Facebook click id.").made_from("fbclid"),
        text("entry_msclkid", "`$entry_msclkid`", "Microsoft click id.").made_from("msclkid"),
        number("pageview_count", "`$pageview_count`", "Number of page views."),
        number("autocapture_count", "`$autocapture_count`", "Number of automatically captured events."),
        number("screen_count", "`$screen_count`", "Number of screens of an app."),
        text("channel_type", "`$channel_type`", "Kind of source, such as Direct or Paid Search."),
        number("session_duration", "`$session_duration`", "Length in seconds."),
        Column::new("is_bounce", Kind::Boolean, "Whether the visitor left at once.").selected_as("`$is_bounce`"),
        text("last_external_click_url", "`$last_external_click_url`", "Address of the last link to another site.")
            .made_from("$external_click_url"),
    ]
}

const fn sessions(
    columns: &'static [Column],
    grows_for: TimeDelta,
    changes: Option<Changes>,
    without: Option<(&'static str, &'static Table)>,
) -> Table {
    Table {
        stream: "sessions",
        from: "sessions",
        columns,
        optional_columns: &[],
        sort_key: "`$start_timestamp`",
        sort_key_field: "start_timestamp",
        day: "intDiv(toUnixTimestamp(`$start_timestamp`), 86400)",
        id: "session_id",
        id_field: "session_id",
        id_alias: Some("id"),
        primary_key: &["id"],
        ingestion_time: None,
        identity: &[],
        duplicates: None,
        cursor_field: "start_timestamp",
        event_name_column: None,
        bounded_by_dates: true,
        rows_move: false,
        grows_for,
        rounds_to: TimeDelta::zero(),
        without,
        changes,
        fed_by: Some(&EVENTS),
        export: Some("sessions"),
    }
}

/// The stream.
pub static SESSIONS: Table = sessions(
    &columns(UPDATED),
    TimeDelta::zero(),
    Some(Changes { at: CHANGED_AT, end: "`$end_timestamp`", changed_field: "updated_at", end_field: "end_timestamp" }),
    Some(("max_inserted_at", &SESSIONS_BY_START)),
);

/// The stream on instances that do not show when sessions have changed.
static SESSIONS_BY_START: Table = sessions(&columns(UPDATED.not_selected()), MAY_CHANGE_FOR, None, None);
