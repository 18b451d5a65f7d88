//! Where the hot path writes.

use super::scan::{self, Stop};

/// Room is made in steps of this size.
const STEP: usize = 16 * 1024;

/// The end of a buffer of lines, with room for what comes next.
///
/// The buffer is longer than what has been written, so that eight bytes can be put down at once
/// and the surplus be overwritten. When the sink is dropped, the buffer has its right length again.
pub struct Sink<'l> {
    lines: &'l mut Vec<u8>,
    end: usize,
}

impl<'l> Sink<'l> {
    /// A sink behind `lines`, with room for about `expected` bytes.
    pub fn new(lines: &'l mut Vec<u8>, expected: usize) -> Self {
        let end = lines.len();
        lines.resize(end + expected, 0);
        Self { lines, end }
    }

    /// Where the next byte goes.
    pub fn place(&self) -> usize {
        self.end
    }

    /// Forgets what has been written since `place`.
    pub fn back_to(&mut self, place: usize) {
        self.end = place;
    }

    /// Writes bytes.
    pub fn put(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
        self.end += bytes.len();
    }

    /// Writes one byte.
    pub fn push(&mut self, byte: u8) {
        self.put(&[byte]);
    }

    /// Writes a character.
    pub fn character(&mut self, character: char) {
        self.put(character.encode_utf8(&mut [0; 4]).as_bytes());
    }

    /// Copies the bytes of a string up to the first quote, backslash or control character, which it
    /// returns with its place.
    pub fn plain(&mut self, bytes: &[u8], mut at: usize) -> Result<(usize, u8), Stop> {
        while let Some(word) = scan::word(bytes, at) {
            self.room(word.len()).copy_from_slice(&word);
            let plain = scan::plain_bytes(word);
            self.end += plain;
            at += plain;
            if let Some(special) = word.get(plain) {
                return Ok((at, *special));
            }
        }
        loop {
            let byte = scan::byte(bytes, at)?;
            if !scan::is_plain(byte) {
                return Ok((at, byte));
            }
            self.push(byte);
            at += 1;
        }
    }

    fn room(&mut self, length: usize) -> &mut [u8] {
        let end = self.end + length;
        if end > self.lines.len() {
            self.lines.resize(end + STEP, 0);
        }
        self.lines.get_mut(self.end..end).unwrap_or_default()
    }
}

impl Drop for Sink<'_> {
    fn drop(&mut self) {
        self.lines.truncate(self.end);
    }
}
