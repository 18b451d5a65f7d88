//! Bytes that are written again and again.

/// How many bytes follow, at least as many as are written at a time.
pub(super) const PADDING: usize = 32;

/// Bytes that are written again and again, such as a record's key.
///
/// They are padded, so that a short one is one copy of known size.
pub(super) struct Fixed {
    /// The bytes and the padding.
    pub(super) padded: Vec<u8>,
    /// Number of bytes without the padding.
    pub(super) length: usize,
}

impl Fixed {
    /// The bytes themselves.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.padded.get(..self.length).unwrap_or_default()
    }
}

impl From<Vec<u8>> for Fixed {
    fn from(mut bytes: Vec<u8>) -> Self {
        let length = bytes.len();
        bytes.resize(length + PADDING, 0);
        Self { padded: bytes, length }
    }
}
