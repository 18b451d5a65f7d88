//! A column of a `HogQL` table and how its values become fields of a record.

use serde_json::{Value, json};

/// One selected expression and the record field that it fills.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Field of the record.
    pub field: &'static str,
    /// `HogQL` expression.
    pub expression: &'static str,
    /// How the value is treated.
    pub kind: Kind,
    /// One sentence for the schema.
    pub description: &'static str,
}

/// How a value is treated on its way from an answer to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A text, passed on as it is.
    Text,
    /// A text that `PostHog` leaves empty when there is none; then null.
    OptionalText,
    /// An instant, passed on in UTC.
    Timestamp,
    /// A JSON document inside a text, which becomes an object.
    Document,
    /// A truth value, which some versions send as 0 or 1.
    Boolean,
}

impl Column {
    /// JSON schema (draft 7) of the field.
    pub fn schema(&self) -> Value {
        let mut schema = match self.kind {
            Kind::Text | Kind::OptionalText => json!({"type": ["null", "string"]}),
            Kind::Timestamp => {
                json!({"type": ["null", "string"], "format": "date-time", "airbyte_type": "timestamp_with_timezone"})
            }
            Kind::Document => json!({"type": ["null", "object"], "additionalProperties": true}),
            Kind::Boolean => json!({"type": ["null", "boolean"]}),
        };
        schema["description"] = Value::from(self.description);
        schema
    }
}
