//! `docs/streams.md`, written from the streams themselves.

use std::fmt::Write;

use serde_json::Value;
use source_posthog::protocol::{Stream, SyncMode};
use source_posthog::streams::{self, Passes, Source};

use crate::support::program::assert_committed;

const PAGE: &str = "docs/streams.md";

const HEAD: &str = "# Streams

<!-- Written from the streams' definitions by `make spec`; do not edit. -->

All fields may be null, and later versions may add fields. Records of a project carry its number as `project_id`. \
The cursor is defined by the connector; a cursor in the catalog is ignored.

The catalog contains all streams, including those for which the key lacks the scope. `check` lists the latter; reading one ends with \
an error that names the scope, and the other streams are read.

";

fn describe(source: Source) -> String {
    match source {
        Source::Table(table) if table.export.is_some() => {
            "file exports (scope `batch_export:write`) or queries (scope `query:read`); see [Two methods](../README.md#two-methods)"
                .into()
        }
        Source::Table(_) => "queries, scope `query:read`".into(),
        Source::KeysetStream(_) => "queries in the order of its key, scope `query:read`".into(),
        Source::List(list) => {
            let parts = match list.passes {
                Passes::One => "",
                Passes::Archived => "; including archived objects",
                Passes::PropertyTypes => "; properties of events, persons, sessions and every group type",
            };
            format!("the list `{}`, scope `{}`{parts}", list.path, list.scope)
        }
        Source::NestedList(nested) => {
            format!("`{}` of each object of the list `{}`, scope `{}`", nested.list.path, nested.parents, nested.list.scope)
        }
        Source::EventDays => "the figures by which `events` are compared with PostHog, scope `query:read`; see [verify.md](verify.md)".into(),
        Source::Account(account) => format!("the {} themselves, scope `{}`", account.stream, account.scope),
    }
}

/// How far back syncs look for objects that come late, and what of an object does not count as a change.
fn late(source: Source) -> String {
    let Source::List(list) = source else { return String::new() };
    let mut text = String::new();
    if let Some((change, hours)) = list.change.and_then(|change| Some((change, change.late_hours?))) {
        let usual = change.lookback_hours;
        writeln!(
            text,
            "* Objects that come late are found up to {usual} hours after their `{}`, and once a day up to {hours} hours. Of more \
             than 5,000 objects in that time, only the latest 5,000 are looked through; the log reports it. A full refresh reads all",
            change.field
        )
        .unwrap();
    }
    if !list.incidental.is_empty() {
        let fields = list.incidental.iter().map(|field| format!("`{field}`")).collect::<Vec<_>>().join(" and ");
        writeln!(text, "* A change of {fields} alone does not make an object come again").unwrap();
    }
    text
}

fn kind(schema: &Value) -> String {
    // Null, and one type; integration_tests/loaders.rs sees to it.
    let kind = schema["type"][1].as_str().unwrap();
    match schema["format"].as_str() {
        Some("date-time") => "time".to_owned(),
        Some("date") => "date".to_owned(),
        _ => kind.to_owned(),
    }
}

fn section(stream: &Stream) -> String {
    let source = Source::find(&stream.name, &[]).unwrap();
    let key: Vec<String> =
        stream.source_defined_primary_key.iter().flatten().map(|path| format!("`{}`", path.join("."))).collect();
    let cursor = stream.default_cursor_field.as_ref().map(|path| format!("`{}`", path.join(".")));
    let refresh = if stream.is_resumable == Some(true) { "full refresh (resumable)" } else { "full refresh" };
    let incremental = stream.supported_sync_modes.contains(&SyncMode::Incremental);
    let mut text = format!("## {}\n\n", stream.name);
    writeln!(text, "* Read from: {}", describe(source)).unwrap();
    writeln!(text, "* Primary key: {}", key.join(", ")).unwrap();
    writeln!(text, "* Sync modes: {refresh}{}", if incremental { ", incremental" } else { "" }).unwrap();
    if let Some(cursor) = cursor {
        writeln!(text, "* Cursor: {cursor}").unwrap();
    }
    text.push_str(&late(source));
    text.push_str("\n| field | type | |\n|---|---|---|\n");
    for (field, schema) in stream.json_schema["properties"].as_object().unwrap() {
        let about = schema["description"].as_str().unwrap_or_default().replace('|', "\\|");
        writeln!(text, "| `{field}` | {} | {about} |", kind(schema)).unwrap();
    }
    text.push('\n');
    text
}

