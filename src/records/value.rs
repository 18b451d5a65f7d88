//! Values of columns as they stand in records.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::document;
use crate::posthog::{AtMostMembers, Malformed};
use crate::streams::Kind;
use crate::time::Timestamp;

/// Appends one value, given as JSON text. A value of another type than expected, or one that cannot be
/// decoded, costs its field and no more: null is written instead, and false returned.
pub(super) fn append(kind: Kind, text: &str, lines: &mut Vec<u8>) -> bool {
    if text == "null" {
        lines.extend_from_slice(b"null");
        return true;
    }
    let value = match kind {
        Kind::Json => return append_json(text, lines),
        Kind::Members(prefix) => return append_members(text, prefix, lines),
        Kind::Timestamp => return append_instant(text, lines),
        Kind::List => return append_list(text, lines),
        Kind::Text => return append_text(text, lines),
        Kind::OptionalString if text == "\"\"" => Some("null"),
        Kind::String | Kind::OptionalString => Some(text).filter(|text| text.starts_with('"')),
        Kind::Strings => Some(text).filter(|text| text.starts_with('[')),
        Kind::Boolean => boolean(text),
        Kind::Integer => Some(unquoted_number(text)).filter(|text| is_integer(text)),
        Kind::Number => Some(unquoted_number(text)).filter(|text| is_number(text)),
        Kind::Date => return append_date(text, lines),
    };
    document::append(value.unwrap_or("null"), lines);
    value.is_some()
}

/// Some versions send 0 and 1 for false and true.
fn boolean(text: &str) -> Option<&'static str> {
    match text.trim_matches('"') {
        "0" | "false" | "False" => Some("false"),
        "1" | "true" | "True" => Some("true"),
        _ => None,
    }
}

/// ClickHouse may put 64-bit numbers in quotation marks, for readers that would round them.
fn unquoted_number(text: &str) -> &str {
    text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text)
}

fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && (digits.len() == 1 || !digits.starts_with('0'))
}

/// Whether a text is a JSON number.
pub(super) fn is_number(text: &str) -> bool {
    text.starts_with(|first: char| first == '-' || first.is_ascii_digit())
        && serde_json::from_str::<serde_json::Number>(text).is_ok()
}

/// A day, or the day of an instant.
fn append_date(text: &str, lines: &mut Vec<u8>) -> bool {
    let day = Timestamp::parse_json(text).map(|instant| format!("\"{}\"", instant.date()));
    lines.extend_from_slice(day.as_deref().unwrap_or("null").as_bytes());
    day.is_some()
}

/// Length of `"2026-01-01T00:00:00`, quote included.
const TO_SECONDS: usize = 20;
/// Length of `"2026-01-01T00:00:00.000000Z"`, quotes included.
const INSTANT: usize = 29;
/// The shape of all of them; a zero stands for any digit.
const MIDNIGHT: &[u8; INSTANT] = b"\"0000-00-00T00:00:00.000000Z\"";

/// Writes an instant in UTC with six fraction digits, whichever way the server spells it.
fn append_instant(text: &str, lines: &mut Vec<u8>) -> bool {
    if let Some(instant) = utc(text.as_bytes()) {
        lines.extend_from_slice(&instant);
        return true;
    }
    let instant = Timestamp::parse_json(text).map(|instant| format!("\"{instant}\""));
    lines.extend_from_slice(instant.as_deref().unwrap_or("null").as_bytes());
    instant.is_some()
}

/// The text itself if it is an instant as records spell it; such texts are in the order of their
/// instants.
pub(super) fn canonical(text: &[u8]) -> Option<&[u8; INSTANT]> {
    let text = <&[u8; INSTANT]>::try_from(text).ok()?;
    // All of them, without a look at the result in between: that is a few steps for the processor.
    let is_canonical = text.iter().zip(MIDNIGHT).fold(true, |so_far, (byte, shape)| {
        so_far & if *shape == b'0' { byte.is_ascii_digit() } else { byte == shape }
    });
    is_canonical.then_some(text)
}

