//! Points in time as `PostHog` keeps them: UTC, microseconds.

use std::fmt;

use chrono::{DateTime, Days, NaiveDate, NaiveDateTime, SecondsFormat, TimeDelta, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Microseconds of one day.
const DAY: i64 = 86_400_000_000;

/// An instant with the precision of `DateTime64(6, 'UTC')`.
///
/// Shown, and kept in states, as RFC 3339 with six fraction digits: `2026-11-01T00:00:00.000000Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Older than any event: `1970-01-01`.
    pub const MIN: Self = Self(0);
    /// Younger than any event, clocks in the far future included: `2299-01-01`.
    ///
    /// `DateTime64` ends in 2299; the margin keeps arithmetic on the server inside its range.
    pub const MAX: Self = Self(10_382_256_000_000_000);

    /// The local clock.
    pub fn now() -> Self {
        Self(Utc::now().timestamp_micros())
    }

    /// From microseconds since the epoch.
    pub fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the epoch.
    pub fn micros(self) -> i64 {
        self.0
    }

    /// The first instant of the UTC day with this number since the epoch.
    pub fn from_day(day: i64) -> Self {
        Self(day.saturating_mul(DAY))
    }

    /// The number of the UTC day since the epoch.
    pub fn day(self) -> i64 {
        self.0.div_euclid(DAY)
    }

    /// Reads RFC 3339 with any offset, or a plain date (midnight UTC).
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(instant) = DateTime::parse_from_rfc3339(text) {
            return Some(Self(instant.timestamp_micros()));
        }
        if let Ok(naive) = NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f") {
            return Some(Self(naive.and_utc().timestamp_micros()));
        }
        let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
        Some(Self(date.and_hms_opt(0, 0, 0)?.and_utc().timestamp_micros()))
    }

    /// The instant `duration` earlier, not before [`Timestamp::MIN`].
    #[must_use]
    pub fn minus(self, duration: TimeDelta) -> Self {
        Self(self.0.saturating_sub(duration.num_microseconds().unwrap_or(i64::MAX))).max(Self::MIN)
    }

    /// The instant `micros` microseconds later.
    #[must_use]
    pub fn plus_micros(self, micros: i64) -> Self {
        Self(self.0.saturating_add(micros))
    }

    /// A `HogQL` literal that no time zone setting can shift.
    pub fn literal(self) -> String {
        format!("toDateTime64('{}', 6, 'UTC')", self.datetime().format("%Y-%m-%d %H:%M:%S%.6f"))
    }

    /// As chrono's type.
    pub fn datetime(self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.0).unwrap_or_default()
    }

    /// Midnight UTC of the day after.
    #[must_use]
    pub fn next_midnight(self) -> Self {
        Self::from_day(self.day() + 1)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.datetime().to_rfc3339_opts(SecondsFormat::Micros, true))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| de::Error::custom(format!("`{text}` is not a time such as 2026-01-31T00:00:00Z")))
    }
}

/// A number of whole days as a duration.
pub fn days(count: u32) -> TimeDelta {
    TimeDelta::days(i64::from(count))
}

/// The date `count` days before today in the form of `start_date`, for examples and messages.
pub fn days_ago(count: u32) -> String {
    let date = Utc::now().date_naive();
    date.checked_sub_days(Days::new(u64::from(count))).unwrap_or(date).format("%Y-%m-%dT00:00:00Z").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_microseconds_and_applies_offsets() {
        for (text, expected) in [
            ("2026-01-01T12:00:00Z", "2026-01-01T12:00:00.000000Z"),
            ("2026-07-01T12:00:00.123456+02:00", "2026-07-01T10:00:00.123456Z"),
            ("2026-01-01T12:00:00.000001Z", "2026-01-01T12:00:00.000001Z"),
            ("2026-01-01", "2026-01-01T00:00:00.000000Z"),
        ] {
            assert_eq!(Timestamp::parse(text).unwrap().to_string(), expected);
        }
        assert_eq!(Timestamp::parse("yesterday"), None);
    }

    #[test]
    fn literals_name_their_time_zone() {
        let instant = Timestamp::parse("2026-03-29T01:30:00.5Z").unwrap();
        assert_eq!(instant.literal(), "toDateTime64('2026-03-29 01:30:00.500000', 6, 'UTC')");
        assert_eq!(Timestamp::MAX.to_string(), "2299-01-01T00:00:00.000000Z");
    }
}
