//! Streams that come from list endpoints.

use std::collections::BTreeSet;

use posthog_sandbox::posthog::{Action, Fault, ListServer, RecordingPages, Sandbox, Server};
use serde_json::{Value, json};
use source_posthog::streams::LISTS;
use source_posthog::time::Timestamp;

use crate::support::messages::Messages;
use crate::support::program::{Source, catalog};
use crate::support::world::{PROJECT, key, minutes_ago, two_projects_with};

const PROJECTS: [u64; 2] = [1001, 1002];

fn names() -> Vec<&'static str> {
    LISTS.iter().map(|list| list.stream).collect()
}

async fn sandbox() -> Sandbox {
    two_projects_with(Sandbox::builder()).await
}

fn fill(posthog: &Sandbox) {
    for project in PROJECTS {
        posthog.generate_lists(project, project);
    }
}

/// What identifies an object of a list, within its project.
fn identity(stream: &str, object: &Value) -> String {
    if stream == "groups_types" { &object["group_type_index"] } else { &object["id"] }.to_string()
}

fn stored(posthog: &Sandbox, stream: &str) -> BTreeSet<String> {
    let path = if stream == "early_access_features" { "early_access_feature" } else { stream };
    let identities = PROJECTS.iter().flat_map(|project| {
        let objects = posthog.list(*project, path).into_iter();
        objects.map(move |object| format!("{project} {}", identity(stream, &object)))
    });
    identities.collect()
}

fn read(messages: &Messages, stream: &str) -> BTreeSet<String> {
    let records = messages.records(stream).into_iter();
    records.map(|record| format!("{} {}", record["project_id"], identity(stream, record))).collect()
}

#[tokio::test]
async fn every_list_is_read_completely_and_matches_its_schema() {
    for cap in [None, Some(7)] {
        let builder = cap.map_or_else(Sandbox::builder, |cap| Sandbox::builder().list_page_cap(cap));
        let posthog = two_projects_with(builder).await;
        fill(&posthog);
        let source = Source::new(&posthog.url()).with("rate_limit_share", json!(1)).with("concurrency", json!(8));
        let chosen = if cap.is_some() { vec!["annotations", "feature_flags", "session_recordings"] } else { names() };
        let messages = source.read_all(&catalog(&chosen, "full_refresh"), None).await;
        for list in LISTS.iter().filter(|list| chosen.contains(&list.stream)) {
            let (found, wanted) = (read(&messages, list.stream), stored(&posthog, list.stream));
            assert!(!wanted.is_empty(), "{}", list.stream);
            assert_eq!(found, wanted, "{} with pages of {cap:?}", list.stream);
            // The sandbox has the same definitions for every group type.
            let twice = messages.records(list.stream).len() - wanted.len();
            assert!(twice == 0 || list.stream == "property_definitions", "{twice} {} came twice", list.stream);
            let fields = list.schema()["properties"].as_object().unwrap().clone();
            for record in messages.records(list.stream) {
                let record = record.as_object().unwrap();
                assert_eq!(record.keys().collect::<BTreeSet<_>>(), fields.keys().collect(), "{}", list.stream);
            }
        }
    }
}

#[tokio::test]
async fn list_values_equal_those_of_the_server() {
    let posthog = sandbox().await;
    fill(&posthog);
    let source = Source::new(&posthog.url());
    let messages =
        source.read_all(&catalog(&["annotations", "cohorts", "insights", "surveys"], "full_refresh"), None).await;
    for stream in ["annotations", "cohorts", "insights", "surveys"] {
        let stored = posthog.list(PROJECT, stream);
        for record in messages.records(stream).into_iter().filter(|record| record["project_id"] == PROJECT) {
            let object = stored.iter().find(|object| object["id"] == record["id"]).unwrap();
            for (field, value) in object.as_object().unwrap() {
                assert_eq!(record[field], *value, "{field} of {stream}");
            }
        }
    }
    let definitions = source.read_all(&catalog(&["property_definitions"], "full_refresh"), None).await;
    for record in definitions.records("property_definitions") {
        let stored = posthog.list(record["project_id"].as_u64().unwrap(), "property_definitions");
        let object = stored.iter().find(|object| object["id"] == record["id"]).unwrap();
        let kind = record["type"].as_str().unwrap();
        assert_eq!(kind.split('_').next(), object["_type"].as_str());
        assert_eq!(record["group_type_index"].is_u64(), kind.starts_with("group_"));
    }
}

