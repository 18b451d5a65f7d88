//! `--state-file` where the disk is full or the directory cannot be written, and states that neither program
//! may take for none.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use posthog_sandbox::patterns::{Behaviour, Outcome, Webhook};
use rustix::fs::{Mode, mkfifoat};
use serde_json::{Value, json};

use crate::support::child::Command;
use crate::support::destination::{Destination, run};
use crate::support::program::{Source, catalog};
use crate::support::world::sandbox;

const RECORD: &str = r#"{"type":"RECORD","record":{"stream":"events","data":{"uuid":"u","event":"e"},"emitted_at":1}}"#;
const STATE: &str = r#"{"type":"STATE","state":{"type":"STREAM","stream":{"stream_descriptor":{"name":"events"},"stream_state":{"cursor":2}},"sourceStats":{"recordCount":1.0}}}"#;

fn input() -> String {
    format!("{RECORD}\n{STATE}\n")
}

/// `write` through another program that begins it.
fn write_by(destination: &Destination, program: &[&str], state_file: &str) -> Command {
    std::fs::write(destination.path("catalog.json"), catalog(&["events"], "incremental").to_string()).unwrap();
    // It also writes the configuration.
    drop(destination.command("write"));
    let arguments = ["write", "--config", "patterns.json", "--catalog", "catalog.json", "--state-file", state_file];
    let whole = [program, &[env!("CARGO_BIN_EXE_destination-patterns")], &arguments].concat();
    let mut command = Command::new(whole[0]).with_input();
    command.current_dir(destination.path("").as_path()).args(&whole[1..]);
    command
}

