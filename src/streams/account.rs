//! Streams about the account itself: objects of a fixed form, one record each.

use serde_json::{Map, Value, json};

/// A stream of objects that do not belong to a project.
#[derive(Debug)]
pub struct AccountStream {
    pub stream: &'static str,
    /// Scope that the key needs.
    pub scope: &'static str,
    /// Field, JSON schema type, description. Other fields are left out.
    pub fields: &'static [(&'static str, &'static str, &'static str)],
}

impl AccountStream {
    pub const PRIMARY_KEY: &'static str = "id";

    /// JSON schemas of the fields, by name.
    pub(crate) fn schemas(&self) -> Map<String, Value> {
        let mut properties = Map::new();
        for (field, kind, description) in self.fields {
            let mut schema = match *kind {
                "date-time" => {
                    json!({"type": ["null", "string"], "format": "date-time", "airbyte_type": "timestamp_with_timezone"})
                }
                "object" => json!({"type": ["null", "object"], "properties": {}, "additionalProperties": true}),
                "array" => json!({"type": ["null", "array"]}),
                kind => json!({"type": ["null", kind]}),
            };
            schema["description"] = Value::from(*description);
            properties.insert((*field).to_owned(), schema);
        }
        properties
    }

    pub fn schema(&self) -> Value {
        super::table::object_schema(self.schemas())
    }
}
