//! Fits a configuration to its specification before it is read.
//!
//! Forms, Terraform and shells send `"3"` for 3 and one string for a list. Where only one thing can
//! be meant, it is taken; anything else is refused by the name of the setting and what it must be. The
//! value is not shown, because a secret can stand in the wrong place.
//! Keys that no setting has are collected with the setting that may have been meant. Among rules about personal data they
//! are an error: what a misspelled rule was to leave out would be emitted.

use serde_json::{Map, Number, Value};

use crate::json_text::kind;

/// How alike two names have to be, from 0 to 1.
const ALIKE: f64 = 0.7;
/// Settings in which an unknown key is an error.
const STRICT: [&str; 2] = ["event_properties", "person_properties"];

/// Fits `document` to `schema`, the form of its specification; `silent` are paths that the form does not
/// show. Returns notices about keys that have no effect.
///
/// # Errors
/// A sentence that names the first setting whose value is of another type, or the first unknown key among rules about
/// personal data.
pub(super) fn fit(document: &mut Value, schema: &Value, silent: &[&str]) -> Result<Vec<String>, String> {
    if !document.is_object() {
        return Err(format!(
            "the configuration is {}; it must be an object such as {{\"start_date\": …}}",
            kind(document)
        ));
    }
    let mut fitting = Fitting { silent, paths: Vec::new(), notices: Vec::new() };
    paths(schema, "", &mut fitting.paths);
    fitting.value(document, schema, "")?;
    Ok(fitting.notices)
}

struct Fitting<'s> {
    silent: &'s [&'s str],
    /// All settings there are.
    paths: Vec<String>,
    notices: Vec<String>,
}

