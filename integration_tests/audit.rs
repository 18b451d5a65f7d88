//! Silent disagreement is noticed every time: rows that are dropped, doubled, clamped or miscounted.

use posthog_sandbox::posthog::{Action, Fault, Sandbox};

use crate::support::program::{Source, catalog};
use crate::support::world::{PROJECT, assert_events, events, sandbox, within_a_day};

async fn sandbox_with_events() -> Sandbox {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, events(1_700, within_a_day()));
    posthog
}

/// What airbytehq/airbyte#86492 is about: a cap of 1,000 rows that the server keeps to itself. Every
/// slice with more events lost the rest, and the sync succeeded.
#[tokio::test]
async fn airbyte_86492_a_silent_cap_of_1000_rows_loses_nothing() {
    let posthog = Sandbox::builder().page_clamp(1_000).start().await.unwrap();
    posthog.insert(PROJECT, events(4_321, within_a_day()));
    for mode in ["full_refresh", "incremental"] {
        let messages = Source::new(&posthog.url()).read_all(&catalog(&["events"], mode), None).await;
        assert_events(&messages, &posthog, &[PROJECT]);
        assert_eq!(messages.ids("events").len(), 4_321, "nothing is read twice");
    }
}

#[tokio::test]
async fn a_disagreement_that_passes_is_mended_by_reading_again() {
    for action in [
        Action::DropRows { rows: 1 },
        Action::DropRows { rows: 40 },
        Action::DuplicateRows { rows: 3 },
        Action::Clamp { rows: 100 },
    ] {
        let posthog = sandbox_with_events().await;
        posthog.set_faults(vec![Fault::query(action.clone()).sql("properties").nth(&[1])]).unwrap();
        let source = Source::new(&posthog.url()).with_page_size(600);
        let messages = source.read_all(&catalog(&["events"], "incremental"), None).await;
        assert_events(&messages, &posthog, &[PROJECT]);
        assert!(posthog.requests().iter().any(|request| request.fault.is_some()), "{action:?} did not happen");
    }
}

#[tokio::test]
async fn a_wrong_count_that_passes_does_no_harm() {
    for by in [-3, 5] {
        let posthog = sandbox_with_events().await;
        posthog.set_faults(vec![Fault::query(Action::WrongCount { by }).nth(&[1])]).unwrap();
        let source = Source::new(&posthog.url()).with_page_size(600);
        let messages = source.read_all(&catalog(&["events"], "incremental"), None).await;
        assert_events(&messages, &posthog, &[PROJECT]);
    }
}

#[tokio::test]
async fn a_disagreement_that_stays_is_an_error_with_window_and_counts() {
    let miscounted = Action::Status { code: 200, body: r#"{"results":[[1707]]}"#.into(), headers: Vec::new() };
    for (faults, what) in [
        (vec![Fault::query(Action::DropRows { rows: 2 }).sql("properties")], "rows are dropped"),
        (
            vec![
                Fault::query(Action::WrongCount { by: 7 }).sql("GROUP BY day"),
                Fault::query(miscounted).sql("uniqExact"),
            ],
            "rows are miscounted",
        ),
    ] {
        let posthog = sandbox_with_events().await;
        posthog.set_faults(faults).unwrap();
        let source = Source::new(&posthog.url());
        let catalog = catalog(&["events"], "incremental");
        let outcome = source.read(&catalog, None).await;
        assert_eq!(outcome.code, Some(1), "{what}");
        let error = outcome.messages.errors().join("\n");
        assert!(error.starts_with("system_error: project 1001: events from 20"), "{error}");
        assert!(error.contains("read,") && error.contains("stored"), "{error}");
        assert_eq!(outcome.messages.statuses("events").last().unwrap(), "INCOMPLETE");
        // The window is still open: the next sync counts it again, and reads it again if need be.
        posthog.set_faults(Vec::new()).unwrap();
        let again = source.read_all(&catalog, Some(&outcome.messages.state())).await;
        let union = outcome.messages.id_set("events").union(&again.id_set("events")).count();
        assert_eq!(union, 1_700, "{what}");
    }
}

#[tokio::test]
async fn an_answer_that_repeats_itself_is_refused() {
    let posthog = sandbox_with_events().await;
    let body = r#"{"results":[["00000000-0000-0000-0000-000000000001","e","{}","2026-01-01T00:00:00Z","2026-01-01T00:00:00Z","d","","00000000-0000-0000-0000-000000000001","","","","","","","","full"]]}"#;
    let same = Action::Status { code: 200, body: body.into(), headers: Vec::new() };
    posthog.set_faults(vec![Fault::query(same).sql("properties")]).unwrap();
    let outcome = Source::new(&posthog.url()).read(&catalog(&["events"], "incremental"), None).await;
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.messages.errors()[0].contains("again and again"), "{:?}", outcome.messages.errors());
}
