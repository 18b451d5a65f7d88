//! The state of one stream: what each project has come to, and which kind of sync it belongs to.
//!
//! ```json
//! {"version": 2, "projects": {"1001": {…}}, "refresh": true}
//! ```
//!
//! `refresh` marks a full refresh that is under way, `complete` one that has read everything. Every
//! stream uses this container, so the rule for what a sync may continue ([`StreamState::for_mode`])
//! stands once. Unknown keys are ignored, newer versions and nonsense are refused by name.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::airbyte;
use super::error::{instant, unusable};
use crate::error::Error;
use crate::time::Timestamp;

/// Version 1 had watermarks for events, too.
const VERSION: u64 = 2;
/// Keys of the container.
const KEYS: [&str; 5] = ["version", "projects", "complete", "refresh", "resume_from"];

/// What the state of a stream keeps for one project.
pub trait ProjectEntry: Clone + Default + PartialEq + Send + Sync + 'static {
    /// Whether a state without a version is the state of another connector, of which nothing may be
    /// overlooked.
    const UNDERSTANDS_OTHER_CONNECTORS: bool = false;

    /// Reads an entry; `place` is its path in the state, for messages.
    ///
    /// # Errors
    /// A config error that names the key.
    fn read(value: &Value, place: &str, cursor_field: &str) -> Result<Self, Error>;

    /// The entry as it is emitted.
    fn to_value(&self, cursor_field: &str) -> Value;

    /// Another connector has read everything up to `from`.
    fn resume_from(&mut self, from: Timestamp) {
        let _ = from;
    }
}

/// An entry whose keys are the fields of its type.
pub trait FieldsEntry: Clone + Default + PartialEq + Send + Sync + Serialize + DeserializeOwned + 'static {}

impl<T: FieldsEntry> ProjectEntry for T {
    fn read(value: &Value, place: &str, _: &str) -> Result<Self, Error> {
        T::deserialize(value).map_err(|error| unusable(format_args!("`{place}`: {error}")))
    }

    fn to_value(&self, _: &str) -> Value {
        json!(self)
    }
}

/// Whether a field has its default, which states leave out.
pub(crate) fn is_default<T: Default + PartialEq>(field: &T) -> bool {
    *field == T::default()
}

#[derive(Debug, Clone, PartialEq)]
pub struct StreamState<T> {
    pub projects: BTreeMap<u64, T>,
    cursor_field: &'static str,
    complete: bool,
    refresh: bool,
    /// Where another connector stopped in every project.
    resume_from: Option<Timestamp>,
}

impl<T: ProjectEntry> StreamState<T> {
    /// The state of a stream that has not been read. `cursor_field` is the key of the watermark, for
    /// entries that have one under that name.
    pub fn empty(cursor_field: &'static str) -> Self {
        Self { projects: BTreeMap::new(), cursor_field, complete: false, refresh: false, resume_from: None }
    }

    /// Reads a stream's state.
    ///
    /// # Errors
    /// A config error that names the key.
    pub fn parse(state: Option<&Value>, cursor_field: &'static str) -> Result<Self, Error> {
        let mut parsed = Self::empty(cursor_field);
        let Some(state) = state else { return Ok(parsed) };
        let fields = state.as_object().ok_or_else(|| unusable("it is not an object"))?;
        match fields.get("version") {
            None if T::UNDERSTANDS_OTHER_CONNECTORS || !fields.contains_key("projects") => {
                parsed.read_other_connector(&airbyte::without_partitions(fields)?)?;
                let is_empty = parsed.projects.is_empty() && parsed.resume_from.is_none();
                return if T::UNDERSTANDS_OTHER_CONNECTORS || is_empty {
                    Ok(parsed)
                } else {
                    Err(unusable("it was written by another connector, which read this stream differently"))
                };
            }
            None => {}
            Some(version) => match version.as_u64() {
                Some(1..=VERSION) => {}
                Some(newer) if newer > VERSION => {
                    return Err(unusable(format_args!(
                        "`version` is {newer}, from a newer version of this connector; upgrade it"
                    )));
                }
                _ => return Err(unusable(format_args!("`version` is {version}"))),
            },
        }
        let flag = |name: &str| fields.get(name).and_then(Value::as_bool).unwrap_or(false);
        (parsed.complete, parsed.refresh) = (flag("complete"), flag("refresh"));
        if let Some(from) = fields.get("resume_from").filter(|from| !from.is_null()) {
            parsed.resume_from = Some(instant("resume_from", from)?);
        }
        let projects = match fields.get("projects") {
            None | Some(Value::Null) => {
                let is_other = |(key, value): &(&String, &Value)| {
                    !KEYS.contains(&key.as_str()) && (value.is_object() || value.is_array())
                };
                return match fields.iter().find(is_other) {
                    Some((key, _)) => Err(unusable(format_args!("it has `{key}`, but no `projects`"))),
                    None => Ok(parsed),
                };
            }
            Some(projects) => projects.as_object().ok_or_else(|| unusable("`projects` is not an object"))?,
        };
        for (id, entry) in projects {
            let number =
                id.parse().map_err(|_| unusable(format_args!("`projects.{id}` is not the number of a project")))?;
            let place = format!("projects.{id}");
            let read = T::read(entry, &place, cursor_field)?;
            let is_empty = entry.as_object().is_none_or(|fields| fields.values().all(Value::is_null));
            if !is_empty && read == T::default() && *entry != read.to_value(cursor_field) {
                return Err(unusable(format_args!("`{place}` has nothing that this stream knows")));
            }
            parsed.projects.insert(number, read);
        }
        Ok(parsed)
    }

