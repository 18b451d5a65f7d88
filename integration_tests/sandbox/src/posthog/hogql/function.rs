//! What functions make of the values of one row.

use std::borrow::Cow;
use std::fmt;

use chrono::{DateTime, Datelike, Days, Months, NaiveDate, NaiveDateTime, Timelike};
use chrono_tz::Tz;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::bytes;
use super::expression::{Arithmetic, Expression, Function, Scope};
use super::value::{Kind, Unit, Value, date, day_of, local, midnight, plain};

pub(crate) fn call<'a>(function: &Function, arguments: &'a [Expression], scope: Scope<'a, '_>) -> Value<'a> {
    let value = |index: usize| arguments.get(index).map_or(Value::Null, |argument| argument.evaluate(scope));
    let (digits, zone) = match arguments.first().map(|argument| &argument.kind) {
        Some(Kind::Time(digits, zone)) => (*digits, *zone),
        _ => (0, Tz::UTC),
    };
    match (function, value(0)) {
        (Function::Coalesce, first) => {
            let rest = (1..arguments.len()).map(value);
            std::iter::once(first).chain(rest).find(|value| *value != Value::Null).unwrap_or(Value::Null)
        }
        (Function::MultiIf, _) => {
            let (branches, otherwise) = arguments.as_chunks::<2>();
            let chosen = branches.iter().find(|[condition, _]| condition.holds(scope)).map(|[_, value]| value);
            chosen.or(otherwise.first()).map_or(Value::Null, |chosen| chosen.evaluate(scope))
        }
        (Function::Hash, _) => {
            let values: Vec<Value<'_>> = (0..arguments.len()).map(value).collect();
            let (hash, _) = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{values:?}").as_bytes()).as_u64_pair();
            Value::Integer(hash.into())
        }
        (Function::Concat, _) => {
            let texts: Option<Vec<String>> = (0..arguments.len())
                .map(|index| match value(index) {
                    Value::Text(text) => Some(text.into_owned()),
                    _ => None,
                })
                .collect();
            texts.map_or(Value::Null, |texts| owned(texts.concat()))
        }
        (Function::Property(path), Value::Text(text)) => property(&text, path).map_or(Value::Null, owned),
        (Function::Arithmetic(arithmetic), left) => compute(*arithmetic, &left, &value(1)),
        (Function::Shift(unit), from) => match value(1) {
            Value::Integer(count) => shift(&from, *unit, count, zone).unwrap_or(Value::Null),
            _ => Value::Null,
        },
        (Function::ToFloat, Value::Text(text)) => text.trim().parse().map_or(Value::Null, Value::Float),
        (Function::ToFloat, number) => number.number().map_or(Value::Null, Value::Float),
        (Function::ToInteger, Value::Text(text)) => {
            text.trim().parse::<i64>().map_or(Value::Null, |number| Value::Integer(number.into()))
        }
        (Function::ToInteger, Value::Float(number)) => Value::Integer(truncated(number).into()),
        (Function::ToInteger, Value::Integer(number)) => Value::Integer(number),
        (Function::ToDate, Value::Time(micros)) => day_of(micros, zone).map_or(Value::Null, Value::Date),
        (Function::ToDate, date @ Value::Date(_)) => date,
        (Function::Midnight(zone), Value::Date(days)) => midnight(days, *zone).map_or(Value::Null, Value::Time),
        (Function::ToString, Value::Float(number)) => Value::Text(Cow::Owned(number.to_string())),
        (Function::ToString, Value::Date(days)) => Value::Text(Cow::Owned(date(days))),
        (Function::ToString, Value::Integer(number)) => Value::Text(Cow::Owned(number.to_string())),
        (Function::ToString, Value::Uuid(uuid)) => Value::Text(Cow::Owned(uuid.to_string())),
        (Function::ToString, Value::Time(micros)) => Value::Text(Cow::Owned(plain(micros, digits, zone))),
        (Function::ToString, text @ Value::Text(_)) => text,
        (Function::ToSeconds, Value::Time(micros)) => Value::Time(micros.div_euclid(1_000_000) * 1_000_000),
        (Function::ToUuid, Value::Text(text)) => Uuid::try_parse(&text).map_or(Value::Null, Value::Uuid),
        (Function::ToUuid, uuid @ Value::Uuid(_)) => uuid,
        (Function::IntDiv, Value::Integer(left)) => match value(1) {
            Value::Integer(right) => left.checked_div(right).map_or(Value::Null, Value::Integer),
            _ => Value::Null,
        },
        (Function::UnixSeconds, Value::Time(micros)) => Value::Integer(micros.div_euclid(1_000_000).into()),
        // A plain division in ClickHouse, which rounds towards 1970.
        (Function::UnixMillis, Value::Time(micros)) => Value::Integer((micros / 1000).into()),
        (Function::StartOfDay, Value::Time(micros)) => start_of(micros, zone, true),
        (Function::StartOfHour, Value::Time(micros)) => start_of(micros, zone, false),
        (Function::DayOfMonth, Value::Time(micros)) => day_of(micros, zone).map_or(Value::Null, day_of_month),
        (Function::DayOfMonth, Value::Date(days)) => day_of_month(days),
        (Function::Right(count), text) => bytes::of(text).map_or(Value::Null, |text| bytes::right(text, *count)),
        (Function::Reverse, text) => bytes::of(text).map_or(Value::Null, bytes::reversed),
        (Function::Unhex, text) => bytes::of(text).map_or(Value::Null, |text| bytes::unhex(&text)),
        (Function::ReinterpretUInt32, text) => bytes::of(text).map_or(Value::Null, |text| bytes::number(&text)),
        _ => Value::Null,
    }
}

