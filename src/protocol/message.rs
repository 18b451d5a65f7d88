//! Messages other than RECORD.
//!
//! RECORD lines are the hot path and are written as bytes where the data are (see
//! [`record_prefix`]). Every message serialises `type` first and without spaces, so that a text
//! filter such as `grep '^{"type":"STATE"'` works.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;

use super::catalog::{Catalog, StreamDescriptor};
use crate::error::{Error, FailureType};
use crate::plain::plain;

/// One line on stdout.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Message {
    /// Response of `spec`.
    Spec {
        spec: Value,
    },
    /// Response of `check`.
    ConnectionStatus {
        /// Whether the configuration works, and why not.
        #[serde(rename = "connectionStatus")]
        connection_status: ConnectionStatus,
    },
    /// Response of `discover`.
    Catalog {
        catalog: Catalog,
    },
    Log {
        log: Log,
    },
    /// An error, a stream status or an estimate.
    Trace {
        trace: Trace,
    },
}

impl Message {
    /// A log line, in plain text without secrets.
    pub fn log(level: LogLevel, message: impl AsRef<str>) -> Self {
        Self::Log { log: Log { level, message: plain(message.as_ref()) } }
    }

    /// The failure of a stream, or of the whole command when `stream` is absent; in plain text
    /// without secrets.
    pub fn error(error: &Error, stream: Option<StreamDescriptor>) -> Self {
        Self::Trace {
            trace: Trace {
                emitted_at: now_milliseconds(),
                body: TraceBody::Error {
                    error: TraceError {
                        message: plain(&error.to_string()),
                        internal_message: error.details().map(plain),
                        failure_type: error.failure_type(),
                        stream_descriptor: stream,
                    },
                },
            },
        }
    }

    pub fn status(stream: StreamDescriptor, status: StreamStatus) -> Self {
        Self::stream_status(stream, status, None)
    }

    /// The stream waits for a limit of the other side until `until`.
    pub fn rate_limited(stream: StreamDescriptor, until: DateTime<Utc>) -> Self {
        let reason = StatusReason::RateLimited { rate_limited: RateLimited { quota_reset: until.timestamp_millis() } };
        Self::stream_status(stream, StreamStatus::Running, Some(vec![reason]))
    }

    fn stream_status(
        stream_descriptor: StreamDescriptor,
        status: StreamStatus,
        reasons: Option<Vec<StatusReason>>,
    ) -> Self {
        Self::Trace {
            trace: Trace {
                emitted_at: now_milliseconds(),
                body: TraceBody::StreamStatus { stream_status: TraceStatus { stream_descriptor, status, reasons } },
            },
        }
    }

    /// Whether a command or a stream has failed.
    pub fn is_error(&self) -> bool {
        matches!(self, Self::Trace { trace: Trace { body: TraceBody::Error { .. }, .. } })
    }

    /// How many rows the stream will emit in this sync, as far as is known.
    pub fn estimate(stream: &StreamDescriptor, rows: u64) -> Self {
        Self::Trace {
            trace: Trace {
                emitted_at: now_milliseconds(),
                body: TraceBody::Estimate {
                    estimate: Estimate {
                        name: stream.name.clone(),
                        namespace: stream.namespace.clone(),
                        kind: EstimateKind::Stream,
                        rows,
                    },
                },
            },
        }
    }
}

/// Milliseconds since the epoch, as `emitted_at` wants them.
pub fn now_milliseconds() -> i64 {
    Utc::now().timestamp_millis()
}

/// Response of `check`.
#[derive(Debug, Clone, Serialize)]
pub struct ConnectionStatus {
    pub status: CheckStatus,
    /// What was found, or what is wrong and how to mend it.
    message: String,
    /// The same, one after the other.
    #[serde(skip)]
    pub(super) lines: Vec<String>,
}

impl ConnectionStatus {
    /// What `check` has found, or why it has failed; in plain text without secrets.
    pub fn new(found: &Result<Vec<String>, Error>) -> Self {
        let (status, lines) = match found {
            Ok(found) => (CheckStatus::Succeeded, found.iter().map(|line| plain(line)).collect()),
            Err(error) => (CheckStatus::Failed, vec![plain(&error.to_string())]),
        };
        Self { status, message: plain(&lines.join(". ")), lines }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CheckStatus {
    Succeeded,
    Failed,
}

#[derive(Debug, Clone, Serialize)]
pub struct Log {
    pub level: LogLevel,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum LogLevel {
    Fatal,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Debug, Clone, Serialize)]
pub struct Trace {
    /// Milliseconds since the epoch.
    pub emitted_at: i64,
    #[serde(flatten)]
    pub body: TraceBody,
}

/// What a TRACE message is about.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TraceBody {
    Error { error: TraceError },
    Estimate { estimate: Estimate },
    StreamStatus { stream_status: TraceStatus },
}

#[derive(Debug, Clone, Serialize)]
pub struct TraceError {
    /// The sentence for the user.
    pub message: String,
    /// Technical details.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub internal_message: Option<String>,
    pub failure_type: FailureType,
    /// The stream that failed, if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_descriptor: Option<StreamDescriptor>,
}

/// Expected volume of a stream.
#[derive(Debug, Clone, Serialize)]
pub struct Estimate {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(rename = "type")]
    kind: EstimateKind,
    #[serde(rename = "row_estimate")]
    rows: u64,
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum EstimateKind {
    Stream,
}

#[derive(Debug, Clone, Serialize)]
pub struct TraceStatus {
    stream_descriptor: StreamDescriptor,
    status: StreamStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasons: Option<Vec<StatusReason>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum StreamStatus {
    /// The stream is being prepared.
    Started,
    /// Its first record is about to be written.
    Running,
    /// All of it has been read.
    Complete,
    /// It has failed; what was read before the last STATE is safe.
    Incomplete,
}

#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE")]
enum StatusReason {
    RateLimited { rate_limited: RateLimited },
}

#[derive(Debug, Clone, Serialize)]
struct RateLimited {
    quota_reset: i64,
}

/// The bytes of a RECORD line up to its data: `{"type":"RECORD","record":{"stream":"events","data":`.
///
/// The line is completed by the data, [`record_suffix`] and, if there is something to report,
/// `meta` in between.
pub fn record_prefix(stream: &StreamDescriptor) -> Vec<u8> {
    let name = Value::from(stream.name.as_str());
    let namespace = match &stream.namespace {
        Some(namespace) => format!(",\"namespace\":{}", Value::from(namespace.as_str())),
        None => String::new(),
    };
    format!("{{\"type\":\"RECORD\",\"record\":{{\"stream\":{name}{namespace},\"data\":").into_bytes()
}

/// The bytes of a RECORD line after its data: `,"emitted_at":1764000000000}}` and a line feed.
pub fn record_suffix(emitted_at: i64) -> Vec<u8> {
    format!(",\"emitted_at\":{emitted_at}}}}}\n").into_bytes()
}
