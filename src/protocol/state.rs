//! The saved states of streams: the file behind `--state` and `--state-file`.
//!
//! Platforms and shells write it in many shapes, with keys in snake case or camel case: states one a
//! line, in an array or alone; whole STATE messages, among other messages or not; the envelopes of
//! Airbyte's API, of its connection settings and of Meltano; GLOBAL and LEGACY states; an object that
//! maps stream names to states. Whatever else has content is refused: taken for no state, it would mean
//! reading everything again without a word.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::catalog::StreamDescriptor;
use crate::error::Error;
use crate::input_file;
use crate::json_text::{foreign_encoding, kind, without_byte_order_mark};

/// Keys under which a state is wrapped once more.
const ENVELOPES: &[&str] = &[
    "stream_state",
    "stream_states",
    "connection_state",
    "state",
    "value",
    "singer_state",
    "airbyte_state",
    // A row of the table in which PyAirbyte keeps states.
    "state_json",
    "data",
    "bookmarks",
];
/// Meltano's: what an interrupted run has come to is laid over the state of the last complete one.
const MELTANO: [&str; 2] = ["completed_state", "partial_state"];
/// Keys under which the state of one stream stands next to its name.
const OF_STREAM: &[&str] = &["stream_state", "state", "data", "value"];
/// Keys that say something about a state, and are none: counts, and names and times.
const STATISTICS: &[&str] = &["source_stats", "destination_stats"];
const DETAILS: &[&str] = &["id", "connection_id", "created_at", "updated_at"];
/// Messages that stand between states in the output of a source.
const OTHER_MESSAGES: &[&str] =
    &["RECORD", "LOG", "TRACE", "CONTROL", "SPEC", "CATALOG", "CONNECTION_STATUS", "SCHEMA", "ACTIVATE_VERSION"];
/// Envelopes lie in envelopes, but not so often.
const DEEPEST: usize = 8;

/// Last state of each stream.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SavedStates {
    streams: Vec<(StreamDescriptor, Value)>,
    /// What a GLOBAL state of another source holds for all streams.
    shared: Option<Value>,
}

