//! Notes how far simple streams have come, project by project, and emits it as their state.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;

use super::error::unusable;
use crate::error::Error;
use crate::protocol::{Output, StreamDescriptor};

const VERSION: u64 = 1;

/// What a state has held: a note for each project.
pub type Notes<T> = BTreeMap<u64, T>;

/// Keeps and emits the notes of one stream.
pub struct Journal<T> {
    output: Output,
    stream: Arc<StreamDescriptor>,
    notes: Mutex<Notes<T>>,
}

/// Reads a stream's state. A full refresh that was finished starts over, so its state holds nothing.
///
/// # Errors
/// A config error that names the key.
pub fn parse<T: DeserializeOwned>(state: Option<&Value>) -> Result<Notes<T>, Error> {
    let Some(state) = state else { return Ok(Notes::new()) };
    let fields = state.as_object().ok_or_else(|| unusable("it is not an object"))?;
    match fields.get("version").map(|version| (version, version.as_u64())) {
        None | Some((_, Some(VERSION))) => {}
        Some((_, Some(newer))) if newer > VERSION => {
            return Err(unusable(format_args!(
                "`version` is {newer}, from a newer version of this connector; upgrade it"
            )));
        }
        Some((version, _)) => return Err(unusable(format_args!("`version` is {version}"))),
    }
    if fields.get("complete") == Some(&Value::Bool(true)) {
        return Ok(Notes::new());
    }
    let mut notes = Notes::new();
    let projects = match fields.get("projects") {
        None | Some(Value::Null) => return Ok(notes),
        Some(projects) => projects.as_object().ok_or_else(|| unusable("`projects` is not an object"))?,
    };
    for (id, note) in projects {
        let number =
            id.parse().map_err(|_| unusable(format_args!("`projects.{id}` is not the number of a project")))?;
        let note = T::deserialize(note).map_err(|error| unusable(format_args!("`projects.{id}`: {error}")))?;
        notes.insert(number, note);
    }
    Ok(notes)
}

impl<T: Serialize + Clone + Default> Journal<T> {
    /// Starts from `notes`, without emitting them.
    pub fn new(output: Output, stream: Arc<StreamDescriptor>, notes: Notes<T>) -> Self {
        Self { output, stream, notes: Mutex::new(notes) }
    }

    /// A copy of a project's note.
    pub async fn note(&self, project: u64) -> T {
        self.notes.lock().await.get(&project).cloned().unwrap_or_default()
    }

    /// Replaces a project's note and emits the state. The caller has queued every record that it
    /// covers.
    ///
    /// # Errors
    /// When stdout has been closed by its reader.
    pub async fn write(&self, project: u64, note: T) -> Result<(), Error> {
        let mut notes = self.notes.lock().await;
        notes.insert(project, note);
        self.output.state(&self.stream, to_value(&notes)).await
    }

    /// Emits the final state; `complete` for a full refresh that has read everything.
    ///
    /// # Errors
    /// When stdout has been closed by its reader.
    pub async fn finish(&self, complete: bool) -> Result<(), Error> {
        let notes = self.notes.lock().await;
        let state = if complete { json!({"version": VERSION, "complete": true}) } else { to_value(&notes) };
        self.output.state(&self.stream, state).await
    }
}

fn to_value<T: Serialize>(notes: &Notes<T>) -> Value {
    let projects: Map<String, Value> = notes.iter().map(|(id, note)| (id.to_string(), json!(note))).collect();
    json!({"version": VERSION, "projects": projects})
}
