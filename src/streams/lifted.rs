//! Properties that the user wants as typed fields of their own.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;

use serde_json::{Value, json};

use super::object::{Names, read_object};
use super::table::Table;
use crate::time::Timestamp;

/// The lifted properties of one stream.
#[derive(Debug, Default)]
pub struct Lifted {
    columns: Vec<LiftedColumn>,
    names: Names,
}

#[derive(Debug)]
struct LiftedColumn {
    property: String,
    field: String,
    /// `,"field":`
    key: Vec<u8>,
    kind: LiftedKind,
}

/// Types of properties, as `PostHog` knows them (`property_type` of property definitions).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiftedKind {
    /// A text; whatever is no text becomes its JSON.
    Text,
    /// A number, or a text that is one.
    Number,
    /// A truth value, or a text that is one.
    Boolean,
    /// An instant.
    Time,
}

impl LiftedKind {
    /// The kind of PostHog's `property_type`.
    pub fn of_property_type(property_type: Option<&str>) -> Self {
        match property_type {
            Some("Numeric") => Self::Number,
            Some("Boolean") => Self::Boolean,
            Some("DateTime") => Self::Time,
            _ => Self::Text,
        }
    }

    /// The kind of a field in a catalog; text when the catalog does not tell.
    pub fn of_schema(schema: Option<&Value>) -> Self {
        let Some(schema) = schema else { return Self::Text };
        let is = |kind: &str| match &schema["type"] {
            Value::Array(types) => types.iter().any(|known| known == kind),
            known => known == kind,
        };
        match () {
            () if is("number") => Self::Number,
            () if is("boolean") => Self::Boolean,
            () if schema["format"] == "date-time" => Self::Time,
            () => Self::Text,
        }
    }

    fn schema(self) -> Value {
        match self {
            Self::Text => json!({"type": ["null", "string"]}),
            Self::Number => json!({"type": ["null", "number"]}),
            Self::Boolean => json!({"type": ["null", "boolean"]}),
            Self::Time => {
                json!({"type": ["null", "string"], "format": "date-time", "airbyte_type": "timestamp_with_timezone"})
            }
        }
    }

    /// The value of a field, as JSON text; none when the property is not of this kind.
    fn value(self, property: &str) -> Option<Cow<'_, str>> {
        if property == "null" {
            return Some(Cow::Borrowed("null"));
        }
        let text = property.starts_with('"').then(|| serde_json::from_str::<String>(property).unwrap_or_default());
        match (self, text) {
            (Self::Text, Some(_)) => Some(Cow::Borrowed(property)),
            (Self::Text, None) => Some(Cow::Owned(Value::from(property).to_string())),
            (Self::Number, None) => is_number(property).then_some(Cow::Borrowed(property)),
            (Self::Number, Some(text)) => {
                let text = text.trim();
                is_number(text).then(|| Cow::Owned(text.to_owned()))
            }
            (Self::Boolean, None) => matches!(property, "true" | "false").then_some(Cow::Borrowed(property)),
            (Self::Boolean, Some(text)) => match text.trim().to_ascii_lowercase().as_str() {
                "true" => Some(Cow::Borrowed("true")),
                "false" => Some(Cow::Borrowed("false")),
                _ => None,
            },
            (Self::Time, Some(text)) => {
                Timestamp::parse(text.trim()).map(|instant| Cow::Owned(format!("\"{instant}\"")))
            }
            (Self::Time, None) => None,
        }
    }
}

fn is_number(text: &str) -> bool {
    text.starts_with(|first: char| first == '-' || first.is_ascii_digit())
        && serde_json::from_str::<serde_json::Number>(text).is_ok()
}

impl Lifted {
    /// The fields for some properties of `table`; `kind` tells the type of a field and its property.
    pub fn new(table: &Table, properties: &[String], kind: impl Fn(&str, &str) -> LiftedKind) -> Self {
        let schema = table.schema();
        let mut taken: BTreeSet<String> =
            schema["properties"].as_object().into_iter().flat_map(|fields| fields.keys().cloned()).collect();
        let mut lifted = Self::default();
        for property in properties {
            let base = field_name(property);
            let mut field = base.clone();
            let mut number = 1;
            while taken.contains(&field) {
                number += 1;
                field = format!("{base}_{number}");
            }
            taken.insert(field.clone());
            lifted.names.add(property, lifted.columns.len());
            let (key, kind) = (format!(",{}:", Value::from(field.as_str())).into_bytes(), kind(&field, property));
            lifted.columns.push(LiftedColumn { property: property.clone(), field, key, kind });
        }
        lifted
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// Adds the fields to a schema of records.
    pub fn add_to(&self, schema: &mut Value) {
        for column in &self.columns {
            let mut field = column.kind.schema();
            field["description"] = Value::from(format!("The property `{}`.", column.property));
            schema["properties"][column.field.as_str()] = field;
        }
    }

    /// Appends the fields of a record whose `properties` are at `document` in `lines`. Fields whose
    /// property is of another kind are null and named in `undecoded`.
    pub(super) fn append<'l>(&'l self, document: Range<usize>, lines: &mut Vec<u8>, undecoded: &mut Vec<&'l str>) {
        let text = lines.get(document).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default();
        let mut found = vec![None; self.columns.len()];
        // Properties that are no object have nothing to lift.
        let is_object = text.starts_with('{') && read_object(text, &self.names, &mut found).is_ok();
        let mut fields = Vec::new();
        for (column, found) in self.columns.iter().zip(found) {
            let value =
                found.filter(|_| is_object).map_or(Some(Cow::Borrowed("null")), |found| column.kind.value(found.get()));
            if value.is_none() {
                undecoded.push(&column.field);
            }
            fields.extend_from_slice(&column.key);
            fields.extend_from_slice(value.as_deref().unwrap_or("null").as_bytes());
        }
        // Texts between tokens of `properties` have no line feeds any more.
        lines.extend_from_slice(&fields);
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
    fn names_are_simple_and_never_taken_twice() {
        let properties: Vec<String> =
            ["$browser", "browser", "Order Total (€)", "$$$", "été", "ÿ"].iter().map(ToString::to_string).collect();
        let lifted = Lifted::new(&EVENTS, &properties, |_, _| LiftedKind::Text);
        let fields: Vec<&str> = lifted.columns.iter().map(|column| column.field.as_str()).collect();
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

    #[test]
    fn values_are_of_their_kind_or_null() {
        for (kind, property, expected) in [
            (LiftedKind::Text, r#""a\n""#, Some(r#""a\n""#)),
            (LiftedKind::Text, r#"{"a":[1]}"#, Some(r#""{\"a\":[1]}""#)),
            (LiftedKind::Text, "12345678901234567890123", Some("\"12345678901234567890123\"")),
            (LiftedKind::Number, "1.50", Some("1.50")),
            (LiftedKind::Number, "\" -2e3 \"", Some("-2e3")),
            (LiftedKind::Number, "\"1.\"", None),
            (LiftedKind::Number, "true", None),
            (LiftedKind::Boolean, "\"TRUE\"", Some("true")),
            (LiftedKind::Boolean, "1", None),
            (LiftedKind::Time, "\"2026-01-01T01:00:00+01:00\"", Some("\"2026-01-01T00:00:00.000000Z\"")),
            (LiftedKind::Time, "\"soon\"", None),
            (LiftedKind::Time, "5", None),
            (LiftedKind::Number, "null", Some("null")),
        ] {
            assert_eq!(kind.value(property).as_deref(), expected, "{kind:?} {property}");
        }
    }
}
