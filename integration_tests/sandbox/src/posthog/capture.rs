//! The endpoints that SDKs send to, and what becomes of an event on its way in.

use std::io::Read as _;
use std::sync::Arc;

use axum::body::Bytes;
use axum::http::Method;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use flate2::read::GzDecoder;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::Shared;
use super::error::ApiError;
use super::hogql::parse_time;
use super::server::{Answer, Call};
use super::store::{Event, Tables};

/// A compressed body may not become larger than this.
const LARGEST_PLAIN: u64 = 64 * 1024 * 1024;
/// PostHog replaces timestamps that are further ahead by the time of arrival.
const FUTURE: i64 = 23 * 3600 * 1_000_000;

/// Everything outside of `/api/`.
pub(crate) fn answer(shared: &Arc<Shared>, call: &Call, segments: &[&str]) -> Answer {
    let answer = match (&call.parts.method, segments) {
        (&Method::OPTIONS, _) => Ok(Answer::raw("text/plain", "")),
        (&Method::POST, ["batch" | "capture" | "track" | "e" | "engage"] | ["i", "v0", "e"]) => take_in(shared, call),
        // Session recordings are accepted and thrown away.
        (&Method::POST, ["s"]) => Ok(Answer::json(&json!({"status": "Ok"}))),
        (&Method::POST, ["flags" | "decide"]) => Ok(Answer::json(&flags())),
        (&Method::GET, ["array", token, "config"]) => Ok(Answer::json(&config(token))),
        (&Method::GET, ["array", token, "config.js"]) => {
            let (token, config) = (json!(token), config(token));
            let script = format!(
                "(function(){{window._POSTHOG_REMOTE_CONFIG=window._POSTHOG_REMOTE_CONFIG||{{}};\
                 window._POSTHOG_REMOTE_CONFIG[{token}]={{config:{config},siteApps:[]}}}})();"
            );
            Ok(Answer::raw("application/javascript", script))
        }
        (&Method::GET, ["static", ..]) => Ok(Answer::raw("application/javascript", "/* nothing to load */")),
        _ => Err(ApiError::not_found()),
    };
    // Browsers have to see refusals too.
    let answer = answer.unwrap_or_else(Answer::from);
    let (origin, wanted) = (call.header("origin"), call.header("access-control-request-headers"));
    answer
        .header("access-control-allow-origin", if origin.is_empty() { "*" } else { origin })
        .header("access-control-allow-credentials", "true")
        .header("access-control-allow-methods", "GET, POST, OPTIONS")
        .header("access-control-allow-headers", if wanted.is_empty() { "content-type" } else { wanted })
}

fn config(token: &str) -> Value {
    json!({
        "token": token, "supportedCompression": ["gzip", "gzip-js"], "hasFeatureFlags": false,
        "captureDeadClicks": false, "capturePerformance": false, "autocapture_opt_out": false,
        "autocaptureExceptions": false, "analytics": {"endpoint": "/i/v0/e/"}, "elementsChainAsString": true,
        "sessionRecording": false, "heatmaps": false, "surveys": false, "defaultIdentifiedOnly": true, "siteApps": [],
    })
}

fn flags() -> Value {
    json!({
        "flags": {}, "featureFlags": {}, "featureFlagPayloads": {}, "errorsWhileComputingFlags": false,
        "requestId": Uuid::now_v7().to_string(), "config": {"enable_collect_everything": true}, "toolbarParams": {},
        "isAuthenticated": false, "supportedCompression": ["gzip", "gzip-js"], "sessionRecording": false, "siteApps": [],
    })
}

