//! Where the hot path writes.

use fearless_simd::Simd;

use super::scan::{self, Stop};
use crate::records::fixed::{Fixed, PADDING};

// So that a padded value is written in one step.
const _: () = assert!(PADDING >= scan::STEP);

/// Room for records behind those that are complete.
///
/// What is written is 32 bytes at a time where possible; the surplus is overwritten by what
/// comes next.
pub struct Sink<'r> {
    spare: &'r mut [u8],
    end: usize,
    is_clean: bool,
}

impl<'r> Sink<'r> {
    /// A sink that writes to `spare`.
    pub fn new(spare: &'r mut [u8]) -> Self {
        Self { spare, end: 0, is_clean: true }
    }

    /// Number of bytes that have been written.
    pub fn len(&self) -> usize {
        self.end
    }

    /// Whether no separators have been written; see [`Lines::is_clean`](crate::protocol::Lines::is_clean).
    pub fn is_clean(&self) -> bool {
        self.is_clean
    }

    /// Notes that separators may have been written.
    pub(super) fn mark_unclean(&mut self) {
        self.is_clean = false;
    }

    /// Whether nothing has been written.
    pub fn is_empty(&self) -> bool {
        self.end == 0
    }

    /// What has been written behind the first `length` bytes.
    pub(super) fn behind(&self, length: usize) -> &[u8] {
        self.spare.get(length..self.end).unwrap_or_default()
    }

    /// Forgets what has been written behind the first `length` bytes.
    pub fn truncate(&mut self, length: usize) {
        self.end = self.end.min(length);
    }

    /// The same sink, for a function that keeps it in registers.
    #[inline(always)]
    pub(super) fn reborrow(&mut self) -> Sink<'_> {
        Sink { spare: self.spare, end: self.end, is_clean: self.is_clean }
    }

    /// Keeps what a [`Sink::reborrow`] has written.
    #[inline(always)]
    pub(super) fn extend_to(&mut self, length: usize, is_clean: bool) {
        self.end = length;
        self.is_clean = is_clean;
    }

    /// The next bytes, to be written in place; [`Sink::skip`] records how many were.
    #[inline(always)]
    pub(super) fn spare<const N: usize>(&mut self) -> Option<&mut [u8; N]> {
        self.spare.get_mut(self.end..)?.first_chunk_mut()
    }

    /// Counts bytes that have been written in place.
    #[inline(always)]
    pub(super) fn skip(&mut self, length: usize) {
        self.end += length;
    }

    /// Writes bytes.
    #[inline(always)]
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let end = self.end + bytes.len();
        self.spare.get_mut(self.end..end).ok_or(Stop::BufferFull)?.copy_from_slice(bytes);
        self.end = end;
        Ok(())
    }

    /// Writes one byte.
    #[inline(always)]
    pub fn push(&mut self, byte: u8) -> Result<(), Stop> {
        *self.spare.get_mut(self.end).ok_or(Stop::BufferFull)? = byte;
        self.end += 1;
        Ok(())
    }

    /// Writes bytes that are known beforehand.
    #[inline(always)]
    pub(super) fn put_fixed(&mut self, fixed: &Fixed) -> Result<(), Stop> {
        self.put_short(&fixed.padded, 0, fixed.length)
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
            let plain = scan::plain_bytes(simd, step);
            self.end += plain;
            at += plain;
            if plain < scan::STEP {
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
