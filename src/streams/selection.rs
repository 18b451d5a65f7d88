//! Which fields of a stream become part of its records.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::column::{Column, Kind};
use super::property_columns::PropertyColumns;
use crate::config::{PropertyRules, Treatment};

/// The fields of a stream that are wanted. Cheap to clone.
///
/// Platforms deselect a column by leaving it out of the stream's schema in the configured catalog
/// (`CatalogConverter` and `FieldSelector` of Airbyte's platform).
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Names of the fields; all if there are none.
    fields: Option<Arc<BTreeSet<String>>>,
    property_columns: Arc<PropertyColumns>,
    event_rules: Arc<PropertyRules>,
    person_rules: Arc<PropertyRules>,
    has_credentials: bool,
}

impl Selection {
    /// All fields.
    pub fn all() -> Self {
        Self::default()
    }

    /// The fields of a schema in the configured catalog; all if it names none.
    pub fn of_schema(schema: &Value) -> Self {
        let names = schema["properties"].as_object().into_iter().flat_map(|fields| fields.keys());
        let fields: BTreeSet<String> = names.map(|name| unescaped(name).to_owned()).collect();
        let fields = (!fields.is_empty()).then(|| Arc::new(fields));
        Self { fields, ..Self::default() }
    }

    /// Adds properties as fields of their own, as far as they are wanted.
    #[must_use]
    pub fn with_property_columns(mut self, columns: PropertyColumns) -> Self {
        self.property_columns = Arc::new(columns.only(|field| self.has(field)));
        self
    }

    /// Applies rules for the properties of events and persons.
    #[must_use]
    pub fn with_rules(self, event_rules: &Arc<PropertyRules>, person_rules: &Arc<PropertyRules>) -> Self {
        Self { event_rules: Arc::clone(event_rules), person_rules: Arc::clone(person_rules), ..self }
    }

    /// Reads credentials as well.
    #[must_use]
    pub fn with_credentials(self, has_credentials: bool) -> Self {
        Self { has_credentials, ..self }
    }

    /// Whether credentials are read.
    pub fn has_credentials(&self) -> bool {
        self.has_credentials
    }

    /// Whether a column is wanted, and no rule drops what it is made from.
    pub fn has_column(&self, column: &Column) -> bool {
        let is_dropped = |property: &str| match self.event_rules.of_value(property) {
            Treatment::Drop => true,
            // A hash is a string.
            Treatment::Hash => !matches!(column.kind, Kind::String | Kind::OptionalString),
            Treatment::Keep | Treatment::Descend => false,
        };
        let is_withheld = column.is_credential && !self.has_credentials;
        self.has(column.field) && !is_withheld && !column.made_from.is_some_and(is_dropped)
    }

    /// The rules for properties of events.
    pub fn event_rules(&self) -> &Arc<PropertyRules> {
        &self.event_rules
    }

    /// The rules for properties of persons.
    pub fn person_rules(&self) -> &Arc<PropertyRules> {
        &self.person_rules
    }

    /// Whether a field is wanted.
    pub fn has(&self, field: &str) -> bool {
        self.fields.as_ref().is_none_or(|fields| fields.contains(field))
    }

    /// The names that were chosen; none if all fields are wanted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().flat_map(|fields| fields.iter()).map(String::as_str)
    }

    /// The wanted properties that are fields of their own.
    pub fn property_columns(&self) -> &Arc<PropertyColumns> {
        &self.property_columns
    }
}

/// Airbyte's platform puts a `$` before names that mean something in a JSON schema.
fn unescaped(name: &str) -> &str {
    name.strip_prefix('$').filter(|rest| matches!(*rest, "id" | "comment" | "schema")).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_schema_without_fields_selects_all() {
        for schema in [json!({}), json!(null), json!({"type": "object"}), json!({"properties": {}}), json!([])] {
            assert!(Selection::of_schema(&schema).has("properties"), "{schema}");
        }
        let selection = Selection::of_schema(&json!({"properties": {"$id": {}, "event": {}}}));
        assert!(selection.has("id") && selection.has("event") && !selection.has("properties"));
    }
}
