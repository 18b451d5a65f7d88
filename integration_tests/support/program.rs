//! The built programs as child processes, with their files in a directory of their own.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::child::Command;
use super::messages::Messages;
use super::secrets::assert_planted;

/// The source, with a configuration, a catalog and a state in files.
pub(crate) struct Source {
    directory: TempDir,
    config: Value,
    environment: Vec<(&'static str, String)>,
    /// Seconds by which its clock is ahead.
    clock: AtomicI64,
}

/// How a program has ended.
pub(crate) struct Outcome {
    /// Exit code; none when it was ended by a signal.
    pub(crate) code: Option<i32>,
    /// What it printed, line by line.
    pub(crate) messages: Messages,
    /// What it printed on stderr.
    pub(crate) stderr: String,
}

impl Source {
    /// A source with the key `phx_full` at `url`; events from 2020 on, exported however few they are where
    /// exports are the method.
    pub(crate) fn new(url: &str) -> Self {
        let config = json!({"api_key": "phx_full", "base_url": url, "start_date": "2020-01-01T00:00:00Z",
            "export_above": 0, "method": {"type": "auto", "settle_minutes": 0}});
        Self { directory: TempDir::new().unwrap(), config, environment: Vec::new(), clock: AtomicI64::new(0) }
    }

    /// Turns the clock of the machine that the source runs on: so many seconds ahead of the real time.
    pub(crate) fn turn_clock(&self, seconds: i64) {
        self.clock.store(seconds, Ordering::Relaxed);
    }

    /// Sets one field of the configuration.
    #[must_use]
    pub(crate) fn with(mut self, field: &str, value: Value) -> Self {
        self.config[field] = value;
        self
    }

    /// Reads with pages of at most `rows` rows.
    #[must_use]
    pub(crate) fn with_page_size(self, rows: u32) -> Self {
        self.with("method", json!({"type": "query", "page_size": rows, "settle_minutes": 0}))
    }

    /// Reads by file exports.
    #[must_use]
    pub(crate) fn with_exports(self) -> Self {
        self.with("method", json!({"type": "export", "settle_minutes": 0}))
    }

    /// Removes one field of the configuration.
    #[must_use]
    pub(crate) fn without(mut self, field: &str) -> Self {
        self.config.as_object_mut().unwrap().remove(field);
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub(crate) fn with_environment(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }

    /// Writes a file and returns its path.
    pub(crate) fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// A command of the program with the configuration file.
    pub(crate) fn command(&self, name: &str) -> Command {
        // Neither blanks nor references are secrets.
        if let Some(key) =
            self.config["api_key"].as_str().filter(|key| !key.trim().is_empty() && !key.starts_with("${"))
        {
            assert_planted(key);
        }
        let mut command = self.bare();
        command.arg(name).arg("--config").arg(self.config_file());
        command
    }

    /// Writes the configuration file and returns its path.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.file("config.json", &self.config.to_string())
    }

    /// The program without arguments.
    pub(crate) fn bare(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_source-posthog"));
        for (name, value) in &self.environment {
            command.env(name, value);
        }
        let ahead = self.clock.load(Ordering::Relaxed);
        if ahead != 0 {
            command.env("DEBUG_CLOCK_AHEAD", &ahead.to_string());
        }
        command
    }

    /// A `read` of `catalog`, continuing from `state` if there is one.
    pub(crate) fn read_command(&self, catalog: &Value, state: Option<&Value>) -> Command {
        let mut command = self.command("read");
        command.arg("--catalog").arg(self.file("catalog.json", &catalog.to_string()));
        if let Some(state) = state {
            command.arg("--state").arg(self.file("state.json", &state.to_string()));
        }
        command
    }

    /// Runs `check` and returns its verdict and message.
    pub(crate) async fn check(&self) -> (String, String) {
        let outcome = run(self.command("check")).await;
        assert_eq!(outcome.code, Some(0), "{}", outcome.messages.text());
        outcome.messages.connection_status()
    }

    /// Runs `read` to its end.
    pub(crate) async fn read(&self, catalog: &Value, state: Option<&Value>) -> Outcome {
        run(self.read_command(catalog, state)).await
    }

    /// Runs `read` to its successful end.
    pub(crate) async fn read_all(&self, catalog: &Value, state: Option<&Value>) -> Messages {
        let outcome = self.read(catalog, state).await;
        assert_eq!(outcome.code, Some(0), "{}", outcome.messages.without_records());
        outcome.messages
    }
}

/// Runs a command to its end.
pub(crate) async fn run(mut command: Command) -> Outcome {
    let output = command.output().await;
    Outcome {
        code: output.status.code(),
        messages: Messages::parse(&output.stdout),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A configured catalog of the streams with these names.
pub(crate) fn catalog(streams: &[&str], sync_mode: &str) -> Value {
    let streams: Vec<Value> = streams
        .iter()
        .map(|name| {
            json!({
                "stream": {"name": name, "json_schema": {}, "supported_sync_modes": ["full_refresh", "incremental"]},
                "sync_mode": sync_mode,
                "destination_sync_mode": "append",
            })
        })
        .collect();
    json!({"streams": streams})
}

/// A state file with the state of one stream.
pub(crate) fn state_file(stream: &str, state: &Value) -> Value {
    json!([{"type": "STREAM", "stream": {"stream_descriptor": {"name": stream}, "stream_state": state}}])
}

/// A file of the repository.
pub(crate) fn repository_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Fails unless a file of the repository has this text; writes it there for `make spec`.
pub(crate) fn assert_committed(file: &str, text: &str) {
    let path = repository_file(file);
    if std::env::var_os("UPDATE_SPECIFICATIONS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    assert!(std::fs::read_to_string(&path).unwrap_or_default() == text, "run `make spec` and commit {file}");
}
