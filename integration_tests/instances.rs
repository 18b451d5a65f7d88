//! Instances of PostHog as they are in 2026: Cloud, older ones, and those on which exports do not work.

use std::collections::BTreeMap;
use std::time::Duration;

use posthog_sandbox::posthog::{
    Action, Event, ExportServer, Exports, Fault, HangingRuns, InstantFormat, Limits, RecordsCompleted, Refusals,
    Retention, Sandbox, Schema, Server, SessionsVersion,
};
use serde_json::json;
use uuid::Uuid;

use crate::support::messages::Messages;
use crate::support::program::{Source, catalog, run};
use crate::support::world::{
    PROJECT, event, event_ids, events, minutes_ago, person, sandbox_with_exports, two_hours_ago,
};

const STREAMS: [&str; 4] = ["events", "persons", "sessions", "person_distinct_ids"];

/// An instance with exports and some events.
async fn instance(server: Server, exports: Exports) -> Sandbox {
    let posthog = Sandbox::builder().exports(exports).server(server).start().await.unwrap();
    posthog.generate(PROJECT, 300, 3, two_hours_ago());
    posthog
}

/// How many runs have not ended.
fn left_running(posthog: &Sandbox) -> usize {
    posthog.export_runs().iter().filter(|run| run.status == "Running" || run.status == "Starting").count()
}

#[tokio::test]
async fn every_instance_is_read_completely_by_every_method() {
    // Older servers show empty runs as running, so that each week without persons takes two minutes.
    for (server, method, streams) in [
        (Server::cloud_2026(), "query", &STREAMS[..]),
        (Server::cloud_2026(), "export", &STREAMS[..]),
        (Server::cloud_2026(), "auto", &STREAMS[..]),
        (Server::before_2026(), "query", &STREAMS[..]),
        (Server::before_2026(), "export", &STREAMS[..1]),
        (Server::before_2026(), "auto", &STREAMS[..1]),
    ] {
        let posthog = instance(server, Exports::default()).await;
        let source = Source::new(&posthog.url()).with("method", json!({"type": method}));
        let messages = source.read_all(&catalog(streams, "incremental"), None).await;
        assert_eq!(messages.id_set("events"), event_ids(&posthog), "{method}");
        for stream in &streams[1..] {
            assert!(!messages.records(stream).is_empty(), "{method} {stream}");
        }
        assert_eq!(left_running(&posthog), 0, "{method}");
    }
}

/// A query of no rows cannot be too large, so the error says nothing about its columns.
#[tokio::test]
async fn columns_are_asked_for_again_when_the_server_has_no_room() {
    let posthog = instance(Server::cloud_2026(), Exports::default()).await;
    let body = r#"{"type":"server_error","code":"clickhouse_memory_limit_exceeded","detail":"This query ran out of memory.","attr":null}"#;
    let no_room = Action::Status { code: 513, body: body.into(), headers: Vec::new() };
    posthog.set_faults(vec![Fault::query(no_room).sql("person_id.* FROM sessions").times(1)]).unwrap();
    let source = Source::new(&posthog.url()).with("method", json!({"type": "query", "settle_minutes": 0}));
    let messages = source.read_all(&catalog(&["sessions"], "incremental"), None).await;
    assert!(posthog.requests().iter().any(|request| request.fault.is_some()), "nothing was asked");
    assert!(!messages.records("sessions").is_empty());
}

#[tokio::test]
async fn times_of_exported_persons_are_read_in_every_form() {
    let forms = [InstantFormat::Seconds, InstantFormat::Milliseconds, Server::before_2026().exports.person_times];
    for person_times in forms {
        let exports = ExportServer { person_times, ..Server::cloud_2026().exports };
        let posthog = instance(Server { exports, ..Server::cloud_2026() }, Exports::default()).await;
        posthog.insert_person(PROJECT, person(9_000, 1_793_534_400_000_000, None));
        let messages =
            Source::new(&posthog.url()).with_exports().read_all(&catalog(&["persons"], "incremental"), None).await;
        for record in messages.records("persons") {
            for field in ["created_at", "updated_at"] {
                let text = record[field].as_str().unwrap();
                assert!(text.starts_with("20") && text.ends_with('Z') && text.len() == 27, "{record}");
            }
        }
        let created: Vec<&str> = messages
            .records("persons")
            .into_iter()
            .filter(|record| record["id"] == Uuid::from_u128(9_000).to_string())
            .map(|record| record["created_at"].as_str().unwrap())
            .collect();
        assert_eq!(created, ["2026-11-01T12:00:00.000000Z"]);
    }
}

