//! The file for records that the webhook has permanently rejected.
//!
//! One JSON object per line: `{"stream", "at", "status", "reason", "record"}`. A line is on the disk
//! before the STATE that covers its record is acknowledged.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use chrono::{SecondsFormat, Utc};
use serde_json::Value;

use super::batch::Entry;
use super::regular_file;
use super::storage::last_line;
use crate::error::Error;
use crate::protocol::write_escaped;

/// How every line begins.
const BEGIN: &str = r#"{"stream":"#;

/// The open file. Several runs may write to it: each writes whole lines while it holds the file's lock.
pub(super) struct DeadLetters {
    file: Arc<File>,
}

impl DeadLetters {
    /// Opens the file for appending.
    ///
    /// # Errors
    /// A config error when it cannot be written.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let open = |path: &Path| regular_file::open(path, OpenOptions::new().create(true).read(true).append(true));
        let file = regular_file::target(path).and_then(|target| open(&target)).map_err(|error| {
            Error::config(format!("`dead_letter_file` cannot be written: `{}`: {error}", path.display()))
        })?;
        Ok(Self { file: Arc::new(file) })
    }

    /// Appends records and waits until they are on the disk.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(super) async fn write(&self, stream: &str, entries: &[Entry], status: u16, reason: &str) -> Result<(), Error> {
        let at = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
        let (stream, reason) = (Value::from(stream), Value::from(reason));
        let mut lines = Vec::new();
        for entry in entries {
            lines.extend_from_slice(
                format!(r#"{BEGIN}{stream},"at":"{at}","status":{status},"reason":{reason},"record":"#).as_bytes(),
            );
            lines.extend_from_slice(&entry.element);
            lines.extend_from_slice(b"}\n");
        }
        let file = Arc::clone(&self.file);
        // Another run may hold the lock for a while.
        let written = tokio::task::spawn_blocking(move || append(&file, &lines)).await;
        written.map_err(io::Error::other).flatten().map_err(|error| {
            Error::system(format!("rejected records could not be written to `dead_letter_file`: {error}"))
        })
    }
}

/// Appends lines. What a failure leaves of them is taken back, unless another process may have written meanwhile.
fn append(file: &File, lines: &[u8]) -> io::Result<()> {
    let is_locked = file.lock().is_ok();
    let written = end_last_line(file, is_locked).and_then(|length| {
        let written = write_escaped(lines, |piece| (&*file).write_all(piece)).and_then(|()| file.sync_data());
        if written.is_err() && is_locked {
            drop(file.set_len(length));
        }
        written
    });
    if is_locked {
        drop(file.unlock());
    }
    written
}

/// Cuts the half line of a run that died, whose record was not acknowledged, and ends any other. Returns the
/// length of the file.
fn end_last_line(mut file: &File, is_locked: bool) -> io::Result<u64> {
    let last = last_line(file)?;
    let length = file.metadata()?.len();
    if last.is_empty() {
        return Ok(length);
    }
    let is_own = BEGIN.as_bytes().starts_with(&last) || last.starts_with(BEGIN.as_bytes());
    if is_own && is_locked && serde_json::from_slice::<serde::de::IgnoredAny>(&last).is_err() {
        let length = length.saturating_sub(last.len() as u64);
        file.set_len(length)?;
        return Ok(length);
    }
    file.write_all(b"\n")?;
    Ok(length + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_half_line_is_cut_and_a_whole_one_is_ended() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("refused.jsonl");
        for (before, kept) in [
            ("", ""),
            ("{\"a\":1}\n", "{\"a\":1}\n"),
            ("{\"a\":1}", "{\"a\":1}\n"),
            ("{\"a\":1}\n{\"stream\":\"ev", "{\"a\":1}\n"),
            ("{\"str", ""),
            ("\u{feff}{\"a\":1}", "\u{feff}{\"a\":1}\n"),
            ("[\n  {}\n]", "[\n  {}\n]\n"),
        ] {
            std::fs::write(&path, before).unwrap();
            let entry = Entry { ordinal: 0, element: b"{\"n\":7}".to_vec() };
            DeadLetters::open(&path).unwrap().write("events", &[entry], 422, "no").await.unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            let line = text.strip_prefix(kept).unwrap_or_else(|| panic!("{before}: {text}"));
            assert!(line.ends_with("\"record\":{\"n\":7}}\n") && line.lines().count() == 1, "{text}");
        }
    }
}
