//! A configured catalog in the spelling of Airbyte's API, as people find it in a connection.
//!
//! The API, its clients and PyAirbyte write camelCase, keep the sync mode of a stream in `config` beside it,
//! list streams and fields that are not selected, and put all of that into `syncCatalog`. Everything is turned into
//! the protocol's shape before it is read. A key that was missed would not be an error: the sync mode
//! would be the default, and everything would be read again.

use serde_json::{Map, Value, json};

use crate::json_text::kind;

/// The keys that both spellings have in common.
const KEYS: &[&str] = &[
    "json_schema",
    "supported_sync_modes",
    "source_defined_cursor",
    "default_cursor_field",
    "source_defined_primary_key",
    "is_resumable",
    "sync_mode",
    "destination_sync_mode",
    "cursor_field",
    "primary_key",
    "sync_catalog",
    "selected_fields",
    "field_selection_enabled",
    "field_path",
];

/// The catalog in the protocol's shape.
///
/// # Errors
/// What is wrong, to be put behind the catalog's name.
pub(super) fn protocol_shape(document: Value) -> Result<Value, String> {
    let mut catalog = object(document, "")?;
    for envelope in ["sync_catalog", "catalog", "configurations"] {
        if !catalog.contains_key("streams")
            && let Some(inner) = catalog.remove(envelope)
        {
            catalog = object(inner, envelope)?;
        }
    }
    let streams = match catalog.remove("streams") {
        Some(Value::Array(streams)) => streams,
        Some(other) => return Err(format!("has {} as `streams`; it must be a list", kind(&other))),
        None => return Err("has no `streams`".to_owned()),
    };
    let mut configured = Vec::with_capacity(streams.len());
    for (index, entry) in streams.into_iter().enumerate() {
        configured.extend(stream(entry, &format!("streams[{index}]"))?);
    }
    Ok(json!({ "streams": configured }))
}

/// One configured stream; none if it is not selected.
fn stream(entry: Value, path: &str) -> Result<Option<Value>, String> {
    let mut entry = object(entry, path)?;
    if let Some(config) = entry.remove("config").filter(|config| !config.is_null()) {
        entry.extend(object(config, &format!("{path}.config"))?);
    }
    let is_false = |value: &Value| {
        *value == Value::Bool(false) || value.as_str().is_some_and(|text| text.eq_ignore_ascii_case("false"))
    };
    if entry.get("selected").is_some_and(is_false) {
        return Ok(None);
    }
    list_paths(&mut entry);
    let fields = selected_fields(&mut entry, path)?;
    let (mut described, place) = match entry.remove("stream") {
        Some(described) => (object(described, &format!("{path}.stream"))?, format!("{path}.stream")),
        // The public API has the name itself here.
        None if entry.contains_key("name") && entry.contains_key("sync_mode") => (entry.clone(), path.to_owned()),
        None if entry.contains_key("name") => {
            return Err(format!(
                "lists the available streams, as `discover` prints them, but not how to read them: `{path}` has no `stream` and no `sync_mode`"
            ));
        }
        None => return Err(format!("has no `stream` at `{path}`")),
    };
    list_paths(&mut described);
    for keys in [&entry, &described] {
        keys.keys().filter_map(|key| Some((key, nearest(key)?))).for_each(|(key, known)| {
            tracing::warn!(
                "the catalog has the unknown key `{key}` at `{path}`, which has no effect; did you mean `{known}`?"
            );
        });
    }
    let Some(Value::String(name)) = described.get("name") else {
        return Err(format!("has no name at `{place}.name`"));
    };
    match described.get("supported_sync_modes") {
        None | Some(Value::Array(_)) => {}
        Some(other) => {
            return Err(format!("has {} as `{place}.supported_sync_modes`; it must be a list", kind(other)));
        }
    }
    if let Some(mode) = entry.get("sync_mode") {
        let (mode, destination) = sync_mode(mode).ok_or_else(|| {
            let shown = mode.as_str().map_or_else(|| kind(mode).to_owned(), |mode| format!("`{mode}`"));
            format!(
                "has {shown} as `{path}.sync_mode` of the stream `{name}`; it must be `incremental` or `full_refresh`"
            )
        })?;
        entry.insert("sync_mode".to_owned(), Value::from(mode));
        if let Some(destination) = destination {
            entry.entry("destination_sync_mode").or_insert_with(|| Value::from(destination));
        }
    } else {
        tracing::warn!(
            "the catalog does not say how to read the stream `{name}` (`{path}.sync_mode`), so it is read in full"
        );
    }
    if let Some(fields) = fields {
        let schema = described.entry("json_schema").or_insert_with(|| json!({}));
        let properties = fields.into_iter().map(|field| {
            let property = schema["properties"].get(&field).cloned().unwrap_or_else(|| json!({}));
            (field, property)
        });
        let properties: Map<String, Value> = properties.collect();
        *schema = json!({ "type": "object", "properties": properties });
    }
    entry.insert("stream".to_owned(), Value::Object(described));
    Ok(Some(Value::Object(entry)))
}

