//! The list of events that PostHog has deprecated, with all of its traps.

use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use regex::Regex;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::error::ApiError;
use super::hogql::{self, Schema, Setting, Value as Cell, iso, parse_time};
use super::paging::{link, mislead};
use super::server::{Answer, Call};
use super::store::{DAY, Event, Tables};
use super::{Shared, lock};

/// Events of one page at most, whatever the limit.
const LARGEST_PAGE: usize = 1000;
const SECOND: i64 = 1_000_000;
/// With the newest first, only so much before `before` is looked at, as soon as it holds half a page.
const PROBES: [i64; 6] = [60, 300, 900, 3600, 21_600, 86_400];

/// What a request asks for.
struct Asked {
    limit: usize,
    offset: usize,
    before: i64,
    after: i64,
    newest_first: bool,
    condition: String,
    values: Map<String, Value>,
    zone: Tz,
    schema: Schema,
}

fn asked(call: &Call, zone: Tz, schema: Schema, uncapped: bool) -> Result<Asked, ApiError> {
    let number = |name: &str, default: usize| match call.parameter(name).filter(|text| !text.is_empty()) {
        None => Ok(default),
        Some(text) => text.parse().map_err(|_| ApiError::invalid("Invalid limit or offset")),
    };
    let (limit, offset) = (number("limit", 100)?, number("offset", 0)?);
    if offset > 50_000 && !uncapped {
        return Err(ApiError::invalid("Offset is deprecated. Max supported offset value is 50000"));
    }
    let time = |name: &'static str| {
        let Some(text) = call.parameter(name).filter(|text| !text.is_empty()) else { return Ok(None) };
        // A plus that nobody encoded arrives as a space.
        let text = if text.contains('T') { text.replace(' ', "+") } else { text };
        // As Airbyte's connector writes it: an offset without a colon.
        let plain = DateTime::parse_from_str(&text, "%Y-%m-%dT%H:%M:%S%.f%z").map(|at| at.timestamp_micros());
        let at = plain.ok().or_else(|| parse_time(&text, zone));
        at.map(Some).ok_or_else(|| ApiError::code("invalid", format!("Invalid datetime: {text}")).attribute(name))
    };
    let before = time("before")?.unwrap_or_else(|| Utc::now().timestamp_micros() + 5 * SECOND);
    let after = time("after")?.unwrap_or(before - DAY);
    if before - after > 366 * DAY {
        return Err(ApiError::new(500, "server_error", "error", "A server error occurred."));
    }
    let order = call.parameter("orderBy").filter(|text| !text.is_empty());
    let order: Vec<String> = match order {
        None => vec!["-timestamp".to_owned()],
        Some(text) => serde_json::from_str(&text).map_err(|_| ApiError::invalid("Invalid orderBy"))?,
    };
    let (condition, values) = conditions(call)?;
    Ok(Asked {
        limit: if uncapped { limit } else { limit.min(LARGEST_PAGE) },
        offset,
        before,
        after,
        newest_first: order == ["-timestamp"],
        condition,
        values,
        zone,
        schema,
    })
}

/// The filters as HogQL, with the values of its placeholders.
fn conditions(call: &Call) -> Result<(String, Map<String, Value>), ApiError> {
    let (mut conditions, mut values) = (Vec::new(), Map::new());
    let mut value = |value: Value| {
        let name = format!("value_{}", values.len());
        values.insert(name.clone(), value);
        format!("{{{name}}}")
    };
    for name in ["event", "distinct_id", "person_id"] {
        if let Some(text) = call.parameter(name).filter(|text| !text.is_empty()) {
            let column = if name == "person_id" { "toString(person_id)" } else { name };
            conditions.push(format!(" AND {column} = {}", value(text.into())));
        }
    }
    let filters = call.parameter("properties").filter(|text| !text.is_empty());
    let filters: Vec<Value> = match filters {
        None => Vec::new(),
        Some(text) => serde_json::from_str(&text).map_err(|_| ApiError::invalid("Properties are unparsable!"))?,
    };
    for filter in &filters {
        let key = filter["key"].as_str().filter(|key| !key.is_empty());
        let key = key.ok_or_else(|| ApiError::invalid("Properties are unparsable!"))?;
        if filter["type"] == "hogql" {
            conditions.push(format!(" AND ({key})"));
            continue;
        }
        let operator = filter["operator"].as_str().unwrap_or("exact");
        if operator != "exact" || key.contains('`') || filter["type"].as_str().is_some_and(|kind| kind != "event") {
            return Err(ApiError::unsupported(format_args!("the filter {filter}")));
        }
        let wanted = match &filter["value"] {
            Value::Array(items) => items.clone(),
            single => vec![single.clone()],
        };
        let text = |each: &Value| each.as_str().map_or_else(|| each.to_string(), str::to_owned);
        let wanted: Vec<String> = wanted.iter().map(|each| value(text(each).into())).collect();
        conditions.push(format!(" AND properties.`{key}` IN ({})", wanted.join(", ")));
    }
    Ok((conditions.concat(), values))
}

