//! Properties that are dropped or hashed, and credentials, searched for in everything that is printed.

use posthog_sandbox::posthog::{Event, Exports, Person, Sandbox};
use serde_json::{Value, json};

use crate::support::program::{Outcome, Source, catalog};
use crate::support::secrets::HASH_KEY;
use crate::support::world::{PROJECT, event, minutes_ago, person, two_projects};

/// A value that must not be printed where its property is dropped.
const PRIVATE: &str = "pr1vate";
/// Properties of events with it.
const PRIVATE_PROPERTIES: [&str; 9] = [
    "$ip",
    "$geoip_*",
    "$session_id",
    "$group_*",
    "$current_url",
    "utm_*",
    "address.street",
    "address.lines.street",
    "$survey_response",
];
/// A value that may be printed.
const PUBLIC: &str = "publ1c";
/// What identifies a session, in `sessions` whatever becomes of the property.
const SESSION: &str = "s3ssion";

/// Properties of an event with private values wherever a name can stand.
fn event_properties() -> String {
    let values = |name: &str| format!("{PRIVATE}-{name}");
    json!({
        "plan": PUBLIC, "$ip": values("ip"), "$geoip_city_name": values("city"), "$session_id": SESSION,
        "$window_id": PUBLIC, "$group_0": values("group"), "$current_url": values("url"), "utm_source": values("source"),
        "address": {"street": values("street"), "city": PUBLIC, "lines": [{"street": values("line")}]},
        "$survey_completed": true, "$survey_id": "s-1", "$survey_response": values("answer"), "$survey_response_2": PUBLIC,
        "$set": {"email": values("email"), "$ip": values("set-ip"), "plan": PUBLIC},
        "$set_once": {"email": values("email-once"), "$geoip_city_name": values("city-once")},
    })
    .to_string()
}

async fn world() -> Sandbox {
    let posthog = Sandbox::builder().exports(Exports::default()).start().await.unwrap();
    let person_properties = json!({"email": format!("{PRIVATE}-email"), "plan": PUBLIC}).to_string();
    let private = |number: u32| Event {
        event: if number == 0 { "survey sent" } else { "$pageview" }.to_owned(),
        distinct_id: format!("user-{number}"),
        properties: event_properties(),
        session_id: SESSION.to_owned(),
        window_id: PUBLIC.to_owned(),
        groups: [format!("{PRIVATE}-group"), String::new(), String::new(), String::new(), String::new()],
        ..event(u128::from(number), minutes_ago(90 + i64::from(number)))
    };
    posthog.insert(PROJECT, (0..5).map(private).collect());
    for number in 0..5 {
        let person = person(number, minutes_ago(100), Some(minutes_ago(95)));
        posthog.insert_person(PROJECT, Person { properties: person_properties.clone(), ..person });
    }
    posthog.delete_person(PROJECT, posthog.persons(PROJECT)[0].id);
    let recording = json!({"id": "r", "start_time": "2026-01-01T00:00:00Z", "distinct_id": "d",
        "start_url": format!("{PRIVATE}-url"), "snapshot_library": "web",
        "person": {"name": format!("{PRIVATE}-name"), "properties": {"email": format!("{PRIVATE}-email"), "plan": PUBLIC}}});
    posthog.set_list(PROJECT, "session_recordings", vec![recording]);
    posthog
}

fn source(posthog: &Sandbox, method: &str) -> Source {
    Source::new(&posthog.url())
        .with("method", json!({"type": method, "settle_minutes": 0, "person_properties": true}))
        .with_environment("LOG_LEVEL", "trace")
}

const STREAMS: [&str; 5] = ["events", "persons", "sessions", "survey_responses", "session_recordings"];

async fn read(source: &Source) -> Outcome {
    let outcome = source.read(&catalog(&STREAMS, "incremental"), None).await;
    assert_eq!(outcome.code, Some(0), "{}", outcome.messages.without_records());
    outcome
}

