//! Streams whose objects belong to objects of a list, and those about the account.

use std::collections::BTreeSet;

use posthog_sandbox::posthog::{Action, Fault, Sandbox};
use serde_json::{Value, json};
use source_posthog::streams::{NESTED_LISTS, ORGANIZATIONS};
use source_posthog::time::Timestamp;

use crate::support::messages::Messages;
use crate::support::program::{Source, catalog};
use crate::support::world::{PROJECT, key, minutes_ago, two_projects_with};

const PROJECTS: [u64; 2] = [1001, 1002];

async fn sandbox(cap: usize) -> Sandbox {
    let posthog = two_projects_with(Sandbox::builder().list_page_cap(cap)).await;
    for project in PROJECTS {
        posthog.generate_lists(project, project);
    }
    posthog
}

fn source(posthog: &Sandbox) -> Source {
    Source::new(&posthog.url()).with("start_date", json!("2020-01-01T00:00:00Z")).with("rate_limit_share", json!(1))
}

fn identity(project: &Value, object: &Value) -> String {
    format!("{project} {} {}", object["experiment_id"], object["id"])
}

fn stored(posthog: &Sandbox, stream: &str) -> BTreeSet<String> {
    let objects = PROJECTS.iter().flat_map(|project| {
        posthog.list(*project, stream).into_iter().map(move |object| identity(&json!(project), &object))
    });
    objects.collect()
}

fn read(messages: &Messages, stream: &str) -> BTreeSet<String> {
    messages.records(stream).into_iter().map(|record| identity(&record["project_id"], record)).collect()
}

fn names() -> impl Iterator<Item = &'static str> {
    NESTED_LISTS.iter().map(|nested| nested.list.stream)
}

#[tokio::test]
async fn nested_lists_are_read_completely_and_match_their_schemas() {
    for cap in [1000, 7] {
        let posthog = sandbox(cap).await;
        let messages = source(&posthog).read_all(&catalog(&names().collect::<Vec<_>>(), "full_refresh"), None).await;
        for nested in NESTED_LISTS {
            let stream = nested.list.stream;
            let wanted = stored(&posthog, stream);
            assert!(wanted.len() > 15, "{stream}");
            assert_eq!(read(&messages, stream), wanted, "{stream} with pages of {cap}");
            assert_eq!(messages.records(stream).len(), wanted.len(), "{stream}");
            let schema = nested.list.schema();
            let fields = schema["properties"].as_object().unwrap();
            for record in messages.records(stream) {
                let record = record.as_object().unwrap();
                assert_eq!(record.keys().collect::<BTreeSet<_>>(), fields.keys().collect(), "{stream}");
            }
        }
        let results = messages.records("experiment_results");
        assert!(results.iter().all(|run| run["results"][0]["result"]["baseline"]["key"] == "control"));
        let sources: BTreeSet<&str> = results.iter().filter_map(|run| run["result_source"].as_str()).collect();
        assert_eq!(sources, ["recalculation", "timeseries_fallback"].into());
    }
}

#[tokio::test]
async fn nested_lists_resume_from_every_state() {
    let posthog = sandbox(40).await;
    let source = source(&posthog);
    for (stream, mode) in names().flat_map(|stream| [(stream, "full_refresh"), (stream, "incremental")]) {
        let catalog = catalog(&[stream], mode);
        let whole = source.read_all(&catalog, None).await;
        let wanted = stored(&posthog, stream);
        let lines = whole.state_lines();
        assert!(lines.len() > 5, "{stream}");
        for line in lines {
            let part = whole.up_to(line);
            let rest = source.read_all(&catalog, Some(&part.state())).await;
            let union: BTreeSet<String> = read(&part, stream).union(&read(&rest, stream)).cloned().collect();
            assert_eq!(union, wanted, "{stream}, {mode}, state on line {line}");
        }
    }
}

