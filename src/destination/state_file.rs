//! `--state-file`: the acknowledged states, for `--state` of the next `read`.
//!
//! What can go wrong with it is found out before anything is delivered; how it is kept is the matter of
//! [`Storage`].

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Seek, Write};
use std::path::Path;

use serde_json::{Value, json};

use super::origin::Epoch;
use super::regular_file;
use super::storage::{Storage, beside};
use crate::error::Error;
use crate::protocol::StreamDescriptor;
use crate::protocol::state::SavedStates;

/// The file and what it holds.
pub(super) struct StateFile {
    storage: Storage,
    states: SavedStates,
    /// A state of all streams together, as it came.
    whole: Option<Value>,
    /// Locked; it also holds the epoch.
    lock: Option<File>,
    epoch: Epoch,
}

impl StateFile {
    /// Opens the file, which need not exist yet, locks it, and makes sure that it can be written.
    ///
    /// # Errors
    /// A config error when another run uses it, it is not a state file, or it cannot be written.
    pub(super) fn open(path: &Path, streams: &[StreamDescriptor]) -> Result<Self, Error> {
        let failed = |what: &str, error: std::io::Error| {
            Error::config(format!("`--state-file {}` cannot be {what}: {error}", path.display()))
        };
        let target = regular_file::target(path).map_err(|error| failed("found", error))?;
        regular_file::check(&target).map_err(|error| failed("used", error))?;
        let lock = beside(&target, ".lock");
        regular_file::check(&lock).map_err(|error| failed("locked by the file with `.lock` behind its name", error))?;
        // In a directory that cannot be written, the file itself has to do.
        let beside = regular_file::open(&lock, OpenOptions::new().create(true).truncate(false).read(true).write(true));
        if let Ok(lock) = &beside {
            hold(lock, path)?;
            regular_file::remove_unfinished(&target);
        }
        let storage = Storage::open(target).map_err(|error| failed("written", error))?;
        // A file that is mounted in two places has two directories.
        if let Some(file) = storage.appended() {
            hold(file, path)?;
        }
        let text = storage.text().map_err(|error| failed("read", error))?.unwrap_or_default();
        let (states, length) = SavedStates::parse_lines(&text)
            .map_err(|error| error.in_context(format_args!("state file `{}`", path.display())))?;
        if let Some(file) = storage.appended().filter(|_| length < text.len()) {
            // A line that was being appended when the program died would stand between others.
            file.set_len(length as u64).map_err(|error| failed("written", error))?;
        }
        states.warn_of_others(streams.iter());
        let lock = beside.ok();
        let mark = lock.as_ref().map(std::io::read_to_string).and_then(Result::ok).unwrap_or_default();
        let known = Epoch::parse(&mark, &states.to_value().to_string());
        let file = Self { storage, states, whole: None, lock, epoch: known.unwrap_or_else(Epoch::new) };
        if known.is_none() {
            file.note(file.epoch);
        }
        Ok(file)
    }

    /// What began with the last acknowledged state, or when somebody else changed the file.
    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Notes for the next run what begins with the states that are kept. Where that fails, the next run
    /// starts as if it sent nothing again.
    pub(super) fn note(&self, epoch: Epoch) {
        let Some(mut file) = self.lock.as_ref() else { return };
        let mark = epoch.mark(&self.states.to_value().to_string());
        let noted = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(mark.as_bytes()));
        drop(noted);
    }

    /// Enters acknowledged states and keeps them.
    ///
    /// # Errors
    /// When one is not a state, or the disk does not take it.
    pub(super) fn save(&mut self, states: impl Iterator<Item = Value>) -> Result<(), Error> {
        for state in states {
            self.enter(state)?;
        }
        let kept = match &self.whole {
            Some(whole) => json!([whole]),
            None => self.states.to_value(),
        };
        self.storage.keep(&(kept.to_string() + "\n")).map_err(|error| {
            Error::system(format!(
                "the state could not be written to `{}`: {error}. The next sync delivers everything since the last written state again",
                self.storage.path().display()
            ))
        })
    }

    fn enter(&mut self, state: Value) -> Result<(), Error> {
        let is_whole = state.get("stream").is_none_or(Value::is_null);
        self.whole = is_whole.then(|| match state.get("global") {
            Some(global) => json!({"type": "GLOBAL", "global": global}),
            None => json!({"type": "LEGACY", "data": state.get("data")}),
        });
        if is_whole {
            self.states = SavedStates::default();
        }
        self.states.add(state)
    }
}

/// Keeps other runs from writing as long as the file is open.
fn hold(file: &File, path: &Path) -> Result<(), Error> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(Error::config(format!(
            "another run is writing `{}` right now; wait until it has ended, or use another file",
            path.display()
        ))),
        Err(TryLockError::Error(error)) => {
            tracing::warn!("`--state-file {}` cannot be locked ({error}); run only one sync at a time", path.display());
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(name: &str, cursor: u32) -> Value {
        json!({"type": "STREAM", "stream": {"stream_descriptor": {"name": name}, "stream_state": {"c": cursor}}, "id": 5})
    }

    fn kept(path: &Path) -> Value {
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn state_file_keeps_the_last_state_of_every_stream() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("state.json");
        std::fs::write(&path, r#"{"b":{"c":0},"other":{"c":7}}"#).unwrap();
        let mut file = StateFile::open(&path, &[]).unwrap();
        for (name, cursor) in [("a", 1), ("b", 1), ("a", 2)] {
            file.save(std::iter::once(state(name, cursor))).unwrap();
        }
        let own = |name: &str, cursor: u32| json!({"type": "STREAM", "stream": {"stream_descriptor": {"name": name}, "stream_state": {"c": cursor}}});
        assert_eq!(kept(&path), json!([own("other", 7), own("b", 1), own("a", 2)]));
        assert!(StateFile::open(&path, &[]).is_err(), "two runs at a time");
        drop(file);
        let mut file = StateFile::open(&path, &[]).unwrap();
        file.save(std::iter::once(state("b", 3))).unwrap();
        assert_eq!(kept(&path), json!([own("other", 7), own("a", 2), own("b", 3)]));
    }

    #[test]
    fn a_state_of_all_streams_is_kept_as_it_came() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("state.json");
        let mut file = StateFile::open(&path, &[]).unwrap();
        file.save(std::iter::once(state("a", 1))).unwrap();
        let one = json!({"stream_descriptor": {"name": "b"}, "stream_state": {"c": 2}});
        let global = json!({"type": "GLOBAL", "global": {"shared_state": {"s": 1}, "stream_states": [one]}});
        file.save(std::iter::once(global.clone())).unwrap();
        assert_eq!(kept(&path), json!([global]));
        let legacy = json!({"type": "LEGACY", "data": {"b": {"c": 3}}});
        file.save(std::iter::once(json!({"data": {"b": {"c": 3}}}))).unwrap();
        assert_eq!(kept(&path), json!([legacy]));
        file.save(std::iter::once(state("a", 4))).unwrap();
        assert_eq!(kept(&path).as_array().unwrap().len(), 2, "the other streams' states stay");
    }

    #[test]
    fn files_of_another_kind_are_refused() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("state.json");
        std::fs::write(&path, "{\"a\":1}").unwrap();
        assert!(StateFile::open(&path, &[]).err().unwrap().message().contains("this is not a state"));
        assert!(StateFile::open(Path::new("/nowhere/state.json"), &[]).is_err());
    }
}
