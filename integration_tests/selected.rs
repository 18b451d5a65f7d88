//! Only what is selected: columns that the configured catalog leaves out.

use std::collections::BTreeSet;

use posthog_sandbox::posthog::{Exports, Sandbox};
use serde_json::{Map, Value, json};

use crate::support::messages::Messages;
use crate::support::program::{Source, catalog, repository_file, run};
use crate::support::world::{PROJECT, event_ids, events, minutes_ago, person, sandbox, two_hours_ago};

/// A sandbox that offers file exports.
async fn exporting() -> Sandbox {
    Sandbox::builder().exports(Exports::default()).start().await.unwrap()
}

/// A catalog that selects these fields of a stream.
fn selecting(stream: &str, fields: &[&str]) -> Value {
    let mut catalog = catalog(&[stream], "incremental");
    let properties: Map<String, Value> = fields.iter().map(|field| ((*field).to_owned(), json!({}))).collect();
    catalog["streams"][0]["stream"]["json_schema"] = json!({"type": "object", "properties": properties});
    catalog
}

/// The fields of a stream's records, which must be the same in all of them.
fn fields(messages: &Messages, stream: &str) -> BTreeSet<String> {
    let records = messages.records(stream);
    let names = |record: &Value| record.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let first = names(records.first().expect("a record"));
    assert!(records.iter().all(|record| names(record) == first), "{first:?}");
    first
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// The text of all queries.
fn queries(posthog: &Sandbox) -> String {
    posthog.requests().into_iter().filter_map(|request| request.sql).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn deselected_columns_are_neither_asked_for_nor_emitted() {
    let posthog = exporting().await;
    posthog.generate(PROJECT, 300, 2, two_hours_ago());
    for method in ["query", "export"] {
        let source = Source::new(&posthog.url()).with("method", json!({"type": method, "settle_minutes": 0}));
        let all = source.read_all(&catalog(&["events"], "incremental"), None).await.records("events").len();
        for wanted in [&["id", "event", "session_id"][..], &["distinct_id"], &["person"], &["project_id", "timestamp"]]
        {
            posthog.clear_requests();
            let catalog = selecting("events", wanted);
            let messages = source.read_all(&catalog, None).await;
            assert_eq!(fields(&messages, "events"), set(wanted), "{method}");
            assert_eq!(messages.records("events").len(), all, "{method} {wanted:?}");
            if wanted.contains(&"id") {
                assert_eq!(messages.id_set("events"), event_ids(&posthog));
            }
            let queries = queries(&posthog);
            assert!(!queries.contains("properties") && !queries.contains("elements_chain"), "{queries}");
            // What identifies rows has been read, so nothing comes twice.
            let later = source.read_all(&catalog, Some(&messages.state())).await;
            assert_eq!(later.records("events").len(), 0, "{method} {wanted:?}");
        }
    }
}

#[tokio::test]
async fn every_stream_can_be_read_without_most_of_its_columns() {
    let posthog = exporting().await;
    posthog.generate(PROJECT, 200, 2, two_hours_ago());
    (0..20).for_each(|number| posthog.insert_person(PROJECT, person(number, minutes_ago(300), None)));
    posthog.generate_lists(PROJECT, 5);
    let discovered = run(Source::new(&posthog.url()).command("discover")).await.messages;
    for stream in discovered.of_type("CATALOG")[0]["catalog"]["streams"].as_array().unwrap() {
        let name = stream["name"].as_str().unwrap();
        let known = stream["json_schema"]["properties"].as_object().unwrap();
        let key: Vec<&str> = stream["source_defined_primary_key"]
            .as_array()
            .unwrap()
            .iter()
            .map(|path| path[0].as_str().unwrap())
            .collect();
        for method in ["query", "export"] {
            let source = Source::new(&posthog.url()).with("method", json!({"type": method, "settle_minutes": 0}));
            let all = source.read_all(&catalog(&[name], "full_refresh"), None).await;
            // One field that is not part of the key.
            let field = known.keys().rfind(|field| !key.contains(&field.as_str())).unwrap();
            let mut few = selecting(name, &[field]);
            few["streams"][0]["sync_mode"] = json!("full_refresh");
            let some = source.read_all(&few, None).await;
            assert_eq!(some.records(name).len(), all.records(name).len(), "{method} {name}");
            let records = some.records(name);
            assert!(records.iter().all(|record| record.as_object().unwrap().keys().eq([field])), "{name} {field}");
        }
    }
}

#[tokio::test]
async fn a_schema_without_fields_selects_all() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, events(2, minutes_ago(90)));
    let source = Source::new(&posthog.url());
    let all = fields(&source.read_all(&catalog(&["events"], "incremental"), None).await, "events");
    assert!(all.len() > 10, "{all:?}");
    assert_eq!(fields(&source.read_all(&selecting("events", &[]), None).await, "events"), all);
}

