//! Sandboxes with events, and comparison of what was read with what they hold.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Duration, NaiveTime, Utc};
use posthog_sandbox::posthog::{Action, Builder, Event, Exports, Key, Person, Project, Sandbox};
use serde_json::Value;
use source_posthog::time::Timestamp;
use uuid::Uuid;

use super::messages::Messages;

/// The number of the default project.
pub(crate) const PROJECT: u64 = 1001;

/// A sandbox with the default project, without events.
pub(crate) async fn sandbox() -> Sandbox {
    Sandbox::builder().start().await.unwrap()
}

/// A sandbox with the default project that offers file exports.
pub(crate) async fn sandbox_with_exports(exports: Exports) -> Sandbox {
    Sandbox::builder().exports(exports).start().await.unwrap()
}

/// A sandbox with two projects in different time zones.
pub(crate) async fn two_projects() -> Sandbox {
    two_projects_with(Sandbox::builder()).await
}

/// The same, started in a special way.
pub(crate) async fn two_projects_with(builder: Builder) -> Sandbox {
    let project = |id, name: &str, timezone: &str| Project {
        id,
        name: name.to_owned(),
        timezone: timezone.to_owned(),
        token: format!("phc_{id}"),
    };
    builder
        .project(project(1001, "Web shop", "America/New_York"))
        .project(project(1002, "App", "Asia/Kolkata"))
        .start()
        .await
        .unwrap()
}

/// A key with these scopes.
pub(crate) fn key(value: &str, scopes: &[&str], projects: Option<Vec<u64>>) -> Key {
    Key { value: value.to_owned(), scopes: scopes.iter().map(ToString::to_string).collect(), projects }
}

/// The value of [`export_key`].
pub(crate) const EXPORT_KEY: &str = "phx_export";

/// A key that may export, but not query.
pub(crate) fn export_key() -> Key {
    key(EXPORT_KEY, &["batch_export:write", "project:read"], None)
}

/// A sandbox with file exports whose only key is [`export_key`].
pub(crate) async fn sandbox_without_queries(exports: Exports) -> Sandbox {
    Sandbox::builder().exports(exports).key(export_key()).start().await.unwrap()
}

/// The instant so many minutes ago, in microseconds.
pub(crate) fn minutes_ago(minutes: i64) -> i64 {
    (Utc::now() - Duration::minutes(minutes)).timestamp_micros()
}

/// Ten hours ago or up to two hours earlier: the two hours from then on lie within one day, and so,
/// as days are read one by one, within one window.
pub(crate) fn within_a_day() -> i64 {
    let ago = Utc::now() - Duration::hours(10);
    let over = (ago + Duration::hours(2)).time() - NaiveTime::MIN;
    let crosses = over < Duration::hours(2);
    (if crosses { ago - over - Duration::seconds(1) } else { ago }).timestamp_micros()
}

/// Everything until then is older than the ingestion delay.
pub(crate) fn two_hours_ago() -> DateTime<Utc> {
    Utc::now() - Duration::hours(2)
}

