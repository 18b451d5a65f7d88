//! JSON documents that stand in JSON strings: unescaped and checked in one pass.
//!
//! Nearly every escape in such a string is `\"`, where a string of the document begins or ends. So
//! looking for escapes finds the document's tokens as well, and checking its grammar costs little.

use fearless_simd::Simd;

use super::scan::{STEP, Stop, WINDOW, after_spaces, byte, ends, hexadecimal, scalar};
use super::sink::Sink;

/// Writes the document that begins at `at`, behind the string's opening quote, and returns the place
/// behind its closing quote. `open` is scratch space for what is open: `}` or `]` for each level.
///
/// Control characters are checked for the row as a whole; see [`super::scan::is_text`].
// Not inlined: in a row's function the loop has too few registers.
#[inline(never)]
pub fn embed<S: Simd>(
    simd: S,
    bytes: &[u8],
    at: usize,
    sink: &mut Sink<'_>,
    open: &mut Vec<u8>,
) -> Result<usize, Stop> {
    simd.vectorize(
        #[inline(always)]
        || {
            let mut written = sink.reborrow();
            let end = write(simd, bytes, at, &mut written, open)?;
            let (length, is_clean) = (written.len(), written.is_clean());
            sink.extend_to(length, is_clean);
            Ok(end)
        },
    )
}

#[inline(always)]
fn write<S: Simd>(
    simd: S,
    bytes: &[u8],
    mut at: usize,
    sink: &mut Sink<'_>,
    open: &mut Vec<u8>,
) -> Result<usize, Stop> {
    open.clear();
    loop {
        at = spaces(bytes, at, sink)?;
        match byte(bytes, at)? {
            b'\\' => at = text(simd, bytes, at, sink)?,
            b'{' => {
                sink.push(b'{')?;
                at = spaces(bytes, at + 1, sink)?;
                open.push(b'}');
                if byte(bytes, at)? != b'}' {
                    at = members(simd, bytes, at, sink)?;
                    continue;
                }
            }
            b'[' => {
                sink.push(b'[')?;
                at = spaces(bytes, at + 1, sink)?;
                open.push(b']');
                if byte(bytes, at)? != b']' {
                    continue;
                }
            }
            _ => {
                let end = scalar(bytes, at)?;
                sink.put_short(bytes, at, end)?;
                at = end;
            }
        }
        // Behind a value: everything that ends here, then what follows.
        loop {
            at = spaces(bytes, at, sink)?;
            let next = byte(bytes, at)?;
            at += 1;
            match open.last() {
                None if next == b'"' => return Ok(at),
                Some(closing) if next == *closing => {
                    sink.push(next)?;
                    open.pop();
                }
                Some(closing) if next == b',' => {
                    sink.push(b',')?;
                    if *closing == b'}' {
                        at = members(simd, bytes, spaces(bytes, at, sink)?, sink)?;
                    }
                    break;
                }
                _ => return Err(Stop::Unsupported),
            }
        }
    }
}

#[inline(always)]
fn spaces(bytes: &[u8], at: usize, sink: &mut Sink<'_>) -> Result<usize, Stop> {
    let end = after_spaces(bytes, at);
    if end > at {
        sink.put(bytes.get(at..end).unwrap_or_default())?;
    }
    Ok(end)
}

/// Behind a key's text: its closing quote, a colon, and the opening quote of its value.
const VALUE: &[u8; 5] = br#"\":\""#;
/// Behind a value's text: its closing quote, a comma, and the opening quote of the next key.
const MEMBER: &[u8; 5] = br#"\",\""#;

/// Members of an object, from the opening quote of a key on, as long as they look as nearly all do.
/// Returns the place of the first value that looks otherwise or is the last of its object; its key and
/// colon have been written.
#[inline(always)]
fn members<S: Simd>(simd: S, bytes: &[u8], mut at: usize, sink: &mut Sink<'_>) -> Result<usize, Stop> {
    while let Some(next) = member(simd, bytes, at, sink) {
        at = next;
    }
    key(simd, bytes, at, sink)
}

/// A usual member: a string without escapes or a scalar, no spaces, all of it within a window, and another
/// one behind it; returns the place of that one. Otherwise nothing has been written.
///
/// One look at the window finds the ends of key and value alike.
#[inline(always)]
fn member<S: Simd>(simd: S, bytes: &[u8], at: usize, sink: &mut Sink<'_>) -> Option<usize> {
    /// As many bytes as may be copied, starting anywhere in the window.
    const ROOM: usize = WINDOW + 2 * STEP;
    let (quote, source) = bytes.get(at..)?.split_first_chunk()?;
    let source: &[u8; ROOM] = source.first_chunk()?;
    let spare: &mut [u8; ROOM] = sink.spare()?;
    let ends = ends(simd, source.first_chunk()?);
    let key = ends.trailing_zeros() as usize;
    if quote != br#"\""# || key > STEP {
        return None;
    }
    let behind = word(source, key)?;
    copy::<1>(b"\"", 0, spare, 0)?;
    copy::<STEP>(source, 0, spare, 1)?;
    copy::<4>(b"\":\"\"", 0, spare, 1 + key)?;
    if begins(behind, VALUE) {
        let value = key + VALUE.len();
        let length = (ends >> value).trailing_zeros() as usize;
        let end = value + length;
        if end >= WINDOW || !begins(word(source, end)?, MEMBER) {
            return None;
        }
        copy::<STEP>(source, value, spare, key + 4)?;
        if length > STEP {
            copy::<STEP>(source, value + STEP, spare, key + 4 + STEP)?;
        }
        copy::<2>(b"\",", 0, spare, key + 4 + length)?;
        sink.skip(key + 4 + length + 2);
        return Some(at + 2 + end + 3);
    }
    if !begins(behind, br#"\":"#) {
        return None;
    }
    let value = key + 3;
    // With the comma in front of the next key's quote.
    let length = (ends >> value).trailing_zeros() as usize;
    if length > STEP || !is_scalar(source, value, length) {
        return None;
    }
    copy::<STEP>(source, value, spare, key + 3)?;
    sink.skip(key + 3 + length);
    Some(at + 2 + value + length)
}

