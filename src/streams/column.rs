//! A field of a table stream and where its value comes from.

use serde_json::{Value, json};

/// One field of a record.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    pub field: &'static str,
    /// `HogQL` expression; `None` if queries do not provide the value.
    pub expression: Option<&'static str>,
    pub exported: ExportedAs,
    pub kind: Kind,
    /// One sentence for the schema.
    pub description: &'static str,
    /// Whose properties it holds, if it does.
    pub holds: Option<Properties>,
    /// The property of events that its value is made from, if it is one.
    pub made_from: Option<&'static str>,
    /// Whether somebody could do something with its value.
    pub is_credential: bool,
}

/// Whose properties a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Properties {
    /// Those of an event, with those that it sets of its person.
    OfEvent,
    OfPerson,
}

/// Where an exported line has a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportedAs {
    /// In the field with this name.
    Field(&'static str),
    /// In the property with this name, from which `PostHog` makes the column.
    Property(&'static str),
    /// Nowhere: the field is null.
    Nowhere,
}

/// How a value is treated on its way from an answer to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A string, passed on unchanged.
    String,
    /// A string that `PostHog` leaves empty when there is none; then null.
    OptionalString,
    /// An instant, passed on in UTC with microseconds.
    Timestamp,
    /// JSON inside a string, which becomes an object.
    Json,
    /// The members of a JSON object inside a string whose names begin with this, under the rest of their
    /// names; under 0 where nothing is left.
    Members(&'static str),
    /// A boolean, which some versions send as 0 or 1.
    Boolean,
    Integer,
    Number,
    /// A day without a time.
    Date,
    /// A list of strings.
    Strings,
    List,
    /// Anything: a string as it is, other values as their JSON.
    Text,
}

impl Kind {
    /// The kind of a field whose values come from a list endpoint. Instants stay as the server spells
    /// them, so they are texts.
    pub fn of_schema(schema: &Value) -> Self {
        match schema["type"][1].as_str() {
            Some("object") => Self::Json,
            Some("array") => Self::List,
            Some("boolean") => Self::Boolean,
            Some("integer") => Self::Integer,
            Some("number") => Self::Number,
            _ => Self::Text,
        }
    }
}

impl Column {
    /// A field that has the same name in queries and in exported files.
    pub const fn new(field: &'static str, kind: Kind, description: &'static str) -> Self {
        let exported = ExportedAs::Field(field);
        Self {
            field,
            expression: Some(field),
            exported,
            kind,
            description,
            holds: None,
            made_from: None,
            is_credential: false,
        }
    }

    /// It holds properties.
    #[must_use]
    pub const fn holding(self, properties: Properties) -> Self {
        Self { holds: Some(properties), ..self }
    }

    /// It is only read where the user asks for credentials.
    #[must_use]
    pub const fn credential(self) -> Self {
        Self { is_credential: true, ..self }
    }

    /// Its value is made from a property of events.
    #[must_use]
    pub const fn made_from(self, property: &'static str) -> Self {
        Self { made_from: Some(property), ..self }
    }

    /// Queries select this expression instead.
    #[must_use]
    pub const fn selected_as(self, expression: &'static str) -> Self {
        Self { expression: Some(expression), ..self }
    }

    /// Queries do not provide the value.
    #[must_use]
    pub const fn not_selected(self) -> Self {
        Self { expression: None, ..self }
    }

    /// Exported files have the value somewhere else.
    #[must_use]
    pub const fn exported_as(self, exported: ExportedAs) -> Self {
        Self { exported, ..self }
    }

    /// A field that only exists because another connector has it; it is always null.
    #[must_use]
    pub const fn nowhere(self) -> Self {
        self.not_selected().exported_as(ExportedAs::Nowhere)
    }

    /// JSON schema (draft 7) of the field.
    pub fn schema(&self) -> Value {
        let mut schema = match self.kind {
            Kind::String | Kind::OptionalString | Kind::Text => json!({"type": ["null", "string"]}),
            Kind::Timestamp => {
                json!({"type": ["null", "string"], "format": "date-time", "airbyte_type": "timestamp_with_timezone"})
            }
            // Some loaders look for `properties` in every object.
            Kind::Json | Kind::Members(_) => {
                json!({"type": ["null", "object"], "properties": {}, "additionalProperties": true})
            }
            Kind::Boolean => json!({"type": ["null", "boolean"]}),
            Kind::Integer => json!({"type": ["null", "integer"]}),
            Kind::Number => json!({"type": ["null", "number"]}),
            Kind::Date => json!({"type": ["null", "string"], "format": "date"}),
            Kind::List => json!({"type": ["null", "array"]}),
            Kind::Strings => json!({"type": ["null", "array"], "items": {"type": ["null", "string"]}}),
        };
        schema["description"] = Value::from(self.description);
        schema
    }
}
