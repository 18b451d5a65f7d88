//! The file behind `--state`.
//!
//! Platforms write it in several shapes, all of which are accepted: no file content, `[]`, `{}`, an
//! array of STREAM states, an array with one GLOBAL state, one state object alone, whole STATE
//! messages, and the legacy object that maps stream names to states. Nulls and unknown keys are
//! ignored.

use std::path::Path;

use serde_json::Value;

use super::catalog::StreamDescriptor;
use crate::error::Error;

/// Last state of each stream.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SavedStates {
    streams: Vec<(StreamDescriptor, Value)>,
}

impl SavedStates {
    /// Reads a state file.
    ///
    /// # Errors
    /// A config error when the file cannot be read or has none of the known shapes.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read(path)
            .map_err(|error| Error::config(format!("cannot read the state file `{}`: {error}", path.display())))?;
        Self::parse(&text).map_err(|error| error.in_context(format_args!("state file `{}`", path.display())))
    }

    /// Reads the content of a state file.
    ///
    /// # Errors
    /// A config error when the text has none of the known shapes.
    pub fn parse(text: &[u8]) -> Result<Self, Error> {
        let mut file = Self::default();
        // STATE messages one a line are several documents.
        for document in serde_json::Deserializer::from_slice(text).into_iter::<Value>() {
            let document = document.map_err(|error| {
                Error::config(format!("not JSON: {error}; leave `--state` out to start from scratch"))
            })?;
            file.add_document(document)?;
        }
        Ok(file)
    }

    fn add_document(&mut self, document: Value) -> Result<(), Error> {
        match document {
            Value::Null => Ok(()),
            Value::Array(states) => states.into_iter().try_for_each(|state| self.add(state)),
            Value::Object(ref fields) if fields.contains_key("type") || fields.contains_key("stream") => {
                self.add(document)
            }
            Value::Object(fields) => {
                // Legacy: {"events": {...}, "persons": {...}}
                for (name, state) in fields {
                    if state.is_object() {
                        self.set(StreamDescriptor { name, namespace: None }, state);
                    }
                }
                Ok(())
            }
            _ => Err(Error::config("neither an array nor an object; leave `--state` out to start from scratch")),
        }
    }

    fn add(&mut self, mut state: Value) -> Result<(), Error> {
        if state.get("type").and_then(Value::as_str) == Some("STATE") {
            state = state["state"].take();
        }
        if !state.is_object() {
            return Err(Error::config(format!("an entry is not an object: {state}")));
        }
        let entries = match state.get_mut("global") {
            Some(global) if global.is_object() => match global["stream_states"].take() {
                Value::Array(entries) => entries,
                _ => Vec::new(),
            },
            _ => vec![state["stream"].take()],
        };
        for mut entry in entries {
            let Some(name) = entry["stream_descriptor"]["name"].as_str() else {
                if state["data"].is_null() && !entry.is_null() {
                    return Err(Error::config("an entry has no `stream.stream_descriptor.name`"));
                }
                continue;
            };
            let namespace = entry["stream_descriptor"]["namespace"].as_str().map(str::to_owned);
            let descriptor = StreamDescriptor { name: name.to_owned(), namespace };
            let value = entry["stream_state"].take();
            if !value.is_null() {
                self.set(descriptor, value);
            }
        }
        Ok(())
    }

    fn set(&mut self, descriptor: StreamDescriptor, value: Value) {
        self.streams.retain(|(known, _)| *known != descriptor);
        self.streams.push((descriptor, value));
    }

    /// The state of a stream. A state without a namespace also serves a stream that has one.
    pub fn stream(&self, descriptor: &StreamDescriptor) -> Option<&Value> {
        let exact = self.streams.iter().find(|(known, _)| known == descriptor);
        let by_name =
            || self.streams.iter().find(|(known, _)| known.name == descriptor.name && known.namespace.is_none());
        exact.or_else(by_name).map(|(_, value)| value)
    }
}
