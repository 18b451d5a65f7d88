//! Properties that become fields of their own, found in a record's `properties`.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;

use super::json_fields::{FieldNames, read_object};
use super::value::is_number;
use crate::streams::{PropertyColumns, PropertyType};
use crate::time::Timestamp;

pub(super) struct PropertyWriter {
    columns: Arc<PropertyColumns>,
    names: FieldNames,
    /// `,"field":` for each column.
    keys: Vec<Vec<u8>>,
}

impl PropertyWriter {
    /// A writer for these columns, with the keys that `key` makes of their names; none when there are none.
    pub(super) fn new(columns: &Arc<PropertyColumns>, mut key: impl FnMut(&str) -> Vec<u8>) -> Option<Self> {
        if columns.is_empty() {
            return None;
        }
        let mut names = FieldNames::default();
        for (place, column) in columns.columns().iter().enumerate() {
            names.add(&column.property, place);
        }
        let keys = columns.columns().iter().map(|column| key(&column.field)).collect();
        Some(Self { columns: Arc::clone(columns), names, keys })
    }

    /// The fields of a record that has these `properties`. Fields whose property is of another type are null
    /// and named in `undecoded`.
    pub(super) fn fields<'l>(&'l self, properties: &[u8], undecoded: &mut Vec<&'l str>) -> Vec<u8> {
        let text = std::str::from_utf8(properties).unwrap_or_default();
        let mut found = vec![None; self.keys.len()];
        // Only an object has properties.
        let is_object = text.starts_with('{') && read_object(text, &self.names, &mut found).is_ok();
        let mut fields = Vec::new();
        for ((column, key), found) in self.columns.columns().iter().zip(&self.keys).zip(found) {
            let value = found
                .filter(|_| is_object)
                .map_or(Some(Cow::Borrowed("null")), |found| value(column.kind, found.get()));
            if value.is_none() {
                undecoded.push(&column.field);
            }
            fields.extend_from_slice(key);
            fields.extend_from_slice(value.as_deref().unwrap_or("null").as_bytes());
        }
        // Line feeds between tokens of `properties` have been replaced already.
        fields
    }
}

/// The value of a field, as JSON text; none when the property is of another type.
fn value(kind: PropertyType, property: &str) -> Option<Cow<'_, str>> {
    if property == "null" {
        return Some(Cow::Borrowed("null"));
    }
    let text = property.starts_with('"').then(|| serde_json::from_str::<String>(property).unwrap_or_default());
    match (kind, text) {
        (PropertyType::String, Some(_)) => Some(Cow::Borrowed(property)),
        (PropertyType::String, None) => Some(Cow::Owned(Value::from(property).to_string())),
        (PropertyType::Number, None) => is_number(property).then_some(Cow::Borrowed(property)),
        (PropertyType::Number, Some(text)) => {
            let text = text.trim();
            is_number(text).then(|| Cow::Owned(text.to_owned()))
        }
        (PropertyType::Boolean, None) => matches!(property, "true" | "false").then_some(Cow::Borrowed(property)),
        (PropertyType::Boolean, Some(text)) => match text.trim().to_ascii_lowercase().as_str() {
            "true" => Some(Cow::Borrowed("true")),
            "false" => Some(Cow::Borrowed("false")),
            _ => None,
        },
        (PropertyType::Time, Some(text)) => {
            Timestamp::parse(text.trim()).map(|instant| Cow::Owned(format!("\"{instant}\"")))
        }
        (PropertyType::Time, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn property_values_of_another_type_become_null() {
        for (kind, property, expected) in [
            (PropertyType::String, r#""a\n""#, Some(r#""a\n""#)),
            (PropertyType::String, r#"{"a":[1]}"#, Some(r#""{\"a\":[1]}""#)),
            (PropertyType::String, "12345678901234567890123", Some("\"12345678901234567890123\"")),
            (PropertyType::Number, "1.50", Some("1.50")),
            (PropertyType::Number, "\" -2e3 \"", Some("-2e3")),
            (PropertyType::Number, "\"1.\"", None),
            (PropertyType::Number, "true", None),
            (PropertyType::Boolean, "\"TRUE\"", Some("true")),
            (PropertyType::Boolean, "1", None),
            (PropertyType::Time, "\"2026-01-01T01:00:00+01:00\"", Some("\"2026-01-01T00:00:00.000000Z\"")),
            (PropertyType::Time, "\"soon\"", None),
            (PropertyType::Time, "5", None),
            (PropertyType::Number, "null", Some("null")),
        ] {
            assert_eq!(value(kind, property).as_deref(), expected, "{kind:?} {property}");
        }
    }
}