#[tokio::test]
async fn lists_resume_from_every_state() {
    let posthog = two_projects_with(Sandbox::builder().list_page_cap(50)).await;
    fill(&posthog);
    let source = Source::new(&posthog.url()).with("rate_limit_share", json!(1)).with("concurrency", json!(8));
    for mode in ["full_refresh", "incremental"] {
        let lists = LISTS.iter().filter(|list| mode == "full_refresh" || list.change.is_some());
        for stream in lists.map(|list| list.stream) {
            let catalog = catalog(&[stream], mode);
            let whole = source.read_all(&catalog, None).await;
            for line in whole.state_lines() {
                let part = whole.up_to(line);
                let rest = source.read_all(&catalog, Some(&part.state())).await;
                let union: BTreeSet<String> = read(&part, stream).union(&read(&rest, stream)).cloned().collect();
                assert_eq!(union, stored(&posthog, stream), "{stream}, {mode}, state on line {line}");
            }
        }
    }
}

#[tokio::test]
async fn unknown_project_is_named_in_the_error_and_the_others_complete() {
    let posthog = sandbox().await;
    fill(&posthog);
    posthog.generate(1001, 50, 1, crate::support::world::two_hours_ago());
    let source = Source::new(&posthog.url()).with("project_ids", json!([1001, 4711]));
    let outcome = source.read(&catalog(&["annotations", "events", "groups", "projects"], "full_refresh"), None).await;
    assert_eq!(outcome.code, Some(1));
    let errors = outcome.messages.errors();
    assert_eq!(errors.len(), 4, "{errors:?}");
    assert!(errors.iter().all(|error| error.starts_with("config_error: project 4711")), "{errors:?}");
    assert_eq!(outcome.messages.records("annotations").len(), 30);
    assert_eq!(outcome.messages.id_set("events").len(), 50);
    assert_eq!(outcome.messages.records("projects").len(), 1);
}

#[tokio::test]
async fn incremental_lists_read_only_changed_objects() {
    let posthog = sandbox().await;
    fill(&posthog);
    let source = Source::new(&posthog.url());
    for (stream, field) in [
        ("feature_flags", "updated_at"),
        ("insights", "last_modified_at"),
        ("experiments", "updated_at"),
        ("notebooks", "last_modified_at"),
    ] {
        let catalog = catalog(&[stream], "incremental");
        let first = source.read_all(&catalog, None).await;
        assert_eq!(read(&first, stream), stored(&posthog, stream));
        let mut objects = posthog.list(PROJECT, stream);
        objects[3][field] = json!(Timestamp::from_micros(minutes_ago(0)));
        let changed = objects[3]["id"].to_string();
        posthog.set_list(PROJECT, stream, objects);
        let second = source.read_all(&catalog, Some(&first.state())).await;
        let ids: BTreeSet<String> = read(&second, stream);
        assert!(ids.contains(&format!("{PROJECT} {changed}")), "{stream}");
        assert_eq!(ids.len(), 1, "{stream}");
        assert_ne!(first.stream_state(stream), second.stream_state(stream));
    }
}

#[tokio::test]
async fn next_links_are_followed_on_the_configured_host_whatever_they_name() {
    let posthog = sandbox().await;
    fill(&posthog);
    let source = Source::new(&posthog.url());
    let streams = ["annotations", "insights"];
    let usual = source.read_all(&catalog(&streams, "full_refresh"), None).await;
    posthog.set_faults(vec![Fault::new(Action::NextElsewhere)]).unwrap();
    let messages = source.read_all(&catalog(&streams, "full_refresh"), None).await;
    for stream in streams {
        assert_eq!(read(&messages, stream), read(&usual, stream));
    }
    let said = messages.logs("INFO").into_iter().filter(|line| line.contains("evil.example")).count();
    assert_eq!(said, 1, "{:?}", messages.logs("INFO"));
}

#[tokio::test]
async fn next_links_in_circles_are_rejected() {
    let posthog = sandbox().await;
    fill(&posthog);
    posthog.set_faults(vec![Fault::new(Action::NextRepeats).path("annotations")]).unwrap();
    let outcome = Source::new(&posthog.url()).read(&catalog(&["annotations"], "full_refresh"), None).await;
    assert_eq!(outcome.code, Some(1));
    let errors = outcome.messages.errors().join("\n");
    assert!(errors.contains("repeats itself"), "{errors}");
    assert_eq!(outcome.messages.statuses("annotations").last().map(String::as_str), Some("INCOMPLETE"));
}

