//! The error that ends a command or a stream, in the protocol's terms.
//!
//! Code that decides on errors uses typed errors of its own module; at the edge of a stream or a
//! command they become an [`Error`], which knows how Airbyte classifies it and what the user can do.

use std::fmt;

use serde::Serialize;

/// Who has to act on a failure (`failure_type` of a TRACE ERROR message).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureType {
    /// The user must change the configuration, a permission or a file; a retry cannot help.
    #[serde(rename = "config_error")]
    Config,
    /// The other side or the network is in trouble; a later attempt can succeed.
    #[serde(rename = "transient_error")]
    Transient,
    /// Something happened that should not: data that disagree, or a bug in this connector.
    #[serde(rename = "system_error")]
    System,
}

/// A failure with a message for the user and, if there are any, details for the log.
#[derive(Debug, Clone, thiserror::Error)]
pub struct Error {
    failure_type: FailureType,
    message: String,
    details: Option<String>,
    project: Option<u64>,
    output_closed: bool,
}

impl Error {
    fn new(failure_type: FailureType, message: impl Into<String>) -> Self {
        Self { failure_type, message: message.into(), details: None, project: None, output_closed: false }
    }

    /// A failure that the user can end: names the setting and the fix.
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(FailureType::Config, message)
    }

    /// A failure of the other side that outlasted all retries.
    pub fn transient(message: impl Into<String>) -> Self {
        Self::new(FailureType::Transient, message)
    }

    /// A failure that neither waiting nor configuration explains.
    pub fn system(message: impl Into<String>) -> Self {
        Self::new(FailureType::System, message)
    }

    /// The reader of stdout has gone; nothing more can be written there.
    pub fn output_closed() -> Self {
        Self { output_closed: true, ..Self::system("stdout was closed by its reader, so the command stopped") }
    }

    /// Adds what happened in technical terms (`internal_message`).
    #[must_use]
    pub fn with_details(mut self, details: impl Into<String>) -> Self {
        self.details = Some(details.into());
        self
    }

    /// Puts `context` in front of the message, as in `project 1001: …`.
    #[must_use]
    pub fn in_context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// Names the project that failed, unless an inner error has named it.
    #[must_use]
    pub fn in_project(mut self, project: u64) -> Self {
        if !self.output_closed {
            self.project.get_or_insert(project);
        }
        self
    }

    /// The project that failed, if one did.
    pub fn project(&self) -> Option<u64> {
        self.project
    }

    /// Who has to act.
    pub fn failure_type(&self) -> FailureType {
        self.failure_type
    }

    /// The sentence for the user.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What happened in technical terms.
    pub fn details(&self) -> Option<&str> {
        self.details.as_deref()
    }

    /// Returns true if the failure is that stdout has been closed.
    pub fn is_output_closed(&self) -> bool {
        self.output_closed
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.project {
            Some(project) => write!(formatter, "project {project}: {}", self.message),
            None => formatter.write_str(&self.message),
        }
    }
}
