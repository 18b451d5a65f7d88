//! List endpoints of a project, each with PostHog's own way of paging.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use chrono::{DateTime, Duration, Months, Utc};
use chrono_tz::Tz;
use serde_json::{Value, json};

use super::Shared;
use super::error::ApiError;
use super::hogql::{iso, parse_time};
use super::instance::{ListServer, RecordingPages};
use super::paging::{Window, link, mislead, page};
use super::server::{Answer, Call};
use super::store::{Group, Person, Tables};

/// Groups of one page.
const GROUPS: usize = 100;
/// Recordings of one page.
const RECORDINGS: usize = 50;

/// The scope that a list endpoint asks for, if there is such an endpoint.
pub(crate) fn scope(name: &str) -> Option<&'static str> {
    Some(match name {
        "annotations" => "annotation",
        "cohorts" => "cohort",
        "feature_flags" => "feature_flag",
        "insights" => "insight",
        "persons" => "person",
        "actions" => "action",
        "dashboards" => "dashboard",
        "experiments" => "experiment",
        "surveys" => "survey",
        "session_recordings" => "session_recording",
        "session_recording_playlists" => "session_recording_playlist",
        "groups" | "groups_types" => "group",
        "event_definitions" => "event_definition",
        "property_definitions" => "property_definition",
        "early_access_feature" => "early_access_feature",
        "notebooks" => "notebook",
        "hog_functions" => "hog_function",
        "batch_exports" => "batch_export",
        _ => return None,
    })
}

/// Everything that a list holds, in the order in which it is listed.
pub(crate) fn objects(tables: &Tables, name: &str) -> Vec<Value> {
    if let Some(objects) = tables.lists.get(name) {
        return objects.clone();
    }
    match name {
        "persons" => {
            let mut persons: Vec<_> =
                tables.persons().map(|person| (person.created_at, number(person), person)).collect();
            persons.sort_by_key(|(created_at, number, _)| std::cmp::Reverse((*created_at, *number)));
            persons.into_iter().map(|(_, _, person)| of_person(person)).collect()
        }
        "groups" => {
            let mut groups: Vec<&Group> = tables.groups().collect();
            groups.sort_by_key(|group| std::cmp::Reverse((group.created_at, &group.key)));
            groups.into_iter().map(of_group).collect()
        }
        _ => Vec::new(),
    }
}

/// PostHog numbers persons; here the number follows from the identity.
fn number(person: &Person) -> u64 {
    let (high, low) = person.id.as_u64_pair();
    (high ^ low) % 1_000_000_000_000
}

/// How a list shows a person.
pub(crate) fn of_person(person: &Person) -> Value {
    let properties: Value = serde_json::from_str(&person.properties).unwrap_or_else(|_| json!({}));
    let uuid = person.id.to_string();
    let distinct_id = person.distinct_ids.first().map_or(uuid.as_str(), String::as_str);
    let name = ["email", "name"].iter().find_map(|key| properties.get(key)?.as_str()).unwrap_or(distinct_id);
    json!({
        "id": number(person), "name": name, "distinct_ids": person.distinct_ids, "properties": properties,
        "created_at": iso(person.created_at, Tz::UTC), "uuid": uuid,
        "last_seen_at": person.last_seen_at.map(|at| iso(at, Tz::UTC)),
    })
}

fn of_group(group: &Group) -> Value {
    let properties: Value = serde_json::from_str(&group.properties).unwrap_or_else(|_| json!({}));
    json!({
        "group_type_index": group.index, "group_key": group.key, "group_properties": properties,
        "created_at": iso(group.created_at, Tz::UTC),
    })
}

pub(crate) fn stored(shared: &Shared, project: u64, name: &str) -> Vec<Value> {
    shared.read_tables().get(&project).map(|tables| objects(tables, name)).unwrap_or_default()
}

/// One page of a list.
pub(crate) fn answer(shared: &Shared, call: &Call, project: u64, name: &str) -> Result<Answer, ApiError> {
    let (objects, cap) = (stored(shared, project, name), shared.list_page_cap);
    let rules = shared.server().lists;
    let mut answer = match name {
        "groups_types" => Value::Array(objects),
        "persons" => persons(call, objects, cap),
        "groups" => groups(call, objects, cap)?,
        "session_recordings" => recordings(call, objects, cap, rules)?,
        "property_definitions" => page(call, searched(call, definitions(call, objects)?), cap),
        "feature_flags" => page(call, searched(call, ordered(call, unarchived(call, objects, rules))), cap),
        "experiments" => {
            let objects = unarchived(call, objects, rules);
            let objects = if rules.experiment_orders_checked { experiments(call, objects)? } else { objects };
            page(call, searched(call, objects), cap)
        }
        _ => page(call, searched(call, objects), cap),
    };
    mislead(call, &mut answer);
    Ok(Answer::json(&answer))
}

