//! Taking over from Airbyte's own `source-posthog` 1.1, as `docs/migrating.md` describes it.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use source_posthog::streams;

use crate::support::program::{Source, catalog, repository_file};
use crate::support::world::{PROJECT, assert_events, events, minutes_ago, sandbox, two_hours_ago};

/// The streams of source-posthog 1.1, the fields of their schemas, and their primary keys.
const STREAMS: [(&str, &[&str]); 7] = [
    (
        "projects",
        &[
            "id",
            "uuid",
            "organization",
            "api_token",
            "name",
            "completed_snippet_onboarding",
            "ingested_event",
            "is_demo",
            "timezone",
            "access_control",
            "effective_membership_level",
        ],
    ),
    (
        "cohorts",
        &[
            "id",
            "name",
            "groups",
            "deleted",
            "is_calculating",
            "created_by",
            "created_at",
            "last_calculation",
            "errors_calculating",
            "count",
            "is_static",
        ],
    ),
    (
        "feature_flags",
        &["id", "name", "key", "rollout_percentage", "filters", "deleted", "active", "created_by", "created_at"],
    ),
    ("persons", &["id", "name", "distinct_ids", "properties", "created_at", "uuid"]),
    ("events", &["id", "distinct_id", "properties", "event", "timestamp", "person", "elements", "elements_chain"]),
    (
        "annotations",
        &[
            "id",
            "content",
            "date_marker",
            "creation_type",
            "dashboard_item",
            "created_by",
            "created_at",
            "updated_at",
            "deleted",
            "scope",
        ],
    ),
    (
        "insights",
        &[
            "id",
            "short_id",
            "name",
            "filters",
            "filters_hash",
            "order",
            "deleted",
            "last_refresh",
            "refreshing",
            "result",
            "created_at",
            "created_by",
            "description",
            "updated_at",
            "favorited",
            "saved",
            "last_modified_at",
            "last_modified_by",
            "is_sample",
            "effective_restriction_level",
            "effective_privilege_level",
            "timezone",
            "tags",
        ],
    ),
];

/// A catalog as a connection of source-posthog has it: its own cursor and keys.
fn airbyte_catalog() -> Value {
    let streams = STREAMS.iter().map(|(name, _)| {
        let incremental = *name == "events";
        json!({
            "stream": {
                "name": name, "json_schema": {"type": "object", "properties": {}},
                "supported_sync_modes": if incremental { json!(["full_refresh", "incremental"]) } else { json!(["full_refresh"]) },
                "source_defined_cursor": incremental, "default_cursor_field": if incremental { json!(["timestamp"]) } else { json!([]) },
                "source_defined_primary_key": [["id"]], "is_resumable": false,
            },
            "sync_mode": if incremental { "incremental" } else { "full_refresh" },
            "destination_sync_mode": if incremental { "append_dedup" } else { "overwrite" },
            "cursor_field": if incremental { json!(["timestamp"]) } else { json!([]) },
            "primary_key": [["id"]],
        })
    });
    json!({"streams": streams.collect::<Vec<_>>()})
}

#[test]
fn streams_of_airbytes_connector_have_the_same_names_keys_and_fields_here() {
    let ours = streams::catalog(&[], |_| streams::PropertyColumns::default()).streams;
    for (name, fields) in STREAMS {
        let stream = ours.iter().find(|stream| stream.name == name).unwrap();
        let known = stream.json_schema["properties"].as_object().unwrap();
        for field in fields {
            assert!(known.contains_key(*field), "{name}.{field}");
        }
        assert_eq!(stream.source_defined_primary_key, Some(vec![vec!["id".to_owned()]]), "{name}");
    }
}

#[tokio::test]
async fn configuration_catalog_and_state_of_airbytes_connector_run_unchanged() {
    let posthog = sandbox().await;
    posthog.generate_lists(PROJECT, 1);
    posthog.generate(PROJECT, 300, 3, two_hours_ago());
    let source = Source::new(&posthog.url())
        .with("start_date", json!("2021-01-01T00:00:00Z"))
        .with("events_time_step", json!(30))
        .with("something_else", json!({"unknown": true}));
    assert_eq!(source.check().await.0, "SUCCEEDED");
    let catalog = airbyte_catalog();
    let whole = source.read_all(&catalog, None).await;
    assert_events(&whole, &posthog, &[PROJECT]);
    for (stream, count) in [("cohorts", 25), ("feature_flags", 230), ("annotations", 30), ("insights", 250)] {
        assert_eq!(whole.records(stream).len(), count, "{stream}");
    }
    // Both shapes of state that it has had, in the platform's wrapping.
    posthog.insert(PROJECT, events(20, minutes_ago(1)));
    let new: BTreeSet<String> = events(20, 0).iter().map(|event| event.uuid.to_string()).collect();
    let stopped = "2026-01-01T00:00:00+00:00";
    for state in [json!({"1001": {"timestamp": stopped}}), json!({"timestamp": stopped})] {
        let state = json!([{
            "type": "STREAM",
            "stream": {"stream_descriptor": {"name": "events", "namespace": null}, "stream_state": state},
        }]);
        let messages = source.read_all(&catalog, Some(&state)).await;
        assert!(messages.id_set("events").is_superset(&new));
        let ours = messages.stream_state("events");
        assert_eq!(ours["version"], 2);
        // From then on it is a state of this connector.
        let again = source.read_all(&catalog, Some(&messages.state())).await;
        assert!(again.records("events").len() < messages.records("events").len());
    }
}

/// Airbyte's framework keeps a cursor for each partition, here a project, and none for streams that are
/// read in full.
#[tokio::test]
async fn states_by_partition_run_unchanged() {
    let posthog = sandbox().await;
    posthog.generate_lists(PROJECT, 1);
    posthog.insert(PROJECT, events(20, minutes_ago(1)));
    let source = Source::new(&posthog.url()).with("start_date", json!("2021-01-01T00:00:00Z"));
    let partition = |key: &str, cursor: Value| json!({"partition": {key: 1001, "parent_slice": {}}, "cursor": cursor});
    let full = json!({"__ab_full_refresh_sync_complete": true});
    let cursor = json!({"timestamp": "2026-01-01T00:00:00+0000"});
    let state = |name: &str, state: Value| json!({"type": "STREAM", "stream": {"stream_descriptor": {"name": name}, "stream_state": state}});
    let states = json!([
        state("persons", json!({"states": [partition("id", full.clone())]})),
        state("cohorts", json!({"states": [partition("id", full)], "parent_state": {}})),
        state(
            "events",
            json!({"states": [partition("project_id", cursor.clone())], "use_global_cursor": false, "state": cursor})
        ),
    ]);
    let catalog = catalog(&["events", "persons", "cohorts"], "incremental");
    let messages = source.read_all(&catalog, Some(&states)).await;
    assert_eq!((messages.id_set("events").len(), messages.records("cohorts").len()), (20, 25));
    assert!(!messages.records("persons").is_empty());
}

#[test]
fn migration_guide_names_every_stream() {
    let guide = std::fs::read_to_string(repository_file("docs/migrating.md")).unwrap();
    for (name, _) in STREAMS {
        assert!(guide.contains(&format!("`{name}`")), "{name}");
    }
}
