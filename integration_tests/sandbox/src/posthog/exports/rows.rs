//! The rows of a run as lines of JSON, in no order that a client could rely on.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, from_str, to_vec};
use uuid::Uuid;

use super::request::{Asked, Model};
use crate::posthog::Shared;
use crate::posthog::generate::Random;
use crate::posthog::store::{DAY, Event, Person, Tables};

/// One line per row, without the line feed.
pub(super) fn lines(
    shared: &Shared,
    project: u64,
    asked: &Asked,
    lookback_days: Option<u32>,
) -> serde_json::Result<Vec<Vec<u8>>> {
    let tables = shared.read_tables();
    let Some(tables) = tables.get(&project) else { return Ok(Vec::new()) };
    match asked.model {
        Model::Events => events(tables, asked, lookback_days),
        Model::Persons => persons(tables, project, asked),
        Model::Sessions => sessions(tables, project, asked),
    }
}

/// When the row came into the table.
fn taken_in(event: &Event) -> i64 {
    event.visible_at.unwrap_or(event.created_at)
}

/// Events that are in the table by now.
fn present(tables: &Tables) -> impl Iterator<Item = &Event> {
    let now = Utc::now().timestamp_micros();
    tables.events().iter().map(AsRef::as_ref).filter(move |event| event.visible_at.is_none_or(|at| at <= now))
}

/// The order of rows: one that has nothing to do with time.
fn scattered(id: Uuid) -> u64 {
    let (high, low) = id.as_u64_pair();
    Random(high ^ low.rotate_left(32)).next()
}

#[derive(Serialize)]
struct EventLine<'a> {
    uuid: String,
    event: &'a str,
    distinct_id: &'a str,
    person_id: String,
    properties: Option<Box<RawValue>>,
    person_properties: Option<Box<RawValue>>,
    elements_chain: &'a str,
    timestamp: String,
    created_at: String,
    _inserted_at: String,
}

fn events(tables: &Tables, asked: &Asked, lookback_days: Option<u32>) -> serde_json::Result<Vec<Vec<u8>>> {
    let (earliest, latest) = match lookback_days {
        Some(days) => (asked.start.saturating_sub(i64::from(days).saturating_mul(DAY)), asked.end.saturating_add(DAY)),
        None => (i64::MIN, i64::MAX),
    };
    let mut chosen: Vec<&Event> = present(tables)
        .filter(|event| (asked.start..asked.end).contains(&taken_in(event)))
        .filter(|event| (earliest..latest).contains(&event.timestamp))
        .filter(|event| asked.include.is_empty() || asked.include.contains(&event.event))
        .filter(|event| !asked.exclude.contains(&event.event))
        .collect();
    chosen.sort_by_key(|event| taken_in(event));
    let mut seen = HashSet::new();
    chosen.retain(|event| seen.insert((event.uuid, &event.event, &event.distinct_id)));
    chosen.sort_by_key(|event| scattered(event.uuid));
    let line = |event: &Event| {
        let person = tables.person(event.person_id).map_or("{}", |person| person.properties.as_str());
        to_vec(&EventLine {
            uuid: event.uuid.to_string(),
            event: &event.event,
            distinct_id: &event.distinct_id,
            person_id: event.person_id.to_string(),
            properties: nested(&event.properties),
            person_properties: nested(person),
            elements_chain: &event.elements_chain,
            timestamp: time(event.timestamp),
            created_at: time(event.created_at),
            _inserted_at: time(taken_in(event)),
        })
    };
    chosen.into_iter().map(line).collect()
}

#[derive(Serialize)]
struct PersonLine<'a> {
    team_id: u64,
    distinct_id: &'a str,
    person_id: String,
    properties: Option<Box<RawValue>>,
    person_distinct_id_version: u32,
    person_version: i64,
    created_at: String,
    _inserted_at: String,
    is_deleted: bool,
}

fn persons(tables: &Tables, project: u64, asked: &Asked) -> serde_json::Result<Vec<Vec<u8>>> {
    let changed = |person: &Person| person.last_seen_at.unwrap_or(person.created_at);
    let mut chosen: Vec<&Person> = tables.persons().map(AsRef::as_ref).collect();
    chosen.retain(|person| (asked.start..asked.end).contains(&changed(person)));
    chosen.sort_by_key(|person| scattered(person.id));
    let lines = chosen.into_iter().flat_map(|person| {
        person.distinct_ids.iter().map(move |distinct_id| {
            to_vec(&PersonLine {
                team_id: project,
                distinct_id,
                person_id: person.id.to_string(),
                properties: nested(&person.properties),
                person_distinct_id_version: 0,
                // Never goes down while the person changes.
                person_version: changed(person).saturating_sub(person.created_at).max(0),
                created_at: time(person.created_at),
                _inserted_at: time(changed(person)),
                is_deleted: false,
            })
        })
    });
    lines.collect()
}

