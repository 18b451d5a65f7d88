//! JSON files that people write, copy and append to.
//!
//! Faults are described without a JSON parser's terms: the line and the key before the fault, and how
//! to fix it. The text itself is never quoted, since it can hold secrets.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The text without the byte order mark that some editors put in front of it.
pub(crate) fn without_byte_order_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
}

/// Reads one JSON document, in which no object has a key twice.
///
/// # Errors
/// What is wrong, to be put behind the name of the file: `is empty`, `is not JSON (line 2, …)`.
pub(crate) fn parse(text: &[u8]) -> Result<Value, String> {
    if let Some(encoding) = foreign_encoding(text) {
        return Err(format!("is encoded as {encoding}; save it as UTF-8"));
    }
    let text = without_byte_order_mark(text);
    let text = std::str::from_utf8(text)
        .map_err(|error| format!("is not UTF-8 from byte {} on; save it as UTF-8", error.valid_up_to() + 1))?;
    if text.trim().is_empty() {
        return Err("is empty".to_owned());
    }
    serde_json::from_str(text).map(|Unique(value)| value).map_err(|error| describe(text, &error))
}

/// What kind of value it is, in the words of a user.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The encoding, if it is plainly not UTF-8.
pub(crate) fn foreign_encoding(text: &[u8]) -> Option<&'static str> {
    match text {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => Some("UTF-32"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some("UTF-16"),
        // JSON begins with an ASCII character, and has no NUL.
        [first, 0, ..] | [0, first, ..] if first.is_ascii() => Some("UTF-16"),
        _ => None,
    }
}

/// The fault with its place and its cure.
fn describe(text: &str, error: &serde_json::Error) -> String {
    let message = error.to_string();
    let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message);
    let before = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum::<usize>();
    let at = text.floor_char_boundary(before + error.column());
    let key = last_key(text.get(..at).unwrap_or_default());
    let place = match key {
        Some(key) => format!("line {}, after `{key}`", error.line()),
        None => format!("line {}", error.line()),
    };
    // The column counts what has been read, mostly with the character that does not fit.
    let found = text.get(text.floor_char_boundary((before + error.column()).saturating_sub(1))..);
    let found = found.and_then(|rest| rest.trim_start().chars().next());
    format!("is not JSON ({place}): {}", cure(message, found))
}

fn cure(message: &str, found: Option<char>) -> String {
    let known = match (message, found) {
        (message, _) if message.starts_with("EOF") => "it ends early; was it copied completely?",
        ("trailing characters", _) => "more text follows after the end of the document; remove it",
        ("trailing comma", _) => "there is a comma before a closing bracket; remove it",
        ("invalid escape", _) => "a string contains a single backslash; double it",
        (message, _) if message.starts_with("control character") => {
            "a string contains a line break or another control character; write it as an escape such as \\n"
        }
        (_, Some('/' | '#')) => "JSON has no comments; remove it",
        (_, Some('\'' | '“' | '”' | '„' | '‘' | '’' | '`')) => {
            "put keys and strings in straight double quotation marks"
        }
        ("key must be a string", _) => "put keys in double quotation marks",
        (_, Some('T' | 'F' | 'N')) => "write true, false and null in lower case",
        ("expected value" | "expected ident", _) => "a value is missing, or a string has no quotation marks",
        (message, _) if message.starts_with("expected `,`") => {
            "a comma is missing, or a quotation mark inside a string needs a backslash"
        }
        (message, _) => return message.to_owned(),
    };
    known.to_owned()
}

/// The last text in front of a colon that looks like a key; nothing that could be a secret.
fn last_key(text: &str) -> Option<&str> {
    let mut key = None;
    let mut parts = text.split('"').skip(1).peekable();
    while let (Some(word), Some(behind)) = (parts.next(), parts.peek()) {
        let is_plain = word.len() <= 40 && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        if is_plain && !word.is_empty() && behind.trim_start().starts_with(':') {
            key = Some(word);
        }
    }
    key
}

/// A document in which no object has a key twice: which of both was meant cannot be known.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyValue;
        impl<'de> Visitor<'de> for AnyValue {
            type Value = Unique;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a JSON value")
            }

            fn visit_unit<E: de::Error>(self) -> Result<Unique, E> {
                Ok(Unique(Value::Null))
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Unique, E> {
                Ok(Unique(value.into()))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Unique, E> {
                Ok(Unique(value.into()))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Unique, E> {
                Ok(Unique(value.into()))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Unique, E> {
                Ok(Unique(Number::from_f64(value).map_or(Value::Null, Value::Number)))
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Unique, E> {
                Ok(Unique(value.into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Unique, A::Error> {
                let mut list = Vec::new();
                while let Some(Unique(value)) = values.next_element()? {
                    list.push(value);
                }
                Ok(Unique(list.into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Unique, A::Error> {
                let mut object = Map::new();
                while let Some(key) = members.next_key::<String>()? {
                    if object.contains_key(&key) {
                        return Err(de::Error::custom(format_args!("the key `{key}` occurs twice")));
                    }
                    let Unique(value) = members.next_value()?;
                    object.insert(key, value);
                }
                Ok(Unique(object.into()))
            }
        }
        deserializer.deserialize_any(AnyValue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_named_with_their_place_and_cure() {
        for (text, expected) in [
            ("", "is empty"),
            (" \n", "is empty"),
            ("{\"a\":1}{\"a\":2}", "more text follows after the end"),
            ("{\"a\":1}\noops }", "line 2, after `a`): more text follows after the end"),
            ("{\"api_key\":\"x\", // mine\n\"start_date\":1}", "line 1, after `api_key`): JSON has no comments"),
            ("{\n# mine\n\"a\":1}", "line 2): JSON has no comments"),
            ("{'a':1}", "line 1): put keys and strings in straight double"),
            ("{\"a\":“b”}", "after `a`): put keys and strings in straight double"),
            ("{a:1}", "put keys in double"),
            ("{\"a\":1,}", "remove it"),
            ("{\"a\":[1,]}", "remove it"),
            ("{\"a\":True}", "lower case"),
            ("{\"a\":phx}", "after `a`): a value is missing, or a string has no"),
            ("{\"a\":\"x\"y\"}", "after `a`): a comma is missing"),
            ("{\"a\":1", "ends early"),
            ("{\"a\":\"x\ny\"}", "a string contains a line break"),
            ("{\"a\":\"C:\\data\"}", "a single backslash"),
            ("{\"a\":1,\"b\":{\"c\":1,\"c\":2}}", "the key `c` occurs twice"),
            ("api_key: x", "a value is missing, or a string has no"),
        ] {
            let problem = parse(text.as_bytes()).unwrap_err();
            assert!(problem.contains(expected), "{text}: {problem}");
        }
        let leak = parse(b"{\"api_key\":\"phx_s3cret").unwrap_err();
        assert!(!leak.contains("s3cret"), "{leak}");
    }

    #[test]
    fn encodings_are_skipped_or_named() {
        let marked = [BYTE_ORDER_MARK, b"{\"a\":1}"].concat();
        assert_eq!(parse(&marked).unwrap()["a"], 1);
        let wide = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
        for bytes in [wide("\u{feff}{}"), wide("{}"), "{}".encode_utf16().flat_map(u16::to_be_bytes).collect()] {
            assert!(parse(&bytes).unwrap_err().contains("UTF-16"), "{bytes:?}");
        }
        assert!(parse(b"{\"a\":\"\xe9\"}").unwrap_err().contains("is not UTF-8 from byte 7"));
    }
}