/// One object of a list.
pub(crate) fn retrieve(shared: &Shared, project: u64, name: &str, id: &str) -> Result<Answer, ApiError> {
    if matches!(name, "groups" | "groups_types") {
        return Err(ApiError::not_found());
    }
    let same = |value: &Value| match value {
        Value::String(text) => text == id,
        Value::Number(number) => number.to_string() == id,
        _ => false,
    };
    let is_it = |object: &Value| ["id", "uuid", "short_id"].iter().any(|key| object.get(key).is_some_and(same));
    let found = stored(shared, project, name).into_iter().find(is_it).ok_or_else(ApiError::not_found)?;
    Ok(Answer::json(&shown(found)))
}

/// The object without what only the stand-in knows of it.
fn shown(mut object: Value) -> Value {
    if let Some(object) = object.as_object_mut() {
        object.remove("_type");
        object.remove("_unmerged");
    }
    object
}

fn searched(call: &Call, objects: Vec<Value>) -> Vec<Value> {
    let Some(wanted) = call.parameter("search").filter(|wanted| !wanted.is_empty()) else { return objects };
    let wanted = wanted.to_lowercase();
    let has = |object: &Value, key| {
        object.get(key).and_then(Value::as_str).is_some_and(|text| text.to_lowercase().contains(&wanted))
    };
    objects.into_iter().filter(|object| ["name", "key", "content"].iter().any(|key| has(object, *key))).collect()
}

fn ordered(call: &Call, mut objects: Vec<Value>) -> Vec<Value> {
    if call.parameter("order").as_deref() == Some("-updated_at") {
        let updated = |object: &Value| object.get("updated_at").and_then(Value::as_str).unwrap_or_default().to_owned();
        objects.sort_by_cached_key(|object| std::cmp::Reverse(updated(object)));
    }
    objects
}

/// Either what is archived or what isn't.
fn unarchived(call: &Call, mut objects: Vec<Value>, rules: ListServer) -> Vec<Value> {
    if rules.archived_hidden {
        let wanted = call.parameter("archived").as_deref() == Some("true");
        objects.retain(|object| (object.get("archived") == Some(&Value::Bool(true))) == wanted);
    }
    objects
}

/// What experiments can be sorted by, in either direction.
const EXPERIMENT_ORDERS: [&str; 8] =
    ["created_at", "created_by", "updated_at", "name", "start_date", "end_date", "duration", "status"];

fn experiments(call: &Call, mut objects: Vec<Value>) -> Result<Vec<Value>, ApiError> {
    let Some(order) = call.parameter("order").filter(|order| !order.is_empty()) else { return Ok(objects) };
    let field = order.strip_prefix('-').unwrap_or(&order);
    if !EXPERIMENT_ORDERS.contains(&field) {
        return Err(ApiError::invalid(format!("Invalid order field: '{order}'")));
    }
    objects.sort_by_cached_key(|object| match object.get(field) {
        Some(Value::String(text)) => text.clone(),
        _ => String::new(),
    });
    if order.starts_with('-') {
        objects.reverse();
    }
    Ok(objects)
}

fn definitions(call: &Call, objects: Vec<Value>) -> Result<Vec<Value>, ApiError> {
    let wanted = call.parameter("type").unwrap_or_else(|| "event".to_owned());
    if !["event", "person", "group", "session"].contains(&wanted.as_str()) {
        return Err(ApiError::code("invalid_choice", format!("\"{wanted}\" is not a valid choice.")).attribute("type"));
    }
    let kind = |object: &Value| object.get("_type").and_then(Value::as_str).unwrap_or("event") == wanted;
    Ok(objects.into_iter().filter(kind).map(shown).collect())
}

/// There is a next page whenever this one is full, and no count unless asked for.
fn persons(call: &Call, objects: Vec<Value>, cap: Option<usize>) -> Value {
    let mut found = objects;
    if let Some(wanted) = call.parameter("distinct_id").filter(|wanted| !wanted.is_empty()) {
        found.retain(|person| person["distinct_ids"].as_array().is_some_and(|ids| ids.contains(&json!(wanted))));
    }
    if let Some(wanted) = call.parameter("email").filter(|wanted| !wanted.is_empty()) {
        found.retain(|person| person["properties"]["email"] == json!(wanted));
    }
    let window = Window::of(call, 100, cap);
    let count = found.len();
    let results = window.cut(found);
    let next = (results.len() >= window.served).then(|| window.next(call));
    let mut answer = json!({"next": next, "previous": window.previous(call), "results": results});
    if call.parameter("include_total").is_some()
        && let Some(answer) = answer.as_object_mut()
    {
        answer.insert("count".to_owned(), count.into());
    }
    answer
}

/// Paged by a cursor, in pages of a fixed size.
fn groups(call: &Call, mut objects: Vec<Value>, cap: Option<usize>) -> Result<Value, ApiError> {
    let index: u64 = call.parameter("group_type_index").and_then(|text| text.parse().ok()).ok_or_else(|| {
        ApiError::code("invalid", "You must pass ?group_type_index= in this request").attribute("group_type_index")
    })?;
    objects.retain(|group| group["group_type_index"] == index);
    cursor_page(call, objects, cap.map_or(GROUPS, |cap| GROUPS.min(cap.max(1))))
}

