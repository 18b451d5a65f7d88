//! Persons and distinct ids: one record each, the same by both methods, and what merges and deletions do.

use std::collections::{BTreeMap, BTreeSet};

use posthog_sandbox::posthog::{Action, Exports, Fault, Key, Person, Sandbox};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::messages::Messages;
use crate::support::program::{Source, catalog};
use crate::support::world::{EXPORT_KEY, PROJECT, export_key, minutes_ago, person, sandbox};

const BOTH: [&str; 2] = ["persons", "person_distinct_ids"];

/// Forty persons with up to three distinct ids each; every fifth is merged into the one before, every
/// seventh has been deleted.
async fn world() -> Sandbox {
    let exports = Exports { rows_per_file: Some(7), ..Exports::default() };
    let posthog = Sandbox::builder().exports(exports).key(Key::default()).key(export_key()).start().await.unwrap();
    for number in 0..40 {
        posthog.insert_person(PROJECT, with_ids(number));
    }
    for number in (5..40).step_by(5) {
        posthog.merge(PROJECT, &format!("user-{}", number - 1), &format!("user-{number}"));
    }
    for number in (7..40).step_by(7).filter(|number| number % 5 != 0 && number % 5 != 4) {
        posthog.delete_person(PROJECT, Uuid::from_u128(number));
    }
    posthog
}

/// As many distinct ids as the number says. Times have whole seconds, as on PostHog Cloud.
fn with_ids(number: u128) -> Person {
    let created = minutes_ago(2_000) / 1_000_000 * 1_000_000;
    let ids = (0..number % 3).map(|index| format!("device-{number}-{index}"));
    let mut person = person(number, created, Some(created + 60_000_000));
    person.distinct_ids.extend(ids);
    person
}

fn by_query(source: Source) -> Source {
    source.with("method", json!({"type": "query", "page_size": 7, "settle_minutes": 0}))
}

/// The records by a field; fails if two have the same.
fn by<'m>(messages: &'m Messages, stream: &str, field: &str) -> BTreeMap<String, &'m Value> {
    let mut records = BTreeMap::new();
    for record in messages.records(stream) {
        let id = record[field].as_str().unwrap().to_owned();
        assert!(records.insert(id.clone(), record).is_none(), "{stream} has {id} twice");
    }
    records
}

/// The distinct ids of today's persons.
fn owners(posthog: &Sandbox) -> BTreeMap<String, String> {
    let ids = |person: Person| person.distinct_ids.into_iter().map(move |id| (id, person.id.to_string()));
    posthog.persons(PROJECT).into_iter().flat_map(ids).collect()
}

/// Distinct ids that are not deleted, with their persons, as the records say.
fn known_owners(messages: &Messages) -> BTreeMap<String, String> {
    let ids = by(messages, "person_distinct_ids", "distinct_id");
    let alive = ids.into_iter().filter(|(_, record)| record["is_deleted"] != json!(true));
    alive.map(|(id, record)| (id, record["person_id"].as_str().unwrap().to_owned())).collect()
}

#[tokio::test]
async fn persons_are_the_same_records_by_both_methods() {
    let posthog = world().await;
    let catalog = catalog(&["persons"], "incremental");
    let queried = by_query(Source::new(&posthog.url())).read_all(&catalog, None).await;
    let exported = Source::new(&posthog.url()).with_exports().read_all(&catalog, None).await;
    let (queried, exported) = (by(&queried, "persons", "id"), by(&exported, "persons", "id"));
    assert_eq!(queried.keys().collect::<Vec<_>>(), exported.keys().collect::<Vec<_>>());
    assert_eq!(queried.len(), 40);
    for (id, queried) in &queried {
        let exported = exported[id];
        for field in ["uuid", "project_id", "properties", "created_at", "is_deleted", "name", "distinct_ids"] {
            assert_eq!(queried[field], exported[field], "{field} of {id}");
        }
        assert!(queried["version"].is_null() || queried["version"] == exported["version"], "version of {id}");
        assert_eq!(
            queried.as_object().unwrap().keys().collect::<Vec<_>>(),
            exported.as_object().unwrap().keys().collect::<Vec<_>>()
        );
    }
    let deleted = |record: &&&Value| record["is_deleted"] == json!(true);
    assert_eq!(queried.values().filter(deleted).count(), 40 - posthog.persons(PROJECT).len());
}

