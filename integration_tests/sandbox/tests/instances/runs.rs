//! Runs of exports: what they answer, and when they hang.

use std::time::Duration;

use posthog_sandbox::posthog::{ExportOutcome, Exports, HangingRuns, RecordsCompleted, Server};
use serde_json::{Value, json};

use crate::support::{PATH, download, get, post, start, status};
use crate::{DAY, HOUR, ago, event, exporting, request};

fn hour() -> Value {
    request("events", ago(2 * HOUR), ago(HOUR))
}

#[tokio::test]
async fn completed_run_reports_its_row_count() {
    let posthog = exporting(Server::cloud_2026(), Exports::default()).await;
    let empty = start(&posthog, &hour()).await;
    assert_eq!(status(&posthog, &empty).await, json!({"status": "Completed", "files": [], "records_completed": 0}));
    let at = ago(HOUR + HOUR / 2);
    posthog.insert(1001, vec![event(1, at, at), event(2, at, at)]);
    let run = start(&posthog, &hour()).await;
    let answer = status(&posthog, &run).await;
    assert_eq!((&answer["records_completed"], answer["files"].as_array().unwrap().len()), (&json!(2), 1));
}

#[tokio::test]
async fn older_server_never_completes_a_run_without_rows() {
    let posthog = exporting(Server::before_2026(), Exports::default()).await;
    let empty = start(&posthog, &hour()).await;
    assert_eq!(status(&posthog, &empty).await, json!({"status": "Running"}));
    let at = ago(HOUR + HOUR / 2);
    posthog.insert(1001, vec![event(1, at, at)]);
    let run = start(&posthog, &hour()).await;
    let answer = status(&posthog, &run).await;
    assert_eq!((&answer["status"], answer.get("records_completed")), (&json!("Completed"), None));
}

#[tokio::test]
async fn files_are_noted_one_by_one() {
    let wait = Duration::from_millis(300);
    let slow = Exports { completed_lag: wait, files_apart: 2 * wait, rows_per_file: Some(1), ..Exports::default() };
    let mut server = Server::cloud_2026();
    for count in [RecordsCompleted::Reported, RecordsCompleted::Null] {
        server.exports.records_completed = count;
        let posthog = exporting(server.clone(), slow.clone()).await;
        let at = ago(HOUR + HOUR / 2);
        posthog.insert(1001, vec![event(1, at, at), event(2, at, at)]);
        let run = start(&posthog, &hour()).await;
        let first = status(&posthog, &run).await;
        if count == RecordsCompleted::Null {
            let wanted = json!({"status": "Completed", "files": [], "records_completed": null});
            assert_eq!(first, wanted, "without a count nobody can tell it from an empty run");
        } else {
            assert_eq!(first, json!({"status": "Running"}));
        }
        let early = download(&posthog, &run, "0").await;
        assert_eq!((early.status, early.detail().as_str()), (404, "No files with index 0"));
        let mut seen = Vec::new();
        while seen.last() != Some(&2) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let answer = status(&posthog, &run).await;
            seen.push(answer["files"].as_array().map_or(0, Vec::len));
        }
        assert!(seen.contains(&1) && seen.is_sorted(), "{seen:?}");
        assert_eq!(download(&posthog, &run, "1").await.status, 302);
    }
}

#[tokio::test]
async fn twenty_first_run_is_refused_until_one_is_cancelled() {
    let slow = Exports { running: Duration::from_hours(1), ..Exports::default() };
    let posthog = exporting(Server::cloud_2026(), slow).await;
    let mut runs = Vec::new();
    for _ in 0..20 {
        runs.push(start(&posthog, &hour()).await);
    }
    let refused = post(&posthog, PATH, &hour()).await;
    assert_eq!((refused.status, &refused.json()["code"]), (429, &json!("too_many_concurrent_file_downloads")));
    assert_eq!(refused.header("retry-after"), None);
    let cancel = format!("{PATH}{}/cancel/", runs[0]);
    let cancelled = post(&posthog, &cancel, &json!({})).await;
    assert_eq!((cancelled.status, cancelled.json()), (200, json!({"status": "Cancelled"})));
    assert_eq!(status(&posthog, &runs[0]).await, json!({"status": "Cancelled"}));
    assert_eq!(post(&posthog, &cancel, &json!({})).await.detail(), "Cannot cancel a run that is in 'Cancelled' status");
    assert_eq!(download(&posthog, &runs[0], "0").await.detail(), "Batch export run was cancelled");
    start(&posthog, &hour()).await;
    let listed = get(&posthog, &format!("{PATH}?limit=1"), "phx_full").await.json();
    assert_eq!(listed["results"][0].as_object().unwrap().keys().collect::<Vec<_>>(), ["id", "status"]);
}

