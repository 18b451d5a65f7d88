//! Sessions, which PostHog derives from the events that carry a session's id.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::store::Event;

/// What PostHog keeps about where a session came from: columns, and the property of its first event that
/// each holds.
pub(crate) const ATTRIBUTION: [(&str, &str); 21] = [
    ("$entry_referring_domain", "$referring_domain"),
    ("$entry_utm_source", "utm_source"),
    ("$entry_utm_campaign", "utm_campaign"),
    ("$entry_utm_medium", "utm_medium"),
    ("$entry_utm_term", "utm_term"),
    ("$entry_utm_content", "utm_content"),
    ("$entry_gclid", "gclid"),
    ("$entry_gad_source", "gad_source"),
    ("$entry_gclsrc", "gclsrc"),
    ("$entry_dclid", "dclid"),
    ("$entry_gbraid", "gbraid"),
    ("$entry_wbraid", "wbraid"),
    ("$entry_fbclid", "fbclid"),
    ("$entry_msclkid", "msclkid"),
    ("$entry_twclid", "twclid"),
    ("$entry_li_fat_id", "li_fat_id"),
    ("$entry_mc_cid", "mc_cid"),
    ("$entry_igshid", "igshid"),
    ("$entry_ttclid", "ttclid"),
    ("$entry__kx", "_kx"),
    ("$entry_irclid", "irclid"),
];

/// One row of the sessions table.
#[derive(Debug, Clone, PartialEq)]
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
    /// When the last of its events came in, in microseconds since 1970.
    pub(crate) max_inserted_at: i64,
    /// The address of the last link to another site.
    pub(crate) last_external_click: String,
    /// Milliseconds until the largest element of the first page was shown.
    pub(crate) largest_paint: Option<f64>,
    /// By the order of [`ATTRIBUTION`].
    pub(crate) attribution: [Option<String>; ATTRIBUTION.len()],
}

impl Session {
    /// Whole seconds from the first event to the last.
    pub(crate) fn duration(&self) -> i64 {
        (self.end - self.start).div_euclid(1_000_000)
    }

    /// Pageviews, screens and autocaptures, as far as two: fewer make a bounce on PostHog.
    pub(crate) fn count_up_to_two(&self) -> i64 {
        (self.pageviews + self.autocaptures + self.screens).min(2)
    }

    pub(crate) fn is_bounce(&self) -> bool {
        self.events == 1
    }
}

/// The host of a URL; empty if there is none.
pub(crate) fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    rest.split(['/', '?', '#', ':']).next().unwrap_or_default()
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
        max_inserted_at: events.iter().map(|event| event.inserted_at()).max().unwrap_or_default(),
        last_external_click: text(&end, "$external_click_url").unwrap_or_default(),
        largest_paint: entry.get("$web_vitals_LCP_value").and_then(Value::as_f64),
        attribution: ATTRIBUTION.map(|(_, property)| text(&entry, property)),
    })
}