#[tokio::test]
async fn persons_without_the_right_to_query_are_one_record_each() {
    let posthog = world().await;
    let source = Source::new(&posthog.url()).with_exports().with("api_key", json!(EXPORT_KEY));
    let messages = source.read_all(&catalog(&["persons"], "incremental"), None).await;
    let merged = 7;
    assert_eq!(by(&messages, "persons", "id").len(), 40 - merged, "nothing shows persons that were merged");
}

#[tokio::test]
async fn both_streams_are_read_from_the_same_runs() {
    let posthog = world().await;
    let source = Source::new(&posthog.url()).with_exports();
    source.read_all(&catalog(&["persons"], "incremental"), None).await;
    let alone = posthog.export_runs().len();
    let catalog = catalog(&BOTH, "incremental");
    let first = source.read_all(&catalog, None).await;
    assert_eq!(posthog.export_runs().len(), 2 * alone);
    assert_eq!(known_owners(&first), owners(&posthog));
    assert_eq!(by(&first, "persons", "id").len(), 40);
    for stream in BOTH {
        assert_eq!(first.statuses(stream), ["STARTED", "RUNNING", "COMPLETE"]);
    }

    posthog.merge(PROJECT, "user-1", "user-2");
    posthog.delete_person(PROJECT, Uuid::from_u128(3));
    let runs = posthog.export_runs().len();
    let second = source.read_all(&catalog, Some(&first.state())).await;
    assert_eq!(posthog.export_runs().len(), runs + 1);
    let ids = by(&second, "person_distinct_ids", "distinct_id");
    let moved = ids["user-2"];
    assert_eq!((&moved["person_id"], &moved["version"]), (&json!(Uuid::from_u128(1).to_string()), &json!(1)));
    assert_eq!((&ids["user-3"]["is_deleted"], &ids["user-3"]["version"]), (&json!(true), &json!(100)));
    let persons = by(&second, "persons", "id");
    for number in [2, 3] {
        assert_eq!(persons[&Uuid::from_u128(number).to_string()]["is_deleted"], true, "{number}");
    }
    assert_eq!(persons[&Uuid::from_u128(1).to_string()]["is_deleted"], false);
}

/// One of the streams is chosen later, or its state is older: it begins where it has to.
#[tokio::test]
async fn streams_whose_states_differ_lose_nothing() {
    let posthog = world().await;
    let source = Source::new(&posthog.url()).with_exports();
    let both = catalog(&BOTH, "incremental");
    for stream in BOTH {
        let first = source.read_all(&catalog(&[stream], "incremental"), None).await;
        let second = source.read_all(&both, Some(&first.state())).await.and(first);
        assert_eq!(second.id_set("persons").len(), 40, "{stream} first");
        let ids: BTreeSet<&str> =
            second.records("person_distinct_ids").iter().filter_map(|id| id["distinct_id"].as_str()).collect();
        assert!(owners(&posthog).keys().all(|id| ids.contains(id.as_str())), "{stream} first");
    }
    let whole = source.read_all(&both, None).await;
    let wanted: BTreeSet<String> = by(&whole, "person_distinct_ids", "distinct_id").into_keys().collect();
    let states = whole.state_lines();
    for (place, end) in states.iter().enumerate().step_by(states.len() / 8 + 1) {
        // The state of one stream from here, the other's from some states before.
        let (early, late) = (whole.up_to(states[place / 2]), whole.up_to(*end));
        for (behind, ahead) in [BOTH, [BOTH[1], BOTH[0]]].map(|[behind, ahead]| (behind, ahead)) {
            let kept = |messages: &Messages, stream: &str| {
                let states = messages.state().as_array().unwrap().clone();
                states
                    .into_iter()
                    .filter(|state| state["stream"]["stream_descriptor"]["name"] == stream)
                    .collect::<Vec<_>>()
            };
            let state = Value::from([kept(&early, behind), kept(&late, ahead)].concat());
            let rest = source.read_all(&both, Some(&state)).await;
            let ids = |messages: &Messages, stream: &str, field: &str| -> BTreeSet<String> {
                messages.records(stream).iter().map(|record| record[field].as_str().unwrap().to_owned()).collect()
            };
            let before = if behind == "persons" { (&early, &late) } else { (&late, &early) };
            let persons = &ids(before.0, "persons", "id") | &ids(&rest, "persons", "id");
            assert_eq!(persons.len(), 40, "{behind} behind, state {place}");
            let found = &ids(before.1, "person_distinct_ids", "distinct_id")
                | &ids(&rest, "person_distinct_ids", "distinct_id");
            assert_eq!(found, wanted, "{behind} behind, state {place}");
        }
    }
}

