//! The file for records that the webhook has permanently rejected.
//!
//! One JSON object per line: `{"stream", "at", "status", "reason", "record"}`. A line is on the disk
//! before the STATE that covers its record is acknowledged.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use chrono::{SecondsFormat, Utc};
use serde_json::Value;
use tokio::sync::Mutex;

use super::batch::Entry;
use super::storage::{cut_half_line, last_line};
use crate::error::Error;
use crate::protocol::write_escaped;

/// The open file.
pub(super) struct DeadLetters {
    file: Mutex<File>,
}

impl DeadLetters {
    /// Opens the file for appending.
    ///
    /// # Errors
    /// A config error when it cannot be written.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let open = || {
            let file = OpenOptions::new().create(true).append(true).open(path)?;
            // A device or a pipe has no last line.
            if file.metadata()?.is_file() {
                end_last_line(&file, path)?;
            }
            Ok(file)
        };
        let file = open().map_err(|error: std::io::Error| {
            Error::config(format!("`dead_letter_file` cannot be written: `{}`: {error}", path.display()))
        })?;
        Ok(Self { file: Mutex::new(file) })
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
                format!(r#"{{"stream":{stream},"at":"{at}","status":{status},"reason":{reason},"record":"#).as_bytes(),
            );
            lines.extend_from_slice(&entry.element);
            lines.extend_from_slice(b"}\n");
        }
        let mut file = self.file.lock().await;
        let length = file.metadata().ok().filter(std::fs::Metadata::is_file).map(|known| known.len());
        write_escaped(&lines, |piece| file.write_all(piece)).and_then(|()| file.sync_data()).map_err(|error| {
            // What the disk has taken of these lines was not acknowledged, and would garble the next one.
            if let Some(length) = length {
                drop(file.set_len(length));
            }
            Error::system(format!("rejected records could not be written to `dead_letter_file`: {error}"))
        })
    }
}

/// A half line is what a run has left that died; its record was not acknowledged. A whole one that lacks
/// its line feed gets it.
fn end_last_line(file: &File, path: &Path) -> std::io::Result<()> {
    cut_half_line(file, path)?;
    if last_line(path)?.is_empty() { Ok(()) } else { (&*file).write_all(b"\n") }
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
            ("{\"a\":1}\n{\"b\"", "{\"a\":1}\n"),
            ("{\"b\"", ""),
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
