//! What a text says when the notations in which servers quote are undone.
//!
//! A server that quotes a secret may write it in percent notation, with the escapes of JSON or of HTML, in any
//! of these twice, or in capitals. [`Readings`] finds a text in all of these, and where it stands in the original.

use std::ops::Range;

use memchr::memmem;

/// So often is one notation inside another looked into.
const MOST_ROUNDS: usize = 3;
/// Longer references of HTML, such as `&CounterClockwiseContourIntegral;`, are nothing that a secret has.
const LONGEST_REFERENCE: usize = 10;
/// References of HTML to what URLs and keys consist of, in lower case.
const REFERENCES: [(&[u8], u8); 20] = [
    (b"amp", b'&'),
    (b"lt", b'<'),
    (b"gt", b'>'),
    (b"quot", b'"'),
    (b"apos", b'\''),
    (b"sol", b'/'),
    (b"bsol", b'\\'),
    (b"equals", b'='),
    (b"plus", b'+'),
    (b"percnt", b'%'),
    (b"colon", b':'),
    (b"commat", b'@'),
    (b"lowbar", b'_'),
    (b"period", b'.'),
    (b"hyphen", b'-'),
    (b"num", b'#'),
    (b"quest", b'?'),
    (b"dollar", b'$'),
    (b"excl", b'!'),
    (b"ast", b'*'),
];

/// A text, and what it says.
pub(crate) struct Readings(Vec<Reading>);

struct Reading {
    /// In lower case.
    text: Vec<u8>,
    /// Where each byte comes from; none in the text itself.
    origins: Option<Vec<Range<usize>>>,
}

/// A place at which something has been found.
pub(crate) struct Found {
    /// Bytes of the original.
    pub(crate) place: Range<usize>,
    /// Whether neither a letter nor a digit is next to it.
    pub(crate) stands_alone: bool,
}

impl Readings {
    pub(crate) fn of(text: &str) -> Self {
        let mut readings = vec![Reading { text: text.as_bytes().to_ascii_lowercase(), origins: None }];
        for _ in 0..MOST_ROUNDS {
            let Some(next) = readings.last().and_then(Reading::undone) else { break };
            readings.push(next);
        }
        Self(readings)
    }

    /// Where `wanted`, in lower case, stands in any of them.
    pub(crate) fn find<'r>(&'r self, wanted: &'r [u8]) -> impl Iterator<Item = Found> + 'r {
        self.0.iter().flat_map(move |reading| reading.find(wanted))
    }
}

impl Reading {
    fn find<'r>(&'r self, wanted: &'r [u8]) -> impl Iterator<Item = Found> + 'r {
        memmem::find_iter(&self.text, wanted).filter(|_| !wanted.is_empty()).map(|begin| {
            let end = begin + wanted.len();
            let before = String::from_utf8_lossy(self.text.get(begin.saturating_sub(4)..begin).unwrap_or_default());
            let behind = String::from_utf8_lossy(self.text.get(end..).map_or(b"", |rest| &rest[..rest.len().min(4)]));
            let neighbours = [before.chars().next_back(), behind.chars().next()];
            let stands_alone = !neighbours.into_iter().flatten().any(char::is_alphanumeric);
            let origin = |place: usize| self.origins.as_ref()?.get(place).cloned();
            let from = origin(begin).map_or(begin, |origin| origin.start);
            let to = origin(end - 1).map_or(end, |origin| origin.end);
            Found { place: from..to, stands_alone }
        })
    }

    /// The same with one round of notations undone; none when there are none.
    fn undone(&self) -> Option<Self> {
        memchr::memchr3(b'%', b'\\', b'&', &self.text)?;
        let (mut text, mut origins) = (Vec::with_capacity(self.text.len()), Vec::with_capacity(self.text.len()));
        let (mut at, mut is_changed) = (0, false);
        while let Some(rest) = self.text.get(at..).filter(|rest| !rest.is_empty()) {
            let (length, character) = match unescaped(rest) {
                Some(found) => {
                    is_changed = true;
                    found
                }
                None => (1, Character::Byte(rest[0])),
            };
            let origin = |place: usize| self.origins.as_ref()?.get(place).cloned();
            let from = origin(at).map_or(at, |origin| origin.start);
            let to = origin(at + length - 1).map_or(at + length, |origin| origin.end);
            let mut buffer = [0; 4];
            let bytes = match character {
                Character::Byte(byte) => {
                    buffer[0] = byte;
                    &buffer[..1]
                }
                Character::Whole(character) => character.encode_utf8(&mut buffer).as_bytes(),
            };
            text.extend(bytes.iter().map(u8::to_ascii_lowercase));
            origins.extend(bytes.iter().map(|_| from..to));
            at += length;
        }
        is_changed.then_some(Self { text, origins: Some(origins) })
    }
}

