//! Messages as text for people: results on standard output, everything else on standard error.

use std::io::{self, IsTerminal, Write};

use anstream::adapter::strip_str;
use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use chrono::{SecondsFormat, Utc};
use clap::ValueEnum;

use super::message::{CheckStatus, ConnectionStatus, Log, LogLevel, Message, Trace, TraceBody, TraceError};

const ERROR: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const FAINT: Style = Style::new().dimmed();
const SUCCESS: Style = AnsiColor::Green.on_default().bold();

/// Who reads what a command writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// A program: messages on standard output. Errors are on standard error as well, since people may have sent
    /// the messages to a file.
    Program,
    /// The same, but people read the log: its lines and errors are text with their time on standard error.
    ProgramWithLog,
    /// People, or a file for a result: standard output has nothing but results.
    People,
}

impl Audience {
    /// Who reads messages: unless the user says so, people if they end up on a terminal.
    pub fn of_messages(log_format: Option<LogFormat>) -> Self {
        match log_format {
            Some(LogFormat::Json) => Self::Program,
            _ if io::stdout().is_terminal() => Self::People,
            Some(LogFormat::Text) => Self::ProgramWithLog,
            None => Self::Program,
        }
    }
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// As messages, on standard output
    Json,
    /// As text with times, on standard error
    Text,
}

/// A result for standard output, as lines; none when the message is another one.
pub(super) fn result(message: &Message) -> Option<String> {
    let Message::ConnectionStatus { connection_status } = message else { return None };
    let ConnectionStatus { status, lines, .. } = connection_status;
    let text = match status {
        CheckStatus::Succeeded => {
            format!("{SUCCESS}OK:{SUCCESS:#} the configuration works\n  {}\n", lines.join("\n  "))
        }
        CheckStatus::Failed => format!("{ERROR}FAILED:{ERROR:#} {}\n", lines.join("\n")),
    };
    Some(shown_by(&io::stdout(), text))
}

/// The text without colours where they would not be shown.
fn shown_by(stream: &impl RawStream, text: String) -> String {
    if AutoStream::choice(stream) == ColorChoice::Never { strip_str(&text).to_string() } else { text }
}

/// Writes an error or a log line to standard error, in colour where that is a terminal that shows it. Other messages
/// are none of its business, and when standard error is closed, nothing can be done.
pub(super) fn tell(message: &Message, audience: Audience) {
    if let Some(text) = notice(message, audience) {
        let stderr = io::stderr();
        // One write, or another program's line could come between.
        drop(stderr.lock().write_all(shown_by(&stderr, text).as_bytes()));
    }
}

fn notice(message: &Message, audience: Audience) -> Option<String> {
    match message {
        Message::Log { log } => Some(log_line(log)),
        Message::Trace { trace: Trace { body: TraceBody::Error { error }, .. } }
            if audience == Audience::ProgramWithLog =>
        {
            Some(log_line(&Log { level: LogLevel::Error, message: describe(error, |details| format!(" ({details})")) }))
        }
        Message::Trace { trace } => match &trace.body {
            TraceBody::Error { error } => {
                let text = describe(error, |details| format!("\n  {details}"));
                Some(format!("{ERROR}error:{ERROR:#} {text}\n"))
            }
            TraceBody::Estimate { .. } | TraceBody::StreamStatus { .. } => None,
        },
        Message::Spec { .. } | Message::ConnectionStatus { .. } | Message::Catalog { .. } => None,
    }
}

fn log_line(log: &Log) -> String {
    let (level, style) = match log.level {
        LogLevel::Fatal | LogLevel::Error => ("ERROR", ERROR),
        LogLevel::Warn => ("WARN ", WARNING),
        LogLevel::Info => ("INFO ", Style::new()),
        LogLevel::Debug => ("DEBUG", FAINT),
        LogLevel::Trace => ("TRACE", FAINT),
    };
    let time = Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true);
    format!("{FAINT}{time}{FAINT:#} {style}{level}{style:#} {}\n", log.message)
}

/// What has failed and why; `details` are what happened in technical terms.
fn describe(error: &TraceError, details: impl Fn(&str) -> String) -> String {
    let stream = error.stream_descriptor.iter().map(|stream| format!("stream `{}`: ", stream.name));
    let details = error.internal_message.as_deref().map(details);
    stream.chain([error.message.clone()]).chain(details).collect()
}
