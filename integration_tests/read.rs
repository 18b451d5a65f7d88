//! `read` without trouble: everything arrives once, with its values, in the protocol's shapes.

use std::collections::BTreeSet;

use chrono::{Duration, Utc};
use posthog_sandbox::posthog::{Event, Sandbox};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::messages::Messages;
use crate::support::program::{Source, catalog, state_file};
use crate::support::world::{
    PROJECT, assert_events, assert_no_duplicates, event, events, minutes_ago, person, sandbox, two_hours_ago,
    two_projects, within_a_day,
};

#[tokio::test]
async fn events_of_real_sdks_are_read_once_with_their_values() {
    let posthog = two_projects().await;
    let first = posthog.load_dataset(1001, two_hours_ago()).unwrap();
    posthog.generate(1002, 1_500, 7, two_hours_ago());
    let messages = Source::new(&posthog.url()).read_all(&catalog(&["events"], "full_refresh"), None).await;
    assert!(first > 3_000, "the data set has {first} events");
    assert_events(&messages, &posthog, &[1001, 1002]);
    assert_no_duplicates(&messages);
    assert_eq!(messages.statuses("events"), ["STARTED", "RUNNING", "COMPLETE"]);
    let estimates: Vec<&Value> = messages
        .of_type("TRACE")
        .into_iter()
        .filter(|message| message["trace"]["type"] == "ESTIMATE")
        .map(|message| &message["trace"]["estimate"]["row_estimate"])
        .collect();
    let rows = posthog.events(1001).len() + posthog.events(1002).len();
    // First with the copies that are not merged yet, in the end without them.
    let last_two: Vec<Option<u64>> = estimates[estimates.len() - 2..].iter().map(|rows| rows.as_u64()).collect();
    assert_eq!(last_two, [Some(rows as u64), Some(messages.records("events").len() as u64)]);
}

#[tokio::test]
async fn big_numbers_and_key_order_are_preserved() {
    let posthog = sandbox().await;
    let properties = r#"{"z":123456789012345678901234567890,"a":1.0,"m":1e-7,"a":2,"deep":{"b":-0.0}}"#;
    posthog.insert(PROJECT, vec![Event { properties: properties.to_owned(), ..event(1, minutes_ago(120)) }]);
    let messages = Source::new(&posthog.url()).read_all(&catalog(&["events"], "full_refresh"), None).await;
    assert!(messages.text().contains(&format!("\"properties\":{properties}")), "{}", messages.text());
}

#[tokio::test]
async fn events_of_one_microsecond_across_pages_are_read_once() {
    let posthog = sandbox().await;
    let instant = minutes_ago(300);
    posthog.insert(PROJECT, (0..950).map(|number| event(number * 0x1_0000_0000_0001, instant)).collect());
    let source = Source::new(&posthog.url()).with_page_size(100);
    let messages = source.read_all(&catalog(&["events"], "full_refresh"), None).await;
    assert_events(&messages, &posthog, &[PROJECT]);
    assert_no_duplicates(&messages);
    assert!(posthog.requests().iter().filter(|request| request.rows == Some(100)).count() >= 9);
}

#[tokio::test]
async fn unmerged_duplicates_become_one_record_with_the_newest_ingestion_time() {
    let posthog = sandbox().await;
    let mut rows = events(300, minutes_ago(120));
    for number in (0..300).step_by(3) {
        let newer = Event { created_at: rows[number].created_at + 5_000_000, ..rows[number].clone() };
        rows.push(newer);
    }
    posthog.insert(PROJECT, rows);
    for page_size in [7, 50_000] {
        let source = Source::new(&posthog.url()).with_page_size(page_size);
        let messages = source.read_all(&catalog(&["events"], "full_refresh"), None).await;
        assert_events(&messages, &posthog, &[PROJECT]);
        assert_no_duplicates(&messages);
        let records = messages.records("events");
        let newest = records.iter().filter(|record| {
            let instant =
                |field: &str| source_posthog::time::Timestamp::parse(record[field].as_str().unwrap()).unwrap();
            instant("created_at").micros() - instant("timestamp").micros() == 6_000_000
        });
        assert_eq!(newest.count(), 100);
    }
}

