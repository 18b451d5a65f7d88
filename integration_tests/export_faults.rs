//! What can go wrong with exports: runs that fail, files that come broken, hosts that redirect.

use std::collections::BTreeMap;
use std::time::Duration;

use posthog_sandbox::posthog::{Action, ExportOutcome, Exports, Fault, Sandbox};
use serde_json::{Value, json};

use crate::support::program::{Source, catalog};
use crate::support::world::{
    EXPORT_KEY, PROJECT, assert_exported_events, assert_no_duplicates, event_ids, events, minutes_ago,
    sandbox_with_exports, sandbox_without_queries, two_hours_ago,
};

fn outcome(status: &str, nth: &[u64]) -> ExportOutcome {
    ExportOutcome { nth: nth.to_vec(), status: status.into(), error: format!("it was {status}") }
}

async fn sandbox_with_events(exports: Exports, count: u32) -> Sandbox {
    let posthog = sandbox_with_exports(exports).await;
    posthog.insert(PROJECT, events(count, minutes_ago(90)));
    posthog
}

#[tokio::test]
async fn truncated_file_is_downloaded_again_without_duplicates() {
    let xml = |code: u16| Action::Status {
        code,
        body: "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>".to_owned(),
        headers: Vec::new(),
    };
    let posthog = sandbox_with_exports(Exports { rows_per_file: Some(400), ..Exports::default() }).await;
    posthog.generate(PROJECT, 1_000, 5, two_hours_ago());
    let all = vec![
        Action::Truncate { fraction: 0.6 },
        Action::ResetMidBody { fraction: 0.3 },
        Action::Reset,
        Action::Stall { wait: Duration::from_secs(30) },
        Action::CutGzip,
        Action::BrokenLine,
        Action::Drip { pieces: 7, over: Duration::from_millis(100) },
        xml(403),
        xml(503),
    ];
    for (ranges, actions) in [(true, all), (false, vec![Action::Truncate { fraction: 0.6 }])] {
        posthog.set_exports(Exports { rows_per_file: Some(400), ranges, ..Exports::default() });
        for action in actions {
            posthog.set_faults(vec![Fault::files(action.clone()).nth(&[1, 4])]).unwrap();
            posthog.clear_requests();
            let source = Source::new(&posthog.url()).with_exports().with("read_timeout_seconds", json!(1));
            let messages = source.read_all(&catalog(&["events"], "incremental"), None).await;
            assert_exported_events(&messages, &posthog, &[PROJECT]);
            assert_no_duplicates(&messages);
            let requests = posthog.file_requests();
            assert!(requests.iter().filter(|request| request.fault.is_some()).count() >= 2, "{action:?} {requests:?}");
            if matches!(action, Action::Truncate { .. } | Action::ResetMidBody { .. }) {
                let resumed = requests.iter().any(|request| request.status == Some(206));
                assert_eq!(resumed, ranges, "{action:?} continued in the middle: {requests:?}");
            }
        }
    }
}

#[tokio::test]
async fn records_of_a_corrupted_file_are_replaced_by_correct_ones() {
    let posthog = sandbox_with_exports(Exports::default()).await;
    posthog.generate(PROJECT, 700, 5, two_hours_ago());
    posthog.set_faults(vec![Fault::files(Action::CorruptByte).nth(&[1, 3, 5])]).unwrap();
    let source = Source::new(&posthog.url()).with_exports();
    let messages = source.read_all(&catalog(&["events"], "incremental"), None).await;
    let mut last: BTreeMap<&str, &Value> = BTreeMap::new();
    for record in messages.records("events") {
        last.insert(record["id"].as_str().unwrap(), record);
    }
    for event in posthog.events(PROJECT) {
        let record = last[event.uuid.to_string().as_str()];
        assert_eq!((&record["event"], &record["distinct_id"]), (&json!(event.event), &json!(event.distinct_id)));
    }
    assert!(posthog.file_requests().iter().any(|request| request.fault == Some("corrupt_byte")));
}

#[tokio::test]
async fn permanently_broken_file_fails_the_stream_and_the_state_stays_before_it() {
    let posthog = sandbox_with_events(Exports::default(), 50).await;
    posthog.set_faults(vec![Fault::files(Action::CutGzip)]).unwrap();
    let source = Source::new(&posthog.url()).with_exports().with("attempts", json!(3));
    let catalog = catalog(&["events"], "incremental");
    let outcome = source.read(&catalog, None).await;
    assert_eq!(outcome.code, Some(1));
    let errors = outcome.messages.errors().join("\n");
    assert!(errors.contains("transient_error: project 1001") && errors.contains("cut or corrupt"), "{errors}");
    assert_eq!(outcome.messages.statuses("events").last().map(String::as_str), Some("INCOMPLETE"));
    posthog.set_faults(Vec::new()).unwrap();
    let runs = posthog.export_runs().len();
    let rest = source.read_all(&catalog, Some(&outcome.messages.state())).await;
    assert_exported_events(&rest, &posthog, &[PROJECT]);
    assert!(posthog.export_runs().len() <= runs + 1, "the same run is continued");
}

#[tokio::test]
async fn api_key_is_never_sent_to_the_file_host() {
    let exports = Exports { redirects: 3, redirect_back: true, ..Exports::default() };
    let posthog = sandbox_with_events(exports, 50).await;
    let messages =
        Source::new(&posthog.url()).with_exports().read_all(&catalog(&["events"], "incremental"), None).await;
    assert_exported_events(&messages, &posthog, &[PROJECT]);
    assert_eq!(posthog.authorization_leaks(), 0);
    assert!(posthog.file_requests().iter().all(|request| !request.authorized));
    let detours: Vec<_> =
        posthog.requests().into_iter().filter(|request| request.path.starts_with("/detour")).collect();
    assert!(!detours.is_empty() && detours.iter().all(|request| !request.authorized), "{detours:?}");
}