/// Whether the `length` bytes at `at` are a scalar and a comma.
#[inline(always)]
fn is_scalar(bytes: &[u8], at: usize, length: usize) -> bool {
    match (length, word(bytes, at)) {
        (5, Some(text)) if begins(text, b"null,") || begins(text, b"true,") => true,
        (6, Some(text)) if begins(text, b"false,") => true,
        (0, _) => false,
        _ => bytes.get(at + length - 1) == Some(&b',') && scalar(bytes, at) == Ok(at + length - 1),
    }
}

/// Copies `N` bytes from `begin` in `source` to `at` in `spare`.
#[inline(always)]
fn copy<const N: usize>(source: &[u8], begin: usize, spare: &mut [u8], at: usize) -> Option<()> {
    let source: &[u8; N] = source.get(begin..)?.first_chunk()?;
    *spare.get_mut(at..)?.first_chunk_mut()? = *source;
    Some(())
}

/// The eight bytes at `at` as a number.
#[inline(always)]
fn word(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_le_bytes)
}

/// Whether the bytes of a [`word`] begin with at most seven others.
#[inline(always)]
fn begins<const N: usize>(word: u64, text: &[u8; N]) -> bool {
    let mut begin = [0; 8];
    for (byte, text) in begin.iter_mut().zip(text) {
        *byte = *text;
    }
    word & ((1 << (8 * N)) - 1) == u64::from_le_bytes(begin)
}

/// A key and its colon.
#[inline(always)]
fn key<S: Simd>(simd: S, bytes: &[u8], at: usize, sink: &mut Sink<'_>) -> Result<usize, Stop> {
    let at = text(simd, bytes, at, sink)?;
    let at = spaces(bytes, at, sink)?;
    if byte(bytes, at)? != b':' {
        return Err(Stop::Unsupported);
    }
    sink.push(b':')?;
    Ok(at + 1)
}

/// A string of the document; its quotes are escaped.
#[inline(always)]
fn text<S: Simd>(simd: S, bytes: &[u8], at: usize, sink: &mut Sink<'_>) -> Result<usize, Stop> {
    if byte(bytes, at)? != b'\\' || byte(bytes, at + 1)? != b'"' {
        return Err(Stop::Unsupported);
    }
    sink.push(b'"')?;
    let mut at = at + 2;
    loop {
        let (place, special) = sink.copy_plain(simd, bytes, at)?;
        if special != b'\\' {
            return Err(Stop::Unsupported);
        }
        at = match byte(bytes, place + 1)? {
            b'"' => {
                sink.push(b'"')?;
                return Ok(place + 2);
            }
            b'\\' => escape(bytes, place + 2, sink)?,
            b'u' => character(bytes, place + 2, sink)?,
            b'/' => {
                sink.push(b'/')?;
                place + 2
            }
            _ => return Err(Stop::Unsupported),
        };
    }
}

/// An escape of the document; `at` is behind its backslash, which is two in the string.
fn escape(bytes: &[u8], at: usize, sink: &mut Sink<'_>) -> Result<usize, Stop> {
    sink.push(b'\\')?;
    match byte(bytes, at)? {
        letter @ (b'b' | b'f' | b'n' | b'r' | b't' | b'/') => {
            sink.push(letter)?;
            Ok(at + 1)
        }
        b'\\' => match byte(bytes, at + 1)? {
            escaped @ (b'"' | b'\\') => {
                sink.push(escaped)?;
                Ok(at + 2)
            }
            _ => Err(Stop::Unsupported),
        },
        b'u' => {
            hexadecimal(bytes, at + 1)?;
            sink.put(bytes.get(at..at + 5).unwrap_or_default())?;
            Ok(at + 5)
        }
        _ => Err(Stop::Unsupported),
    }
}

/// A character that the string spells `\uXXXX`; `at` is behind the `u`.
fn character(bytes: &[u8], at: usize, sink: &mut Sink<'_>) -> Result<usize, Stop> {
    let first = hexadecimal(bytes, at)?;
    let (character, end) = match char::from_u32(u32::from(first)) {
        Some(character) => (character, at + 4),
        None if byte(bytes, at + 4)? == b'\\' && byte(bytes, at + 5)? == b'u' => {
            let second = hexadecimal(bytes, at + 6)?;
            let pair = char::decode_utf16([first, second]).next();
            (pair.and_then(Result::ok).ok_or(Stop::Unsupported)?, at + 10)
        }
        None => return Err(Stop::Unsupported),
    };
    // These would end the document's string, or may not stand in it.
    if character < ' ' || matches!(character, '"' | '\\') {
        return Err(Stop::Unsupported);
    }
    if !character.is_ascii() {
        sink.mark_unclean();
    }
    sink.put(character.encode_utf8(&mut [0; 4]).as_bytes())?;
    Ok(end)
}