#[tokio::test]
async fn second_sync_reads_only_new_events() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, events(500, within_a_day()));
    let source = Source::new(&posthog.url());
    let catalog = catalog(&["events"], "incremental");
    let first = source.read_all(&catalog, None).await;
    assert_events(&first, &posthog, &[PROJECT]);
    posthog.insert(
        PROJECT,
        (1_000..1_010).map(|number| event(number, Utc::now().timestamp_micros() - 2_000_000)).collect(),
    );
    let second = source.read_all(&catalog, Some(&first.state())).await;
    assert_eq!(second.ids("events").len(), 10);
    let third = source.read_all(&catalog, Some(&second.state())).await;
    assert_eq!(third.ids("events").len(), 0, "nothing is read twice");
}

#[tokio::test]
async fn late_events_of_any_age_are_read_by_the_next_sync() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, events(50, within_a_day()));
    let source = Source::new(&posthog.url());
    let catalog = catalog(&["events"], "incremental");
    let first = source.read_all(&catalog, None).await;
    let now = Utc::now();
    let ages = [
        Duration::minutes(1),
        Duration::days(3),
        Duration::days(29),
        Duration::days(40),
        Duration::days(900),
        Duration::days(-400),
    ];
    let late = ages.iter().zip(5_000..).map(|(age, number)| Event {
        created_at: now.timestamp_micros() - 1_000_000,
        ..event(number, (now - *age).timestamp_micros())
    });
    posthog.insert(PROJECT, late.collect());
    let second = source.read_all(&catalog, Some(&first.state())).await;
    assert_eq!(second.ids("events").len(), ages.len(), "{}", second.without_records());
    assert_no_duplicates(&second);
}

#[tokio::test]
async fn lookback_window_finds_events_that_become_visible_late() {
    let posthog = sandbox().await;
    let mut rows = events(100, within_a_day());
    let now = Utc::now().timestamp_micros();
    // Received before the first sync, visible only after it.
    rows.extend((200..220).map(|number| Event { visible_at: Some(i64::MAX), ..event(number, now - 60_000_000) }));
    posthog.insert(PROJECT, rows.clone());
    let source = Source::new(&posthog.url());
    let catalog = catalog(&["events"], "incremental");
    let first = source.read_all(&catalog, None).await;
    assert_eq!(first.ids("events").len(), 100);
    posthog.insert(PROJECT, (200..220).map(|number| event(number, now - 60_000_000)).collect());
    let second = source.read_all(&catalog, Some(&first.state())).await;
    assert_eq!(second.id_set("events").len(), 20);
}

#[tokio::test]
async fn changed_dates_read_only_the_added_ranges() {
    let posthog = sandbox().await;
    let day = 86_400_000_000;
    let newest = minutes_ago(600);
    posthog
        .insert(PROJECT, (0..30).map(|number| event(number, newest - i64::try_from(number).unwrap() * day)).collect());
    let date = |days: i64| json!((Utc::now() - Duration::days(days)).format("%Y-%m-%dT00:00:00Z").to_string());
    let catalog = catalog(&["events"], "incremental");
    let narrow = Source::new(&posthog.url()).with("start_date", date(20)).with("end_date", date(10));
    let first = narrow.read_all(&catalog, None).await;
    assert!((9..=11).contains(&first.ids("events").len()));
    let wide = Source::new(&posthog.url()).with("start_date", date(25));
    let second = wide.read_all(&catalog, Some(&first.state())).await;
    assert_no_duplicates(&second);
    assert!(first.id_set("events").is_disjoint(&second.id_set("events")));
    assert!((24..=26).contains(&(first.ids("events").len() + second.ids("events").len())));
    let third = wide.read_all(&catalog, Some(&second.state())).await;
    assert_eq!(third.ids("events").len(), 0);
}