/// What a notation stands for.
enum Character {
    /// One byte of a character in UTF-8.
    Byte(u8),
    Whole(char),
}

/// What the notation that a text begins with stands for, with its length.
fn unescaped(text: &[u8]) -> Option<(usize, Character)> {
    match text {
        [b'%', digits @ ..] => Some((3, Character::Byte(byte(digits)?))),
        [b'\\', b'x', digits @ ..] => Some((4, Character::Byte(byte(digits)?))),
        [b'\\', b'u', digits @ ..] => {
            let first = hexadecimal(digits.get(..4)?)?;
            // Two of them are one character beyond the first plane.
            if let (0xd800..=0xdbff, Some([b'\\', b'u', low @ ..])) = (first, digits.get(4..))
                && let Some(second @ 0xdc00..=0xdfff) = low.get(..4).and_then(hexadecimal)
            {
                let character = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                return Some((12, Character::Whole(char::from_u32(character)?)));
            }
            Some((6, Character::Whole(char::from_u32(first)?)))
        }
        [b'\\', quoted @ (b'/' | b'"' | b'\'' | b'\\'), ..] => Some((2, Character::Byte(*quoted))),
        [b'&', rest @ ..] => {
            let length = rest.iter().take(LONGEST_REFERENCE).position(|byte| *byte == b';')?;
            Some((length + 2, reference(rest.get(..length)?)?))
        }
        _ => None,
    }
}

/// What a reference of HTML stands for, without `&` and `;`.
fn reference(name: &[u8]) -> Option<Character> {
    let number = match name {
        [b'#', b'x', digits @ ..] => hexadecimal(digits)?,
        [b'#', digits @ ..] => std::str::from_utf8(digits).ok()?.parse().ok()?,
        _ => {
            let (_, byte) = REFERENCES.iter().find(|(known, _)| *known == name)?;
            return Some(Character::Byte(*byte));
        }
    };
    char::from_u32(number).map(Character::Whole)
}

fn byte(digits: &[u8]) -> Option<u8> {
    u8::try_from(hexadecimal(digits.get(..2)?)?).ok()
}

fn hexadecimal(digits: &[u8]) -> Option<u32> {
    let is_plain = digits.iter().all(u8::is_ascii_hexdigit);
    u32::from_str_radix(std::str::from_utf8(digits).ok().filter(|_| is_plain)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places<'t>(text: &'t str, wanted: &str) -> Vec<&'t str> {
        Readings::of(text).find(wanted.as_bytes()).map(|found| text.get(found.place).unwrap()).collect()
    }

    #[test]
    fn texts_are_found_in_every_notation_and_where_they_stand() {
        for quoted in [
            "a/b&c=é+",
            "A/B&C=é+",
            "a%2Fb%26c%3D%C3%A9%2B",
            "a%2fb%26c%3d%c3%a9%2b",
            "%61%2f%62%26%63%3d%c3%a9%2b",
            "a%252Fb%2526c%253D%25c3%25a9%252B",
            "a%25252Fb&c=é+",
            "a\\/b\\u0026c\\u003d\\u00e9\\u002B",
            "\\x61\\x2fb&c=\\xc3\\xa9+",
            "a&#x2F;b&amp;c&equals;&#233;&#43;",
            "a&sol;b&AMP;c&#61;&#xE9;&plus;",
            "a&amp;#x2F;b%2526c\\u003d\\\\u00e9+",
        ] {
            let text = format!("no <{quoted}> here");
            assert_eq!(places(&text, "a/b&c=é+").first(), Some(&quoted), "{quoted}");
        }
        assert_eq!(places("\\ud83e\\udd94 🦔", "🦔"), ["🦔", "\\ud83e\\udd94", "🦔"]);
    }

    #[test]
    fn what_is_no_notation_stays() {
        for text in
            ["100% &c", "%", "%4", "%zz", "\\", "\\u12", "\\ud83e x", "&", "&;", "&#;", "&#x110000;", "&nope;", "%+1"]
        {
            assert_eq!(places(&format!("{text}key"), &format!("{}key", text.to_lowercase())).len(), 1, "{text}");
        }
    }

    #[test]
    fn neighbours_are_looked_at_in_the_same_notation() {
        let stands_alone = |text: &str| Readings::of(text).find(b"run").last().map(|found| found.stands_alone);
        for (text, expected) in
            [("run", true), ("“run”", true), ("rune", false), ("érun", false), ("%20run%20", true), ("run%65", false)]
        {
            assert_eq!(stands_alone(text), Some(expected), "{text}");
        }
    }
}
