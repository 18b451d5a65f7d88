//! `survey_responses` and `ingestion_warnings`, which are made of tables of events and of the system.

use std::collections::BTreeMap;

use posthog_sandbox::posthog::{Action, Event, Fault, IngestionWarning, Sandbox};
use serde_json::{Value, json};
use source_posthog::time::Timestamp;

use crate::support::messages::Messages;
use crate::support::program::{Source, catalog};
use crate::support::world::{PROJECT, event, minutes_ago, sandbox};

/// An event by which answers were sent.
fn sent(number: u128, at: i64, received: i64, properties: &Value) -> Event {
    Event {
        event: "survey sent".to_owned(),
        properties: properties.to_string(),
        created_at: received,
        distinct_id: format!("visitor-{number}"),
        ..event(number, at)
    }
}

fn answered(submission: &str, answers: &[(&str, Value)], completed: bool) -> Value {
    let mut properties = json!({
        "$survey_id": "survey-1", "$survey_name": "¿Qué tal?", "$survey_submission_id": submission,
        "$survey_completed": completed, "$survey_iteration": 2,
    });
    for (question, answer) in answers {
        properties[format!("$survey_response_{question}")] = answer.clone();
    }
    properties
}

fn by_id(messages: &Messages) -> BTreeMap<String, Value> {
    let records = messages.records("survey_responses");
    let found: BTreeMap<String, Value> =
        records.iter().map(|record| (record["id"].as_str().unwrap().to_owned(), (*record).clone())).collect();
    assert_eq!(found.len(), records.len(), "a response came twice");
    found
}

async fn world() -> Sandbox {
    let posthog = sandbox().await;
    let at = minutes_ago(300);
    let (one, two) = (("q-1", json!("8")), ("q-2", json!(["a", "b"])));
    // Unfinished, then finished; the events arrive the other way round.
    let first = sent(1, at, at + 9, &answered("sub-1", std::slice::from_ref(&one), false));
    let last = sent(2, at + 5, at + 6, &answered("sub-1", &[one, two], true));
    let old = sent(3, at, at, &json!({"$survey_id": "survey-2", "$survey_response": "yes", "$survey_response_1": 3}));
    let foreign = sent(4, at, at, &json!({"$survey_response": "no survey"}));
    let shown = Event { event: "survey shown".to_owned(), ..sent(5, at, at, &answered("sub-9", &[], false)) };
    posthog.insert(PROJECT, vec![first, last, old, foreign, shown]);
    posthog
}

#[tokio::test]
async fn a_response_is_one_row_with_its_latest_answers() {
    let posthog = world().await;
    let messages = Source::new(&posthog.url()).read_all(&catalog(&["survey_responses"], "full_refresh"), None).await;
    let found = by_id(&messages);
    assert_eq!(found.len(), 2);
    let response = &found["sub-1"];
    assert_eq!(response["answers"], json!({"q-1": "8", "q-2": ["a", "b"]}));
    assert_eq!((&response["survey_id"], &response["is_completed"]), (&json!("survey-1"), &json!(true)));
    assert_eq!((&response["distinct_id"], &response["project_id"]), (&json!("visitor-2"), &json!(PROJECT)));
    assert_eq!(response["properties"]["$survey_iteration"], 2);
    // The first and the last answer, and whatever was received last.
    let micros = |field: &str| Timestamp::parse_json(&response[field].to_string()).unwrap().micros();
    assert_eq!((micros("timestamp") - micros("started_at"), micros("created_at") - micros("started_at")), (5, 9));
    let old = found.values().find(|response| response["survey_id"] == "survey-2").unwrap();
    assert_eq!(old["id"], old["event_uuid"], "without a submission, the event is the response");
    assert_eq!((&old["answers"], &old["is_completed"]), (&json!({"0": "yes", "1": 3}), &json!(true)));
}

#[tokio::test]
async fn responses_that_arrive_late_or_go_on_are_read_incrementally() {
    let posthog = world().await;
    let source = Source::new(&posthog.url());
    let catalog = catalog(&["survey_responses"], "incremental");
    let first = source.read_all(&catalog, None).await;
    assert_eq!(by_id(&first).len(), 2);
    let (at, now) = (minutes_ago(100_000), minutes_ago(1));
    let late = sent(6, at, now, &answered("sub-2", &[], false));
    let more = sent(7, minutes_ago(2), now, &answered("sub-1", &[("q-3", json!("more"))], true));
    posthog.insert(PROJECT, vec![late, more]);
    let second = by_id(&source.read_all(&catalog, Some(&first.state())).await);
    assert_eq!(second["sub-1"]["answers"], json!({"q-3": "more"}));
    assert!(second.contains_key("sub-2"), "{second:?}");
    let third = source.read_all(&catalog, Some(&source.read_all(&catalog, Some(&first.state())).await.state())).await;
    assert!(by_id(&third).values().all(|response| response["survey_id"] == "survey-1"), "old ones came again");
}