#[tokio::test]
async fn distinct_ids_alone_are_exported_by_runs_of_persons() {
    let posthog = world().await;
    let source = Source::new(&posthog.url()).with_exports();
    let messages = source.read_all(&catalog(&["person_distinct_ids"], "incremental"), None).await;
    assert_eq!(known_owners(&messages), owners(&posthog));
    assert!(posthog.export_runs().iter().all(|run| run.model == "persons"));
}

#[tokio::test]
async fn pages_that_cut_the_versions_of_a_distinct_id_are_read_completely() {
    let posthog = world().await;
    // The most rows that one distinct id has is two.
    for page_size in [1, 2, 3, 1_000] {
        let source = Source::new(&posthog.url()).with_page_size(page_size);
        posthog.clear_requests();
        let messages = source.read_all(&catalog(&["person_distinct_ids"], "full_refresh"), None).await;
        assert_eq!(known_owners(&messages), owners(&posthog), "pages of {page_size}");
        let versions = by(&messages, "person_distinct_ids", "distinct_id");
        assert_eq!(versions["user-5"]["version"], 1);
        let pages: Vec<String> = posthog.requests().iter().filter_map(|request| request.sql.clone()).collect();
        let pages: Vec<&String> = pages.iter().filter(|sql| sql.contains("ORDER BY distinct_id")).collect();
        // Each page asks for what follows a distinct id, which the table is ordered by.
        assert!(
            pages.iter().skip(1).all(|sql| sql.contains("WHERE distinct_id > {after_0} ORDER BY distinct_id LIMIT")),
            "{pages:?}"
        );
    }
}

#[tokio::test]
async fn distinct_ids_that_are_missing_in_an_answer_are_read_again() {
    for action in
        [Action::DropRows { rows: 2 }, Action::DuplicateRows { rows: 2 }, Action::SwapInCopy, Action::Clamp { rows: 0 }]
    {
        let posthog = world().await;
        let fault = Fault::query(action.clone()).sql("ORDER BY distinct_id").nth(&[2]);
        posthog.set_faults(vec![fault]).unwrap();
        let source = Source::new(&posthog.url()).with_page_size(10);
        let messages = source.read_all(&catalog(&["person_distinct_ids"], "full_refresh"), None).await;
        let wanted = owners(&posthog);
        let read: BTreeSet<&str> =
            messages.records("person_distinct_ids").iter().filter_map(|id| id["distinct_id"].as_str()).collect();
        assert!(wanted.keys().all(|id| read.contains(id.as_str())), "{action:?}");
    }
}

/// A full refresh has no next sync that finds what an answer lacks.
#[tokio::test]
async fn deleted_persons_that_are_missing_in_an_answer_are_read_again() {
    let posthog = sandbox().await;
    (0..40).for_each(|number| posthog.insert_person(PROJECT, with_ids(number)));
    (10..30).for_each(|number| posthog.delete_person(PROJECT, Uuid::from_u128(number)));
    let source = by_query(Source::new(&posthog.url()));
    let catalog = catalog(&["persons"], "full_refresh");
    for (action, sql) in [
        (Action::Clamp { rows: 0 }, "AS bucket"),
        (Action::WrongCount { by: -3 }, "AS bucket"),
        (Action::Clamp { rows: 0 }, "gone = 1 ORDER BY"),
        (Action::DropRows { rows: 1 }, "gone = 1 ORDER BY"),
        (Action::SwapInCopy, "gone = 1 ORDER BY"),
    ] {
        posthog.set_faults(vec![Fault::query(action.clone()).sql(sql).nth(&[1])]).unwrap();
        let messages = source.read_all(&catalog, None).await;
        let persons = by(&messages, "persons", "id");
        let gone = persons.values().filter(|record| record["is_deleted"] == true).count();
        assert_eq!((gone, persons.len()), (20, 40), "{action:?} of {sql}");
    }
    // What is missing in every answer is said.
    let dropped = Fault::query(Action::DropRows { rows: 1 }).sql("gone = 1 ORDER BY").times(u64::MAX);
    posthog.set_faults(vec![dropped]).unwrap();
    let outcome = source.read(&catalog, None).await;
    assert_eq!(outcome.code, Some(1));
    let error = outcome.messages.errors().join("\n");
    assert!(
        error.contains("deleted persons do not agree with PostHog's count: ") && error.contains(" stored"),
        "{error}"
    );
}

