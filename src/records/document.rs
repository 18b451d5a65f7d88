//! JSON documents that arrive as text and leave as part of a record.
//!
//! `properties` is stored by `PostHog` as text. It is embedded as it is, so key order, number
//! spelling and duplicate keys survive, after it has been proven to be one JSON value. What a single
//! value can break is repaired, so that the others survive: line feeds between tokens, which would break the line, become spaces; `NaN` and
//! `Infinity`, which `PostHog` stores but JSON does not know, become null, as in PostHog's own API;
//! control characters inside of strings, which `ClickHouse` takes as they are, become escapes; backslashes
//! that begin no escape are doubled; and a byte order mark is left out.

use serde_json::value::RawValue;

/// Appends `text` as a JSON value to `line`; false, with nothing appended, when it is not JSON.
pub(super) fn embed(text: &str, line: &mut Vec<u8>) -> bool {
    if is_json(text) {
        append(text, line);
        return true;
    }
    let fixed_text = repaired(text);
    let is_repaired = is_json(&fixed_text);
    if is_repaired {
        append(&fixed_text, line);
    }
    is_repaired
}

/// Appends JSON text; line feeds between its tokens, which would end the line, become spaces.
pub(super) fn append(text: &str, line: &mut Vec<u8>) {
    if memchr::memchr2(b'\n', b'\r', text.as_bytes()).is_some() {
        line.extend(text.bytes().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
    } else {
        line.extend_from_slice(text.as_bytes());
    }
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok()
}

/// Replaces `NaN`, `Infinity` and `-Infinity` outside of strings by null, and inside of strings control characters
/// by their escapes and backslashes that begin no escape by two.
fn repaired(text: &str) -> String {
    let mut fixed_text = String::with_capacity(text.len());
    let mut rest = text.trim_start_matches('\u{feff}');
    let mut in_string = false;
    while let Some(character) = rest.chars().next() {
        if in_string && character < ' ' {
            // JSON escapes exactly these, and a string of its own is quoted.
            let quoted = serde_json::Value::from(character.to_string()).to_string();
            fixed_text.push_str(quoted.trim_matches('"'));
            rest = rest.get(1..).unwrap_or_default();
            continue;
        }
        if in_string {
            let escape = escape_length(rest);
            if character == '\\' && escape.is_none() {
                fixed_text.push('\\');
            }
            let (token, remainder) = rest.split_at(escape.unwrap_or(character.len_utf8()));
            fixed_text.push_str(token);
            rest = remainder;
            in_string = character != '"';
            continue;
        }
        if let Some(remainder) = ["NaN", "Infinity", "-Infinity"].iter().find_map(|token| rest.strip_prefix(token)) {
            fixed_text.push_str("null");
            rest = remainder;
            continue;
        }
        in_string = character == '"';
        fixed_text.push(character);
        rest = rest.get(character.len_utf8()..).unwrap_or_default();
    }
    fixed_text
}

/// The length of the escape that a text begins with, if it does.
fn escape_length(text: &str) -> Option<usize> {
    let escaped = text.strip_prefix('\\')?;
    match escaped.bytes().next()? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(2),
        b'u' if escaped.get(1..5)?.bytes().all(|digit| digit.is_ascii_hexdigit()) => Some(6),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn embedded(text: &str) -> Option<String> {
        let mut line = b"x".to_vec();
        let done = embed(text, &mut line);
        let line = String::from_utf8(line).unwrap();
        assert!(done || line == "x");
        done.then(|| line.strip_prefix('x').unwrap().to_owned())
    }

    #[test]
    fn valid_json_is_written_unchanged() {
        for text in [
            "{}",
            r#"{"b":1,"a":9007199254740993,"d":123456789012345678901234567890,"e":1.0,"k":1,"k":2}"#,
            r#"{ "a" : "NaN \" Infinity \\" , "e":"\ud83e" }"#,
            "{\"a\":\"\u{2028}🦔\"}",
            "[]",
        ] {
            assert_eq!(embedded(text).as_deref(), Some(text));
        }
        let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(embedded(&deep), Some(deep));
    }

    #[test]
    fn values_that_json_lacks_become_null() {
        assert_eq!(
            embedded(r#"{"a":NaN,"b":[Infinity,-Infinity],"NaN":"\"NaN","é\\":"Infinity"}"#).unwrap(),
            r#"{"a":null,"b":[null,null],"NaN":"\"NaN","é\\":"Infinity"}"#
        );
        assert_eq!(embedded("{\n\"a\":\r\n1}").unwrap(), "{ \"a\":  1}");
    }

    #[test]
    fn control_characters_in_strings_become_escapes() {
        for (text, expected) in [
            ("{\"note\":\"two\nlines\",\"plan\":\"pro\"}", r#"{"note":"two\nlines","plan":"pro"}"#),
            ("{\"a\tb\":\"\u{0}\u{1f}\r\u{8}\u{c}\"}", r#"{"a\tb":"\u0000\u001f\r\b\f"}"#),
            ("{\n\"a\":\"\\\\\n\",\"b\":NaN}", r#"{ "a":"\\\n","b":null}"#),
        ] {
            assert_eq!(embedded(text).as_deref(), Some(expected), "{text:?}");
        }
        for text in ["{\u{1}\"a\":1}", "{\"a\":\"\n"] {
            assert_eq!(embedded(text), None, "{text:?}");
        }
    }

    #[test]
    fn backslashes_that_begin_no_escape_and_byte_order_marks_cost_no_other_member() {
        for (text, expected) in [
            ("{\"a\":\"\\\n\",\"plan\":\"pro\"}", r#"{"a":"\\\n","plan":"pro"}"#),
            (r#"{"a":"\x41\u00\ud8z\é","plan":"pro"}"#, r#"{"a":"\\x41\\u00\\ud8z\\é","plan":"pro"}"#),
            (r#"{"a":"C:\dir\new","b":NaN}"#, r#"{"a":"C:\\dir\new","b":null}"#),
            (r#"{"a":"\"\\\/\u00e9\ud800","b":NaN}"#, r#"{"a":"\"\\\/\u00e9\ud800","b":null}"#),
            ("\u{feff}{\"plan\":\"pro\"}", r#"{"plan":"pro"}"#),
        ] {
            assert_eq!(embedded(text).as_deref(), Some(expected), "{text:?}");
        }
        for text in [r#"{"a":"\"}"#, r#"{"a":"x\"#, r#"{"a":"\u12"#, "\u{feff}"] {
            assert_eq!(embedded(text), None, "{text}");
        }
    }

    #[test]
    fn invalid_json_is_rejected() {
        for text in ["", "{", "{'a':1}", "{}{}", "undefined", "NaNa", "\\"] {
            assert_eq!(embedded(text), None, "{text}");
        }
    }
}
