//! The tables of settings in the documents, written from the specifications.

use std::fmt::Write;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use source_posthog::config::bounded::Bounded;
use source_posthog::config::form;
use source_posthog::error::Error;
use source_posthog::{config, destination};

use crate::support::program::{assert_committed, repository_file};

const END: &str = "<!-- end of settings -->";

fn table(form: &Value) -> String {
    let mut table = "| setting | default | values | meaning |\n|---|---|---|---|\n".to_owned();
    rows(form, "", &mut table);
    table
}

fn rows(form: &Value, prefix: &str, table: &mut String) {
    for (name, property, kinds) in settings(form) {
        let required = form["required"].as_array().is_some_and(|names| names.iter().any(|required| required == name));
        let default = match &property["default"] {
            _ if required => "required".to_owned(),
            Value::Null => String::new(),
            value => code(value),
        };
        let variants = property["oneOf"].as_array().into_iter().flatten();
        let variants = variants.map(|variant| &variant["properties"]["type"]["const"]);
        let choices: Vec<String> =
            property["enum"].as_array().into_iter().flatten().chain(variants).map(code).collect();
        let values = match (&property["minimum"], &property["maximum"]) {
            (least, most) if most.is_number() => format!("{least} to {most}"),
            _ => choices.join(", "),
        };
        let [title, description] = ["title", "description"].map(|key| property[key].as_str().unwrap());
        let mut meaning = format!("**{title}.** {description}");
        if !kinds.is_empty() {
            write!(meaning, " Only with {}.", kinds.join(" or ")).unwrap();
        }
        if property["airbyte_hidden"] == true {
            meaning.push_str(" Hidden in Airbyte.");
        }
        let cells = [format!("`{prefix}{name}`"), default, values, meaning.replace('|', "\\|")];
        writeln!(table, "| {} |", cells.join(" | ").replace("  ", " ")).unwrap();
        rows(property, &format!("{prefix}{name}."), table);
        rows(&property["items"], &format!("{prefix}{name}[]."), table);
    }
}

/// The settings of a form in its order, each with the choices that have it.
fn settings(form: &Value) -> Vec<(&String, &Value, Vec<String>)> {
    let mut found: Vec<(&String, &Value, Vec<String>)> = Vec::new();
    let variants = form["oneOf"].as_array().into_iter().flatten();
    for form in std::iter::once(form).chain(variants) {
        let properties = form["properties"].as_object().into_iter().flatten();
        let kind = form["properties"]["type"].get("const").map(code);
        for (name, property) in properties.filter(|(_, property)| property.get("const").is_none()) {
            match found.iter_mut().find(|(other, ..)| *other == name) {
                Some((_, _, kinds)) => kinds.extend(kind.clone()),
                None => found.push((name, property, kind.clone().into_iter().collect())),
            }
        }
    }
    found.sort_by_key(|(_, property, _)| property["order"].as_u64());
    found
}

fn code(value: &Value) -> String {
    format!("`{}`", value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

/// The page with the table of a program between the two comments that mark its place.
fn with_table(page: &str, program: &str, table: &str) -> String {
    let begin = format!("<!-- settings of {program}, written by `make spec` -->\n");
    let (before, rest) = page.split_once(&begin).unwrap_or_else(|| panic!("no place for the settings of {program}"));
    let (_, after) = rest.split_once(END).unwrap();
    let indent = before.rsplit('\n').next().unwrap();
    let table: String = table.lines().map(|line| format!("{indent}{line}\n")).collect();
    format!("{before}{begin}\n{table}\n{indent}{END}{after}")
}

#[test]
fn tables_of_settings_are_current() {
    let source = config::specification();
    let destination = destination::specification();
    for (page, program, specification) in [
        ("README.md", "source-posthog", &source),
        ("README.md", "destination-patterns", &destination),
        ("docs/source-posthog.md", "source-posthog", &source),
    ] {
        let committed = std::fs::read_to_string(repository_file(page)).unwrap();
        let current = with_table(&committed, program, &table(&specification["connectionSpecification"]));
        assert_committed(page, &current);
    }
}

macro_rules! settings_with {
    ($name:ident, $size:ty) => {
        #[derive(Default, Deserialize, JsonSchema)]
        #[serde(default)]
        struct $name {
            /// # Size
            /// How large it is.
            #[schemars(extend("order" = 0))]
            size: $size,
        }
    };
}
settings_with!(Before, Bounded<1, 32, 3>);
settings_with!(After, Bounded<1, 31, 7>);

/// What stands in the form, in the table and in the message about 100, and the number without any.
fn shown<T: DeserializeOwned + JsonSchema>(get: impl Fn(T) -> Result<u32, Error>) -> (String, String, String, u32) {
    let form = form::schema::<T>(&[]);
    let size = |config: &str| get(form::read(config.as_bytes()).unwrap());
    let message = size(r#"{"size": 100}"#).unwrap_err().message().to_owned();
    let absent = (size("{}").unwrap(), size(r#"{"size": null}"#).unwrap());
    assert_eq!(absent.0, absent.1);
    (form["properties"]["size"].to_string(), table(&form), message, absent.0)
}

#[test]
fn a_changed_bound_or_default_shows_in_form_table_message_and_value() {
    let row = |rest: &str| {
        format!(
            "| setting | default | values | meaning |\n|---|---|---|---|\n| `size` | {rest} | **Size.** How large it is. |\n"
        )
    };
    let (form, table, message, absent) = shown(|settings: Before| settings.size.get("size"));
    assert_eq!(
        form,
        r#"{"default":3,"description":"How large it is.","maximum":32,"minimum":1,"order":0,"title":"Size","type":"integer"}"#
    );
    assert_eq!((table, absent), (row("`3` | 1 to 32"), 3));
    assert_eq!(message, "`size` must be between 1 and 32");

    let changed = shown(|settings: After| settings.size.get("size"));
    let form = form.replace(":32", ":31").replace(":3,", ":7,");
    let message = message.replace("32", "31");
    assert_eq!(changed, (form, row("`7` | 1 to 31"), message, 7));
}
