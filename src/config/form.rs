//! What the configurations of both connectors have in common: reading with messages that name the
//! field, and the form for Airbyte's user interface.

use std::path::Path;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::fit::fit;
use crate::error::Error;
use crate::input_file;
use crate::json_text;
use crate::secret::Secret;

/// The bytes of a configuration file.
///
/// # Errors
/// A config error that names the file.
pub fn file(path: &Path) -> Result<Vec<u8>, Error> {
    input_file::read(path)
        .map_err(|error| Error::config(format!("cannot read the configuration file `{}`: {error}", path.display())))
}

/// Reads the JSON text of a configuration, and warns of keys that have no effect.
///
/// # Errors
/// A config error that names the field.
pub fn read<T: DeserializeOwned + JsonSchema>(text: &[u8]) -> Result<T, Error> {
    read_with(text, &[])
}

/// Like [`read`], for a form that does not show all that is understood: `silent` are the paths of the rest.
///
/// # Errors
/// A config error that names the field.
pub fn read_with<T: DeserializeOwned + JsonSchema>(text: &[u8], silent: &[&str]) -> Result<T, Error> {
    let mut document =
        json_text::parse(text).map_err(|problem| Error::config(format!("the configuration {problem}")))?;
    for notice in fit(&mut document, &schema::<T>(&[]), silent).map_err(Error::config)? {
        tracing::warn!("{notice}");
    }
    serde_path_to_error::deserialize(document).map_err(|error| {
        let problem = without_value(&error.inner().to_string());
        match error.path().to_string().as_str() {
            "." => Error::config(format!("the configuration is not usable: {problem}")),
            path => Error::config(format!("`{path}` in the configuration is not usable: {problem}")),
        }
    })
}

/// What serde has expected; in front of that, it quotes the value, which can be a secret.
fn without_value(problem: &str) -> String {
    match problem.rsplit_once(", expected ") {
        Some((_, expected)) => format!("it must be {expected}"),
        None => problem.to_owned(),
    }
}

/// The secret of a field: the configured one or, when that is absent or empty, the value of the
/// environment variable `variable`.
///
/// # Errors
/// A config error when the configured string only stands for a secret, such as `${NAME}`, which is never replaced.
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
    match placeholder(secret.expose().trim()) {
        Some(what) => Err(Error::config(format!(
            "`{field}` is {what}; set the secret itself, or leave `{field}` out and set the environment variable {variable}"
        ))),
        None => Ok(Some(secret)),
    }
}

/// What stands in place of a secret, if the text is plainly none.
fn placeholder(text: &str) -> Option<&'static str> {
    let is_between = |begin: &str, end: &str| {
        let inside = text.strip_prefix(begin).and_then(|rest| rest.strip_suffix(end));
        inside.is_some_and(|inside| !inside.contains("://"))
    };
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
    };
    let references = [("${", "}"), ("$(", ")"), ("{{", "}}"), ("%", "%")];
    if references.iter().any(|(begin, end)| is_between(begin, end)) || text.strip_prefix('$').is_some_and(is_name) {
        return Some("a reference to a variable, which is not replaced");
    }
    if is_between("<", ">") && !text.contains(|character: char| character.is_ascii_digit()) {
        return Some("a placeholder");
    }
    let is_mask = |character| matches!(character, '*' | '\u{2022}' | '\u{25cf}');
    (text.chars().filter(|character| is_mask(*character)).count() >= 3)
        .then_some("not complete: dots or asterisks hide a part of it")
}

/// A field that is null counts as absent.
///
/// # Errors
/// When the value is of another type.
pub fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// A string that is null, empty or blank counts as absent.
///
/// # Errors
/// When the value is of another type.
pub fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.filter(|text| !text.trim().is_empty()))
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

/// Turns what the form builder does not know into what it knows: integer formats, null defaults and
/// the type null go, alternatives that are only constants become an `enum`. Line breaks of a
/// description are those of a doc comment.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.retain(|key, value| match (key.as_str(), &*value) {
                ("format", Value::String(format)) => format == "date-time" || format == "date",
                ("default", value) => !value.is_null(),
                _ => true,
            });
            if let Some(Value::String(description)) = fields.get_mut("description") {
                *description = description.replace('\n', " ");
            }
            if let Some([kind, _]) = fields.get("type").and_then(Value::as_array).map(Vec::as_slice) {
                let kind = kind.clone();
                fields.insert("type".to_owned(), kind);
            }
            let constants: Option<Vec<Value>> = fields
                .get("oneOf")
                .and_then(Value::as_array)
                .and_then(|variants| variants.iter().map(|variant| variant.get("const").cloned()).collect());
            if let Some(constants) = constants {
                fields.remove("oneOf");
                fields.insert("enum".to_owned(), Value::Array(constants));
                fields.insert("type".to_owned(), json!("string"));
            }
            fields.values_mut().for_each(tidy);
        }
        Value::Array(values) => values.iter_mut().for_each(tidy),
        _ => {}
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Every setting of a form: a configuration that lacks it, its place in there, and its property.
    fn settings(form: &Value, config: &Value, parent: &str, found: &mut Vec<(Value, String, Value)>) {
        for (name, property) in form["properties"].as_object().into_iter().flatten() {
            let place = format!("{parent}/{name}");
            found.push((config.clone(), place.clone(), property.clone()));
            if property["properties"].is_object() {
                settings(property, &with(config, &place, json!({})), &place, found);
            }
            for variant in property["oneOf"].as_array().into_iter().flatten() {
                let kind = json!({"type": variant["properties"]["type"]["const"]});
                settings(variant, &with(config, &place, kind), &place, found);
            }
        }
    }

    fn with(config: &Value, place: &str, value: Value) -> Value {
        let mut config = config.clone();
        let (parent, name) = place.rsplit_once('/').unwrap();
        config.pointer_mut(parent).unwrap()[name] = value;
        config
    }

    /// Asserts that a program behaves as its specification promises: a setting without a value has the
    /// default, and a number out of bounds is rejected with its full path and these bounds.
    pub(crate) fn assert_kept(specification: &Value, base: &Value, parse: impl Fn(&[u8]) -> Result<String, Error>) {
        let parse = |config: &Value| parse(config.to_string().as_bytes());
        let mut found = Vec::new();
        settings(&specification["connectionSpecification"], base, "", &mut found);
        let mut bounds = 0;
        for (config, place, property) in &found {
            let field = place.trim_start_matches('/').replace('/', ".");
            let absent = with(config, place, Value::Null);
            if let Some(default) = property.get("default") {
                let explicit = parse(&with(config, place, default.clone())).unwrap();
                assert_eq!(parse(config).unwrap(), explicit, "{field}");
                assert_eq!(parse(&absent).unwrap(), explicit, "{field}");
            }
            let (least, most) = (&property["minimum"], &property["maximum"]);
            if let Some(number) = most.as_u64() {
                bounds += 1;
                let too_much = number + 1;
                let message = parse(&with(config, place, json!(too_much))).unwrap_err().message().to_owned();
                assert_eq!(message, format!("`{field}` must be between {least} and {most}"));
                for allowed in [least, most] {
                    assert!(parse(&with(config, place, allowed.clone())).is_ok(), "{field}: {allowed}");
                }
            }
        }
        assert!(bounds > 5, "only {bounds} settings have bounds");
    }
}