#[tokio::test]
async fn property_columns_need_no_properties_in_the_record() {
    let posthog = exporting().await;
    posthog.insert(PROJECT, events(5, minutes_ago(90)));
    for method in ["query", "export"] {
        let source = Source::new(&posthog.url())
            .with("method", json!({"type": method, "settle_minutes": 0}))
            .with("event_property_columns", json!(["number", "other"]));
        let messages = source.read_all(&selecting("events", &["property_number"]), None).await;
        assert_eq!(fields(&messages, "events"), set(&["property_number"]));
        let numbers: BTreeSet<&str> =
            messages.records("events").iter().map(|record| record["property_number"].as_str().unwrap()).collect();
        assert_eq!(numbers, ["0", "1", "2", "3", "4"].into());
        let warnings = messages.logs("WARN").join("\n");
        assert!(warnings.contains("does not select the property columns property_other of `events`"), "{warnings}");
    }
}

#[tokio::test]
async fn unknown_fields_are_named_with_the_nearest_one() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, events(2, minutes_ago(90)));
    let source = Source::new(&posthog.url());
    let mut catalog = selecting("events", &["uuid", "propertys"]);
    catalog["streams"][0]["destination_sync_mode"] = json!("append_dedup");
    catalog["streams"][0]["primary_key"] = json!([["id"]]);
    let messages = source.read_all(&catalog, None).await;
    assert_eq!(fields(&messages, "events"), set(&["uuid"]));
    let warnings = messages.logs("WARN").join("\n");
    assert!(warnings.contains("`propertys` (did you mean `properties`?)"), "{warnings}");
    assert!(warnings.contains("does not select `id`, which is part of the primary key"), "{warnings}");
    let outcome = source.read(&selecting("events", &["propertys"]), None).await;
    assert_eq!(outcome.code, Some(1));
    let errors = outcome.messages.errors().join("\n");
    assert!(
        errors.starts_with("config_error:") && errors.contains("selects no field that the stream `events` has"),
        "{errors}"
    );
}

/// Bytes of all responses to queries, and of all records.
async fn bytes(posthog: &Sandbox, catalog: &Value) -> (usize, usize) {
    posthog.clear_requests();
    let messages = Source::new(&posthog.url()).with_page_size(10_000).read_all(catalog, None).await;
    let sent =
        posthog.requests().iter().filter(|request| request.sql.is_some()).map(|request| request.bytes_sent).sum();
    (sent, messages.of_type("RECORD").iter().map(|record| record.to_string().len()).sum())
}

#[tokio::test]
async fn deselecting_properties_saves_most_bytes() {
    let posthog = sandbox().await;
    posthog.load_dataset(PROJECT, two_hours_ago()).unwrap();
    let known: Vec<String> =
        source_posthog::streams::EVENTS.schema()["properties"].as_object().unwrap().keys().cloned().collect();
    let without: Vec<&str> = known.iter().map(String::as_str).filter(|field| *field != "properties").collect();
    let (whole, whole_records) = bytes(&posthog, &catalog(&["events"], "incremental")).await;
    let (rest, rest_records) = bytes(&posthog, &selecting("events", &without)).await;
    let saved = |whole: usize, rest: usize| (100 - 100 * rest / whole).to_string();
    let sentence = format!(
        "Without `properties`, a query sends {} % fewer bytes, and records are {} % shorter",
        saved(whole, rest),
        saved(whole_records, rest_records)
    );
    let page = std::fs::read_to_string(repository_file("docs/costs.md")).unwrap();
    assert!(page.contains(&sentence), "write into docs/costs.md: {sentence}");
}
