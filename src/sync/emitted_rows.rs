//! The persons and distinct ids that a sync has emitted: a person with several distinct ids is one record,
//! and a distinct id whose person changes later is not sent twice.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;

use crate::lock::lock;

/// Rows of one half: as many as fit into a table of 2^17 places.
const MOST: usize = (1 << 17) / 8 * 7;

/// The versions of rows that have been emitted last: between 114,688 and twice as many, in at most 5 MB.
/// When there are more, the older half is forgotten, and a line of one of those rows becomes a record
/// again, with the same content.
#[derive(Debug, Default)]
pub struct EmittedRows {
    generations: Mutex<Generations>,
    keys: [RandomState; 2],
}

#[derive(Debug, Default)]
struct Generations {
    young: HashSet<u128>,
    old: HashSet<u128>,
}

impl EmittedRows {
    /// Whether this version of a stream's row has not been emitted yet; it counts as emitted then.
    pub(crate) fn is_new(&self, stream: &str, id: &[u8], version: &[u8]) -> bool {
        let [high, low] = self.keys.each_ref().map(|keys| u128::from(keys.hash_one((stream, id, version))));
        let row = high << 64 | low;
        let mut generations = lock(&self.generations);
        let Generations { young, old } = &mut *generations;
        if young.contains(&row) || old.contains(&row) {
            return false;
        }
        if young.len() == MOST {
            *old = std::mem::take(young);
        }
        young.insert(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_rows_are_new_once_while_they_are_remembered() {
        let emitted = EmittedRows::default();
        let is_new = |id: &[u8], version: &[u8]| emitted.is_new("persons", id, version);
        assert!(is_new(b"a", b"1") && is_new(b"a", b"2") && is_new(b"b", b"1"));
        assert!(!is_new(b"a", b"1") && !is_new(b"b", b"1"));
        for person in 0..2 * MOST {
            assert!(is_new(&person.to_le_bytes(), b"1"));
        }
        assert!(!is_new(&(2 * MOST - 1).to_le_bytes(), b"1"));
        assert!(is_new(b"a", b"1"), "forgotten");
        assert!(emitted.is_new("person_distinct_ids", b"a", b"1"), "of another stream");
        let Generations { young, old } = &*emitted.generations.lock().unwrap();
        assert!(young.capacity() <= MOST && old.capacity() <= MOST);
    }
}
