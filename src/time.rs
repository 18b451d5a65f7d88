//! Points in time as `PostHog` keeps them: UTC, microseconds.

use std::fmt;

use chrono::{DateTime, Days, NaiveDate, NaiveDateTime, NaiveTime, SecondsFormat, TimeDelta, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Microseconds of one day.
pub(crate) const DAY: i64 = 86_400_000_000;

/// An instant with the precision of `DateTime64(6, 'UTC')`.
///
/// Shown, and kept in states, as RFC 3339 with six fraction digits: `2026-11-01T00:00:00.000000Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// No event is older: where `DateTime64` begins, `1900-01-01`.
    pub const MIN: Self = Self(-2_208_988_800_000_000);
    /// Every event is older: where `DateTime64` ends, `2300-01-01`. PostHog moves later times to the last
    /// microsecond before it.
    pub const MAX: Self = Self(10_413_792_000_000_000);

    /// The local clock.
    pub fn now() -> Self {
        Self(Utc::now().timestamp_micros())
    }

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

    /// The first instant of a UTC day.
    pub fn from_date(date: NaiveDate) -> Self {
        Self(date.and_time(NaiveTime::MIN).and_utc().timestamp_micros())
    }

    /// Whether it is the first instant of a UTC day.
    pub(crate) fn is_midnight(self) -> bool {
        Self::from_day(self.day()) == self
    }

    /// The number of the UTC day since the epoch.
    pub fn day(self) -> i64 {
        self.0.div_euclid(DAY)
    }

    /// Reads the JSON text of an instant in any form in which `PostHog` has been seen to write one: a
    /// string as [`Timestamp::parse`] reads it, or a number of seconds, milliseconds or microseconds
    /// since the epoch, distinguished by size. (Arrow turns ClickHouse's `DateTime` into a number of seconds:
    /// `_inserted_at` and, on PostHog Cloud, `created_at` of exported persons.)
    pub fn parse_json(json: &str) -> Option<Self> {
        match json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            Some(text) => Self::parse(text).or_else(|| Self::parse_number(text)),
            None => Self::parse_number(json),
        }
    }

    /// Before the year 5138 a number of seconds is smaller than any number of milliseconds after 1973,
    /// and that smaller than any number of microseconds.
    fn parse_number(text: &str) -> Option<Self> {
        const MILLISECONDS_FROM: i64 = 100_000_000_000;
        const MICROSECONDS_FROM: i64 = 100_000_000_000_000;
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let number: i64 = whole.parse().ok()?;
        let to_micros = match number.checked_abs()? {
            0..MILLISECONDS_FROM => 1_000_000,
            MILLISECONDS_FROM..MICROSECONDS_FROM => 1_000,
            _ => 1,
        };
        let fraction = match fraction.get(..fraction.len().min(6)).unwrap_or_default() {
            "" => 0,
            digits_of => {
                let scale = 10_i64.pow(u32::try_from(digits_of.len()).ok()?);
                i64::from(digits(digits_of.as_bytes())?) * to_micros / scale
            }
        };
        let signed = if whole.starts_with('-') { -fraction } else { fraction };
        number.checked_mul(to_micros)?.checked_add(signed).map(Self)
    }

    /// Reads RFC 3339 with any offset (`Z`, `+00:00`, `+0000`), without one (UTC), or a plain date
    /// (midnight UTC).
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(instant) = Self::parse_utc(text.as_bytes()) {
            return Some(instant);
        }
        if let Ok(instant) = DateTime::parse_from_rfc3339(text) {
            return Some(Self(instant.timestamp_micros()));
        }
        // Airbyte's own connector writes `+0000` into its states; ClickHouse puts a space for the `T`.
        for form in ["%Y-%m-%dT%H:%M:%S%.f%z", "%Y-%m-%d %H:%M:%S%.f%z"] {
            if let Ok(instant) = DateTime::parse_from_str(text, form) {
                return Some(Self(instant.timestamp_micros()));
            }
        }
        for form in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"] {
            if let Ok(naive) = NaiveDateTime::parse_from_str(text, form) {
                return Some(Self(naive.and_utc().timestamp_micros()));
            }
        }
        let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
        Some(Self(date.and_hms_opt(0, 0, 0)?.and_utc().timestamp_micros()))
    }

    /// Reads the spelling that `PostHog` uses nearly always, such as `2026-01-31T12:00:00.5Z`, much
    /// faster than a general parser: it is done for every record.
    fn parse_utc(text: &[u8]) -> Option<Self> {
        let (fields, rest) = text.split_first_chunk::<19>()?;
        let separators = [fields[4], fields[7], fields[10], fields[13], fields[16]];
        if separators != *b"--T::" {
            return None;
        }
        let number = |from: usize, to: usize| digits(fields.get(from..to)?);
        let (fraction, zone) = match rest.split_first() {
            Some((b'.', rest)) => rest.split_at(rest.len().checked_sub(if rest.ends_with(b"Z") { 1 } else { 6 })?),
            _ => (&b"0"[..], rest),
        };
        if !matches!(zone, b"Z" | b"+00:00") || !(1..=6).contains(&fraction.len()) {
            return None;
        }
        let micros = digits(fraction)? * 10_u32.pow(6 - u32::try_from(fraction.len()).ok()?);
        let date = NaiveDate::from_ymd_opt(i32::try_from(number(0, 4)?).ok()?, number(5, 7)?, number(8, 10)?)?;
        let time = date.and_hms_micro_opt(number(11, 13)?, number(14, 16)?, number(17, 19)?, micros)?;
        Some(Self(time.and_utc().timestamp_micros()))
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

    pub fn datetime(self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.0).unwrap_or_default()
    }

    /// The UTC date.
    pub fn date(self) -> NaiveDate {
        self.datetime().date_naive()
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

/// At most nine decimal digits as a number.
fn digits(text: &[u8]) -> Option<u32> {
    text.iter().try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + u32::from(byte - b'0')))
}

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
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn fast_parser_agrees_with_chrono(
            text in "[0-2][0-9]{3}-[01][0-9]-[0-3][0-9][T ][0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{0,7})?(Z|[+]00:00|[+]02:00|z|)",
        ) {
            let general = DateTime::parse_from_rfc3339(&text).ok().map(|instant| instant.timestamp_micros());
            if let Some(fast) = Timestamp::parse_utc(text.as_bytes()) {
                prop_assert_eq!(Some(fast.micros()), general);
            }
        }
    }

    #[test]
    fn usual_notations_take_the_fast_path() {
        for text in ["2026-02-28T12:00:00Z", "2024-02-29T23:59:59.5Z", "2026-01-01T12:00:00.000001+00:00"] {
            assert_eq!(Timestamp::parse_utc(text.as_bytes()), Timestamp::parse(text), "{text}");
            assert!(Timestamp::parse_utc(text.as_bytes()).is_some(), "{text}");
        }
        for text in ["2026-02-29T12:00:00Z", "2026-01-01T12:00:00", "2026-01-01T12:00:00.Z", "", "2026-01-01T12:00:0:Z"]
        {
            assert_eq!(Timestamp::parse_utc(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn parsing_keeps_microseconds_and_applies_offsets() {
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
    fn every_form_of_an_instant_is_read() {
        for (json, expected) in [
            ("\"2026-11-01T12:00:00Z\"", "2026-11-01T12:00:00.000000Z"),
            ("\"2026-11-01T12:00:00.25+00:00\"", "2026-11-01T12:00:00.250000Z"),
            ("\"2026-11-01T07:00:00-05:00\"", "2026-11-01T12:00:00.000000Z"),
            ("\"2026-11-01T12:00:00+0000\"", "2026-11-01T12:00:00.000000Z"),
            ("\"2026-11-01T17:30:00.5+0530\"", "2026-11-01T12:00:00.500000Z"),
            ("\"2026-11-01T12:00:00\"", "2026-11-01T12:00:00.000000Z"),
            ("\"2026-11-01 12:00:00.123456\"", "2026-11-01T12:00:00.123456Z"),
            ("\"2026-11-01 12:00:00+00:00\"", "2026-11-01T12:00:00.000000Z"),
            ("1793534400", "2026-11-01T12:00:00.000000Z"),
            ("1793534400.5", "2026-11-01T12:00:00.500000Z"),
            ("1793534400123", "2026-11-01T12:00:00.123000Z"),
            ("1793534400123456", "2026-11-01T12:00:00.123456Z"),
            ("\"1793534400\"", "2026-11-01T12:00:00.000000Z"),
            ("0", "1970-01-01T00:00:00.000000Z"),
            ("-1.5", "1969-12-31T23:59:58.500000Z"),
        ] {
            assert_eq!(
                Timestamp::parse_json(json).map(|instant| instant.to_string()).as_deref(),
                Some(expected),
                "{json}"
            );
        }
        for json in ["null", "true", "\"\"", "{}", "[1]", "1e9", "99999999999999999999"] {
            assert_eq!(Timestamp::parse_json(json), None, "{json}");
        }
    }

    #[test]
    fn sql_literals_name_their_time_zone() {
        let instant = Timestamp::parse("2026-03-29T01:30:00.5Z").unwrap();
        assert_eq!(instant.literal(), "toDateTime64('2026-03-29 01:30:00.500000', 6, 'UTC')");
        assert_eq!(Timestamp::MIN.to_string(), "1900-01-01T00:00:00.000000Z");
        assert_eq!(Timestamp::MAX.to_string(), "2300-01-01T00:00:00.000000Z");
    }
}