#[tokio::test]
async fn queries_ask_only_for_columns_that_the_instance_has() {
    for refusals in [Refusals::Bare, Refusals::Explained { hint: true }] {
        for sessions in [SessionsVersion::V1, SessionsVersion::V2, SessionsVersion::V3] {
            let schema = Schema {
                sessions,
                person_last_seen_at: sessions != SessionsVersion::V1,
                event_person_mode: sessions != SessionsVersion::V1,
                ..Server::cloud_2026().schema
            };
            let server = Server { schema, refusals, ..Server::cloud_2026() };
            let posthog = instance(server, Exports::default()).await;
            let source = Source::new(&posthog.url()).with("method", json!({"type": "query", "settle_minutes": 0}));
            let messages = source.read_all(&catalog(&STREAMS, "incremental"), None).await;
            assert_eq!(messages.id_set("events"), event_ids(&posthog));
            assert!(!messages.records("sessions").is_empty() && !messages.records("persons").is_empty());
        }
    }
}

#[tokio::test]
async fn instance_without_working_exports_is_read_by_query() {
    // Without a bucket, the first run is waited for, for a minute; without Temporal, none starts.
    for (server, methods) in
        [(Server::hobby_without_bucket(), &["auto"][..]), (Server::hobby_without_temporal(), &["auto", "export"][..])]
    {
        for method in methods {
            let posthog = instance(server.clone(), Exports::default()).await;
            let source = Source::new(&posthog.url()).with("method", json!({"type": method}));
            let first = source.read_all(&catalog(&STREAMS, "incremental"), None).await;
            assert_eq!(first.id_set("events"), event_ids(&posthog), "{method}");
            let warnings = first.logs("WARN").join("\n");
            assert!(warnings.contains("file exports do not work on this PostHog"), "{warnings}");
            assert_eq!(left_running(&posthog), 0, "{method}");
            if *method == "auto" {
                let runs = posthog.export_runs().len();
                let second = source.read_all(&catalog(&["events"], "incremental"), Some(&first.state())).await;
                assert_eq!(posthog.export_runs().len(), runs, "exports are tried again after a day");
                assert!(second.logs("INFO").join("\n").contains("tried again a day later"));
            }
        }
    }
}

#[tokio::test]
async fn hanging_run_is_cancelled_and_started_again_in_parts() {
    let exports = Exports {
        hanging: vec![HangingRuns { over_hours: Some(100), ..HangingRuns::default() }],
        ..Exports::default()
    };
    let posthog = sandbox_with_exports(exports).await;
    posthog.insert(PROJECT, events(50, minutes_ago(300)));
    posthog.insert(PROJECT, vec![event(9_000, minutes_ago(60 * 24 * 20))]);
    let source = Source::new(&posthog.url()).with_exports();
    let messages = source.read_all(&catalog(&["events"], "incremental"), None).await;
    assert_eq!(messages.id_set("events"), event_ids(&posthog));
    let runs = posthog.export_runs();
    assert!(runs.iter().any(|run| run.status == "Cancelled"), "{runs:?}");
    assert_eq!(left_running(&posthog), 0);
}

#[tokio::test]
async fn limit_on_runs_pauses_nothing_but_their_start() {
    let exports = ExportServer { concurrent_runs: Some(1), ..Server::cloud_2026().exports };
    let exports_slow = Exports { running: Duration::from_millis(300), ..Exports::default() };
    let posthog = instance(Server { exports, ..Server::cloud_2026() }, exports_slow).await;
    let source = Source::new(&posthog.url()).with_exports().with("concurrency", json!(3));
    let messages = source.read_all(&catalog(&["events"], "incremental"), None).await;
    assert_eq!(messages.id_set("events"), event_ids(&posthog));
    assert!(!messages.text().contains("RATE_LIMITED"), "{}", messages.without_records());
}

#[tokio::test]
async fn files_that_are_listed_late_are_waited_for() {
    for records_completed in [RecordsCompleted::Reported, RecordsCompleted::Missing] {
        let server = ExportServer { records_completed, ..Server::cloud_2026().exports };
        let exports = Exports {
            rows_per_file: Some(40),
            completed_lag: Duration::from_secs(1),
            files_apart: Duration::from_millis(700),
            ..Exports::default()
        };
        let server = Server { exports: server, ..Server::cloud_2026() };
        let posthog = Sandbox::builder().exports(exports).server(server).start().await.unwrap();
        posthog.insert(PROJECT, events(200, minutes_ago(300)));
        let source = Source::new(&posthog.url()).with_exports();
        let messages = source.read_all(&catalog(&["events"], "incremental"), None).await;
        assert_eq!(messages.id_set("events"), event_ids(&posthog));
        assert_eq!(messages.records("events").len(), 200, "no event is read twice");
    }
}

