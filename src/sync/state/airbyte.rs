//! States of Airbyte's connector as Airbyte's framework wraps them.
//!
//! ```json
//! {"states": [{"partition": {"project_id": "1001", "parent_slice": {}}, "cursor": {"timestamp": "…"}}],
//!  "use_global_cursor": false, "state": {"timestamp": "…"}, "lookback_window": 5, "parent_state": {}}
//! ```
//!
//! A stream that is read in full has `{"__ab_full_refresh_sync_complete": true}` for a cursor, which says
//! nothing about the next sync.

use chrono::TimeDelta;
use serde_json::{Map, Value, json};

use super::error::{instant, unusable};
use crate::error::Error;

/// Keys about a full refresh, which starts from scratch.
pub(super) fn is_about_a_refresh(key: &str) -> bool {
    key.starts_with("__ab_") || key == "next_page_token"
}

/// Keys of the wrapping. What parents have come to says nothing about a stream of this program.
const WRAPPING: [&str; 5] = ["states", "use_global_cursor", "state", "lookback_window", "parent_state"];

/// The state without the wrapping: `{"1001": {"timestamp": "…"}}` or `{"timestamp": "…"}`.
///
/// # Errors
/// When a partition is not a project, or has another cursor than a time.
pub(super) fn without_partitions(fields: &Map<String, Value>) -> Result<Map<String, Value>, Error> {
    let is_wrapped = fields.contains_key("states") || fields.contains_key("use_global_cursor");
    if !is_wrapped {
        return Ok(fields.clone());
    }
    let is_other = |(key, value): &(&String, &Value)| {
        !WRAPPING.contains(&key.as_str()) && !is_about_a_refresh(key) && !value.is_null()
    };
    if let Some((key, _)) = fields.iter().find(is_other) {
        return Err(unusable(format_args!("`{key}` is not known")));
    }
    let partitions = match fields.get("states") {
        None | Some(Value::Null) => &[],
        Some(Value::Array(partitions)) => partitions.as_slice(),
        Some(_) => return Err(unusable("`states` is not an array")),
    };
    let mut plain = Map::new();
    let is_global = fields.get("use_global_cursor").and_then(Value::as_bool).unwrap_or(false);
    if (is_global || partitions.is_empty())
        && let Some(from) = cursor("state", fields.get("state"))?
    {
        // Rows that came while the last sync ran lie within the window.
        let window = match fields.get("lookback_window") {
            None | Some(Value::Null) => 0,
            Some(window) => window.as_i64().ok_or_else(|| {
                unusable(format_args!("`lookback_window` is {window}, which is not a number of seconds"))
            })?,
        };
        let window = TimeDelta::try_seconds(window).unwrap_or_default();
        plain.insert("timestamp".to_owned(), json!(instant("state.timestamp", from)?.minus(window)));
        return Ok(plain);
    }
    for entry in partitions {
        let Some(timestamp) = cursor("cursor", entry.get("cursor"))? else { continue };
        let project = ["project_id", "id"].iter().find_map(|key| match entry.get("partition")?.get(*key)? {
            Value::Number(number) => Some(number.to_string()),
            Value::String(text) => Some(text.clone()),
            _ => None,
        });
        let project = project
            .filter(|text| text.parse::<u64>().is_ok())
            .ok_or_else(|| unusable(format_args!("the partition {} is not a project", entry["partition"])))?;
        plain.insert(project, json!({"timestamp": timestamp}));
    }
    Ok(plain)
}

/// The time in a cursor; none when it is empty or about a full refresh.
fn cursor<'a>(name: &str, cursor: Option<&'a Value>) -> Result<Option<&'a Value>, Error> {
    let fields = match cursor {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Object(fields)) => fields,
        Some(other) => return Err(unusable(format_args!("`{name}` is {other}, not an object with a `timestamp`"))),
    };
    let timestamp = fields.get("timestamp").filter(|timestamp| !timestamp.is_null());
    let is_other = |(key, value): &(&String, &Value)| !is_about_a_refresh(key) && !value.is_null();
    match fields.iter().find(is_other) {
        Some((key, _)) if timestamp.is_none() => {
            Err(unusable(format_args!("`{name}` has `{key}`, but no `timestamp`")))
        }
        _ => Ok(timestamp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(state: &Value) -> Result<Value, Error> {
        without_partitions(state.as_object().unwrap()).map(Value::Object)
    }

    #[test]
    fn partitions_are_projects() {
        let partition =
            |project: Value| json!({"partition": project, "cursor": {"timestamp": "2026-01-01T00:00:00+0000"}});
        let expected = json!({"1001": {"timestamp": "2026-01-01T00:00:00+0000"}});
        for project in [json!({"project_id": "1001"}), json!({"id": 1001, "parent_slice": {}})] {
            assert_eq!(plain(&json!({"states": [partition(project)], "state": {"timestamp": "x"}})).unwrap(), expected);
        }
        assert!(plain(&json!({"states": [partition(json!({"name": "x"}))]})).is_err());
        let full = json!({"partition": {"id": 1}, "cursor": {"__ab_full_refresh_sync_complete": true}});
        assert_eq!(plain(&json!({"states": [full]})).unwrap(), json!({}));
        let own = json!({"partition": {"id": 1}, "cursor": {"created_at": "2026-01-01T00:00:00Z"}});
        for unknown in [
            json!({"states": [own]}),
            json!({"states": [], "state": {"created_at": "2026-01-01T00:00:00Z"}}),
            json!({"states": [{"partition": {"id": 1}, "cursor": "2026-01-01T00:00:00Z"}]}),
            json!({"states": [], "use_global_cursor": true, "state": {"timestamp": "2026-01-01T00:00:00Z"}, "lookback_window": "1h"}),
            json!({"states": [], "1001": {"timestamp": "2026-01-01T00:00:00Z"}}),
        ] {
            assert!(plain(&unknown).is_err(), "{unknown}");
        }
        let both = json!({"use_global_cursor": true, "state": {}, "states": [partition(json!({"id": 1001}))]});
        assert_eq!(plain(&both).unwrap(), expected);
        let whole = json!({"use_global_cursor": true, "states": [], "lookback_window": 60, "state": {"timestamp": "2026-01-01T00:01:00Z"}});
        assert_eq!(plain(&whole).unwrap(), json!({"timestamp": "2026-01-01T00:00:00.000000Z"}));
    }
}
