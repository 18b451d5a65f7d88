//! `--state-file`: the acknowledged states, for `--state` of the next `read`.
//!
//! The file is replaced as a whole (written beside it, synchronised, renamed), so that it is either
//! the old one or the new one whenever the program dies. A lock beside it keeps two runs apart.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::Error;

/// The file and what it holds.
pub(super) struct StateFile {
    path: PathBuf,
    states: Vec<Value>,
    _lock: File,
}

impl StateFile {
    /// Opens the file, which need not exist yet, and locks it.
    ///
    /// # Errors
    /// A config error when another run uses it, or it is not a state file.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let lock_path = beside(path, ".lock");
        let failed = |what: &str, error: std::io::Error| {
            Error::config(format!("`--state-file {}` cannot be {what}: {error}", path.display()))
        };
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(|error| failed("locked", error))?;
        lock.try_lock().map_err(|_| {
            Error::config(format!(
                "another run is writing `{}` right now; wait until it has ended, or use another file",
                path.display()
            ))
        })?;
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed("read", error)),
        };
        let states = if text.iter().all(u8::is_ascii_whitespace) {
            Vec::new()
        } else {
            serde_json::from_slice(&text).map_err(|error| {
                Error::config(format!(
                    "`{}` does not hold an array of states ({error}); move it away to start from scratch",
                    path.display()
                ))
            })?
        };
        Ok(Self { path: path.to_owned(), states, _lock: lock })
    }

    /// Enters an acknowledged state and replaces the file.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub(super) fn save(&mut self, state: &Value) -> Result<(), Error> {
        self.enter(state);
        self.replace().map_err(|error| {
            Error::system(format!("the state could not be written to `{}`: {error}", self.path.display()))
        })
    }

    fn enter(&mut self, state: &Value) {
        let descriptor = |state: &Value| state["stream"]["stream_descriptor"].clone();
        let kept = if state["type"] == "GLOBAL" {
            self.states.clear();
            serde_json::json!({"type": "GLOBAL", "global": state["global"]})
        } else {
            let own = descriptor(state);
            self.states.retain(|known| known["type"] != "GLOBAL" && descriptor(known) != own);
            serde_json::json!({"type": "STREAM", "stream": state["stream"]})
        };
        self.states.push(kept);
    }

    fn replace(&self) -> std::io::Result<()> {
        let new = beside(&self.path, ".new");
        let mut file = File::create(&new)?;
        let mut text = serde_json::to_vec(&self.states)?;
        text.push(b'\n');
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&new, &self.path)?;
        let directory = self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(directory)?.sync_all()
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn state(name: &str, cursor: u32) -> Value {
        json!({"type": "STREAM", "stream": {"stream_descriptor": {"name": name}, "stream_state": {"c": cursor}}, "id": 5})
    }

    #[test]
    fn state_file_keeps_the_last_state_of_every_stream() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("state.json");
        std::fs::write(&path, "").unwrap();
        let mut file = StateFile::open(&path).unwrap();
        for (name, cursor) in [("a", 1), ("b", 1), ("a", 2)] {
            file.save(&state(name, cursor)).unwrap();
        }
        let kept: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(kept.as_array().unwrap().len(), 2);
        assert_eq!(
            kept[1],
            json!({"type": "STREAM", "stream": {"stream_descriptor": {"name": "a"}, "stream_state": {"c": 2}}})
        );
        assert!(StateFile::open(&path).is_err(), "two runs at a time");
        drop(file);
        let mut file = StateFile::open(&path).unwrap();
        file.save(&state("b", 3)).unwrap();
        let kept = crate::protocol::state::SavedStates::from_file(&path).unwrap();
        let of = |name: &str| {
            kept.stream(&crate::protocol::StreamDescriptor { name: name.into(), namespace: None }).cloned()
        };
        assert_eq!((of("a"), of("b")), (Some(json!({"c": 2})), Some(json!({"c": 3}))));
    }

    #[test]
    fn files_of_another_kind_are_rejected() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("state.json");
        std::fs::write(&path, "{\"a\":1}").unwrap();
        assert!(StateFile::open(&path).err().unwrap().message().contains("array of states"));
        assert!(StateFile::open(Path::new("/nowhere/state.json")).is_err());
    }
}
