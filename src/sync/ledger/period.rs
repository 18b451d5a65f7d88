//! Days and months of event time.
//!
//! A period is a UTC day or a calendar month. Months are calendar months and not blocks of thirty days,
//! because a person reads the state, and because retention at `PostHog` and questions of users go by
//! them. The server needs no calendar of ours for it: a period is numbered by its first day, which
//! is the day of a row or that day less its day of month ([`hogql::period`](super::hogql::period)).

use std::fmt;
use std::str::FromStr;

use chrono::Datelike;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::time::{DAY, Timestamp};

/// A half-open range of UTC days, numbered since the epoch; negative before 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Days {
    /// First day inside.
    pub from: i64,
    /// First day after it.
    pub to: i64,
}

impl Days {
    /// All days that `DateTime64` can hold, and more: 1 March 0 to about the year 10,000.
    pub const ALL: Self = Self { from: -719_468, to: 2_932_896 };

    /// Every day with an instant of `[from, to)`, in part or as a whole.
    pub fn touched_by(from: Timestamp, to: Timestamp) -> Self {
        let to = if to >= Timestamp::MAX { Self::ALL.to } else { to.plus_micros(DAY - 1).day() };
        Self { from: from.day(), to }
    }

    /// Returns true if no day is inside.
    pub fn is_empty(self) -> bool {
        self.from >= self.to
    }

    /// Returns true if the day is inside.
    pub fn contains(self, day: i64) -> bool {
        self.from <= day && day < self.to
    }

    /// The numbers of the days inside.
    pub fn numbers(self) -> std::ops::Range<i64> {
        self.from..self.to
    }

    /// Returns true if every day of `other` is inside.
    pub fn contains_all(self, other: Self) -> bool {
        other.is_empty() || (self.from <= other.from && other.to <= self.to)
    }

    /// The days in both; may be empty.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self { from: self.from.max(other.from), to: self.to.min(other.to) }
    }

    /// The whole calendar months inside; may be empty.
    #[must_use]
    pub fn whole_months(self) -> Self {
        let month = Period::month_of(self.from);
        let from = if month.first() == self.from { self.from } else { month.days().to };
        Self { from, to: Period::month_of(self.to).first() }
    }
}

impl fmt::Display for Days {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.from == Self::ALL.from, self.to == Self::ALL.to) {
            (true, true) => formatter.write_str("all days"),
            (true, false) => write!(formatter, "days before {}", Period::day(self.to)),
            (false, true) => write!(formatter, "days from {}", Period::day(self.from)),
            (false, false) if self.to == self.from + 1 => write!(formatter, "{}", Period::day(self.from)),
            (false, false) => write!(formatter, "{} to {}", Period::day(self.from), Period::day(self.to - 1)),
        }
    }
}

/// A UTC day or a calendar month of event time. Ordered by first day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period {
    first: i64,
    month: bool,
}

impl Period {
    /// The day with this number since the epoch.
    pub fn day(day: i64) -> Self {
        Self { first: day, month: false }
    }

    /// The calendar month that this day is in.
    pub fn month_of(day: i64) -> Self {
        Self { first: day - i64::from(Timestamp::from_day(day).date().day0()), month: true }
    }

    /// The number of its first day since the epoch, by which the server names it.
    pub fn first(self) -> i64 {
        self.first
    }

    pub fn days(self) -> Days {
        // The 32nd day after the first of a month is always in the next month.
        let to = if self.month { Self::month_of(self.first + 31).first } else { self.first + 1 };
        Days { from: self.first, to }
    }

    /// Returns true if it is a month.
    pub fn is_month(self) -> bool {
        self.month
    }
}

impl fmt::Display for Period {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = Timestamp::from_day(self.first).date();
        write!(formatter, "{:04}-{:02}", first.year(), first.month())?;
        if self.month { Ok(()) } else { write!(formatter, "-{:02}", first.day()) }
    }
}

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let period = match text.len() {
            7 => Timestamp::parse(&format!("{text}-01")).map(|first| Self::month_of(first.day())),
            _ => Timestamp::parse(text).map(|first| Self::day(first.day())),
        };
        // Only the spelling that is written: another one would make two keys of one period.
        period
            .filter(|period| period.to_string() == text)
            .ok_or_else(|| format!("`{text}` is not a day such as 2026-11-24 or a month such as 2026-11"))
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Written as `["2026-11-01","2026-12-01"]`; `null` for a side without an end.
impl Serialize for Days {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let side = |day: i64, open: i64| (day != open).then(|| Period::day(day));
        (side(self.from, Self::ALL.from), side(self.to, Self::ALL.to)).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Days {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (from, to) = <(Option<Period>, Option<Period>)>::deserialize(deserializer)?;
        let side = |period: Option<Period>, open| period.map_or(open, Period::first);
        Ok(Self { from: side(from, Self::ALL.from), to: side(to, Self::ALL.to) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_period_is_read_as_it_is_written(day in -25_567_i64..130_000) {
            for period in [Period::day(day), Period::month_of(day)] {
                prop_assert_eq!(period.to_string().parse(), Ok(period));
                prop_assert!(period.days().contains(day));
            }
        }
    }

    #[test]
    fn days_before_1970_and_up_to_2299_have_a_period() {
        assert_eq!(Period::day(-1).to_string(), "1969-12-31");
        assert_eq!(Period::month_of(-1).to_string(), "1969-12");
        assert_eq!(Period::day(Timestamp::MAX.day()).to_string(), "2300-01-01");
        assert_eq!("1900-01-01".parse::<Period>().unwrap().first(), -25_567);
    }

    #[test]
    fn only_one_spelling_of_a_period_is_accepted() {
        for text in ["2026-1-01", "2026-11-24T00:00:00Z", "2026-13", "2026", "", "2026-02-30", "26-11-24"] {
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
    }
}