impl Fitting<'_> {
    fn value(&mut self, value: &mut Value, schema: &Value, path: &str) -> Result<(), String> {
        // A form sends an empty string for what has not been filled in.
        if schema["type"] != "string" && value.as_str().is_some_and(|text| text.trim().is_empty()) {
            *value = Value::Null;
        }
        if value.is_null() {
            return Ok(());
        }
        if let Some(variants) = schema["oneOf"].as_array() {
            return self.choice(value, variants, path);
        }
        if let Some(words) = schema["enum"].as_array() {
            return one_of(value, words, path);
        }
        let expected = match schema["type"].as_str() {
            Some("object") => {
                let found = kind(value);
                let members = value.as_object_mut();
                let members =
                    members.ok_or_else(|| format!("`{path}` in the configuration is {found}; it must be an object"))?;
                return self.members(members, &[schema], path);
            }
            Some("array") => return self.list(value, &schema["items"], path),
            Some("integer") => {
                let Some(number) = whole_number(value) else { return Err(wrong(value, path, "a whole number")) };
                // Here as well as where the settings are checked: those numbers have no sign and 32 bits.
                if let (Some(least), Some(most), None) = (
                    schema["minimum"].as_u64(),
                    schema["maximum"].as_u64(),
                    number.as_u64().and_then(|it| u32::try_from(it).ok()),
                ) {
                    return Err(format!("`{path}` must be between {least} and {most}"));
                }
                Value::Number(number)
            }
            Some("number") => {
                let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
                let number = number.and_then(Number::from_f64);
                Value::Number(number.ok_or_else(|| wrong(value, path, "a number"))?)
            }
            Some("boolean") => {
                let text = value.as_str().map(|text| text.trim().to_ascii_lowercase());
                match (&*value, text.as_deref()) {
                    (Value::Bool(flag), _) => Value::Bool(*flag),
                    (_, Some("true")) => Value::Bool(true),
                    (_, Some("false")) => Value::Bool(false),
                    _ => return Err(wrong(value, path, "true or false")),
                }
            }
            Some("string") if schema["airbyte_secret"] == true => match value {
                Value::String(_) => return Ok(()),
                _ => return Err(format!("`{path}` in the configuration is {}; it must be a string", kind(value))),
            },
            Some("string") => match &*value {
                Value::Number(_) | Value::Bool(_) | Value::Object(_) => return Err(wrong(value, path, "a string")),
                // A string or, where both are possible, a list of strings.
                _ => return Ok(()),
            },
            _ => return Ok(()),
        };
        *value = expected;
        Ok(())
    }

    /// One of several objects, told apart by their `type`.
    fn choice(&mut self, value: &mut Value, variants: &[Value], path: &str) -> Result<(), String> {
        let names: Vec<&str> =
            variants.iter().filter_map(|variant| variant["properties"]["type"]["const"].as_str()).collect();
        let wanted = listed(&names);
        if let Value::String(name) = value {
            *value = serde_json::json!({ "type": name });
        }
        let Some(members) = value.as_object_mut() else {
            return Err(wrong(value, path, &format!("an object whose `type` is {wanted}")));
        };
        let Some(name) = members.get("type").filter(|name| !name.is_null()) else {
            return Err(format!("`{path}.type` in the configuration is missing; it must be {wanted}"));
        };
        let place =
            name.as_str().and_then(|name| names.iter().position(|known| known.eq_ignore_ascii_case(name.trim())));
        let Some((known, variant)) = place.and_then(|place| names.get(place).zip(variants.get(place))) else {
            return Err(unknown_word(name, &format!("{path}.type"), &wanted));
        };
        members.insert("type".to_owned(), Value::from(*known));
        let mut schemas = vec![variant];
        schemas.extend(variants.iter().filter(|other| *other != variant));
        self.members(members, &schemas, path)
    }

    /// The members of an object: the first of `schemas` is its own, others are those that it does not have.
    fn members(&mut self, members: &mut Map<String, Value>, schemas: &[&Value], path: &str) -> Result<(), String> {
        for (key, value) in members {
            let inner = join(path, key);
            let property = schemas.first().and_then(|schema| schema["properties"].get(key));
            if let Some(property) = property {
                self.value(value, property, &inner)?;
            } else if schemas.iter().any(|schema| schema["properties"].get(key).is_some()) {
                self.notices
                    .push(format!("`{inner}` in the configuration has no effect with this `{}`", join(path, "type")));
            } else if !self.silent.contains(&inner.as_str())
                && key.starts_with(|first: char| first.is_ascii_alphabetic())
            {
                // Other first characters are notes, or keys that Airbyte adds (`__injected_…`).
                let is_strict = STRICT.contains(&path);
                let effect = if is_strict { "" } else { ", which has no effect" };
                let hint = match self.nearest(&inner, key) {
                    Some(nearest) => format!("; did you mean `{nearest}`?"),
                    None if is_strict => format!("; there are {}", self.members_of(path)),
                    None => String::new(),
                };
                let notice = format!("the configuration has the unknown key `{inner}`{effect}{hint}");
                if is_strict {
                    return Err(notice);
                }
                self.notices.push(notice);
            }
        }
        Ok(())
    }

    fn list(&mut self, value: &mut Value, items: &Value, path: &str) -> Result<(), String> {
        let is_list_of_objects = items["type"] == "object";
        match value {
            Value::Array(_) => {}
            Value::String(text) if text.trim_start().starts_with('[') && text.trim_end().ends_with(']') => {
                return Err(format!(
                    "`{path}` in the configuration is a string that contains a list; write the list without the quotation marks around it"
                ));
            }
            Value::Object(_) if is_list_of_objects => *value = Value::Array(vec![value.take()]),
            Value::String(_) | Value::Number(_) if !is_list_of_objects => *value = Value::Array(vec![value.take()]),
            _ => return Err(format!("`{path}` in the configuration is {}; it must be a list", kind(value))),
        }
        for (index, item) in value.as_array_mut().into_iter().flatten().enumerate() {
            let path = format!("{path}[{index}]");
            if item.is_null() {
                return Err(format!("`{path}` in the configuration is null; remove it"));
            }
            if let Some(number) = item.as_number().filter(|number| items["type"] == "string" && !number.is_f64()) {
                *item = Value::String(number.to_string());
            }
            self.value(item, items, &path)?;
        }
        Ok(())
    }

    /// The settings in the object at `path`.
    fn members_of(&self, path: &str) -> String {
        let is_inside = |known: &&String| known.rsplit_once('.').is_some_and(|(parent, _)| parent == path);
        let names: Vec<String> = self.paths.iter().filter(is_inside).map(|known| format!("`{known}`")).collect();
        names.join(", ")
    }

    /// The setting that is spelled like `key`, or nearly so; first of all one beside it.
    fn nearest(&self, path: &str, key: &str) -> Option<&str> {
        let plain =
            |name: &str| name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
        let parent = path.rsplit_once('.').map_or("", |(parent, _)| parent);
        let likeness = |known: &str| {
            let (others, last) = known.rsplit_once('.').unwrap_or(("", known));
            let alike = strsim::normalized_damerau_levenshtein(&plain(last), &plain(key));
            // Of names elsewhere, only the same counts.
            if others == parent { alike } else { alike.floor() * 0.99 }
        };
        let nearest = self.paths.iter().map(|known| (likeness(known), known));
        let nearest = nearest.max_by(|(left, _), (right, _)| left.total_cmp(right));
        nearest.filter(|(alike, _)| *alike >= ALIKE).map(|(_, known)| known.as_str())
    }
}

