//! Lists that change while they are read and between two syncs: the destination ends with what PostHog has, wherever a
//! sync was interrupted, and nothing comes twice that has not changed.

use std::collections::BTreeMap;

use posthog_sandbox::posthog::{Action, Fault, ListServer, RecordingPages, Sandbox, Server};
use serde_json::{Value, json};
use source_posthog::time::Timestamp;

use crate::support::messages::Messages;
use crate::support::program::{Source, catalog};
use crate::support::world::{PROJECT, minutes_ago};

const DAY: i64 = 24 * 60;

async fn sandbox(server: Server, cap: usize) -> Sandbox {
    let posthog = Sandbox::builder().server(server).list_page_cap(cap).start().await.unwrap();
    posthog.generate_lists(PROJECT, 1);
    posthog
}

fn source(posthog: &Sandbox) -> Source {
    Source::new(&posthog.url()).with("rate_limit_share", json!(1))
}

fn from(posthog: &Sandbox, days: i64) -> Source {
    source(posthog).with("start_date", json!(Timestamp::from_micros(minutes_ago(days * DAY))))
}

/// A sync as it would have been so many days ago.
async fn read_days_ago(days: i64, posthog: &Sandbox, source: &Source, catalog: &Value) -> Messages {
    posthog.set_server(Server { clock_ahead: -days * 86_400, ..Server::cloud_2026() });
    source.turn_clock(-days * 86_400);
    let messages = source.read_all(catalog, None).await;
    posthog.set_server(Server::cloud_2026());
    source.turn_clock(0);
    messages
}

fn ids(messages: &Messages, stream: &str) -> Vec<String> {
    messages.records(stream).iter().map(|record| record["id"].to_string()).collect()
}

/// What a destination has that keeps the last record of each object.
fn delivered<'m>(parts: impl IntoIterator<Item = &'m Messages>, stream: &str) -> BTreeMap<String, Value> {
    let records = parts.into_iter().flat_map(|part| part.records(stream));
    records.map(|record| (record["id"].to_string(), record.clone())).collect()
}

/// A recording with this name that began so many minutes ago and took ten.
fn recording(posthog: &Sandbox, name: &str, minutes: i64) -> Value {
    let mut recording = posthog.list(PROJECT, "session_recordings")[0].clone();
    recording["id"] = json!(name);
    recording["start_time"] = json!(Timestamp::from_micros(minutes_ago(minutes)));
    recording["end_time"] = json!(Timestamp::from_micros(minutes_ago(minutes - 10)));
    recording
}

/// Sets a field of every third object of a list.
fn edit(posthog: &Sandbox, list: &str, field: &str, value: &Value) {
    let mut objects = posthog.list(PROJECT, list);
    for object in objects.iter_mut().step_by(3) {
        object[field] = value.clone();
    }
    posthog.set_list(PROJECT, list, objects);
}

