//! `max_exported_rows`: a sync ends before it starts an export run that would pass it.

use std::collections::BTreeSet;

use posthog_sandbox::posthog::{Event, Exports, Sandbox};
use serde_json::json;
use source_posthog::time::Timestamp;

use crate::support::program::{Source, catalog};
use crate::support::world::{
    EXPORT_KEY, PROJECT, event, event_ids, minutes_ago, person, sandbox_with_exports, sandbox_without_queries, weekly,
};

const MINUTES_A_WEEK: i64 = 7 * 24 * 60;

fn exported(posthog: &Sandbox, since: usize) -> usize {
    posthog.export_runs()[since..].iter().map(|run| run.rows).sum()
}

#[tokio::test]
async fn sync_ends_before_a_run_that_would_pass_the_limit_and_the_next_one_goes_on() {
    let posthog = sandbox_with_exports(Exports::default()).await;
    posthog.insert(PROJECT, weekly(6, 50));
    let source = Source::new(&posthog.url()).with_exports().with("max_exported_rows", json!(120));
    let catalog = catalog(&["events"], "incremental");
    let (mut state, mut ids) = (None, Vec::new());
    for (most, complete) in [(100, false), (100, false), (100, true)] {
        let before = posthog.export_runs().len();
        let outcome = source.read(&catalog, state.as_ref()).await;
        let messages = &outcome.messages;
        ids.extend(messages.ids("events"));
        let rows = exported(&posthog, before);
        assert_eq!((outcome.code, rows), (Some(i32::from(!complete)), most), "{}", messages.without_records());
        assert!(posthog.export_runs().iter().all(|run| run.status == "Completed"), "no run is left or cancelled");
        if !complete {
            assert_eq!(messages.ids("events").len(), rows, "what was exported is read");
            let error = messages.errors().join("\n");
            assert!(error.contains("`max_exported_rows` is 120") && error.contains("have 100 rows"), "{error}");
            assert!(error.contains("would add about 50"), "{error}");
            assert!(messages.text().contains("config_error"), "{}", messages.without_records());
        }
        state = Some(messages.state());
    }
    assert_eq!(ids.iter().cloned().collect::<BTreeSet<_>>(), event_ids(&posthog));
    assert_eq!(ids.len(), 300, "nothing came twice");
}

#[tokio::test]
async fn limit_that_is_not_passed_changes_nothing() {
    let posthog = sandbox_with_exports(Exports::default()).await;
    posthog.insert(PROJECT, weekly(4, 50));
    let catalog = catalog(&["events"], "incremental");
    let source = |most: u32| Source::new(&posthog.url()).with_exports().with("max_exported_rows", json!(most));
    let whole = source(200).read_all(&catalog, None).await;
    assert_eq!(whole.id_set("events"), event_ids(&posthog));
    let runs = posthog.export_runs().len();
    let outcome = source(199).read(&catalog, None).await;
    assert_eq!((outcome.code, exported(&posthog, runs)), (Some(1), 150));
}

#[tokio::test]
async fn syncs_that_may_export_nothing_start_no_run() {
    let posthog = sandbox_with_exports(Exports::default()).await;
    posthog.insert(PROJECT, daily(2));
    let source = Source::new(&posthog.url()).with_exports().with("max_exported_rows", json!(49));
    let outcome = source.read(&catalog(&["events"], "full_refresh"), None).await;
    assert_eq!((outcome.code, posthog.export_runs().len()), (Some(1), 0));
    let error = outcome.messages.errors().join("\n");
    assert!(error.contains("no sync with this limit gets any further"), "{error}");
    assert!(error.contains("raise `max_exported_rows` to 50 at least, or set `method` to `query`"), "{error}");
}

/// Fifty events at half past noon of each of so many days that are past.
fn daily(days: i64) -> Vec<Event> {
    let today = Timestamp::from_micros(minutes_ago(0)).day();
    let of_day = |day: i64| {
        let noon = Timestamp::from_day(today - day - 1).plus_micros(45_000_000_000).micros();
        (0..50).map(move |number| event(u128::try_from(day * 50 + number).unwrap(), noon))
    };
    (0..days).flat_map(of_day).collect()
}

/// A run of a week would have 350 rows. It is cut until it fits, so that every sync gets further.
#[tokio::test]
async fn runs_that_fit_in_no_sync_are_cut() {
    let posthog = sandbox_with_exports(Exports::default()).await;
    posthog.insert(PROJECT, daily(14));
    let source = Source::new(&posthog.url()).with_exports().with("max_exported_rows", json!(120));
    let catalog = catalog(&["events"], "incremental");
    let (mut state, mut ids, mut syncs) = (None, Vec::new(), 0);
    loop {
        let before = posthog.export_runs().len();
        let outcome = source.read(&catalog, state.as_ref()).await;
        ids.extend(outcome.messages.ids("events"));
        let rows = exported(&posthog, before);
        assert!(rows <= 120, "{rows} rows: {}", outcome.messages.without_records());
        state = Some(outcome.messages.state());
        syncs += 1;
        if outcome.code == Some(0) {
            break;
        }
        assert!(rows > 0 && syncs < 14, "{syncs} syncs: {}", outcome.messages.without_records());
    }
    assert_eq!(ids.iter().cloned().collect::<BTreeSet<_>>(), event_ids(&posthog));
    assert_eq!(ids.len(), 700, "nothing came twice");
}

/// PostHog does not count persons by the time of their change, so their runs are started one by one.
#[tokio::test]
async fn runs_of_unknown_size_end_with_the_one_that_passes_the_limit() {
    let posthog = sandbox_with_exports(Exports::default()).await;
    for week in 1..6_i64 {
        let changed = minutes_ago(week * MINUTES_A_WEEK - 60);
        let of_week = u128::try_from(week * 100).unwrap();
        (0..30).for_each(|number| posthog.insert_person(PROJECT, person(of_week + number, changed, None)));
    }
    let source = Source::new(&posthog.url()).with_exports().with("max_exported_rows", json!(50));
    let catalog = catalog(&["persons"], "incremental");
    let first = source.read(&catalog, None).await;
    assert_eq!((first.code, exported(&posthog, 0)), (Some(1), 60), "{}", first.messages.without_records());
    assert!(first.messages.errors().join("\n").contains("would add more"), "{:?}", first.messages.errors());
    let second = source.read(&catalog, Some(&first.messages.state())).await;
    let union: BTreeSet<String> =
        first.messages.id_set("persons").union(&second.messages.id_set("persons")).cloned().collect();
    assert_eq!(union.len(), 120);
}

#[tokio::test]
async fn limit_holds_without_a_key_that_may_count() {
    let posthog = sandbox_without_queries(Exports::default()).await;
    posthog.insert(PROJECT, weekly(4, 50));
    let source = Source::new(&posthog.url())
        .with_exports()
        .with("api_key", json!(EXPORT_KEY))
        .with("start_date", json!(Timestamp::from_micros(minutes_ago(5 * MINUTES_A_WEEK))))
        .with("max_exported_rows", json!(60));
    let outcome = source.read(&catalog(&["events"], "incremental"), None).await;
    assert_eq!((outcome.code, exported(&posthog, 0)), (Some(1), 100), "{}", outcome.messages.without_records());
}
