//! Which properties become fields, and of which type.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

use crate::config::Config;
use crate::error::Error;
use crate::posthog::http::{Client, GiveUp, Observer};
use crate::posthog::lists::{PAGE, Pages};
use crate::streams::{EVENTS, PERSONS, PropertyColumns, PropertyType, Table};

/// Types of properties, by what they are properties of and by name.
pub(super) type Types = HashMap<(&'static str, String), PropertyType>;

/// The properties of `table` that become fields, and what they are properties of.
fn chosen<'c>(config: &'c Config, table: &Table) -> (&'static str, &'c [String]) {
    if table.stream == EVENTS.stream {
        ("event", &config.event_property_columns)
    } else if table.stream == PERSONS.stream {
        ("person", &config.person_property_columns)
    } else {
        ("", &[])
    }
}

/// The fields of a stream, with the types that `PostHog` knows.
pub(super) fn by_types(config: &Config, table: &Table, types: &Types) -> PropertyColumns {
    let (kind, properties) = chosen(config, table);
    PropertyColumns::new(&table.schema(), properties, |_, property| {
        types.get(&(kind, property.to_owned())).copied().unwrap_or(PropertyType::String)
    })
}

/// The fields of a stream, with the types that its schema in the configured catalog has.
pub(super) fn by_schema(config: &Config, table: &Table, schema: &Value) -> PropertyColumns {
    PropertyColumns::new(&table.schema(), chosen(config, table).1, |field, _| {
        PropertyType::of_schema(schema["properties"].get(field))
    })
}

/// Whether any property becomes a field.
pub(super) fn any(config: &Config) -> bool {
    !config.event_property_columns.is_empty() || !config.person_property_columns.is_empty()
}

/// Asks for the types of the chosen properties, project after project until all are known. Without
/// the scope for it, all are strings, and a warning is logged.
///
/// # Errors
/// When `PostHog` does not answer usefully.
pub(super) async fn types(
    client: &Client,
    config: &Config,
    projects: &[u64],
    observer: &dyn Observer,
) -> Result<Types, Error> {
    #[derive(Deserialize)]
    struct Definition {
        name: String,
        property_type: Option<String>,
    }
    let mut types = Types::new();
    for (kind, properties) in [("event", &config.event_property_columns), ("person", &config.person_property_columns)] {
        for project in projects {
            let missing = |types: &Types, name: &String| !types.contains_key(&(kind, name.clone()));
            let mut query = Some(format!("limit={PAGE}&offset=0&type={kind}"));
            let mut pages = Pages::new(client, format!("api/projects/{project}/property_definitions/"), observer);
            while let Some(next) = query.take().filter(|_| properties.iter().any(|name| missing(&types, name))) {
                let page = match pages.read(&next).await {
                    Ok(page) => page,
                    Err(GiveUp::Refused(refusal)) => {
                        let error = Error::from(GiveUp::Refused(refusal));
                        tracing::warn!(
                            "project {project}: the types of properties are not known, so their columns are strings: {error}"
                        );
                        break;
                    }
                    Err(give_up) => return Err(give_up.into()),
                };
                for object in page.objects {
                    let Ok(definition) = serde_json::from_str::<Definition>(object.get()) else { continue };
                    // A project that knows the name but no type leaves the answer to others.
                    if properties.contains(&definition.name) && definition.property_type.is_some() {
                        let known = PropertyType::of_property_type(definition.property_type.as_deref());
                        types.entry((kind, definition.name)).or_insert(known);
                    }
                }
                query = page.next;
            }
        }
    }
    Ok(types)
}
