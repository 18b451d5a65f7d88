//! What a line of the input is: a message, another program's log, or neither.
//!
//! A record that is not recognised would be lost, and the next STATE would say that it has arrived. So a
//! line is only passed over when it is plainly no part of a message.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::error::Error;
use crate::protocol::StreamDescriptor;
use crate::secret::redact;

/// What nothing but a message has.
const OF_MESSAGES: [&[u8]; 4] = [b"\"emitted_at\"", b"\"stream_descriptor\"", b"\"RECORD\"", b"\"STATE\""];
/// Characters of a line that are shown.
const EXCERPT: usize = 100;

/// A line of the input, as far as it matters.
#[derive(Deserialize)]
pub(super) struct Line<'a> {
    #[serde(borrow, rename = "type", default)]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) record: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) state: Option<&'a RawValue>,
    #[serde(borrow, default)]
    log: Option<&'a RawValue>,
    #[serde(borrow, default)]
    trace: Option<&'a RawValue>,
}

/// A log message of the source.
#[derive(Debug)]
pub(super) struct SourceLog {
    pub(super) level: String,
    pub(super) message: String,
}

/// A failure that the source has reported.
#[derive(Debug)]
pub(super) struct SourceError {
    pub(super) message: String,
    pub(super) failure_type: String,
    /// The stream that has failed, if one has.
    pub(super) stream: Option<StreamDescriptor>,
}

/// The status of a stream.
#[derive(Debug)]
pub(super) struct SourceStatus {
    pub(super) stream: StreamDescriptor,
    pub(super) status: String,
}

/// A message that carries no data. Sources fill these in as they like, so whatever is missing is empty.
#[derive(Debug, Default)]
pub(super) struct Notice {
    pub(super) log: Option<SourceLog>,
    pub(super) error: Option<SourceError>,
    pub(super) status: Option<SourceStatus>,
}

impl Notice {
    fn read(log: Option<&RawValue>, trace: Option<&RawValue>) -> Self {
        let value = |raw: Option<&RawValue>| {
            raw.and_then(|raw| serde_json::from_str::<Value>(raw.get()).ok()).filter(Value::is_object)
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let trace = value(trace).unwrap_or_default();
        let status = &trace["stream_status"];
        Self {
            log: value(log).map(|log| SourceLog { level: text(&log["level"]), message: text(&log["message"]) }),
            error: Some(&trace["error"]).filter(|error| error.is_object()).map(|error| SourceError {
                message: text(&error["message"]),
                failure_type: text(&error["failure_type"]),
                stream: serde_json::from_value(error["stream_descriptor"].clone()).ok(),
            }),
            status: serde_json::from_value(status["stream_descriptor"].clone())
                .ok()
                .map(|stream| SourceStatus { stream, status: text(&status["status"]) }),
        }
    }
}

/// What a line is.
pub(super) enum Meaning<'a> {
    Record(&'a RawValue),
    State(&'a RawValue),
    /// A log line, a trace, or a kind of message that does not matter here.
    Other(Notice),
    /// Nothing, or what another program says.
    Foreign,
    /// The beginning of a message.
    Cut,
    /// Neither; what is known about it, or nothing.
    Unknown(&'static str),
}

/// Finds out what a line is.
pub(super) fn meaning(line: &[u8]) -> Meaning<'_> {
    if line.iter().all(u8::is_ascii_whitespace) {
        return Meaning::Foreign;
    }
    match serde_json::from_slice::<Line<'_>>(line) {
        Ok(message) => match (message.kind.as_ref(), message.record, message.state) {
            ("RECORD", Some(record), _) => Meaning::Record(record),
            ("STATE", _, Some(state)) => Meaning::State(state),
            ("RECORD" | "STATE", ..) => Meaning::Unknown("the message has no content"),
            ("LOG" | "TRACE", ..) => Meaning::Other(Notice::read(message.log, message.trace)),
            _ if is_about_a_message(line) => Meaning::Unknown("its `type` is neither RECORD nor STATE"),
            (kind, ..) if is_message_type(kind) => Meaning::Other(Notice::default()),
            _ => Meaning::Foreign,
        },
        Err(error) => match hint(line) {
            None if is_log_text(line) => Meaning::Foreign,
            // A number that is cut behind its point is not the end of a document to the parser.
            None if line.starts_with(b"{") && (error.is_eof() || line.ends_with(b".") || line.ends_with(b"-")) => {
                Meaning::Cut
            }
            hint => Meaning::Unknown(hint.unwrap_or_default()),
        },
    }
}

/// A type as the protocol spells them, today's and later ones.
fn is_message_type(kind: &str) -> bool {
    !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
}

/// What has probably happened to a line that is not JSON.
fn hint(line: &[u8]) -> Option<&'static str> {
    if line.starts_with(b"\x1f\x8b") {
        return Some(
            "the input is compressed; decompress it first, as in `gunzip -c FILE | destination-patterns write …`",
        );
    }
    if line.starts_with(b"\xff\xfe") || line.starts_with(b"\xfe\xff") {
        return Some("the input is UTF-16; save it as UTF-8");
    }
    let begin = line.iter().position(|byte| *byte == b'{')?;
    let (before, message) = line.split_at(begin);
    if before.contains(&b'[') && !is_log_text(line) && before.iter().all(|byte| b"[, \t".contains(byte)) {
        return Some("the messages are in an array; write one per line, as in `jq -c '.[]'`");
    }
    let is_whole = serde_json::from_slice::<IgnoredAny>(message).is_ok();
    (begin > 0 && is_whole && is_about_a_message(message))
        .then_some("the message has a prefix, such as the time that `docker logs --timestamps` adds; remove it")
}

