//! Checksums of objects, so that one that has not changed is not emitted again.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

/// So many checksums, of 8 bytes each, are at most kept.
const MOST: usize = 5_000;

/// The checksums of some objects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checksums(BTreeSet<u64>);

/// The checksum of an object with all its values.
pub(super) fn checksum(object: &[u8]) -> u64 {
    let digest = Sha256::digest(object);
    u64::from_be_bytes(digest.first_chunk().copied().unwrap_or_default())
}

impl Checksums {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn has(&self, checksum: u64) -> bool {
        self.0.contains(&checksum)
    }

    /// Adds a checksum, unless there are too many already: such objects are emitted again.
    pub(super) fn add(&mut self, checksum: u64) {
        if self.0.len() < MOST {
            self.0.insert(checksum);
        }
    }
}

impl Serialize for Checksums {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes: Vec<u8> = self.0.iter().flat_map(|checksum| checksum.to_be_bytes()).collect();
        serializer.serialize_str(&STANDARD_NO_PAD.encode(bytes))
    }
}

impl<'de> Deserialize<'de> for Checksums {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD_NO_PAD.decode(text).map_err(de::Error::custom)?;
        let (checksums, rest) = bytes.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(de::Error::custom("checksums of 8 bytes each expected"));
        }
        Ok(Self(checksums.iter().map(|bytes| u64::from_be_bytes(*bytes)).take(MOST).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_survive_a_state_and_are_bounded() {
        let mut checksums = Checksums::default();
        for number in 0..6_000_u64 {
            checksums.add(checksum(&number.to_be_bytes()));
        }
        assert_eq!(checksums.0.len(), MOST);
        let text = serde_json::to_string(&checksums).unwrap();
        assert!(text.len() < 54_000, "{}", text.len());
        assert_eq!(serde_json::from_str::<Checksums>(&text).unwrap(), checksums);
        for damaged in ["\"AAAA\"", "\"?\"", "7"] {
            assert!(serde_json::from_str::<Checksums>(damaged).is_err(), "{damaged}");
        }
    }
}