/// An event with this number, at `timestamp`, received a second later.
pub(crate) fn event(number: u128, timestamp: i64) -> Event {
    Event {
        uuid: Uuid::from_u128(number),
        timestamp,
        created_at: timestamp + 1_000_000,
        properties: format!(r#"{{"number":{number}}}"#),
        ..Event::default()
    }
}

/// A person with this number, created and last seen at these instants.
pub(crate) fn person(number: u128, created_at: i64, last_seen_at: Option<i64>) -> Person {
    Person {
        id: Uuid::from_u128(number),
        created_at,
        properties: format!(r#"{{"number":{number}}}"#),
        is_identified: number.is_multiple_of(2),
        last_seen_at,
        distinct_ids: vec![format!("user-{number}")],
    }
}

/// So many events in each of the last weeks, an hour after the week has begun.
pub(crate) fn weekly(weeks: i64, each: i64) -> Vec<Event> {
    let of_week = |week: i64| {
        let begin = minutes_ago(week * 7 * 24 * 60 - 60);
        (0..each).map(move |number| event(u128::try_from(week * each + number).unwrap(), begin + number * 1_000_000))
    };
    (1..=weeks).flat_map(of_week).collect()
}

/// `count` events, one a second, the last one at `until`.
pub(crate) fn events(count: u32, until: i64) -> Vec<Event> {
    (0..count).map(|number| event(u128::from(number), until - i64::from(count - number) * 1_000_000)).collect()
}

/// The uuids of all events of the default project.
pub(crate) fn event_ids(sandbox: &Sandbox) -> BTreeSet<String> {
    sandbox.events(PROJECT).iter().map(|event| event.uuid.to_string()).collect()
}

/// Fails unless exactly the events of these projects have been read, each with its own values.
pub(crate) fn assert_events(messages: &Messages, sandbox: &Sandbox, projects: &[u64]) {
    assert_events_by(messages, sandbox, projects, same);
}

/// The same for exported events, which lack the mode of the person but have the person's properties.
pub(crate) fn assert_exported_events(messages: &Messages, sandbox: &Sandbox, projects: &[u64]) {
    assert_events_by(messages, sandbox, projects, |record, event| {
        let mut record = record.clone();
        assert!(record["person_properties"].is_object() || record["person_properties"].is_null());
        record["person_properties"] = Value::Null;
        record["person_mode"] = Value::from(event.person_mode.as_str());
        same(&record, event)
    });
}

fn assert_events_by(messages: &Messages, sandbox: &Sandbox, projects: &[u64], same: impl Fn(&Value, &Event) -> bool) {
    let mut truth: BTreeMap<String, Vec<Event>> = BTreeMap::new();
    for project in projects {
        for event in sandbox.events(*project) {
            truth.entry(event.uuid.to_string()).or_default().push(event);
        }
    }
    let read = messages.id_set("events");
    let wanted: BTreeSet<String> = truth.keys().cloned().collect();
    let missing: Vec<&String> = wanted.difference(&read).take(5).collect();
    let extra: Vec<&String> = read.difference(&wanted).take(5).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "missing {missing:?}, extra {extra:?}\n{}",
        messages.without_records()
    );
    for record in messages.records("events") {
        let duplicates = &truth[record["id"].as_str().unwrap()];
        assert!(duplicates.iter().any(|event| same(record, event)), "{record} is not {duplicates:?}");
    }
}

/// Fails if an event has been read more than once.
pub(crate) fn assert_no_duplicates(messages: &Messages) {
    assert_eq!(messages.ids("events").len(), messages.id_set("events").len(), "events were read twice");
}

fn same(record: &Value, event: &Event) -> bool {
    let instant = |field: &str| Timestamp::parse(record[field].as_str().unwrap_or_default()).map(Timestamp::micros);
    let text = |field: &str| record[field].as_str().unwrap_or_default();
    let [group_0, .., group_4] = &event.groups;
    instant("timestamp") == Some(event.timestamp)
        && instant("created_at") == Some(event.created_at)
        && record["uuid"] == record["id"]
        && text("event") == event.event
        && text("distinct_id") == event.distinct_id
        && text("elements_chain") == event.elements_chain
        && text("person_id") == event.person_id.to_string()
        && text("session_id") == event.session_id
        && text("window_id") == event.window_id
        && text("group_0") == group_0
        && text("group_4") == group_4
        && text("person_mode") == event.person_mode
        && record["person_properties"].is_null()
        && record["properties"] == lenient(&event.properties)
}

/// What a lenient parser makes of stored properties: `NaN` and its like are null, no JSON is null.
fn lenient(text: &str) -> Value {
    if let Ok(value) = serde_json::from_str(text) {
        return value;
    }
    let fixed_text = ["NaN", "Infinity", "-Infinity"].iter().fold(text.to_owned(), |text, token| {
        text.replace(&format!(":{token}"), ":null").replace(&format!("[{token}"), "[null")
    });
    serde_json::from_str(&fixed_text).unwrap_or_default()
}

/// Faults of a response that is valid all the same: rows are missing, come twice or are others, or a count is
/// wrong.
pub(crate) fn silent_faults() -> Vec<Action> {
    vec![
        Action::DropRows { rows: 1 },
        Action::DropRows { rows: 5 },
        Action::DuplicateRows { rows: 2 },
        Action::Clamp { rows: 0 },
        Action::Clamp { rows: 1 },
        Action::Clamp { rows: 7 },
        Action::SwapInCopy,
        Action::WrongCount { by: -1 },
        Action::WrongCount { by: 3 },
    ]
}
