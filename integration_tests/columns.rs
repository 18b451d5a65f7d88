//! Properties as typed columns, and windows of a given number of days.

use posthog_sandbox::posthog::{Event, Exports, Sandbox};
use serde_json::{Value, json};

use crate::support::program::{Source, catalog, run};
use crate::support::world::{
    PROJECT, assert_events, event, key, minutes_ago, sandbox, sandbox_with_exports, two_hours_ago,
};

/// A sandbox with events whose properties are of all kinds, and definitions of some.
async fn with_properties() -> Sandbox {
    let posthog = Sandbox::builder()
        .exports(Exports::default())
        .key(key("phx_full", &["*"], None))
        .key(key("phx_query", &["query:read", "project:read"], None))
        .start()
        .await
        .unwrap();
    let definition =
        |name: &str, kind: Value, of: &str| json!({"id": name, "name": name, "property_type": kind, "_type": of});
    posthog.set_list(
        PROJECT,
        "property_definitions",
        vec![
            definition("$browser", json!("String"), "event"),
            definition("total", json!("Numeric"), "event"),
            definition("paid", json!("Boolean"), "event"),
            definition("due", json!("DateTime"), "event"),
            definition("email", json!("String"), "person"),
        ],
    );
    let strings = [
        r#"{"$browser":"Chrome","total":12.50,"paid":true,"due":"2026-01-01T01:00:00+01:00","browser":{"a":1}}"#,
        r#"{"$browser":5,"total":"7","paid":"false","due":null}"#,
        r#"{"total":"many","paid":2,"due":"soon","total":"none"}"#,
        "no json",
    ];
    let events = strings.iter().zip(1_u128..).map(|(text, number)| Event {
        properties: (*text).to_owned(),
        ..event(number, minutes_ago(100 + i64::try_from(number).unwrap()))
    });
    posthog.insert(PROJECT, events.collect());
    posthog
}

fn source(posthog: &Sandbox, exports: bool) -> Source {
    let source = Source::new(&posthog.url())
        .with("event_property_columns", json!(["$browser", "browser", "total", "paid", "due", "total"]))
        .with("person_property_columns", json!(["email"]));
    if exports { source.with_exports() } else { source }
}

async fn discovered(source: &Source) -> Value {
    run(source.command("discover")).await.messages.of_type("CATALOG")[0]["catalog"]["streams"].clone()
}

#[tokio::test]
async fn properties_become_typed_columns_by_both_methods() {
    let posthog = with_properties().await;
    for exports in [false, true] {
        let source = source(&posthog, exports);
        let streams = discovered(&source).await;
        let events = &streams[0]["json_schema"]["properties"];
        let kinds = ["property_browser", "property_browser_2", "property_total", "property_paid", "property_due"]
            .map(|field| events[field]["type"][1].as_str().unwrap());
        assert_eq!(kinds, ["string", "string", "number", "boolean", "string"]);
        assert_eq!(events["property_due"]["format"], "date-time");
        assert_eq!(streams[1]["json_schema"]["properties"]["property_email"]["type"][1], "string");
        let mut catalog = catalog(&["events"], "incremental");
        catalog["streams"][0]["stream"] = streams[0].clone();
        let messages = source.read_all(&catalog, None).await;
        let mut records = messages.records("events");
        records.sort_by_key(|record| record["id"].as_str().unwrap().to_owned());
        let columns = |record: &Value| {
            ["property_browser", "property_browser_2", "property_total", "property_paid", "property_due"]
                .map(|field| record[field].clone())
        };
        let none = Value::Null;
        assert_eq!(
            columns(records[0]),
            [json!("Chrome"), json!("{\"a\":1}"), json!(12.5), json!(true), json!("2026-01-01T00:00:00.000000Z")]
        );
        assert_eq!(columns(records[1]), [json!("5"), none.clone(), json!(7), json!(false), none.clone()]);
        assert_eq!(columns(records[2]), [none.clone(), none.clone(), none.clone(), none.clone(), none.clone()]);
        assert_eq!(columns(records[3]), [none.clone(), none.clone(), none.clone(), none.clone(), none.clone()]);
        let changes: Vec<String> = messages
            .of_type("RECORD")
            .iter()
            .filter(|message| message["record"]["data"]["id"] == records[2]["id"])
            .flat_map(|message| message["record"]["meta"]["changes"].as_array().unwrap().clone())
            .map(|change| change["field"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(changes, ["property_total", "property_paid", "property_due"]);
        for record in records {
            assert!(record.as_object().unwrap().keys().all(|field| events.get(field).is_some()), "{record}");
        }
    }
}

#[tokio::test]
async fn missing_scope_makes_property_columns_strings_with_a_warning() {
    let posthog = with_properties().await;
    let source = source(&posthog, false).with("api_key", json!("phx_query"));
    let outcome = run(source.command("discover")).await;
    assert_eq!(outcome.code, Some(0));
    let streams = &outcome.messages.of_type("CATALOG")[0]["catalog"]["streams"];
    assert_eq!(streams[0]["json_schema"]["properties"]["property_total"]["type"][1], "string");
    let warnings = outcome.messages.logs("WARN").join("\n");
    assert!(
        warnings.contains("`property_definition:read`") && warnings.contains("their columns are strings"),
        "{warnings}"
    );
}

#[tokio::test]
async fn events_time_step_limits_the_window() {
    let posthog = sandbox().await;
    posthog.generate(PROJECT, 200, 3, two_hours_ago());
    let catalog = catalog(&["events"], "full_refresh");
    let mut pages = Vec::new();
    for days in [None, Some(3)] {
        let mut source = Source::new(&posthog.url()).with("method", json!({"type": "query", "settle_minutes": 0}));
        if let Some(days) = days {
            source = source.with("events_time_step", json!(days));
        }
        posthog.clear_requests();
        assert_events(&source.read_all(&catalog, None).await, &posthog, &[PROJECT]);
        let is_page = |sql: &Option<String>| sql.as_ref().is_some_and(|sql| sql.contains("ORDER BY timestamp"));
        pages.push(posthog.requests().iter().filter(|request| is_page(&request.sql)).count());
    }
    assert!(pages[0] < 3 && pages[1] >= 10, "{pages:?}");
    let exporting = sandbox_with_exports(Exports::default()).await;
    exporting.generate(PROJECT, 200, 3, two_hours_ago());
    let source = Source::new(&exporting.url()).with_exports().with("events_time_step", json!(2));
    source.read_all(&catalog, None).await;
    let runs = exporting.export_runs();
    assert!(runs.len() >= 12 && runs.iter().all(|run| run.end - run.start <= 2 * 86_400_000_000), "{}", runs.len());
    let (status, message) = Source::new(&posthog.url()).with("events_time_step", json!(1_000)).check().await;
    assert_eq!(status, "FAILED");
    assert!(message.contains("`events_time_step` must be between 1 and"), "{message}");
}