/// Puts fields and their paths into the lists in which the protocol has them.
fn list_paths(members: &mut Map<String, Value>) {
    let list = |value: &mut Value| {
        if value.is_string() {
            *value = json!([value.take()]);
        }
    };
    for key in ["cursor_field", "default_cursor_field"] {
        members.get_mut(key).into_iter().for_each(list);
    }
    for keys in ["primary_key", "source_defined_primary_key"] {
        let Some(paths) = members.get_mut(keys) else { continue };
        list(paths);
        paths.as_array_mut().into_iter().flatten().for_each(list);
    }
}

/// The key that one which is not known is nearly spelled like. Platforms add keys of their own, which are not.
fn nearest(key: &str) -> Option<&'static str> {
    let known = KEYS.iter().filter(|_| !KEYS.contains(&key));
    let alike = known.map(|known| (strsim::damerau_levenshtein(known, key), known));
    alike.min().filter(|(distance, _)| *distance <= 2).map(|(_, known)| *known)
}

/// The fields that are selected; none where all are. The protocol leaves the others out of the schema instead.
fn selected_fields(entry: &mut Map<String, Value>, path: &str) -> Result<Option<Vec<String>>, String> {
    let is_off = entry.remove("field_selection_enabled") == Some(Value::Bool(false));
    let Some(Value::Array(fields)) = entry.remove("selected_fields").filter(|_| !is_off) else { return Ok(None) };
    let mut names = Vec::with_capacity(fields.len());
    for (index, field) in fields.into_iter().enumerate() {
        let field = object(field, &format!("{path}.selected_fields[{index}]"))?;
        let Some(name) = field.get("field_path").and_then(|steps| steps[0].as_str()) else {
            return Err(format!("has no name at `{path}.selected_fields[{index}].fieldPath`"));
        };
        names.push(name.to_owned());
    }
    Ok((!names.is_empty()).then_some(names))
}

/// How to read a stream, and how to write it where one word says both.
fn sync_mode(mode: &Value) -> Option<(&'static str, Option<&'static str>)> {
    match mode.as_str()?.trim().to_ascii_lowercase().as_str() {
        "incremental" => Some(("incremental", None)),
        "full_refresh" => Some(("full_refresh", None)),
        "incremental_append" => Some(("incremental", Some("append"))),
        "incremental_deduped_history" => Some(("incremental", Some("append_dedup"))),
        "full_refresh_append" => Some(("full_refresh", Some("append"))),
        "full_refresh_overwrite" => Some(("full_refresh", Some("overwrite"))),
        "full_refresh_overwrite_deduped" => Some(("full_refresh", Some("overwrite_dedup"))),
        _ => None,
    }
}

