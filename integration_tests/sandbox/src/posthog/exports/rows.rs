//! The rows of a run as lines of JSON, in no order that a client could rely on.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use chrono_tz::Tz;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, to_vec};
use uuid::Uuid;

use super::behaviour::ExportServer;
use super::request::{Asked, Model};
use super::session_rows;
use crate::posthog::Shared;
use crate::posthog::generate::Random;
use crate::posthog::store::{DAY, DELETED, Event, Person, RawPerson, Tables};

/// One line per row, without the line feed.
pub(super) fn lines(
    shared: &Shared,
    project: u64,
    asked: &Asked,
    server: ExportServer,
) -> serde_json::Result<Vec<Vec<u8>>> {
    let zone = shared.project(project).map_or(Tz::UTC, |(_, zone)| *zone);
    let now = shared.server().now().timestamp_micros();
    let tables = shared.read_tables();
    let Some(tables) = tables.get(&project) else { return Ok(Vec::new()) };
    match asked.model {
        Model::Events => events(tables, asked, now, timestamps(asked, server, now), server),
        Model::Persons => persons(tables, project, asked, server),
        Model::Sessions => session_rows::lines(tables, now, project, zone, asked, server),
    }
}

/// The earliest and the latest timestamp of exported events, the latter excluded.
fn timestamps(asked: &Asked, server: ExportServer, now: i64) -> (i64, i64) {
    let days = |days: u32| i64::from(days).saturating_mul(DAY);
    let recent = server.unbounded_days.is_some_and(|recent| asked.start >= now.saturating_sub(days(recent)));
    match server.lookback_days.filter(|_| !recent) {
        Some(lookback) => (asked.start.saturating_sub(days(lookback)), asked.end.saturating_add(DAY)),
        None => (i64::MIN, i64::MAX),
    }
}

/// Events that are in the table by now, by the server's clock.
pub(super) fn present(tables: &Tables, now: i64) -> impl Iterator<Item = &Arc<Event>> {
    tables.events().iter().filter(move |event| event.visible_at.is_none_or(|at| at <= now))
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

fn events(
    tables: &Tables,
    asked: &Asked,
    now: i64,
    (earliest, latest): (i64, i64),
    server: ExportServer,
) -> serde_json::Result<Vec<Vec<u8>>> {
    let time = |micros| server.event_times.write(micros);
    let mut chosen: Vec<&Event> = present(tables, now)
        .map(AsRef::as_ref)
        .filter(|event| (asked.start..asked.end).contains(&event.inserted_at()))
        .filter(|event| (earliest..latest).contains(&event.timestamp))
        .filter(|event| asked.include.is_empty() || asked.include.contains(&event.event))
        .filter(|event| !asked.exclude.contains(&event.event))
        .collect();
    chosen.sort_by_key(|event| event.inserted_at());
    let mut seen = HashSet::new();
    chosen.retain(|event| seen.insert((event.uuid, &event.event, &event.distinct_id)));
    chosen.sort_by_key(|event| scattered(event.uuid));
    let line = |event: &Event| {
        let person = tables.person_at_ingestion(event.person_id).map_or("{}", |person| person.properties.as_str());
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
            _inserted_at: time(event.inserted_at()),
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
    person_distinct_id_version: i64,
    person_version: i64,
    created_at: Value,
    _inserted_at: Value,
    is_deleted: bool,
}

fn persons(tables: &Tables, project: u64, asked: &Asked, server: ExportServer) -> serde_json::Result<Vec<Vec<u8>>> {
    // The inner join with distinct ids leaves out persons that have none any more.
    let deleted = tables.removed().filter(|removed| !removed.is_merged).map(|removed| (removed.row(), removed.at));
    let alive = tables.persons().map(|person| {
        (RawPerson { person: Person::clone(person), is_deleted: false, version: person.version() }, person.changed())
    });
    let mut chosen: Vec<(RawPerson, i64)> = alive.chain(deleted).collect();
    chosen.retain(|(_, changed)| (asked.start..asked.end).contains(changed));
    chosen.sort_by_key(|(row, _)| scattered(row.person.id));
    let lines = chosen.iter().flat_map(|(row, changed)| {
        row.person.distinct_ids.iter().map(move |distinct_id| {
            to_vec(&PersonLine {
                team_id: project,
                distinct_id,
                person_id: row.person.id.to_string(),
                properties: nested(&row.person.properties),
                person_distinct_id_version: tables.moves(distinct_id) + if row.is_deleted { DELETED } else { 0 },
                person_version: row.version,
                created_at: server.person_times.write(row.person.created_at),
                _inserted_at: server.person_times.write(*changed),
                is_deleted: row.is_deleted,
            })
        })
    });
    // One person's lines need not stand together.
    let mut lines = lines.collect::<serde_json::Result<Vec<_>>>()?;
    lines.sort_by_key(|line| crc32(line));
    Ok(lines)
}

fn crc32(line: &[u8]) -> u32 {
    let mut checksum = flate2::Crc::new();
    checksum.update(line);
    checksum.sum()
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
}
