//! Number and checksum of a set of rows: what emitted records and `PostHog` are compared by.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// How many rows there are, and the sum modulo 2^64 of the last eight hex digits of their uuids, each
/// read as an unsigned integer.
///
/// Additive over disjoint sets. A swap of one row for another goes unnoticed with a chance of 2^-32:
/// these digits are random in every version of uuid that `PostHog` and its libraries create.
///
/// Written as `1200 9f3c01ab22`: the count in decimal, the checksum in hex. As a JSON number a checksum
/// would lose digits in programs that read numbers as doubles.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    /// Rows.
    pub count: u64,
    /// Sum modulo 2^64.
    pub checksum: u64,
}

impl Fingerprint {
    /// No rows.
    pub const EMPTY: Self = Self { count: 0, checksum: 0 };

    /// A fingerprint as `PostHog` returned it.
    pub const fn new(count: u64, checksum: u64) -> Self {
        Self { count, checksum }
    }

    /// Adds one row by the text of its uuid.
    pub fn add_uuid(&mut self, uuid: &[u8]) {
        self.count = self.count.wrapping_add(1);
        self.checksum = self.checksum.wrapping_add(u64::from(checksum_of(uuid)));
    }

    /// The fingerprint of both sets together, if no row is in both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { count: self.count.wrapping_add(other.count), checksum: self.checksum.wrapping_add(other.checksum) }
    }

    /// The fingerprint of what remains without `other`, if all of it was part of `self`.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self { count: self.count.wrapping_sub(other.count), checksum: self.checksum.wrapping_sub(other.checksum) }
    }

    /// Returns true if there are no rows.
    pub fn is_empty(self) -> bool {
        self == Self::EMPTY
    }
}

/// What one row adds to the checksum: the last eight bytes of its id as hex digits of either case.
///
/// `PostHog` computes the same in a query; its column is a UUID, so nothing
/// else comes from there. For any other text this still has a value, so that nothing a server sends can
/// stop a sync: a byte that is not a hex digit counts as `0`, and a short text is filled with `0` in
/// front. In `ClickHouse` that is
/// `unhex(replaceRegexpAll(leftPad(right(id, 8), 8, '0'), '[^0-9a-fA-F]', '0'))`.
pub fn checksum_of(uuid: &[u8]) -> u32 {
    let start = uuid.len().saturating_sub(8);
    let mut value = 0_u32;
    for &byte in uuid.get(start..).unwrap_or_default() {
        value = value << 4 | u32::from(HEX_DIGITS[usize::from(byte)]);
    }
    value
}

/// The value of each byte as a hex digit.
const HEX_DIGITS: [u8; 256] = {
    let mut values = [0; 256];
    let mut digit: u8 = 0;
    while digit < 16 {
        values[b"0123456789abcdef"[digit as usize] as usize] = digit;
        values[b"0123456789ABCDEF"[digit as usize] as usize] = digit;
        digit += 1;
    }
    values
};

impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {:x}", self.count, self.checksum)
    }
}

impl FromStr for Fingerprint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once(' ').and_then(|(count, checksum)| {
            let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
            (plain(count) && plain(checksum))
                .then(|| Some(Self::new(count.parse().ok()?, u64::from_str_radix(checksum, 16).ok()?)))?
        });
        parsed.ok_or_else(|| format!("`{text}` is not a count and a checksum such as `1200 9f3c01ab22`"))
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_eight_digits_of_either_case_count() {
        let mut sum = Fingerprint::EMPTY;
        sum.add_uuid(b"0190a0b1-c2d3-7e4f-8a5b-6c7dFFFFFFFF");
        sum.add_uuid(b"0190a0b1-c2d3-7e4f-8a5b-6c7dffffffff");
        sum.add_uuid(b"0190a0b1-c2d3-7e4f-8a5b-6c7d00000001");
        assert_eq!(sum, Fingerprint::new(3, 2 * 0xffff_ffff + 1));
    }

    #[test]
    fn ids_that_are_no_uuid_have_a_checksum() {
        for (id, expected) in [("", 0), ("a", 10), ("x-12", 0x12), ("event 99 zz", 0x0009_9000), ("ÿ1", 1)] {
            assert_eq!(checksum_of(id.as_bytes()), expected, "{id}");
        }
    }

    #[test]
    fn fingerprints_that_are_not_written_as_such_are_refused() {
        for text in ["", "1", "1 ", " 1", "+1 2", "1 2 3", "a 1", "1 +2", "1 11111111111111111"] {
            assert!(text.parse::<Fingerprint>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn sums_come_apart_again(a: (u64, u64), b: (u64, u64)) {
            let (a, b) = (Fingerprint::new(a.0, a.1), Fingerprint::new(b.0, b.1));
            prop_assert_eq!(a.plus(b).minus(b), a);
            prop_assert_eq!(a.to_string().parse(), Ok(a));
        }
    }
}