#[tokio::test]
async fn only_what_has_changed_is_read_again() {
    let posthog = sandbox(1000).await;
    let source = source(&posthog);
    let catalog = catalog(&names().collect::<Vec<_>>(), "incremental");
    let first = source.read_all(&catalog, None).await;
    let mut changed = BTreeSet::new();
    for (stream, field) in [("experiment_results", "completed_at"), ("batch_export_runs", "last_updated_at")] {
        let mut objects = posthog.list(PROJECT, stream);
        // One that was made days ago: a run may go on for long.
        let object = &mut objects[4];
        object[field] = json!(Timestamp::from_micros(minutes_ago(1)).to_string());
        changed.insert(format!("{stream} {}", identity(&json!(PROJECT), object)));
        posthog.set_list(PROJECT, stream, objects);
    }
    let second = source.read_all(&catalog, Some(&first.state())).await;
    let found: BTreeSet<String> = names()
        .flat_map(|stream| read(&second, stream).into_iter().map(move |object| format!("{stream} {object}")))
        .collect();
    assert_eq!(found, changed);
    let mut runs = posthog.requests().into_iter().filter(|request| request.path.contains("/runs/"));
    assert!(runs.next_back().unwrap().path.contains("ordering=created_at"));
}

#[tokio::test]
async fn what_belongs_to_nothing_or_to_something_deleted_is_no_error() {
    let posthog = sandbox(1000).await;
    let source = source(&posthog);
    posthog.set_list(1002, "experiments", Vec::new());
    posthog.set_list(1002, "batch_exports", Vec::new());
    let gone = Action::Status { code: 404, body: r#"{"detail":"Not found."}"#.to_owned(), headers: Vec::new() };
    posthog.set_faults(vec![Fault::new(gone).path("/runs/").nth(&[1])]).unwrap();
    let messages = source.read_all(&catalog(&names().collect::<Vec<_>>(), "full_refresh"), None).await;
    assert!(read(&messages, "experiment_results").iter().all(|id| id.starts_with("1001 ")));
    assert!(messages.records("batch_export_runs").len() < posthog.list(1001, "batch_export_runs").len());
}

#[tokio::test]
async fn a_list_that_lacks_objects_is_an_error() {
    let posthog = sandbox(1000).await;
    let none = r#"{"count":3,"next":null,"previous":null,"results":[]}"#.to_owned();
    let answer = Action::Status { code: 200, body: none, headers: Vec::new() };
    posthog.set_faults(vec![Fault::new(answer).path("/batch_exports/")]).unwrap();
    let outcome = source(&posthog).read(&catalog(&["batch_export_runs"], "full_refresh"), None).await;
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.messages.errors()[0].contains("batch_exports could not be read completely"));
}

#[tokio::test]
async fn organizations_are_read_once() {
    let posthog = sandbox(1000).await;
    let messages = source(&posthog).read_all(&catalog(&["organizations"], "full_refresh"), None).await;
    let [organization] = messages.records("organizations")[..] else { panic!("not one organization") };
    assert_eq!((&organization["name"], &organization["member_count"]), (&json!("Sandbox"), &json!(1)));
    let schema = ORGANIZATIONS.schema();
    let known = schema["properties"].as_object().unwrap();
    assert!(organization.as_object().unwrap().keys().all(|field| known.contains_key(field)), "{organization}");
}

#[tokio::test]
async fn missing_scopes_and_keys_of_single_projects_are_named() {
    let posthog = Sandbox::builder()
        .key(key("phx_query", &["query:read", "project:read"], None))
        .key(key("phx_project", &["*"], Some(vec![PROJECT])))
        .start()
        .await
        .unwrap();
    let streams = ["organizations", "experiment_results", "batch_export_runs", "projects"];
    let with_key = |key: &str| Source::new(&posthog.url()).with("api_key", json!(key));
    let outcome = with_key("phx_query").read(&catalog(&streams, "full_refresh"), None).await;
    let errors = outcome.messages.errors().join("\n");
    for scope in ["organization:read", "experiment:read", "batch_export:read"] {
        assert!(errors.contains(&format!("the API key lacks the scope `{scope}`")), "{errors}");
    }
    assert_eq!(outcome.messages.statuses("projects").last().map(String::as_str), Some("COMPLETE"));
    let (_, message) = with_key("phx_query").check().await;
    for stream in ["organizations (`organization:read`)", "batch_export_runs (`batch_export:read`)"] {
        assert!(message.contains(stream), "{message}");
    }
    let outcome = with_key("phx_project").read(&catalog(&["organizations"], "full_refresh"), None).await;
    assert!(outcome.messages.errors()[0].contains("the API key is limited to projects"));
}