#[tokio::test]
async fn pages_of_responses_resume_from_every_state() {
    let posthog = sandbox().await;
    let at = minutes_ago(3000);
    let events = (0..130).map(|index| {
        let properties = answered(&format!("sub-{}", index / 2), &[("q", json!(index))], index % 2 == 1);
        sent(100 + u128::try_from(index).unwrap(), at + index * 1_000_000, at + index * 1_000_000, &properties)
    });
    posthog.insert(PROJECT, events.collect());
    let source = Source::new(&posthog.url()).with_page_size(20);
    for mode in ["full_refresh", "incremental"] {
        let catalog = catalog(&["survey_responses"], mode);
        let whole = source.read_all(&catalog, None).await;
        let wanted = by_id(&whole);
        assert_eq!(wanted.len(), 65);
        assert!(wanted.values().all(|response| response["is_completed"] == true));
        assert!(whole.state_lines().len() > 3);
        for line in whole.state_lines() {
            let part = whole.up_to(line);
            let mut union = by_id(&part);
            union.extend(by_id(&source.read_all(&catalog, Some(&part.state())).await));
            assert_eq!(union.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>(), "{mode}, line {line}");
        }
    }
}

fn warning(number: i64) -> IngestionWarning {
    IngestionWarning {
        source: "plugin-server".to_owned(),
        kind: "message_size_too_large".to_owned(),
        details: json!({"eventUuid": number.to_string(), "text": "a \"b\""}).to_string(),
        timestamp: minutes_ago(60 * 24 * 20) + number * 1000,
    }
}

#[tokio::test]
async fn ingestion_warnings_are_read_completely_and_go_on_incrementally() {
    let posthog = sandbox().await;
    let source = Source::new(&posthog.url()).with_page_size(25);
    let catalog = catalog(&["ingestion_warnings"], "incremental");
    let none = source.read_all(&catalog, None).await;
    assert!(none.records("ingestion_warnings").is_empty());
    posthog.insert_ingestion_warnings(PROJECT, (0..90).map(warning).collect());
    let first = source.read_all(&catalog, Some(&none.state())).await;
    let mut numbers: Vec<&str> = Vec::new();
    for record in first.records("ingestion_warnings") {
        assert_eq!((&record["type"], &record["source"]), (&json!("message_size_too_large"), &json!("plugin-server")));
        numbers.push(record["details"]["eventUuid"].as_str().unwrap());
    }
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!((numbers.len(), first.records("ingestion_warnings").len()), (90, 90));
    let newer = IngestionWarning { timestamp: minutes_ago(5), ..warning(91) };
    // PostHog's table may hold a row twice until it merges them.
    posthog.insert_ingestion_warnings(PROJECT, vec![newer.clone(), newer]);
    let second = source.read_all(&catalog, Some(&first.state())).await;
    let found = second.records("ingestion_warnings");
    assert_eq!(found.iter().filter(|record| record["details"]["eventUuid"] == "91").count(), 1);
    assert!(found.iter().any(|record| record["details"]["eventUuid"] == "91") && found.len() > 1, "within the hour");
}

#[tokio::test]
async fn an_instance_without_the_table_of_warnings_has_none() {
    let posthog = sandbox().await;
    posthog.insert_ingestion_warnings(PROJECT, vec![warning(1)]);
    let unknown = Action::error(400, &json!("Unknown table `system.ingestion_warnings`."), &json!("hogql_query_error"));
    posthog.set_faults(vec![Fault::query(unknown).sql("ingestion_warnings")]).unwrap();
    for mode in ["full_refresh", "incremental"] {
        let outcome = Source::new(&posthog.url()).read(&catalog(&["ingestion_warnings"], mode), None).await;
        assert_eq!(outcome.code, Some(0), "{mode}: {:?}", outcome.messages.errors());
        assert!(outcome.messages.records("ingestion_warnings").is_empty());
    }
}