/// One page of events.
pub(crate) fn answer(shared: &Shared, call: &Call, project: u64) -> Result<Answer, ApiError> {
    let zone = shared.project(project).map_or(Tz::UTC, |(_, zone)| *zone);
    let asked = asked(call, zone, shared.server().schema, shared.uncapped_events)?;
    let tables = shared.read_tables();
    let empty = Tables::default();
    let tables = tables.get(&project).unwrap_or(&empty);
    let mut found = None;
    if asked.newest_first && !shared.uncapped_events {
        for seconds in PROBES {
            let after = asked.before - seconds * SECOND;
            if after <= asked.after {
                break;
            }
            let events = fetch(tables, &asked, after)?;
            if events.len() * 2 >= asked.limit {
                found = Some(events);
                break;
            }
        }
    }
    let mut events = match found {
        Some(events) => events,
        None => fetch(tables, &asked, asked.after)?,
    };
    // Whether there are more is decided by what was looked at.
    let more = events.len() > asked.limit;
    events.truncate(asked.limit);
    let last = events.last().map(|event| event.timestamp);
    let next = last.filter(|_| more).map(|last| following(call, &asked, last, shared.uncapped_events));
    lock(&shared.log).note(call.id, |entry| entry.rows = Some(events.len()));
    let results: Vec<Value> = events.iter().map(show).collect();
    let mut answer = json!({"next": next, "results": results});
    mislead(call, &mut answer);
    Ok(Answer::json(&answer).header("x-posthog-warn", "https://posthog.com/docs/api/events"))
}

/// The link to what follows. PostHog's skips whatever shares the timestamp of the last event.
fn following(call: &Call, asked: &Asked, last: i64, uncapped: bool) -> String {
    if uncapped {
        let (before, after) = (iso(asked.before, Tz::UTC), iso(asked.after, Tz::UTC));
        let (limit, offset) = (asked.limit.to_string(), (asked.offset + asked.limit).to_string());
        let window = [("before", Some(before.as_str())), ("after", Some(after.as_str()))];
        return link(call, &[window[0], window[1], ("limit", Some(&limit)), ("offset", Some(&offset))]);
    }
    link(call, &[(if asked.newest_first { "before" } else { "after" }, Some(&offset_time(last)))])
}

/// The matching events between `after` and `asked.before`, neither included; one more than a page.
fn fetch(tables: &Tables, asked: &Asked, after: i64) -> Result<Vec<Event>, ApiError> {
    let time = |micros: i64| format!("toDateTime64('{}', 6, 'UTC')", iso(micros, Tz::UTC));
    let sql = format!(
        "SELECT uuid, distinct_id, properties, event, timestamp, elements_chain FROM events WHERE timestamp < {} AND \
         timestamp > {}{} ORDER BY timestamp {}",
        time(asked.before),
        time(after),
        asked.condition,
        if asked.newest_first { "DESC" } else { "ASC" },
    );
    let now = Utc::now().timestamp_micros();
    let setting = Setting { shown: Tz::UTC, literals: asked.zone, schema: asked.schema, now };
    let select = hogql::compile(&sql, &asked.values, setting)?;
    let rows = hogql::run(&select, tables, now, asked.offset.saturating_add(asked.limit).saturating_add(1)).rows;
    Ok(rows.into_iter().skip(asked.offset).filter_map(event).collect())
}