/// The JSON text of an instant that is in UTC already, with six fraction digits.
pub(super) fn utc(text: &[u8]) -> Option<[u8; INSTANT]> {
    if let Some(instant) = canonical(text) {
        return Some(*instant);
    }
    let mut instant = *MIDNIGHT;
    let (seconds, rest) = text.split_at_checked(TO_SECONDS)?;
    let (fraction, zone) = match rest.split_first() {
        Some((b'.', rest)) => rest.split_at(rest.iter().take_while(|byte| byte.is_ascii_digit()).count()),
        _ => (&[][..], rest),
    };
    if !matches!(zone, b"Z\"" | b"+00:00\"") || seconds.get(11) != Some(&b'T') {
        return None;
    }
    instant.get_mut(..TO_SECONDS)?.copy_from_slice(seconds);
    let digits = TO_SECONDS + 1..;
    instant.get_mut(digits)?.get_mut(..6)?.get_mut(..fraction.len())?.copy_from_slice(fraction);
    Some(instant)
}

/// `properties` is JSON text inside a JSON string in responses of queries, and an object in exported
/// files. Only an object fits its schema.
fn append_json(text: &str, lines: &mut Vec<u8>) -> bool {
    let begin = lines.len();
    let is_written = match text.strip_prefix('"') {
        None => {
            document::append(text, lines);
            true
        }
        Some("\"") => {
            lines.extend_from_slice(b"null");
            return true;
        }
        Some(_) => unquoted(text).is_ok_and(|inner| {
            if inner.trim() == "null" {
                lines.extend_from_slice(b"null");
            }
            inner.trim() == "null" || document::embed(&inner, lines)
        }),
    };
    let written = lines.get(begin..).unwrap_or_default().trim_ascii_start();
    if is_written && (written.starts_with(b"{") || written == b"null") {
        return true;
    }
    lines.truncate(begin);
    lines.extend_from_slice(b"null");
    false
}

/// See [`Kind::Members`].
fn append_members(text: &str, prefix: &str, lines: &mut Vec<u8>) -> bool {
    let inner = if text.starts_with('"') { unquoted(text).ok() } else { Some(Cow::Borrowed(text)) };
    let Some(members) =
        inner.as_deref().and_then(|inner| serde_json::from_str::<AtMostMembers<10_000, &RawValue>>(inner).ok())
    else {
        lines.extend_from_slice(b"null");
        return false;
    };
    lines.push(b'{');
    let mut separator = "";
    for (name, value) in &members.0 {
        let Some(rest) = name.strip_prefix(prefix) else { continue };
        let name = if rest.is_empty() { "0" } else { rest.trim_start_matches('_') };
        lines.extend_from_slice(format!("{separator}{}:", serde_json::Value::from(name)).as_bytes());
        document::append(value.get(), lines);
        separator = ",";
    }
    lines.push(b'}');
    true
}

/// A list, also as JSON text. Anything else becomes the only element of one, so nothing is lost.
fn append_list(text: &str, lines: &mut Vec<u8>) -> bool {
    let is_list = |text: &str| text.trim_start().starts_with('[');
    if is_list(text) {
        document::append(text, lines);
    } else if text == "\"\"" {
        lines.extend_from_slice(b"null");
    } else if !(text.starts_with('"')
        && unquoted(text).is_ok_and(|inner| is_list(&inner) && document::embed(&inner, lines)))
    {
        lines.push(b'[');
        document::append(text, lines);
        lines.push(b']');
    }
    true
}

/// A string, or the JSON text of anything else, so nothing is lost.
fn append_text(text: &str, lines: &mut Vec<u8>) -> bool {
    if text.starts_with('"') {
        lines.extend_from_slice(text.as_bytes());
    } else {
        lines.extend_from_slice(serde_json::Value::from(text).to_string().as_bytes());
    }
    true
}

