//! Values of columns as they stand in records.

use std::borrow::Cow;

use super::document;
use crate::posthog::Malformed;
use crate::streams::Kind;
use crate::time::Timestamp;

/// Appends one value, given as JSON text; false when it could not be decoded and null was written
/// instead.
///
/// # Errors
/// When the value cannot belong to a sound answer.
pub(super) fn append(kind: Kind, text: &str, lines: &mut Vec<u8>) -> Result<bool, Malformed> {
    match kind {
        Kind::String | Kind::Integer | Kind::Number | Kind::Date | Kind::Strings | Kind::List | Kind::Any => {
            document::append(text, lines);
        }
        Kind::OptionalString => document::append(if text == "\"\"" { "null" } else { text }, lines),
        Kind::Boolean => {
            let text = match text {
                "0" => "false",
                "1" => "true",
                other => other,
            };
            document::append(text, lines);
        }
        Kind::Timestamp => append_instant(text, lines),
        Kind::Json => return append_document(text, lines),
    }
    Ok(true)
}

/// Length of `"2026-01-01T00:00:00`, quote included.
const TO_SECONDS: usize = 20;
/// Length of `"2026-01-01T00:00:00.000000Z"`, quotes included.
const INSTANT: usize = 29;
/// The shape of all of them; a zero stands for any digit.
const MIDNIGHT: &[u8; INSTANT] = b"\"0000-00-00T00:00:00.000000Z\"";

/// Writes an instant in UTC with six fraction digits, whichever way the server spells it.
fn append_instant(text: &str, lines: &mut Vec<u8>) {
    if let Some(instant) = utc(text.as_bytes()) {
        lines.extend_from_slice(&instant);
        return;
    }
    match Timestamp::parse(text.trim_matches('"')) {
        Some(instant) => lines.extend_from_slice(format!("\"{instant}\"").as_bytes()),
        None => document::append(text, lines),
    }
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

/// `properties` is JSON text inside a JSON text in answers of queries, and an object in exported
/// files.
fn append_document(text: &str, lines: &mut Vec<u8>) -> Result<bool, Malformed> {
    if !text.starts_with('"') {
        document::append(text, lines);
        return Ok(true);
    }
    let inner = unquoted(text)?;
    if inner.is_empty() {
        lines.extend_from_slice(b"null");
        return Ok(true);
    }
    if document::embed(&inner, lines) {
        return Ok(true);
    }
    lines.extend_from_slice(b"null");
    Ok(false)
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
        append(kind, text, &mut lines).unwrap();
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
    fn empty_optional_strings_become_null_and_numeric_booleans_become_booleans() {
        assert_eq!(appended(Kind::OptionalString, "\"\""), "null");
        assert_eq!(appended(Kind::String, "\"\""), "\"\"");
        assert_eq!(appended(Kind::Boolean, "1"), "true");
        assert_eq!(appended(Kind::Boolean, "null"), "null");
        assert_eq!(appended(Kind::Json, "{\"a\":\n1}"), "{\"a\": 1}");
    }
}
