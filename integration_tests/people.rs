//! What people see: results and errors as text, on a terminal or beside a file.

use std::os::unix::fs::PermissionsExt;

use posthog_sandbox::patterns::Webhook;
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::support::child::Command;
use crate::support::destination::{self, Destination};
use crate::support::messages::Messages;
use crate::support::program::{Source, catalog, run};
use crate::support::secrets::HASH_KEY;
use crate::support::terminal::{Terminal, coloured, run_on_terminal, start_on};
use crate::support::world::{PROJECT, events, minutes_ago, sandbox};

#[tokio::test]
async fn errors_are_on_standard_error_wherever_messages_go() {
    let posthog = sandbox().await;
    let source = Source::new(&posthog.url()).with("api_key", json!("phx_wrong"));
    let outcome = source.read(&catalog(&["events"], "incremental"), None).await;
    assert_eq!(outcome.code, Some(1));
    let errors = outcome.messages.errors();
    assert_eq!(errors.len(), 1);
    let error = errors[0].strip_prefix("config_error: ").unwrap();
    assert_eq!(outcome.stderr.lines().next(), Some(format!("error: {error}").as_str()));

    let source = Source::new(&posthog.url())
        .with("custom_queries", json!([{"name": "own", "query": "SELECT nonsense(", "primary_key": ["a"]}]));
    let outcome = source.read(&catalog(&["own"], "full_refresh"), None).await;
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.starts_with("error: stream `own`: "), "a stream that fails: {}", outcome.stderr);
}

#[tokio::test]
async fn files_hold_what_was_asked_for_or_nothing() {
    let posthog = sandbox().await;
    // A key without effect is worth a warning.
    let source = Source::new(&posthog.url()).with("projct_ids", json!([1]));
    let outcome = run(source.command("catalog")).await;
    assert!(outcome.messages.document()["streams"].is_array());
    assert!(outcome.stderr.contains(" WARN  ") && outcome.stderr.contains("projct_ids"), "{}", outcome.stderr);

    let outcome = run(Source::new(&posthog.url()).without("start_date").command("catalog")).await;
    assert_eq!((outcome.code, outcome.messages.text().as_str()), (Some(1), ""));
    assert!(outcome.stderr.starts_with("error: `start_date` is missing"), "{}", outcome.stderr);
}

#[tokio::test]
async fn check_on_a_terminal_is_text() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, events(5, minutes_ago(10)));
    let (code, shown) = run_on_terminal(Source::new(&posthog.url()).command("check")).await;
    assert_eq!(code, Some(0));
    let (log, result) = shown.split_at(shown.find("OK: ").unwrap());
    assert!(result.starts_with("OK: the configuration works\n  project 1001 (Web shop) will be read by "), "{shown}");
    assert!(log.lines().all(|line| line.contains(" INFO ")) && log.contains("The first read takes "), "{shown}");
    assert!(!shown.contains('{') && !shown.contains('\u{1b}'), "{shown}");

    let (code, shown) = run_on_terminal(Source::new(&posthog.url()).without("start_date").command("check")).await;
    assert_eq!(code, Some(0));
    assert!(shown.starts_with("FAILED: `start_date` is missing"), "{shown}");
    assert!(!shown.contains("\"type\""), "{shown}");
}

#[tokio::test]
async fn check_tells_scripts_by_its_exit_code_if_they_ask() {
    let posthog = sandbox().await;
    for (source, code) in
        [(Source::new(&posthog.url()), 0), (Source::new(&posthog.url()).with("api_key", json!("phx_wrong")), 1)]
    {
        let mut command = source.command("check");
        command.arg("--exit-code");
        let outcome = run(command).await;
        assert_eq!(outcome.code, Some(code));
        assert_eq!(outcome.messages.connection_status().0, if code == 0 { "SUCCEEDED" } else { "FAILED" });
    }
}

#[tokio::test]
async fn a_sync_needs_neither_a_catalog_nor_a_configuration_file() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, events(3, minutes_ago(10)));
    // The secrets are in the environment.
    let config = json!({"base_url": posthog.url(), "start_date": "2020-01-01T00:00:00Z",
        "event_properties": {"hash": ["$ip"]}});
    let read = async |streams: &str| {
        let mut command = Source::new(&posthog.url()).bare().with_input();
        command.env("POSTHOG_API_KEY", "phx_full").env("POSTHOG_HASH_KEY", HASH_KEY);
        let mut child = command.args(["read", "--config", "-", "--streams", streams]).spawn();
        child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).await.unwrap();
        child.wait_with_output().await
    };
    let output = read("events, projects").await;
    let messages = Messages::parse(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", messages.text());
    assert_eq!((messages.records("events").len(), messages.records("projects").len()), (3, 1));
    assert!(messages.stream_state("events").get("complete").is_none(), "read incrementally");
    assert_eq!(messages.logs("WARN"), [""; 0]);

    let output = read("evnts").await;
    assert_eq!(output.status.code(), Some(1));
    assert!(Messages::parse(&output.stdout).errors()[0].contains("there is no stream `evnts`"));
}

