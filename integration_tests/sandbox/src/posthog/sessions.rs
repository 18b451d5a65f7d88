//! Sessions, which PostHog derives from the events that carry a session's id.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::store::Event;

/// What PostHog keeps about where a session came from: the property of its first event.
const CAMPAIGN: [&str; 6] =
    ["$referring_domain", "utm_source", "utm_campaign", "utm_medium", "utm_term", "utm_content"];

/// One row of the sessions table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) id: String,
    pub(crate) distinct_id: String,
    pub(crate) person_id: Uuid,
    /// Microseconds since 1970 of the first and of the last event.
    pub(crate) start: i64,
    pub(crate) end: i64,
    /// All different addresses, in the order of the alphabet.
    pub(crate) urls: Vec<String>,
    pub(crate) entry_url: String,
    pub(crate) entry_path: String,
    pub(crate) end_url: String,
    pub(crate) end_path: String,
    pub(crate) pageviews: i64,
    pub(crate) autocaptures: i64,
    pub(crate) screens: i64,
    /// Different events of any name.
    pub(crate) events: i64,
    /// By the order of [`CAMPAIGN`].
    pub(crate) campaign: [Option<String>; 6],
}

fn text(properties: &Map<String, Value>, key: &str) -> Option<String> {
    properties.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
}

/// The sessions of events that are sorted by timestamp, by their ids.
pub(crate) fn derive<'a>(events: impl Iterator<Item = &'a Arc<Event>>) -> Vec<Session> {
    let mut by_id: BTreeMap<&str, Vec<&Event>> = BTreeMap::new();
    for event in events.filter(|event| !event.session_id.is_empty()) {
        by_id.entry(&event.session_id).or_default().push(event);
    }
    by_id.into_iter().filter_map(|(id, events)| session(id, &events)).collect()
}

fn session(id: &str, events: &[&Event]) -> Option<Session> {
    let (first, last) = (events.first()?, events.last()?);
    // As in ClickHouse, JSON that doesn't parse has no properties.
    let parse = |event: &Event| serde_json::from_str::<Map<String, Value>>(&event.properties).unwrap_or_default();
    let (entry, end) = (parse(first), parse(last));
    let mut urls: Vec<String> = events.iter().filter_map(|event| text(&parse(event), "$current_url")).collect();
    urls.sort_unstable();
    urls.dedup();
    let distinct = |name: Option<&str>| {
        let named = events.iter().filter(|event| name.is_none_or(|name| event.event == name));
        let different: HashSet<Uuid> = named.map(|event| event.uuid).collect();
        i64::try_from(different.len()).unwrap_or(i64::MAX)
    };
    Some(Session {
        id: id.to_owned(),
        distinct_id: first.distinct_id.clone(),
        person_id: first.person_id,
        start: first.timestamp,
        end: last.timestamp,
        urls,
        entry_url: text(&entry, "$current_url").unwrap_or_default(),
        entry_path: text(&entry, "$pathname").unwrap_or_default(),
        end_url: text(&end, "$current_url").unwrap_or_default(),
        end_path: text(&end, "$pathname").unwrap_or_default(),
        pageviews: distinct(Some("$pageview")),
        autocaptures: distinct(Some("$autocapture")),
        screens: distinct(Some("$screen")),
        events: distinct(None),
        campaign: CAMPAIGN.map(|key| text(&entry, key)),
    })
}