/// Objects that change, and change back after a sync that ends anywhere.
#[tokio::test]
async fn what_changes_back_after_an_interruption_comes_again() {
    let (a, b) = (json!([{"of": "A"}]), json!([{"of": "B"}]));
    let texts = (json!("A"), json!("B"));
    for (stream, field, (a, b)) in [
        ("feature_flags", "name", texts.clone()),
        ("session_recordings", "start_url", texts.clone()),
        ("experiment_results", "results", (a, b)),
        ("batch_export_runs", "latest_error", texts),
    ] {
        let posthog = sandbox(Server::cloud_2026(), 6).await;
        let mut objects = posthog.list(PROJECT, stream);
        objects.truncate(15);
        let recent = json!(Timestamp::from_micros(minutes_ago(30)));
        for object in &mut objects {
            object[field] = a.clone();
            for time in ["updated_at", "start_time", "last_updated_at", "created_at"] {
                if object.get(time).is_some() {
                    object[time] = if stream == "feature_flags" { Value::Null } else { recent.clone() };
                }
            }
        }
        posthog.set_list(PROJECT, stream, objects);
        let (source, catalog) = (source(&posthog), catalog(&[stream], "incremental"));
        let first = source.read_all(&catalog, None).await;
        assert!(!first.records(stream).is_empty(), "{stream}");
        edit(&posthog, stream, field, &b);
        let second = source.read_all(&catalog, Some(&first.state())).await;
        let changed = second.records(stream).len();
        assert!(changed > 2 && changed < first.records(stream).len(), "{changed} {stream}");
        edit(&posthog, stream, field, &a);
        let lines = second.text().lines().count();
        let ends = (0..lines).filter(|line| {
            let line = second.text().lines().nth(*line).unwrap().to_owned();
            line.contains("\"RECORD\"") || line.contains("\"STATE\"")
        });
        for end in ends.collect::<Vec<_>>() {
            let seen = first.clone().and(second.up_to(end));
            let third = source.read_all(&catalog, Some(&seen.state())).await;
            // The third sync goes on where the second one was, and may leave what it had read to the fourth.
            let fourth = source.read_all(&catalog, Some(&third.state())).await;
            let all = delivered([&seen, &third, &fourth], stream);
            let wrong = all.values().filter(|record| record[field] != a).count();
            assert_eq!(wrong, 0, "{wrong} {stream} are still the other ones, cut after line {end} of {lines}");
            let repeated = third.records(stream).len() + fourth.records(stream).len();
            assert!(repeated <= changed, "{repeated} {stream}, cut after line {end}");
        }
    }
}

/// The list has to be read twice, and shows other content the first time.
#[tokio::test]
async fn what_changes_back_within_a_sync_comes_again() {
    let posthog = sandbox(Server::cloud_2026(), 100).await;
    edit(&posthog, "feature_flags", "updated_at", &Value::Null);
    let (source, catalog) = (source(&posthog), catalog(&["feature_flags"], "incremental"));
    let first = source.read_all(&catalog, None).await;
    let before: Vec<Value> =
        posthog.list(PROJECT, "feature_flags").into_iter().filter(|flag| flag["archived"] != true).collect();
    let mut changed = before.clone();
    changed[0]["name"] = json!("B");
    let page = json!({"count": changed.len() + 1, "next": null, "previous": null, "results": changed});
    let action = Action::Status { code: 200, body: page.to_string(), headers: Vec::new() };
    posthog.set_faults(vec![Fault::new(action).path("/feature_flags/").nth(&[1])]).unwrap();
    let second = source.read_all(&catalog, Some(&first.state())).await;
    let names: Vec<&Value> = second.records("feature_flags").iter().map(|flag| &flag["name"]).collect();
    assert_eq!(names, [&json!("B"), &before[0]["name"]]);
}

#[tokio::test]
async fn an_earlier_start_date_hides_no_new_recordings() {
    let cloud = Server::cloud_2026();
    let unordered = ListServer { recordings: RecordingPages::LatestFirst, ..cloud.lists };
    for server in [cloud.clone(), Server::before_2026(), Server { lists: unordered, ..cloud }] {
        // With one new recording, an order is not to be seen.
        for new in [1, 3] {
            let posthog = sandbox(server.clone(), 50).await;
            let mut all: Vec<Value> =
                (0..10).map(|index| recording(&posthog, &format!("old-{index}"), (100 - index) * DAY)).collect();
            posthog.set_list(PROJECT, "session_recordings", all.clone());
            let catalog = catalog(&["session_recordings"], "incremental");
            let first = from(&posthog, 5).read_all(&catalog, None).await;
            assert!(first.records("session_recordings").is_empty());
            all.extend((0..new).map(|index| recording(&posthog, &format!("new-{index}"), 60 - index)));
            posthog.set_list(PROJECT, "session_recordings", all);
            let second = from(&posthog, 200).read_all(&catalog, Some(&first.state())).await;
            let third = from(&posthog, 200).read_all(&catalog, Some(&second.state())).await;
            let found = i64::try_from(delivered([&second, &third], "session_recordings").len()).unwrap();
            assert_eq!(found, 10 + new, "{:?}", server.lists);
            assert!(third.records("session_recordings").is_empty(), "{:?}", server.lists);
        }
    }
}