#[tokio::test]
async fn init_asks_and_writes_a_configuration_for_its_owner_alone() {
    let directory = tempfile::TempDir::new().unwrap();
    let init = || {
        let mut command = Source::new("http://127.0.0.1:9").bare();
        command.arg("init").current_dir(directory.path());
        command
    };
    let mut terminal = Terminal::open();
    let mut command = init();
    let mut child = start_on(&terminal, &mut command);
    drop(command);
    for (question, answer) in [("Region", "EU\n"), ("API key", "phx_full\n"), ("from this day on", "2026-10-01\n")] {
        terminal.until(question).await;
        terminal.enter(answer);
    }
    // The terminal fails the test if it has shown the key.
    let shown = terminal.end().await;
    assert_eq!(child.wait().await.code(), Some(0), "{shown}");
    assert!(shown.contains("source-posthog check --config config.json"), "{shown}");
    let path = directory.path().join("config.json");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&path).unwrap();
    let expected =
        json!({"api_key": "phx_full", "base_url": "https://eu.posthog.com", "start_date": "2026-10-01T00:00:00Z"});
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);

    let outcome = run(init()).await;
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.starts_with("error: `config.json` exists already"), "{}", outcome.stderr);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test]
async fn init_writes_nothing_that_does_not_work() {
    let directory = tempfile::TempDir::new().unwrap();
    for (answers, expected) in [
        ("us\nphc_token\n\n", "project token"),
        ("http://posthog.internal\nphx_full\n\n", "`base_url` is not encrypted"),
        ("\n\n\n", "`api_key` is missing"),
        ("us\nphx_full\nyesterday\n", "`start_date` is not a date"),
        ("us\n", "standard input ended before every question was answered"),
    ] {
        let mut command = Source::new("http://127.0.0.1:9").bare().with_input();
        let mut child = command.args(["init", "--config", "own.json"]).current_dir(directory.path()).spawn();
        child.stdin.take().unwrap().write_all(answers.as_bytes()).await.unwrap();
        let output = child.wait_with_output().await;
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
        assert!(stderr.contains(&format!("error: {expected}")) || stderr.contains(expected), "{answers:?}: {stderr}");
        assert!(!directory.path().join("own.json").exists());
    }
}

#[tokio::test]
async fn an_interrupted_question_leaves_the_terminal_as_it_was() {
    let mut terminal = Terminal::open();
    let mut command = Source::new("http://127.0.0.1:9").bare();
    command.args(["init", "--config", "/nowhere/config.json"]);
    let mut child = start_on(&terminal, &mut command);
    drop(command);
    terminal.until("Region").await;
    terminal.enter("\n");
    terminal.until("API key").await;
    assert!(!terminal.echoes());
    rustix::process::kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), Signal::TERM).unwrap();
    assert_eq!(child.wait().await.code(), None);
    assert!(terminal.echoes());
}

#[tokio::test]
async fn completions_complete_every_command() {
    for (program, commands) in [
        (env!("CARGO_BIN_EXE_source-posthog"), ["verify", "--exit-code", "init"]),
        (env!("CARGO_BIN_EXE_destination-patterns"), ["write", "--exit-code", "--state-file"]),
    ] {
        for shell in ["bash", "zsh", "fish"] {
            let mut command = Command::new(program);
            let output = command.args(["completions", shell]).output().await;
            assert!(output.status.success());
            let script = String::from_utf8(output.stdout).unwrap();
            for word in commands {
                assert!(script.contains(word.trim_start_matches('-')), "{shell}: {word}");
            }
            if shell == "bash" {
                let directory = tempfile::TempDir::new().unwrap();
                let file = directory.path().join("completion");
                std::fs::write(&file, script).unwrap();
                assert!(Command::new("bash").arg("-n").arg(file).output().await.status.success());
            }
        }
    }
}

