//! Characters that readers of text do something with.
//!
//! JSON allows U+0085, U+2028 and U+2029 to stand for themselves in strings, and a line of the protocol
//! ends with a line feed only. But Python's `splitlines` and others cut lines there. Terminals obey the
//! control characters U+0080 to U+009F, and show what stands between the marks of bidirectional text in
//! another order. So these leave the program as `\u0085` and the like, which are the same text to a JSON
//! reader. This is done where bytes are written, so it holds for every message, whichever way it has been
//! made.

/// Gives `write` lines of JSON piece by piece, with an escape in place of each such character; in JSON, one
/// is always part of a string.
///
/// # Errors
/// When `write` has one.
pub(crate) fn write_escaped<E>(mut lines: &[u8], mut write: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
    while let Some((place, length, character)) = next(lines) {
        let (plain, rest) = lines.split_at(place);
        write(plain)?;
        write(&escape(character))?;
        lines = rest.get(length..).unwrap_or_default();
    }
    write(lines)
}

/// Whether any such character is in `text`.
pub(crate) fn has_separators(text: &[u8]) -> bool {
    next(text).is_some()
}

/// Place and length of the first such character, and its number.
fn next(bytes: &[u8]) -> Option<(usize, usize, u16)> {
    memchr::memchr2_iter(0xC2, 0xE2, bytes).find_map(|place| match *bytes.get(place..)? {
        [0xC2, last @ 0x80..=0x9F, ..] => Some((place, 2, u16::from(last))),
        [0xE2, 0x80, last @ (0x8E | 0x8F | 0xA8..=0xAE), ..] => Some((place, 3, 0x2000 | u16::from(last & 0x3F))),
        [0xE2, 0x81, last @ 0xA6..=0xA9, ..] => Some((place, 3, 0x2040 | u16::from(last & 0x3F))),
        _ => None,
    })
}

/// `\u` and four hexadecimal digits.
fn escape(character: u16) -> [u8; 6] {
    let digit = |place: u16| b"0123456789abcdef"[usize::from((character >> (4 * place)) & 0xF)];
    [b'\\', b'u', digit(3), digit(2), digit(1), digit(0)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn is_escaped(character: char) -> bool {
        matches!(character, '\u{80}'..='\u{9f}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    }

    fn escaped(text: &str) -> String {
        let mut escaped = String::new();
        write_escaped(text.as_bytes(), |piece| std::str::from_utf8(piece).map(|text| escaped.push_str(text))).unwrap();
        escaped
    }

    #[test]
    fn every_character_is_either_left_alone_or_an_escape_of_itself() {
        for character in '\u{80}'..='\u{ffff}' {
            let text = escaped(&character.to_string());
            let expected =
                if is_escaped(character) { format!("\\u{:04x}", u32::from(character)) } else { character.to_string() };
            assert_eq!(text, expected);
        }
    }

    proptest! {
        #[test]
        fn escaped_json_is_the_same_value(
            text in "[a-z\"\\\\\u{7f}-\u{a0}\u{200c}-\u{2010}\u{2026}-\u{202f}\u{2065}-\u{206a}\u{1f994}]{0,12}",
        ) {
            let line = serde_json::json!({text.clone(): [text]}).to_string();
            let escaped = escaped(&line);
            prop_assert_eq!(has_separators(line.as_bytes()), line.contains(is_escaped));
            prop_assert!(!escaped.contains(is_escaped), "{}", escaped);
            let [before, after]: [Value; 2] = [&line, &escaped].map(|text| serde_json::from_str(text).unwrap());
            prop_assert_eq!(before, after);
            if !line.contains(is_escaped) {
                prop_assert_eq!(escaped, line);
            }
        }
    }
}