/// The text that a JSON string stands for.
pub(super) fn unquoted(text: &str) -> Result<Cow<'_, str>, Malformed> {
    if text.contains('\\') {
        return serde_json::from_str(text)
            .map(Cow::Owned)
            .map_err(|error| Malformed(format!("a text is not usable: {error}")));
    }
    Ok(Cow::Borrowed(text.trim_matches('"')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn appended(kind: Kind, text: &str) -> String {
        let mut lines = Vec::new();
        append(kind, text, &mut lines);
        String::from_utf8(lines).unwrap()
    }

    #[test]
    fn timestamps_are_written_in_utc_with_microseconds() {
        for text in [
            "\"2026-01-01T02:00:00Z\"",
            "\"2026-01-01T02:00:00+00:00\"",
            "\"2026-01-01T02:00:00.000000+00:00\"",
            "\"2026-01-01T02:00:00.0Z\"",
            "\"2026-01-01T03:00:00+01:00\"",
            "\"2026-01-01T02:00:00\"",
        ] {
            assert_eq!(appended(Kind::Timestamp, text), "\"2026-01-01T02:00:00.000000Z\"", "{text}");
        }
        assert_eq!(appended(Kind::Timestamp, "\"2026-01-01T02:00:00.12Z\""), "\"2026-01-01T02:00:00.120000Z\"");
        assert_eq!(appended(Kind::Timestamp, "null"), "null");
    }

    #[test]
    fn members_are_chosen_by_the_beginning_of_their_names() {
        let members = |text: &str| appended(Kind::Members("$survey_response"), text);
        let text = r#""{\"$survey_response\": 7, \"$survey_response_a-b\": [\"x\"], \"$survey_id\": \"s\"}""#;
        assert_eq!(members(text), r#"{"0":7,"a-b":["x"]}"#);
        assert_eq!(members("\"{}\""), "{}");
        for text in ["\"[1]\"", "\"{\"", "5"] {
            assert_eq!(members(text), "null", "{text}");
        }
    }

    #[test]
    fn empty_optional_strings_become_null_and_numeric_booleans_become_booleans() {
        assert_eq!(appended(Kind::OptionalString, "\"\""), "null");
        assert_eq!(appended(Kind::String, "\"\""), "\"\"");
        assert_eq!(appended(Kind::Boolean, "1"), "true");
        assert_eq!(appended(Kind::Boolean, "null"), "null");
        assert_eq!(appended(Kind::Json, "{\"a\":\n1}"), "{\"a\": 1}");
    }

    #[test]
    fn values_of_another_type_become_null() {
        for (kind, text, expected, fits) in [
            (Kind::String, "5", "null", false),
            (Kind::String, "{\"a\":1}", "null", false),
            (Kind::Integer, "\"18446744073709551615\"", "18446744073709551615", true),
            (Kind::Integer, "1.5", "null", false),
            (Kind::Integer, "true", "null", false),
            (Kind::Number, "\"1.5e3\"", "1.5e3", true),
            (Kind::Number, "\"many\"", "null", false),
            (Kind::Boolean, "\"true\"", "true", true),
            (Kind::Boolean, "2", "null", false),
            (Kind::Strings, "\"a\"", "null", false),
            (Kind::Strings, "[\"a\"]", "[\"a\"]", true),
            (Kind::Timestamp, "1793534400", "\"2026-11-01T12:00:00.000000Z\"", true),
            (Kind::Timestamp, "\"soon\"", "null", false),
            (Kind::Timestamp, "{}", "null", false),
            (Kind::Date, "\"2026-11-01\"", "\"2026-11-01\"", true),
            (Kind::Date, "\"2026-11-01T12:00:00Z\"", "\"2026-11-01\"", true),
            (Kind::Date, "\"1793534400\"", "\"2026-11-01\"", true),
            (Kind::Date, "7", "\"1970-01-01\"", true),
            (Kind::Json, "[1]", "null", false),
            (Kind::Json, "\"[1]\"", "null", false),
            (Kind::Json, "\"5\"", "null", false),
            (Kind::Json, "\"null\"", "null", true),
            (Kind::Json, "5", "null", false),
            (Kind::Text, "\"a\\n\"", "\"a\\n\"", true),
            (Kind::Text, "12345678901234567890123", "\"12345678901234567890123\"", true),
            (Kind::Text, "{\"a\":\n[1]}", "\"{\\\"a\\\":\\n[1]}\"", true),
            (Kind::List, "[1,\n\"a\"]", "[1, \"a\"]", true),
            (Kind::List, "\"[{\\\"a\\\":1}]\"", "[{\"a\":1}]", true),
            (Kind::List, "\"[broken\"", "[\"[broken\"]", true),
            (Kind::List, "{\"a\":1}", "[{\"a\":1}]", true),
        ] {
            let mut lines = Vec::new();
            assert_eq!(append(kind, text, &mut lines), fits, "{kind:?} {text}");
            assert_eq!(String::from_utf8(lines).unwrap(), expected, "{kind:?} {text}");
        }
    }
}