impl SavedStates {
    /// Reads a state file.
    ///
    /// # Errors
    /// A config error when the file cannot be read or has none of the known shapes.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let text = input_file::read(path)
            .map_err(|error| Error::config(format!("cannot read the state file `{}`: {error}", path.display())))?;
        Self::parse(&text)
            .and_then(Self::without_shared)
            .map_err(|error| error.in_context(format_args!("state file `{}`", path.display())))
    }

    /// The states of streams alone: no stream of this program's source has anything in common with others.
    fn without_shared(self) -> Result<Self, Error> {
        match &self.shared {
            Some(_) if self.streams.is_empty() => {
                Err(refused("it has only a `shared_state`, which belongs to another source"))
            }
            Some(_) => {
                tracing::warn!("the state has a `shared_state`, which belongs to another source; it is not used");
                Ok(self)
            }
            None => Ok(self),
        }
    }

    /// Reads the content of a state file.
    ///
    /// # Errors
    /// A config error when the text has none of the known shapes.
    pub fn parse(text: &[u8]) -> Result<Self, Error> {
        Self::parse_lines(text).map(|(states, _)| states)
    }

    /// Reads the content of a state file. Returns also how many of its bytes were read: not all when the last
    /// line is cut.
    ///
    /// # Errors
    /// As for [`SavedStates::parse`].
    pub fn parse_lines(file: &[u8]) -> Result<(Self, usize), Error> {
        let text = without_byte_order_mark(file);
        let mark = file.len() - text.len();
        // A machine that lost power has not written everything.
        let zeros = text.iter().rev().take_while(|byte| **byte == 0).count();
        if zeros > 0 && zeros == text.len() {
            return Err(refused("it contains only zero bytes, as after a power failure"));
        }
        if let Some(encoding) = foreign_encoding(text) {
            return Err(refused(format_args!("it is {encoding}; save it as UTF-8")));
        }
        let text = text.get(..text.len() - zeros).unwrap_or_default();
        let mut states = Self::default();
        let (mut documents, mut messages, mut read) = (0, 0, 0);
        // STATE messages one a line are several documents.
        let mut reader = serde_json::Deserializer::from_slice(text).into_iter::<Value>();
        while let Some(document) = reader.next() {
            match document {
                Ok(document) if is_other_message(&document) => messages += 1,
                Ok(document) => {
                    states.read(document, 0)?;
                    documents += 1;
                }
                // What came before it covers less, which is safe.
                // A number that is cut behind its point is not the end of a document to the parser.
                Err(error)
                    if documents > 0
                        && begins_a_line(text, read)
                        && (error.is_eof() || text.ends_with(b".") || text.ends_with(b"-")) =>
                {
                    tracing::warn!(
                        "the last line of the state file is truncated and ignored; the lines before it are used"
                    );
                    return Ok((states, mark + read));
                }
                Err(error) => return Err(refused(format_args!("it is not JSON: {error}"))),
            }
            read = reader.byte_offset();
        }
        if messages > 0 && documents == 0 {
            return Err(refused("it contains messages, but no STATE"));
        }
        if zeros > 0 {
            tracing::warn!("the state file ends with zero bytes, as after a power failure; what precedes them is used");
        }
        Ok((states, mark + text.len()))
    }

    /// Enters one state as a source or a platform writes it.
    ///
    /// # Errors
    /// A config error when it has none of the known shapes.
    pub fn add(&mut self, state: Value) -> Result<(), Error> {
        self.read(state, 0)
    }

    fn read(&mut self, value: Value, depth: usize) -> Result<(), Error> {
        let mut fields = match value {
            _ if depth > DEEPEST => return Err(refused("it is nested too deeply")),
            Value::Null => return Ok(()),
            Value::Array(states) => return states.into_iter().try_for_each(|state| self.read(state, depth + 1)),
            Value::Object(fields) => fields,
            Value::String(text) if text.trim().is_empty() => return Ok(()),
            // Databases and settings keep it as a text.
            Value::String(text) => match serde_json::from_str(&text) {
                Ok(state) => return self.read(state, depth + 1),
                Err(_) => return Err(refused("it is a string, not an object or an array")),
            },
            other => {
                return Err(refused(format_args!("it has {}, which is neither an array nor an object", kind(&other))));
            }
        };
        let [kind, state_type] = ["type", "state_type"].map(|name| take_text(&mut fields, name));
        let kind = kind.or(state_type).unwrap_or_default();
        match kind.to_ascii_uppercase().as_str() {
            "" | "STATE" | "STREAM" | "GLOBAL" | "LEGACY" | "NOT_SET" => {}
            _ => return Err(refused(format_args!("its `type` is `{kind}`"))),
        }
        if key(&fields, "stream_descriptor").is_some() {
            return self.read_stream(fields);
        }
        if let Some(stream) = take_object(&mut fields, "stream") {
            // Airbyte's framework has written the states of all streams next to it, for older platforms.
            self.read(take(&mut fields, "data").unwrap_or_default(), depth + 1)?;
            self.read_stream(stream)?;
            return nothing_else(&fields, true);
        }
        if let Some(global) = take_object(&mut fields, "global").or_else(|| take_object(&mut fields, "global_state")) {
            self.read(take(&mut fields, "data").unwrap_or_default(), depth + 1)?;
            self.read_global(global, depth)?;
            return nothing_else(&fields, true);
        }
        if MELTANO.iter().any(|name| key(&fields, name).is_some()) {
            for name in MELTANO {
                self.read(take(&mut fields, name).unwrap_or_default(), depth + 1)?;
            }
            return nothing_else(&fields, true);
        }
        match first_of(&mut fields, ENVELOPES) {
            Some(inner) => {
                nothing_else(&fields, has_content(&inner))?;
                self.read(inner, depth + 1)
            }
            None if kind.is_empty() => self.read_names(fields),
            None if kind.eq_ignore_ascii_case("not_set") => nothing_else(&fields, false),
            None => Err(refused(format_args!("a state of the type `{kind}` has no content"))),
        }
    }

    /// `{"stream_descriptor": …, "stream_state": …}`
    fn read_stream(&mut self, mut fields: Map<String, Value>) -> Result<(), Error> {
        let mut descriptor = take_object(&mut fields, "stream_descriptor").unwrap_or_default();
        let Some(Value::String(name)) = descriptor.remove("name") else {
            return Err(refused("an entry has no `stream_descriptor.name`"));
        };
        let namespace = take_text(&mut descriptor, "namespace").filter(|namespace| !namespace.is_empty());
        let state = first_of(&mut fields, OF_STREAM).unwrap_or_default();
        nothing_else(&fields, has_content(&state))?;
        self.set(StreamDescriptor { name, namespace }, state)
    }

    /// `{"shared_state": …, "stream_states": […]}`
    fn read_global(&mut self, mut fields: Map<String, Value>, depth: usize) -> Result<(), Error> {
        let states = take(&mut fields, "stream_states").unwrap_or_default();
        let shared = take(&mut fields, "shared_state").filter(has_content);
        nothing_else(&fields, has_content(&states) || shared.is_some())?;
        if has_content(&states) || shared.is_some() {
            *self = Self { streams: Vec::new(), shared };
        }
        self.read(states, depth + 1)
    }

    /// LEGACY, or without any word about its shape: `{"events": {…}, "persons": {…}}`
    fn read_names(&mut self, fields: Map<String, Value>) -> Result<(), Error> {
        let is_no_name = |name: &str| name == "version" || name == "timestamp" || name.parse::<u64>().is_ok();
        if let Some(name) = fields.keys().find(|name| is_no_name(name)) {
            return Err(refused(format_args!(
                "its key `{name}` belongs to the state of one stream, which is not named; write {{\"events\": …}} around it"
            )));
        }
        fields.into_iter().try_for_each(|(name, state)| self.set(StreamDescriptor { name, namespace: None }, state))
    }

    /// Replaces the state of a stream by one that its source has emitted.
    ///
    /// # Errors
    /// A config error when it is no state of a stream.
    pub fn set(&mut self, descriptor: StreamDescriptor, state: Value) -> Result<(), Error> {
        let state = match state {
            Value::String(text) => serde_json::from_str(&text).unwrap_or(Value::String(text)),
            state => state,
        };
        self.streams.retain(|(known, _)| *known != descriptor);
        match state {
            Value::Null => Ok(()),
            Value::Object(fields) if fields.is_empty() => Ok(()),
            Value::Object(_) => {
                self.streams.push((descriptor, state));
                Ok(())
            }
            // What it is could be a secret.
            other => Err(refused(format_args!("`{}` is {}, not the state of a stream", descriptor.name, kind(&other)))),
        }
    }

    /// The state of a stream. Where only one side has a namespace, the name alone counts.
    pub fn stream(&self, descriptor: &StreamDescriptor) -> Option<&Value> {
        self.place(descriptor).and_then(|place| self.streams.get(place)).map(|(_, value)| value)
    }

    fn place(&self, descriptor: &StreamDescriptor) -> Option<usize> {
        let wanted = descriptor.namespace.as_deref().filter(|namespace| !namespace.is_empty());
        let named = || self.streams.iter().enumerate().filter(|(_, (known, _))| known.name == descriptor.name);
        let exact = named().find(|(_, (known, _))| known.namespace.as_deref() == wanted);
        let without = || named().find(|(_, (known, _))| known.namespace.is_none());
        let only = || named().next().filter(|_| wanted.is_none() && named().count() == 1);
        exact.or_else(without).or_else(only).map(|(place, _)| place)
    }

    /// Warns of states that belong to none of the streams: a name that is spelled differently would
    /// mean reading everything again.
    pub fn warn_of_others<'a>(&self, streams: impl Iterator<Item = &'a StreamDescriptor>) {
        let used: Vec<usize> = streams.filter_map(|stream| self.place(stream)).collect();
        let others = self.streams.iter().enumerate().filter(|(place, _)| !used.contains(place));
        let others: Vec<String> = others.map(|(_, (stream, _))| stream.to_string()).collect();
        if !others.is_empty() {
            tracing::warn!(
                "the state has entries for {}, which the catalog does not contain; they are not used",
                others.join(", ")
            );
        }
    }

    /// The states as an array that every version of both programs and Airbyte understand.
    pub fn to_value(&self) -> Value {
        let streams =
            self.streams.iter().map(|(stream, state)| json!({"stream_descriptor": stream, "stream_state": state}));
        match &self.shared {
            None => streams.map(|stream| json!({"type": "STREAM", "stream": stream})).collect(),
            Some(shared) => {
                let states: Vec<Value> = streams.collect();
                json!([{"type": "GLOBAL", "global": {"shared_state": shared, "stream_states": states}}])
            }
        }
    }
}

