//! What docs/shell.md promises: the state from printed messages, and the script for cron.

use std::collections::BTreeSet;
use std::path::Path;

use posthog_sandbox::patterns::{Behaviour, Outcome, Webhook};
use posthog_sandbox::posthog::Sandbox;
use serde_json::json;
use tempfile::TempDir;

use crate::support::child::Command;
use crate::support::program::{Source, catalog, repository_file, run};
use crate::support::world::{PROJECT, assert_events, event, events, minutes_ago, sandbox, within_a_day};

#[tokio::test]
async fn printed_states_are_accepted_as_a_state_file() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, events(300, within_a_day()));
    let source = Source::new(&posthog.url()).with_page_size(100);
    let streams = catalog(&["events", "projects"], "incremental");
    let first = source.read_all(&streams, None).await;
    assert_events(&first, &posthog, &[PROJECT]);

    let text = first.text();
    let states: Vec<&str> = text.lines().filter(|line| line.starts_with(r#"{"type":"STATE""#)).collect();
    assert!(states.len() > 2, "one state says nothing about several: {states:?}");
    posthog.insert(PROJECT, vec![event(4_711, minutes_ago(30))]);
    for text in [states.join("\n"), format!("{}\n", states.join("\n"))] {
        let mut command = source.command("read");
        command.arg("--catalog").arg(source.file("catalog.json", &streams.to_string()));
        command.arg("--state").arg(source.file("states.jsonl", &text));
        let second = run(command).await;
        assert_eq!(second.code, Some(0), "{}", second.messages.without_records());
        assert_eq!(second.messages.ids("events"), [event(4_711, 0).uuid.to_string()]);
    }

    let mut command = source.command("read");
    command.arg("--catalog").arg(source.file("catalog.json", &streams.to_string()));
    command.arg("--state").arg(source.file("cut.jsonl", &states.join("\n").chars().take(100).collect::<String>()));
    let cut = run(command).await;
    assert_eq!(cut.code, Some(1));
    assert!(cut.messages.errors()[0].contains("not JSON"), "{:?}", cut.messages.errors());
}

#[tokio::test]
async fn states_in_the_shapes_of_other_programs_are_read_or_refused() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, events(30, within_a_day()));
    let source = Source::new(&posthog.url());
    let streams = catalog(&["events"], "incremental");
    let state = source.read_all(&streams, None).await.stream_state("events");
    let camel = json!({"streamDescriptor": {"name": "events"}, "streamState": state});
    let snake = json!({"stream_descriptor": {"name": "events", "namespace": ""}, "stream_state": state});
    for saved in [
        json!({"stateType": "stream", "connectionId": "x", "streamState": [camel]}),
        json!({"connectionState": {"stateType": "global", "globalState": {"streamStates": [camel]}}}),
        json!([camel]),
        snake.clone(),
        json!({"type": "LEGACY", "data": {"events": state}}),
        json!({"type": "STATE", "state": {"data": {"events": state}}}),
    ] {
        let again = source.read_all(&streams, Some(&saved)).await;
        assert_eq!((again.records("events").len(), again.logs("WARN").len()), (0, 0), "{saved}");
    }
    let other = json!({"stream_descriptor": {"name": "Events"}, "stream_state": state});
    let other = source.read_all(&streams, Some(&other)).await;
    assert_eq!(other.records("events").len(), 30);
    assert!(
        other
            .logs("WARN")
            .join("\n")
            .contains("the state has entries for `Events`, which the catalog does not contain")
    );
    for content in [state.clone(), json!(5), json!({"1001": {"timestamp": "2026-01-01T00:00:00Z"}})] {
        let refused = source.read(&streams, Some(&content)).await;
        let errors = refused.messages.errors().join("\n");
        assert!(refused.code == Some(1) && errors.contains("this is not a state"), "{content}: {errors}");
    }
}

/// Runs examples/sync.sh in `directory` with the built programs; returns the exit code and the output.
async fn sync(directory: &Path) -> (Option<i32>, String) {
    let programs = Path::new(env!("CARGO_BIN_EXE_source-posthog")).parent().unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(repository_file("examples/sync.sh"));
    command.arg(directory).env("PATH", &path).env("POSTHOG_API_KEY", "phx_full");
    let output = command.output().await;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code(), text)
}

fn working_directory(posthog: &Sandbox, webhook: &Webhook) -> TempDir {
    let directory = TempDir::new().unwrap();
    let write = |name: &str, content: serde_json::Value| {
        std::fs::write(directory.path().join(name), content.to_string()).unwrap();
    };
    write("config.json", json!({"base_url": posthog.url(), "start_date": "2020-01-01T00:00:00Z"}));
    write("patterns.json", json!({"webhook_url": webhook.url(), "retry": {"max_elapsed_seconds": 0}}));
    write("catalog.json", catalog(&["events"], "incremental"));
    directory
}

fn delivered(webhook: &Webhook) -> BTreeSet<String> {
    webhook.records().iter().map(|record| record["uuid"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn cron_script_resumes_and_reports_failures() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, events(50, within_a_day()));
    let webhook = Webhook::start().await.unwrap();
    let directory = working_directory(&posthog, &webhook);
    let (code, text) = sync(directory.path()).await;
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(delivered(&webhook).len(), 50);

    posthog.insert(PROJECT, vec![event(4_711, minutes_ago(30))]);
    webhook.behave(Behaviour { always: Some(Outcome::status(503)), ..Behaviour::default() });
    let (code, text) = sync(directory.path()).await;
    assert_eq!(code, Some(1), "a webhook that is down: {text}");
    webhook.behave(Behaviour::default());
    let before = webhook.records().len();
    assert_eq!(sync(directory.path()).await.0, Some(0));
    assert_eq!((delivered(&webhook).len(), webhook.records().len() - before), (51, 1), "only what is new");

    std::fs::write(directory.path().join("config.json"), "{}").unwrap();
    let (code, text) = sync(directory.path()).await;
    assert_eq!(code, Some(1), "a source that fails: {text}");
    assert!(text.contains("`start_date` is missing"), "{text}");
}

#[tokio::test]
async fn cron_script_never_runs_twice_at_a_time() {
    let posthog = sandbox().await;
    let webhook = Webhook::start().await.unwrap();
    let directory = working_directory(&posthog, &webhook);
    let lock = std::fs::File::create(directory.path().join("sync.lock")).unwrap();
    lock.lock().unwrap();
    let (code, text) = sync(directory.path()).await;
    assert_eq!(code, Some(0));
    assert!(text.contains("still running"), "{text}");
    assert!(!directory.path().join("state.json").exists());
    lock.unlock().unwrap();
    let (code, text) = sync(directory.path()).await;
    assert_eq!((code, text.contains("still running")), (Some(0), false), "{text}");
}
