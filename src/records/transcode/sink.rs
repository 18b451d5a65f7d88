//! Where the hot path writes.

use fearless_simd::Simd;

use super::scan::{self, Stop};

/// Bytes that are written again and again, such as a record's key.
///
/// They are followed by as many more as are written at a time, so that a short one is one copy of
/// known size.
pub struct Fixed {
    bytes: Vec<u8>,
    length: usize,
}

impl Fixed {
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl From<Vec<u8>> for Fixed {
    fn from(mut bytes: Vec<u8>) -> Self {
        let length = bytes.len();
        bytes.resize(length + scan::STEP, 0);
        Self { bytes, length }
    }
}

/// Room for records behind those that are complete.
///
/// What is written is 32 bytes at a time where possible; the surplus is overwritten by what
/// comes next.
pub struct Sink<'r> {
    spare: &'r mut [u8],
    end: usize,
}

impl<'r> Sink<'r> {
    pub fn new(spare: &'r mut [u8]) -> Self {
        Self { spare, end: 0 }
    }

    pub fn len(&self) -> usize {
        self.end
    }

    pub fn is_empty(&self) -> bool {
        self.end == 0
    }

    /// Forgets what has been written behind the first `length` bytes.
    pub fn truncate(&mut self, length: usize) {
        self.end = self.end.min(length);
    }

    /// The same sink, for a function that keeps it in registers.
    #[inline(always)]
    pub(super) fn reborrow(&mut self) -> Sink<'_> {
        Sink { spare: self.spare, end: self.end }
    }

    /// Keeps what a [`Sink::reborrow`] has written.
    #[inline(always)]
    pub(super) fn extend_to(&mut self, length: usize) {
        self.end = length;
    }

    /// What comes next, to be written in place; [`Sink::skip`] tells how much has been.
    #[inline(always)]
    pub(super) fn spare<const N: usize>(&mut self) -> Option<&mut [u8; N]> {
        self.spare.get_mut(self.end..)?.first_chunk_mut()
    }

    /// Counts bytes that have been written in place.
    #[inline(always)]
    pub(super) fn skip(&mut self, length: usize) {
        self.end += length;
    }

    #[inline(always)]
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let end = self.end + bytes.len();
        self.spare.get_mut(self.end..end).ok_or(Stop::BufferFull)?.copy_from_slice(bytes);
        self.end = end;
        Ok(())
    }

    #[inline(always)]
    pub fn push(&mut self, byte: u8) -> Result<(), Stop> {
        *self.spare.get_mut(self.end).ok_or(Stop::BufferFull)? = byte;
        self.end += 1;
        Ok(())
    }

    /// Writes bytes that are known beforehand.
    #[inline(always)]
    pub fn put_fixed(&mut self, put_fixed: &Fixed) -> Result<(), Stop> {
        self.put_short(&put_fixed.bytes, 0, put_fixed.length)
    }

    /// Writes the bytes from `at` to `end`, few of them.
    #[inline(always)]
    pub fn put_short(&mut self, bytes: &[u8], at: usize, end: usize) -> Result<(), Stop> {
        match (scan::step(bytes, at), self.spare()) {
            (Some(step), Some(spare)) if end - at <= scan::STEP => {
                *spare = step;
                self.end += end - at;
                Ok(())
            }
            _ => self.put(bytes.get(at..end).unwrap_or_default()),
        }
    }

    /// Copies the bytes of a string up to the first quote, backslash or control character, which it
    /// returns with its place.
    #[inline(always)]
    pub fn copy_plain<S: Simd>(&mut self, simd: S, bytes: &[u8], mut at: usize) -> Result<(usize, u8), Stop> {
        while let Some(step) = scan::step(bytes, at) {
            *self.spare().ok_or(Stop::BufferFull)? = step;
            let copy_plain = scan::plain_bytes(simd, step);
            self.end += copy_plain;
            at += copy_plain;
            if copy_plain < scan::STEP {
                return Ok((at, scan::byte(bytes, at)?));
            }
        }
        loop {
            let byte = scan::byte(bytes, at)?;
            if !scan::is_plain(byte) {
                return Ok((at, byte));
            }
            self.push(byte)?;
            at += 1;
        }
    }
}