#[derive(Serialize)]
struct SessionLine<'a> {
    team_id: u64,
    session_id: &'a str,
    distinct_id: &'a str,
    person_id: String,
    start_timestamp: String,
    end_timestamp: String,
    pageview_count: usize,
    autocapture_count: usize,
    screen_count: usize,
    /// Whole seconds.
    session_duration: i64,
    entry_current_url: Option<String>,
    end_current_url: Option<String>,
    _inserted_at: String,
}

fn sessions(tables: &Tables, project: u64, asked: &Asked) -> serde_json::Result<Vec<Vec<u8>>> {
    // Events come in the order of their timestamps.
    let mut sessions: BTreeMap<&str, Vec<&Event>> = BTreeMap::new();
    for event in present(tables).filter(|event| !event.session_id.is_empty()) {
        sessions.entry(&event.session_id).or_default().push(event);
    }
    let mut lines = Vec::new();
    for (session_id, events) in sessions {
        let changed = events.iter().map(|event| taken_in(event)).max().unwrap_or_default();
        let (Some(first), Some(last)) = (events.first(), events.last()) else { continue };
        if !(asked.start..asked.end).contains(&changed) {
            continue;
        }
        let count = |name: &str| {
            let named = events.iter().filter(|event| event.event == name);
            named.map(|event| event.uuid).collect::<HashSet<_>>().len()
        };
        lines.push(to_vec(&SessionLine {
            team_id: project,
            session_id,
            distinct_id: &first.distinct_id,
            person_id: first.person_id.to_string(),
            start_timestamp: time(first.timestamp),
            end_timestamp: time(last.timestamp),
            pageview_count: count("$pageview"),
            autocapture_count: count("$autocapture"),
            screen_count: count("$screen"),
            session_duration: (last.timestamp - first.timestamp) / 1_000_000,
            entry_current_url: current_url(first),
            end_current_url: current_url(last),
            _inserted_at: time(changed),
        })?);
    }
    Ok(lines)
}

fn current_url(event: &Event) -> Option<String> {
    let properties: Value = from_str(nested(&event.properties)?.get()).ok()?;
    properties.get("$current_url")?.as_str().map(str::to_owned)
}

/// `2026-01-01T12:00:00.000001+00:00`, without the fraction if it is zero.
fn time(micros: i64) -> String {
    let Some(instant) = DateTime::from_timestamp_micros(micros) else { return String::new() };
    let fraction = if micros.rem_euclid(1_000_000) == 0 { "" } else { "%.6f" };
    instant.format(&format!("%Y-%m-%dT%H:%M:%S{fraction}+00:00")).to_string()
}

/// Stored text as a part of a line: untouched if it is JSON on one line, null if it is no JSON at all.
fn nested(text: &str) -> Option<Box<RawValue>> {
    let untidy = ["NaN", "Infinity", "\n", "\r"].iter().any(|sign| text.contains(sign));
    let text = if untidy { Cow::Owned(tidy(text)) } else { Cow::Borrowed(text) };
    RawValue::from_string(text.into_owned()).ok()
}

/// Outside of strings: null for numbers that JSON doesn't have, a space for line feeds.
fn tidy(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut quoted = false;
    while let Some(next) = rest.chars().next() {
        let number = ["NaN", "Infinity", "-Infinity"].iter().find_map(|number| rest.strip_prefix(number));
        if let (false, Some(tail)) = (quoted, number) {
            out.push_str("null");
            rest = tail;
            continue;
        }
        let mut characters = rest.chars();
        match next {
            '\n' | '\r' if !quoted => out.push(' '),
            _ => out.push(next),
        }
        characters.next();
        if next == '"' {
            quoted = !quoted;
        } else if quoted && next == '\\' {
            out.extend(characters.next());
        }
        rest = characters.as_str();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_text_survives_as_far_as_it_is_json() {
        let untouched = r#"{"z":1.50,"a":1e21,"a":-0.0,"huge":123456789012345678901234567890,"text":"NaN \" Infinity","half":"\ud83e"}"#;
        for (stored, wanted) in [
            (untouched, Some(untouched)),
            (
                r#"{"a":NaN,"b":[Infinity,-Infinity,-1],"c":"\\","d":NaN}"#,
                Some(r#"{"a":null,"b":[null,null,-1],"c":"\\","d":null}"#),
            ),
            ("{\n \"a\":\r\n1}", Some(r#"{  "a":  1}"#)),
            ("{\"a\":\"raw\nline feed\"}", None),
            ("no JSON", None),
            ("", None),
            ("[1]", Some("[1]")),
        ] {
            assert_eq!(nested(stored).as_deref().map(RawValue::get), wanted, "{stored}");
        }
        let deep = format!("{}1{}", "[".repeat(500), "]".repeat(500));
        assert!(nested(&deep).is_some());
    }

    #[test]
    fn times_have_an_offset() {
        assert_eq!(time(0), "1970-01-01T00:00:00+00:00");
        assert_eq!(time(1_000_001), "1970-01-01T00:00:01.000001+00:00");
    }
}