#[tokio::test]
async fn hanging_run_stays_running_until_it_is_cancelled() {
    let rule = HangingRuns::default;
    let hanging = vec![
        HangingRuns { over_hours: Some(6), ..rule() },
        HangingRuns { nth: vec![2], ..rule() },
        HangingRuns { models: vec!["sessions".to_owned()], ..rule() },
    ];
    let posthog = exporting(Server::cloud_2026(), Exports { hanging, ..Exports::default() }).await;
    for (model, hours, wanted) in
        [("events", 6, "Completed"), ("events", 1, "Running"), ("events", 7, "Running"), ("sessions", 1, "Running")]
    {
        let run = start(&posthog, &request(model, ago(hours * HOUR), ago(0))).await;
        assert_eq!(status(&posthog, &run).await["status"], wanted, "{model} over {hours} hours");
        if wanted == "Running" {
            assert_eq!(post(&posthog, &format!("{PATH}{run}/cancel/"), &json!({})).await.status, 200);
            assert_eq!(status(&posthog, &run).await, json!({"status": "Cancelled"}));
        }
    }
    let outcome = ExportOutcome { nth: vec![5], status: "FailedBilling".to_owned(), error: "no plan".to_owned() };
    posthog.set_exports(Exports { outcomes: vec![outcome], ..Exports::default() });
    let failed = start(&posthog, &hour()).await;
    assert_eq!(status(&posthog, &failed).await["status"], "FailedBilling", "only because the test wants it");
}

#[tokio::test]
async fn hobby_instances_validate_and_never_finish() {
    let probe = json!({"model": "events"});
    let posthog = exporting(Server::hobby_without_bucket(), Exports::default()).await;
    assert_eq!(post(&posthog, PATH, &probe).await.status, 400);
    let run = start(&posthog, &hour()).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(status(&posthog, &run).await, json!({"status": "Running"}));
    assert_eq!(post(&posthog, &format!("{PATH}{run}/cancel/"), &json!({})).await.status, 200);

    let posthog = exporting(Server::hobby_without_temporal(), Exports::default()).await;
    assert_eq!(post(&posthog, PATH, &probe).await.status, 400);
    let refused = post(&posthog, PATH, &hour()).await;
    assert_eq!(refused.status, 500);
    assert!(refused.detail().starts_with("The batch export failed to start."), "{}", refused.text());
    assert_eq!(posthog.export_runs()[0].status, "Failed");
}

#[tokio::test]
async fn intervals_end_in_the_past_and_within_a_week() {
    let posthog = exporting(Server::cloud_2026(), Exports::default()).await;
    for (start, end, wanted) in [
        (ago(HOUR), ago(-HOUR), "The provided 'data_interval_end' ("),
        (ago(7 * DAY + 2 * HOUR), ago(HOUR), "data interval range too big."),
        (ago(HOUR), ago(2 * HOUR), "'data_interval_end' must occur after"),
    ] {
        let refused = post(&posthog, PATH, &request("events", start, end)).await;
        assert_eq!(refused.status, 400);
        assert!(refused.detail().starts_with(wanted), "{}", refused.detail());
    }
    let future = request("events", ago(HOUR), ago(-HOUR));
    posthog.set_server(Server::forgiving());
    start(&posthog, &future).await;
}