#[tokio::test]
async fn a_log_for_people_has_a_time_on_every_line_and_leaves_the_messages_alone() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, events(3, minutes_ago(10)));
    let source = Source::new(&posthog.url());
    let with_log = |source: &Source| {
        let mut command = source.read_command(&catalog(&["events", "projects"], "incremental"), None);
        command.args(["--log-format", "text"]);
        command
    };
    let outcome = run(with_log(&source)).await;
    assert_eq!(outcome.code, Some(0));
    assert_eq!(outcome.messages.logs("INFO"), [""; 0]);
    assert_eq!(outcome.messages.records("events").len(), 3);
    let is_dated =
        |line: &str| line.split_once(' ').is_some_and(|(time, _)| chrono::DateTime::parse_from_rfc3339(time).is_ok());
    assert!(outcome.stderr.lines().all(is_dated), "{}", outcome.stderr);
    let last = outcome.stderr.lines().last().unwrap();
    assert!(last.contains("INFO  sync complete: 4 records, 2 of 2 streams complete in "), "{last}");
    for field in [" records=4 repeats=0 seconds=", " lag_seconds=", " reason=complete"] {
        assert!(last.contains(field), "{last}");
    }

    let outcome = run(with_log(&source.with("api_key", json!("phx_wrong")))).await;
    assert_eq!((outcome.code, outcome.messages.errors().len()), (Some(1), 1));
    assert!(outcome.stderr.lines().all(is_dated), "{}", outcome.stderr);
    for line in [" INFO  sync failed: 0 records, ", " reason=failed\n", " ERROR PostHog does not accept the API key"] {
        assert!(outcome.stderr.contains(line), "{}", outcome.stderr);
    }
}

#[tokio::test]
async fn states_that_a_file_keeps_are_not_in_a_log_for_people() {
    let webhook = Webhook::start().await.unwrap();
    let destination = Destination::new(&webhook);
    let state = json!({"type": "STATE", "state": {"type": "STREAM", "stream": {
        "stream_descriptor": {"name": "events"}, "stream_state": {"cursor": 1}}}});
    let mut command = destination.write_command();
    command.args(["--log-format", "text"]);
    let outcomes = destination::run(command, &format!("{state}\n")).await;
    assert_eq!((outcomes.code, outcomes.text.as_str()), (Some(0), ""));
    assert_eq!(destination.state_file()[0]["stream"]["stream_state"]["cursor"], 1);
    assert_eq!(destination.delivered(&format!("{state}\n")).await.states().len(), 1, "programs read states");
}

#[tokio::test]
async fn metrics_say_how_the_last_sync_has_ended_and_how_far_the_last_complete_one_came() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, events(3, minutes_ago(10)));
    let source = Source::new(&posthog.url());
    let file = source.file("posthog.prom", "");
    let sync = async |source: &Source, code: i32| {
        let mut command = source.read_command(&catalog(&["events"], "incremental"), None);
        command.arg("--metrics-file").arg(&file);
        assert_eq!(run(command).await.code, Some(code));
        std::fs::read_to_string(&file).unwrap()
    };
    let value = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name}: {text}")).parse::<f64>().unwrap()
    };
    let first = sync(&source, 0).await;
    assert_eq!(value(&first, "source_posthog_success").to_string(), "1");
    assert_eq!(value(&first, "source_posthog_stream_records{stream=\"events\"}").to_string(), "3");
    let second = sync(&source.with("api_key", json!("phx_wrong")), 1).await;
    assert_eq!(value(&second, "source_posthog_success").to_string(), "0");
    let until = "source_posthog_read_until_timestamp_seconds";
    assert_eq!(value(&first, until).to_string(), value(&second, until).to_string());
}

#[tokio::test]
async fn colours_are_for_terminals_that_show_them() {
    let posthog = sandbox().await;
    let check = || Source::new(&posthog.url()).without("start_date").command("check");
    for (variables, is_coloured) in [(&[][..], true), (&[("NO_COLOR", "1")], false), (&[("TERM", "dumb")], false)] {
        let mut command = check();
        coloured(&mut command);
        for (name, value) in variables {
            command.env(name, value);
        }
        let (_, shown) = run_on_terminal(command).await;
        assert_eq!(shown.contains("\u{1b}["), is_coloured, "{variables:?}: {shown:?}");
        assert!(shown.contains("FAILED:"), "{shown:?}");
    }
}

#[tokio::test]
async fn a_sync_on_a_terminal_shows_records_and_explains_itself_in_text() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, events(3, minutes_ago(10)));
    let source = Source::new(&posthog.url());
    let (code, shown) = run_on_terminal(source.read_command(&catalog(&["events"], "incremental"), None)).await;
    assert_eq!(code, Some(0), "{shown}");
    assert_eq!(shown.matches(r#"{"type":"RECORD""#).count(), 3, "{shown}");
    assert!(!shown.contains(r#""type":"LOG""#) && !shown.contains(r#""type":"TRACE""#), "{shown}");
    let last = shown.lines().find(|line| line.contains("events: complete, 3 records")).unwrap();
    let (time, level) = last.split_once(' ').unwrap();
    assert!(chrono::DateTime::parse_from_rfc3339(time).is_ok() && level.starts_with("INFO "), "{last}");

    let source = source.with("api_key", json!("phx_wrong"));
    let (code, shown) = run_on_terminal(source.read_command(&catalog(&["events"], "incremental"), None)).await;
    assert_eq!(code, Some(1));
    assert!(shown.lines().any(|line| line.starts_with("error: ")) && !shown.contains("\"type\""), "{shown}");
}
