//! A cell: what has been emitted of one period and one slice.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::records::Fingerprint;

/// What has been emitted of a cell.
///
/// Written as `1200 9f3c`, followed by what is unusual: `1200 9f3c, duplicates 3 f5, assumed`. Whether it is
/// settled is said by its place in the state: see [`Slice`](super::Slice).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// Rows that have been emitted, each counted once.
    pub emitted: Fingerprint,
    /// What `PostHog` showed when these rows were proven to be all there are. It counts duplicates that are
    /// not merged yet once each, so it can be more than `emitted`.
    pub raw: Fingerprint,
    /// Whether the cell has been proven since its arrivals were settled. Only then fewer rows mean that
    /// rows are gone; before, a row that becomes visible late could hide behind two that were deleted.
    pub settled: bool,
    /// Whether rows in it are believed to have been emitted by another connector or an older version.
    pub assumed: bool,
}

/// Figures of one cell from one response, with and without duplicates.
///
/// They must come from one response: servers differ in how far they are behind, and the raw figure of
/// one that is ahead would hide its additional rows for good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Rows as stored.
    pub raw: Fingerprint,
    /// Rows that would be emitted.
    pub distinct: Fingerprint,
}

impl Cell {
    /// A cell whose rows have just been emitted and are yet to be proven.
    pub fn emitted(emitted: Fingerprint) -> Self {
        Self { emitted, raw: emitted, settled: false, assumed: false }
    }

    /// Both cells as one. What is settled needs both to be.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            emitted: self.emitted.plus(other.emitted),
            raw: self.raw.plus(other.raw),
            settled: self.settled && other.settled,
            assumed: self.assumed || other.assumed,
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.emitted)?;
        if self.raw != self.emitted {
            write!(formatter, ", duplicates {}", self.raw.minus(self.emitted))?;
        }
        if self.assumed {
            formatter.write_str(", assumed")?;
        }
        Ok(())
    }
}

impl FromStr for Cell {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(", ");
        let emitted: Fingerprint = parts.next().unwrap_or_default().parse()?;
        let mut cell = Self { settled: true, ..Self::emitted(emitted) };
        for part in parts {
            match part {
                "assumed" => cell.assumed = true,
                _ => match part.strip_prefix("duplicates ") {
                    Some(duplicates) => cell.raw = emitted.plus(duplicates.parse()?),
                    None => return Err(format!("`{part}` in `{text}` is not known")),
                },
            }
        }
        Ok(cell)
    }
}

impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cell {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_unusual_is_written() {
        let plain = Cell { settled: true, ..Cell::emitted(Fingerprint::new(1200, 0x9f3c)) };
        let unusual = Cell { raw: Fingerprint::new(1203, 0xa031), assumed: true, ..plain };
        for (cell, text) in [(plain, "1200 9f3c"), (unusual, "1200 9f3c, duplicates 3 f5, assumed")] {
            assert_eq!((cell.to_string().as_str(), text.parse()), (text, Ok(cell)));
        }
        for text in ["", "1200", "1 1, late", "1 1,assumed", "1 1, duplicates", "1 1, duplicates 2"] {
            assert!(text.parse::<Cell>().is_err(), "{text}");
        }
    }
}