fn refused(what: impl std::fmt::Display) -> Error {
    Error::config(format!(
        "this is not a state: {what}. Use states or STATE messages (one per line or in an array), the state that Airbyte's API returns for a connection, or an object with stream names as keys. To read everything from `start_date` again, empty the file"
    ))
}

/// A message that says nothing about states.
fn is_other_message(document: &Value) -> bool {
    document.get("type").and_then(Value::as_str).is_some_and(|kind| OTHER_MESSAGES.contains(&kind))
}

/// Whether what follows the first `read` bytes is a line of its own.
fn begins_a_line(text: &[u8], read: usize) -> bool {
    let rest = text.get(read..).unwrap_or_default();
    rest.iter().take_while(|byte| byte.is_ascii_whitespace()).any(|byte| *byte == b'\n')
}

/// Whether it says anything at all.
fn has_content(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(_) | Value::Number(_) => true,
        Value::String(text) => !text.trim().is_empty(),
        Value::Array(values) => values.iter().any(has_content),
        Value::Object(fields) => fields.values().any(has_content),
    }
}

/// Refuses what stands next to a state and could be one; where no state was found, anything that has content.
fn nothing_else(fields: &Map<String, Value>, is_found: bool) -> Result<(), Error> {
    let is_one_of = |names: &[&str], name: &str| names.iter().any(|known| name == *known || name == camel_case(known));
    let is_overlooked = |name: &str, value: &Value| match value {
        _ if is_one_of(STATISTICS, name) => false,
        Value::Object(_) | Value::Array(_) => has_content(value),
        Value::String(text) if text.trim_start().starts_with(['{', '[']) => true,
        _ => !is_found && has_content(value) && !is_one_of(DETAILS, name),
    };
    let overlooked = fields.iter().find(|(name, value)| is_overlooked(name, value));
    overlooked.map_or(Ok(()), |(name, _)| Err(refused(format_args!("its key `{name}` does not belong there"))))
}

