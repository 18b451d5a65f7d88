//! Which fields of a stream the configured catalog asks for.

use crate::config::Config;
use crate::error::Error;
use crate::protocol::ConfiguredStream;
use crate::source::property_types;
use crate::source::unmatched::nearest;
use crate::streams::{PropertyColumns, Selection, Source};

/// The fields that a stream's records have. Warns of names in the catalog that the stream does not have, and of
/// columns that the configuration asks for and the catalog leaves out.
///
/// # Errors
/// When the stream has none of the fields that are selected.
pub(super) fn selection(config: &Config, source: Source, configured: &ConfiguredStream) -> Result<Selection, Error> {
    let (stream, schema) = (&configured.stream.name, &configured.stream.json_schema);
    let selection = Selection::of_schema(schema);
    let property_columns = match source {
        Source::Table(table) => property_types::by_schema(config, table, schema),
        _ => PropertyColumns::default(),
    };
    let mut known = source.schema();
    property_columns.add_to(&mut known);
    let known: Vec<String> = known["properties"].as_object().into_iter().flat_map(|it| it.keys().cloned()).collect();
    let unknown: Vec<String> = selection
        .names()
        .filter(|name| !known.iter().any(|field| field == name))
        .map(|name| {
            nearest(name, &known).map_or(format!("`{name}`"), |hint| format!("`{name}` (did you mean `{hint}`?)"))
        })
        .collect();
    if !unknown.is_empty() {
        if unknown.len() == selection.names().count() {
            return Err(Error::config(format!(
                "the catalog selects no field that the stream `{stream}` has, only {}; select some of {}",
                unknown.join(", "),
                known.join(", ")
            )));
        }
        tracing::warn!(
            "the catalog selects fields that the stream `{stream}` does not have, so its records lack them: {}",
            unknown.join(", ")
        );
    }
    let left_out: Vec<&str> =
        property_columns.columns().iter().map(|column| &*column.field).filter(|field| !selection.has(field)).collect();
    if !left_out.is_empty() {
        tracing::warn!(
            "the catalog does not select the property columns {} of `{stream}`, so they are left out; discover the schema again to select them",
            left_out.join(", ")
        );
    }
    warn_about_key(configured, &selection);
    let selection = selection
        .with_rules(&config.event_properties, &config.person_properties)
        .with_credentials(config.include_credentials);
    Ok(selection.with_property_columns(property_columns))
}

/// A destination that deduplicates by a field needs it.
fn warn_about_key(configured: &ConfiguredStream, selection: &Selection) {
    let key = configured.primary_key.as_ref().or(configured.stream.source_defined_primary_key.as_ref());
    let missing = key.into_iter().flatten().flatten().find(|field| !selection.has(field));
    if let Some(field) = missing.filter(|_| configured.destination_sync_mode.contains("dedup")) {
        tracing::warn!(
            "the catalog does not select `{field}`, which is part of the primary key of `{}`, so the destination cannot deduplicate by it; select it",
            configured.stream.name
        );
    }
}
