//! `read` by file exports: completeness, resumption, and how it goes together with queries.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use posthog_sandbox::posthog::{Event, ExportRun, ExportServer, Exports, Sandbox, Server};
use serde_json::{Value, json};
use source_posthog::time::Timestamp;
use uuid::Uuid;

use crate::support::program::{Source, catalog};
use crate::support::world::{
    EXPORT_KEY, PROJECT, assert_events, assert_exported_events, assert_no_duplicates, event, event_ids, events, key,
    minutes_ago, person, sandbox_with_exports, sandbox_without_queries, two_hours_ago, two_projects_with,
};

const WEEK: i64 = 7 * 86_400_000_000;

fn runs_of(sandbox: &Sandbox, project: u64, model: &str) -> Vec<ExportRun> {
    let runs = sandbox.export_runs().into_iter();
    runs.filter(|run| run.project == project && run.model == model).collect()
}

/// Fails unless each window is at most a week long and begins where the one before has ended, or
/// where nothing has arrived in between.
fn assert_windows(sandbox: &Sandbox, project: u64, model: &str) {
    let runs = runs_of(sandbox, project, model);
    assert!(!runs.is_empty());
    for pair in runs.windows(2) {
        let (end, begin) = (pair[0].end, pair[1].start);
        assert!(begin >= end, "{pair:?}");
        let skipped = sandbox.events(project).into_iter().filter(|event| (end..begin).contains(&event.created_at));
        assert_eq!(skipped.count(), 0, "{pair:?}");
    }
    assert!(runs.iter().all(|run| run.end - run.start <= WEEK && run.start < run.end), "{runs:?}");
}

#[tokio::test]
async fn events_and_sessions_are_exported_completely() {
    let exports = Exports { rows_per_file: Some(150), ..Exports::default() };
    // Sessions whose events come in late are left out otherwise.
    let server = Server {
        exports: ExportServer { sessions_lookback_days: None, ..Server::cloud_2026().exports },
        ..Server::cloud_2026()
    };
    let posthog = two_projects_with(Sandbox::builder().exports(exports).server(server)).await;
    for project in [1001, 1002] {
        posthog.generate(project, 1_000, project, two_hours_ago());
    }
    let source = Source::new(&posthog.url()).with_exports();
    let messages = source.read_all(&catalog(&["events", "sessions"], "incremental"), None).await;
    assert_exported_events(&messages, &posthog, &[1001, 1002]);
    let mut sessions = BTreeSet::new();
    for project in [1001, 1002] {
        assert_windows(&posthog, project, "events");
        assert_windows(&posthog, project, "sessions");
        sessions.extend(posthog.events(project).into_iter().map(|event| event.session_id).filter(|id| !id.is_empty()));
    }
    assert_eq!(messages.id_set("sessions"), sessions);
    assert!(posthog.export_runs().iter().any(|run| run.files > 2), "several files in a run");
    assert_eq!(posthog.authorization_leaks(), 0);
    let logs = messages.logs("INFO").join("\n");
    assert!(logs.contains("rows of events exported in") && logs.contains("PostHog may bill"), "{logs}");
}

#[tokio::test]
async fn persons_are_exported_completely() {
    let posthog = sandbox_with_exports(Exports::default()).await;
    posthog.generate(PROJECT, 500, 3, two_hours_ago());
    let source = Source::new(&posthog.url()).with_exports().with("rate_limit_share", json!(1));
    let messages = source.read_all(&catalog(&["persons"], "incremental"), None).await;
    let mut persons: BTreeMap<String, Value> = BTreeMap::new();
    for person in messages.records("persons").into_iter().filter(|person| person["is_deleted"] == false) {
        persons.insert(person["id"].as_str().unwrap().to_owned(), person["properties"].clone());
    }
    for person in posthog.persons(PROJECT) {
        let properties: Value = serde_json::from_str(&person.properties).unwrap();
        assert_eq!(persons.remove(&person.id.to_string()), Some(properties));
    }
    assert!(persons.is_empty(), "{persons:?}");
    // Persons change without events, so every week since the project's beginning has a run.
    let runs = runs_of(&posthog, PROJECT, "persons");
    assert!(runs.windows(2).all(|pair| pair[0].end == pair[1].start), "{runs:?}");
    assert!(runs.iter().all(|run| run.end - run.start <= WEEK));
}

/// Files of a run appear one after the other, and so slowly that two looks see different ones.
async fn sandbox_with_slow_files() -> Sandbox {
    let exports = Exports { rows_per_file: Some(60), files_apart: Duration::from_millis(1_500), ..Exports::default() };
    sandbox_with_exports(exports).await
}