const METHODS: &str = "## Events that share a `uuid`

PostHog keeps events that share a `uuid` if they differ in name, distinct ID or day. Both methods read all of them, once \
each. A destination that deduplicates on `id` keeps one of them; so does a table into which several projects are synced \
that have events of one `uuid`. To keep them all, deduplicate on `project_id`, `id`, `event`, `distinct_id` and the date of \
`timestamp`.

## Where the two methods differ

Events, persons, distinct ids and sessions can be read by file exports or by queries. The records have the same fields either way, \
and `person_id` of an event is the person at ingestion by both. With file exports, a sync still reads up to \
`export_above` events or sessions by query. The first read of persons, distinct ids and sessions also uses queries if the estimate \
for them is shorter than that for export runs; the log shows both. [identities.md](identities.md) joins events to current persons. \
The differences:

| stream | | file exports | queries |
|---|---|---|---|
| `persons` | changes found | all | only those of persons who have been active since |
| `persons` | persons merged into others | marked by `is_deleted`, if the key has the scope `query:read` | marked by `is_deleted` |
| `persons` | persons without any distinct id | missing | read |
| `persons` | deleted persons | marked by `is_deleted`; `updated_at` is the time of deletion | marked by `is_deleted`; `updated_at` is the time of the sync that found it |
| `person_distinct_ids` | incremental syncs | read what has changed | read everything |
| `person_distinct_ids` | deleted distinct ids | marked by `is_deleted` | marked by `is_deleted` |
| `sessions` | sessions whose events are ingested three or more days after they end | omitted by PostHog, read by query afterwards if the key has `query:read` | read |
| `sessions` | instances with version 1 of the table | not used, unless the key lacks `query:read` | changes of the last four days; `updated_at` is null |
| `events` | events that the project's retention hides | missing; `check` and the log name the first day that has events | missing, likewise |
";

/// The fields that only one of the methods fills, from the streams' definitions.
fn methods() -> String {
    let mut text = METHODS.to_owned();
    for table in streams::TABLES.iter().filter(|table| table.export.is_some()) {
        for column in table.columns.iter().chain(table.optional_columns) {
            let by_query = column.expression.is_some();
            let by_export = column.exported != streams::ExportedAs::Nowhere;
            if by_query != by_export {
                let filled = |is: bool| if is { "filled" } else { "null" };
                let of_deleted = table.stream == streams::PERSONS.stream
                    && streams::deleted_person(&streams::Selection::all())
                        .iter()
                        .any(|deleted| deleted.field == column.field);
                let only_of_deleted = !by_query && of_deleted;
                let query =
                    if only_of_deleted { "filled for deleted and merged persons only" } else { filled(by_query) };
                let export = filled(by_export);
                writeln!(text, "| `{}` | `{}` | {export} | {query} |", table.stream, column.field).unwrap();
            }
        }
    }
    text.push('\n');
    text
}

#[test]
fn streams_page_matches_the_catalog() {
    let catalog = streams::catalog(&[], |_| streams::PropertyColumns::default());
    let mut page = HEAD.to_owned();
    page.push_str("| stream | primary key | sync modes |\n|---|---|---|\n");
    for stream in &catalog.streams {
        let key: Vec<String> = stream.source_defined_primary_key.iter().flatten().map(|path| path.join(".")).collect();
        let modes = if stream.supported_sync_modes.contains(&SyncMode::Incremental) {
            "full refresh, incremental"
        } else {
            "full refresh"
        };
        writeln!(page, "| [{0}](#{0}) | `{1}` | {modes} |", stream.name, key.join("`, `")).unwrap();
    }
    page.push('\n');
    page.push_str(&methods());
    page.push_str(&catalog.streams.iter().map(section).collect::<String>());
    let page = format!("{}\n", page.trim_end());
    assert_committed(PAGE, &page);
}
