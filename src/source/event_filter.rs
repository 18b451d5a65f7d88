//! The user's condition on events: tried by `check`, and what is said about it.

use serde_json::Map;

use crate::config::Config;
use crate::error::Error;
use crate::posthog::http::{Client, GiveUp, Refusal, Retry, Silent};
use crate::posthog::query::small_with_retry;
use crate::posthog::{Predicate, Query};
use crate::streams::EVENTS;
use crate::time::{Timestamp, days};

/// Why events are not exported.
pub(super) const BY_QUERY: &str =
    "events are read by query, because `event_filter` cannot be applied to exported files";

/// Tries the condition, if there is one, on the events of the last day. Returns how many fulfil it; none if that
/// takes too long.
///
/// # Errors
/// When PostHog refuses the condition.
pub(super) async fn count_of_a_day(
    client: &Client,
    config: &Config,
    project: u64,
    retry: Retry,
) -> Result<Option<u64>, Error> {
    let Some(filter) = &config.event_filter else { return Ok(None) };
    let query = events_of_a_day(filter, client.now());
    match small_with_retry::<(u64,)>(client, project, &query, &Silent, retry).await {
        Ok(response) => Ok(response.rows.first().map(|row| row.0)),
        Err(GiveUp::TooLarge { .. }) => Ok(None),
        Err(GiveUp::Refused(refusal)) => Err(refused(&refusal)),
        Err(give_up) => Err(give_up.into()),
    }
}

fn events_of_a_day(filter: &str, now: Timestamp) -> Query {
    let mut predicate = Predicate::default();
    predicate.range(EVENTS.sort_key, now.minus(days(1)), now);
    // A line feed ends a comment that the condition may end with.
    predicate.condition(format!("({filter}\n)"), Map::new());
    predicate.select("count()", EVENTS.from, "LIMIT 1")
}

/// The refusal of a query that has the condition in it.
pub(super) fn refused(refusal: &Refusal) -> Error {
    if refusal.status != 400 {
        return GiveUp::Refused(refusal.clone()).into();
    }
    Error::config(format!("`event_filter` is refused by PostHog: {}; correct it", refusal.detail))
}
