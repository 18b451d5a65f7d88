//! Limits over hours, by a clock that is turned forward whenever everybody waits.
//!
//! The sandbox refuses whatever is over PostHog's limits.

use std::time::Duration;

use posthog_sandbox::posthog::{Action, Budget, Fault, Limits, RequestLog, Sandbox};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::messages::Messages;
use crate::support::program::catalog;
use crate::support::turned_clock;
use crate::support::world::{PROJECT, assert_events, event, minutes_ago, sandbox};

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// Reads all events page by page, on this runtime's clock. Returns how long that took.
async fn read(posthog: &Sandbox, page_size: u32, settings: Value) -> (Messages, Duration) {
    let method = json!({"type": "query", "page_size": page_size, "settle_minutes": 0});
    let mut settings = settings;
    settings["method"] = method;
    turned_clock::read(posthog, &catalog(&["events"], "incremental"), None, &settings).await
}

/// Events on many days: a large project for whoever reads two rows at a time.
async fn sandbox_with_many_days(count: u32) -> Sandbox {
    let posthog = sandbox().await;
    let at = |number: u32| minutes_ago(600) - i64::from(number) * 40 * 60_000_000;
    posthog.insert(PROJECT, (0..count).map(|number| event(u128::from(number), at(number))).collect());
    posthog.clear_requests();
    posthog
}

fn queries(posthog: &Sandbox) -> Vec<RequestLog> {
    posthog.requests().into_iter().filter(|request| request.sql.is_some()).collect()
}

/// The most queries within any such time.
fn most_within(requests: &[RequestLog], time: Duration) -> usize {
    let begins = requests.iter().enumerate();
    begins
        .map(|(index, first)| requests[index..].iter().take_while(|one| one.instant - first.instant < time).count())
        .max()
        .unwrap_or(0)
}

#[tokio::test(start_paused = true)]
async fn one_hour_of_queries_stays_within_all_limits() {
    let posthog = sandbox_with_many_days(5_400).await;
    posthog.set_limits(Limits { latency: Duration::from_millis(300), ..Limits::posthog() });
    let (messages, took) = read(&posthog, 2, json!({"rate_limit_share": 1})).await;
    assert_events(&messages, &posthog, &[PROJECT]);
    let queries = queries(&posthog);
    assert!(queries.len() > 2_600, "only {} queries", queries.len());
    assert!(queries.iter().all(|query| query.status == Some(200)), "a query was refused");
    assert_eq!(posthog.stats().peak_queries, 3);
    assert_eq!((most_within(&queries, MINUTE), most_within(&queries, HOUR)), (240, 2_400), "all of it is used");
    assert!(took > HOUR && took < HOUR + Duration::from_mins(5), "{took:?}");
    let waits = messages.statuses("events").iter().filter(|status| *status == "RATE_LIMITED").count();
    assert!(waits > 0, "nobody was told");
}

#[tokio::test(start_paused = true)]
async fn queries_use_at_most_the_configured_share_of_the_limits() {
    let posthog = sandbox_with_many_days(1_400).await;
    posthog.set_limits(Limits { latency: Duration::from_millis(50), ..Limits::posthog() });
    let (messages, took) = read(&posthog, 2, json!({"rate_limit_share": 0.25, "concurrency": 2})).await;
    assert_events(&messages, &posthog, &[PROJECT]);
    let queries = queries(&posthog);
    assert!(queries.iter().all(|query| query.status == Some(200)));
    assert_eq!((most_within(&queries, MINUTE), most_within(&queries, HOUR)), (60, 600));
    assert!(posthog.stats().peak_queries <= 2);
    assert!(took > HOUR, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn one_throttled_request_pauses_all_requests() {
    let posthog = sandbox_with_many_days(600).await;
    posthog.set_limits(Limits { latency: Duration::from_millis(300), ..Limits::default() });
    posthog.set_faults(vec![Fault::query(Action::throttle(100)).nth(&[20, 60])]).unwrap();
    let (messages, _) = read(&posthog, 2, json!({"rate_limit_share": 1})).await;
    assert_events(&messages, &posthog, &[PROJECT]);
    let requests = posthog.requests();
    let refused: Vec<Instant> =
        requests.iter().filter(|request| request.status == Some(429)).map(|request| request.instant).collect();
    assert_eq!(refused.len(), 2);
    for refused in refused {
        let early = requests
            .iter()
            .filter(|request| request.instant > refused && request.instant < refused + Duration::from_secs(100));
        assert_eq!(early.count(), 0, "a request was sent although it would be refused");
        assert!(
            requests
                .iter()
                .any(|request| request.instant < refused + Duration::from_secs(102) && request.instant > refused)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn sync_does_not_knowingly_exceed_the_byte_budget() {
    let posthog = sandbox_with_many_days(900).await;
    // A sixth of what the sync reads at the beginning, and a third of it every hour.
    let budget = Budget { bytes_per_hour: 200e3, capacity: 100e3, start: 100e3 };
    posthog.set_limits(Limits { budget: Some(budget), latency: Duration::from_millis(300), ..Limits::posthog() });
    let (messages, took) = read(&posthog, 10, json!({"rate_limit_share": 1, "concurrency": 1})).await;
    assert_events(&messages, &posthog, &[PROJECT]);
    let queries = queries(&posthog);
    let refused: Vec<&RequestLog> = queries.iter().filter(|query| query.status == Some(429)).collect();
    assert!(!refused.is_empty(), "the budget was never used up in {took:?}");
    #[expect(clippy::cast_precision_loss, reason = "not exact to the byte")]
    let bytes = queries.iter().filter_map(|query| query.bytes_read).sum::<u64>() as f64;
    let allowed = budget.start + budget.bytes_per_hour * took.as_secs_f64() / 3_600.0;
    // What one query reads shows only when it has been answered.
    #[expect(clippy::cast_precision_loss, reason = "not exact to the byte")]
    let largest = queries.iter().filter_map(|query| query.bytes_read).max().unwrap_or_default() as f64;
    assert!(bytes < allowed + budget.start + largest, "{bytes} bytes where {allowed} were allowed");
    // After each refusal the time that the server names is waited for, so what is sent next is answered.
    for refused in &refused {
        let next = queries.iter().map(|query| query.instant).filter(|instant| *instant > refused.instant).min();
        let next = queries.iter().find(|query| Some(query.instant) == next);
        assert!(next.is_none_or(|next| next.status == Some(200)), "{refused:?}, then {next:?}");
    }
    // An answer that left nothing is not followed by a question at once.
    for pair in queries.windows(2).filter(|pair| pair[0].status == Some(200) && pair[1].status == Some(429)) {
        assert!(pair[1].instant - pair[0].instant > Duration::from_secs(1), "{pair:?}");
    }
    // How long the debt lasts is not known before the first refusal of each.
    assert!(refused.len() * 2 < queries.len(), "{} of {} queries were refused", refused.len(), queries.len());
}
