//! An interrupted `read` continues from any state that it has printed.

use std::collections::BTreeSet;

use posthog_sandbox::posthog::{Action, Fault};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::support::child::Command;
use crate::support::messages::Messages;
use crate::support::program::{Source, catalog};
use crate::support::world::{
    PROJECT, assert_events, event_ids, events, minutes_ago, sandbox, two_hours_ago, two_projects,
};

#[tokio::test]
async fn event_syncs_resume_from_every_state() {
    let posthog = two_projects().await;
    for project in [1001, 1002] {
        posthog.generate(project, 400, project, two_hours_ago());
    }
    for mode in ["incremental", "full_refresh"] {
        let source = Source::new(&posthog.url()).with_page_size(60);
        let catalog = catalog(&["events", "persons"], mode);
        let whole = source.read_all(&catalog, None).await;
        assert_events(&whole, &posthog, &[1001, 1002]);
        let states = whole.state_lines();
        assert!(states.len() > 10, "only {} states", states.len());
        for line in states {
            let part = whole.up_to(line);
            let rest = source.read_all(&catalog, Some(&part.state())).await;
            for stream in ["events", "persons"] {
                let union: BTreeSet<String> = part.id_set(stream).union(&rest.id_set(stream)).cloned().collect();
                assert_eq!(union, whole.id_set(stream), "{mode}, {stream}, state on line {line}");
            }
        }
    }
}

#[tokio::test]
async fn session_syncs_resume_from_every_state() {
    let posthog = two_projects().await;
    for project in [1001, 1002] {
        posthog.generate(project, 100, project, two_hours_ago());
    }
    for mode in ["incremental", "full_refresh"] {
        let source = Source::new(&posthog.url()).with_page_size(20);
        let catalog = catalog(&["sessions"], mode);
        let whole = source.read_all(&catalog, None).await;
        for line in whole.state_lines() {
            let part = whole.up_to(line);
            let rest = source.read_all(&catalog, Some(&part.state())).await;
            let union: BTreeSet<String> = part.id_set("sessions").union(&rest.id_set("sessions")).cloned().collect();
            assert_eq!(union, whole.id_set("sessions"), "{mode}, state on line {line}");
        }
    }
}

#[tokio::test]
async fn finished_full_refresh_starts_over() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, events(20, minutes_ago(90)));
    let source = Source::new(&posthog.url());
    let catalog = catalog(&["events"], "full_refresh");
    let first = source.read_all(&catalog, None).await;
    assert_eq!(first.stream_state("events")["complete"], true);
    let second = source.read_all(&catalog, Some(&first.state())).await;
    assert_eq!(second.ids("events").len(), 20);
}

#[tokio::test]
async fn closed_pipe_ends_the_sync_with_a_message() {
    let posthog = sandbox().await;
    posthog.generate(PROJECT, 5_000, 5, two_hours_ago());
    let source = Source::new(&posthog.url());
    let mut child = source.read_command(&catalog(&["events"], "incremental"), None).spawn();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).await.unwrap();
    drop(stdout);
    let output = child.wait_with_output().await;
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.starts_with("error: stdout was closed") && stderr.lines().count() == 1, "{stderr}");
}

/// `read … 2>&1 | head` closes both outputs.
#[tokio::test]
async fn both_outputs_closed_end_the_sync_without_a_panic() {
    let posthog = sandbox().await;
    posthog.generate(PROJECT, 5_000, 5, two_hours_ago());
    let source = Source::new(&posthog.url());
    let config = json!({"api_key": "phx_full", "base_url": posthog.url(), "start_date": "2020-01-01T00:00:00Z"});
    let code = source.file("code", "");
    let mut command = Command::new("sh");
    command.args(["-c", r#"{ "$@"; echo $? > "$0"; } 2>&1 | head -n 1"#]).arg(&code);
    command.arg(env!("CARGO_BIN_EXE_source-posthog")).args(["read", "--config"]);
    command.arg(source.file("closed.json", &config.to_string())).arg("--catalog");
    command.arg(source.file("catalog.json", &catalog(&["events"], "incremental").to_string()));
    assert_eq!(command.output().await.stdout.split(|byte| *byte == b'\n').count(), 2);
    assert_eq!(std::fs::read_to_string(code).unwrap(), "1\n");
}

#[tokio::test]
async fn sigterm_ends_the_sync_by_the_signal_after_complete_lines() {
    use std::os::unix::process::ExitStatusExt;

    let posthog = sandbox().await;
    posthog.generate(PROJECT, 300, 5, two_hours_ago());
    posthog.set_faults(vec![Fault::query(Action::throttle(600)).sql("properties").after(2)]).unwrap();
    // One page at a time, so that none arrives behind the last line.
    let source = Source::new(&posthog.url()).with_page_size(50).with("concurrency", json!(1));
    let metrics = source.file("posthog.prom", "");
    let mut command = source.read_command(&catalog(&["events"], "incremental"), None);
    let mut child = command.arg("--metrics-file").arg(&metrics).spawn();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut read = Vec::new();
    // It waits for the limit now, which it has said.
    while !String::from_utf8_lossy(&read).contains("RATE_LIMITED") {
        assert!(stdout.read_until(b'\n', &mut read).await.unwrap() > 0);
    }
    let pid = child.id().to_string();
    assert!(tokio::process::Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    while stdout.read_until(b'\n', &mut read).await.unwrap() > 0 {}
    assert_eq!(child.wait().await.signal(), Some(15));
    let messages = Messages::parse(&read);
    let logs = messages.logs("INFO");
    let (records, last) = (messages.records("events").len(), logs.last().unwrap());
    assert!(records > 0 && last.starts_with(&format!("sync interrupted: {records} records, ")), "{last}");
    assert!(last.ends_with(" reason=interrupted"), "{last}");
    let metrics = std::fs::read_to_string(metrics).unwrap();
    assert!(metrics.contains("\nsource_posthog_success 0\n"), "{metrics}");
    let rest = posthog.set_faults(Vec::new()).map(|()| messages.state()).unwrap();
    let second = source.read_all(&catalog(&["events"], "incremental"), Some(&rest)).await;
    let union: BTreeSet<String> = messages.id_set("events").union(&second.id_set("events")).cloned().collect();
    assert_eq!(union, event_ids(&posthog));
}
