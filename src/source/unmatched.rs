//! Names and dates of the configuration that nothing in PostHog matches. A misspelt event is no error, but it
//! is hardly meant.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::config::Config;
use crate::posthog::account::ApiKey;
use crate::posthog::http::{Client, Observer, Retry};
use crate::posthog::lists::{PAGE, Pages};
use crate::posthog::query::{MOST_ROWS, small_with_retry};
use crate::posthog::{Predicate, Query};
use crate::streams::EVENTS;
use crate::time::{Timestamp, days};

/// Names are suggested from the events of so many days.
const RECENT_DAYS: u32 = 30;
/// How alike two names have to be, from 0 to 1.
const ALIKE: f64 = 0.75;
/// Attempts at a request whose answer is only for a notice.
const ATTEMPTS: usize = 2;

/// What to say when nothing is read because of the start date.
pub(super) fn future_start(config: &Config, now: Timestamp) -> Option<String> {
    let start = config.start;
    (start > now).then(|| {
        format!("`start_date` ({start}) is in the future (PostHog's clock says {now}); no events are read until then")
    })
}

/// Notices about event names that no event has, in none of the projects, at the times that are asked for.
pub(super) async fn events(client: &Client, config: &Config, projects: &[u64], observer: &dyn Observer) -> Vec<String> {
    let chosen: BTreeSet<&str> =
        config.include_events.iter().chain(&config.exclude_events).map(String::as_str).collect();
    let mut missing = chosen.clone();
    for project in projects {
        if missing.is_empty() {
            return Vec::new();
        }
        let Some(names) = names(client, *project, &of_names(config, &missing), observer).await else {
            // What is not known is no reason for a warning.
            return Vec::new();
        };
        missing.retain(|name| !names.iter().any(|known| known == name));
    }
    let mut known = Vec::new();
    if !missing.is_empty() {
        let now = client.now();
        for project in projects {
            known.extend(names(client, *project, &recent(now), observer).await.unwrap_or_default());
        }
    }
    let settings = [("include_events", &config.include_events), ("exclude_events", &config.exclude_events)];
    let mut notices = Vec::new();
    for (setting, list) in settings {
        for name in list.iter().filter(|name| missing.contains(name.as_str())) {
            let hint = nearest(name, &known).map(|known| format!("; did you mean `{known}`?")).unwrap_or_default();
            notices.push(format!(
                "`{setting}` contains `{name}`, but no event in the selected period has this name{hint}"
            ));
        }
    }
    notices
}

/// Notices about properties that are to become columns and that no project knows.
pub(super) async fn properties(
    client: &Client,
    config: &Config,
    key: Option<&ApiKey>,
    projects: &[u64],
    observer: &dyn Observer,
) -> Vec<String> {
    #[derive(Deserialize)]
    struct Definition {
        name: String,
    }
    let mut notices = Vec::new();
    if !key.is_none_or(|key| key.may("property_definition:read")) {
        return notices;
    }
    for (setting, kind, names) in [
        ("event_property_columns", "event", &config.event_property_columns),
        ("person_property_columns", "person", &config.person_property_columns),
    ] {
        let mut missing: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        for project in projects {
            let mut query = Some(definitions(kind, &missing));
            let mut pages = Pages::new(client, format!("api/projects/{project}/property_definitions/"), observer);
            while let Some(next) = query.take().filter(|_| !missing.is_empty()) {
                let Ok(page) = pages.read(&next).await else { return notices };
                for object in page.objects {
                    if let Ok(definition) = serde_json::from_str::<Definition>(object.get()) {
                        missing.remove(definition.name.as_str());
                    }
                }
                query = page.next;
            }
        }
        notices.extend(missing.iter().map(|name| {
            format!(
                "`{setting}` contains `{name}`, but PostHog knows no such {kind} property, so its column stays empty"
            )
        }));
    }
    notices
}

/// The first page of the definitions of these names. Versions that do not filter send all of them.
fn definitions(kind: &str, names: &BTreeSet<&str>) -> String {
    let mut query = format!("limit={PAGE}&offset=0&type={kind}");
    // The server splits at commas.
    if !names.iter().any(|name| name.contains(',')) {
        let joined = names.iter().copied().collect::<Vec<_>>().join(",");
        query.push_str("&properties=");
        query.extend(url::form_urlencoded::byte_serialize(joined.as_bytes()));
    }
    query
}

/// The names of a query's events; none when it is not answered.
async fn names(client: &Client, project: u64, query: &Query, observer: &dyn Observer) -> Option<Vec<String>> {
    let retry = Retry::with_attempts(ATTEMPTS);
    let response = small_with_retry::<(String, u64)>(client, project, query, observer, retry).await.ok()?;
    Some(response.rows.into_iter().map(|(name, _)| name).collect())
}

fn of_names(config: &Config, names: &BTreeSet<&str>) -> Query {
    let mut predicate = Predicate::default();
    predicate.range(EVENTS.sort_key, config.start, config.end.unwrap_or(Timestamp::MAX));
    let values: BTreeMap<String, Value> =
        names.iter().enumerate().map(|(number, name)| (format!("name_{number}"), Value::from(*name))).collect();
    let placeholders: Vec<String> = values.keys().map(|name| format!("{{{name}}}")).collect();
    predicate.condition(format!("event IN ({})", placeholders.join(", ")), Map::from_iter(values));
    by_name(&predicate)
}

fn recent(now: Timestamp) -> Query {
    let mut predicate = Predicate::default();
    predicate.range(EVENTS.sort_key, now.minus(days(RECENT_DAYS)), now);
    by_name(&predicate)
}

fn by_name(predicate: &Predicate) -> Query {
    let tail = format!("GROUP BY event ORDER BY total DESC LIMIT {MOST_ROWS}");
    predicate.select("event, count() AS total", EVENTS.from, &tail)
}

/// The known name that is most like `name`, white space and case aside.
pub(super) fn nearest<'k>(name: &str, known: &'k [String]) -> Option<&'k str> {
    let plain = |name: &str| name.trim().to_lowercase();
    let likeness =
        known.iter().map(|known| (strsim::normalized_damerau_levenshtein(&plain(known), &plain(name)), known));
    let nearest = likeness.max_by(|(left, _), (right, _)| left.total_cmp(right));
    nearest.filter(|(alike, _)| *alike >= ALIKE).map(|(_, known)| known.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_names_differ_in_case_space_or_a_letter() {
        let known = ["$pageview".to_owned(), "$pageleave".to_owned(), "order completed".to_owned()];
        for (name, expected) in [
            ("$PageView", Some("$pageview")),
            ("$pageview ", Some("$pageview")),
            ("pageview", Some("$pageview")),
            ("order_completed", Some("order completed")),
            ("signup", None),
        ] {
            assert_eq!(nearest(name, &known), expected, "{name}");
        }
    }

    #[test]
    fn definitions_are_asked_for_by_name_where_the_server_can_tell_names_apart() {
        assert_eq!(definitions("event", &["a b", "c"].into()), "limit=100&offset=0&type=event&properties=a+b%2Cc");
        assert_eq!(definitions("event", &["a,b"].into()), "limit=100&offset=0&type=event");
    }
}
