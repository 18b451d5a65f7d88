//! Records of one stream on their way into one request.

use tokio::time::Instant;

use super::origin::Origin;

/// A record's place among all records received.
pub(super) type Ordinal = u64;

/// One record, ready to be sent.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Its place.
    pub(super) ordinal: Ordinal,
    /// Its JSON text.
    pub(super) element: Vec<u8>,
}

/// Records of one stream, in their order. Never empty.
#[derive(Debug)]
pub(super) struct RequestBatch {
    /// Number of the stream in the catalog.
    pub(super) stream: usize,
    /// The records.
    pub(super) entries: Vec<Entry>,
    /// Size of the body.
    pub(super) bytes: usize,
    /// When its first record came.
    pub(super) since: Instant,
    /// Where its first record stands.
    pub(super) origin: Origin,
}

impl RequestBatch {
    /// Begins a batch.
    pub(super) fn new(stream: usize, entry: Entry, origin: Origin) -> Self {
        let bytes = entry.element.len() + 2;
        Self { stream, entries: vec![entry], bytes, since: Instant::now(), origin }
    }

    /// Returns true if the record fits in.
    pub(super) fn has_room(&self, entry: &Entry, max_records: usize, max_bytes: usize) -> bool {
        self.entries.len() < max_records && self.bytes + entry.element.len() < max_bytes
    }

    /// Adds a record.
    pub(super) fn push(&mut self, entry: Entry) {
        self.bytes += entry.element.len() + 1;
        self.entries.push(entry);
    }

    /// The place of its first record.
    pub(super) fn first(&self) -> Ordinal {
        self.entries.first().map_or(0, |entry| entry.ordinal)
    }
}

/// The body of a request: a JSON array.
pub(super) fn body(entries: &[Entry]) -> Vec<u8> {
    let size = entries.iter().map(|entry| entry.element.len() + 1).sum::<usize>() + 1;
    let mut body = Vec::with_capacity(size);
    body.push(b'[');
    for (index, entry) in entries.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(&entry.element);
    }
    body.push(b']');
    body
}

#[cfg(test)]
mod tests {
    use super::super::origin::Epoch;
    use super::*;

    #[test]
    fn limits_hold_to_the_byte() {
        let entry = |size: usize| Entry { ordinal: 0, element: vec![b'1'; size] };
        let mut batch = RequestBatch::new(0, entry(10), Origin { epoch: Epoch::new(), place: 0 });
        assert_eq!(body(&batch.entries).len(), 12);
        assert!(batch.has_room(&entry(5), 2, 18) && !batch.has_room(&entry(6), 2, 18));
        assert!(!batch.has_room(&entry(1), 1, 1_000));
        batch.push(entry(5));
        assert_eq!(body(&batch.entries).len(), 18);
        assert_eq!(batch.bytes, 18);
    }
}