/// `person_id` of every event.
fn persons_of(messages: &Messages) -> BTreeMap<String, String> {
    let text = |record: &serde_json::Value, field: &str| record[field].as_str().unwrap_or_default().to_owned();
    messages.records("events").into_iter().map(|record| (text(record, "id"), text(record, "person_id"))).collect()
}

#[tokio::test]
async fn both_methods_give_an_event_the_person_at_ingestion() {
    let posthog = instance(Server::cloud_2026(), Exports::default()).await;
    let mut senders: Vec<String> = posthog.events(PROJECT).into_iter().map(|event| event.distinct_id).collect();
    senders.sort();
    senders.dedup();
    posthog.merge(PROJECT, &senders[0], &senders[1]);
    let catalog = catalog(&["events"], "incremental");
    let by_export = persons_of(&Source::new(&posthog.url()).with_exports().read_all(&catalog, None).await);
    let by_query = Source::new(&posthog.url()).with("method", json!({"type": "query", "settle_minutes": 0}));
    assert_eq!(persons_of(&by_query.read_all(&catalog, None).await), by_export);
}

#[tokio::test]
async fn hidden_events_are_announced_by_check_and_read() {
    let posthog = instance(Server::cloud_2026(), Exports::default()).await;
    posthog.set_retention(PROJECT, Retention { months: 12, enforced: true });
    let source = Source::new(&posthog.url());
    let (status, message) = source.check().await;
    assert!(status == "SUCCEEDED" && message.contains("there are none from before"), "{message}");
    let messages = source.read_all(&catalog(&["events"], "incremental"), None).await;
    assert!(messages.logs("WARN").join("\n").contains("PostHog keeps events for 12 months"));
}

#[tokio::test]
async fn clock_that_is_behind_ends_the_export_earlier() {
    for clock_ahead in [-8, 8] {
        let posthog = instance(Server { clock_ahead, ..Server::cloud_2026() }, Exports::default()).await;
        let source = Source::new(&posthog.url()).with("method", json!({"type": "export", "settle_minutes": 0}));
        let messages = source.read_all(&catalog(&["events"], "incremental"), None).await;
        assert_eq!(messages.id_set("events"), event_ids(&posthog), "{clock_ahead} s ahead");
    }
}

#[tokio::test]
async fn throttled_recordings_do_not_hold_back_other_lists() {
    let limits = Limits { recordings: vec![(1, Duration::from_secs(3))], ..Limits::default() };
    let posthog = Sandbox::builder().limits(limits).start().await.unwrap();
    posthog.generate_lists(PROJECT, 3);
    let source = Source::new(&posthog.url());
    let messages = source.read_all(&catalog(&["session_recordings", "annotations"], "full_refresh"), None).await;
    assert!(!messages.records("session_recordings").is_empty() && !messages.records("annotations").is_empty());
}

#[tokio::test]
async fn misspelt_column_of_a_custom_query_is_not_blamed_on_the_version() {
    let posthog = instance(Server::cloud_2026(), Exports::default()).await;
    let query = json!([{"name": "mine", "query": "SELECT uuid, nosuch FROM events", "primary_key": ["uuid"]}]);
    let source = Source::new(&posthog.url()).with("custom_queries", query);
    let outcome = run(source.command("check")).await;
    let (status, message) = outcome.messages.connection_status();
    assert_eq!(status, "FAILED");
    assert!(message.contains("nosuch") && !message.contains("upgrade"), "{message}");
}

/// Late events belong to the table of differences in docs/streams.md: none is lost by either method.
#[tokio::test]
async fn late_event_is_read_by_both_methods() {
    let posthog = instance(Server::cloud_2026(), Exports::default()).await;
    posthog.insert(PROJECT, vec![Event { created_at: minutes_ago(200), ..event(9_001, minutes_ago(60 * 24 * 90)) }]);
    for method in ["query", "export"] {
        let source = Source::new(&posthog.url()).with("method", json!({"type": method}));
        let messages = source.read_all(&catalog(&["events"], "incremental"), None).await;
        assert_eq!(messages.id_set("events"), event_ids(&posthog), "{method}");
    }
}
