//! Everything that can go wrong on the way: nothing is lost, and nothing that came is read twice.

use std::time::Duration;

use posthog_sandbox::posthog::{Action, Budget, Fault, Limits, Overload, Sandbox};
use serde_json::json;

use crate::support::messages::Messages;
use crate::support::program::{Source, catalog};
use crate::support::world::{
    PROJECT, assert_events, assert_no_duplicates, events, minutes_ago, sandbox, two_projects, within_a_day,
};

fn error(code: u16, name: &str, detail: &str) -> Action {
    let body = json!({"type": "server_error", "code": name, "detail": detail, "attr": null}).to_string();
    Action::Status { code, body, headers: Vec::new() }
}

fn throttled_without_hint() -> Action {
    error(429, "throttled", "Too many queries are running right now — please try again in a moment.")
}

async fn sandbox_with_events() -> Sandbox {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, events(2_000, within_a_day()));
    posthog
}

async fn read_through(posthog: &Sandbox, faults: Vec<Fault>) -> Messages {
    posthog.set_faults(faults).unwrap();
    let source = Source::new(&posthog.url()).with_page_size(600).with("read_timeout_seconds", json!(1));
    let messages = source.read_all(&catalog(&["events"], "incremental"), None).await;
    assert_events(&messages, posthog, &[PROJECT]);
    assert_no_duplicates(&messages);
    messages
}

/// Faults of requests for pages; the histogram and the counts are other queries.
fn page(action: Action) -> Fault {
    Fault::query(action).sql("properties").nth(&[2])
}

#[tokio::test]
async fn transient_errors_are_retried() {
    let posthog = sandbox_with_events().await;
    for action in [
        error(500, "error", "ClickHouse error while executing query."),
        error(503, "error", "Queries are a little too busy right now."),
        error(513, "clickhouse_memory_limit_exceeded", "We're under heavy load right now."),
        Action::Html { code: 502 },
        Action::Html { code: 524 },
        Action::Html { code: 200 },
        throttled_without_hint(),
        Action::throttle(1),
        Action::Reset,
        Action::Malformed,
        Action::BadEncoding,
    ] {
        posthog.clear_requests();
        read_through(&posthog, vec![page(action.clone())]).await;
        let fired = posthog.requests().iter().filter(|request| request.fault.is_some()).count();
        assert_eq!(fired, 1, "{action:?} did not happen");
    }
}

#[tokio::test]
async fn truncated_body_is_resumed_after_its_last_row() {
    let posthog = sandbox_with_events().await;
    for action in [
        Action::Truncate { fraction: 0.7 },
        Action::Truncate { fraction: 0.0 },
        Action::ResetMidBody { fraction: 0.9 },
        Action::Stall { wait: Duration::from_secs(20) },
    ] {
        posthog.clear_requests();
        read_through(&posthog, vec![page(action.clone())]).await;
        let rows: usize = posthog.requests().iter().filter(|request| request.fault.is_some()).count();
        assert_eq!(rows, 1, "{action:?} did not happen");
    }
}

#[tokio::test]
async fn sync_waits_for_slow_bodies() {
    let posthog = sandbox_with_events().await;
    let drip = Action::Drip { pieces: 6, over: Duration::from_secs(2) };
    read_through(&posthog, vec![page(drip)]).await;
    assert_eq!(posthog.requests().iter().filter(|request| request.fault.is_some()).count(), 1);
}

#[tokio::test]
async fn every_too_large_error_reduces_the_page_size() {
    for overload in [Overload::Timeout, Overload::TooSlow, Overload::Memory] {
        let posthog = sandbox_with_events().await;
        posthog.set_limits(Limits { rows_returned: Some(300), overload, ..Limits::default() });
        let source = Source::new(&posthog.url());
        let messages = source.read_all(&catalog(&["events"], "incremental"), None).await;
        assert_events(&messages, &posthog, &[PROJECT]);
        assert_no_duplicates(&messages);
        let refused =
            posthog.requests().iter().filter(|request| request.status.is_some_and(|status| status >= 504)).count();
        assert!((1..15).contains(&refused), "{refused} requests were too large");
    }
}

