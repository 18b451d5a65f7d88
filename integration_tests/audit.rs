//! Silent disagreement is noticed every time: rows that are dropped, doubled, clamped or miscounted.

use posthog_sandbox::posthog::{Action, Event, Exports, Fault, Sandbox, Server};
use serde_json::json;
use source_posthog::time::Timestamp;

use crate::support::program::{Source, catalog};
use crate::support::world::{
    PROJECT, assert_events, event, event_ids, events, minutes_ago, sandbox, silent_faults, within_a_day,
};

async fn sandbox_with_events() -> Sandbox {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, events(1_700, within_a_day()));
    posthog
}

/// What airbytehq/airbyte#86492 is about: a cap of 1,000 rows that the server keeps to itself. Every
/// slice with more events lost the rest, and the sync succeeded.
#[tokio::test]
async fn airbyte_86492_silent_cap_of_1000_rows_drops_no_events() {
    let posthog = Sandbox::builder().page_clamp(1_000).start().await.unwrap();
    posthog.insert(PROJECT, events(4_321, within_a_day()));
    for mode in ["full_refresh", "incremental"] {
        let messages = Source::new(&posthog.url()).read_all(&catalog(&["events"], mode), None).await;
        assert_events(&messages, &posthog, &[PROJECT]);
        assert_eq!(messages.ids("events").len(), 4_321, "nothing is read twice");
    }
}

#[tokio::test]
async fn transient_count_mismatch_is_resolved_by_reading_again() {
    for action in [
        Action::DropRows { rows: 1 },
        Action::DropRows { rows: 40 },
        Action::DuplicateRows { rows: 3 },
        Action::Clamp { rows: 100 },
    ] {
        let posthog = sandbox_with_events().await;
        posthog.set_faults(vec![Fault::query(action.clone()).sql("properties").nth(&[1])]).unwrap();
        let source = Source::new(&posthog.url()).with_page_size(600);
        let messages = source.read_all(&catalog(&["events"], "incremental"), None).await;
        assert_events(&messages, &posthog, &[PROJECT]);
        assert!(posthog.requests().iter().any(|request| request.fault.is_some()), "{action:?} did not happen");
    }
}

#[tokio::test]
async fn transient_wrong_count_does_not_fail_the_sync() {
    for by in [-3, 5] {
        let posthog = sandbox_with_events().await;
        posthog.set_faults(vec![Fault::query(Action::WrongCount { by }).nth(&[1])]).unwrap();
        let source = Source::new(&posthog.url()).with_page_size(600);
        let messages = source.read_all(&catalog(&["events"], "incremental"), None).await;
        assert_events(&messages, &posthog, &[PROJECT]);
    }
}

#[tokio::test]
async fn permanent_count_mismatch_fails_with_window_and_counts() {
    let miscounted =
        Action::Status { code: 200, body: r#"{"results":[[1,1707,[[20000,0,1707,5]]]]}"#.into(), headers: Vec::new() };
    for (faults, what) in [
        (vec![Fault::query(Action::DropRows { rows: 2 }).sql("properties")], "rows are dropped"),
        (vec![Fault::query(miscounted).sql("AS slice, count")], "rows are miscounted"),
    ] {
        let posthog = sandbox_with_events().await;
        posthog.set_faults(faults).unwrap();
        let source = Source::new(&posthog.url());
        let catalog = catalog(&["events"], "incremental");
        let outcome = source.read(&catalog, None).await;
        assert_eq!(outcome.code, Some(1), "{what}");
        let error = outcome.messages.errors().join("\n");
        let expected = "system_error: project 1001: events do not agree with PostHog's figures after 3 attempts: 20";
        assert!(error.starts_with(expected), "{error}");
        assert!(error.contains("were emitted, PostHog shows 17"), "{error}");
        assert_eq!(outcome.messages.statuses("events").last().unwrap(), "INCOMPLETE");
        // The next sync compares again, and reads what is missing.
        posthog.set_faults(Vec::new()).unwrap();
        let again = source.read_all(&catalog, Some(&outcome.messages.state())).await;
        let union = outcome.messages.id_set("events").union(&again.id_set("events")).count();
        assert_eq!(union, 1_700, "{what}");
    }
}

#[tokio::test]
async fn repeated_response_fails_the_sync() {
    let posthog = sandbox_with_events().await;
    let body = r#"{"results":[["00000000-0000-0000-0000-000000000001","e","{}","2026-01-01T00:00:00Z","2026-01-01T00:00:00Z","d","","00000000-0000-0000-0000-000000000001","","","","","","","","full"]]}"#;
    let same = Action::Status { code: 200, body: body.into(), headers: Vec::new() };
    posthog.set_faults(vec![Fault::query(same).sql("properties")]).unwrap();
    let outcome = Source::new(&posthog.url()).read(&catalog(&["events"], "incremental"), None).await;
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.messages.errors()[0].contains("again and again"), "{:?}", outcome.messages.errors());
}

const HOUR: i64 = 3_600_000_000;

