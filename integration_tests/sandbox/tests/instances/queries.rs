//! Columns, refusals, persons of events, and retention.

use posthog_sandbox::posthog::{
    Action, Event, Exports, Fault, Person, PersonsOnEvents, Project, Refusals, Retention, Sandbox, Server,
    SessionsVersion,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{get, post_query, query};
use crate::{DAY, HOUR, ago, builder, cloud, event, exporting, recent_rows};

async fn columns(posthog: &Sandbox, table: &str) -> Vec<String> {
    let answer = query(posthog, &format!("SELECT * FROM {table} LIMIT 0")).await;
    assert_eq!(answer.rows(), Vec::<Value>::new());
    let answer = answer.json();
    let names: Vec<String> = serde_json::from_value(answer["columns"].clone()).unwrap();
    let types = answer["types"].as_array().unwrap();
    assert!(types.iter().map(|kind| kind[0].as_str().unwrap()).eq(names.iter().map(String::as_str)));
    names
}

#[tokio::test]
async fn asterisk_shows_the_columns_of_the_instance() {
    let mut server = Server::cloud_2026();
    for (version, has_person, has_inserted) in
        [(SessionsVersion::V1, false, false), (SessionsVersion::V2, false, true), (SessionsVersion::V3, true, true)]
    {
        server.schema.sessions = version;
        let posthog = builder(server.clone()).start().await.unwrap();
        let names = columns(&posthog, "sessions").await;
        let has = |name: &str| names.iter().any(|own| own == name);
        assert_eq!((has("person_id"), has("max_inserted_at")), (has_person, has_inserted), "{version:?}");
        assert!(has("$entry_gclid") && has("$session_duration") && !has("duration"), "{names:?}");
        assert_eq!(query(&posthog, "SELECT duration FROM sessions").await.status, 200, "hidden, but there");
        let every = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        assert_eq!(query(&posthog, &format!("SELECT {every} FROM sessions")).await.status, 200);
    }
    let posthog = cloud().await;
    assert_eq!(columns(&posthog, "groups").await, ["index", "key", "created_at", "updated_at", "properties"]);
    let persons = ["id", "created_at", "properties", "is_identified", "last_seen_at"];
    assert_eq!(columns(&posthog, "persons").await, persons);
    let events = columns(&posthog, "events").await;
    assert!(events.contains(&"person_mode".to_owned()) && events.contains(&"event_person_id".to_owned()));

    let mut old = Server::before_2026();
    old.schema.event_person_mode = false;
    old.schema.persons_on_events = PersonsOnEvents::Joined;
    let posthog = builder(old).start().await.unwrap();
    assert_eq!(columns(&posthog, "persons").await, persons[..4]);
    let events = columns(&posthog, "events").await;
    let hidden = ["person_mode", "person_id", "event_person_id"];
    assert!(!hidden.iter().any(|name| events.contains(&(*name).to_owned())), "{events:?}");
    assert_eq!(query(&posthog, "SELECT person_id FROM events").await.status, 200, "joined, so not shown by *");
    let refused = query(&posthog, "SELECT last_seen_at FROM persons").await;
    assert_eq!(refused.detail(), "Unable to resolve field: last_seen_at");
}

#[tokio::test]
async fn asterisk_shows_rows_as_well() {
    let posthog = cloud().await;
    let chain = r#"a.btn:attr_id="buy"href="/signup"text="Start";div:text="Shop""#;
    posthog.insert(1001, vec![Event { elements_chain: chain.to_owned(), ..event(1, ago(HOUR), ago(HOUR)) }]);
    let answer = query(&posthog, "SELECT * FROM events").await.json();
    let names: Vec<String> = serde_json::from_value(answer["columns"].clone()).unwrap();
    let value = |name: &str| answer["results"][0][names.iter().position(|own| own == name).unwrap()].clone();
    assert_eq!((value("elements_chain_href"), value("elements_chain_ids")), (json!("/signup"), json!(["buy"])));
    assert_eq!(
        (value("elements_chain_texts"), value("elements_chain_elements")),
        (json!(["Start", "Shop"]), json!(["a", "div"]))
    );
    let inner = query(&posthog, "SELECT * FROM (SELECT uuid, event AS name FROM events) AS q").await.json();
    assert_eq!(inner["columns"], json!(["uuid", "name"]));
}

#[tokio::test]
async fn refusals_suggest_and_name_the_tables() {
    let posthog = cloud().await;
    let reply = query(&posthog, "SELECT person_id FROM sessions LIMIT 1").await;
    let answer = reply.json();
    let detail =
        "Unable to resolve field: person_id. Did you mean: session_id?\nTables referenced: sessions\nHint: session_id";
    assert_eq!((reply.status, reply.detail().as_str()), (400, detail));
    assert_eq!(answer["code"], "hogql_query_error");
    let metadata = &answer["extra"]["hogql_metadata"];
    assert_eq!((&metadata["table_names"], &metadata["errors"][0]["fix"]), (&json!(["sessions"]), &json!("session_id")));

    let reply = query(&posthog, "SELECT zzzzzz FROM events").await;
    assert_eq!(reply.detail(), "Unable to resolve field: zzzzzz\nTables referenced: events");
    let reply = query(&posthog, "SELECT id FROM (SELECT id FROM person) AS q").await;
    assert!(reply.detail().starts_with("Unknown table `person`. Did you mean: persons, "), "{}", reply.detail());
    assert!(reply.detail().contains("\nTables referenced: person\n"), "{}", reply.detail());
    assert_eq!(query(&posthog, "SELEC uuid").await.json()["code"], "hogql_syntax_error");

    let body = json!({"kind": "HogQLQuery", "query": "SELECT eventt FROM events WHERE event = {name}", "values": {"name": "a"}});
    let answer = post_query(&posthog, &json!({"query": body})).await.json();
    assert_eq!(answer["detail"], "Unable to resolve field: eventt. Did you mean: event?");
    let metadata = &answer["extra"]["hogql_metadata"];
    assert_eq!(
        (&metadata["table_names"], &metadata["errors"][0]["message"]),
        (&json!([]), &json!("Unexpected HogVMException"))
    );

    let server = Server { refusals: Refusals::Explained { hint: false }, ..Server::cloud_2026() };
    let posthog = builder(server).start().await.unwrap();
    let detail = query(&posthog, "SELECT person_id FROM sessions LIMIT 1").await.detail();
    assert_eq!(detail.lines().count(), 2, "{detail}");
    let posthog = builder(Server::before_2026()).start().await.unwrap();
    let answer = query(&posthog, "SELECT person_id FROM sessions LIMIT 1").await.json();
    assert_eq!((&answer["detail"], answer.get("extra")), (&json!("Unable to resolve field: person_id"), None));
}

#[tokio::test]
async fn error_bodies_can_have_any_shape() {
    let faults = vec![
        Fault::query(Action::error(400, &Value::Null, &json!(["a", "b"]))).nth(&[1]),
        Fault::query(Action::error(403, &json!([{"message": "no"}]), &Value::Null)).nth(&[1]),
    ];
    let posthog = builder(Server::cloud_2026()).faults(faults).start().await.unwrap();
    let reply = query(&posthog, "SELECT 1 FROM events").await;
    assert_eq!((reply.status, &reply.json()["detail"], &reply.json()["code"]), (400, &Value::Null, &json!(["a", "b"])));
}

/// Two persons with an event each, and then one of them is merged into the other.
async fn merged(server: Server) -> (Sandbox, Uuid, Uuid) {
    let posthog = exporting(server, Exports::default()).await;
    let (known, anonymous) = (Uuid::from_u128(1), Uuid::from_u128(2));
    for (id, distinct_id) in [(known, "ana"), (anonymous, "anon")] {
        posthog.insert_person(
            1001,
            Person {
                id,
                created_at: ago(3 * HOUR),
                properties: format!(r#"{{"name":"{distinct_id}"}}"#),
                is_identified: false,
                last_seen_at: Some(ago(3 * HOUR)),
                distinct_ids: vec![distinct_id.to_owned()],
            },
        );
        let row = event(id.as_u128(), ago(2 * HOUR), ago(2 * HOUR));
        posthog.insert(1001, vec![Event { person_id: id, distinct_id: distinct_id.to_owned(), ..row }]);
    }
    posthog.merge(1001, "ana", "anon");
    (posthog, known, anonymous)
}

async fn ask(posthog: &Sandbox, sql: &str, mode: Option<&str>) -> Vec<Value> {
    let modifiers = json!({"convertToProjectTimezone": false, "personsOnEventsMode": mode});
    let body = json!({"kind": "HogQLQuery", "query": sql, "modifiers": modifiers});
    post_query(posthog, &json!({"query": body, "refresh": "force_blocking"})).await.rows()
}

#[tokio::test]
async fn merged_person_is_resolved_by_mode() {
    let (posthog, known, anonymous) = merged(Server::cloud_2026()).await;
    let sql = "SELECT person_id, poe.id, person.properties.name FROM events WHERE distinct_id = 'anon'";
    let (known, anonymous) = (known.to_string(), anonymous.to_string());
    for (mode, wanted) in [
        (None, json!([known, known, "anon"])),
        (Some("disabled"), json!([known, anonymous, "ana"])),
        (Some("person_id_no_override_properties_on_events"), json!([anonymous, anonymous, "anon"])),
        (Some("person_id_override_properties_on_events"), json!([known, known, "anon"])),
        (Some("person_id_override_properties_joined"), json!([known, anonymous, "ana"])),
    ] {
        assert_eq!(ask(&posthog, sql, mode).await, [wanted], "{mode:?}");
    }
    assert_eq!(ask(&posthog, "SELECT event_person_id FROM events LIMIT 1", None).await.len(), 1);
    let refused =
        json!({"kind": "HogQLQuery", "query": "SELECT uuid FROM events", "modifiers": {"personsOnEventsMode": "v1"}});
    assert_eq!(post_query(&posthog, &json!({"query": refused})).await.status, 400);
}

#[tokio::test]
async fn exported_events_have_the_person_at_ingestion() {
    let (posthog, known, anonymous) = merged(Server::cloud_2026()).await;
    let rows = recent_rows(&posthog, "events").await;
    let row = rows.iter().find(|row| row["distinct_id"] == "anon").unwrap();
    assert_eq!((&row["person_id"], &row["person_properties"]["name"]), (&json!(anonymous.to_string()), &json!("anon")));
    let persons = recent_rows(&posthog, "persons").await;
    assert_eq!(persons.len(), 2, "one line for each distinct id");
    assert!(persons.iter().all(|row| row["person_id"] == json!(known.to_string())), "the merged person has no line");
    assert_eq!(ask(&posthog, "SELECT count() FROM persons", None).await, [json!([1])]);

    let (posthog, known, _) = merged(Server::forgiving()).await;
    assert!(posthog.events(1001).iter().all(|event| event.person_id == known), "events are rewritten");
}

#[tokio::test]
async fn retention_hides_old_events_from_queries_only() {
    let retention = |enforced| Retention { months: 12, enforced };
    let posthog = builder(Server::cloud_2026()).exports(Exports::default()).retention(retention(false));
    let posthog = posthog.project(Project::default()).start().await.unwrap();
    posthog.insert(1001, vec![event(1, ago(400 * DAY), ago(HOUR)), event(2, ago(DAY), ago(HOUR))]);
    let seen = async || query(&posthog, "SELECT count() FROM events").await.rows()[0][0].as_u64().unwrap();
    assert_eq!(seen().await, 2);
    posthog.set_retention(1001, retention(true));
    assert_eq!(seen().await, 1);
    assert_eq!(recent_rows(&posthog, "events").await.len(), 2);
    let project = get(&posthog, "/api/projects/1001/", "phx_full").await.json();
    assert_eq!((&project["event_retention_months"], &project["events_retention_enforced"]), (&json!(12), &json!(true)));
}

#[tokio::test]
async fn upgrade_happens_while_the_sandbox_runs() {
    let posthog = builder(Server::before_2026()).start().await.unwrap();
    assert_eq!(query(&posthog, "SELECT last_seen_at FROM persons").await.status, 400);
    posthog.set_server(Server::cloud_2026());
    assert_eq!(query(&posthog, "SELECT last_seen_at FROM persons").await.status, 200);
}
