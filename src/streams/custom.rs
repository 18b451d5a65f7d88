//! Streams of custom `HogQL` queries.
//!
//! A query is wrapped as a table, `FROM (<query>) AS q`, and read like one.

use super::column::{Column, ExportedAs, Kind};
use super::keyset::{KeysetStream, KeysetTable};
use crate::config::CustomQuery;
use crate::error::Error;

/// The stream of a query with the columns and types that the server has reported.
///
/// # Errors
/// A config error when key or cursor are not among the columns, or a column cannot be addressed.
pub fn stream(query: &CustomQuery, described: &[(String, String)]) -> Result<&'static KeysetStream, Error> {
    let problem = |text: String| Error::config(format!("the custom query `{}` {text}", query.name));
    let mut columns: Vec<Column> = Vec::new();
    for (name, kind) in described {
        if name.contains(['`', '\\']) || name.is_empty() {
            return Err(problem(format!(
                "has the column `{name}`, whose name cannot be used; give it a simple one with AS"
            )));
        }
        if name == super::table::PROJECT_FIELD {
            return Err(problem(
                "has a column `project_id`, which the connector adds itself; give it another name with AS".to_owned(),
            ));
        }
        if columns.iter().any(|known| known.field == name) {
            return Err(problem(format!("has two columns `{name}`; give one another name with AS")));
        }
        let description = leak(format!("Of the type {kind} in PostHog."));
        columns.push(
            Column::new(leak(name.clone()), kind_of(kind), description)
                .selected_as(leak(format!("q.`{name}`")))
                .exported_as(ExportedAs::Nowhere),
        );
    }
    let names = || described.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    for (field, setting) in query
        .primary_key
        .iter()
        .map(|field| (field, "primary_key"))
        .chain(query.cursor_field.iter().map(|field| (field, "cursor_field")))
    {
        if columns.iter().all(|column| column.field != field) {
            return Err(problem(format!("has no column `{field}`, which `{setting}` names; it has {}", names())));
        }
    }
    if let Some(cursor) = &query.cursor_field {
        let kind = columns.iter().find(|column| column.field == cursor).map(|column| column.kind);
        if !matches!(kind, Some(Kind::Timestamp | Kind::Date | Kind::Integer)) {
            return Err(problem(format!(
                "cannot use `{cursor}` as `cursor_field`; it must be a time, a date or a whole number"
            )));
        }
    }
    let key: Vec<&'static str> = query.primary_key.iter().map(|field| leak(field.clone())).collect();
    let part = KeysetTable { from: leak(format!("({}\n) AS q", query.query)), label: None, optional: false };
    Ok(Box::leak(Box::new(KeysetStream {
        stream: leak(query.name.clone()),
        parts: Box::leak(Box::new([part])),
        columns: columns.leak(),
        key: key.leak(),
        windows: None,
        owners: None,
        cursor: query.cursor_field.clone().map(leak),
        key_must_be_unique: true,
    })))
}

/// Streams live as long as the program; so do the few texts of those that the user has made.
fn leak(text: String) -> &'static str {
    text.leak()
}

/// What a ClickHouse type becomes.
fn kind_of(mut kind: &str) -> Kind {
    // No recursion, however deep a server nests them.
    while let Some(inner) = inside(kind, "Nullable").or_else(|| inside(kind, "LowCardinality")) {
        kind = inner;
    }
    let name = kind.split('(').next().unwrap_or(kind);
    match name {
        "String" | "FixedString" | "UUID" | "Enum8" | "Enum16" | "IPv4" | "IPv6" => Kind::String,
        "DateTime" | "DateTime64" => Kind::Timestamp,
        "Date" | "Date32" => Kind::Date,
        "Bool" => Kind::Boolean,
        "Array" | "Tuple" | "Nested" | "Point" | "Ring" | "Polygon" | "MultiPolygon" => Kind::List,
        "Map" | "JSON" | "Object" => Kind::Json,
        _ if name.starts_with("Int") || name.starts_with("UInt") => Kind::Integer,
        _ if name.starts_with("Float") || name.starts_with("Decimal") => Kind::Number,
        _ => Kind::Text,
    }
}

/// What is between the parentheses of the type with this name.
fn inside<'k>(kind: &'k str, name: &str) -> Option<&'k str> {
    kind.strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clickhouse_types_become_json_schema_types() {
        for (kind, expected) in [
            ("Nullable(String)", Kind::String),
            ("LowCardinality(Nullable(String))", Kind::String),
            ("DateTime64(6, 'UTC')", Kind::Timestamp),
            ("Nullable(DateTime64(3, 'Europe/Berlin'))", Kind::Timestamp),
            ("UInt64", Kind::Integer),
            ("Nullable(Float64)", Kind::Number),
            ("Decimal(10, 2)", Kind::Number),
            ("Array(Tuple(String, UInt8))", Kind::List),
            ("Map(String, String)", Kind::Json),
            ("JSON", Kind::Json),
            ("Tuple(String, UInt8)", Kind::List),
            ("Nullable(Nothing)", Kind::Text),
            ("Variant(String, UInt8)", Kind::Text),
            ("Date", Kind::Date),
            ("Bool", Kind::Boolean),
        ] {
            assert_eq!(kind_of(kind), expected, "{kind}");
        }
        let deep = format!("{}Date{}", "Nullable(".repeat(1_000_000), ")".repeat(1_000_000));
        assert_eq!(kind_of(&deep), Kind::Date);
    }
}