/// Nothing counts persons or sessions.
#[tokio::test]
async fn files_that_appear_one_by_one_are_all_read_incrementally() {
    let posthog = sandbox_with_slow_files().await;
    let changed = minutes_ago(60);
    (0..200).for_each(|number| posthog.insert_person(PROJECT, person(number, changed, None)));
    let source = Source::new(&posthog.url()).with_exports();
    let messages = source.read_all(&catalog(&["persons"], "incremental"), None).await;
    assert!(posthog.export_runs().iter().any(|run| run.files > 3));
    assert_eq!(messages.id_set("persons").len(), 200);
}

/// The end of a full refresh is not compared either: there is no next sync.
#[tokio::test]
async fn files_that_appear_one_by_one_are_all_read_by_a_full_refresh() {
    let posthog = sandbox_with_slow_files().await;
    posthog.insert(PROJECT, events(200, minutes_ago(20)));
    let source = Source::new(&posthog.url()).with_exports();
    let messages = source.read_all(&catalog(&["events"], "full_refresh"), None).await;
    assert_eq!(messages.id_set("events"), event_ids(&posthog));
}

/// PostHog's consumers can lag behind: a row is there later than its time of change says.
#[tokio::test]
async fn persons_ingested_late_are_exported_by_the_next_sync() {
    let posthog = sandbox_with_exports(Exports::default()).await;
    posthog.generate(PROJECT, 50, 3, two_hours_ago());
    let source = Source::new(&posthog.url()).with_exports();
    let catalog = catalog(&["persons"], "incremental");
    let first = source.read_all(&catalog, None).await;
    posthog.insert_person(PROJECT, person(9_000, minutes_ago(30), None));
    let second = source.read_all(&catalog, Some(&first.state())).await;
    assert_eq!(second.ids("persons"), [Uuid::from_u128(9_000).to_string()]);
}

#[tokio::test]
async fn event_names_are_filtered_by_the_server_and_dates_by_the_connector() {
    let posthog = sandbox_with_exports(Exports::default()).await;
    posthog.generate(PROJECT, 600, 3, two_hours_ago());
    let day = |days: i64| Timestamp::from_micros(minutes_ago(days * 1_440));
    let source = Source::new(&posthog.url())
        .with_exports()
        .with("start_date", json!(day(20)))
        .with("end_date", json!(day(5)))
        .with("include_events", json!(["$pageview", "Sign Up"]))
        .with("exclude_events", json!(["job_started"]));
    let messages = source.read_all(&catalog(&["events"], "incremental"), None).await;
    let chosen = |event: &Event| {
        ["$pageview", "Sign Up"].contains(&event.event.as_str())
            && (day(20).micros()..day(5).micros()).contains(&event.timestamp)
    };
    let wanted: BTreeSet<String> =
        posthog.events(PROJECT).iter().filter(|event| chosen(event)).map(|event| event.uuid.to_string()).collect();
    assert!(!wanted.is_empty());
    assert_eq!(messages.id_set("events"), wanted);
    for run in posthog.export_runs() {
        assert_eq!((run.include.len(), run.exclude.len()), (2, 0));
    }
}

#[tokio::test]
async fn second_sync_reads_only_what_is_new_and_starts_no_run_for_a_few() {
    let posthog = sandbox_with_exports(Exports::default()).await;
    posthog.generate(PROJECT, 300, 3, two_hours_ago());
    let source = Source::new(&posthog.url()).with_exports().with("export_above", json!(100));
    let catalog = catalog(&["events"], "incremental");
    let first = source.read_all(&catalog, None).await;
    // One that is visible late, one with an old timestamp, and one on time.
    let (late, old, new) = (event(1, minutes_ago(60)), event(2, minutes_ago(60 * 24 * 400)), event(3, minutes_ago(1)));
    posthog.insert(
        PROJECT,
        vec![
            Event { visible_at: Some(minutes_ago(0)), ..late },
            Event { created_at: minutes_ago(0), ..old },
            Event { created_at: minutes_ago(0), ..new },
        ],
    );
    posthog.clear_requests();
    let before = posthog.export_runs().len();
    let second = source.read_all(&catalog, Some(&first.state())).await;
    let added: BTreeSet<String> = [1_u128, 2, 3].iter().map(|number| Uuid::from_u128(*number).to_string()).collect();
    assert_eq!(second.id_set("events"), added);
    assert!(before > 0, "the first sync had many events to read");
    assert_eq!(posthog.export_runs().len(), before);
}

