//! `plan`: what it prints is what the `read` that follows does.

use std::collections::BTreeSet;

use posthog_sandbox::posthog::{Event, Exports, Sandbox, Server};
use serde_json::{Value, json};
use source_posthog::time::Timestamp;
use uuid::Uuid;

use crate::support::program::{Source, catalog, run};
use crate::support::world::{
    EXPORT_KEY, PROJECT, event, event_ids, events, key, minutes_ago, person, sandbox, sandbox_with_exports,
    sandbox_without_queries, two_hours_ago, weekly,
};

const DAY: i64 = 24 * 60;

/// Runs `plan`, and fails if it does more than to count.
pub(crate) async fn plan(
    source: &Source,
    posthog: &Sandbox,
    catalog: &Value,
    state: Option<&Value>,
) -> (Option<i32>, Value) {
    let runs = posthog.export_runs();
    let mut command = source.command("plan");
    command.arg("--catalog").arg(source.file("catalog.json", &catalog.to_string()));
    if let Some(state) = state {
        command.arg("--state").arg(source.file("state.json", &state.to_string()));
    }
    let output = command.output().await;
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let plan = lines.pop().unwrap_or_else(|| panic!("{text}"));
    assert!(lines.iter().all(|line| line["log"]["level"] == "WARN"), "{text}");
    let after = posthog.export_runs();
    assert_eq!(after.len(), runs.len(), "a plan starts no run");
    assert!(runs.iter().zip(&after).all(|(before, after)| before.status == after.status), "and cancels none");
    (output.status.code(), plan)
}

/// What a stream would read by a method.
fn read_of<'p>(plan: &'p Value, stream: &str, method: &str) -> &'p Value {
    let mut reads = plan["reads"].as_array().unwrap().iter();
    reads.find(|read| read["stream"] == stream && read["method"] == method).unwrap_or_else(|| panic!("{plan}"))
}

#[tokio::test]
async fn plan_of_queries_has_the_rows_of_the_read_that_follows() {
    let posthog = sandbox().await;
    let (long_ago, recent) = (events(300, minutes_ago(40 * DAY)), events(40, minutes_ago(3 * 60)));
    let renamed = recent.into_iter().enumerate();
    let recent = renamed
        .map(|(number, event)| Event { uuid: Uuid::from_u128(5_000 + u128::try_from(number).unwrap()), ..event });
    posthog.insert(PROJECT, long_ago.into_iter().chain(recent).collect());
    let source = Source::new(&posthog.url()).with_page_size(100);
    let catalog = catalog(&["events", "cohorts"], "incremental");
    posthog.clear_requests();
    let (code, first) = plan(&source, &posthog, &catalog, None).await;
    let requests = posthog.requests();
    let queries = requests.iter().filter(|request| request.sql.is_some()).count();
    assert!(requests.iter().filter_map(|request| request.sql.as_ref()).all(|sql| !sql.contains("properties")));
    assert_eq!((code, &first["planning"]["queries"]), (Some(0), &json!(queries)), "{first}");
    assert_eq!(first["not_counted"], json!([]), "{first}");
    assert_eq!(read_of(&first, "cohorts", "list")["rows"], 0, "{first}");
    let read = source.read_all(&catalog, None).await;
    let planned = read_of(&first, "events", "query");
    assert_eq!(planned["rows"], json!(read.ids("events").len()), "{first}");
    assert_eq!((&planned["runs"], &planned["billed_rows"]), (&json!(0), &json!(0)));
    let stored: BTreeSet<i64> =
        posthog.events(PROJECT).iter().map(|event| event.timestamp.div_euclid(86_400_000_000)).collect();
    assert_eq!(planned["days"], json!(stored.len()), "{first}");
    assert!(planned["bytes"].as_u64().unwrap() > 0 && planned["requests"].as_u64().unwrap() >= 5, "{first}");

    // Nothing to read, then late and new events, and some that came between the plan and the read.
    let state = read.state();
    let (_, idle) = plan(&source, &posthog, &catalog, Some(&state)).await;
    assert_eq!(read_of(&idle, "events", "query")["rows"], 0, "{idle}");
    let late =
        (10_000..10_007).map(|number| Event { created_at: minutes_ago(1), ..event(number, minutes_ago(40 * DAY)) });
    posthog.insert(PROJECT, late.collect());
    let (_, later) = plan(&source, &posthog, &catalog, Some(&state)).await;
    let second = source.read_all(&catalog, Some(&state)).await;
    assert_eq!(second.ids("events").len(), 7);
    let planned = read_of(&later, "events", "query");
    assert_eq!((&planned["rows"], &planned["days"]), (&json!(7), &json!(1)), "{later}");
}

