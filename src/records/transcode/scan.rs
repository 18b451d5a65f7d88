//! Finds where JSON values end, in bytes that may end before they do.
//!
//! Strings are looked at 32 bytes at a time, because an escape stands every ten bytes or so in
//! PostHog's answers: too often for a search that has to be set up, too seldom for single bytes. One
//! step mostly reaches the next escape, so the processor can foresee where it goes on.

#[cfg(test)]
use fearless_simd::Level;
use fearless_simd::prelude::*;
use fearless_simd::{u8x32, u8x64};

/// Why a scan did not reach its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The bytes end before the value does.
    Incomplete,
    /// Not what the hot path knows; the plain path decides.
    Unsupported,
    /// There is not enough room for what is written meanwhile.
    BufferFull,
}

/// Number of bytes that one step looks at.
pub const STEP: usize = 32;

/// Number of bytes before the first quote, backslash or control character; [`STEP`] when there is
/// none.
#[inline(always)]
pub fn plain_bytes<S: Simd>(simd: S, step: [u8; STEP]) -> usize {
    let step = u8x32::simd_from(simd, step);
    let special = step.simd_eq(b'"') | step.simd_eq(b'\\') | step.simd_lt(b' ');
    (special.to_bitmask() | 1 << STEP).trailing_zeros() as usize
}

/// Number of bytes that [`ends`] looks at.
pub const WINDOW: usize = 2 * STEP;

/// One bit for each quote or backslash; the lowest is that of the first byte.
#[inline(always)]
pub fn ends<S: Simd>(simd: S, window: &[u8; WINDOW]) -> u64 {
    let window = u8x64::simd_from(simd, *window);
    (window.simd_eq(b'"') | window.simd_eq(b'\\')).to_bitmask()
}

/// Whether bytes are UTF-8 without control characters.
#[inline(always)]
pub fn is_text(bytes: &[u8]) -> bool {
    bytes.iter().fold(u8::MAX, |lowest, byte| lowest.min(*byte)) >= b' ' && std::str::from_utf8(bytes).is_ok()
}

/// Whether bytes are ASCII without control characters.
#[inline(always)]
pub fn is_ascii_text(bytes: &[u8]) -> bool {
    // They are what is below this, moved down by a space.
    bytes.iter().fold(0, |highest: u8, byte| highest.max(byte.wrapping_sub(b' '))) < 0x80 - b' '
}

/// Whether a byte may stand for itself in a string.
pub fn is_plain(byte: u8) -> bool {
    byte >= 0x20 && byte != b'"' && byte != b'\\'
}

/// The bytes of the step at `at`.
#[inline]
pub fn step(bytes: &[u8], at: usize) -> Option<[u8; STEP]> {
    bytes.get(at..)?.first_chunk().copied()
}

pub fn byte(bytes: &[u8], at: usize) -> Result<u8, Stop> {
    bytes.get(at).copied().ok_or(Stop::Incomplete)
}

/// The place of the next byte that is not a space. Other white space is unusual between values.
pub fn after_spaces(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at) == Some(&b' ') {
        at += 1;
    }
    at
}

/// The end of a string; `at` is behind its opening quote, the result behind its closing one.
#[inline(always)]
pub fn string<S: Simd>(simd: S, bytes: &[u8], mut at: usize) -> Result<usize, Stop> {
    loop {
        at = plain_end(simd, bytes, at)?;
        match byte(bytes, at)? {
            b'"' => return Ok(at + 1),
            b'\\' => at = escape(bytes, at + 1)?,
            _ => return Err(Stop::Unsupported),
        }
    }
}

/// The next quote, backslash or control character.
#[inline(always)]
fn plain_end<S: Simd>(simd: S, bytes: &[u8], mut at: usize) -> Result<usize, Stop> {
    while let Some(step) = step(bytes, at) {
        let plain = plain_bytes(simd, step);
        at += plain;
        if plain < STEP {
            return Ok(at);
        }
    }
    while is_plain(byte(bytes, at)?) {
        at += 1;
    }
    Ok(at)
}

/// The end of an escape; `at` is behind its backslash.
pub fn escape(bytes: &[u8], at: usize) -> Result<usize, Stop> {
    match byte(bytes, at)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(at + 1),
        b'u' => hexadecimal(bytes, at + 1).map(|_| at + 5),
        _ => Err(Stop::Unsupported),
    }
}

/// Four hexadecimal digits at `at`.
pub fn hexadecimal(bytes: &[u8], at: usize) -> Result<u16, Stop> {
    let mut number = 0;
    for place in at..at + 4 {
        let digit = match byte(bytes, place)? {
            digit @ b'0'..=b'9' => digit - b'0',
            digit @ b'a'..=b'f' => digit - b'a' + 10,
            digit @ b'A'..=b'F' => digit - b'A' + 10,
            _ => return Err(Stop::Unsupported),
        };
        number = number << 4 | u16::from(digit);
    }
    Ok(number)
}

/// The end of a number, a boolean or null, behind which there is at least one more byte.
pub fn scalar(bytes: &[u8], at: usize) -> Result<usize, Stop> {
    let literal = |text: &[u8]| {
        let found = bytes.get(at..).unwrap_or_default();
        match found.starts_with(text) {
            true => Ok(at + text.len()),
            false if text.starts_with(found) => Err(Stop::Incomplete),
            false => Err(Stop::Unsupported),
        }
    };
    match byte(bytes, at)? {
        b'n' => literal(b"null"),
        b't' => literal(b"true"),
        b'f' => literal(b"false"),
        b'-' | b'0'..=b'9' => number(bytes, at),
        _ => Err(Stop::Unsupported),
    }
}