/// Whether it says that it is a record or a state, however it is spaced, quoted and wrapped.
fn is_about_a_message(line: &[u8]) -> bool {
    let mut pieces = line.split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_').scan(0, |at, word| {
        let begin = *at;
        *at += word.len() + 1;
        Some((begin, word))
    });
    // Words, and what stands between two of them.
    let mut known: Option<usize> = None;
    pieces.any(|(begin, word)| {
        if word.is_empty() {
            return false;
        }
        let between = known.map(|end| line.get(end..begin).unwrap_or_default());
        let is_value = word.eq_ignore_ascii_case(b"RECORD") || word.eq_ignore_ascii_case(b"STATE");
        known = word.eq_ignore_ascii_case(b"type").then_some(begin + word.len());
        is_value
            && between
                .is_some_and(|between| between.contains(&b':') && between.iter().any(|byte| b"\"'".contains(byte)))
    }) || OF_MESSAGES.iter().any(|part| line.windows(part.len()).any(|window| window == *part))
}

/// Whether text that is not JSON is plainly for people to read: no piece of a message, and nothing that
/// a damaged one would have.
fn is_log_text(line: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(line) else { return false };
    // Escape sequences colour log lines.
    let is_odd = |character: char| character.is_control() && !matches!(character, '\t' | '\r' | '\u{1b}');
    if is_encoded(text)
        || text.chars().any(is_odd)
        || ends_a_document(text)
        || text.trim_start().starts_with(['{', '"', '}', ']'])
        || is_about_a_message(line)
    {
        return false;
    }
    // Many log lines end with a document, but it is whole.
    let (before, document) = text.split_at(text.find('{').unwrap_or(text.len()));
    let is_whole = || {
        let mut documents = serde_json::Deserializer::from_str(document).into_iter::<IgnoredAny>();
        documents.next().is_some_and(|document| document.is_ok())
    };
    !before.contains("\":") && (!document.contains("\":") || is_whole())
}

/// Whether it is a document in base64, as some log collectors keep what they do not understand.
fn is_encoded(text: &str) -> bool {
    STANDARD.decode(text.trim()).is_ok_and(|decoded| decoded.starts_with(b"{"))
}

