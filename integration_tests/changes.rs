//! What changes between two syncs (choices, dates, mode, method) loses nothing of what was owed.

use std::collections::BTreeSet;
use std::time::Duration;

use posthog_sandbox::posthog::{Action, Event, Exports, Fault, Sandbox};
use serde_json::{Value, json};
use source_posthog::time::Timestamp;
use uuid::Uuid;

use crate::support::messages::Messages;
use crate::support::program::{Source, catalog, state_file};
use crate::support::world::{PROJECT, event, event_ids, minutes_ago, sandbox, sandbox_with_exports};

const DAY: i64 = 24 * 60;

/// Events of so many days, three on each, of which the middle one is called `b`.
fn named(days: u32) -> Vec<Event> {
    let named = |number: u32| {
        let name = if number % 3 == 1 { "b" } else { "a" };
        Event { event: name.into(), ..event(number.into(), minutes_ago(2 * DAY + i64::from(number / 3) * DAY)) }
    };
    (0..3 * days).map(named).collect()
}

fn ago(minutes: i64) -> Value {
    json!(Timestamp::from_micros(minutes_ago(minutes)).to_string())
}

/// The state behind every window of a read, with what came before it.
fn interrupted(messages: &Messages) -> Vec<Messages> {
    messages.state_lines().into_iter().map(|line| messages.up_to(line)).collect()
}

/// Fails unless `source`, continuing behind `part`, reads everything that is missing there.
async fn assert_completes(source: &Source, catalog: &Value, part: &Messages, posthog: &Sandbox) {
    let rest = source.read_all(catalog, Some(&part.state())).await;
    let union: BTreeSet<String> = part.id_set("events").union(&rest.id_set("events")).cloned().collect();
    assert_eq!(union, event_ids(posthog), "{}: {}", catalog["streams"][0]["sync_mode"], part.state());
}

#[tokio::test]
async fn event_names_added_during_a_sync_are_read_from_the_start() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, named(8));
    for mode in ["incremental", "full_refresh"] {
        let catalog = catalog(&["events"], mode);
        let few = Source::new(&posthog.url()).with_page_size(4).with("include_events", json!(["a"]));
        let whole = few.read_all(&catalog, None).await;
        let parts = interrupted(&whole);
        assert!(parts.len() > 5, "only {} states", parts.len());
        // The last state of a full refresh is complete: nothing continues from it.
        for part in &parts[..parts.len() - usize::from(mode == "full_refresh")] {
            let all = Source::new(&posthog.url()).with_page_size(4);
            assert_completes(&all, &catalog, part, &posthog).await;
        }
    }
}

#[tokio::test]
async fn full_refresh_with_an_earlier_start_date_starts_over() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, named(8));
    let catalog = catalog(&["events"], "full_refresh");
    let late = Source::new(&posthog.url()).with_page_size(4).with("start_date", ago(5 * DAY));
    for part in interrupted(&late.read_all(&catalog, None).await) {
        let early = Source::new(&posthog.url()).with_page_size(4);
        assert_completes(&early, &catalog, &part, &posthog).await;
    }
}

#[tokio::test]
async fn full_refresh_ignores_the_state_of_an_incremental_sync() {
    for export in [false, true] {
        let posthog = sandbox_with_exports(Exports::default()).await;
        posthog.insert(PROJECT, named(3));
        let source = Source::new(&posthog.url());
        let source = if export { source.with_exports() } else { source.with_page_size(100) };
        let state = source.read_all(&catalog(&["events"], "incremental"), None).await.state();
        let again = source.read_all(&catalog(&["events"], "full_refresh"), Some(&state)).await;
        assert_eq!(again.id_set("events"), event_ids(&posthog), "export: {export}");
        // And what it leaves behind is no place to continue from incrementally.
        let after = source.read_all(&catalog(&["events"], "incremental"), Some(&again.state())).await;
        assert_eq!(after.id_set("events"), event_ids(&posthog), "export: {export}");
    }
}

/// A state of queries whose last check for very late events is a day older than its watermark.
fn state_with_an_old_check() -> Value {
    json!({"version": 1, "projects": {PROJECT.to_string(): {
        "method": "query", "created_at": ago(120), "late_check": {"until": ago(DAY), "bytes": 1_000_000_000_000_u64},
    }}})
}

#[tokio::test]
async fn change_to_exports_first_checks_for_very_late_events() {
    let posthog = sandbox_with_exports(Exports::default()).await;
    let late = Event { created_at: minutes_ago(DAY / 2), ..event(1, minutes_ago(90 * DAY)) };
    posthog.insert(PROJECT, vec![late]);
    let state = state_file("events", &state_with_an_old_check());
    let source = Source::new(&posthog.url()).with_exports();
    let messages = source.read_all(&catalog(&["events"], "incremental"), Some(&state)).await;
    assert_eq!(messages.id_set("events"), event_ids(&posthog));
}