fn event(row: Vec<Cell<'_>>) -> Option<Event> {
    let [
        Cell::Uuid(uuid),
        Cell::Text(distinct_id),
        Cell::Text(properties),
        Cell::Text(event),
        Cell::Time(timestamp),
        Cell::Text(elements_chain),
    ] = <[Cell<'_>; 6]>::try_from(row).ok()?
    else {
        return None;
    };
    Some(Event {
        uuid,
        distinct_id: distinct_id.into_owned(),
        properties: properties.into_owned(),
        event: event.into_owned(),
        timestamp,
        elements_chain: elements_chain.into_owned(),
        ..Event::default()
    })
}

/// One event.
pub(crate) fn retrieve(shared: &Shared, project: u64, id: &str) -> Result<Answer, ApiError> {
    let id = Uuid::try_parse(id).map_err(|_| ApiError::code("invalid", "Invalid UUID"))?;
    let tables = shared.read_tables();
    let now = Utc::now().timestamp_micros();
    let events = tables.get(&project).map(Tables::events).unwrap_or_default();
    let visible = |event: &Event| event.visible_at.is_none_or(|at| at <= now);
    let event = events.iter().find(|event| event.uuid == id && visible(event));
    Ok(Answer::json(&show(event.ok_or_else(ApiError::not_found)?)))
}

fn show(event: &Event) -> Value {
    let elements = if event.elements_chain.is_empty() { Vec::new() } else { elements(&event.elements_chain) };
    json!({
        "id": event.uuid.to_string(), "distinct_id": event.distinct_id, "properties": properties(&event.properties),
        "event": event.event, "timestamp": offset_time(event.timestamp), "person": null, "elements": elements,
        "elements_chain": event.elements_chain,
    })
}

/// With an offset even for UTC.
fn offset_time(micros: i64) -> String {
    iso(micros, Tz::UTC).replace('Z', "+00:00")
}

/// The properties as an object; what is no number becomes null, and texts lose quotes at their ends.
fn properties(text: &str) -> Value {
    let parsed = serde_json::from_str(text).or_else(|_| serde_json::from_str(&without_nan(text)));
    let mut properties: Map<String, Value> = parsed.unwrap_or_default();
    for value in properties.values_mut() {
        if let Value::String(text) = value {
            *text = text.trim_matches('"').to_owned();
        }
    }
    Value::Object(properties)
}

fn without_nan(text: &str) -> String {
    static TOKEN: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r#"("(?:[^"\\]|\\.)*")|-?\b(?:NaN|Infinity)\b"#).ok());
    let Some(token) = TOKEN.as_ref() else { return text.to_owned() };
    let replace = |found: &regex::Captures<'_>| found.get(1).map_or("null", |quoted| quoted.as_str()).to_owned();
    token.replace_all(text, replace).into_owned()
}

/// The elements of a chain.
fn elements(chain: &str) -> Vec<Value> {
    static PATTERNS: LazyLock<Option<[Regex; 3]>> = LazyLock::new(|| {
        let parts = Regex::new(r#"(?:[^";]|"(?:\\"|[^"])*")+"#).ok()?;
        let attributes = Regex::new(r#"([\w-]+)="((?:\\"|[^"])*)""#).ok()?;
        Some([parts, attributes, Regex::new("^[a-z0-9]+").ok()?])
    });
    let Some([parts, attributes, tag]) = PATTERNS.as_ref() else { return Vec::new() };
    let element = |(order, part): (usize, &str)| {
        let found: Map<String, Value> =
            attributes.captures_iter(part).map(|found| (found[1].to_owned(), found[2].into())).collect();
        let number = |key: &str| found.get(key).and_then(|text| text.as_str()?.parse::<i64>().ok());
        let classes: Option<Vec<&str>> =
            found.get("attr__class").and_then(Value::as_str).map(|text| text.split_whitespace().collect());
        let own: Map<String, Value> = found
            .iter()
            .filter(|(key, _)| key.starts_with("attr__"))
            .map(|(key, text)| (key.clone(), text.clone()))
            .collect();
        json!({
            "text": found.get("text"), "tag_name": tag.find(part).map(|tag| tag.as_str()), "attr_class": classes,
            "href": found.get("href"), "attr_id": found.get("attr_id"), "nth_child": number("nth-child"),
            "nth_of_type": number("nth-of-type"), "attributes": own, "order": order,
        })
    };
    parts.find_iter(chain).map(|part| part.as_str()).enumerate().map(element).collect()
}