#[tokio::test]
async fn plan_of_exports_has_the_runs_and_rows_of_the_read_that_follows() {
    let posthog = sandbox_with_exports(Exports::default()).await;
    posthog.insert(PROJECT, weekly(5, 50));
    let source = Source::new(&posthog.url()).with_exports();
    let catalog = catalog(&["events"], "incremental");
    let mut state = None;
    for round in 0..2 {
        let (code, planned) = plan(&source, &posthog, &catalog, state.as_ref()).await;
        let before = posthog.export_runs().len();
        let read = source.read_all(&catalog, state.as_ref()).await;
        let runs = posthog.export_runs().split_off(before);
        let by_export = read_of(&planned, "events", "export");
        assert_eq!((code, &by_export["runs"]), (Some(0), &json!(runs.len())), "round {round}: {planned}");
        let exported: usize = runs.iter().map(|run| run.rows).sum();
        assert!(exported > 0);
        assert_eq!(by_export["billed_rows"], json!(exported), "round {round}: {planned}");
        assert_eq!(planned["billed_rows"], json!(exported));
        let rows = by_export["rows"].as_u64().unwrap() + read_of(&planned, "events", "query")["rows"].as_u64().unwrap();
        assert_eq!(rows, read.ids("events").len() as u64, "round {round}: {planned}");
        state = Some(read.state());
        // Some that are ingested now, long after they happened; and old enough not to be in the newest slice.
        let ingested = |number: i64| minutes_ago(0) - (60 - number) * 1_000;
        let more = (0..60).map(|number| Event {
            created_at: ingested(number),
            ..event(50_000 + u128::try_from(number).unwrap(), minutes_ago(2 * DAY))
        });
        posthog.insert(PROJECT, more.collect());
        posthog.set_server(Server { clock_ahead: 2 * 3_600, ..Server::cloud_2026() });
        source.turn_clock(2 * 3_600);
    }
    assert_eq!(posthog.events(PROJECT).len(), 370);
}

#[tokio::test]
async fn plan_goes_on_with_an_export_that_was_interrupted() {
    let posthog = sandbox_with_exports(Exports::default()).await;
    posthog.insert(PROJECT, weekly(6, 50));
    let limited = Source::new(&posthog.url()).with_exports().with("max_exported_rows", json!(120));
    let catalog = catalog(&["events"], "incremental");
    let (_, all) = plan(&limited, &posthog, &catalog, None).await;
    assert_eq!((&all["billed_rows"], &all["max_exported_rows"]), (&json!(300), &json!(120)), "{all}");
    let first = limited.read(&catalog, None).await;
    assert_eq!(first.code, Some(1));
    let state = first.messages.state();
    let source = Source::new(&posthog.url()).with_exports();
    let (_, rest) = plan(&source, &posthog, &catalog, Some(&state)).await;
    let before = posthog.export_runs().len();
    let read = source.read_all(&catalog, Some(&state)).await;
    let runs = posthog.export_runs().split_off(before);
    let planned = read_of(&rest, "events", "export");
    assert_eq!(planned["runs"], json!(runs.len()), "{rest}");
    assert_eq!(planned["billed_rows"], json!(runs.iter().map(|run| run.rows).sum::<usize>()), "{rest}");
    assert_eq!(planned["rows"], json!(read.ids("events").len()), "{rest}");
    assert_eq!(first.messages.ids("events").len() + read.ids("events").len(), event_ids(&posthog).len());
}

#[tokio::test]
async fn plan_of_persons_follows_the_choice_of_the_quicker_way() {
    let posthog = sandbox_with_exports(Exports::default()).await;
    (0..30).for_each(|number| posthog.insert_person(PROJECT, person(number, minutes_ago(20 * DAY), None)));
    for (export_above, method) in [(20_000, "query"), (0, "export")] {
        let source = Source::new(&posthog.url()).with_exports().with("export_above", json!(export_above));
        let catalog = catalog(&["persons", "person_distinct_ids"], "incremental");
        let (code, planned) = plan(&source, &posthog, &catalog, None).await;
        assert_eq!(code, Some(0), "{planned}");
        let before = posthog.export_runs().len();
        let read = source.read_all(&catalog, None).await;
        let persons = read_of(&planned, "persons", method);
        let ids = read_of(&planned, "person_distinct_ids", method);
        if method == "query" {
            assert_eq!(persons["rows"], json!(read.ids("persons").len()), "{planned}");
            assert_eq!(ids["rows"], json!(read.records("person_distinct_ids").len()), "{planned}");
        } else {
            // Nothing counts them before, and both streams are read from the same runs.
            assert_eq!((&persons["rows"], &persons["billed_rows"]), (&Value::Null, &Value::Null), "{planned}");
            assert_eq!(
                planned.get("billed_rows"),
                Some(&Value::Null),
                "a sum without them would be too small: {planned}"
            );
            assert_eq!(ids["runs"], 0, "{planned}");
        }
        assert_eq!(persons["runs"], json!(posthog.export_runs().len() - before), "{planned}");
    }
}

