//! What loaders need beyond the protocol: plain types in schemas, values of these types, and lines that no
//! reader cuts in two.

use posthog_sandbox::posthog::{Event, Exports, Sandbox};
use serde_json::{Value, json};

use crate::support::program::{Source, catalog, run};
use crate::support::world::{PROJECT, event, events, minutes_ago, sandbox_with_exports};

/// What a loader makes a column or a field of; none when it could not.
fn problem(schema: &Value) -> Option<&'static str> {
    let types = match &schema["type"] {
        Value::Array(types) => types.clone(),
        Value::Null => Vec::new(),
        one => vec![one.clone()],
    };
    let types: Vec<&str> = types.iter().filter_map(Value::as_str).filter(|kind| *kind != "null").collect();
    match types[..] {
        ["object"] if !schema["properties"].is_object() => Some("an object without `properties`"),
        ["object"] if schema["additionalProperties"] != true => Some("an object that loses fields"),
        ["array"] if schema.get("items").is_some_and(|items| !items.is_object()) => Some("`items` of several types"),
        [_] => None,
        _ => Some("not one type"),
    }
}

/// Everything in a schema that loaders cannot use, by its path.
fn problems(schema: &Value, path: &str) -> Vec<String> {
    let mut found: Vec<String> = problem(schema).map(|problem| format!("{path}: {problem}")).into_iter().collect();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        found.extend(problems(field, &format!("{path}.{name}")));
    }
    if let Some(items) = schema.get("items") {
        found.extend(problems(items, &format!("{path}[]")));
    }
    found
}

#[tokio::test]
async fn every_field_of_every_stream_has_one_type() {
    let posthog = sandbox_with_exports(Exports::default()).await;
    posthog.insert(PROJECT, events(3, minutes_ago(60)));
    let text = "SELECT uuid, timestamp, toDate(timestamp) AS day, (event, 1) AS pair, groupArray(event) AS names, NULL AS nothing, count() AS total FROM events GROUP BY uuid, timestamp, event";
    let source = Source::new(&posthog.url())
        .with("custom_queries", json!([{"name": "own", "query": text, "primary_key": ["uuid"]}]))
        .with("event_property_columns", json!(["$browser", "total"]));
    let outcome = run(source.command("discover")).await;
    let streams = outcome.messages.of_type("CATALOG")[0]["catalog"]["streams"].as_array().unwrap().clone();
    assert!(streams.iter().any(|stream| stream["name"] == "own"), "{streams:?}");
    let found: Vec<String> =
        streams.iter().flat_map(|stream| problems(&stream["json_schema"], stream["name"].as_str().unwrap())).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn schemas_that_loaders_cannot_use_are_found() {
    let schema = json!({"type": "object", "additionalProperties": true, "properties": {
        "fine": {"type": ["null", "array"], "items": {"type": ["null", "object"], "additionalProperties": true, "properties": {}}},
        "union": {"type": ["null", "object", "array"]},
        "untyped": {"description": "anything"},
        "bare": {"type": ["null", "object"], "additionalProperties": true},
        "closed": {"type": ["null", "object"], "properties": {}},
        "inner": {"type": ["null", "array"], "items": {}},
        "tuple": {"type": ["null", "array"], "items": []},
    }});
    let found = problems(&schema, "stream").join("\n");
    for field in
        ["union: not one", "untyped: not one", "bare: an obj", "closed: an obj", "inner[]: not one", "tuple: `items`"]
    {
        assert!(found.contains(&format!("stream.{field}")), "{field} in {found}");
    }
    assert!(!found.contains("fine"), "{found}");
}

/// A text with all three characters that JSON allows and line readers cut at.
const SEPARATED: &str = "a\u{85}b\u{2028}c\u{2029}d…";

/// An event that has them wherever it has a text, and one that goes the plain way as well.
fn separated_events() -> Vec<Event> {
    let text = || SEPARATED.to_owned();
    let documents = [json!({SEPARATED: [SEPARATED, 1]}).to_string(), format!("{{\n\"{SEPARATED}\": NaN}}")];
    let numbered = documents.into_iter().zip(1..);
    let separated = numbered.map(|(properties, number)| Event {
        event: text(),
        properties,
        distinct_id: text(),
        elements_chain: text(),
        session_id: text(),
        ..event(number, minutes_ago(60))
    });
    separated.collect()
}

#[tokio::test]
async fn no_reader_of_lines_cuts_a_message() {
    // Property columns are not for the hot path.
    for (exports, columns) in [(false, vec![]), (false, vec![SEPARATED]), (true, vec![SEPARATED])] {
        let posthog = sandbox_with_exports(Exports::default()).await;
        posthog.insert(PROJECT, separated_events());
        posthog.set_list(PROJECT, "annotations", vec![json!({"id": 1, "content": SEPARATED})]);
        let source = Source::new(&posthog.url()).with("event_property_columns", json!(columns)).with(
            "custom_queries",
            json!([{"name": "own", "query": "SELECT event, uuid FROM events", "primary_key": ["event", "uuid"]}]),
        );
        let source = if exports { source.with_exports() } else { source };
        let names = ["events", "annotations", "person_distinct_ids", "own"];
        let outcome = source.read(&catalog(&names, "full_refresh"), None).await;
        let messages = &outcome.messages;
        let events = messages.records("events");
        assert_eq!(events.len(), 2);
        for event in events {
            for field in ["event", "distinct_id", "elements_chain"] {
                assert_eq!(event[field], SEPARATED, "{field}");
            }
            assert!(event["properties"].as_object().unwrap().contains_key(SEPARATED), "{event}");
        }
        assert_eq!(messages.records("annotations")[0]["content"], SEPARATED);
        assert_eq!(messages.records("own")[0]["event"], SEPARATED);
        // That no line has such a character is checked of every output.
    }
}

#[tokio::test]
async fn list_values_have_the_types_of_their_schema() {
    let posthog = Sandbox::builder().start().await.unwrap();
    let odd = json!({
        "id": 1, "name": 12, "filters": [1], "tags": "a", "saved": "yes", "favorited": 1, "result": {"data": [1]},
        "columns": null, "order": "7", "types": "[[\"a\", 1]]", "description": {"b": [1.50]},
    });
    posthog.set_list(PROJECT, "insights", vec![odd]);
    let messages = Source::new(&posthog.url()).read_all(&catalog(&["insights"], "full_refresh"), None).await;
    let record = messages.records("insights")[0];
    let wanted = json!({
        "id": 1, "name": "12", "filters": null, "tags": ["a"], "saved": null, "favorited": true, "result": [{"data": [1]}],
        "columns": null, "order": 7, "types": [["a", 1]], "description": "{\"b\":[1.5]}",
    });
    for (field, value) in wanted.as_object().unwrap() {
        assert_eq!(&record[field], value, "{field}");
    }
    let changes = messages.of_type("RECORD")[0]["record"]["meta"]["changes"].clone();
    let nulled: Vec<&str> =
        changes.as_array().unwrap().iter().map(|change| change["field"].as_str().unwrap()).collect();
    assert_eq!(nulled, ["filters", "saved"]);
    assert_eq!(changes[0], json!({"field": "filters", "change": "NULLED", "reason": "SOURCE_SERIALIZATION_ERROR"}));
}