#[tokio::test]
async fn windows_are_split_when_pages_cannot_shrink() {
    let posthog = sandbox_with_events().await;
    posthog.set_limits(Limits { rows_read: Some(450), ..Limits::default() });
    let source = Source::new(&posthog.url());
    let messages = source.read_all(&catalog(&["events"], "incremental"), None).await;
    assert_events(&messages, &posthog, &[PROJECT]);
    assert_no_duplicates(&messages);
}

#[tokio::test]
async fn repeated_gateway_timeouts_reduce_the_page_size() {
    let posthog = sandbox_with_events().await;
    let gives_up = Fault::query(Action::GatewayTimeout { wait: Duration::from_millis(5_100) }).sql("LIMIT 600$");
    posthog.set_faults(vec![gives_up]).unwrap();
    let source = Source::new(&posthog.url()).with_page_size(600);
    let messages = source.read_all(&catalog(&["events"], "incremental"), None).await;
    assert_events(&messages, &posthog, &[PROJECT]);
    assert_no_duplicates(&messages);
    assert!(messages.logs("INFO").iter().any(|line| line.contains("asking for less")));
}

#[tokio::test]
async fn a_gateway_without_a_server_behind_it_is_waited_out_and_named() {
    let posthog = sandbox_with_events().await;
    for code in [502, 503, 504, 520, 524, 526] {
        posthog.set_faults(vec![Fault::new(Action::Html { code }).nth(&[1, 2, 3])]).unwrap();
        let source = Source::new(&posthog.url()).with_page_size(600);
        let messages = source.read_all(&catalog(&["events"], "incremental"), None).await;
        assert_events(&messages, &posthog, &[PROJECT]);
        assert!(!messages.text().contains("asking for less"), "{code}");
    }
    posthog.set_faults(vec![Fault::query(Action::Html { code: 502 })]).unwrap();
    let before = posthog.requests().len();
    let source = Source::new(&posthog.url()).with("attempts", json!(3));
    let outcome = source.read(&catalog(&["events"], "incremental"), None).await;
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome.messages.errors()[0].contains("gave up after 3 attempts; last error from PostHog: 502"),
        "{:?}",
        outcome.messages.errors()
    );
    assert!(posthog.requests().len() - before < 10);
}

#[tokio::test]
async fn web_pages_instead_of_responses_are_named_with_base_url() {
    let posthog = sandbox_with_events().await;
    let headers = vec![("content-type".to_owned(), "text/html; charset=utf-8".to_owned())];
    let page = "<!doctype html><html><head><title>Sign in</title></head></html>".to_owned();
    for headers in [headers, Vec::new()] {
        posthog.set_faults(vec![Fault::new(Action::Status { code: 200, body: page.clone(), headers })]).unwrap();
        let (status, message) = Source::new(&posthog.url()).check().await;
        assert_eq!(status, "FAILED");
        assert!(message.contains("a web page (`Sign in`)") && message.contains("`base_url`"), "{message}");
    }
    let body = r#"{"message":"no Route matched with those values"}"#.to_owned();
    posthog.set_faults(vec![Fault::new(Action::Status { code: 404, body, headers: Vec::new() })]).unwrap();
    let (_, message) = Source::new(&posthog.url()).check().await;
    assert!(message.contains("no Route matched") && message.contains("check `base_url`"), "{message}");
}

#[tokio::test]
async fn sync_waits_for_rate_limits_and_logs_it() {
    let posthog = sandbox_with_events().await;
    let throttle = vec![Fault::query(Action::throttle(4)).nth(&[3])];
    let messages = read_through(&posthog, throttle).await;
    assert!(messages.statuses("events").contains(&"RATE_LIMITED".to_owned()), "{:?}", messages.statuses("events"));
    assert!(messages.logs("INFO").iter().any(|line| line.starts_with("waiting")), "{:?}", messages.logs("INFO"));
}

