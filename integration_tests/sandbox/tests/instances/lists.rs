//! Rules of list endpoints, and keys that are none.

use std::time::Duration;

use posthog_sandbox::posthog::{Action, Fault, Key, Limits, Sandbox, Server};
use serde_json::{Value, json};

use crate::builder;
use crate::support::{PATH, get};

const PROJECT: &str = "/api/projects/1001";

async fn with(server: Server) -> Sandbox {
    let posthog = builder(server).start().await.unwrap();
    let object = |id: u64, updated: &str, archived: bool| json!({"id": id, "name": "n", "updated_at": updated, "archived": archived});
    let objects = vec![object(1, "2026-03-02", false), object(2, "2026-03-01", false), object(3, "2026-03-03", true)];
    posthog.set_list(1001, "experiments", objects.clone());
    posthog.set_list(1001, "feature_flags", objects);
    posthog
}

async fn ids(posthog: &Sandbox, list: &str) -> Vec<u64> {
    let answer = get(posthog, &format!("{PROJECT}/{list}"), "phx_full").await.json();
    answer["results"].as_array().unwrap().iter().map(|object| object["id"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn experiments_sort_by_an_allow_list() {
    let posthog = with(Server::cloud_2026()).await;
    assert_eq!(ids(&posthog, "experiments/?order=updated_at").await, [2, 1]);
    assert_eq!(ids(&posthog, "experiments/?order=-updated_at").await, [1, 2]);
    assert_eq!(ids(&posthog, "experiments/?order=updated_at&archived=true").await, [3]);
    let refused = get(&posthog, &format!("{PROJECT}/experiments/?order=id"), "phx_full").await;
    assert_eq!((refused.status, refused.detail().as_str()), (400, "Invalid order field: 'id'"));
    let posthog = with(Server::before_2026()).await;
    assert_eq!(ids(&posthog, "experiments/?order=id").await, [1, 2, 3]);
}

#[tokio::test]
async fn archived_flags_are_listed_on_their_own() {
    let posthog = with(Server::cloud_2026()).await;
    assert_eq!(ids(&posthog, "feature_flags/").await, [1, 2]);
    assert_eq!(ids(&posthog, "feature_flags/?archived=true").await, [3]);
    let posthog = with(Server::before_2026()).await;
    assert_eq!(ids(&posthog, "feature_flags/?archived=true").await, [1, 2, 3]);
}

#[tokio::test]
async fn recordings_have_a_throttle_of_their_own() {
    let minute = Duration::from_mins(1);
    let limits = Limits { recordings: vec![(1, minute)], other: vec![(2, minute)], ..Limits::default() };
    let posthog = builder(Server::cloud_2026()).limits(limits).start().await.unwrap();
    let ask = async |list: &str| get(&posthog, &format!("{PROJECT}/{list}/"), "phx_full").await.status;
    assert_eq!((ask("session_recordings").await, ask("session_recordings").await), (200, 429));
    assert_eq!((ask("cohorts").await, ask("cohorts").await, ask("cohorts").await), (200, 200, 429));
    posthog.set_limits(Limits { other: vec![(1, minute)], ..Limits::default() });
    assert_eq!((ask("session_recordings").await, ask("cohorts").await), (200, 429), "without one they share");
}

#[tokio::test]
async fn slow_definitions_answer_503() {
    let fault = Fault::new(Action::definitions_timed_out()).path("_definitions/").times(1);
    let posthog = builder(Server::cloud_2026()).faults(vec![fault]).start().await.unwrap();
    let ask = async || get(&posthog, &format!("{PROJECT}/event_definitions/"), "phx_full").await.status;
    assert_eq!((ask().await, ask().await), (503, 200));
}

#[tokio::test]
async fn project_secret_key_is_no_key_where_it_is_not_known() {
    let key = Key { value: "phs_secret".to_owned(), scopes: vec!["experiment:read".to_owned()], projects: None };
    let posthog = builder(Server::cloud_2026()).key(key).start().await.unwrap();
    let ask = async |path: &str| get(&posthog, path, "phs_secret").await;
    for path in ["/api/personal_api_keys/@current/", "/api/projects/", &format!("{PROJECT}/cohorts/"), PATH] {
        let reply = ask(path).await;
        assert_eq!((reply.status, reply.detail().as_str()), (401, "Authentication credentials were not provided."));
    }
    assert_eq!(ask(&format!("{PROJECT}/experiments/")).await.status, 200);
    let refused: Value = ask(&format!("{PROJECT}/feature_flags/")).await.json();
    assert_eq!(refused["code"], "permission_denied");
}
