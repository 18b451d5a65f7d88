//! Secrets from the environment: they stand in for missing ones, and are printed nowhere.

use std::process::Output;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use posthog_sandbox::patterns::{Behaviour, Webhook};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::child::Command;
use crate::support::program::{Source, run};
use crate::support::secrets::{BEARER, SIGNING_KEY};
use crate::support::world::sandbox;

/// The planted key as `signing_secret` has it.
fn signing_secret() -> String {
    format!("whsec_{}", STANDARD.encode(SIGNING_KEY))
}

/// Runs `destination-patterns check --send-test-record`.
async fn check(config: &Value, environment: &[(&str, &str)]) -> (String, String) {
    let directory = TempDir::new().unwrap();
    std::fs::write(directory.path().join("patterns.json"), config.to_string()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_destination-patterns"));
    command.current_dir(directory.path()).args(["check", "--config", "patterns.json", "--send-test-record"]);
    for (name, value) in environment {
        command.env(name, value);
    }
    let Output { stdout, stderr, .. } = command.env("LOG_LEVEL", "trace").output().await;
    let text = format!("{}{}", String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    let status: Value = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .find(|message: &Value| message["type"] == "CONNECTION_STATUS")
        .unwrap_or_else(|| panic!("no answer: {text}"));
    let field = |name: &str| status["connectionStatus"][name].as_str().unwrap_or_default().to_owned();
    (field("status"), field("message"))
}

async fn webhook_with_token() -> Webhook {
    Webhook::start_with(Behaviour { bearer: Some(BEARER.into()), ..Behaviour::default() }).await.unwrap()
}

#[tokio::test]
async fn all_secrets_of_the_destination_can_come_from_the_environment() {
    let webhook = webhook_with_token().await;
    let url = webhook.url();
    let environment = [
        ("PATTERNS_WEBHOOK_URL", url.as_str()),
        ("PATTERNS_BEARER_TOKEN", BEARER),
        ("PATTERNS_SIGNING_SECRET", &signing_secret()),
    ];
    for config in [json!({}), json!({"webhook_url": "", "bearer_token": " ", "signing_secret": null})] {
        let (status, message) = check(&config, &environment).await;
        assert_eq!(status, "SUCCEEDED", "{message}");
    }
    assert!(webhook.received().iter().all(|request| request.header("webhook-signature").is_some()));
    let (status, message) = check(&json!({}), &environment[..1]).await;
    assert_eq!(status, "FAILED", "without the token: {message}");
    let (status, message) = check(&json!({}), &[("PATTERNS_WEBHOOK_URL", "")]).await;
    assert_eq!(status, "FAILED");
    assert!(message.contains("PATTERNS_WEBHOOK_URL"), "{message}");
}

#[tokio::test]
async fn configuration_file_takes_precedence_over_the_environment() {
    let webhook = webhook_with_token().await;
    let config = json!({"webhook_url": webhook.url(), "bearer_token": BEARER});
    let environment = [("PATTERNS_WEBHOOK_URL", "http://127.0.0.1:9/x"), ("PATTERNS_BEARER_TOKEN", "other")];
    let (status, message) = check(&config, &environment).await;
    assert_eq!(status, "SUCCEEDED", "{message}");

    let posthog = sandbox().await;
    let source = Source::new(&posthog.url()).with_environment("POSTHOG_API_KEY", "phx_wrong");
    assert_eq!(source.check().await.0, "SUCCEEDED");
    let source =
        Source::new(&posthog.url()).with("api_key", json!(" ")).with_environment("POSTHOG_API_KEY", "phx_full");
    assert_eq!(source.check().await.0, "SUCCEEDED", "an empty key is as absent");
}

#[tokio::test]
async fn unresolved_secret_references_are_not_sent_as_secrets() {
    let webhook = webhook_with_token().await;
    let url = webhook.url();
    for (field, variable) in [
        ("webhook_url", "PATTERNS_WEBHOOK_URL"),
        ("bearer_token", "PATTERNS_BEARER_TOKEN"),
        ("signing_secret", "PATTERNS_SIGNING_SECRET"),
    ] {
        for text in
            ["${X}", "$X_1", "$(cat x)", "{{ x }}", "%X%", "<your secret>", "whsec_****", "\u{2022}\u{2022}\u{2022}"]
        {
            let (status, message) =
                check(&json!({field: text}), &[("PATTERNS_WEBHOOK_URL", &url), (variable, &url)]).await;
            assert_eq!(status, "FAILED", "{text}");
            assert!(message.contains(field) && message.contains(variable), "{message}");
        }
    }
    assert!(webhook.received().is_empty());
    let source = Source::new("http://127.0.0.1:9").with("api_key", json!("${POSTHOG_API_KEY}"));
    let (status, message) = source.check().await;
    assert_eq!(status, "FAILED");
    assert!(message.contains("environment variable POSTHOG_API_KEY"), "{message}");
}

#[tokio::test]
async fn read_uses_the_api_key_of_the_environment() {
    let posthog = sandbox().await;
    let source = Source::new(&posthog.url())
        .without("api_key")
        .with_environment("POSTHOG_API_KEY", "phx_full")
        .with_environment("LOG_LEVEL", "trace");
    // Tests fail when a key is printed.
    for name in ["check", "discover", "catalog"] {
        assert_eq!(run(source.command(name)).await.code, Some(0), "{name}");
    }
    let read = source.read(&crate::support::program::catalog(&["projects"], "full_refresh"), None).await;
    assert_eq!(read.code, Some(0));
}
