//! The built `destination-patterns` as a child process, with its files in a directory of its own.

use std::path::PathBuf;

use posthog_sandbox::patterns::Webhook;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

use super::child::Command;
use super::program::catalog;
use super::secrets::assert_planted;

/// The destination, with its files.
pub(crate) struct Destination {
    directory: TempDir,
    config: Value,
    environment: Vec<(&'static str, String)>,
}

/// What a run has left.
pub(crate) struct Outcomes {
    pub(crate) code: Option<i32>,
    pub(crate) lines: Vec<Value>,
    pub(crate) text: String,
}

impl Destination {
    pub(crate) fn new(webhook: &Webhook) -> Self {
        let retry = json!({"first_wait_ms": 20, "max_elapsed_seconds": 20});
        let config = json!({"webhook_url": webhook.url(), "retry": retry, "request_timeout_seconds": 2});
        Self { directory: TempDir::new().unwrap(), config, environment: Vec::new() }
    }

    pub(crate) fn with(mut self, field: &str, value: Value) -> Self {
        self.config[field] = value;
        self
    }

    /// Sets an environment variable.
    pub(crate) fn with_environment(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn command(&self, name: &str) -> Command {
        for field in ["webhook_url", "bearer_token", "signing_secret"] {
            if let Some(secret) = self.config[field].as_str() {
                assert_planted(secret);
            }
        }
        std::fs::write(self.path("patterns.json"), self.config.to_string()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_destination-patterns")).with_input();
        command.current_dir(self.directory.path()).args([name, "--config", "patterns.json"]);
        for (name, value) in &self.environment {
            command.env(name, value);
        }
        command
    }

    pub(crate) fn write_command(&self) -> Command {
        std::fs::write(self.path("catalog.json"), catalog(&["events", "persons"], "incremental").to_string()).unwrap();
        let mut command = self.command("write");
        command.args(["--catalog", "catalog.json", "--state-file", "state.json"]);
        command
    }

    pub(crate) async fn write(&self, input: &str) -> Outcomes {
        run(self.write_command(), input).await
    }

    pub(crate) async fn delivered(&self, input: &str) -> Outcomes {
        let outcomes = self.write(input).await;
        assert_eq!(outcomes.code, Some(0), "{}", outcomes.text);
        outcomes
    }

    pub(crate) async fn check(&self, arguments: &[&str]) -> (String, String) {
        let mut command = self.command("check");
        command.args(arguments);
        let outcomes = run(command, "").await;
        let status =
            &outcomes.lines.iter().find(|line| line["type"] == "CONNECTION_STATUS").unwrap()["connectionStatus"];
        let text = |field: &str| status[field].as_str().unwrap().to_owned();
        (text("status"), text("message"))
    }

    pub(crate) fn state_file(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.path("state.json")).unwrap()).unwrap()
    }
}

pub(crate) async fn run(mut command: Command, input: &str) -> Outcomes {
    let mut child = command.spawn();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let feed = tokio::spawn(async move {
        // The program may end before it has read everything.
        drop(stdin.write_all(input.as_bytes()).await);
    });
    let output = child.wait_with_output().await;
    feed.await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}")));
    Outcomes { code: output.status.code(), lines: lines.collect(), text }
}

impl Outcomes {
    pub(crate) fn states(&self) -> Vec<&Value> {
        self.lines.iter().filter(|line| line["type"] == "STATE").map(|line| &line["state"]).collect()
    }

    pub(crate) fn error(&self) -> String {
        let errors: Vec<&Value> = self.lines.iter().filter(|line| line["trace"]["type"] == "ERROR").collect();
        assert_eq!(errors.len(), 1, "{}", self.text);
        let error = &errors[0]["trace"]["error"];
        format!("{}: {}", error["failure_type"].as_str().unwrap(), error["message"].as_str().unwrap())
    }

    pub(crate) fn cursors(&self) -> Vec<i64> {
        self.states().iter().map(|state| state["stream"]["stream_state"]["cursor"].as_i64().unwrap()).collect()
    }
}
