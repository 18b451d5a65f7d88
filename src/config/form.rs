//! What the configurations of both connectors have in common: reading with messages that name the
//! field, and the form for Airbyte's user interface.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::error::Error;
use crate::secret::Secret;

/// Reads the JSON text of a configuration.
///
/// # Errors
/// A config error that names the field.
pub fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, Error> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    serde_path_to_error::deserialize(&mut reader).map_err(|error| match error.path().to_string().as_str() {
        "." => Error::config(format!("the configuration is not usable: {}", error.inner())),
        path => Error::config(format!("`{path}` in the configuration is not usable: {}", error.inner())),
    })
}

/// The secret of a field: the configured one or, when that is absent or empty, the value of the
/// environment variable `variable`.
///
/// # Errors
/// A config error when the configured text is a reference such as `${NAME}`, which nobody replaces.
pub fn secret(
    field: &str,
    configured: Option<Secret>,
    variable: &str,
    from_environment: Option<&str>,
) -> Result<Option<Secret>, Error> {
    let is_there = |secret: &Secret| !secret.expose().is_empty();
    let Some(secret) = configured.filter(is_there) else {
        return Ok(from_environment.map(Secret::new).filter(is_there));
    };
    if secret.expose().starts_with("${") && secret.expose().ends_with('}') {
        return Err(Error::config(format!(
            "`{field}` is a reference to a variable, which is not replaced; leave `{field}` out and set the environment variable {variable}"
        )));
    }
    Ok(Some(secret))
}

/// Checks that a number lies between two others.
///
/// # Errors
/// A config error that names the field and the bounds.
pub fn in_range(field: &str, value: u32, least: u32, most: u32) -> Result<u32, Error> {
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(Error::config(format!("`{field}` is {value}; it must be between {least} and {most}")))
}

/// The form of a configuration: draft 7, without references, with groups of `(id, title)`.
pub fn schema<T: JsonSchema>(groups: &[(&str, &str)]) -> Value {
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    let mut form = settings.into_generator().into_root_schema_for::<T>().to_value();
    tidy(&mut form);
    form["additionalProperties"] = json!(true);
    form["groups"] = groups.iter().map(|(id, title)| json!({"id": id, "title": title})).collect();
    form
}

/// Turns what the form builder does not know into what it knows: integer formats and null defaults
/// go, alternatives that are only constants become an `enum`.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            let format = fields.get("format").and_then(Value::as_str);
            if format.is_some_and(|format| format != "date-time" && format != "date") {
                fields.remove("format");
            }
            if fields.get("default").is_some_and(Value::is_null) {
                fields.remove("default");
            }
            let constants: Option<Vec<Value>> = fields
                .get("oneOf")
                .and_then(Value::as_array)
                .and_then(|variants| variants.iter().map(|variant| variant.get("const").cloned()).collect());
            if let Some(constants) = constants {
                fields.remove("oneOf");
                fields.insert("enum".to_owned(), Value::Array(constants));
            }
            fields.values_mut().for_each(tidy);
        }
        Value::Array(values) => values.iter_mut().for_each(tidy),
        _ => {}
    }
}