/// What lies before a later start date has not been read since.
#[tokio::test]
async fn a_start_date_that_is_moved_back_and_forth_leaves_no_gap() {
    for (stream, time) in [("session_recordings", "start_time"), ("batch_export_runs", "created_at")] {
        let posthog = sandbox(Server::cloud_2026(), 100).await;
        let template = posthog.list(PROJECT, stream)[0].clone();
        let object = |days: i64| {
            let mut object = template.clone();
            object["id"] = json!(format!("{days}"));
            object[time] = json!(Timestamp::from_micros(minutes_ago(days * DAY)));
            object
        };
        posthog.set_list(PROJECT, stream, (1..90).map(object).collect());
        let catalog = catalog(&[stream], "incremental");
        let first = read_days_ago(40, &posthog, &from(&posthog, 80), &catalog).await;
        assert_eq!(first.records(stream).len(), 40, "{stream}");
        let second = from(&posthog, 5).read_all(&catalog, Some(&first.state())).await;
        let third = from(&posthog, 80).read_all(&catalog, Some(&second.state())).await;
        assert_eq!(delivered([&first, &second, &third], stream).len(), 79, "{stream}");
        let fourth = from(&posthog, 89).read_all(&catalog, Some(&third.state())).await;
        assert_eq!(delivered([&first, &second, &third, &fourth], stream).len(), 88, "{stream}");
    }
}

/// PostHog takes what it receives for a recording until it is seven days old.
#[tokio::test]
async fn recordings_that_come_days_late_are_found() {
    let posthog = sandbox(Server::cloud_2026(), 100).await;
    let known: Vec<Value> =
        (0..60).map(|index| recording(&posthog, &format!("known-{index}"), (60 - index) * DAY / 4)).collect();
    posthog.set_list(PROJECT, "session_recordings", known.clone());
    let (source, catalog) = (source(&posthog), catalog(&["session_recordings"], "incremental"));
    let first = read_days_ago(2, &posthog, &source, &catalog).await;
    let late = [recording(&posthog, "late", 8 * DAY + 60), recording(&posthog, "very-late", 10 * DAY - 60)];
    posthog.set_list(PROJECT, "session_recordings", known.into_iter().chain(late).collect());
    let second = source.read_all(&catalog, Some(&first.state())).await;
    let found = ids(&second, "session_recordings");
    assert!(["\"late\"", "\"very-late\""].iter().all(|id| found.contains(&(*id).to_owned())), "{found:?}");
    // The others are those that the first sync could not see.
    let both = delivered([&first, &second], "session_recordings").len();
    assert_eq!((both, found.len() + first.records("session_recordings").len()), (62, 62));
    let third = source.read_all(&catalog, Some(&second.state())).await;
    assert!(third.records("session_recordings").is_empty());
}

/// The state keeps so many; of those before, it is not known what the destination has.
#[tokio::test]
async fn late_recordings_are_looked_for_among_the_latest_5000() {
    let posthog = sandbox(Server::cloud_2026(), 1_000).await;
    let template = recording(&posthog, "", 0);
    let known = (0..5_300).map(|index| {
        let mut recording = template.clone();
        recording["id"] = json!(format!("known-{index}"));
        recording["start_time"] = json!(Timestamp::from_micros(minutes_ago(2 * DAY + 1 + index)));
        recording
    });
    let known: Vec<Value> = known.collect();
    posthog.set_list(PROJECT, "session_recordings", known.clone());
    let (source, catalog) = (source(&posthog), catalog(&["session_recordings"], "incremental"));
    let first = read_days_ago(2, &posthog, &source, &catalog).await;
    assert_eq!(first.records("session_recordings").len(), 5_300);
    let late = [recording(&posthog, "late", 4 * DAY), recording(&posthog, "too-late", 7 * DAY)];
    posthog.set_list(PROJECT, "session_recordings", known.into_iter().chain(late).collect());
    let second = source.read_all(&catalog, Some(&first.state())).await;
    assert_eq!(ids(&second, "session_recordings"), ["\"late\""]);
    let said = second.logs("INFO").join("\n");
    assert!(said.contains("the state keeps the latest 5000"), "{said}");
}

