//! What people see: results and errors as text, on a terminal or beside a file.

use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::support::messages::Messages;
use crate::support::program::{Source, catalog, run};
use crate::support::terminal::{coloured, run_on_terminal};
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
    assert!(shown.starts_with("OK: the configuration works\n  project 1001 (Web shop) will be read by "), "{shown}");
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
    let config = json!({"api_key": "phx_full", "base_url": posthog.url(), "start_date": "2020-01-01T00:00:00Z"});
    let read = async |streams: &str| {
        let mut command = Source::new(&posthog.url()).bare().with_input();
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
