//! Catalogs and configurations as people and platforms write them, and choices that match nothing.

use posthog_sandbox::posthog::Sandbox;
use serde_json::{Value, json};

use crate::support::program::{Source, catalog, run};
use crate::support::world::{PROJECT, assert_events, events, minutes_ago, sandbox};

async fn sandbox_with_events() -> Sandbox {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, events(20, minutes_ago(30)));
    posthog
}

/// The configuration's text, which can be anything.
async fn check_text(source: &Source, text: &[u8]) -> (String, String, Vec<String>) {
    let path = source.file("other.json", "");
    std::fs::write(&path, text).unwrap();
    let mut command = source.bare();
    command.arg("check").arg("--config").arg(&path);
    let outcome = run(command).await;
    let (status, message) = outcome.messages.connection_status();
    (status, message, outcome.messages.logs("WARN"))
}

#[tokio::test]
async fn a_catalog_in_the_spelling_of_the_api_means_the_same() {
    let posthog = sandbox_with_events().await;
    let source = Source::new(&posthog.url());
    let catalog = json!({"connectionId": "c", "syncCatalog": {"streams": [
        {"stream": {"name": "events", "jsonSchema": {}, "supportedSyncModes": ["full_refresh", "incremental"]},
         "config": {"syncMode": "incremental", "destinationSyncMode": "append_dedup", "cursorField": ["created_at"], "selected": true}},
        {"stream": {"name": "persons", "jsonSchema": {}}, "config": {"syncMode": "full_refresh", "selected": false}},
    ]}});
    let messages = source.read_all(&catalog, None).await;
    assert_events(&messages, &posthog, &[PROJECT]);
    assert!(messages.records("persons").is_empty() && messages.statuses("persons").is_empty());
    let again = source.read_all(&catalog, Some(&messages.state())).await;
    assert!(again.records("events").is_empty(), "the second sync is incremental");
}

#[tokio::test]
async fn configurations_are_read_as_they_are_meant_or_refused_by_key() {
    let posthog = sandbox_with_events().await;
    let source = Source::new(&posthog.url());
    let usual = json!({"api_key": "phx_full", "start_date": "2020-01-01T00:00:00Z", "base_url": posthog.url()});
    let with = |name: &str, value: Value| {
        let mut config = usual.clone();
        config[name] = value;
        config.to_string().into_bytes()
    };
    for text in [
        [b"\xef\xbb\xbf", usual.to_string().as_bytes()].concat(),
        with("concurrency", json!("3")),
        with("method", json!("query")),
        with("project_ids", json!(PROJECT.to_string())),
        with("allow_http", json!("true")),
        with("__injected_declarative_manifest", json!({})),
    ] {
        let (status, message, warnings) = check_text(&source, &text).await;
        assert_eq!(status, "SUCCEEDED", "{message}");
        assert_eq!(warnings, Vec::<String>::new());
    }
    let appended = [usual.to_string(), usual.to_string()].concat();
    for (text, expected) in [
        (appended.into_bytes(), "more text follows after the end of the document"),
        ([usual.to_string().as_bytes(), b" oops }"].concat(), "more text follows after the end of the document"),
        (usual.to_string().encode_utf16().flat_map(u16::to_le_bytes).collect(), "UTF-16"),
        (Vec::new(), "the configuration is empty"),
        (b"{\"api_key\":\"phx_s3cret\", // mine\n}".to_vec(), "line 1, after `api_key`): JSON has no comments"),
        (
            with("concurrency", json!("many")),
            "`concurrency` in the configuration is a string; it must be a whole number",
        ),
        (with("api_key", json!(123_456)), "`api_key` in the configuration is a number; it must be a string"),
    ] {
        let (status, message, _) = check_text(&source, &text).await;
        assert_eq!(status, "FAILED", "{message}");
        assert!(message.contains(expected), "{message}");
        assert!(!message.contains("s3cret") && !message.contains("123456"), "{message}");
    }
    let (status, _, warnings) = check_text(&source, &with("include_event", json!(["a"]))).await;
    assert_eq!(status, "SUCCEEDED");
    assert!(
        warnings
            .join("")
            .contains("the unknown key `include_event`, which has no effect; did you mean `include_events`?"),
        "{warnings:?}"
    );
}

#[tokio::test]
async fn names_and_dates_that_match_nothing_are_named() {
    let posthog = sandbox_with_events().await;
    let known = events(1, 0)[0].event.clone();
    let misspelt = known.to_uppercase() + " ";
    for (setting, value, expected) in [
        (
            "include_events",
            json!([known, misspelt]),
            format!(
                "`include_events` contains `{misspelt}`, but no event in the selected period has this name; did you mean `{known}`?"
            ),
        ),
        (
            "exclude_events",
            json!(["nobody sends this"]),
            "`exclude_events` contains `nobody sends this`, but no event in the selected period has this name"
                .to_owned(),
        ),
        ("start_date", json!("2099-01-01T00:00:00Z"), "is in the future".to_owned()),
        ("event_property_columns", json!(["no such property"]), "PostHog knows no such event property".to_owned()),
    ] {
        let source = Source::new(&posthog.url()).with(setting, value);
        let (status, message) = source.check().await;
        assert_eq!(status, "SUCCEEDED", "{message}");
        assert!(message.contains(&expected), "{message}");
        let messages = source.read_all(&catalog(&["events"], "incremental"), None).await;
        let warnings = messages.logs("WARN").join("\n");
        assert!(warnings.contains(&expected), "{setting}: {warnings}");
        assert!(!warnings.contains(&format!("`{known}`, and")), "{warnings}");
    }
    let source = Source::new(&posthog.url()).with("include_events", json!([known]));
    assert!(source.read_all(&catalog(&["events"], "incremental"), None).await.logs("WARN").is_empty());
}

#[tokio::test]
async fn events_at_the_ends_of_time_are_read() {
    let posthog = sandbox().await;
    let mut extreme = events(4, minutes_ago(30));
    for (event, time) in
        extreme.iter_mut().zip(["1900-01-01T00:00:00Z", "1969-12-31T23:59:59.5Z", "2299-12-31T23:59:59.999999Z"])
    {
        event.timestamp = chrono::DateTime::parse_from_rfc3339(time).unwrap().timestamp_micros();
    }
    posthog.insert(PROJECT, extreme);
    let source = Source::new(&posthog.url()).with("start_date", json!("1900-01-01T00:00:00Z"));
    let catalog = catalog(&["events"], "incremental");
    let messages = source.read_all(&catalog, None).await;
    assert_events(&messages, &posthog, &[PROJECT]);
    assert!(source.read_all(&catalog, Some(&messages.state())).await.records("events").is_empty());
}