/// No file can grow: what a full disk looks like.
const FULL_DISK: [&str; 4] = ["sh", "-c", r#"trap "" XFSZ; ulimit -f 0; exec "$@""#, "sh"];

#[tokio::test]
async fn a_full_disk_is_found_out_before_anything_is_delivered() {
    let webhook = Webhook::start().await.unwrap();
    let old =
        json!([{"type": "STREAM", "stream": {"stream_descriptor": {"name": "events"}, "stream_state": {"cursor": 1}}}]);
    for before in [None, Some(String::new()), Some(old.to_string())] {
        let destination = Destination::new(&webhook);
        if let Some(text) = &before {
            std::fs::write(destination.path("state.json"), text).unwrap();
        }
        let outcomes = run(write_by(&destination, &FULL_DISK, "state.json"), &input()).await;
        assert_eq!((outcomes.code, outcomes.states().len()), (Some(1), 0), "{}", outcomes.text);
        assert!(outcomes.error().contains("`--state-file state.json` cannot be written"), "{}", outcomes.error());
        assert_eq!(std::fs::read_to_string(destination.path("state.json")).ok(), before);
        let left = std::fs::read_dir(destination.path("")).unwrap().map(|entry| entry.unwrap().file_name());
        let left: BTreeSet<_> = left.map(|name| name.into_string().unwrap()).collect();
        let unfinished: Vec<&String> = left.iter().filter(|name| name.contains(".new")).collect();
        assert!(unfinished.is_empty(), "{unfinished:?}");
    }
    assert!(webhook.received().is_empty());
}

#[tokio::test]
async fn a_state_file_in_a_directory_that_cannot_be_written_keeps_what_it_has() {
    // The superuser may write everywhere, unless this is taken away.
    let is_superuser = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    let program: &[&str] = if is_superuser { &["setpriv", "--bounding-set=-all", "--inh-caps=-all"] } else { &[] };
    let webhook = Webhook::start().await.unwrap();
    let persons = json!([{"type": "STREAM", "stream": {"stream_descriptor": {"name": "persons"}, "stream_state": {"cursor": 7}}}]);
    let line = persons.to_string();
    for before in [
        serde_json::to_string_pretty(&persons).unwrap(),
        format!("\u{feff}{line}"),
        format!("{line}\n"),
        format!("{line}\n{{\"type\":\"STA"),
    ] {
        let destination = Destination::new(&webhook);
        std::fs::create_dir(destination.path("locked")).unwrap();
        std::fs::write(destination.path("locked/state.json"), &before).unwrap();
        std::fs::set_permissions(destination.path("locked"), std::fs::Permissions::from_mode(0o555)).unwrap();
        let outcomes = run(write_by(&destination, program, "locked/state.json"), &input()).await;
        assert_eq!(outcomes.code, Some(0), "{before}: {}", outcomes.text);
        let kept = std::fs::read_to_string(destination.path("locked/state.json")).unwrap();
        let whole = before.strip_suffix("{\"type\":\"STA").unwrap_or(&before);
        let added = kept.strip_prefix(whole).unwrap_or_else(|| panic!("{before}: {kept}"));
        let states: Value = serde_json::from_str(added).unwrap();
        let cursors: Vec<&Value> =
            states.as_array().unwrap().iter().map(|state| &state["stream"]["stream_state"]["cursor"]).collect();
        assert_eq!(cursors, [7, 2], "{before}");
        // The next run reads it.
        let again = run(write_by(&destination, program, "locked/state.json"), &input()).await;
        assert_eq!(again.code, Some(0), "{before}: {}", again.text);
        std::fs::set_permissions(destination.path("locked"), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().mode() & 0o777
}

/// A webhook that refuses everything, so that both files are written.
async fn refusing() -> Webhook {
    Webhook::start_with(Behaviour { always: Some(Outcome::status(422)), ..Behaviour::default() }).await.unwrap()
}

#[tokio::test]
async fn files_are_created_for_their_owner_and_keep_the_permissions_that_they_have() {
    let webhook = refusing().await;
    for before in [None, Some(0o640), Some(0o600), Some(0o666)] {
        let destination = Destination::new(&webhook).with("dead_letter_file", json!("refused.jsonl"));
        let files = ["state.json", "state.json.lock", "refused.jsonl"].map(|name| destination.path(name));
        if let Some(permissions) = before {
            for file in &files {
                std::fs::write(file, "").unwrap();
                std::fs::set_permissions(file, std::fs::Permissions::from_mode(permissions)).unwrap();
            }
        }
        // However much the user's mask allows.
        let open_mask = ["sh", "-c", r#"umask 0; exec "$@""#, "sh"];
        let outcomes = run(write_by(&destination, &open_mask, "state.json"), &input()).await;
        assert_eq!((outcomes.code, outcomes.states().len()), (Some(0), 1), "{}", outcomes.text);
        for file in &files {
            assert!(file.metadata().unwrap().len() > 0, "{}", file.display());
            assert_eq!(mode(file), before.unwrap_or(0o600), "{}", file.display());
        }
    }
}

#[tokio::test]
async fn nothing_is_written_through_a_link_that_somebody_has_laid() {
    let webhook = refusing().await;
    let destination = Destination::new(&webhook).with("dead_letter_file", json!("refused.jsonl"));
    std::fs::write(destination.path("victim"), "untouched").unwrap();
    symlink("victim", destination.path("state.json.new")).unwrap();
    destination.delivered(&input()).await;
    assert_eq!(std::fs::read_to_string(destination.path("victim")).unwrap(), "untouched");
    assert!(!destination.path("state.json").is_symlink() && destination.path("state.json.new").is_symlink());
    // What holds the lock must not be elsewhere either.
    for target in ["victim", "nowhere"] {
        std::fs::remove_file(destination.path("state.json.lock")).unwrap();
        symlink(target, destination.path("state.json.lock")).unwrap();
        let outcomes = destination.write(&input()).await;
        assert!(outcomes.error().contains("cannot be locked"), "{}", outcomes.error());
        assert!(!destination.path("nowhere").exists());
    }
    assert_eq!(std::fs::read_to_string(destination.path("victim")).unwrap(), "untouched");
}

#[tokio::test]
async fn what_is_no_regular_file_is_refused_before_anything_is_delivered() {
    let webhook = Webhook::start().await.unwrap();
    for (name, message) in [
        ("state.json", "`--state-file state.json` cannot be used"),
        ("state.json.lock", "`--state-file state.json` cannot be locked"),
        ("refused.jsonl", "`dead_letter_file` cannot be written"),
    ] {
        for kind in ["directory", "pipe", "device", "socket"] {
            let destination = Destination::new(&webhook).with("dead_letter_file", json!("refused.jsonl"));
            let path = destination.path(name);
            match kind {
                "directory" => std::fs::create_dir(&path).unwrap(),
                "socket" => drop(std::os::unix::net::UnixListener::bind(&path).unwrap()),
                // Nobody writes to it or reads from it: who opens it waits for ever.
                "pipe" => mkfifoat(rustix::fs::CWD, &path, Mode::RUSR | Mode::WUSR).unwrap(),
                _ => symlink("/dev/null", &path).unwrap(),
            }
            let outcomes = destination.write(&input()).await;
            let error = outcomes.error();
            assert!(error.starts_with("config_error") && error.contains(message), "{kind}: {error}");
        }
    }
    assert!(webhook.received().is_empty());
}

#[tokio::test]
async fn no_program_takes_a_state_for_none() {
    let webhook = Webhook::start().await.unwrap();
    let posthog = sandbox().await;
    let source = Source::new(&posthog.url());
    for text in [
        r#"{"state":{},"events":{"version":2,"projects":{}}}"#,
        r#"{"stateType":"not_set","events":{"timestamp":"2026-01-01"}}"#,
        r#"{"stream_descriptor":{"name":"events"},"cursor":"2026-01-01"}"#,
        r#"{"type":"GLOBAL","global":{"streams":{"events":{"cursor":1}}}}"#,
    ] {
        let destination = Destination::new(&webhook);
        std::fs::write(destination.path("state.json"), text).unwrap();
        let outcomes = destination.write(&input()).await;
        assert!(outcomes.error().contains("this is not a state"), "{text}: {}", outcomes.error());
        let mut command = source.read_command(&catalog(&["events"], "incremental"), None);
        command.arg("--state").arg(source.file("state.json", text));
        let outcome = crate::support::program::run(command).await;
        assert_eq!(outcome.code, Some(1), "{text}");
        let errors = outcome.messages.errors();
        assert!(errors[0].contains("this is not a state"), "{text}: {errors:?}");
    }
    assert!(webhook.received().is_empty());
}
