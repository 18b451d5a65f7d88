//! What the destination has of objects that the next sync meets again, so that one that has not changed is not
//! emitted again.
//!
//! An object's entry is true at the place of its STATE in the output: it is the checksum of the object's last record
//! before that. Before another record of the object is emitted, a STATE withdraws the entry; otherwise a sync that is
//! interrupted after that record would believe that the destination still has the earlier one.

use std::collections::{BTreeMap, HashSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::time::Timestamp;

/// So many objects are at most kept.
pub(super) const MOST: usize = 5_000;
/// Bytes of one entry: key, checksum and seconds, 8 + 8 + 4.
const ENTRY: usize = 20;
const SECOND: i64 = 1_000_000;

/// The last records of some objects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sent {
    /// Of objects that changed before this, some had to be forgotten.
    #[serde(skip_serializing_if = "Option::is_none")]
    complete_from: Option<Timestamp>,
    /// By a number that stands for the key.
    objects: Entries,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Entries(BTreeMap<u64, Entry>);

/// The last record of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    checksum: u64,
    /// When the object changed, in seconds since 1970; 0 if it does not tell.
    changed: u32,
}

impl Sent {
    pub(super) fn is_empty(&self) -> bool {
        self.objects.0.is_empty() && self.complete_from.is_none()
    }

    /// From which time of change on nothing had to be forgotten; none if nothing has been.
    pub(super) fn complete_from(&self) -> Option<Timestamp> {
        self.complete_from
    }

    /// Checksum of an object's last record.
    pub(super) fn checksum(&self, key: u64) -> Option<u64> {
        self.objects.0.get(&key).map(|entry| entry.checksum)
    }

    pub(super) fn add(&mut self, key: u64, checksum: u64, changed: Option<Timestamp>) {
        self.objects.0.insert(key, Entry { checksum, changed: changed.map_or(0, seconds) });
    }

    /// Forgets an object. Returns whether it was known.
    pub(super) fn remove(&mut self, key: u64) -> bool {
        self.objects.0.remove(&key).is_some()
    }

    /// Keeps what changed from `from` on, and of the objects without a time of change those that are there, if that
    /// is known.
    pub(super) fn keep(&mut self, from: Timestamp, there: Option<&HashSet<u64>>) {
        let from = seconds(from);
        self.objects.0.retain(|key, entry| match entry.changed {
            0 => there.is_none_or(|there| there.contains(key)),
            changed => changed >= from,
        });
        self.complete_from = self.complete_from.filter(|complete_from| seconds(*complete_from) > from);
    }

    /// Forgets those that changed first where there are too many; these are emitted again.
    pub(super) fn bound(&mut self) {
        let surplus = self.objects.0.len().saturating_sub(MOST);
        if surplus == 0 {
            return;
        }
        let mut by_time: Vec<(u32, u64)> = self.objects.0.iter().map(|(key, entry)| (entry.changed, *key)).collect();
        by_time.sort_unstable();
        for (changed, key) in by_time.into_iter().take(surplus) {
            self.objects.0.remove(&key);
            let next_second = Timestamp::from_micros((i64::from(changed) + 1) * SECOND);
            self.complete_from = self.complete_from.max(Some(next_second).filter(|_| changed > 0));
        }
    }
}

/// Whole seconds since 1970, at least 1.
fn seconds(time: Timestamp) -> u32 {
    u32::try_from(time.micros().div_euclid(SECOND).max(1)).unwrap_or(u32::MAX)
}

impl Serialize for Entries {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let entry = |(key, Entry { checksum, changed }): (&u64, &Entry)| {
            [key.to_be_bytes().as_slice(), &checksum.to_be_bytes(), &changed.to_be_bytes()].concat()
        };
        let bytes: Vec<u8> = self.0.iter().flat_map(entry).collect();
        serializer.serialize_str(&STANDARD_NO_PAD.encode(bytes))
    }
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD_NO_PAD.decode(text).map_err(de::Error::custom)?;
        let (entries, rest) = bytes.as_chunks::<ENTRY>();
        if !rest.is_empty() {
            return Err(de::Error::custom(format!("entries of {ENTRY} bytes each expected")));
        }
        let entry = |bytes: &[u8; ENTRY]| {
            let [key, checksum] = [0, 8].map(|from| bytes[from..].first_chunk().copied().unwrap_or_default());
            let changed = bytes.last_chunk().copied().unwrap_or_default();
            let (checksum, changed) = (u64::from_be_bytes(checksum), u32::from_be_bytes(changed));
            (u64::from_be_bytes(key), Entry { checksum, changed })
        };
        Ok(Self(entries.iter().map(entry).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_micros(second * SECOND)
    }

    #[test]
    fn the_latest_objects_survive_a_state() {
        let mut sent = Sent::default();
        for key in 0..6_000_u64 {
            sent.add(key, key + 7, Some(at(1_000 + i64::try_from(key).unwrap())));
        }
        sent.bound();
        assert_eq!(sent.objects.0.len(), MOST);
        assert_eq!((sent.checksum(999), sent.checksum(1_000)), (None, Some(1_007)));
        assert_eq!(sent.complete_from(), Some(at(2_000)));
        let text = serde_json::to_string(&sent).unwrap();
        assert!(text.len() < 134_000, "{}", text.len());
        assert_eq!(serde_json::from_str::<Sent>(&text).unwrap(), sent);
        for damaged in [r#"{"objects":"AAAA"}"#, r#"{"objects":"?"}"#, "7"] {
            assert!(serde_json::from_str::<Sent>(damaged).is_err(), "{damaged}");
        }
    }

    #[test]
    fn what_the_next_sync_does_not_meet_is_forgotten() {
        let mut sent = Sent::default();
        sent.add(1, 0, None);
        sent.add(2, 0, None);
        sent.add(3, 0, Some(at(10)));
        sent.add(4, 0, Some(at(20)));
        sent.keep(at(20), Some(&HashSet::from([2])));
        assert_eq!(sent.objects.0.keys().copied().collect::<Vec<_>>(), [2, 4]);
    }
}
