//! `check` says whether the configuration works, and if not, what to do.

use std::time::Duration;

use posthog_sandbox::posthog::{Action, Exports, Fault, Sandbox};
use serde_json::json;
use tokio::net::TcpListener;

use crate::support::program::{Source, run};
use crate::support::turned_clock;
use crate::support::world::{PROJECT, events, key, minutes_ago, sandbox, sandbox_with_exports, two_projects};

/// Platforms give up after this.
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

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

/// What fails for ever would be waited for in a sync.
#[tokio::test(start_paused = true)]
async fn whatever_posthog_does_the_result_comes_within_a_minute() {
    let posthog = sandbox_with_keys().await;
    let drip = Action::Drip { pieces: 3_600, over: HOUR };
    for (action, expected) in [
        (Action::throttle(100), "the last failure was: "),
        (Action::Delay { wait: HOUR }, "what the API key may do"),
        (drip, "what the API key may do"),
        (Action::Stall { wait: HOUR }, "what the API key may do"),
        (Action::GatewayTimeout { wait: Duration::from_secs(20) }, "504"),
    ] {
        posthog.set_faults(vec![Fault::new(action.clone())]).unwrap();
        let (status, message, took) = turned_clock::check(&posthog.url(), &json!({})).await;
        assert_eq!(status, "FAILED", "{action:?}: {message}");
        assert!(took < MINUTE && message.contains(expected), "{action:?} after {took:?}: {message}");
    }
    // Accepts connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    for url in [&url, "https://192.0.2.1"] {
        let (status, message, took) = turned_clock::check(url, &json!({})).await;
        assert!(status == "FAILED" && took < MINUTE, "{url}: {status} after {took:?}: {message}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_known_in_time_counts() {
    let posthog = two_projects().await;
    posthog.insert(PROJECT, events(5, minutes_ago(10)));
    let never = Action::Delay { wait: HOUR };
    let cases = [
        (Fault::new(never.clone()).path("projects/1002/query"), "of the projects 1002", true),
        (Fault::query(never.clone()).after(2), "how much there is to read", true),
        (Fault::new(never.clone()).path("projects/100[12]/query"), "of the projects 1001, 1002", false),
    ];
    for (fault, expected, succeeds) in cases {
        posthog.set_faults(vec![fault]).unwrap();
        let (status, message, took) = turned_clock::check(&posthog.url(), &json!({})).await;
        assert_eq!(status, if succeeds { "SUCCEEDED" } else { "FAILED" }, "{message}");
        assert!(took < MINUTE && message.contains(expected), "after {took:?}: {message}");
        assert_eq!(message.contains("5 events"), succeeds, "{message}");
    }
    // A project that cannot be read fails the check, whatever is known of the others.
    let refusal =
        Action::error(403, &json!("API key missing required scope 'query:read'"), &json!("permission_denied"));
    posthog
        .set_faults(vec![Fault::query(never).path("projects/1001"), Fault::query(refusal).path("projects/1002")])
        .unwrap();
    let (status, message, took) = turned_clock::check(&posthog.url(), &json!({})).await;
    assert!(status == "FAILED" && message.contains("project 1002") && took < MINUTE, "after {took:?}: {message}");
}

#[tokio::test]
async fn check_logs_how_long_the_first_read_takes_and_what_it_may_cost() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, events(5, minutes_ago(10)));
    let logged = |source: Source| async move { run(source.command("check")).await.messages.logs("INFO").join("\n") };
    let logs = logged(Source::new(&posthog.url())).await;
    for expected in ["project 1001: 5 events are read by query in about 1 min", "The first read takes about 1 min."] {
        assert!(logs.contains(expected), "{logs}");
    }
    assert!(!logs.contains("may bill"), "{logs}");
    let posthog = sandbox_with_exports(Exports::default()).await;
    posthog.insert(PROJECT, events(5, minutes_ago(10)));
    let logs = logged(Source::new(&posthog.url()).with_exports()).await;
    assert!(logs.contains("5 events are read by export") && logs.contains("may bill"), "{logs}");
    assert!(posthog.export_runs().is_empty(), "a run was started");
}
