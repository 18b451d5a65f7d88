//! Complete lines, with spare bytes behind them.

/// Lines that are ready to be written, and space for more.
///
/// The spare bytes keep their old content from use to use: clearing them every time would cost as much
/// as copying the lines.
#[derive(Debug, Default)]
pub struct Lines {
    bytes: Vec<u8>,
    /// Number of spare bytes at the end.
    spare: usize,
}

impl Lines {
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len()).unwrap_or_default()
    }

    /// Their length in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.spare
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn clear(&mut self) {
        self.spare = self.bytes.len();
    }

    /// The lines as a vector, to append to. Drops the spare bytes.
    pub fn as_vec(&mut self) -> &mut Vec<u8> {
        self.bytes.truncate(self.len());
        self.spare = 0;
        &mut self.bytes
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

    /// Counts the first spare bytes as lines.
    pub fn written(&mut self, size: usize) {
        self.spare -= size.min(self.spare);
    }
}

impl From<Vec<u8>> for Lines {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, spare: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spare_capacity_is_not_part_of_the_lines() {
        let mut lines = Lines::from(b"a\n".to_vec());
        lines.spare(10)[..3].copy_from_slice(b"b\nx");
        lines.written(2);
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
