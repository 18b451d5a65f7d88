//! Characters that some readers take for the end of a line.
//!
//! JSON allows U+0085, U+2028 and U+2029 to stand for themselves in strings, and a line of the protocol
//! ends with a line feed only. But Python's `splitlines` and others cut lines there. So these three leave
//! the program as `\u0085`, `\u2028` and `\u2029`, which are the same text to a JSON reader. This is done
//! where bytes are written, so it holds for every message, whichever way it has been made.

/// Gives `write` lines of JSON piece by piece, with an escape in place of each separator; in JSON, one is
/// always part of a string.
///
/// # Errors
/// When `write` has one.
pub(crate) fn write_escaped<E>(mut lines: &[u8], mut write: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
    while let Some((place, length, escape)) = next(lines) {
        let (plain, rest) = lines.split_at(place);
        write(plain)?;
        write(escape)?;
        lines = rest.get(length..).unwrap_or_default();
    }
    write(lines)
}

/// Place and length of the first separator, and its escape.
fn next(bytes: &[u8]) -> Option<(usize, usize, &'static [u8])> {
    memchr::memchr2_iter(0xC2, 0xE2, bytes).find_map(|place| match bytes.get(place..)? {
        [0xC2, 0x85, ..] => Some((place, 2, &br"\u0085"[..])),
        [0xE2, 0x80, 0xA8, ..] => Some((place, 3, &br"\u2028"[..])),
        [0xE2, 0x80, 0xA9, ..] => Some((place, 3, &br"\u2029"[..])),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    proptest! {
        #[test]
        fn escaped_json_is_the_same_value_without_separators(
            text in "[a-z\"\\\\\u{84}-\u{86}\u{a0}\u{2026}-\u{202a}\u{1f994}]{0,12}",
        ) {
            let line = serde_json::json!({text.clone(): [text]}).to_string();
            let mut escaped = String::new();
            write_escaped(line.as_bytes(), |piece| std::str::from_utf8(piece).map(|text| escaped.push_str(text))).unwrap();
            prop_assert!(!escaped.contains(['\u{85}', '\u{2028}', '\u{2029}']), "{}", escaped);
            let [before, after]: [Value; 2] = [&line, &escaped].map(|text| serde_json::from_str(text).unwrap());
            prop_assert_eq!(before, after);
            if !line.contains(['\u{85}', '\u{2028}', '\u{2029}']) {
                prop_assert_eq!(escaped, line);
            }
        }
    }
}