fn take_in(shared: &Shared, call: &Call) -> Result<Answer, ApiError> {
    let body = decode(call)?;
    let now = Utc::now().timestamp_millis() * 1000;
    // Browsers say when they sent in the address.
    let stamp = call.parameter("_").and_then(|text| text.parse::<i64>().ok()).map(|millis| millis.saturating_mul(1000));
    let sent_at = body.get("sent_at").and_then(Value::as_str).and_then(|text| parse_time(text, Tz::UTC)).or(stamp);
    let raw: Vec<&Value> = match (&body, body.get("batch")) {
        (Value::Array(events), _) | (_, Some(Value::Array(events))) => events.iter().collect(),
        (Value::Object(_), None) => vec![&body],
        _ => return Err(ApiError::invalid("The body holds no events.")),
    };
    let token = token_of(&body).or_else(|| raw.iter().find_map(|event| token_of(event)));
    let project = shared.projects.iter().find(|(project, _)| Some(project.token.as_str()) == token);
    let Some((project, _)) = project else {
        let detail = "Project API key invalid. You can find your project API key in your PostHog project settings.";
        return Err(ApiError::new(401, "authentication_error", "invalid_api_key", detail));
    };
    let mut tables = shared.write_tables();
    let tables = tables.entry(project.id).or_default();
    let arrival = Arrival { now, sent_at };
    for event in raw {
        let event = event.as_object().ok_or_else(|| ApiError::invalid("An event is no object."))?;
        let event = ingest(tables, project.id, event.clone(), arrival)?;
        // One by one, so that an `$identify` finds the events before it in the same batch.
        tables.insert_one(event);
    }
    Ok(Answer::json(&json!({"status": "Ok"})))
}

fn token_of(value: &Value) -> Option<&str> {
    let own = value.get("api_key").or_else(|| value.get("token")).or_else(|| value.get("$token"));
    own.or_else(|| value.get("properties")?.get("token"))?.as_str()
}

/// Plain JSON, gzip, or base64 in a form.
fn decode(call: &Call) -> Result<Value, ApiError> {
    let mut body = call.body.clone();
    if body.starts_with(b"data=") {
        let form = String::from_utf8_lossy(&body).into_owned();
        let data = form.split('&').find_map(|pair| pair.strip_prefix("data=")).unwrap_or_default();
        body = Bytes::from(percent_decode(data));
    }
    if body.starts_with(&[0x1f, 0x8b]) {
        let mut plain = Vec::new();
        let result = GzDecoder::new(body.as_ref()).take(LARGEST_PLAIN).read_to_end(&mut plain);
        result.map_err(|error| ApiError::invalid(format!("Malformed request data: {error}")))?;
        body = Bytes::from(plain);
    }
    let json = |bytes: &[u8]| serde_json::from_slice(bytes);
    match json(&body) {
        Ok(value) => Ok(value),
        Err(error) => STANDARD
            .decode(body.trim_ascii())
            .ok()
            .and_then(|plain| json(&plain).ok())
            .ok_or_else(|| ApiError::invalid(format!("Malformed request data: {error}"))),
    }
}

/// `%41` and `+` of forms and query strings.
pub(crate) fn percent_decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let digits: Vec<u8> = bytes.by_ref().take(2).collect();
                let value = std::str::from_utf8(&digits).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok());
                out.push(value.unwrap_or(b'?'));
            }
            other => out.push(other),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// When an event arrived, and when its sender believed to have sent it; microseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) now: i64,
    pub(crate) sent_at: Option<i64>,
}

