//! Arbitrary configurations, catalogs, states and strings from users, with the same demands as the fuzz
//! targets make of arbitrary bytes, but made of the words that matter.

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};
use source_posthog::config::Config;

use crate::targets;

/// Any JSON whose objects have some of these keys.
fn any_json(keys: &'static [&'static str], strings: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0_u8..5).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        select(strings).prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((select(keys), inner), 0..6).prop_map(object),
        ]
    })
}

fn object(members: Vec<(&'static str, Value)>) -> Value {
    Value::Object(members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<Map<_, _>>())
}

const CONFIG_KEYS: &[&str] = &[
    "api_key",
    "base_url",
    "start_date",
    "end_date",
    "project_ids",
    "include_events",
    "exclude_events",
    "method",
    "rate_limit_share",
    "concurrency",
    "allow_http",
    "event_property_columns",
    "person_property_columns",
    "custom_queries",
    "events_time_step",
    "read_timeout_seconds",
    "attempts",
    "type",
    "page_size",
    "settle_minutes",
    "overlap_minutes",
    "late_window_days",
    "person_properties",
    "name",
    "query",
    "primary_key",
    "cursor_field",
    "x",
];
const CONFIG_STRINGS: &[&str] = &[
    "phx_0123456789",
    "2026-01-01",
    "2026-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z",
    "https://us.posthog.com",
    "http://localhost:8000/api",
    "ftp://x",
    "auto",
    "query",
    "export",
    "SELECT 1",
    "a",
    "",
    " ",
];

const STATE_KEYS: &[&str] = &[
    "type",
    "stream",
    "stream_descriptor",
    "stream_state",
    "name",
    "namespace",
    "global",
    "stream_states",
    "state",
    "data",
    "events",
    "persons",
    "cohort_people",
    "version",
    "projects",
    "1001",
    "complete",
    "resume_from",
    "covered",
    "created_at",
    "names",
    "late_check",
    "scan",
    "method",
    "export",
    "from",
    "to",
    "until",
    "closed",
    "open",
    "after",
    "position",
    "id",
    "rows",
    "kind",
    "windows",
    "run",
    "files",
    "received",
    "watermark",
    "part",
    "next",
    "timestamp",
];
const STATE_STRINGS: &[&str] = &[
    "STREAM",
    "GLOBAL",
    "STATE",
    "events",
    "persons",
    "cohort_people",
    "query",
    "export",
    "tail",
    "backfill",
    "2026-01-01T00:00:00.000000Z",
    "2299-01-01T00:00:00.000000Z",
    "1001",
];

const CATALOG_KEYS: &[&str] = &[
    "streams",
    "stream",
    "name",
    "namespace",
    "json_schema",
    "selectedFields",
    "fieldPath",
    "fieldSelectionEnabled",
    "supported_sync_modes",
    "source_defined_cursor",
    "default_cursor_field",
    "sync_mode",
    "destination_sync_mode",
    "cursor_field",
    "primary_key",
    "properties",
    "property_a",
    "property_b_2",
    "type",
    "format",
];
const CATALOG_STRINGS: &[&str] =
    &["events", "persons", "full_refresh", "incremental", "append", "number", "boolean", "date-time", "object"];

/// Words that mean something to a parser of queries.
fn words() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        8 => select(vec![
            "SELECT", "1", "a", "FROM", "t", "WHERE", "AS", "UNION ALL", "LIMIT", "OFFSET", "GROUP BY", "ORDER BY",
            "WITH", ",", "x = ", "count()", "f", "SETTINGS", "FORMAT",
        ]).prop_map(str::to_owned),
        8 => select(vec![
            "'", "\"", "`", "(", ")", "--", "//", "/*", "*/", "\n", "\r", ";", "{", "}", "''", "<", "#", "$", "\\",
            "q", "[", "]", "5LIMIT", ") AS a, (SELECT 2", "f'",
        ]).prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
    ];
    prop::collection::vec((word, prop::bool::weighted(0.7)), 0..16)
        .prop_map(|words| words.into_iter().map(|(word, spaced)| if spaced { word + " " } else { word }).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn any_configuration_is_accepted_or_its_error_names_a_field(
        members in prop::collection::vec((select(CONFIG_KEYS), any_json(CONFIG_KEYS, CONFIG_STRINGS)), 0..6),
    ) {
        let mut config = json!({"api_key": "phx_0123456789", "start_date": "2026-01-01"});
        for (key, value) in members {
            config[key] = value;
        }
        targets::config(config.to_string().as_bytes());
        if let Err(error) = Config::parse(config.to_string().as_bytes(), None) {
            let named = CONFIG_KEYS.iter().any(|key| error.message().contains(key));
            prop_assert!(named, "{error}");
        }
    }

    #[test]
    fn any_catalog_is_accepted_or_rejected_with_an_error(streams in prop::collection::vec(
        (any_json(CATALOG_KEYS, CATALOG_STRINGS), prop::collection::vec((select(CATALOG_KEYS), any_json(CATALOG_KEYS, CATALOG_STRINGS)), 0..3)), 0..3,
    )) {
        let streams: Vec<Value> = streams.into_iter().map(|(schema, members)| {
            let mut stream = json!({"stream": {"name": "events", "json_schema": schema}});
            for (key, value) in members {
                stream[key] = value;
            }
            stream
        }).collect();
        targets::catalog(json!({"streams": streams}).to_string().as_bytes());
    }

    #[test]
    fn any_state_is_accepted_or_its_error_names_a_field(
        whole in any_json(STATE_KEYS, STATE_STRINGS), project in any_json(STATE_KEYS, STATE_STRINGS),
        stream in select(vec!["events", "persons", "cohort_people", "feature_flags"]),
    ) {
        targets::state(whole.to_string().as_bytes());
        targets::state(json!({stream: whole}).to_string().as_bytes());
        targets::state(json!({stream: {"version": 1, "projects": {"1001": project}}}).to_string().as_bytes());
        let scan = json!({"kind": "tail", "from": "2026-01-01", "to": "2026-02-01", "until": "2026-02-01", "closed": project, "open": whole});
        targets::state(json!({stream: {"version": 1, "projects": {"1001": {"scan": scan}}}}).to_string().as_bytes());
    }

    #[test]
    fn user_input_never_changes_the_structure_of_a_query(
        column in words(), kind in select(vec!["String", "Nullable(Date)", "UInt64"]), value in words(), query in words(),
        begin in prop::bool::weighted(0.8),
    ) {
        let line = |text: &str| text.replace('\n', "\u{2028}");
        let query = if begin { format!("SELECT 1 {query}") } else { query };
        targets::hogql(format!("{}\n{kind}\n{}\n{query}", line(&column), line(&value)).as_bytes());
    }
}
