//! All streams of all projects are read side by side, within the limits of each kind of request.

use std::collections::BTreeSet;
use std::time::Duration;

use posthog_sandbox::posthog::{Action, Exports, Fault, Limits, Sandbox};
use serde_json::{Value, json};

use crate::support::messages::Messages;
use crate::support::program::catalog;
use crate::support::turned_clock;
use crate::support::world::{PROJECT, assert_events, sandbox, two_hours_ago, two_projects};

const QUERY: Duration = Duration::from_millis(400);
const LIST: Duration = Duration::from_millis(250);

/// Every request takes as long as on PostHog Cloud.
fn slow(posthog: &Sandbox) {
    posthog.set_limits(Limits { latency: QUERY, ..Limits::posthog() });
    posthog.set_faults(vec![Fault::new(Action::Delay { wait: LIST }).method("GET")]).unwrap();
}

/// All streams that the program has.
fn all_streams(sync_mode: &str) -> Value {
    let names = source_posthog::streams::names();
    catalog(&names, sync_mode)
}

/// The streams that report a status, in their order.
fn streams(messages: &Messages, status: &str) -> Vec<String> {
    let reports = messages.of_type("TRACE").into_iter().map(|message| &message["trace"]["stream_status"]);
    let of_status = reports.filter(|report| report["status"] == status);
    of_status.map(|report| report["stream_descriptor"]["name"].as_str().unwrap().to_owned()).collect()
}

/// PostHog refuses a fourth query of a project; here, none is refused.
#[tokio::test(start_paused = true)]
async fn streams_share_the_places_of_each_kind_of_request() {
    let posthog = sandbox().await;
    posthog.generate(PROJECT, 2_000, 1, two_hours_ago());
    slow(&posthog);
    posthog.clear_requests();
    let settings = json!({"method": {"type": "query", "settle_minutes": 0}});
    let catalog = all_streams("incremental");
    let (messages, took) = turned_clock::read(&posthog, &catalog, None, &settings).await;
    assert_events(&messages, &posthog, &[PROJECT]);
    assert_eq!(streams(&messages, "COMPLETE").len(), catalog["streams"].as_array().unwrap().len());
    let requests = posthog.requests();
    assert!(requests.iter().all(|request| request.status != Some(429)));
    let stats = posthog.stats();
    assert_eq!(stats.peak_queries, 3, "all places for queries are used, and no more");
    assert!(stats.peak_requests > 6, "lists are read beside queries");
    let one_after_the_other = requests.iter().map(|request| if request.sql.is_some() { QUERY } else { LIST });
    assert!(took < one_after_the_other.sum::<Duration>() / 3, "{took:?} for {} requests", requests.len());
}

#[tokio::test(start_paused = true)]
async fn projects_have_places_of_their_own() {
    let posthog = two_projects().await;
    for project in [1001, 1002] {
        posthog.generate(project, 2_000, project, two_hours_ago());
    }
    slow(&posthog);
    posthog.clear_requests();
    let settings = json!({"method": {"type": "query", "page_size": 100, "settle_minutes": 0}});
    let (messages, _) = turned_clock::read(&posthog, &catalog(&["events"], "incremental"), None, &settings).await;
    assert_events(&messages, &posthog, &[1001, 1002]);
    assert!(posthog.requests().iter().all(|request| request.status == Some(200)));
    assert_eq!(posthog.stats().peak_queries, 6);
}

/// A stream that has much to read does not keep the others from reading.
#[tokio::test(start_paused = true)]
async fn small_streams_end_before_a_large_one() {
    let posthog = sandbox().await;
    posthog.generate(PROJECT, 2_000, 1, two_hours_ago());
    slow(&posthog);
    let settings = json!({"method": {"type": "query", "page_size": 10, "settle_minutes": 0}});
    let catalog = catalog(&["events", "groups", "feature_flags", "cohorts"], "full_refresh");
    let (messages, _) = turned_clock::read(&posthog, &catalog, None, &settings).await;
    assert_events(&messages, &posthog, &[PROJECT]);
    assert_eq!(streams(&messages, "COMPLETE").last().map(String::as_str), Some("events"));
    let started = streams(&messages, "STARTED");
    assert_eq!(started.first().map(String::as_str), Some("events"), "events are given the first places");
}

/// PostHog runs 20 exports of a project at a time; all streams together stay below the configured number, but
/// each may have one.
#[tokio::test(start_paused = true)]
async fn streams_share_the_runs_of_a_project() {
    let posthog = sandbox().await;
    posthog.generate(PROJECT, 2_000, 1, two_hours_ago());
    slow(&posthog);
    posthog.set_exports(Exports { running: Duration::from_secs(45), ..Exports::default() });
    let settings = json!({"method": {"type": "export", "settle_minutes": 0}, "export_above": 0, "export_runs": 4});
    let catalog = catalog(&["events", "persons", "sessions"], "incremental");
    let (messages, _) = turned_clock::read(&posthog, &catalog, None, &settings).await;
    let stored: BTreeSet<String> = posthog.events(PROJECT).into_iter().map(|event| event.uuid.to_string()).collect();
    assert_eq!(messages.id_set("events"), stored);
    let most = posthog.most_runs_at_a_time();
    assert!((4..=6).contains(&most), "{most} runs at a time");
}
