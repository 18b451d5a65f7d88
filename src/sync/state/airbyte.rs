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

/// The state without the wrapping: `{"1001": {"timestamp": "…"}}` or `{"timestamp": "…"}`.
///
/// # Errors
/// When a partition is not a project.
pub(super) fn without_partitions(fields: &Map<String, Value>) -> Result<Map<String, Value>, Error> {
    let is_wrapped = fields.contains_key("states") || fields.contains_key("use_global_cursor");
    if !is_wrapped {
        return Ok(fields.clone());
    }
    let partitions = match fields.get("states") {
        None | Some(Value::Null) => &[],
        Some(Value::Array(partitions)) => partitions.as_slice(),
        Some(_) => return Err(unusable("`states` is not an array")),
    };
    let mut plain = Map::new();
    let is_global = fields.get("use_global_cursor").and_then(Value::as_bool).unwrap_or(false);
    if is_global || partitions.is_empty() {
        if let Some(from) = fields.get("state").and_then(|state| state.get("timestamp")) {
            // Rows that came while the last sync ran lie within the window.
            let window = fields.get("lookback_window").and_then(Value::as_i64).unwrap_or(0);
            let window = TimeDelta::try_seconds(window).unwrap_or_default();
            plain.insert("timestamp".to_owned(), json!(instant("state.timestamp", from)?.minus(window)));
        }
        return Ok(plain);
    }
    for entry in partitions {
        let Some(timestamp) = entry.pointer("/cursor/timestamp") else { continue };
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
        let whole = json!({"use_global_cursor": true, "states": [], "lookback_window": 60, "state": {"timestamp": "2026-01-01T00:01:00Z"}});
        assert_eq!(plain(&whole).unwrap(), json!({"timestamp": "2026-01-01T00:00:00.000000Z"}));
    }
}