#[tokio::test]
async fn export_syncs_resume_from_every_state_with_the_same_runs() {
    let exports = Exports { rows_per_file: Some(60), ..Exports::default() };
    let posthog = sandbox_with_exports(exports).await;
    posthog.generate(PROJECT, 500, 3, two_hours_ago());
    for mode in ["incremental", "full_refresh"] {
        let source = Source::new(&posthog.url()).with_exports().with("export_above", json!(100));
        let catalog = catalog(&["events"], mode);
        let before = posthog.export_runs().len();
        let whole = source.read_all(&catalog, None).await;
        assert_exported_events(&whole, &posthog, &[PROJECT]);
        assert_no_duplicates(&whole);
        let all = posthog.export_runs().len() - before;
        let states = whole.state_lines();
        assert!(states.len() > 10 && all > 4, "{} states, {all} runs", states.len());
        let mut known = BTreeSet::new();
        // The last one is complete.
        for line in &states[..states.len() - 1] {
            let part = whole.up_to(*line);
            let state = part.stream_state("events");
            let windows = state["projects"]["1001"]["export"]["windows"].as_array().cloned().unwrap_or_default();
            known.extend(windows.iter().map(|window| window["run"].as_str().unwrap().to_owned()));
            let before = posthog.export_runs().len();
            let rest = source.read_all(&catalog, Some(&part.state())).await;
            let union: BTreeSet<String> = part.id_set("events").union(&rest.id_set("events")).cloned().collect();
            assert_eq!(union, event_ids(&posthog), "{mode}, state on line {line}");
            let started = posthog.export_runs().len() - before;
            // The time that has passed since can be a window of its own.
            assert!(started <= all - known.len() + 1, "{mode}, line {line}: {started} started, {} known", known.len());
        }
    }
}

#[tokio::test]
async fn next_run_is_prepared_while_the_current_one_is_read() {
    let exports = Exports { running: Duration::from_millis(300), ..Exports::default() };
    let posthog = sandbox_with_exports(exports).await;
    posthog.generate(PROJECT, 300, 3, two_hours_ago());
    for most in [1, 3] {
        let source = Source::new(&posthog.url()).with_exports().with("export_runs", json!(most));
        let messages = source.read_all(&catalog(&["events"], "incremental"), None).await;
        let windows = messages.of_type("STATE").into_iter().map(|message| {
            let state = &message["state"]["stream"]["stream_state"]["projects"]["1001"]["export"]["windows"];
            state.as_array().map_or(0, Vec::len)
        });
        assert_eq!(windows.max(), Some(most), "runs under way at a time");
    }
}

#[tokio::test]
async fn expired_runs_are_started_again_and_logged() {
    let posthog = sandbox_with_exports(Exports { rows_per_file: Some(60), ..Exports::default() }).await;
    posthog.generate(PROJECT, 500, 3, two_hours_ago());
    let source = Source::new(&posthog.url()).with_exports();
    let catalog = catalog(&["events"], "incremental");
    let whole = source.read_all(&catalog, None).await;
    let states = whole.state_lines();
    let part = whole.up_to(states[states.len() / 2]);
    posthog.expire_export_files();
    let rest = source.read_all(&catalog, Some(&part.state())).await;
    let union: BTreeSet<String> = part.id_set("events").union(&rest.id_set("events")).cloned().collect();
    assert_eq!(union, event_ids(&posthog));
    let warnings = rest.logs("WARN").join("\n");
    assert!(warnings.contains("its files have expired; it is started again"), "{warnings}");
}

#[tokio::test]
async fn rereading_files_does_not_hide_missing_events() {
    let exports = Exports { rows_per_file: Some(20), ..Exports::default() };
    let posthog = sandbox_with_exports(exports).await;
    posthog.set_server(Server {
        exports: ExportServer { lookback_days: Some(4), ..Server::cloud_2026().exports },
        ..Server::cloud_2026()
    });
    posthog.generate(PROJECT, 300, 3, two_hours_ago());
    let source = Source::new(&posthog.url()).with_exports();
    let catalog = catalog(&["events"], "incremental");
    let whole = source.read_all(&catalog, None).await;
    let half_read = |line: &usize| {
        let state = whole.up_to(*line).stream_state("events");
        let window = &state["projects"]["1001"]["export"]["windows"][0];
        window["files"].as_array().is_some_and(|files| files.len() > 1) && window["done"] != true
    };
    let lines: Vec<usize> = whole.state_lines().into_iter().filter(half_read).collect();
    assert!(lines.len() > 3);
    for line in lines {
        let part = whole.up_to(line);
        posthog.expire_export_files();
        let rest = source.read_all(&catalog, Some(&part.state())).await;
        let union: BTreeSet<String> = part.id_set("events").union(&rest.id_set("events")).cloned().collect();
        assert_eq!(union, event_ids(&posthog), "state on line {line}");
    }
}

