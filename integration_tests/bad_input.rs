//! Catalogs and states that cannot be used: a config error that names the problem, and nothing is read.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::child::Command;
use crate::support::program::{Source, catalog, run, state_file};
use crate::support::world::{PROJECT, events, minutes_ago, sandbox, within_a_day};

#[tokio::test]
async fn invalid_catalogs_are_rejected() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, events(3, minutes_ago(90)));
    let source = Source::new(&posthog.url());
    let mut invalid_mode = catalog(&["events"], "incremental");
    invalid_mode["streams"][0]["sync_mode"] = json!("INVALID");
    for (catalog, expected) in [
        (catalog(&["evnts"], "incremental"), "unknown stream `evnts`; there are events"),
        (invalid_mode, "has `INVALID` as `streams[0].sync_mode`"),
        (catalog(&[], "incremental"), "no streams"),
        (catalog(&["events", "events"], "incremental"), "`events` twice"),
        (json!({"stream": []}), "has no `streams`"),
        (json!("x"), "is a string; it must be an object with `streams`"),
    ] {
        let outcome = source.read(&catalog, None).await;
        assert_eq!(outcome.code, Some(1), "{catalog}");
        let errors = outcome.messages.errors();
        assert!(errors.len() == 1 && errors[0].starts_with("config_error"), "{errors:?}");
        assert!(errors[0].contains(expected), "{errors:?}");
        assert!(outcome.messages.of_type("RECORD").is_empty());
    }
    assert!(posthog.requests().is_empty(), "nothing is asked before the input is known to be good");
}

#[tokio::test]
async fn state_files_of_every_shape_are_accepted() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, events(30, within_a_day()));
    let source = Source::new(&posthog.url());
    let catalog = catalog(&["events"], "incremental");
    let stream_state = source.read_all(&catalog, None).await.stream_state("events");
    let descriptor = json!({"name": "events", "namespace": null, "unknown": 1});
    let entry = json!({"stream_descriptor": descriptor, "stream_state": stream_state, "extra": true});
    for state in [
        json!([{"type": "STREAM", "stream": entry, "sourceStats": null}]),
        json!({"type": "STREAM", "stream": entry}),
        json!([{"type": "GLOBAL", "global": {"shared_state": null, "stream_states": [entry]}}]),
        json!([{"type": "STATE", "state": {"type": "STREAM", "stream": entry, "id": 7}}]),
        json!({"events": stream_state}),
        // Rows of PyAirbyte's table.
        json!([{"source_name": "source-posthog", "stream_name": "events",
            "state_json": json!({"type": "STREAM", "stream": entry}).to_string()}]),
    ] {
        let messages = source.read_all(&catalog, Some(&state)).await;
        assert_eq!(messages.ids("events").len(), 0, "{state} was not understood");
    }
    for state in [json!([]), json!({}), json!(null), state_file("events", &Value::Null)] {
        let messages = source.read_all(&catalog, Some(&state)).await;
        assert_eq!(messages.ids("events").len(), 30, "{state} is no state");
    }
    let twice = format!(
        r#"[{{"type":"STREAM","stream":{{"stream_descriptor":{{"name":"events"}},"stream_state":{stream_state}}},"global_":null,"global_":null}}]"#
    );
    let mut command = source.read_command(&catalog, None);
    command.arg("--state").arg(source.file("state.json", &twice));
    assert_eq!(run(command).await.messages.ids("events").len(), 0, "repeated unknown keys are no problem");
}

#[tokio::test]
async fn a_state_of_other_projects_alone_is_a_warning() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, events(3, within_a_day()));
    let source = Source::new(&posthog.url());
    let time = json!({"timestamp": "2026-01-01T00:00:00Z"});
    for (projects, warnings) in [(json!({"77": time}), 1), (json!({"77": time, "1001": time}), 0)] {
        let state = state_file("events", &projects);
        let messages = source.read_all(&catalog(&["events"], "incremental"), Some(&state)).await;
        let other = |line: &&String| line.contains("the state of `events` is about other projects (77)");
        assert_eq!(messages.logs("WARN").iter().filter(other).count(), warnings, "{projects}");
    }
}

#[tokio::test]
async fn invalid_states_are_rejected() {
    let posthog = sandbox().await;
    let source = Source::new(&posthog.url());
    let catalog = catalog(&["events"], "incremental");
    let of_stream = |state: Value| state_file("events", &state);
    for (state, expected) in [
        (of_stream(json!({"version": 99})), "newer version"),
        (of_stream(json!({"version": 1, "projects": {"1001": {"created_at": "soon"}}})), "`projects.1001.created_at`"),
        (of_stream(json!({"cursor": "x"})), "`cursor`"),
        (json!(["x"]), "not an object"),
        (json!(5), "neither an array nor an object"),
    ] {
        let outcome = source.read(&catalog, Some(&state)).await;
        assert_eq!(outcome.code, Some(1), "{state}");
        let errors = outcome.messages.errors();
        assert!(errors[0].starts_with("config_error") && errors[0].contains(expected), "{errors:?}");
    }
    assert!(posthog.requests().is_empty());
}

#[tokio::test]
async fn pipes_are_read_and_what_never_ends_is_refused() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, events(3, within_a_day()));
    let source = Source::new(&posthog.url());
    let catalog = catalog(&["events"], "incremental");
    let state = source.read_all(&catalog, None).await.state();
    let files = [
        ("--config", source.config_file()),
        ("--catalog", source.file("catalog.json", &catalog.to_string())),
        ("--state", source.file("state.json", &state.to_string())),
    ];
    for (wrong, expected) in [("/", "it is a directory"), ("/dev/zero", "it is a device, not a file")] {
        for (option, _) in &files {
            let mut command = source.bare();
            command.arg("read");
            for (other, file) in &files {
                command.arg(other).arg(if other == option { Path::new(wrong) } else { file });
            }
            let outcome = run(command).await;
            let errors = outcome.messages.errors();
            assert!(outcome.code == Some(1) && errors[0].contains(expected), "{option} {wrong}: {errors:?}");
        }
    }
    let requests = posthog.requests().len();
    let mut command = Command::new("bash");
    command.arg("-c").arg(r#"cat "$1" | "$0" read --config /dev/stdin --catalog <(cat "$2") --state <(cat "$3")"#);
    command.arg(env!("CARGO_BIN_EXE_source-posthog")).args(files.map(|(_, file)| file));
    let outcome = run(command).await;
    assert!(outcome.code == Some(0) && posthog.requests().len() > requests, "{}", outcome.stderr);
    assert!(outcome.messages.ids("events").is_empty(), "the state was read");
}

#[tokio::test]
async fn wrong_command_lines_are_explained_on_stderr() {
    let source = Source::new("http://127.0.0.1:9");
    let mut command = source.bare();
    command.args(["read", "--config", "x"]);
    let outcome = run(command).await;
    assert_eq!(outcome.code, Some(2));
    assert!(outcome.stderr.contains("--catalog"), "{}", outcome.stderr);
    let mut command = source.bare();
    command.arg("--version");
    let output = command.output().await;
    assert!(String::from_utf8(output.stdout).unwrap().starts_with("source-posthog 0."));
}