#[tokio::test]
async fn recordings_come_again_when_they_change_but_not_when_their_person_does() {
    let posthog = sandbox(Server::cloud_2026(), 100).await;
    posthog.set_list(PROJECT, "session_recordings", vec![recording(&posthog, "one", 60)]);
    let (source, catalog) = (source(&posthog), catalog(&["session_recordings"], "incremental"));
    let mut state = None;
    for (field, value, expected) in [
        ("recording_ttl", json!(30), 1),
        ("recording_ttl", json!(29), 0),
        ("person", json!({"id": 1, "name": "Ada", "properties": {"visits": 2}}), 0),
        ("click_count", json!(4711), 1),
    ] {
        let mut objects = posthog.list(PROJECT, "session_recordings");
        objects[0][field] = value;
        posthog.set_list(PROJECT, "session_recordings", objects);
        let messages = source.read_all(&catalog, state.as_ref()).await;
        assert_eq!(messages.records("session_recordings").len(), expected, "{field}");
        state = Some(messages.state());
    }
}

#[tokio::test]
async fn recordings_that_begin_at_the_same_time_are_all_read() {
    for server in [Server::cloud_2026(), Server::before_2026()] {
        let posthog = sandbox(server, 20).await;
        let begin = recording(&posthog, "", 60)["start_time"].clone();
        let same = |index: i64| {
            let mut recording = recording(&posthog, &format!("{index}"), 60);
            recording["start_time"] = begin.clone();
            recording
        };
        posthog.set_list(PROJECT, "session_recordings", (0..90).map(same).collect());
        let (source, catalog) = (source(&posthog), catalog(&["session_recordings"], "incremental"));
        let first = source.read_all(&catalog, None).await;
        assert_eq!(first.records("session_recordings").len(), 90);
        for line in first.state_lines() {
            let seen = first.up_to(line);
            let rest = source.read_all(&catalog, Some(&seen.state())).await;
            let count = seen.records("session_recordings").len() + rest.records("session_recordings").len();
            assert_eq!((delivered([&seen, &rest], "session_recordings").len(), count), (90, 90));
        }
    }
}

#[tokio::test]
async fn an_earlier_start_date_reads_earlier_runs_and_nothing_twice() {
    let posthog = sandbox(Server::cloud_2026(), 20).await;
    let catalog = catalog(&["batch_export_runs"], "incremental");
    let runs = posthog.list(PROJECT, "batch_export_runs").len();
    let first = from(&posthog, 5).read_all(&catalog, None).await;
    assert!(first.records("batch_export_runs").len() < 70);
    let second = from(&posthog, 90).read_all(&catalog, Some(&first.state())).await;
    assert_eq!(delivered([&first, &second], "batch_export_runs").len(), runs);
    for line in second.state_lines() {
        let seen = second.up_to(line);
        let rest = from(&posthog, 90).read_all(&catalog, Some(&seen.state())).await;
        assert_eq!(delivered([&first, &seen, &rest], "batch_export_runs").len(), runs, "cut after line {line}");
    }
    let third = from(&posthog, 90).read_all(&catalog, Some(&second.state())).await;
    assert!(third.records("batch_export_runs").is_empty());
}

/// In append mode, every record that is emitted again is a duplicate.
#[tokio::test]
async fn what_belongs_to_other_objects_comes_again_only_when_it_changes() {
    let posthog = sandbox(Server::cloud_2026(), 100).await;
    let now = json!(Timestamp::from_micros(minutes_ago(5)));
    for (stream, field) in [("experiment_results", "completed_at"), ("batch_export_runs", "last_updated_at")] {
        edit(&posthog, stream, field, &now);
    }
    let (source, catalog) = (source(&posthog), catalog(&["experiment_results", "batch_export_runs"], "incremental"));
    let first = source.read_all(&catalog, None).await;
    let second = source.read_all(&catalog, Some(&first.state())).await;
    for stream in ["experiment_results", "batch_export_runs"] {
        assert!(!first.records(stream).is_empty());
        assert!(second.records(stream).is_empty(), "{} {stream}", second.records(stream).len());
    }
}

