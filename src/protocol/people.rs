//! Messages as text for people: results on standard output, everything else on standard error.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};

use anstream::{AutoStream, ColorChoice, adapter::strip_str};
use anstyle::{AnsiColor, Style};
use chrono::{SecondsFormat, Utc};

use super::message::{CheckStatus, ConnectionStatus, Log, LogLevel, Message, TraceBody, TraceError};

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
    /// People, or standard output is a file of its own kind: nothing but results is written there.
    People,
}

impl Audience {
    /// Who reads messages: people if they end up on a terminal.
    pub fn of_messages() -> Self {
        if io::stdout().is_terminal() { Self::People } else { Self::Program }
    }
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
    let colourless = AutoStream::choice(&io::stdout()) == ColorChoice::Never;
    Some(if colourless { strip_str(&text).to_string() } else { text })
}

/// Writes an error or a log line to standard error, in colour where that is a terminal that shows it. Other messages
/// are none of its business, and when standard error is closed, nothing can be done.
pub(super) fn tell(message: &Message) {
    if let Some(text) = notice(message) {
        drop(anstream::stderr().lock().write_all(text.as_bytes()));
    }
}

fn notice(message: &Message) -> Option<String> {
    match message {
        Message::Log { log } => Some(log_line(log)),
        Message::Trace { trace } => match &trace.body {
            TraceBody::Error { error } => Some(describe(error)),
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

fn describe(error: &TraceError) -> String {
    let mut text = format!("{ERROR}error:{ERROR:#} ");
    // Writing to a String cannot fail.
    let written = match &error.stream_descriptor {
        Some(stream) => writeln!(text, "stream `{}`: {}", stream.name, error.message),
        None => writeln!(text, "{}", error.message),
    };
    debug_assert!(written.is_ok());
    text.extend(error.internal_message.iter().map(|details| format!("  {details}\n")));
    text
}