#[tokio::test]
async fn both_methods_produce_the_same_record_of_an_event() {
    let posthog = sandbox_with_exports(Exports::default()).await;
    posthog.generate(PROJECT, 700, 3, two_hours_ago());
    posthog.load_dataset(PROJECT, two_hours_ago()).unwrap();
    let catalog = catalog(&["events"], "incremental");
    let exported = Source::new(&posthog.url()).with_exports().read_all(&catalog, None).await;
    let query = json!({"type": "query", "person_properties": true, "settle_minutes": 0});
    let queried = Source::new(&posthog.url()).with("method", query).read_all(&catalog, None).await;
    let mut by_id: BTreeMap<&str, &Value> = BTreeMap::new();
    for record in exported.records("events") {
        by_id.insert(record["id"].as_str().unwrap(), record);
    }
    let mut duplicates = 0;
    for queried in queried.records("events") {
        let exported = by_id[queried["id"].as_str().unwrap()].as_object().unwrap();
        let queried = queried.as_object().unwrap();
        assert_eq!(exported.keys().collect::<BTreeSet<_>>(), queried.keys().collect::<BTreeSet<_>>());
        for (field, value) in queried.iter().filter(|(field, _)| *field != "person_mode") {
            // Of an event's copies, one method keeps the first and the other the last.
            if field == "created_at" && exported[field] != *value {
                duplicates += 1;
                continue;
            }
            assert_eq!(exported[field], *value, "{field} of {}", queried["id"]);
        }
    }
    assert_eq!(by_id.len(), queried.id_set("events").len());
    assert!(duplicates <= 14, "{duplicates}");
}

#[tokio::test]
async fn sync_resumes_from_the_state_of_the_other_method() {
    let posthog = sandbox_with_exports(Exports::default()).await;
    posthog.generate(PROJECT, 400, 3, two_hours_ago());
    let by_query = Source::new(&posthog.url()).with("method", json!({"type": "query", "settle_minutes": 0}));
    let by_export = Source::new(&posthog.url()).with_exports();
    let catalog = catalog(&["events"], "incremental");
    let (mut state, mut seen) = (None, BTreeSet::new());
    for (round, source) in [&by_query, &by_export, &by_query, &by_export, &by_export].into_iter().enumerate() {
        let number = u128::try_from(round).unwrap() * 10;
        // Some of them with old timestamps, one as late as the overlap allows.
        let new = [
            Event { created_at: minutes_ago(0), ..event(number, minutes_ago(2)) },
            Event { created_at: minutes_ago(0), ..event(number + 1, minutes_ago(60 * 24 * 90)) },
            Event {
                visible_at: Some(minutes_ago(0)),
                created_at: minutes_ago(50),
                ..event(number + 2, minutes_ago(51))
            },
        ];
        posthog.insert(PROJECT, new.to_vec());
        let messages = source.read_all(&catalog, state.as_ref()).await;
        seen.extend(messages.id_set("events"));
        assert_eq!(seen, event_ids(&posthog), "round {round}");
        let records = messages.records("events").len();
        assert!(round == 0 || records < 200, "round {round} has read {records} events again");
        state = Some(messages.state());
    }
}

#[tokio::test]
async fn interrupted_backfill_resumes_with_the_other_method() {
    let posthog = sandbox_with_exports(Exports { rows_per_file: Some(60), ..Exports::default() }).await;
    posthog.generate(PROJECT, 400, 3, two_hours_ago());
    let by_query = Source::new(&posthog.url()).with_page_size(60);
    let by_export = Source::new(&posthog.url()).with_exports();
    let catalog = catalog(&["events"], "incremental");
    for (first, second) in [(&by_query, &by_export), (&by_export, &by_query)] {
        let whole = first.read_all(&catalog, None).await;
        for line in whole.state_lines() {
            let part = whole.up_to(line);
            let rest = second.read_all(&catalog, Some(&part.state())).await;
            let union: BTreeSet<String> = part.id_set("events").union(&rest.id_set("events")).cloned().collect();
            assert_eq!(union, event_ids(&posthog), "state on line {line}");
        }
    }
}