/// Whether it closes what began on an earlier line.
fn ends_a_document(text: &str) -> bool {
    let mut open = 0;
    text.chars().any(|character| {
        open += match character {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        open < 0
    })
}

/// The error that names a line and shows its beginning.
pub(super) fn error(number: u64, line: &[u8], known: &str) -> Error {
    // A secret that is cut in two would not be recognised any more.
    let text = String::from_utf8_lossy(line);
    let text = redact(&text);
    let shown: String = text.trim_end().chars().take(EXCERPT).flat_map(shown).collect();
    let more = if text.trim_end().chars().count() > EXCERPT { "…" } else { "" };
    let known = if known.is_empty() { "it was damaged or truncated in transit" } else { known };
    Error::system(format!(
        "line {number} of the input is neither a message nor another program's log line: {known}. It begins with: {shown}{more}"
    ))
}

/// The error for a message whose content cannot be used.
pub(super) fn unusable(number: u64, message: &str, error: &serde_json::Error) -> Error {
    // Where in the line does not help, since the line is not shown.
    let problem = error.to_string();
    let problem = problem.rsplit_once(" at line ").map_or(problem.as_str(), |(problem, _)| problem);
    Error::system(format!(
        "line {number} of the input is a {message} that cannot be used: {problem}. Its source does not speak the Airbyte protocol, or it was changed on the way"
    ))
}

/// A character that cannot do anything to a terminal.
fn shown(character: char) -> Vec<char> {
    if character.is_control() { character.escape_default().collect() } else { vec![character] }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = r#"{"type":"RECORD","record":{"stream":"events","data":{"id":"1","event":"a","properties":{"é":1}},"emitted_at":1}}"#;
    const STATE: &str = r#"{"type":"STATE","state":{"type":"STREAM","stream":{"stream_descriptor":{"name":"events"},"stream_state":{"c":3}},"sourceStats":{"recordCount":3.0}}}"#;

    fn name(line: impl AsRef<[u8]>) -> &'static str {
        match meaning(line.as_ref()) {
            Meaning::Record(_) => "record",
            Meaning::State(_) => "state",
            Meaning::Other(_) => "other",
            Meaning::Foreign => "foreign",
            Meaning::Cut => "cut",
            Meaning::Unknown(_) => "unknown",
        }
    }

    #[test]
    fn messages_and_log_lines_are_told_apart() {
        for (line, expected) in [
            (RECORD, "record"),
            (STATE, "state"),
            (r#"{"type":"LOG","log":{"level":"INFO","message":"{\"type\":\"RECORD\"} is a record"}}"#, "other"),
            (r#"{"type":"TRACE","trace":{"type":"ESTIMATE"}}"#, "other"),
            (r#"{"type":"LOG","log":{"level":null,"message":null,"state":{}}}"#, "other"),
            (r#"{"type":"TRACE","trace":{"type":"ERROR","error":{"message":"m","failure_type":null}}}"#, "other"),
            (r#"{"type":"LOG","log":"text"}"#, "other"),
            (r#"{"text":"ready","record":{"level":"INFO"},"state":"running"}"#, "foreign"),
            (r#"{"type":"CONTROL","control":{}}"#, "other"),
            (r#"{"type":"NEW","x":1}"#, "other"),
            ("", "foreign"),
            (" \t\r", "foreign"),
            ("plain text", "foreign"),
            ("2026-11-26 10:00:00 INFO [main] Starting: 3 streams {}", "foreign"),
            ("\u{1b}[32mINFO\u{1b}[0m 100% done, types: record or state", "foreign"),
            (r#"INFO configuration {"a": {"b": [1]}} is used"#, "foreign"),
            (r#"{"level":"info","msg":"ready","ts":1}"#, "foreign"),
            ("[1]", "foreign"),
            ("WARNING: the schema {x} has no type", "foreign"),
        ] {
            assert_eq!(name(line), expected, "{line}");
        }
    }

    #[test]
    fn what_was_a_message_is_never_foreign() {
        let wrapped = serde_json::json!({"log": RECORD, "stream": "stdout"}).to_string();
        let upper = RECORD.replace("RECORD", "record");
        let kind = RECORD.replace("\"type\"", "\"tyqe\"");
        for line in [
            format!("\0\0{RECORD}"),
            format!("2026-11-26T18:00:00Z {RECORD}"),
            format!("source-1  | {STATE}"),
            format!("{RECORD}{RECORD}"),
            format!("{RECORD},"),
            format!("[{RECORD},{STATE}]"),
            format!("[{RECORD},"),
            format!("{}{RECORD}", RECORD.split_at(40).0),
            RECORD.replace('"', "'"),
            RECORD.replace("\"a\"", "NaN"),
            RECORD.replace("\"record\":", "\"recore\":"),
            STATE.replace("\"state\":", "\"stade\":"),
            "{".to_owned(),
            "  \"type\": \"RECORD\",".to_owned(),
            "\"emitted_at\": 1".to_owned(),
            "}".to_owned(),
            "\u{1f}\u{8b}x".to_owned(),
            wrapped,
            STANDARD.encode(RECORD),
            upper,
            kind,
        ] {
            assert!(matches!(name(&line), "unknown" | "cut"), "{line}: {}", name(&line));
        }
        for line in [RECORD, STATE] {
            for cut in (1..line.len()).filter(|cut| line.is_char_boundary(*cut)) {
                let (begin, rest) = line.split_at(cut);
                assert_eq!(name(begin), "cut", "{begin}");
                assert_eq!(name(rest), "unknown", "{rest}");
            }
        }
    }

    /// Wherever one byte of a record is damaged, the record is refused, or read with that damage in one
    /// of its texts or numbers, which cannot be detected.
    #[test]
    fn one_damaged_byte_never_makes_a_message_foreign() {
        for line in [RECORD, STATE] {
            for place in 0..line.len() {
                for byte in [0, b' ', b'x', b'"', 0xff, 0x1b, b'\n'] {
                    let mut damaged = line.as_bytes().to_vec();
                    damaged[place] = byte;
                    let meant = name(&damaged);
                    assert!(meant != "foreign" && meant != "other", "{}", String::from_utf8_lossy(&damaged));
                }
            }
        }
    }

    #[test]
    fn the_beginning_of_a_line_is_shown_without_control_characters_and_secrets() {
        let secret = crate::secret::Secret::new("line-s3cret-token");
        let line = format!("\0\u{1b}[31m{}{}", "x".repeat(85), secret.expose());
        let error = error(7, line.as_bytes(), "");
        assert!(error.message().starts_with("line 7 of the input"), "{error}");
        assert!(error.message().contains(r"begins with: \u{0}\u{1b}[31mxxx"), "{error}");
        assert!(!error.message().contains("line-s"), "{error}");
    }
}