fn assert_nothing_private(outcome: &Outcome) {
    for text in [&outcome.messages.text(), &outcome.stderr] {
        let line = text.lines().find(|line| line.contains(PRIVATE));
        assert_eq!(line, None, "{PRIVATE} was printed");
    }
    assert!(outcome.messages.text().contains(PUBLIC));
}

#[tokio::test]
async fn dropped_properties_appear_nowhere() {
    let posthog = world().await;
    for method in ["query", "export"] {
        let source = source(&posthog, method);
        assert!(read(&source).await.messages.text().contains(PRIVATE), "nothing private to be found");
        let rules = |source: Source, rule: &str, event: Value, person: Value| {
            source.with("event_properties", json!({ rule: event })).with("person_properties", json!({ rule: person }))
        };
        let dropping = rules(self::source(&posthog, method), "drop", json!(PRIVATE_PROPERTIES), json!(["email"]))
            .with("event_property_columns", json!(["plan"]));
        let outcome = read(&dropping).await;
        assert_nothing_private(&outcome);
        let events = outcome.messages.records("events");
        assert_eq!(events.len(), 5);
        for record in &events {
            assert_eq!((&record["property_plan"], &record["window_id"]), (&json!(PUBLIC), &json!(PUBLIC)));
            assert!(!record.to_string().contains(SESSION), "{record}");
            assert_eq!((&record["session_id"], &record["group_0"]), (&Value::Null, &Value::Null));
            assert_eq!(record["properties"]["address"], json!({"city": PUBLIC, "lines": [{}]}));
            assert_eq!(record["properties"]["$set"], json!({"plan": PUBLIC}));
        }
        let persons = outcome.messages.records("persons");
        assert!(persons.len() >= 5 && persons.iter().any(|person| person["is_deleted"] == true), "{method}");
        let responses = outcome.messages.records("survey_responses");
        assert_eq!(responses[0]["answers"], json!({"2": PUBLIC}));
        let recording = outcome.messages.records("session_recordings")[0];
        assert_eq!((&recording["start_url"], &recording["snapshot_library"]), (&Value::Null, &json!("web")));
        // The same with a list of what may be seen.
        let keep = json!(["plan", "address.city", "$window_id", "$set", "$survey_response_2"]);
        let keeping = rules(self::source(&posthog, method), "keep", keep, json!(["plan"]));
        assert_nothing_private(&read(&keeping).await);
    }
}

#[tokio::test]
async fn an_unknown_key_among_rules_is_rejected() {
    let posthog = world().await;
    for (field, key, expected) in [
        (
            "event_properties",
            "dropp",
            "the unknown key `event_properties.dropp`; did you mean `event_properties.drop`?",
        ),
        (
            "person_properties",
            "Hash",
            "the unknown key `person_properties.Hash`; did you mean `person_properties.hash`?",
        ),
        ("person_properties", "remove", "the unknown key `person_properties.remove`; there are `person_properties."),
    ] {
        let source = source(&posthog, "query").with(field, json!({ key: ["email"] }));
        let outcome = source.read(&catalog(&STREAMS, "incremental"), None).await;
        assert_eq!((outcome.code, outcome.messages.of_type("RECORD").len()), (Some(1), 0), "{field}.{key}");
        let errors = outcome.messages.errors();
        assert!(errors[0].starts_with("config_error") && errors[0].contains(expected), "{errors:?}");
    }
    // A note beside them is none of the rules.
    let noted = source(&posthog, "query").with("event_properties", json!({"drop": ["$ip"], "_note": "why"}));
    assert_eq!(noted.check().await.0, "SUCCEEDED");
}

#[tokio::test]
async fn a_column_that_is_made_from_a_property_follows_its_rules() {
    let posthog = world().await;
    for (rules, expected) in [
        (json!({"drop": ["$ip"]}), json!(true)),
        (json!({"drop": ["$survey_completed"]}), Value::Null),
        (json!({"keep": ["$survey_response"]}), Value::Null),
        (json!({"hash": ["$survey_completed"]}), Value::Null),
    ] {
        let source =
            source(&posthog, "query").with("event_properties", rules.clone()).with("hash_key", json!(HASH_KEY));
        let messages = source.read_all(&catalog(&["survey_responses"], "full_refresh"), None).await;
        let responses = messages.records("survey_responses");
        assert_eq!((responses.len(), &responses[0]["is_completed"]), (1, &expected), "{rules}");
    }
}