#[tokio::test]
async fn events_that_exports_omit_are_detected_and_read_by_query() {
    let posthog = sandbox_with_exports(Exports::default()).await;
    posthog.set_server(Server {
        exports: ExportServer { lookback_days: Some(4), unbounded_days: None, ..Server::cloud_2026().exports },
        ..Server::cloud_2026()
    });
    posthog.generate(PROJECT, 600, 3, two_hours_ago());
    let source = Source::new(&posthog.url()).with_exports();
    let catalog = catalog(&["events"], "incremental");
    let whole = source.read_all(&catalog, None).await;
    assert_eq!(whole.id_set("events"), event_ids(&posthog));
    assert!(whole.text().contains("that are still missing"), "{}", whole.without_records());
    let records = whole.records("events").len();
    assert!(records < event_ids(&posthog).len() + 60, "{records} records: only what is far is read by query");
    for line in whole.state_lines() {
        let part = whole.up_to(line);
        let rest = source.read_all(&catalog, Some(&part.state())).await;
        let union: BTreeSet<String> = part.id_set("events").union(&rest.id_set("events")).cloned().collect();
        assert_eq!(union, event_ids(&posthog), "state on line {line}");
    }
}

#[tokio::test]
async fn key_without_query_scope_exports_and_logs_the_missing_checks() {
    let posthog = sandbox_without_queries(Exports::default()).await;
    posthog.insert(PROJECT, events(50, minutes_ago(90)));
    let source = Source::new(&posthog.url()).with_exports().with("api_key", json!(EXPORT_KEY));
    let source = source.with("start_date", json!(Timestamp::from_micros(minutes_ago(60 * 24 * 10))));
    let messages = source.read_all(&catalog(&["events"], "incremental"), None).await;
    assert_exported_events(&messages, &posthog, &[PROJECT]);
    let warnings = messages.logs("WARN").join("\n");
    assert!(warnings.contains("`query:read`"), "{warnings}");
}

#[tokio::test]
async fn auto_chooses_the_method_by_key_and_logs_the_reason() {
    let disabled = |missing_status| Exports { enabled: false, missing_status, ..Exports::default() };
    for (exports, api_key, expected) in [
        (Exports::default(), "phx_full", "file exports (chosen by `auto`; PostHog may bill"),
        (
            Exports::default(),
            "phx_query",
            "queries (chosen by `auto`: the API key lacks the scope `batch_export:write`",
        ),
        (disabled(404), "phx_full", "queries (chosen by `auto`: this PostHog has no file download exports"),
        (disabled(403), "phx_full", "queries (chosen by `auto`: PostHog does not allow file download exports here"),
    ] {
        let posthog = Sandbox::builder()
            .exports(exports)
            .key(key("phx_full", &["*"], None))
            .key(key("phx_query", &["query:read", "project:read", "batch_export:read"], None))
            .start()
            .await
            .unwrap();
        posthog.insert(PROJECT, events(30, minutes_ago(90)));
        let source = Source::new(&posthog.url()).with("api_key", json!(api_key));
        let (status, message) = source.check().await;
        assert_eq!(status, "SUCCEEDED", "{message}");
        assert!(message.contains(expected), "{message}");
        assert!(posthog.export_runs().is_empty(), "a check must not start a run");
        let messages = source.read_all(&catalog(&["events"], "incremental"), None).await;
        assert!(messages.logs("INFO").iter().any(|line| line.contains(expected)), "{:?}", messages.logs("INFO"));
        if posthog.export_runs().is_empty() {
            assert_events(&messages, &posthog, &[PROJECT]);
        } else {
            assert_exported_events(&messages, &posthog, &[PROJECT]);
        }
        // Who asks for exports and cannot have them is told what to do.
        let (status, message) = source.with_exports().check().await;
        assert_eq!(status == "SUCCEEDED", expected.starts_with("file"), "{message}");
        assert!(status == "SUCCEEDED" || message.contains("set `method` to `auto` or `query`"), "{message}");
    }
}

#[tokio::test]
async fn earlier_start_date_exports_the_added_dates() {
    let posthog = sandbox_with_exports(Exports::default()).await;
    posthog.generate(PROJECT, 400, 3, two_hours_ago());
    let day = |days: i64| json!(Timestamp::from_micros(minutes_ago(days * 1_440)));
    let late = Source::new(&posthog.url()).with_exports().with("start_date", day(5)).with("end_date", day(2));
    let catalog = catalog(&["events"], "incremental");
    let first = late.read_all(&catalog, None).await;
    assert!(first.id_set("events").len() < event_ids(&posthog).len());
    let all = Source::new(&posthog.url()).with_exports();
    let second = all.read_all(&catalog, Some(&first.state())).await;
    let union: BTreeSet<String> = first.id_set("events").union(&second.id_set("events")).cloned().collect();
    assert_eq!(union, event_ids(&posthog));
}