/// `stream_state` as `streamState`.
fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |text, word| {
        let (head, tail) = word.split_at(1);
        text + &head.to_ascii_uppercase() + tail
    })
}

/// The spelling of a key that is there: `stream_state` or `streamState`.
fn key(fields: &Map<String, Value>, name: &str) -> Option<String> {
    [name, &camel_case(name)].into_iter().find(|name| fields.contains_key(*name)).map(str::to_owned)
}

fn take(fields: &mut Map<String, Value>, name: &str) -> Option<Value> {
    key(fields, name).and_then(|key| fields.remove(&key))
}

/// The first of these keys that has content, or else one that has none.
fn first_of(fields: &mut Map<String, Value>, names: &[&str]) -> Option<Value> {
    let mut present = names.iter().filter_map(|name| key(fields, name));
    let full = present.clone().find(|key| fields.get(key).is_some_and(has_content));
    full.or_else(|| present.next()).and_then(|key| fields.remove(&key))
}

fn take_object(fields: &mut Map<String, Value>, name: &str) -> Option<Map<String, Value>> {
    let key = key(fields, name).filter(|key| fields.get(key).is_some_and(Value::is_object))?;
    match fields.remove(&key) {
        Some(Value::Object(object)) => Some(object),
        _ => None,
    }
}