#[tokio::test]
async fn list_with_missing_objects_is_read_again() {
    let posthog = sandbox().await;
    fill(&posthog);
    let page = posthog.list(1001, "dashboards");
    let lost = json!({"count": page.len(), "next": null, "previous": null, "results": &page[1..]});
    let action = Action::Status { code: 200, body: lost.to_string(), headers: Vec::new() };
    posthog.set_faults(vec![Fault::new(action.clone()).path("1001/dashboards").nth(&[1])]).unwrap();
    let source = Source::new(&posthog.url());
    let messages = source.read_all(&catalog(&["dashboards"], "full_refresh"), None).await;
    assert_eq!(read(&messages, "dashboards"), stored(&posthog, "dashboards"));
    assert!(messages.logs("WARN").join("\n").contains("PostHog counts"));
    posthog.set_faults(vec![Fault::new(action).path("1001/dashboards")]).unwrap();
    let outcome = source.read(&catalog(&["dashboards"], "full_refresh"), None).await;
    let errors = outcome.messages.errors().join("\n");
    assert!(errors.contains("system_error: project 1001: dashboards could not be read completely"), "{errors}");
    // The other project is complete all the same.
    assert_eq!(read(&outcome.messages, "dashboards").iter().filter(|id| id.starts_with("1002")).count(), 12);
}

#[tokio::test]
async fn missing_scope_fails_only_its_own_streams() {
    let posthog = Sandbox::builder()
        .key(key("phx_query", &["query:read", "project:read", "annotation:read"], None))
        .start()
        .await
        .unwrap();
    posthog.generate_lists(PROJECT, 1);
    let source = Source::new(&posthog.url()).with("api_key", json!("phx_query"));
    let (status, message) = source.check().await;
    assert_eq!(status, "SUCCEEDED", "{message}");
    assert!(message.contains("feature_flags (`feature_flag:read`)") && !message.contains("annotations ("), "{message}");
    let outcome = source.read(&catalog(&["annotations", "feature_flags", "projects"], "full_refresh"), None).await;
    assert_eq!(outcome.code, Some(1));
    let errors = outcome.messages.errors().join("\n");
    assert!(errors.contains("config_error: the API key lacks the scope `feature_flag:read`"), "{errors}");
    assert_eq!(outcome.messages.records("annotations").len(), 30);
    assert_eq!(outcome.messages.records("projects").len(), 1);
    for (stream, status) in [("annotations", "COMPLETE"), ("feature_flags", "INCOMPLETE"), ("projects", "COMPLETE")] {
        assert_eq!(outcome.messages.statuses(stream).last().map(String::as_str), Some(status), "{stream}");
    }
}

#[tokio::test]
async fn full_refresh_does_not_continue_an_interrupted_incremental_sync() {
    let posthog = two_projects_with(Sandbox::builder().list_page_cap(20)).await;
    fill(&posthog);
    let source = Source::new(&posthog.url()).with("rate_limit_share", json!(1)).with("concurrency", json!(8));
    let mut interrupted = 0;
    for list in LISTS.iter().filter(|list| list.change.is_some()) {
        let stream = list.stream;
        let whole = source.read_all(&catalog(&[stream], "incremental"), None).await;
        let lines = whole.state_lines();
        for line in [lines[0], lines[lines.len() / 2]] {
            let state = whole.up_to(line).state();
            interrupted += u32::from(state.to_string().contains("\"reached\""));
            let messages = source.read_all(&catalog(&[stream], "full_refresh"), Some(&state)).await;
            assert_eq!(read(&messages, stream), stored(&posthog, stream), "{stream} after {state}");
        }
    }
    assert!(interrupted > 0, "only {interrupted} states were in the middle of a list");
}