#[tokio::test]
async fn failed_runs_are_started_again() {
    for status in ["Failed", "FailedRetryable", "Terminated", "TimedOut", "Cancelled"] {
        let exports = Exports { outcomes: vec![outcome(status, &[1, 2])], start_errors: vec![3], ..Exports::default() };
        let posthog = sandbox_with_events(exports, 50).await;
        let source = Source::new(&posthog.url()).with_exports().with("concurrency", json!(1));
        let messages = source.read_all(&catalog(&["events"], "incremental"), None).await;
        assert_exported_events(&messages, &posthog, &[PROJECT]);
        let warnings = messages.logs("WARN").join("\n");
        assert!(warnings.contains(status) && warnings.contains("it is started again"), "{status}: {warnings}");
        let runs = posthog.export_runs();
        assert!(
            runs.windows(2)
                .all(|pair| pair[0].start == pair[1].start || pair[0].status == "Completed" || status == "TimedOut")
        );
    }
}

#[tokio::test]
async fn window_that_cannot_be_exported_is_read_by_query() {
    let all: Vec<u64> = (1..50).collect();
    let posthog =
        sandbox_with_events(Exports { outcomes: vec![outcome("Failed", &all)], ..Exports::default() }, 50).await;
    let source = Source::new(&posthog.url()).with_exports();
    let messages = source.read_all(&catalog(&["events"], "incremental"), None).await;
    assert_eq!(messages.id_set("events").len(), 50);
    let warnings = messages.logs("WARN").join("\n");
    assert!(warnings.contains("Failed"), "{warnings}");
    assert!(warnings.contains("is read by query"), "{warnings}");
    assert!(posthog.export_runs().len() < 12, "{} runs", posthog.export_runs().len());
}

#[tokio::test]
async fn repeatedly_failing_run_fails_the_stream_of_a_key_that_may_not_query() {
    let all: Vec<u64> = (1..50).collect();
    let exports = Exports { outcomes: vec![outcome("Failed", &all)], ..Exports::default() };
    let posthog = sandbox_without_queries(exports).await;
    posthog.insert(PROJECT, events(50, minutes_ago(300)));
    let source = Source::new(&posthog.url()).with_exports().with("api_key", json!(EXPORT_KEY));
    let outcome = source.read(&catalog(&["events"], "incremental"), None).await;
    assert_eq!(outcome.code, Some(1));
    let errors = outcome.messages.errors().join("\n");
    assert!(errors.contains("transient_error") && errors.contains("Failed"), "{errors}");
    assert!(posthog.export_runs().len() < 12, "{} runs", posthog.export_runs().len());
}

#[tokio::test]
async fn billing_failure_is_explained_in_the_error_or_queries_go_on() {
    let all: Vec<u64> = (1..50).collect();
    let posthog =
        sandbox_with_events(Exports { outcomes: vec![outcome("FailedBilling", &all)], ..Exports::default() }, 50).await;
    let catalog = catalog(&["events"], "incremental");
    let automatic = Source::new(&posthog.url()).read_all(&catalog, None).await;
    assert_eq!(automatic.id_set("events"), event_ids(&posthog));
    let warnings = automatic.logs("WARN").join("\n");
    assert!(warnings.contains("because of billing") && warnings.contains("are read by query"), "{warnings}");
    let outcome = Source::new(&posthog.url()).with_exports().read(&catalog, None).await;
    assert_eq!(outcome.code, Some(1));
    let errors = outcome.messages.errors().join("\n");
    for expected in ["config_error: project 1001", "billing", "set `method` to `query`"] {
        assert!(errors.contains(expected), "{errors}");
    }
}

#[tokio::test]
async fn sync_waits_for_slow_runs_and_late_files() {
    let exports = Exports {
        starting: Duration::from_millis(300),
        running: Duration::from_millis(300),
        completed_lag: Duration::from_millis(300),
        ..Exports::default()
    };
    let posthog = sandbox_with_events(exports, 50).await;
    let messages =
        Source::new(&posthog.url()).with_exports().read_all(&catalog(&["events"], "incremental"), None).await;
    assert_exported_events(&messages, &posthog, &[PROJECT]);
}

#[tokio::test]
async fn interval_that_is_too_long_for_the_server_is_split() {
    let posthog = sandbox_with_exports(Exports::default()).await;
    posthog.generate(PROJECT, 200, 5, two_hours_ago());
    let body =
        r#"{"type":"validation_error","code":"invalid_input","detail":"data interval range too big","attr":null}"#;
    let too_big = Action::Status { code: 400, body: body.to_owned(), headers: Vec::new() };
    posthog
        .set_faults(vec![Fault::new(too_big).method("POST").path("file_download").sql("data_interval").nth(&[1, 2])])
        .unwrap();
    let messages =
        Source::new(&posthog.url()).with_exports().read_all(&catalog(&["events"], "incremental"), None).await;
    assert_exported_events(&messages, &posthog, &[PROJECT]);
    let runs = posthog.export_runs();
    assert!(runs.len() >= 3 && runs.windows(2).all(|pair| pair[0].end == pair[1].start), "{runs:?}");
}

#[tokio::test]
async fn project_without_events_starts_no_run() {
    let posthog = sandbox_with_exports(Exports::default()).await;
    let messages =
        Source::new(&posthog.url()).with_exports().read_all(&catalog(&["events"], "incremental"), None).await;
    assert!(messages.records("events").is_empty() && posthog.export_runs().is_empty());
}