/// All settings of a form.
fn paths(schema: &Value, parent: &str, found: &mut Vec<String>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = join(parent, name);
        paths(property, &path, found);
        found.push(path);
    }
    for variant in schema["oneOf"].as_array().into_iter().flatten() {
        paths(variant, parent, found);
    }
}

fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.to_owned() } else { format!("{parent}.{name}") }
}

fn whole_number(value: &Value) -> Option<Number> {
    match value {
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(float) => format!("{float}").parse::<i64>().ok().map(Number::from),
            None => Some(number.clone()),
        },
        Value::String(text) => {
            let text = text.trim();
            text.parse::<u64>().map(Number::from).or_else(|_| text.parse::<i64>().map(Number::from)).ok()
        }
        _ => None,
    }
}

fn one_of(value: &mut Value, words: &[Value], path: &str) -> Result<(), String> {
    let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
    let word = value.as_str().and_then(|text| words.iter().find(|word| word.eq_ignore_ascii_case(text.trim())));
    let word = word.ok_or_else(|| unknown_word(value, path, &listed(&words)))?;
    *value = Value::from(*word);
    Ok(())
}

fn listed(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

fn wrong(value: &Value, path: &str, expected: &str) -> String {
    format!("`{path}` in the configuration is {}; it must be {expected}", kind(value))
}

/// A word that is not among those that are known.
fn unknown_word(value: &Value, path: &str, expected: &str) -> String {
    match value {
        Value::String(_) => format!("`{path}` in the configuration must be {expected}"),
        other => wrong(other, path, expected),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Value {
        let method = |name: &str, more: Value| {
            let mut properties = json!({"type": {"const": name}});
            for (name, property) in more.as_object().unwrap() {
                properties[name] = property.clone();
            }
            json!({"properties": properties})
        };
        json!({"type": "object", "properties": {
            "api_key": {"type": "string", "airbyte_secret": true},
            "start_date": {"type": "string"},
            "names": {"type": "array", "items": {"type": "string"}},
            "project_ids": {"type": "array", "items": {"type": "integer"}},
            "headers": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
            "count": {"type": "integer"},
            "share": {"type": "number"},
            "flag": {"type": "boolean"},
            "shape": {"type": "string", "enum": ["data", "airbyte"]},
            "method": {"type": "object", "oneOf": [
                method("auto", json!({})),
                method("query", json!({"page_size": {"type": "integer"}})),
            ]},
        }})
    }

    fn fitted(mut document: Value) -> Result<(Value, Vec<String>), String> {
        let notices = fit(&mut document, &schema(), &["method.old"])?;
        Ok((document, notices))
    }

    #[test]
    fn what_can_mean_only_one_thing_is_taken() {
        for (given, meant) in [
            (json!({"count": "3"}), json!({"count": 3})),
            (json!({"count": 3.0}), json!({"count": 3})),
            (json!({"count": ""}), json!({"count": null})),
            (json!({"share": " 0.5"}), json!({"share": 0.5})),
            (json!({"flag": "True"}), json!({"flag": true})),
            (json!({"names": "a, b"}), json!({"names": ["a, b"]})),
            (json!({"names": [404]}), json!({"names": ["404"]})),
            (json!({"names": ""}), json!({"names": null})),
            (json!({"project_ids": "7"}), json!({"project_ids": [7]})),
            (json!({"project_ids": 7}), json!({"project_ids": [7]})),
            (json!({"headers": {"name": "x"}}), json!({"headers": [{"name": "x"}]})),
            (json!({"shape": "DATA"}), json!({"shape": "data"})),
            (json!({"method": "Query"}), json!({"method": {"type": "query"}})),
            (
                json!({"method": {"type": "QUERY", "page_size": "9"}}),
                json!({"method": {"type": "query", "page_size": 9}}),
            ),
        ] {
            assert_eq!(fitted(given.clone()), Ok((meant, Vec::new())), "{given}");
        }
    }

    #[test]
    fn other_values_are_named_without_secrets() {
        for (given, expected) in [
            (json!([1]), "the configuration is a list; it must be an object"),
            (json!({"count": "many"}), "`count` in the configuration is a string; it must be a whole number"),
            (json!({"count": 3.5}), "`count` in the configuration is a number; it must be a whole number"),
            (json!({"count": "phx_s3cret"}), "`count` in the configuration is a string; it must be a whole number"),
            (json!({"start_date": 2026}), "`start_date` in the configuration is a number; it must be a string"),
            (json!({"flag": 1}), "`flag` in the configuration is a number; it must be true or false"),
            (json!({"names": "[\"a\"]"}), "`names` in the configuration is a string that contains a list"),
            (json!({"names": [null]}), "`names[0]` in the configuration is null"),
            (json!({"names": {"a": 1}}), "`names` in the configuration is an object; it must be a list"),
            (json!({"headers": "X: s3cret"}), "`headers` in the configuration is a string; it must be a list"),
            (json!({"headers": ["X: s3cret"]}), "`headers[0]` in the configuration is"),
            (json!({"api_key": 5_555_555}), "`api_key` in the configuration is a number; it must be a string"),
            (json!({"shape": "x"}), "`shape` in the configuration must be `data` or `airbyte`"),
            (json!({"method": "magic"}), "`method.type` in the configuration must be `auto` or `query`"),
            (json!({"method": {}}), "`method.type` in the configuration is missing; it must be `auto` or `query`"),
            (json!({"method": 1}), "`method` in the configuration is a number; it must be an object whose `type` is"),
            (
                json!({"method": {"type": "query", "page_size": "x"}}),
                "`method.page_size` in the configuration is a string",
            ),
        ] {
            let problem = fitted(given.clone()).unwrap_err();
            assert!(
                problem.starts_with(expected) && !problem.contains("s3cret") && !problem.contains("555"),
                "{problem}"
            );
        }
    }

    #[test]
    fn unknown_keys_are_named_with_the_nearest_setting() {
        for (given, expected) in [
            (json!({"apiKey": "s3cret"}), Some("`apiKey`, which has no effect; did you mean `api_key`?")),
            (json!({"start-date": "x"}), Some("did you mean `start_date`?")),
            (json!({"project_id": 1}), Some("did you mean `project_ids`?")),
            (json!({"page_size": 1}), Some("did you mean `method.page_size`?")),
            (
                json!({"method": {"type": "query", "pagesize": 1}}),
                Some("`method.pagesize`, which has no effect; did you mean `method.page_size`?"),
            ),
            (
                json!({"method": {"type": "auto", "page_size": 1}}),
                Some("`method.page_size` in the configuration has no effect with this `method.type`"),
            ),
            (json!({"workspace": "x"}), Some("the configuration has the unknown key `workspace`, which has no effect")),
            (json!({"__injected_declarative_manifest": {}, "_note": 1, "//": "note", "$schema": "x"}), None),
            (json!({"method": {"type": "query", "old": 1}}), None),
        ] {
            let notices = fitted(given.clone()).unwrap().1;
            assert_eq!(notices.len(), usize::from(expected.is_some()), "{given}: {notices:?}");
            assert!(expected.is_none_or(|expected| notices[0].ends_with(expected)), "{notices:?}");
        }
    }
}
