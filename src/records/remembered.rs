//! Rows that are remembered one by one, so that the next sync does not emit them again.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::list_object::key_number;

/// What a writer remembers of its rows, and which rows it leaves out because they are known.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    known: Arc<BTreeSet<u64>>,
    /// Numbers of the rows that have been written, if they are to be remembered.
    written: Option<BTreeSet<u64>>,
}

impl Remembered {
    pub(super) fn new(known: Arc<BTreeSet<u64>>, remember: bool) -> Self {
        Self { known, written: remember.then(BTreeSet::new) }
    }

    /// Takes the numbers of the rows that have been written.
    pub(super) fn take(&mut self) -> BTreeSet<u64> {
        self.written.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Whether a row with these JSON texts of its key is left out; otherwise it is remembered if that is wanted.
    pub(super) fn leaves_out<'v>(&mut self, key: impl IntoIterator<Item = &'v [u8]>) -> bool {
        if self.known.is_empty() && self.written.is_none() {
            return false;
        }
        let number = row_number(key);
        if let Some(written) = &mut self.written {
            written.insert(number);
        }
        self.known.contains(&number)
    }
}

/// A number that stands for a row. It has 53 bits, which every JSON reader takes exactly.
fn row_number<'v>(key: impl IntoIterator<Item = &'v [u8]>) -> u64 {
    // JSON texts have no line feeds.
    let parts: Vec<&[u8]> = key.into_iter().collect();
    key_number(parts.join(&b'\n')) >> 11
}