/// A page as lists have it that are paged by a cursor, in pages of a fixed size.
pub(crate) fn cursor_page(call: &Call, objects: Vec<Value>, size: usize) -> Result<Value, ApiError> {
    let start = match call.parameter("cursor") {
        None => 0,
        Some(cursor) => position(&cursor)
            .ok_or_else(|| ApiError { detail: "Invalid cursor".to_owned(), ..ApiError::not_found() })?,
    };
    let cursor = |start: usize| link(call, &[("cursor", Some(&URL_SAFE.encode(format!("p={start}"))))]);
    let next = (start.saturating_add(size) < objects.len()).then(|| cursor(start + size));
    let previous = (start >= size).then(|| cursor(start - size));
    let results: Vec<Value> = objects.into_iter().skip(start).take(size).collect();
    Ok(json!({"next": next, "previous": previous, "results": results}))
}

fn position(cursor: &str) -> Option<usize> {
    let plain = String::from_utf8(URL_SAFE.decode(cursor).ok()?).ok()?;
    plain.strip_prefix("p=")?.parse().ok()
}

/// Only those of the last three days, unless told otherwise. Of an object with `_unmerged`, the bounds leave out
/// parts instead, as they do in PostHog before ClickHouse merges the rows of a recording.
fn recordings(call: &Call, mut objects: Vec<Value>, cap: Option<usize>, rules: ListServer) -> Result<Value, ApiError> {
    let bound = |name: &'static str, default: &str| {
        let text = call.parameter(name).unwrap_or_else(|| default.to_owned());
        instant(&text, Utc::now()).ok_or_else(|| ApiError::invalid(format!("Invalid date: {text}")).attribute(name))
    };
    let (from, to) = (bound("date_from", "-3d")?, bound("date_to", "")?);
    let time = |recording: &Value, field| recording[field].as_str().and_then(|text| parse_time(text, Tz::UTC));
    for recording in objects.iter_mut().filter(|recording| recording["_unmerged"] == true) {
        let end = time(recording, "end_time");
        if let Some(from) = from.filter(|from| time(recording, "start_time") < Some(*from) && end >= Some(*from)) {
            recording["start_time"] = Value::from(iso(from, Tz::UTC));
        }
        if let Some(to) = to.filter(|to| end > Some(*to)) {
            recording["end_time"] = Value::from(iso(to, Tz::UTC));
        }
    }
    objects.retain(|recording| {
        let start = time(recording, "start_time");
        start.is_none_or(|start| from.is_none_or(|from| start >= from) && to.is_none_or(|to| start <= to))
    });
    let key = |recording: &Value| (time(recording, "start_time"), recording["id"].as_str().map(str::to_owned));
    objects.sort_by_cached_key(key);
    let is_ascending =
        rules.recordings != RecordingPages::LatestFirst && call.parameter("order_direction").as_deref() == Some("ASC");
    if !is_ascending {
        objects.reverse();
    }
    let by_cursor = rules.recordings == RecordingPages::Cursor && call.parameter("offset").is_none();
    if let Some(after) = call.parameter("after").filter(|_| by_cursor) {
        let place = objects.iter().position(|recording| cursor_of(&key(recording)) == after);
        let later = |recording: &Value| {
            let (own, wanted) = (cursor_of(&key(recording)), after.as_str());
            if is_ascending { own.as_str() > wanted } else { own.as_str() < wanted }
        };
        let begin = place.map_or_else(|| objects.iter().position(later).unwrap_or(objects.len()), |place| place + 1);
        objects.drain(..begin);
    }
    let window = Window::of(call, RECORDINGS, cap);
    let has_next = window.end() < objects.len();
    let results = window.cut(objects);
    let next_cursor = results.last().filter(|_| by_cursor && has_next).map(|last| cursor_of(&key(last)));
    let results: Vec<Value> = results.into_iter().map(shown).collect();
    Ok(json!({"results": results, "has_next": has_next, "next_cursor": next_cursor, "version": 4}))
}

/// A cursor that sorts as what it stands for.
fn cursor_of((start, id): &(Option<i64>, Option<String>)) -> String {
    format!("{:020}/{}+", start.unwrap_or_default(), id.as_deref().unwrap_or_default())
}

/// `-30d`, an ISO date or time, or `all` (nothing, too), which is no bound.
#[expect(clippy::option_option, reason = "no bound is something else than none that could be read")]
fn instant(text: &str, now: DateTime<Utc>) -> Option<Option<i64>> {
    if text.is_empty() || text == "all" {
        return Some(None);
    }
    let Some(relative) = text.strip_prefix('-') else { return parse_time(text, Tz::UTC).map(Some) };
    let unit = relative.chars().last()?;
    let count: u32 = relative.strip_suffix(unit)?.parse().ok()?;
    let at = match unit {
        'h' => now.checked_sub_signed(Duration::hours(count.into())),
        'd' => now.checked_sub_signed(Duration::days(count.into())),
        'w' => now.checked_sub_signed(Duration::weeks(count.into())),
        'm' => now.checked_sub_months(Months::new(count)),
        'y' => now.checked_sub_months(Months::new(count.checked_mul(12)?)),
        _ => None,
    };
    Some(Some(at?.timestamp_micros()))
}