fn day_of_month<'a>(days: i64) -> Value<'a> {
    let date = i32::try_from(days).ok().and_then(NaiveDate::from_epoch_days);
    date.map_or(Value::Null, |date| Value::Integer(date.day().into()))
}

fn start_of<'a>(micros: i64, zone: Tz, day: bool) -> Value<'a> {
    let Some(instant) = DateTime::from_timestamp_micros(micros) else { return Value::Null };
    let wall = instant.with_timezone(&zone).naive_local();
    let hour = if day { 0 } else { wall.hour() };
    wall.date().and_hms_opt(hour, 0, 0).map_or(Value::Null, |start| Value::Time(local(start, zone)))
}

fn owned<'a>(text: String) -> Value<'a> {
    Value::Text(Cow::Owned(text))
}

#[expect(clippy::cast_possible_truncation, reason = "what a conversion to an integer does")]
fn truncated(number: f64) -> i64 {
    number as i64
}

pub(super) fn compute<'a>(arithmetic: Arithmetic, left: &Value<'_>, right: &Value<'_>) -> Value<'a> {
    if let (Value::Integer(left), Value::Integer(right)) = (left, right) {
        // The lower half is right whatever is lost above it.
        match arithmetic {
            Arithmetic::Plus => return Value::Integer(left.wrapping_add(*right)),
            Arithmetic::Minus => return Value::Integer(left.wrapping_sub(*right)),
            Arithmetic::Multiply => return Value::Integer(left.wrapping_mul(*right)),
            Arithmetic::Divide => {}
        }
    }
    let (Some(left), Some(right)) = (left.number(), right.number()) else { return Value::Null };
    Value::Float(match arithmetic {
        Arithmetic::Plus => left + right,
        Arithmetic::Minus => left - right,
        Arithmetic::Multiply => left * right,
        Arithmetic::Divide => left / right,
    })
}

/// Days and longer units are those of the calendar in `zone`.
fn shift<'a>(from: &Value<'_>, unit: Unit, count: i128, zone: Tz) -> Option<Value<'a>> {
    let count = i64::try_from(count).ok()?;
    let seconds = match unit {
        Unit::Second => 1,
        Unit::Minute => 60,
        Unit::Hour => 3600,
        _ => 0,
    };
    match from {
        Value::Time(micros) if seconds > 0 => {
            Some(Value::Time(micros.checked_add(count.checked_mul(seconds)?.checked_mul(1_000_000)?)?))
        }
        Value::Time(micros) => {
            let wall = DateTime::from_timestamp_micros(*micros)?.with_timezone(&zone).naive_local();
            let date = shift_date(wall.date(), unit, count)?;
            Some(Value::Time(local(NaiveDateTime::new(date, wall.time()), zone)))
        }
        Value::Date(days) => {
            let date = NaiveDate::from_epoch_days(i32::try_from(*days).ok()?)?;
            Some(Value::Date(shift_date(date, unit, count)?.to_epoch_days().into()))
        }
        _ => None,
    }
}

fn shift_date(date: NaiveDate, unit: Unit, count: i64) -> Option<NaiveDate> {
    let (days, months) = match unit {
        Unit::Week => (7, 0),
        Unit::Month => (0, 1),
        Unit::Year => (0, 12),
        _ => (1, 0),
    };
    let (days, months) = (count.checked_mul(days)?, count.checked_mul(months)?);
    let (by_days, by_months) = (Days::new(days.unsigned_abs()), Months::new(months.unsigned_abs().try_into().ok()?));
    if count < 0 {
        date.checked_sub_months(by_months)?.checked_sub_days(by_days)
    } else {
        date.checked_add_months(by_months)?.checked_add_days(by_days)
    }
}

/// What HogQL makes of `properties.a.b`: `JSONExtractRaw` without its quotes, NULL if there is nothing.
fn property(text: &str, path: &[String]) -> Option<String> {
    let mut found = Cow::Borrowed(text);
    for key in path {
        let mut reader = serde_json::Deserializer::from_str(&found);
        let value = reader.deserialize_map(First(key)).ok()??;
        // As in ClickHouse, what follows has to be JSON as well.
        reader.end().ok()?;
        found = Cow::Owned(value.get().to_owned());
    }
    if let Ok(text) = serde_json::from_str::<String>(&found) {
        let quoted = serde_json::Value::from(text).to_string();
        let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or_default();
        return Some(inner.to_owned());
    }
    (found != "null").then(|| found.into_owned())
}

/// Finds the first value of a key.
struct First<'k>(&'k str);

impl<'de> Visitor<'de> for First<'_> {
    type Value = Option<Box<RawValue>>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            if found.is_none() && key == self.0 {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>().map_err(A::Error::custom)?;
            }
        }
        Ok(found)
    }
}
