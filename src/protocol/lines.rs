//! Complete lines, with spare bytes behind them.

use super::separators::has_separators;
use crate::large::{LARGE, make_room};

/// Lines that are ready to be written, and space for more.
///
/// The spare bytes keep their old content from use to use: clearing them every time would cost as much
/// as copying the lines.
#[derive(Debug)]
pub struct Lines {
    bytes: Vec<u8>,
    /// Number of spare bytes at the end.
    spare: usize,
    /// Whether the lines are known to have no [separators](super::separators).
    is_clean: bool,
}

impl Default for Lines {
    fn default() -> Self {
        Self { bytes: Vec::new(), spare: 0, is_clean: true }
    }
}

impl Lines {
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len()).unwrap_or_default()
    }

    /// Their length in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.spare
    }

    /// Bytes that it takes in memory.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether they are known to have no [separators](super::separators), so that the writer does not look for them.
    pub fn is_clean(&self) -> bool {
        self.is_clean
    }

    pub fn clear(&mut self) {
        self.spare = self.bytes.len();
        self.is_clean = true;
    }

    /// The lines as a vector, to append to. Drops the spare bytes.
    pub fn as_vec(&mut self) -> &mut Vec<u8> {
        self.bytes.truncate(self.len());
        self.spare = 0;
        self.is_clean = false;
        &mut self.bytes
    }

    /// Appends to the lines, and looks for separators in what has been appended.
    pub fn append<T>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let (begin, is_clean) = (self.len(), self.is_clean);
        let written = write(self.as_vec());
        self.is_clean = is_clean && !has_separators(self.bytes.get(begin..).unwrap_or_default());
        written
    }

    /// Makes room for a record of about this size.
    pub fn make_room(&mut self, size: usize) {
        if size >= LARGE {
            self.append(|lines| make_room(lines, size));
        }
    }

    /// At least `size` bytes behind the lines. What is written there becomes part of the lines with
    /// [`Lines::written`].
    pub fn spare(&mut self, size: usize) -> &mut [u8] {
        let begin = self.len();
        if self.spare < size {
            self.bytes.resize(begin + size, 0);
            self.spare = size;
        }
        self.bytes.get_mut(begin..).unwrap_or_default()
    }

    /// Counts the first spare bytes as lines. `is_clean`: they are known to have no separators.
    pub fn written(&mut self, size: usize, is_clean: bool) {
        self.spare -= size.min(self.spare);
        self.is_clean &= is_clean;
    }
}

impl From<Vec<u8>> for Lines {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, spare: 0, is_clean: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_clean_as_long_as_all_that_is_written_is_known_to_be() {
        let mut lines = Lines::default();
        assert!(lines.is_clean());
        for (is_clean, expected) in [(true, true), (false, false), (true, false)] {
            lines.spare(1);
            lines.written(1, is_clean);
            assert_eq!(lines.is_clean(), expected);
        }
        for (text, expected) in [("é", true), ("\u{2028}", false), ("a", false)] {
            if expected {
                lines.clear();
            }
            lines.append(|lines| lines.extend_from_slice(text.as_bytes()));
            assert_eq!(lines.is_clean(), expected, "{text}");
        }
        lines.clear();
        lines.as_vec().push(b'a');
        assert!(!lines.is_clean(), "they have not been searched");
        assert!(!Lines::from(b"a".to_vec()).is_clean(), "they have not been searched");
    }

    #[test]
    fn spare_capacity_is_not_part_of_the_lines() {
        let mut lines = Lines::from(b"a\n".to_vec());
        lines.spare(10)[..3].copy_from_slice(b"b\nx");
        lines.written(2, true);
        assert_eq!((lines.as_bytes(), lines.len()), (&b"a\nb\n"[..], 4));
        lines.as_vec().extend_from_slice(b"c\n");
        assert_eq!(lines.as_bytes(), b"a\nb\nc\n");
        lines.clear();
        assert!(lines.is_empty());
        lines.as_vec().push(b'd');
        assert_eq!(lines.as_bytes(), b"d");
        assert!(lines.spare(3).len() >= 3);
        assert_eq!(lines.as_bytes(), b"d");
    }
}