#[tokio::test]
async fn event_names_are_matched_exactly_and_passed_as_values() {
    let posthog = sandbox().await;
    let names = ["$pageview", "it's {odd} \\ `name`", "Sign Up", "sign up"];
    let rows = names
        .iter()
        .zip(0..)
        .map(|(name, number)| Event { event: (*name).to_owned(), ..event(number, minutes_ago(90)) });
    posthog.insert(PROJECT, rows.collect());
    let read = async |field: &str, chosen: &[&str]| {
        let source = Source::new(&posthog.url()).with(field, json!(chosen));
        let messages = source.read_all(&catalog(&["events"], "full_refresh"), None).await;
        messages.records("events").iter().map(|record| record["event"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(read("include_events", &[names[1], "Sign Up"]).await.len(), 2);
    assert_eq!(read("exclude_events", &[names[1], "Sign Up"]).await.len(), 2);
    assert_eq!(read("include_events", &["nothing"]).await, Vec::<String>::new());
}

#[tokio::test]
async fn project_without_events_completes_with_a_state() {
    let posthog = sandbox().await;
    let source = Source::new(&posthog.url());
    for mode in ["full_refresh", "incremental"] {
        let messages = source.read_all(&catalog(&["events", "persons"], mode), None).await;
        assert_eq!(messages.statuses("events"), ["STARTED", "COMPLETE"]);
        assert!(messages.stream_state("events").is_object() && messages.stream_state("persons").is_object());
    }
}

#[tokio::test]
async fn records_and_states_carry_the_namespace_of_the_catalog() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, events(3, minutes_ago(90)));
    let source = Source::new(&posthog.url());
    for namespace in [json!("warehouse"), json!("")] {
        let mut catalog = catalog(&["events"], "incremental");
        catalog["streams"][0]["stream"]["namespace"] = namespace.clone();
        let messages = source.read_all(&catalog, None).await;
        assert!(messages.of_type("RECORD").iter().all(|message| message["record"]["namespace"] == namespace));
        assert_eq!(messages.state()[0]["stream"]["stream_descriptor"]["namespace"], namespace);
        let again = source.read_all(&catalog, Some(&messages.state())).await;
        assert_eq!(again.ids("events").len(), 0, "the state was not found");
    }
    let messages = source.read_all(&catalog(&["events"], "incremental"), None).await;
    assert!(messages.of_type("RECORD").iter().all(|message| message["record"].get("namespace").is_none()));
}

async fn sandbox_with_persons(count: u128) -> Sandbox {
    let posthog = sandbox().await;
    for number in 0..count {
        let created = minutes_ago(90_000) + i64::try_from(number).unwrap() * 60_000_000;
        let seen = (number % 3 > 0).then_some(created + 1_000_000_000);
        posthog.insert_person(PROJECT, person(number, created, seen));
    }
    posthog
}

#[tokio::test]
async fn persons_are_read_fully_and_incrementally() {
    let posthog = sandbox_with_persons(500).await;
    let source = Source::new(&posthog.url()).with_page_size(64);
    let full = source.read_all(&catalog(&["persons"], "full_refresh"), None).await;
    assert_eq!(full.ids("persons").len(), 500);
    assert_eq!(full.id_set("persons").len(), 500);
    let record = full.records("persons")[0];
    assert!(record["properties"]["number"].is_u64() && record["is_identified"].is_boolean());
    assert_eq!(record["uuid"], record["id"]);
    assert_eq!(record["project_id"], PROJECT);

    let catalog = catalog(&["persons"], "incremental");
    let first = source.read_all(&catalog, None).await;
    assert_eq!(first.id_set("persons").len(), 500);
    posthog.insert_person(PROJECT, person(3, minutes_ago(90_000), Some(Utc::now().timestamp_micros())));
    posthog.insert_person(PROJECT, person(9_000, Utc::now().timestamp_micros(), None));
    let second = source.read_all(&catalog, Some(&first.state())).await;
    let expected = [3, 9_000].map(|number| Uuid::from_u128(number).to_string());
    assert_eq!(second.id_set("persons"), expected.into_iter().collect());
}

/// An event of a minute ago moves a person to the hour in which it was: here, fifty minutes back.
#[tokio::test]
async fn persons_with_times_rounded_to_the_hour_are_read() {
    let posthog = sandbox_with_persons(50).await;
    let source =
        Source::new(&posthog.url()).with("method", json!({"type": "query", "overlap_minutes": 1, "settle_minutes": 0}));
    let catalog = catalog(&["persons"], "incremental");
    let first = source.read_all(&catalog, None).await;
    posthog.insert_person(PROJECT, person(9_000, minutes_ago(1), Some(minutes_ago(50))));
    let second = source.read_all(&catalog, Some(&first.state())).await;
    assert_eq!(second.ids("persons"), [Uuid::from_u128(9_000).to_string()]);
}

#[tokio::test]
async fn sessions_are_read_by_query_and_again_while_they_may_grow() {
    let posthog = sandbox().await;
    posthog.generate(PROJECT, 800, 3, two_hours_ago());
    let source = Source::new(&posthog.url()).with_page_size(100);
    let catalog = catalog(&["sessions"], "incremental");
    let first = source.read_all(&catalog, None).await;
    let stored = |posthog: &Sandbox| -> BTreeSet<String> {
        let sessions = posthog.events(PROJECT).into_iter().map(|event| event.session_id);
        sessions.filter(|id| !id.is_empty()).collect()
    };
    assert_eq!(first.id_set("sessions"), stored(&posthog));
    // This version of PostHog lacks a column, which is said and no reason to fail.
    assert!(first.logs("INFO").iter().any(|line| line.contains("this PostHog has no `person_id`")));
    let record = first.records("sessions")[0];
    assert!(record["person_id"].is_null() && record["pageview_count"].is_u64() && record["urls"].is_array());
    let growing = event(1, minutes_ago(30));
    let session_id = "01990000-0000-7000-8000-000000000001".to_owned();
    posthog.insert(PROJECT, vec![Event { session_id: session_id.clone(), ..growing.clone() }]);
    let second = source.read_all(&catalog, Some(&first.state())).await;
    posthog.insert(
        PROJECT,
        vec![Event { session_id: session_id.clone(), uuid: Uuid::from_u128(2), timestamp: minutes_ago(1), ..growing }],
    );
    let third = source.read_all(&catalog, Some(&second.state())).await;
    let end = |messages: &Messages| {
        let records = messages.records("sessions");
        let record = records.iter().find(|record| record["session_id"] == session_id.as_str()).unwrap();
        record["end_timestamp"].as_str().unwrap().to_owned()
    };
    assert!(end(&second) < end(&third));
    assert!(third.id_set("sessions").len() < first.id_set("sessions").len());
}

#[tokio::test]
async fn projects_are_read_with_the_fields_of_their_schema() {
    let posthog = two_projects().await;
    let source = Source::new(&posthog.url());
    let messages = source.read_all(&catalog(&["projects"], "full_refresh"), None).await;
    let projects = messages.records("projects");
    let zones: Vec<&Value> = projects.iter().map(|project| &project["timezone"]).collect();
    assert_eq!(zones, ["America/New_York", "Asia/Kolkata"]);
    let schema = source_posthog::streams::PROJECTS.schema();
    for project in projects {
        assert!(project.as_object().unwrap().keys().all(|field| schema["properties"].get(field).is_some()));
    }
    assert!(messages.stream_state("projects").is_object());
}

#[tokio::test]
async fn streams_without_a_cursor_are_read_in_full_by_incremental_syncs() {
    let posthog = two_projects().await;
    posthog.generate_lists(1001, 1);
    let source = Source::new(&posthog.url());
    let catalog = catalog(&["projects", "cohorts"], "incremental");
    let first = source.read_all(&catalog, None).await;
    let second = source.read_all(&catalog, Some(&first.state())).await;
    for messages in [&first, &second] {
        assert_eq!((messages.records("projects").len(), messages.records("cohorts").len()), (2, 25));
        assert!(messages.logs("WARN").iter().any(|line| line.contains("`cohorts` cannot be read incrementally")));
    }
}

#[tokio::test]
async fn only_the_listed_projects_are_read() {
    let posthog = two_projects().await;
    posthog.insert(1001, events(5, minutes_ago(90)));
    posthog.insert(1002, vec![event(77, minutes_ago(90))]);
    let source = Source::new(&posthog.url()).with("project_ids", json!(["1002"]));
    let messages = source.read_all(&catalog(&["events", "projects"], "full_refresh"), None).await;
    assert_events(&messages, &posthog, &[1002]);
    assert_eq!(messages.records("projects").len(), 1);
    assert!(posthog.requests().iter().all(|request| !request.path.contains("1001")));
}

#[tokio::test]
async fn log_names_a_project_that_is_no_longer_listed() {
    let posthog = two_projects().await;
    let catalog = catalog(&["events", "cohorts", "person_distinct_ids"], "incremental");
    let first = Source::new(&posthog.url()).read_all(&catalog, None).await;
    assert!(first.logs("WARN").iter().all(|log| !log.contains("does not list it")));
    let mut state = first.state();
    for stream in state.as_array_mut().unwrap() {
        if let Some(projects) = stream["stream"]["stream_state"]["projects"].as_object_mut() {
            let other = projects["1002"].clone();
            projects.insert("1003".to_owned(), other);
        }
    }
    for (chosen, warnings) in [(Value::Null, 1), (json!([1001]), 0)] {
        let source = Source::new(&posthog.url()).with("project_ids", chosen);
        let second = source.read_all(&catalog, Some(&state)).await;
        let logs = second.logs("WARN");
        let named = logs.iter().filter(|log| log.starts_with("project 1003 is in the state"));
        assert_eq!(named.count(), warnings, "{logs:?}");
    }
}

#[tokio::test]
async fn sync_resumes_from_a_state_of_airbytes_own_connector() {
    let posthog = two_projects().await;
    let day = 86_400_000_000;
    for project in [1001, 1002] {
        posthog.insert(
            project,
            (0..10)
                .map(|number| {
                    event(number + u128::from(project) * 100, minutes_ago(600) - i64::try_from(number).unwrap() * day)
                })
                .collect(),
        );
    }
    let source = Source::new(&posthog.url()).with("events_time_step", json!(30));
    let at = source_posthog::time::Timestamp::from_micros(minutes_ago(660) - 4 * day);
    let state = state_file("events", &json!({"1001": {"timestamp": at.to_string()}}));
    let messages = source.read_all(&catalog(&["events"], "incremental"), Some(&state)).await;
    let of = |project: u64| messages.records("events").iter().filter(|record| record["project_id"] == project).count();
    assert_eq!((of(1001), of(1002)), (5, 10));
    // About a time that the other connector had read, but it came in later.
    let late = Event { created_at: minutes_ago(300), ..event(1, minutes_ago(660) - 20 * day) };
    let id = late.uuid.to_string();
    posthog.insert(1001, vec![late]);
    let next = source.read_all(&catalog(&["events"], "incremental"), Some(&messages.state())).await;
    assert!(next.ids("events").contains(&id));
    // Where it had stopped in all projects says nothing about one that is added later.
    let state = state_file("events", &json!({"timestamp": at.to_string()}));
    let catalog = catalog(&["events"], "incremental");
    let one = Source::new(&posthog.url()).with("project_ids", json!([1001])).read_all(&catalog, Some(&state)).await;
    assert_eq!(one.ids("events").len(), 6, "with the one that was ingested late");
    let both = Source::new(&posthog.url()).read_all(&catalog, Some(&one.state())).await;
    assert_eq!(both.records("events").iter().filter(|record| record["project_id"] == 1002).count(), 10);
}