/// Makes the row of an event and keeps the persons up to date.
pub(crate) fn ingest(
    tables: &mut Tables,
    project: u64,
    mut raw: Map<String, Value>,
    arrival: Arrival,
) -> Result<Event, ApiError> {
    let mut properties = match raw.remove("properties") {
        Some(Value::Object(properties)) => properties,
        _ => Map::new(),
    };
    let name = raw.get("event").and_then(Value::as_str).unwrap_or_default().to_owned();
    if name.is_empty() {
        return Err(ApiError::invalid("Event is missing its name."));
    }
    let distinct_id =
        raw.get("distinct_id").or_else(|| raw.get("$distinct_id")).or_else(|| properties.get("distinct_id"));
    let distinct_id = match distinct_id {
        Some(Value::String(text)) if !text.is_empty() => text.chars().take(200).collect(),
        Some(Value::Number(number)) => number.to_string(),
        _ => return Err(ApiError::invalid("Event is missing its distinct_id.")),
    };
    for key in ["$set", "$set_once", "$groups"] {
        if let Some(value @ Value::Object(_)) = raw.remove(key) {
            properties.entry(key).or_insert(value);
        }
    }
    let timestamp = timestamp(&raw, &properties, arrival);
    let object = |properties: &Map<String, Value>, key: &str| match properties.get(key) {
        Some(Value::Object(object)) => object.clone(),
        _ => Map::new(),
    };
    let text = |properties: &Map<String, Value>, key: &str| {
        properties.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
    };

    let propertyless = properties.get("$process_person_profile") == Some(&Value::Bool(false));
    let person_id = if propertyless {
        tables.person_id(project, &distinct_id)
    } else {
        if matches!(name.as_str(), "$identify" | "$create_alias" | "$merge_dangerously") {
            let other = if name == "$identify" { "$anon_distinct_id" } else { "alias" };
            let other = text(&properties, other);
            if other.is_empty() || other == distinct_id {
                tables.identify(project, &distinct_id, &distinct_id, arrival.now);
            } else {
                tables.identify(project, &distinct_id, &other, arrival.now);
            }
        }
        let (set, set_once) = (object(&properties, "$set"), object(&properties, "$set_once"));
        tables.touch_person(project, &distinct_id, arrival.now, &set, &set_once)
    };

    let mut groups: [String; 5] = Default::default();
    for (kind, key) in object(&properties, "$groups") {
        let key = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
        if let Some((index, slot)) = tables.group_index(&kind).and_then(|index| Some((index, groups.get_mut(index)?))) {
            properties.insert(format!("$group_{index}"), Value::String(key.clone()));
            *slot = key;
        }
    }
    let elements_chain = match properties.remove("$elements_chain") {
        Some(Value::String(chain)) => chain,
        _ => String::new(),
    };
    properties.entry("$ip").or_insert_with(|| Value::from("127.0.0.1"));
    let uuid = raw.get("uuid").and_then(Value::as_str).and_then(|text| Uuid::try_parse(text).ok());
    Ok(Event {
        uuid: uuid.unwrap_or_else(Uuid::now_v7),
        event: name.chars().take(200).collect(),
        session_id: text(&properties, "$session_id"),
        window_id: text(&properties, "$window_id"),
        properties: Value::Object(properties).to_string(),
        timestamp,
        created_at: arrival.now,
        distinct_id,
        elements_chain,
        person_id,
        groups,
        person_mode: if propertyless { "propertyless" } else { "full" }.to_owned(),
        visible_at: None,
    })
}

/// The sender's clock may be wrong, but it is equally wrong in `timestamp` and `sent_at`.
fn timestamp(raw: &Map<String, Value>, properties: &Map<String, Value>, arrival: Arrival) -> i64 {
    let Arrival { now, sent_at } = arrival;
    let given = raw.get("timestamp").or_else(|| properties.get("timestamp"));
    let given = match given {
        Some(Value::String(text)) => parse_time(text, Tz::UTC),
        Some(Value::Number(number)) => {
            number.as_i64().and_then(DateTime::from_timestamp_millis).map(|at| at.timestamp_micros())
        }
        _ => None,
    };
    let skewed = properties.get("$ignore_sent_at") != Some(&Value::Bool(true));
    let offset = raw.get("offset").and_then(Value::as_i64).map(|millis| millis.saturating_mul(1000));
    let timestamp = match (given, sent_at, offset) {
        (Some(given), Some(sent_at), _) if skewed => given.saturating_add(now.saturating_sub(sent_at)),
        (Some(given), _, _) => given,
        (None, _, Some(offset)) => now.saturating_sub(offset),
        (None, _, None) => now,
    };
    let timestamp = if timestamp > now.saturating_add(FUTURE) { now } else { timestamp };
    // The worker that takes events in counts in milliseconds.
    timestamp.div_euclid(1000) * 1000
}