/// An object with its keys in the protocol's spelling. What stands in a schema is left as it is.
fn object(value: Value, path: &str) -> Result<Map<String, Value>, String> {
    match value {
        Value::Object(members) => Ok(members
            .into_iter()
            .map(|(key, value)| match KEYS.iter().find(|known| known.replace('_', "").eq_ignore_ascii_case(&key)) {
                Some(known) => ((*known).to_owned(), value),
                None => (key, value),
            })
            .collect()),
        other if path.is_empty() => Err(format!("is {}; it must be an object with `streams`", kind(&other))),
        other => Err(format!("has {} as `{path}`; it must be an object", kind(&other))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_and_the_protocol_mean_the_same() {
        let expected = json!({"streams": [{
            "stream": {"name": "events", "json_schema": {"properties": {"jsonSchema": {}}}, "supported_sync_modes": ["incremental"]},
            "sync_mode": "incremental", "destination_sync_mode": "append_dedup", "cursor_field": ["created_at"],
        }]});
        let described = json!({"name": "events", "jsonSchema": {"properties": {"jsonSchema": {}}}, "supportedSyncModes": ["incremental"]});
        let config =
            json!({"syncMode": "incremental", "destinationSyncMode": "append_dedup", "cursorField": ["created_at"]});
        let mut beside = config.clone();
        beside["stream"] = described.clone();
        let unselected =
            json!({"stream": {"name": "persons"}, "config": {"syncMode": "full_refresh", "selected": false}});
        for catalog in [
            expected.clone(),
            json!({"streams": [{"stream": described, "config": config}, unselected]}),
            json!({"streams": [beside]}),
            json!({"connectionId": "x", "syncCatalog": {"streams": [{"stream": described, "config": config}]}}),
            json!({"type": "CATALOG", "catalog": expected.clone()}),
        ] {
            assert_eq!(protocol_shape(catalog.clone()), Ok(expected.clone()), "{catalog}");
        }
        let public = json!({"streams": [{"name": "events", "syncMode": "incremental_append", "cursorField": ["x"]}]});
        let stream = &protocol_shape(public).unwrap()["streams"][0];
        assert_eq!((&stream["sync_mode"], &stream["destination_sync_mode"]), (&json!("incremental"), &json!("append")));
        assert_eq!(stream["stream"]["name"], "events");
    }

    #[test]
    fn what_is_meant_is_read_and_what_is_misspelled_is_found() {
        let stream = json!({"stream": {"name": "events", "sourceDefinedPrimaryKey": ["id", ["project_id"]]},
            "syncMode": "incremental", "cursorField": "created_at", "primaryKey": "id"});
        let shape = &protocol_shape(json!({"streams": [stream]})).unwrap()["streams"][0];
        assert_eq!((&shape["cursor_field"], &shape["primary_key"]), (&json!(["created_at"]), &json!([["id"]])));
        assert_eq!(shape["stream"]["source_defined_primary_key"], json!([["id"], ["project_id"]]));
        let config = json!({"syncMode": "incremental", "selected": "False"});
        let shape = protocol_shape(json!({"streams": [{"stream": {"name": "events"}, "config": config}]}));
        assert_eq!(shape, Ok(json!({"streams": []})));
        for (key, known) in [
            ("sync_mod", Some("sync_mode")),
            ("cursor_fields", Some("cursor_field")),
            ("sync_mode", None),
            ("generation_id", None),
            ("sync_id", None),
            ("name", None),
        ] {
            assert_eq!(nearest(key), known, "{key}");
        }
    }

    #[test]
    fn selected_fields_become_the_schema() {
        let paths = json!([{"fieldPath": ["id"]}, {"fieldPath": ["event"]}]);
        let described =
            json!({"name": "events", "jsonSchema": {"properties": {"id": {"type": "string"}, "properties": {}}}});
        let all = json!({"id": {"type": "string"}, "properties": {}});
        let some = json!({"id": {"type": "string"}, "event": {}});
        for (enabled, fields, expected) in [
            (json!(true), paths.clone(), &some),
            (json!(null), paths.clone(), &some),
            (json!(false), paths.clone(), &all),
            (json!(true), json!([]), &all),
            (json!(true), json!(null), &all),
        ] {
            let config = json!({"syncMode": "incremental", "fieldSelectionEnabled": enabled, "selectedFields": fields});
            let shape = protocol_shape(json!({"streams": [{"stream": described, "config": config}]})).unwrap();
            assert_eq!(&shape["streams"][0]["stream"]["json_schema"]["properties"], expected, "{enabled} {fields}");
        }
        let public =
            json!({"streams": [{"name": "events", "syncMode": "incremental_append", "selectedFields": paths}]});
        let shape = protocol_shape(public).unwrap();
        assert_eq!(shape["streams"][0]["stream"]["json_schema"]["properties"], json!({"id": {}, "event": {}}));
    }

    #[test]
    fn faults_are_named_by_their_key() {
        for (catalog, expected) in [
            (json!([]), "is a list; it must be an object with `streams`"),
            (json!({}), "has no `streams`"),
            (json!({"streams": {}}), "has an object as `streams`"),
            (json!({"streams": ["events"]}), "has a string as `streams[0]`"),
            (json!({"streams": [{"stream": "events"}]}), "has a string as `streams[0].stream`"),
            (json!({"streams": [{}]}), "has no `stream` at `streams[0]`"),
            (json!({"streams": [{"stream": {}}]}), "has no name at `streams[0].stream.name`"),
            (json!({"streams": [{"name": "events", "json_schema": {}}]}), "as `discover` prints them"),
            (json!({"streams": [{"stream": {"name": "e"}, "sync_mode": null}]}), "has null as `streams[0].sync_mode`"),
            (
                json!({"streams": [{"stream": {"name": "e"}, "sync_mode": "x"}]}),
                "has `x` as `streams[0].sync_mode` of the stream `e`",
            ),
            (
                json!({"streams": [{"stream": {"name": "e", "supported_sync_modes": null}}]}),
                "has null as `streams[0].stream.supported_sync_modes`",
            ),
        ] {
            let problem = protocol_shape(catalog.clone()).unwrap_err();
            assert!(problem.starts_with(expected) || problem.contains(expected), "{catalog}: {problem}");
        }
    }
}
