//! A condition of the user's on events.

use std::collections::BTreeSet;

use posthog_sandbox::posthog::{Event, Exports, Sandbox};
use serde_json::{Value, json};

use crate::support::program::{Source, catalog};
use crate::support::world::{EXPORT_KEY, PROJECT, event, export_key, key, minutes_ago};

const FILTER: &str = "properties.plan = 'pro' -- paying (customers";

fn of_plan(number: u32, plan: &str) -> Event {
    let event = event(number.into(), minutes_ago(300 - i64::from(number)));
    Event { properties: json!({"plan": plan}).to_string(), event: format!("event {}", number % 2), ..event }
}

/// A sandbox that offers exports, with every third event of the plan `pro`.
async fn world() -> Sandbox {
    let posthog = Sandbox::builder()
        .exports(Exports::default())
        .key(key("phx_full", &["*"], None))
        .key(export_key())
        .start()
        .await
        .unwrap();
    posthog
        .insert(PROJECT, (0..60).map(|number| of_plan(number, if number % 3 == 0 { "pro" } else { "free" })).collect());
    posthog
}

fn source(posthog: &Sandbox) -> Source {
    Source::new(&posthog.url()).with("event_filter", json!(FILTER))
}

/// The ids of the events with this plan.
fn ids(posthog: &Sandbox, plan: &str) -> BTreeSet<String> {
    let has_plan = |event: &&Event| event.properties.contains(plan);
    posthog.events(PROJECT).iter().filter(has_plan).map(|event| event.uuid.to_string()).collect()
}

#[tokio::test]
async fn only_events_that_fulfil_the_condition_are_read_and_compared() {
    let posthog = world().await;
    for method in ["auto", "export", "query"] {
        let source = source(&posthog).with("method", json!({"type": method, "settle_minutes": 0}));
        let catalog = catalog(&["events"], "incremental");
        let messages = source.read_all(&catalog, None).await;
        assert_eq!(messages.id_set("events"), ids(&posthog, "pro"), "{method}");
        let said = messages.logs("INFO").join("\n").contains("events are read by query, because `event_filter`");
        assert_eq!(said, method != "query", "{method}");
        let later = source.read_all(&catalog, Some(&messages.state())).await;
        assert_eq!(later.records("events").len(), 0, "{method}");
    }
    assert!(posthog.export_runs().is_empty());
}

#[tokio::test]
async fn late_events_are_read_by_the_condition_as_well() {
    let posthog = world().await;
    let catalog = catalog(&["events"], "incremental");
    let first = source(&posthog).read_all(&catalog, None).await;
    // Later than the bound of the first sync, about a time long before.
    let late = |number, plan| Event { created_at: minutes_ago(0), ..of_plan(number, plan) };
    posthog.insert(PROJECT, vec![late(100, "pro"), late(101, "free")]);
    let second = source(&posthog).read_all(&catalog, Some(&first.state())).await;
    let read: BTreeSet<String> = first.id_set("events").union(&second.id_set("events")).cloned().collect();
    assert!(second.ids("events").len() <= 1 && read.is_subset(&ids(&posthog, "pro")));
    let third = source(&posthog).read_all(&catalog, Some(&second.state())).await;
    let read: BTreeSet<String> = read.union(&third.id_set("events")).cloned().collect();
    assert_eq!(read, ids(&posthog, "pro"));
}

#[tokio::test]
async fn figures_of_days_are_about_the_events_that_fulfil_the_condition() {
    let posthog = world().await;
    for (streams, proof) in [(&["events", "event_days"][..], "compared"), (&["event_days"], "counted")] {
        let messages = source(&posthog).read_all(&catalog(streams, "incremental"), None).await;
        let days = messages.records("event_days");
        let count: u64 = days.iter().map(|day| day["events"].as_u64().unwrap()).sum();
        assert_eq!(count, ids(&posthog, "pro").len() as u64, "{days:?}");
        assert!(days.iter().all(|day| day["proof"] == proof), "{days:?}");
    }
}

#[tokio::test]
async fn another_condition_begins_from_scratch() {
    let posthog = world().await;
    let catalog = catalog(&["events"], "incremental");
    let mut state = source(&posthog).read_all(&catalog, None).await.state();
    for (filter, expected) in [
        (json!("properties.plan = 'free'"), ids(&posthog, "free")),
        (Value::Null, ids(&posthog, "plan")),
        (json!(FILTER), ids(&posthog, "pro")),
    ] {
        let messages = source(&posthog).with("event_filter", filter.clone()).read_all(&catalog, Some(&state)).await;
        assert_eq!(messages.id_set("events"), expected, "{filter}");
        let notices = messages.logs("INFO").join("\n");
        assert!(
            notices.contains("`event_filter` has changed, so all events that are chosen now are read"),
            "{notices}"
        );
        state = messages.state();
    }
    // Names can still be added and taken away.
    let mut read = BTreeSet::new();
    for names in [json!(["event 0"]), json!([])] {
        let source = source(&posthog).with("include_events", names);
        let messages = source.read_all(&catalog, Some(&state)).await;
        read.extend(messages.id_set("events"));
        state = messages.state();
    }
    let other_name = posthog.events(PROJECT).into_iter().filter(|event| event.event == "event 1");
    let expected: BTreeSet<String> = other_name.map(|event| event.uuid.to_string()).collect();
    assert_eq!(read, ids(&posthog, "pro").intersection(&expected).cloned().collect());
}

#[tokio::test]
async fn check_tries_the_condition() {
    let posthog = world().await;
    let (status, message) = source(&posthog).check().await;
    assert_eq!(status, "SUCCEEDED");
    assert!(message.contains("20 of the events of the last 24 hours fulfil `event_filter`"), "{message}");
    assert!(message.contains("events are read by query, because `event_filter`"), "{message}");
    for (filter, expected) in [
        ("nosuch = 1", "`event_filter` is refused by PostHog"),
        ("1 = 1) OR (1 = 1", "`event_filter` has a `)` without its `(`"),
        ("WHERE 1 = 1", "`event_filter` contains WHERE"),
        ("event = 'a', properties.plan = 'pro'", "`event_filter` is a list; it must be one condition"),
        ("(event = 'a', 1)", "`event_filter` is a list; it must be one condition"),
        ("tuple(event = 'a', 1)", "`event_filter` is refused by PostHog"),
        ("'pro'", "`event_filter` has no condition in it"),
        ("event", "`event_filter` is refused by PostHog"),
    ] {
        let source = source(&posthog).with("event_filter", json!(filter));
        let (status, message) = source.check().await;
        assert_eq!(status, "FAILED");
        assert!(message.contains(expected), "{message}");
        let outcome = source.read(&catalog(&["events"], "incremental"), None).await;
        assert_eq!(outcome.code, Some(1));
        let errors = outcome.messages.errors().join("\n");
        assert!(errors.starts_with("config_error:") && errors.contains(expected), "{errors}");
        let sentence = message.split(expected).nth(1).and_then(|rest| rest.lines().next()).unwrap_or_default();
        assert!(errors.contains(&format!("{expected}{sentence}")), "{message} is not {errors}");
    }
    let source = source(&posthog).with("api_key", json!(EXPORT_KEY));
    assert_eq!(source.check().await.0, "FAILED");
    let outcome = source.read(&catalog(&["events"], "incremental"), None).await;
    let errors = outcome.messages.errors().join("\n");
    assert!(errors.contains("lacks the scope `query:read`"), "{errors}");
    assert_eq!(outcome.messages.records("events").len(), 0);
}