fn number(bytes: &[u8], mut at: usize) -> Result<usize, Stop> {
    if byte(bytes, at)? == b'-' {
        at += 1;
    }
    at = if byte(bytes, at)? == b'0' { at + 1 } else { digits(bytes, at)? };
    if byte(bytes, at)? == b'.' {
        at = digits(bytes, at + 1)?;
    }
    if matches!(byte(bytes, at)?, b'e' | b'E') {
        at += 1;
        if matches!(byte(bytes, at)?, b'+' | b'-') {
            at += 1;
        }
        at = digits(bytes, at)?;
    }
    Ok(at)
}

/// The end of at least one digit, behind which there is at least one more byte.
fn digits(bytes: &[u8], begin: usize) -> Result<usize, Stop> {
    let mut at = begin;
    while byte(bytes, at)?.is_ascii_digit() {
        at += 1;
    }
    if at == begin { Err(Stop::Unsupported) } else { Ok(at) }
}

/// All that this machine's processor can do, so that tests show that it makes no difference.
#[cfg(test)]
pub fn levels() -> Vec<Level> {
    let best = Level::new();
    let mut levels = vec![Level::baseline(), best];
    #[cfg(target_arch = "x86_64")]
    levels.extend(best.as_sse4_2().map(Level::Sse4_2).into_iter().chain(best.as_avx2().map(Level::Avx2)));
    levels
}

#[cfg(test)]
mod tests {
    use fearless_simd::dispatch;
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    proptest! {
        #[test]
        fn plain_bytes_end_at_the_first_special_byte(
            step in any::<[u8; STEP]>(), plain in 0..=STEP, rest in any::<[u8; STEP]>(),
        ) {
            let expected = step.iter().position(|byte| !is_plain(*byte)).unwrap_or(STEP);
            for level in levels() {
                prop_assert_eq!(dispatch!(level, simd => plain_bytes(simd, step)), expected, "{:?}", level);
            }
            let mut mostly_plain = [b'a'; STEP];
            mostly_plain[plain..].copy_from_slice(&rest[plain..]);
            let expected = mostly_plain.iter().position(|byte| !is_plain(*byte)).unwrap_or(STEP);
            for level in levels() {
                prop_assert_eq!(dispatch!(level, simd => plain_bytes(simd, mostly_plain)), expected, "{:?}", level);
            }
        }

        #[test]
        fn ends_finds_quotes_and_backslashes(
            window in prop::collection::vec(prop_oneof![Just(b'"'), Just(b'\\'), any::<u8>()], WINDOW),
        ) {
            let window: [u8; WINDOW] = window.try_into().unwrap();
            for level in levels() {
                let ends = dispatch!(level, simd => ends(simd, &window));
                for (place, byte) in window.iter().enumerate() {
                    prop_assert_eq!(ends >> place & 1 == 1, matches!(byte, b'"' | b'\\'), "{:?}", level);
                }
            }
        }

        #[test]
        fn is_text_accepts_only_utf_8_without_control_characters(
            text in "[ -~]{0,80}", place in any::<prop::sample::Index>(), odd in any::<Option<u8>>(),
            letter in prop_oneof![Just("é"), Just("🦔"), Just(""), Just("\u{7f}")],
        ) {
            let mut bytes = [text.as_bytes(), letter.as_bytes()].concat();
            if let Some(odd) = odd {
                bytes.insert(place.index(bytes.len() + 1), odd);
            }
            let expected = std::str::from_utf8(&bytes).is_ok_and(|text| text.chars().all(|letter| letter >= ' '));
            prop_assert_eq!(is_text(&bytes), expected);
            prop_assert_eq!(is_ascii_text(&bytes), expected && bytes.is_ascii());
        }

        #[test]
        fn strings_end_where_serde_ends_them(text in r#"([a-zé🦔"\\/u0-9]|\\["\\/bfnrtux]|\\u[0-9a-fA-F]{4}|\PC){0,12}"#) {
            let bytes = format!("{text}\" rest");
            let whole = format!("\"{bytes}");
            let mut values = serde_json::Deserializer::from_str(&whole).into_iter::<&RawValue>();
            let expected = values.next().and_then(Result::ok).map(|_| values.byte_offset() - 1);
            for level in levels() {
                let end = dispatch!(level, simd => string(simd, bytes.as_bytes(), 0));
                prop_assert_eq!(end.ok(), expected, "{:?}", level);
            }
        }

        #[test]
        fn scalar_accepts_exactly_the_scalars_of_json(text in r"-?[0-9]{0,3}(\.[0-9]{0,2})?([eE][+-]?[0-9]{0,2})?|nul+|true|fals[ex]") {
            let expected = serde_json::from_str::<&RawValue>(&text).is_ok();
            let bytes = format!("{text},");
            let end = scalar(bytes.as_bytes(), 0);
            prop_assert_eq!(end == Ok(text.len()), expected, "{:?}", end);
        }
    }

    #[test]
    fn unfinished_scalars_and_strings_are_incomplete() {
        for text in ["", "12", "-", "1.", "1e", "1e+", "nul", "t"] {
            assert_eq!(scalar(text.as_bytes(), 0), Err(Stop::Incomplete), "{text}");
        }
        for text in ["", "abc", "abcdefgh", "a\\", "a\\u12", "a\\\""] {
            let end = dispatch!(Level::new(), simd => string(simd, text.as_bytes(), 0));
            assert_eq!(end, Err(Stop::Incomplete), "{text}");
        }
    }
}