#[tokio::test]
async fn hashed_properties_are_the_same_in_every_stream_and_by_both_methods() {
    let posthog = world().await;
    let mut hashes = Vec::new();
    for method in ["query", "export"] {
        let hashing = source(&posthog, method)
            .with("event_properties", json!({ "hash": PRIVATE_PROPERTIES }))
            .with("person_properties", json!({"hash": ["email"]}));
        let outcome = read(&hashing.with_environment("POSTHOG_HASH_KEY", HASH_KEY)).await;
        assert_nothing_private(&outcome);
        let messages = &outcome.messages;
        let hash = |value: &Value| {
            let text = value.as_str().unwrap_or_else(|| panic!("{value} is no hash")).to_owned();
            assert!(text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()), "{text}");
            text
        };
        let event = messages.records("events")[0];
        assert_eq!(hash(&event["session_id"]), hash(&event["properties"]["$session_id"]));
        let email = hash(&event["properties"]["$set"]["email"]);
        let persons: Vec<&Value> =
            messages.records("persons").iter().map(|person| &person["properties"]["email"]).collect();
        let of_persons = persons.into_iter().filter(|value| !value.is_null()).map(hash);
        let of_persons: Vec<String> = of_persons.collect();
        assert!(of_persons.len() >= 4 && of_persons.iter().all(|hash| *hash == email), "{method}: {of_persons:?}");
        let recording = messages.records("session_recordings")[0];
        assert_eq!(hash(&recording["person"]["properties"]["email"]), email);
        assert_eq!(hash(&recording["start_url"]), hash(&event["properties"]["$current_url"]));
        hashes.push((email, event["properties"].clone()));
    }
    assert_eq!(hashes[0], hashes[1]);
}

#[tokio::test]
async fn rules_that_contradict_themselves_are_rejected() {
    let posthog = Sandbox::builder().start().await.unwrap();
    for (field, value, expected) in [
        (
            "event_properties",
            json!({"keep": ["a"], "drop": ["b", "a"]}),
            "`event_properties.keep[0]` is in `event_properties.drop`, too",
        ),
        ("person_properties", json!({"hash": ["email"]}), "`person_properties.hash` needs a key; set `hash_key`"),
        ("event_properties", json!({"drop": [" "]}), "`event_properties.drop` contains an empty name"),
        ("hash_key", json!("short"), "`hash_key` is too short"),
    ] {
        let (status, message) = Source::new(&posthog.url()).with(field, value).check().await;
        assert_eq!(status, "FAILED");
        assert!(message.contains(expected), "{message}");
    }
    for rules in [json!({"drop": ["pl*"]}), json!({"keep": ["other", "plan.x"]})] {
        let source = Source::new(&posthog.url()).with("event_property_columns", json!(["plan"]));
        let (_, message) = source.with("event_properties", rules).check().await;
        assert!(message.contains("`event_property_columns[0]` is not kept by `event_properties`"), "{message}");
    }
}

#[tokio::test]
async fn credentials_are_only_emitted_where_they_are_asked_for() {
    let posthog = two_projects().await;
    let payloads = json!({"true": "an encrypted payload"});
    let flag =
        json!({"id": 1, "key": "k", "has_encrypted_payloads": true, "filters": {"groups": [], "payloads": payloads}});
    posthog.set_list(PROJECT, "feature_flags", vec![flag]);
    let catalog = catalog(&["projects", "feature_flags"], "full_refresh");
    for include in [None, Some(false), Some(true)] {
        let source = Source::new(&posthog.url()).with("include_credentials", json!(include));
        let messages = source.read_all(&catalog, None).await;
        assert_eq!((messages.records("projects").len(), messages.records("feature_flags").len()), (2, 1));
        for secret in ["phc_1001", "phc_1002", "an encrypted payload"] {
            assert_eq!(messages.text().contains(secret), include == Some(true), "{secret}");
        }
    }
}