/// So many events, one every so many hours, the last one two weeks ago, and another one of yesterday.
fn events_with_a_gap(count: u32, hours: i64) -> Vec<Event> {
    let last = minutes_ago(14 * 24 * 60);
    let mut events: Vec<Event> =
        (0..count).map(|number| event(number.into(), last - i64::from(count - 1 - number) * hours * HOUR)).collect();
    events.push(event(count.into(), minutes_ago(24 * 60)));
    events
}

/// Counts say where there is something to read. A server that keeps to itself that it answers with
/// 1,000 rows at most leaves out whole days and hours there.
#[tokio::test]
async fn counts_truncated_at_1000_rows_drop_no_events() {
    for (export, hours) in [(false, 24), (true, 1)] {
        let posthog = Sandbox::builder().page_clamp(1_000).exports(Exports::default()).start().await.unwrap();
        posthog.insert(PROJECT, events_with_a_gap(1_100, hours));
        let start = Timestamp::from_micros(minutes_ago(1_500 * 60 * hours)).to_string();
        let source = Source::new(&posthog.url()).with("start_date", json!(start));
        let source = if export { source.with_exports() } else { source.with_page_size(50_000) };
        let messages = source.read_all(&catalog(&["events"], "incremental"), None).await;
        assert_eq!(messages.id_set("events").len(), 1_101, "export: {export}");
        assert!(posthog.requests().iter().any(|request| request.rows == Some(1_000)), "nothing was cut");
    }
}

/// Every question that is asked, with every silent fault, once and always: all events come, or the
/// sync says that they did not, and the next one brings them.
#[tokio::test]
async fn faulty_responses_never_drop_events_silently() {
    let nothing = || Action::Status { code: 200, body: r#"{"results":[]}"#.into(), headers: Vec::new() };
    let actions = || silent_faults().into_iter().chain([nothing()]);
    let questions: [(bool, &[&str]); 2] = [
        (false, &["properties", "AS slice, count", "distinct_count"]),
        (true, &["AS slice, count", "distinct_count", "GROUP BY hour", r"SELECT count\(\) FROM"]),
    ];
    let (mut complete, mut told, mut idle) = (0, 0, 0);
    for (export, questions) in questions {
        for (question, action, times) in questions.iter().flat_map(|question| {
            actions().flat_map(move |action| [(question, action.clone(), 1), (question, action, u64::MAX)])
        }) {
            let case = format!("export: {export}, {question}, {action:?}, {times} times");
            let posthog = Sandbox::builder().exports(Exports::default()).start().await.unwrap();
            let mut events = events_with_a_gap(40, 24);
            // A duplicate that is not merged yet, so that figures without duplicates are asked for.
            events.push(Event { created_at: events[5].created_at + 1, ..events[5].clone() });
            posthog.insert(PROJECT, events);
            posthog.set_faults(vec![Fault::query(action).sql(question).times(times)]).unwrap();
            let start = Timestamp::from_micros(minutes_ago(60 * 24 * 60)).to_string();
            let source = Source::new(&posthog.url()).with("attempts", json!(2)).with("start_date", json!(start));
            let source = if export { source.with_exports() } else { source.with_page_size(15) };
            let catalog = catalog(&["events"], "incremental");
            let outcome = source.read(&catalog, None).await;
            let fired = posthog.requests().iter().any(|request| request.fault.is_some());
            let mut read = outcome.messages.id_set("events");
            if outcome.code == Some(0) {
                complete += 1;
                idle += u32::from(!fired);
            } else {
                told += 1;
                assert!(fired, "{case}: {}", outcome.messages.text());
                assert_eq!(outcome.messages.statuses("events").last().unwrap(), "INCOMPLETE", "{case}");
                posthog.set_faults(Vec::new()).unwrap();
                let state = outcome.messages.state_lines().last().map(|_| outcome.messages.state());
                read.extend(source.read_all(&catalog, state.as_ref()).await.id_set("events"));
            }
            let stored = event_ids(&posthog);
            assert_eq!(read, stored, "{case}: {}", outcome.messages.without_records());
        }
    }
    // Not all questions are asked in every case: different keys are counted when something is wrong.
    assert!(complete > 50 && told > 10 && idle <= 20, "{complete} complete, {told} told, {idle} without the fault");
}

/// Not far from their ingestion, so only the comparison finds them.
#[tokio::test]
async fn lines_missing_from_a_file_are_read_by_query() {
    let posthog = Sandbox::builder().exports(Exports::default()).start().await.unwrap();
    posthog.insert(PROJECT, events_with_a_gap(40, 24));
    posthog.set_faults(vec![Fault::files(Action::DropRows { rows: 3 })]).unwrap();
    let source = Source::new(&posthog.url()).with_exports();
    let messages = source.read_all(&catalog(&["events"], "incremental"), None).await;
    assert_eq!(messages.id_set("events").len(), 41);
    let warnings = messages.logs("WARN").join("\n");
    assert!(warnings.contains("rows, but PostHog has exported"), "{warnings}");
    // A server that does not say how many rows it has exported: the comparison finds them all the same.
    posthog.set_server(Server::before_2026());
    let messages = source.read_all(&catalog(&["events"], "incremental"), None).await;
    assert_eq!(messages.id_set("events").len(), 41);
    assert!(messages.text().contains("still missing"), "{}", messages.without_records());
}