    /// The state of another connector, or none in disguise.
    fn read_other_connector(&mut self, fields: &Map<String, Value>) -> Result<(), Error> {
        for (key, value) in fields {
            match value {
                _ if airbyte::is_about_a_refresh(key) => {}
                Value::String(_) if key == "timestamp" => self.resume_from = Some(instant(key, value)?),
                Value::Object(project) if key.bytes().all(|byte| byte.is_ascii_digit()) => {
                    let number =
                        key.parse().map_err(|_| unusable(format_args!("`{key}` is not the number of a project")))?;
                    let mut entry = T::default();
                    let from = project.get("timestamp").filter(|from| !from.is_null());
                    match from {
                        Some(from) => entry.resume_from(instant(&format!("{key}.timestamp"), from)?),
                        None if project.values().all(Value::is_null) => {}
                        None => return Err(unusable(format_args!("`{key}` has no `timestamp`"))),
                    }
                    self.projects.insert(number, entry);
                }
                Value::Null => {}
                _ => return Err(unusable(format_args!("`{key}` is not known"))),
            }
        }
        Ok(())
    }

    /// Where a sync in this mode begins. A full refresh continues one that was interrupted, and nothing
    /// else: what an incremental sync has read is not in its destination. An incremental sync continues
    /// whatever is there.
    #[must_use]
    pub fn for_mode(self, incremental: bool) -> Self {
        let empty = Self::empty(self.cursor_field);
        if self.complete || !(incremental || self.refresh) {
            return Self { refresh: !incremental, ..empty };
        }
        Self { refresh: !incremental, ..self }
    }

    /// Hands the time at which another connector has stopped in every project to those that there are
    /// now. Projects that are added later are read from the start date on.
    #[must_use]
    pub fn resumed_by(mut self, projects: impl Iterator<Item = u64>) -> Self {
        if let Some(from) = self.resume_from.take() {
            for id in projects {
                self.projects.entry(id).or_default().resume_from(from);
            }
        }
        self
    }

    /// The projects that the state is about, if it is about none of these.
    pub fn only_of_others(&self, mut projects: impl Iterator<Item = u64>) -> Option<String> {
        let others: Vec<String> = self.projects.keys().map(u64::to_string).collect();
        (!others.is_empty() && projects.all(|id| !self.projects.contains_key(&id))).then(|| others.join(", "))
    }

    /// What the state keeps for a project.
    pub fn project(&self, id: u64) -> T {
        self.projects.get(&id).cloned().unwrap_or_default()
    }

    /// A full refresh has read everything; the next one starts over.
    pub(super) fn complete(&mut self) {
        *self = Self { complete: true, ..Self::empty(self.cursor_field) };
    }

    /// The state as it is emitted.
    pub fn to_value(&self) -> Value {
        let entry = |(id, entry): (&u64, &T)| (id.to_string(), entry.to_value(self.cursor_field));
        let projects: Map<String, Value> = self.projects.iter().map(entry).collect();
        let mut state = json!({"version": VERSION});
        if !projects.is_empty() || !self.complete {
            state["projects"] = Value::Object(projects);
        }
        for (name, set) in [("complete", self.complete), ("refresh", self.refresh)] {
            if set {
                state[name] = Value::Bool(true);
            }
        }
        if let Some(from) = self.resume_from {
            state["resume_from"] = json!(from);
        }
        state
    }
}