/// In append mode, every record that is emitted again is a duplicate.
#[tokio::test]
async fn objects_without_a_time_of_change_come_again_only_when_they_change() {
    let posthog = sandbox().await;
    fill(&posthog);
    let flags = |name: &str, edited_at: &Value| {
        let mut flags = posthog.list(PROJECT, "feature_flags");
        for flag in &mut flags {
            flag["updated_at"] = edited_at.clone();
        }
        flags[5]["name"] = json!(name);
        flags
    };
    let source = Source::new(&posthog.url()).with("project_ids", json!([PROJECT]));
    let catalog = catalog(&["feature_flags"], "incremental");
    for edited_at in [Value::Null, json!(Timestamp::from_micros(minutes_ago(5)))] {
        let mut state = None;
        for (name, expected) in [("a", flags("", &edited_at).len()), ("a", 0), ("b", 1), ("b", 0), ("a", 1)] {
            posthog.set_list(PROJECT, "feature_flags", flags(name, &edited_at));
            let messages = source.read_all(&catalog, state.as_ref()).await;
            assert_eq!(messages.records("feature_flags").len(), expected, "{name} {edited_at}");
            state = Some(messages.state());
        }
    }
}

/// An object that is deleted moves the others up, so that one is on a page that has been read already.
#[tokio::test]
async fn objects_that_move_across_a_page_boundary_are_read() {
    let posthog = two_projects_with(Sandbox::builder().list_page_cap(10)).await;
    fill(&posthog);
    let before = posthog.list(PROJECT, "annotations");
    let source = Source::new(&posthog.url()).with("project_ids", json!([PROJECT])).with("rate_limit_share", json!(1));
    for deleted in [1, 3, 10, 12] {
        for count in [json!(before.len() - deleted), Value::Null] {
            posthog.set_list(PROJECT, "annotations", before[deleted..].to_vec());
            let next = format!("{}/api/projects/{PROJECT}/annotations/?limit=10&offset=10", posthog.url());
            let page = json!({"count": count, "next": next, "previous": null, "results": &before[..10]});
            let action = Action::Status { code: 200, body: page.to_string(), headers: Vec::new() };
            posthog.set_faults(vec![Fault::new(action).path("annotations").nth(&[1])]).unwrap();
            let messages = source.read_all(&catalog(&["annotations"], "full_refresh"), None).await;
            let found = read(&messages, "annotations");
            let there = before[..10].iter().chain(&before[deleted.max(10)..]);
            let wanted = there.map(|object| format!("{PROJECT} {}", identity("annotations", object)));
            assert_eq!(found, wanted.collect(), "{deleted} deleted, counted as {count}");
            assert!(messages.logs("WARN").is_empty(), "{:?}", messages.logs("WARN"));
        }
    }
}