#[tokio::test]
async fn deletions_and_merges_are_found_by_query_once() {
    let posthog = sandbox().await;
    (0..40).for_each(|number| posthog.insert_person(PROJECT, with_ids(number)));
    let source = by_query(Source::new(&posthog.url()));
    let catalog = catalog(&["persons"], "incremental");
    let first = source.read_all(&catalog, None).await;
    assert_eq!(by(&first, "persons", "id").len(), 40);
    posthog.delete_person(PROJECT, Uuid::from_u128(30));
    posthog.merge(PROJECT, "user-1", "user-2");
    let second = source.read_all(&catalog, Some(&first.state())).await;
    let persons = by(&second, "persons", "id");
    let gone: BTreeSet<&str> =
        persons.iter().filter(|(_, record)| record["is_deleted"] == true).map(|(id, _)| id.as_str()).collect();
    let expected = [2, 30].map(|number| Uuid::from_u128(number).to_string());
    assert_eq!(gone, expected.iter().map(String::as_str).collect());
    let deleted = persons[&expected[1]];
    assert_eq!((&deleted["properties"], &deleted["version"]), (&json!({}), &json!(60_000_100)));
    assert!(deleted["updated_at"].is_string() && deleted["created_at"].is_string());
    let third = source.read_all(&catalog, Some(&second.state())).await;
    assert!(third.records("persons").iter().all(|record| record["is_deleted"] == false));
}

#[tokio::test]
async fn the_first_read_takes_the_quicker_way_and_says_so() {
    let posthog = world().await;
    let source = Source::new(&posthog.url()).with_exports().with("export_above", json!(20_000));
    let catalog = catalog(&BOTH, "incremental");
    let first = source.read_all(&catalog, None).await;
    assert_eq!(posthog.export_runs().len(), 0);
    assert_eq!(known_owners(&first), owners(&posthog));
    let logs = first.logs("INFO").join("\n");
    assert!(logs.contains("persons: about 1 min by query, ") && logs.contains("the first read is by query"), "{logs}");
    let mut late = with_ids(7_000);
    late.last_seen_at = Some(minutes_ago(1));
    posthog.insert_person(PROJECT, late);
    let second = source.read_all(&catalog, Some(&first.state())).await;
    assert_eq!(posthog.export_runs().len(), 1);
    assert!(by(&second, "persons", "id").contains_key(&Uuid::from_u128(7_000).to_string()));
    assert!(by(&second, "person_distinct_ids", "distinct_id").contains_key("user-7000"));
}

/// Instances may not show the tables of all versions.
#[tokio::test]
async fn instances_without_raw_tables_are_read_with_a_warning() {
    let posthog = world().await;
    let unknown = |table: &str| {
        let detail = json!(format!("Unknown table `{table}`."));
        Fault::query(Action::error(400, &detail, &json!("hogql_query_error"))).sql(&format!("FROM {table}"))
    };
    posthog.set_faults(vec![unknown("raw_persons"), unknown("raw_person_distinct_ids")]).unwrap();
    let messages = by_query(Source::new(&posthog.url())).read_all(&catalog(&BOTH, "incremental"), None).await;
    assert_eq!(known_owners(&messages), owners(&posthog));
    assert_eq!(by(&messages, "persons", "id").len(), posthog.persons(PROJECT).len());
    assert!(messages.records("person_distinct_ids").iter().all(|record| record["version"].is_null()));
    let logs = messages.logs("WARN").join("\n");
    assert!(logs.contains("does not expose the table `raw_person_distinct_ids`"), "{logs}");
}