fn take_text(fields: &mut Map<String, Value>, name: &str) -> Option<String> {
    let key = key(fields, name).filter(|key| fields.get(key).is_some_and(Value::is_string))?;
    match fields.remove(&key) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(text: &str, name: &str, namespace: Option<&str>) -> Option<Value> {
        let states = SavedStates::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"));
        states.stream(&StreamDescriptor { name: name.into(), namespace: namespace.map(str::to_owned) }).cloned()
    }

    #[test]
    fn every_shape_that_others_write_is_read() {
        let (state, snake) = (json!({"c": 1}), json!({"stream_descriptor": {"name": "a"}, "stream_state": {"c": 1}}));
        let camel = json!({"streamDescriptor": {"name": "a"}, "streamState": {"c": 1}});
        let typed = json!({"type": "STREAM", "stream": snake});
        for document in [
            typed.clone(),
            snake.clone(),
            camel.clone(),
            json!([typed]),
            json!([snake]),
            json!([camel]),
            json!({"stream": snake}),
            json!({"type": "STATE", "state": typed}),
            json!({"type": "STATE", "value": snake}),
            json!({"stream_descriptor": {"name": "a"}, "state": state}),
            json!({"type": "STREAM", "stream": {"stream_descriptor": {"name": "a"}, "data": state}}),
            json!({"type": "STREAM", "stream": snake, "data": {"a": {"c": 0}}}),
            json!({"state": null, "data": {"a": state}}),
            json!({"stream_states": {"a": state}}),
            json!({"completed_state": {"singer_state": {"a": {"c": 0}}}, "partial_state": {"a": state}}),
            json!({"stateType": "stream", "connectionId": "x", "streamState": [camel]}),
            json!({"connectionState": {"stateType": "stream", "streamState": [camel]}}),
            json!({"state_type": "stream", "stream_state": [snake]}),
            json!({"singer_state": {"airbyte_state": [typed]}}),
            json!({"type": "GLOBAL", "global": {"shared_state": {}, "stream_states": [snake]}}),
            json!({"stateType": "global", "globalState": {"sharedState": null, "streamStates": [camel]}}),
            json!({"type": "LEGACY", "data": {"a": state}}),
            json!([{"type": "LEGACY", "data": {"a": state}}]),
            json!({"type": "STATE", "state": {"data": {"a": state}}}),
            json!({"stateType": "legacy", "state": {"a": state}}),
            json!({"data": {"a": state}}),
            json!({"bookmarks": {"a": state}}),
            json!({"a": state, "b": null}),
            json!({"a": state.to_string()}),
            Value::String(json!([typed]).to_string()),
        ] {
            assert_eq!(of(&document.to_string(), "a", None), Some(state.clone()), "{document}");
            let marked = format!("\u{feff}{document}\r\n");
            assert_eq!(of(&marked, "a", None), Some(state.clone()), "{document}");
        }
    }

    #[test]
    fn nothing_is_no_state_and_what_has_content_is_refused() {
        for nothing in [
            "",
            " \n",
            "null",
            "{}",
            "[]",
            "[null, {}]",
            r#"{"stateType":"not_set"}"#,
            r#"{"connectionState":null}"#,
            "\u{feff}",
        ] {
            assert_eq!(SavedStates::parse(nothing.as_bytes()).unwrap(), SavedStates::default(), "{nothing}");
        }
        for content in [
            "5",
            "true",
            r#""2026-01-01""#,
            "[5]",
            r#"{"a":5}"#,
            r#"{"version":2,"projects":{}}"#,
            r#"{"1001":{"timestamp":"2026-01-01"}}"#,
            r#"{"type":"STREAM"}"#,
            r#"{"type":"STREAM","stream":{"stream_state":{"c":1}}}"#,
            r#"{"type":"OTHER","x":1}"#,
            r#"{"type":"LOG","log":{}}"#,
            r#"{"state":{},"events":{"c":1}}"#,
            r#"{"state":{"a":{"c":1}},"events":{"c":1}}"#,
            r#"{"stateType":"not_set","events":{"c":1}}"#,
            r#"{"stream_descriptor":{"name":"a"},"cursor":"2026-01-01"}"#,
            r#"{"type":"GLOBAL","global":{"other":{"c":1}}}"#,
            r#"{"a":{"c":1"#,
            r#"[{"type":"STREAM","stream":{"stream_descriptor":{"name":"a"},"stream_state":{"c":1}}},"#,
            "events: 1",
            "\u{feff}\u{feff}",
        ] {
            let error = SavedStates::parse(content.as_bytes()).expect_err(content);
            assert!(error.message().contains("Use states or STATE messages"), "{content}: {error}");
        }
        let wide: Vec<u8> = "\u{feff}{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(SavedStates::parse(&wide).unwrap_err().message().contains("UTF-16"));
    }

    #[test]
    fn the_last_of_several_lines_counts_and_may_be_cut() {
        let line = |cursor: f64| {
            let state = json!({"stream_descriptor": {"name": "a"}, "stream_state": {"c": cursor}});
            json!({"type": "STATE", "state": {"type": "STREAM", "stream": state}}).to_string()
        };
        let record = r#"{"type":"RECORD","record":{"stream":"a","data":{}}}"#;
        let lines = format!("{}\n{record}\n{}\n", line(1.5), line(2.5));
        assert_eq!(of(&lines, "a", None), Some(json!({"c": 2.5})));
        let third = line(3.5);
        for length in 1..third.len() {
            let cut = format!("{lines}{}", third.split_at(length).0);
            assert_eq!(of(&cut, "a", None), Some(json!({"c": 2.5})), "{cut}");
        }
        let (begin, _) = third.split_at(60);
        assert!(SavedStates::parse(begin.as_bytes()).is_err(), "a cut line alone");
        assert!(SavedStates::parse(format!("{begin}\n{}", line(4.5)).as_bytes()).is_err(), "cut in the middle");
        assert_eq!(of(&format!("{lines}{{\"a\":null}}"), "a", None), None, "a state that was taken back");
    }

    #[test]
    fn a_namespace_on_one_side_only_does_not_matter() {
        let state = |namespace: Value| {
            json!([{"stream_descriptor": {"name": "a", "namespace": namespace}, "stream_state": {"c": 1}}]).to_string()
        };
        let found = Some(json!({"c": 1}));
        for (saved, wanted, expected) in [
            (Value::Null, None, &found),
            (json!(""), None, &found),
            (Value::Null, Some(""), &found),
            (json!(""), Some("n"), &found),
            (json!("n"), None, &found),
            (json!("n"), Some("n"), &found),
            (json!("n"), Some("m"), &None),
        ] {
            assert_eq!(of(&state(saved.clone()), "a", wanted), *expected, "{saved} {wanted:?}");
        }
        let two = json!([
            {"stream_descriptor": {"name": "a", "namespace": "m"}, "stream_state": {"c": 1}},
            {"stream_descriptor": {"name": "a", "namespace": "n"}, "stream_state": {"c": 2}},
        ]);
        assert_eq!(of(&two.to_string(), "a", None), None, "which of the two is not said");
    }
}