#[tokio::test]
async fn list_without_a_count_is_read_until_two_listings_agree() {
    let posthog = two_projects_with(Sandbox::builder()).await;
    let object = |id: u64| json!({"id": id, "name": id.to_string()});
    let page = |ids: &[u64], next: Option<u64>| {
        let next = next.map(|offset| format!("/api/projects/{PROJECT}/actions/?limit=100&offset={offset}"));
        let results: Vec<Value> = ids.iter().map(|id| object(*id)).collect();
        let body = json!({"next": next, "previous": null, "results": results});
        Action::Status { code: 200, body: body.to_string(), headers: Vec::new() }
    };
    // The object 4 moves to the front after the first page has been read.
    let first = [page(&[1, 2, 3], Some(3)), page(&[3, 5], None)];
    let later = [page(&[4, 1, 2], Some(3)), page(&[2, 3, 5], None)];
    let answers = first.into_iter().chain(later.clone()).chain(later);
    let faults = (1..).zip(answers).map(|(number, action)| Fault::new(action).path("/actions").nth(&[number]));
    posthog.set_faults(faults.collect()).unwrap();
    let source = Source::new(&posthog.url()).with("project_ids", json!([PROJECT]));
    let messages = source.read_all(&catalog(&["actions"], "full_refresh"), None).await;
    let ids: Vec<u64> = messages.records("actions").iter().map(|action| action["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, [1, 2, 3, 5, 4]);
}

/// So many recordings, one every half an hour up to now. Half of them are not merged yet, and last 20 hours.
fn recordings(posthog: &Sandbox, number: i64) -> Vec<Value> {
    let template = posthog.list(PROJECT, "session_recordings")[0].clone();
    let recording = |index: i64| {
        let start = minutes_ago((number - index) * 30 + 1);
        let mut recording = template.clone();
        recording["id"] = json!(format!("recording-{index:05}"));
        recording["start_time"] = json!(Timestamp::from_micros(start));
        recording["end_time"] = json!(Timestamp::from_micros((start + 20 * 3_600_000_000).min(minutes_ago(1))));
        recording["_unmerged"] = json!(index % 2 == 0);
        recording
    };
    (0..number).map(recording).collect()
}

fn servers() -> [Server; 3] {
    let cloud = Server::cloud_2026();
    let unordered = ListServer { recordings: RecordingPages::LatestFirst, ..cloud.lists };
    [cloud.clone(), Server::before_2026(), Server { lists: unordered, ..cloud }]
}

/// The times of emitted recordings are those of the whole recording.
fn assert_whole(messages: &Messages, stored: &[Value]) {
    for record in messages.records("session_recordings") {
        let stored = stored.iter().find(|recording| recording["id"] == record["id"]).unwrap();
        assert_eq!(record["start_time"], stored["start_time"], "{}", record["id"]);
    }
}

#[tokio::test]
async fn recordings_that_expire_between_pages_or_syncs_hide_no_others() {
    for server in servers() {
        let builder = Sandbox::builder().server(server.clone()).list_page_cap(50);
        let posthog = two_projects_with(builder).await;
        fill(&posthog);
        let stored = recordings(&posthog, 400);
        let source =
            Source::new(&posthog.url()).with("project_ids", json!([PROJECT])).with("rate_limit_share", json!(1));
        for mode in ["full_refresh", "incremental"] {
            let catalog = catalog(&["session_recordings"], mode);
            posthog.set_list(PROJECT, "session_recordings", stored.clone());
            let whole = source.read_all(&catalog, None).await;
            assert_eq!(whole.records("session_recordings").len(), 400, "{mode} {:?}", server.lists);
            assert_whole(&whole, &stored);
            let lines = whole.state_lines();
            assert!(
                lines.len() > 5 || server.lists.recordings == RecordingPages::LatestFirst,
                "{} states",
                lines.len()
            );
            for line in [lines[0], lines[lines.len() / 2], lines[lines.len().saturating_sub(2)]] {
                posthog.set_list(PROJECT, "session_recordings", stored[70..].to_vec());
                let part = whole.up_to(line);
                let rest = source.read_all(&catalog, Some(&part.state())).await;
                assert_whole(&rest, &stored);
                let union = read(&part, "session_recordings").union(&read(&rest, "session_recordings")).count();
                assert!(union >= 330, "{mode} {:?}: {union} after {}", server.lists, part.state());
                let wanted = stored[70..].iter().map(|object| format!("{PROJECT} {}", object["id"]));
                let found: BTreeSet<String> =
                    read(&part, "session_recordings").union(&read(&rest, "session_recordings")).cloned().collect();
                assert!(wanted.into_iter().all(|id| found.contains(&id)), "{mode} {:?}", server.lists);
            }
        }
    }
}

#[tokio::test]
async fn earlier_start_date_reads_earlier_recordings() {
    for server in servers() {
        let posthog = two_projects_with(Sandbox::builder().server(server).list_page_cap(50)).await;
        fill(&posthog);
        let stored = recordings(&posthog, 400);
        posthog.set_list(PROJECT, "session_recordings", stored.clone());
        let catalog = catalog(&["session_recordings"], "incremental");
        let from = |hours: i64| {
            let start = json!(Timestamp::from_micros(minutes_ago(60 * hours)));
            let source = Source::new(&posthog.url()).with("project_ids", json!([PROJECT]));
            source.with("start_date", start).with("rate_limit_share", json!(1))
        };
        let first = from(100).read_all(&catalog, None).await;
        assert_eq!(read(&first, "session_recordings").len(), 199, "those of the last 100 hours");
        assert_whole(&first, &stored);
        let second = from(300).read_all(&catalog, Some(&first.state())).await;
        assert_whole(&second, &stored);
        let both = read(&first, "session_recordings").union(&read(&second, "session_recordings")).count();
        assert_eq!(both, 400, "{:?}", second.logs("INFO"));
        // What has not changed is not emitted again.
        assert!(second.records("session_recordings").len() < 203, "{}", second.records("session_recordings").len());
        let third = from(300).read_all(&catalog, Some(&second.state())).await;
        assert!(third.records("session_recordings").is_empty());
    }
}
