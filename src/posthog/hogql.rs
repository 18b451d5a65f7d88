//! The few shapes of `HogQL` that this connector writes.
//!
//! Times are zoned literals ([`Timestamp::literal`]), texts from users travel as `values`
//! placeholders, which the server turns into constants of the syntax tree: nothing that a user
//! writes can change the meaning of a query. There is no OFFSET anywhere (`PostHog` refuses it) and
//! always a LIMIT (without one the server answers with 100 rows).

use std::fmt::Write;

use serde_json::{Map, Value, json};

use crate::time::Timestamp;

/// Makes `person_id` of events the person at ingestion, as exports have it; in any other mode it is
/// today's person, or not decided by the query (`Database._build_from_sources` in
/// `hogql/database/database.py`).
const PERSONS_AT_INGESTION: &str = "person_id_no_override_properties_on_events";

/// A query with the values of its placeholders.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Query {
    /// `HogQL` text.
    pub text: String,
    /// Values of `{name}` placeholders in the text.
    pub values: Map<String, Value>,
    /// Whether persons of events are those at ingestion.
    pub persons_at_ingestion: bool,
}

impl Query {
    /// The request body for `POST /query/`.
    ///
    /// `convertToProjectTimezone: false` makes the server answer in UTC whatever the project's time
    /// zone; `force_blocking` keeps it from answering with a cached page.
    pub fn body(&self) -> Value {
        let mut query = json!({
            "kind": "HogQLQuery",
            "query": self.text,
            "modifiers": {"convertToProjectTimezone": false},
        });
        if self.persons_at_ingestion {
            query["modifiers"]["personsOnEventsMode"] = Value::from(PERSONS_AT_INGESTION);
        }
        if !self.values.is_empty() {
            query["values"] = Value::Object(self.values.clone());
        }
        json!({"query": query, "refresh": "force_blocking"})
    }
}

/// Conditions joined by AND.
#[derive(Debug, Clone, Default)]
pub struct Predicate {
    conditions: Vec<String>,
    values: Map<String, Value>,
}

impl Predicate {
    /// `column >= from AND column < to`; bounds that every value satisfies are left out.
    pub fn range(&mut self, column: &str, from: Timestamp, to: Timestamp) {
        if from > Timestamp::MIN {
            self.from(column, from);
        }
        // Kept even at its maximum: a condition on the sort key's column lets the server skip parts.
        self.before(column, to);
    }

    /// `column >= from`.
    pub fn from(&mut self, column: &str, from: Timestamp) {
        self.conditions.push(format!("{column} >= {}", from.literal()));
    }

    /// `column < to`.
    pub fn before(&mut self, column: &str, to: Timestamp) {
        self.conditions.push(format!("{column} < {}", to.literal()));
    }

    /// A condition that this program has written, and the values of its placeholders.
    pub fn condition(&mut self, text: String, values: Map<String, Value>) {
        self.conditions.push(text);
        self.values.extend(values);
    }

    /// Rows after a key in the order of `(sort_key, toString(id), identity…)`.
    ///
    /// Both sides are compared by the server and in the same form, because `ClickHouse` orders
    /// UUIDs differently from their text.
    pub fn after(&mut self, sort_key: &str, id: &str, identity: &[&str], key: &RowKey) {
        self.values.insert("after_id".to_owned(), Value::from(key.id.as_str()));
        let (mut columns, mut values) =
            (format!("{sort_key}, toString({id})"), key.sort_key.literal() + ", {after_id}");
        for (column, value) in identity.iter().zip(&key.identity) {
            let name = format!("after_{column}");
            columns = format!("{columns}, {column}");
            values = format!("{values}, {{{name}}}");
            self.values.insert(name, Value::from(value.as_str()));
        }
        self.conditions.push(format!("({columns}) > ({values})"));
    }

    /// Rows after some values in the order of these expressions. Texts travel as values; instants,
    /// days and numbers are literals ([`After`]).
    pub fn after_values(&mut self, after: &[(String, After)]) {
        let mut literals = Vec::with_capacity(after.len());
        for (index, (_, value)) in after.iter().enumerate() {
            literals.push(match value {
                After::Literal(literal) => literal.clone(),
                After::Text(text) => {
                    self.values.insert(format!("after_{index}"), Value::from(text.as_str()));
                    format!("{{after_{index}}}")
                }
            });
        }
        let expressions: Vec<&str> = after.iter().map(|(expression, _)| expression.as_str()).collect();
        self.conditions.push(match (expressions.as_slice(), literals.as_slice()) {
            ([expression], [literal]) => format!("{expression} > {literal}"),
            _ => format!("({}) > ({})", expressions.join(", "), literals.join(", ")),
        });
    }

    /// `expression >= literal`.
    pub fn at_least(&mut self, expression: &str, literal: &str) {
        self.conditions.push(format!("{expression} >= {literal}"));
    }

    /// Rows whose `expression` has a value, or those that lack one.
    pub fn has_value(&mut self, expression: &str, has: bool) {
        self.conditions.push(format!("{expression} IS {}NULL", if has { "NOT " } else { "" }));
    }

    /// `SELECT {columns} FROM {table} WHERE … {tail}`.
    pub fn select(&self, columns: &str, table: &str, tail: &str) -> Query {
        let mut text = format!("SELECT {columns} FROM {table}");
        if !self.conditions.is_empty() {
            // Writing to a String cannot fail.
            let written = write!(text, " WHERE {}", self.conditions.join(" AND "));
            debug_assert!(written.is_ok());
        }
        text.push(' ');
        text.push_str(tail);
        Query { text: text.trim_end().to_owned(), values: self.values.clone(), persons_at_ingestion: false }
    }
}

/// A value that rows are compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum After {
    /// A literal that this program has made.
    Literal(String),
    Text(String),
}

/// Where a page ended: the position and the id of its last row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowKey {
    /// Value of the position column.
    pub sort_key: Timestamp,
    /// Text of the id column.
    pub id: String,
    /// Values of the columns that tell rows of one id apart.
    pub identity: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_input_is_passed_as_values_and_times_have_zones() {
        let mut predicate = Predicate::default();
        let from = Timestamp::parse("2026-01-01").unwrap();
        predicate.range("timestamp", from, Timestamp::MAX);
        predicate.condition(
            "event = {name}".into(),
            [("name".into(), "a'); DROP TABLE events --".into())].into_iter().collect(),
        );
        predicate.after("timestamp", "uuid", &[], &RowKey { sort_key: from, id: "it's".into(), identity: Vec::new() });
        let query = predicate.select("uuid", "events", "ORDER BY timestamp LIMIT 5");
        assert_eq!(
            query.text,
            "SELECT uuid FROM events WHERE timestamp >= toDateTime64('2026-01-01 00:00:00.000000', 6, 'UTC') \
             AND timestamp < toDateTime64('2300-01-01 00:00:00.000000', 6, 'UTC') AND event = {name} \
             AND (timestamp, toString(uuid)) > (toDateTime64('2026-01-01 00:00:00.000000', 6, 'UTC'), {after_id}) \
             ORDER BY timestamp LIMIT 5"
        );
        assert_eq!(query.values["name"], "a'); DROP TABLE events --");
        assert_eq!(query.body()["query"]["values"]["after_id"], "it's");
        assert_eq!(query.body()["refresh"], "force_blocking");
    }
}
