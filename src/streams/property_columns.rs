//! Properties that the user has chosen as typed columns.

use std::collections::BTreeSet;

use serde_json::{Value, json};

/// The property columns of one stream.
#[derive(Debug, Default)]
pub struct PropertyColumns {
    columns: Vec<PropertyColumn>,
}

/// A property and the field that it becomes.
#[derive(Debug)]
pub struct PropertyColumn {
    pub property: String,
    pub field: String,
    pub kind: PropertyType,
}

/// Types of properties, as `PostHog` knows them (`property_type` of property definitions).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PropertyType {
    /// A string; other values become their JSON.
    String,
    /// A number, or a string that contains one.
    Number,
    /// A boolean, or a string that contains one.
    Boolean,
    /// An instant.
    Time,
}

impl PropertyType {
    /// The kind of PostHog's `property_type`.
    pub fn of_property_type(property_type: Option<&str>) -> Self {
        match property_type {
            Some("Numeric") => Self::Number,
            Some("Boolean") => Self::Boolean,
            Some("DateTime") => Self::Time,
            _ => Self::String,
        }
    }

    /// The kind of a field in a catalog; a string if the catalog has none.
    pub fn of_schema(schema: Option<&Value>) -> Self {
        let Some(schema) = schema else { return Self::String };
        let is = |kind: &str| match &schema["type"] {
            Value::Array(types) => types.iter().any(|known| known == kind),
            known => known == kind,
        };
        match () {
            () if is("number") => Self::Number,
            () if is("boolean") => Self::Boolean,
            () if schema["format"] == "date-time" => Self::Time,
            () => Self::String,
        }
    }

    fn schema(self) -> Value {
        match self {
            Self::String => json!({"type": ["null", "string"]}),
            Self::Number => json!({"type": ["null", "number"]}),
            Self::Boolean => json!({"type": ["null", "boolean"]}),
            Self::Time => {
                json!({"type": ["null", "string"], "format": "date-time", "airbyte_type": "timestamp_with_timezone"})
            }
        }
    }
}

impl PropertyColumns {
    /// The fields for some properties, beside those of `schema`; `kind` returns the type for a field and its
    /// property.
    pub fn new(schema: &Value, properties: &[String], kind: impl Fn(&str, &str) -> PropertyType) -> Self {
        let mut taken: BTreeSet<String> =
            schema["properties"].as_object().into_iter().flat_map(|fields| fields.keys().cloned()).collect();
        let mut property_columns = Self::default();
        for property in properties {
            let base = field_name(property);
            let mut field = base.clone();
            let mut number = 1;
            while taken.contains(&field) {
                number += 1;
                field = format!("{base}_{number}");
            }
            taken.insert(field.clone());
            let kind = kind(&field, property);
            property_columns.columns.push(PropertyColumn { property: property.clone(), field, kind });
        }
        property_columns
    }

    /// Those whose fields are wanted.
    #[must_use]
    pub fn only(mut self, is_wanted: impl Fn(&str) -> bool) -> Self {
        self.columns.retain(|column| is_wanted(&column.field));
        self
    }

    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// The columns in the order of the configuration.
    pub fn columns(&self) -> &[PropertyColumn] {
        &self.columns
    }

    /// Adds the fields to a schema of records.
    pub fn add_to(&self, schema: &mut Value) {
        for column in &self.columns {
            let mut field = column.kind.schema();
            field["description"] = Value::from(format!("The property `{}`.", column.property));
            schema["properties"][column.field.as_str()] = field;
        }
    }
}

/// `property_` and the name in lower case, with one underscore for everything that is no letter or digit.
fn field_name(property: &str) -> String {
    let words: Vec<String> = property
        .split(|character: char| !character.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_lowercase)
        .collect();
    if words.is_empty() { "property_unnamed".to_owned() } else { format!("property_{}", words.join("_")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams::EVENTS;

    #[test]
    fn column_names_are_plain_and_unique() {
        let properties: Vec<String> =
            ["$browser", "browser", "Order Total (€)", "$$$", "été", "ÿ"].iter().map(ToString::to_string).collect();
        let property_columns = PropertyColumns::new(&EVENTS.schema(), &properties, |_, _| PropertyType::String);
        let fields: Vec<&str> = property_columns.columns.iter().map(|column| column.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "property_browser",
                "property_browser_2",
                "property_order_total",
                "property_unnamed",
                "property_t",
                "property_unnamed_2"
            ]
        );
    }
}
