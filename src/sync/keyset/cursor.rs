//! Values of a keyset stream's cursor field.

use chrono::{Days, NaiveDate, TimeDelta};
use serde_json::Value;

use crate::streams::Kind;
use crate::time::Timestamp;

/// The value as an instant; `None` if it is not a time.
pub(crate) fn instant(value: &Value) -> Option<Timestamp> {
    Timestamp::parse_json(&value.to_string())
}

fn date(value: &Value) -> Option<NaiveDate> {
    NaiveDate::parse_from_str(value.as_str()?, "%Y-%m-%d").ok()
}

/// Whether a value is a time that has not come yet.
pub(crate) fn is_ahead(kind: Kind, value: &Value, now: Timestamp) -> bool {
    match kind {
        Kind::Timestamp => instant(value).is_some_and(|instant| instant > now),
        Kind::Date => date(value).is_some_and(|date| date > now.datetime().date_naive()),
        _ => false,
    }
}

/// A `HogQL` literal for a value; none when it is not of that kind.
pub(crate) fn literal(kind: Kind, value: &Value) -> Option<String> {
    before(kind, value, TimeDelta::zero(), Days::new(0))
}

/// A literal for where the next sync begins: shortly before the end of the last one, or the day before,
/// because of rows that are added late.
pub(crate) fn with_lookback(kind: Kind, value: &Value, lookback: TimeDelta) -> Option<String> {
    before(kind, value, lookback, Days::new(u64::try_from(lookback.num_days()).unwrap_or(0) + 1))
}

/// A literal for so much before a time, or so many days before a date.
fn before(kind: Kind, value: &Value, time: TimeDelta, days: Days) -> Option<String> {
    match kind {
        Kind::Timestamp => instant(value).map(|instant| instant.minus(time).literal()),
        Kind::Date => date(value)?.checked_sub_days(days).map(|date| format!("toDate('{date}')")),
        Kind::Integer => {
            value.as_i64().map(|number| number.to_string()).or_else(|| value.as_u64().map(|number| number.to_string()))
        }
        _ => None,
    }
}
