//! Whatever a document of states looks like: each of its states is kept, or the document is refused.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::state::SavedStates;

/// Keys of all the shapes that are read, and some that are not.
const KEYS: &[&str] = &[
    "type",
    "stateType",
    "state",
    "value",
    "data",
    "stream",
    "stream_descriptor",
    "streamDescriptor",
    "stream_state",
    "streamState",
    "stream_states",
    "global",
    "globalState",
    "shared_state",
    "sharedState",
    "singer_state",
    "completed_state",
    "partial_state",
    "connectionState",
    "connectionId",
    "name",
    "events",
    "persons",
];
const STREAMS: &[&str] = &["events", "persons"];
const TYPES: &[&str] = &["STATE", "STREAM", "GLOBAL", "LEGACY", "not_set"];

/// Stands for the state of a stream until it gets its number.
const STATE: &str = "a state";
/// Stands for the name of a stream until it gets its number.
const NAME: &str = "a name";

fn documents() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        4 => Just(json!(STATE)),
        1 => Just(Value::Null),
        1 => Just(json!({})),
        1 => prop::sample::select(TYPES).prop_map(Value::from),
        2 => Just(json!({"name": NAME})),
    ];
    leaf.prop_recursive(6, 24, 4, |inner| {
        let object = prop::collection::vec((prop::sample::select(KEYS), inner.clone()), 1..4)
            .prop_map(|fields| fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect());
        let stream = (prop::sample::select(&["stream_state", "streamState", "state", "data"][..]), inner.clone())
            .prop_map(|(key, value)| json!({"stream_descriptor": {"name": NAME}, key: value}));
        let typed = (prop::sample::select(TYPES), prop::sample::select(KEYS), inner.clone())
            .prop_map(|(kind, key, value)| json!({"type": kind, key: value}));
        prop_oneof![
            3 => object.prop_map(Value::Object),
            3 => stream,
            2 => typed,
            1 => prop::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            1 => inner.prop_map(|value| Value::String(value.to_string())),
        ]
    })
}

/// Gives every state and every name a number, so that none takes the place of another.
fn number(document: Value, states: &mut u32) -> Value {
    *states += 1;
    match document {
        Value::String(text) if text == STATE => json!({"cursor": format!("c{states}")}),
        Value::String(text) if text == NAME => json!(format!("n{states}")),
        Value::String(text) => match serde_json::from_str(&text) {
            Ok(inner) => Value::String(number(inner, states).to_string()),
            Err(_) => Value::String(text),
        },
        Value::Array(documents) => documents.into_iter().map(|document| number(document, states)).collect(),
        Value::Object(fields) => {
            let numbered = |(key, value): (String, Value)| {
                let value = number(value, states);
                let is_name = STREAMS.contains(&key.as_str());
                (if is_name { format!("{key}{states}") } else { key }, value)
            };
            Value::Object(fields.into_iter().map(numbered).collect())
        }
        other => other,
    }
}

/// The numbers of the states of a document.
fn states_of(document: &str) -> Vec<&str> {
    let end = |rest: &str| rest.find(|character: char| !character.is_ascii_alphanumeric()).unwrap_or(rest.len());
    let marks = document.match_indices("cursor").map(|(begin, word)| document.split_at(begin + word.len()).1);
    marks.map(|rest| rest.trim_start_matches(['\\', '"', ':'])).map(|rest| rest.split_at(end(rest)).0).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn no_document_with_content_is_taken_for_no_state(document in documents()) {
        let text = number(document, &mut 0).to_string();
        if let Ok(saved) = SavedStates::parse(text.as_bytes()) {
            let kept = saved.to_value().to_string();
            let kept = states_of(&kept);
            prop_assert!(states_of(&text).iter().all(|state| kept.contains(state)), "{text}: {kept:?}");
        }
    }
}
