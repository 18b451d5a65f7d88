//! `spec`, `discover` and `catalog`: what the connectors say of themselves.

use serde_json::{Value, json};

use crate::support::child::Command;
use crate::support::program::{Source, assert_committed, run};

/// The specification that a program prints.
async fn printed_by(program: &str) -> Value {
    let mut command = Command::new(program);
    command.arg("spec");
    let outcome = run(command).await;
    assert_eq!(outcome.code, Some(0));
    outcome.messages.of_type("SPEC")[0]["spec"].clone()
}

async fn printed() -> Value {
    printed_by(env!("CARGO_BIN_EXE_source-posthog")).await
}

#[tokio::test]
async fn printed_specifications_equal_the_committed_ones() {
    for (program, file) in [
        (env!("CARGO_BIN_EXE_source-posthog"), "spec.json"),
        (env!("CARGO_BIN_EXE_destination-patterns"), "destination-patterns-spec.json"),
    ] {
        assert_committed(file, &(serde_json::to_string_pretty(&printed_by(program).await).unwrap() + "\n"));
    }
}

/// Calls `check` for every property of a form, those of nested objects included.
fn for_each_property(form: &Value, check: &mut dyn FnMut(&str, &Value)) {
    let Some(properties) = form["properties"].as_object() else { return };
    let mut orders = std::collections::BTreeSet::new();
    for (name, property) in properties {
        if property.get("const").is_some() {
            continue;
        }
        assert!(property["title"].is_string() && property["description"].is_string(), "{name}");
        assert!(property["type"].is_string(), "{name}");
        assert!(orders.insert(property["order"].as_i64().unwrap()), "the order of {name} is taken");
        check(name, property);
        for_each_property(property, check);
        for_each_property(&property["items"], check);
        for variant in property["oneOf"].as_array().into_iter().flatten() {
            for_each_property(variant, check);
        }
    }
}

#[tokio::test]
async fn destination_specification_fits_the_form_builder() {
    let printed = printed_by(env!("CARGO_BIN_EXE_destination-patterns")).await;
    assert_eq!(printed["supported_destination_sync_modes"], json!(["append"]));
    let form = &printed["connectionSpecification"];
    assert_no_forbidden_keys(form);
    assert_eq!(form["required"], json!(["webhook_url"]));
    let secrets = ["webhook_url", "bearer_token", "signing_secret", "value"];
    for_each_property(form, &mut |name, property| {
        assert_eq!(property["airbyte_secret"] == true, secrets.contains(&name), "{name}");
    });
}

fn assert_no_forbidden_keys(form: &Value) {
    let text = form.to_string();
    for forbidden in ["$ref", "anyOf", "allOf", "\"not\"", "patternProperties", "prefixItems", "\"if\"", "definitions"]
    {
        assert!(!text.contains(forbidden), "{forbidden} in the form");
    }
    assert_eq!(form["additionalProperties"], true);
}