#[tokio::test]
async fn sync_waits_for_the_byte_budget() {
    let posthog = sandbox_with_events().await;
    let per_second = 1_000_000.0;
    posthog.set_limits(Limits {
        budget: Some(Budget { bytes_per_hour: per_second * 3_600.0, capacity: 1_000_000.0, start: 1_000.0 }),
        ..Limits::default()
    });
    let source = Source::new(&posthog.url()).with_page_size(600);
    let messages = source.read_all(&catalog(&["events"], "incremental"), None).await;
    assert_events(&messages, &posthog, &[PROJECT]);
    assert!(posthog.stats().bytes_read > 1_000_000, "the budget was never used up");
    // Each answer says what is left, so nobody asks in vain.
    assert!(posthog.requests().iter().all(|request| request.status == Some(200)));
}

#[tokio::test]
async fn sync_keeps_the_limits_of_posthog_cloud() {
    let posthog = two_projects().await;
    for project in [1001, 1002] {
        posthog.generate(project, 3_000, project, crate::support::world::two_hours_ago());
    }
    posthog.set_limits(Limits { latency: Duration::from_millis(20), ..Limits::posthog() });
    let source = Source::new(&posthog.url()).with_page_size(200);
    let messages = source.read_all(&catalog(&["events"], "incremental"), None).await;
    assert_events(&messages, &posthog, &[1001, 1002]);
    assert!(posthog.requests().iter().all(|request| request.status == Some(200)));
    assert_eq!(posthog.stats().peak_queries, 6, "three for each project");
}

#[tokio::test]
async fn permanent_errors_fail_the_sync_and_keep_what_was_read() {
    let posthog = sandbox_with_events().await;
    posthog.set_faults(vec![Fault::query(Action::Html { code: 500 }).sql("properties").after(2)]).unwrap();
    let source = Source::new(&posthog.url()).with_page_size(600).with("attempts", json!(2));
    let catalog = catalog(&["events", "projects"], "incremental");
    let mut catalog = catalog;
    catalog["streams"][1]["sync_mode"] = json!("full_refresh");
    let outcome = source.read(&catalog, None).await;
    assert_eq!(outcome.code, Some(1));
    let first = outcome.messages;
    assert_eq!(first.statuses("events").last().unwrap(), "INCOMPLETE");
    assert_eq!(first.statuses("projects").last().unwrap(), "COMPLETE", "the other stream is read all the same");
    assert!(first.errors()[0].starts_with("transient_error: project 1001"), "{:?}", first.errors());
    assert_eq!(first.ids("events").len(), 1_200);
    posthog.set_faults(Vec::new()).unwrap();
    let second = source.read_all(&catalog, Some(&first.state())).await;
    assert_eq!(second.ids("events").len(), 800);
    assert!(first.id_set("events").is_disjoint(&second.id_set("events")));
}

#[tokio::test]
async fn failing_project_does_not_stop_the_others() {
    let posthog = two_projects().await;
    posthog.insert(1001, events(10, minutes_ago(90)));
    posthog.insert(
        1002,
        events(10, minutes_ago(90))
            .into_iter()
            .map(|mut event| {
                event.uuid = uuid::Uuid::from_u128(event.uuid.as_u128() + 1_000);
                event
            })
            .collect(),
    );
    let forbidden = error(403, "permission_denied", "You don't have access to the project.");
    posthog.set_faults(vec![Fault::query(forbidden).path("/1001/")]).unwrap();
    let source = Source::new(&posthog.url());
    let outcome = source.read(&catalog(&["events"], "incremental"), None).await;
    assert_eq!(outcome.code, Some(1));
    assert_events(&outcome.messages, &posthog, &[1002]);
    let errors = outcome.messages.errors();
    assert!(errors[0].starts_with("config_error: project 1001"), "{errors:?}");
    assert_eq!(outcome.messages.statuses("events").last().unwrap(), "INCOMPLETE");
}