#[tokio::test]
async fn later_end_date_checks_the_added_dates_for_very_late_events() {
    let posthog = sandbox().await;
    // Of a time that is asked for only now, and arrived after the watermark, but before the last check.
    let late = Event { created_at: minutes_ago(10 * DAY), ..event(1, minutes_ago(90 * DAY)) };
    posthog.insert(PROJECT, vec![late]);
    let mut state = state_with_an_old_check();
    let project = &mut state["projects"][PROJECT.to_string()];
    project["created_at"] = ago(20 * DAY);
    project["late_check"] = json!({"until": ago(60)});
    project["covered"] = json!({"from": "2020-01-01T00:00:00.000000Z", "to": ago(100 * DAY)});
    let source = Source::new(&posthog.url()).with_page_size(100);
    let messages = source.read_all(&catalog(&["events"], "incremental"), Some(&state_file("events", &state))).await;
    assert_eq!(messages.id_set("events"), event_ids(&posthog));
}

/// A state of exports that have not been compared with PostHog's count since `compared`, about dates
/// from `from` to `to`.
fn state_of_exports(compared: i64, from: &Value, to: &Value) -> Value {
    json!({"version": 1, "projects": {PROJECT.to_string(): {
        "method": "export", "created_at": ago(120), "late_check": {"until": ago(120)},
        "covered": {"from": from, "to": to}, "export": {"compared_until": ago(compared)},
    }}})
}

#[tokio::test]
async fn change_to_queries_with_earlier_dates_reads_what_exports_may_have_omitted() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, vec![event(1, minutes_ago(5 * 60)), event(2, minutes_ago(20 * DAY))]);
    let state = state_of_exports(10 * 60, &ago(10 * DAY), &json!("2299-01-01T00:00:00.000000Z"));
    let source = Source::new(&posthog.url()).with_page_size(100);
    let messages = source.read_all(&catalog(&["events"], "incremental"), Some(&state_file("events", &state))).await;
    assert_eq!(messages.id_set("events"), event_ids(&posthog));
}

#[tokio::test]
async fn later_end_date_exports_the_uncompared_dates_again() {
    let posthog = sandbox_with_exports(Exports::default()).await;
    posthog.insert(PROJECT, vec![event(1, minutes_ago(8 * DAY)), event(2, minutes_ago(DAY))]);
    let state = state_of_exports(10 * DAY, &json!("2020-01-01T00:00:00.000000Z"), &ago(2 * DAY));
    let source = Source::new(&posthog.url()).with_exports();
    let messages = source.read_all(&catalog(&["events"], "incremental"), Some(&state_file("events", &state))).await;
    assert_eq!(messages.id_set("events"), event_ids(&posthog));
}

/// An object that is deleted between two pages moves another one behind the border.
#[tokio::test]
async fn list_that_shrinks_while_it_is_read_is_read_again() {
    let posthog = sandbox().await;
    posthog.generate_lists(PROJECT, 1);
    let source = Source::new(&posthog.url());
    let catalog = catalog(&["insights"], "full_refresh");
    let ids = |messages: &Messages| -> BTreeSet<String> {
        messages.records("insights").iter().map(|insight| insight["id"].to_string()).collect()
    };
    let whole = ids(&source.read_all(&catalog, None).await);
    assert!(whole.len() > 100);
    let shorter =
        Action::Status { code: 200, body: r#"{"count":100,"next":null,"results":[]}"#.into(), headers: vec![] };
    posthog.set_faults(vec![Fault::new(shorter).path("insights.*offset=99").nth(&[1])]).unwrap();
    assert_eq!(ids(&source.read_all(&catalog, None).await), whole);
    assert!(posthog.requests().iter().any(|request| request.fault.is_some()));
}

/// A project with visitors: rows become visible between plan, page and count. They are no disagreement.
#[tokio::test]
async fn rows_inserted_during_a_read_do_not_fail_the_sync() {
    for (stream, mode) in [("events", "full_refresh"), ("events", "incremental"), ("sessions", "incremental")] {
        let posthog = sandbox().await;
        let with_session =
            |number: u32, event: Event| Event { session_id: Uuid::from_u128(number.into()).to_string(), ..event };
        let old = (0..10).map(|number| with_session(number, event(number.into(), minutes_ago(60))));
        let appearing = (10..60).map(|number| {
            let visible_at = Some(minutes_ago(0) + i64::from(number) * 300_000);
            with_session(number, Event { visible_at, ..event(number.into(), minutes_ago(1)) })
        });
        posthog.insert(PROJECT, old.chain(appearing).collect());
        posthog.set_faults(vec![Fault::query(Action::Delay { wait: Duration::from_secs(1) })]).unwrap();
        let messages = Source::new(&posthog.url()).with_page_size(100).read_all(&catalog(&[stream], mode), None).await;
        assert!(messages.records(stream).len() >= 10, "{stream}, {mode}");
    }
}