/// The rules of Airbyte's form builder; see `schemaToFormBlock.ts` and its acceptance tests.
#[tokio::test]
async fn specification_fits_the_form_builder() {
    let printed = printed().await;
    assert_eq!(printed["protocol_version"], "0.2.0");
    let form = &printed["connectionSpecification"];
    assert_no_forbidden_keys(form);
    let properties = form["properties"].as_object().unwrap();
    let groups: Vec<&Value> = form["groups"].as_array().unwrap().iter().map(|group| &group["id"]).collect();
    for (name, property) in properties {
        assert!(groups.contains(&&property["group"]), "{name} has no group");
    }
    for_each_property(form, &mut |name, property| {
        assert_eq!(property["airbyte_secret"] == true, ["api_key", "hash_key"].contains(&name), "{name}");
    });
    for name in ["start_date", "end_date"] {
        assert!(properties[name]["pattern"].is_string() && properties[name]["pattern_descriptor"].is_string());
        let example = properties[name]["examples"][0].as_str().unwrap();
        assert!(source_posthog::time::Timestamp::parse(example).is_some());
    }
    let variants = properties["method"]["oneOf"].as_array().unwrap();
    let kinds: Vec<&str> =
        variants.iter().map(|variant| variant["properties"]["type"]["const"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["auto", "export", "query"]);
    assert!(variants.iter().all(|variant| variant["required"] == json!(["type"]) && variant["title"].is_string()));
    assert_eq!(form["required"], json!(["api_key", "start_date"]));
}

#[tokio::test]
async fn specification_accepts_what_the_connector_accepts() {
    let printed = printed().await;
    let form = jsonschema::validator_for(&printed["connectionSpecification"]).unwrap();
    let base = json!({"api_key": "phx_1", "start_date": "2026-01-01T00:00:00Z"});
    let with = |field: &str, value: Value| {
        let mut config = base.clone();
        config[field] = value;
        config
    };
    for (config, valid) in [
        (base.clone(), true),
        (with("events_time_step", json!(30)), true),
        (with("project_ids", json!([1, 2])), true),
        (with("method", json!({"type": "query", "page_size": 10, "person_properties": true})), true),
        (with("method", json!({"type": "query", "page_size": 0})), false),
        (with("method", json!({"type": "magic"})), false),
        (with("concurrency", json!(0)), false),
        (with("rate_limit_share", json!(1.5)), false),
        (with("start_date", json!("2026-01-01")), false),
    ] {
        assert_eq!(form.is_valid(&config), valid, "{config}");
    }
}

#[tokio::test]
async fn streams_have_usable_schemas() {
    let source = Source::new("http://127.0.0.1:1");
    let outcome = run(source.command("discover")).await;
    assert_eq!(outcome.code, Some(0));
    let catalog = outcome.messages.of_type("CATALOG")[0]["catalog"].clone();
    let streams = catalog["streams"].as_array().unwrap();
    let names: Vec<&str> = streams.iter().map(|stream| stream["name"].as_str().unwrap()).collect();
    let first = ["events", "persons", "sessions", "groups", "person_distinct_ids", "cohort_people", "survey_responses"];
    assert_eq!((names.len(), &names[..first.len()]), (27, &first[..]));
    for stream in streams {
        let schema = &stream["json_schema"];
        jsonschema::draft7::meta::validate(schema).unwrap();
        assert_eq!((&schema["type"], &schema["additionalProperties"]), (&json!("object"), &json!(true)));
        let properties = schema["properties"].as_object().unwrap();
        for (name, property) in properties {
            assert_eq!(property["type"][0], "null", "{name} must be nullable");
        }
        for key in stream["source_defined_primary_key"].as_array().unwrap() {
            assert!(properties.contains_key(key[0].as_str().unwrap()));
        }
        if stream["supported_sync_modes"].as_array().unwrap().contains(&json!("incremental")) {
            assert_eq!(stream["source_defined_cursor"], true);
            let cursor = &properties[stream["default_cursor_field"][0].as_str().unwrap()];
            assert!(cursor["format"] == "date-time" || cursor["type"][1] == "integer", "{cursor}");
        }
    }
}

#[tokio::test]
async fn catalog_command_prints_a_configured_catalog() {
    let source = Source::new("http://127.0.0.1:1");
    let mut command = source.command("catalog");
    command.args(["--streams", "events,projects"]);
    let document = run(command).await.messages.document().clone();
    let chosen: Vec<(&str, &str)> = document["streams"]
        .as_array()
        .unwrap()
        .iter()
        .map(|stream| (stream["stream"]["name"].as_str().unwrap(), stream["sync_mode"].as_str().unwrap()))
        .collect();
    assert_eq!(chosen, [("events", "incremental"), ("projects", "full_refresh")]);
    assert_eq!(document["streams"][0]["destination_sync_mode"], "append");
    assert_eq!(document["streams"][0]["primary_key"], json!([["id"]]));

    let mut command = source.command("catalog");
    command.args(["--sync-mode", "full_refresh"]);
    let document = run(command).await.messages.document().clone();
    assert!(document["streams"].as_array().unwrap().iter().all(|stream| stream["sync_mode"] == "full_refresh"));

    let mut command = source.command("catalog");
    command.args(["--streams", "evnts"]);
    let outcome = run(command).await;
    assert_eq!(outcome.code, Some(1));
    assert_eq!(outcome.messages.text(), "", "a file of catalogs has no messages");
    assert!(outcome.stderr.starts_with("error: there is no stream `evnts`"), "{}", outcome.stderr);
}