#[tokio::test]
async fn plan_of_sessions_counts_them() {
    let posthog = sandbox().await;
    posthog.generate(PROJECT, 500, 3, two_hours_ago());
    let source = Source::new(&posthog.url()).with_page_size(1_000);
    let catalog = catalog(&["sessions", "groups"], "full_refresh");
    let (_, planned) = plan(&source, &posthog, &catalog, None).await;
    let read = source.read_all(&catalog, None).await;
    assert_eq!(read_of(&planned, "sessions", "query")["rows"], json!(read.ids("sessions").len()), "{planned}");
}

/// What is not read from tables: the plan has the requests of the read that follows.
#[tokio::test]
async fn plan_of_lists_and_of_queries_has_their_requests() {
    let posthog = sandbox().await;
    posthog.generate(PROJECT, 300, 3, two_hours_ago());
    posthog.generate_lists(PROJECT, 250);
    let query = json!({"name": "names", "query": "SELECT event, count() AS number FROM events GROUP BY event",
        "primary_key": ["event"]});
    let source = Source::new(&posthog.url()).with("custom_queries", json!([query]));
    let streams = ["cohorts", "dashboards", "projects", "cohort_people", "event_days", "names"];
    for stream in streams {
        let catalog = catalog(&[stream], "full_refresh");
        posthog.clear_requests();
        let (code, planned) = plan(&source, &posthog, &catalog, None).await;
        assert_eq!(code, Some(0), "{planned}");
        let spent = posthog.requests().len();
        posthog.clear_requests();
        let read = source.read_all(&catalog, None).await;
        let needed = posthog.requests().len();
        let method = if ["cohort_people", "event_days", "names"].contains(&stream) { "query" } else { "list" };
        let line = read_of(&planned, stream, method);
        let (requests, minutes) = (line["requests"].as_u64().unwrap(), line["minutes"].as_u64().unwrap());
        // Both find out about the key and the projects first.
        assert!(requests >= 1 && minutes >= 1 && spent <= needed + 1, "{stream}: {spent} of {needed}: {planned}");
        let about = u64::try_from(needed).unwrap();
        assert!(requests <= about && about <= requests + 8, "{stream}: {about} requests: {planned}");
        if stream != "event_days" {
            assert_eq!(line["rows"], json!(read.records(stream).len()), "{planned}");
        }
    }
    // The figures of days come with the events.
    let (_, planned) = plan(&source, &posthog, &catalog(&["events", "event_days"], "incremental"), None).await;
    assert_eq!(read_of(&planned, "event_days", "query")["requests"], 0, "{planned}");
}

#[tokio::test]
async fn streams_that_cannot_be_read_are_named() {
    let posthog = Sandbox::builder()
        .exports(Exports::default())
        .key(key(EXPORT_KEY, &["project:read"], None))
        .start()
        .await
        .unwrap();
    posthog.insert(PROJECT, events(10, minutes_ago(90)));
    let source = Source::new(&posthog.url()).with("api_key", json!(EXPORT_KEY));
    let (code, planned) = plan(&source, &posthog, &catalog(&["events"], "incremental"), None).await;
    assert_eq!(code, Some(1));
    assert!(planned["failed"]["events"][0].as_str().unwrap().contains("`query:read`"), "{planned}");
}

#[tokio::test]
async fn plan_with_a_wrong_catalog_says_so() {
    let posthog = sandbox().await;
    let source = Source::new(&posthog.url());
    let mut command = source.command("plan");
    command.arg("--catalog").arg(source.file("catalog.json", r#"{"streams": []}"#));
    let outcome = run(command).await;
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("the catalog has no streams"), "{}", outcome.stderr);
}

#[tokio::test]
async fn plan_without_a_key_that_may_count_has_the_runs() {
    let posthog = sandbox_without_queries(Exports::default()).await;
    posthog.insert(PROJECT, weekly(4, 50));
    let start = Timestamp::from_micros(minutes_ago(5 * 7 * DAY));
    let source =
        Source::new(&posthog.url()).with_exports().with("api_key", json!(EXPORT_KEY)).with("start_date", json!(start));
    let catalog = catalog(&["events"], "incremental");
    let (code, planned) = plan(&source, &posthog, &catalog, None).await;
    source.read_all(&catalog, None).await;
    let by_export = read_of(&planned, "events", "export");
    assert_eq!((code, &by_export["runs"]), (Some(0), &json!(posthog.export_runs().len())), "{planned}");
    assert_eq!((&by_export["rows"], &by_export["billed_rows"]), (&Value::Null, &Value::Null), "{planned}");
}
