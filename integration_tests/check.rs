//! `check` says whether the configuration works, and if not, what to do.

use posthog_sandbox::posthog::{Action, Fault, Sandbox};
use serde_json::json;

use crate::support::program::{Source, run};
use crate::support::world::{PROJECT, events, key, minutes_ago, two_projects};

async fn sandbox_with_keys() -> Sandbox {
    let posthog = Sandbox::builder()
        .key(key("phx_full", &["*"], None))
        .key(key("phx_query", &["query:read"], None))
        .key(key("phx_scoped", &["query:read", "project:read"], Some(vec![PROJECT])))
        .key(key("phx_nothing", &["annotation:read"], None))
        .key(key("phx_noquery", &["project:read"], None))
        .start()
        .await
        .unwrap();
    posthog.insert(PROJECT, events(5, minutes_ago(10)));
    posthog
}

#[tokio::test]
async fn successful_check_names_projects_and_methods() {
    let posthog = two_projects().await;
    posthog.insert(1001, events(5, minutes_ago(10)));
    let (status, message) = Source::new(&posthog.url()).check().await;
    assert_eq!(status, "SUCCEEDED", "{message}");
    for expected in ["project 1001 (Web shop) will be read by queries", "5 events", "project 1002 (App)"] {
        assert!(message.contains(expected), "{message}");
    }
}

#[tokio::test]
async fn invalid_keys_and_missing_scopes_are_explained() {
    let posthog = sandbox_with_keys().await;
    for (api_key, ids, status, expected) in [
        ("phx_wrong", None, "FAILED", "`api_key`"),
        ("phc_token", None, "FAILED", "project token"),
        ("phx_nothing", None, "FAILED", "`project:read`"),
        (
            "phx_nothing",
            Some(json!([PROJECT])),
            "SUCCEEDED",
            "cannot be read, because the API key lacks the scope `query:read`",
        ),
        ("phx_noquery", None, "FAILED", "`query:read`"),
        ("phx_full", Some(json!([4_711])), "FAILED", "project 4711"),
        ("phx_scoped", Some(json!([4_711])), "FAILED", "project 4711"),
        ("phx_scoped", None, "SUCCEEDED", "project 1001"),
        ("phx_query", Some(json!([PROJECT])), "SUCCEEDED", "`projects` cannot be read"),
    ] {
        let mut source = Source::new(&posthog.url()).with("api_key", json!(api_key));
        if let Some(ids) = &ids {
            source = source.with("project_ids", ids.clone());
        }
        let (found, message) = source.check().await;
        assert_eq!(found, status, "{api_key} {ids:?}: {message}");
        assert!(message.contains(expected), "{api_key} {ids:?}: {message}");
    }
}

#[tokio::test]
async fn invalid_configuration_fails_the_check() {
    let posthog = sandbox_with_keys().await;
    let source = Source::new(&posthog.url());
    for (source, expected) in [
        (source.without("start_date"), "`start_date`"),
        (Source::new("http://posthog.internal"), "allow_http"),
        (
            Source::new(&posthog.url()).with("method", json!({"type": "export"})),
            "this PostHog has no file download exports",
        ),
        (Source::new(&posthog.url()).with("method", json!({"type": "x"})), "`method.type`"),
    ] {
        let (status, message) = source.check().await;
        assert_eq!(status, "FAILED");
        assert!(message.contains(expected), "{message}");
    }
}

#[tokio::test]
async fn check_accepts_the_api_key_of_the_environment() {
    let posthog = sandbox_with_keys().await;
    let source = Source::new(&posthog.url()).without("api_key").with_environment("POSTHOG_API_KEY", "phx_scoped");
    assert_eq!(source.check().await.0, "SUCCEEDED");
    let (status, message) = Source::new(&posthog.url()).without("api_key").check().await;
    assert_eq!(status, "FAILED");
    assert!(message.contains("POSTHOG_API_KEY"), "{message}");
}

#[tokio::test]
async fn url_that_is_not_posthog_fails_the_check() {
    let posthog = sandbox_with_keys().await;
    posthog
        .set_faults(vec![Fault::new(Action::Status {
            code: 302,
            body: String::new(),
            headers: vec![("location".into(), "https://elsewhere.example/login?next=secret".into())],
        })])
        .unwrap();
    let (status, message) = Source::new(&posthog.url()).check().await;
    assert_eq!(status, "FAILED");
    assert!(message.contains("https://elsewhere.example/login;"), "{message}");
    let (status, message) = Source::new("http://127.0.0.1:9").check().await;
    assert_eq!(status, "FAILED");
    assert!(message.contains("`base_url`"), "{message}");
}

#[tokio::test]
async fn error_names_the_missing_file() {
    let source = Source::new("http://127.0.0.1:9");
    let mut command = source.bare();
    command.args(["check", "--config", "/nowhere/config.json"]);
    let (status, message) = run(command).await.messages.connection_status();
    assert_eq!(status, "FAILED");
    assert!(message.contains("/nowhere/config.json"), "{message}");
}
