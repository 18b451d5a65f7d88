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
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(|error| {
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
        write_escaped(&lines, |piece| file.write_all(piece)).and_then(|()| file.sync_data()).map_err(|error| {
            Error::system(format!("rejected records could not be written to `dead_letter_file`: {error}"))
        })
    }
}