/// The results are as old as before.
#[tokio::test]
async fn results_of_an_experiment_that_is_restored_are_read() {
    let posthog = sandbox(Server::cloud_2026(), 100).await;
    let experiments = posthog.list(PROJECT, "experiments");
    let (source, catalog) = (source(&posthog), catalog(&["experiment_results"], "incremental"));
    posthog.set_list(PROJECT, "experiments", experiments[3..].to_vec());
    let first = source.read_all(&catalog, None).await;
    posthog.set_list(PROJECT, "experiments", experiments);
    let second = source.read_all(&catalog, Some(&first.state())).await;
    assert!(!second.records("experiment_results").is_empty());
    let all = first.records("experiment_results").len() + second.records("experiment_results").len();
    assert_eq!(all, posthog.list(PROJECT, "experiment_results").len());
}

/// An object that is deleted moves the others up, so that one is on a page that has been read already.
#[tokio::test]
async fn runs_of_exports_that_move_across_a_page_boundary_are_read() {
    let posthog = sandbox(Server::cloud_2026(), 2).await;
    let template = posthog.list(PROJECT, "batch_exports")[0].clone();
    let run = posthog.list(PROJECT, "batch_export_runs")[0].clone();
    let with = |template: &Value, field: &str, index: u64| {
        let mut object = template.clone();
        object["id"] = json!(format!("{field}-{index}"));
        object
    };
    let exports: Vec<Value> = (0..5).map(|index| with(&template, "export", index)).collect();
    let runs = (0..5).map(|index| {
        let mut run = with(&run, "run", index);
        run["batch_export"] = exports[usize::try_from(index).unwrap()]["id"].clone();
        run
    });
    posthog.set_list(PROJECT, "batch_export_runs", runs.collect());
    posthog.set_list(PROJECT, "batch_exports", exports[1..].to_vec());
    let next = format!("{}/api/projects/{PROJECT}/batch_exports/?limit=2&offset=2", posthog.url());
    let page = json!({"next": next, "previous": null, "results": &exports[..2]});
    let action = Action::Status { code: 200, body: page.to_string(), headers: Vec::new() };
    posthog.set_faults(vec![Fault::new(action).path("/batch_exports/?").nth(&[1])]).unwrap();
    let messages = source(&posthog).read_all(&catalog(&["batch_export_runs"], "full_refresh"), None).await;
    assert_eq!(ids(&messages, "batch_export_runs"), ["\"run-1\"", "\"run-2\"", "\"run-3\"", "\"run-4\""]);
}

/// After an upgrade, say. PostHog's response is the same as for an export that has been deleted.
#[tokio::test]
async fn runs_are_read_again_when_posthog_does_not_know_the_cursor_any_more() {
    let posthog = sandbox(Server::cloud_2026(), 20).await;
    let (source, catalog) = (source(&posthog), catalog(&["batch_export_runs"], "incremental"));
    let whole = source.read_all(&catalog, None).await;
    let mut resumed = 0;
    for line in whole.state_lines() {
        let seen = whole.up_to(line);
        let mut state = seen.state();
        let entry = &mut state[0]["stream"]["stream_state"]["projects"]["1001"];
        if entry["next"].is_string() {
            entry["next"] = json!("cursor=forgotten");
            let rest = source.read_all(&catalog, Some(&state)).await;
            let both = delivered([&seen, &rest], "batch_export_runs").len();
            assert_eq!(both, posthog.list(PROJECT, "batch_export_runs").len());
            resumed += 1;
        }
    }
    assert!(resumed > 3);
}
