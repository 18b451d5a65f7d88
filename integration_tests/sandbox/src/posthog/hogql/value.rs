//! Values and their types, compared and written as ClickHouse does.

use std::borrow::Cow;
use std::cmp::Ordering;

use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeZone, Utc};
use chrono_tz::Tz;
use uuid::Uuid;

/// A value of one row.
#[derive(Debug, Clone)]
pub(crate) enum Value<'a> {
    Null,
    /// Of any of ClickHouse's types up to 64 bits.
    Integer(i128),
    Float(f64),
    Text(Cow<'a, str>),
    /// A text of ClickHouse that need not be UTF-8, in the middle of an expression.
    Bytes(Vec<u8>),
    Uuid(Uuid),
    /// Microseconds since 1970.
    Time(i64),
    /// Days since 1970.
    Date(i64),
    /// A tuple or an array.
    Tuple(Vec<Value<'a>>),
}

/// Units of time that intervals are counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
}

/// The type of an expression, known before any row is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    /// With ClickHouse's name for it.
    Integer(&'static str),
    Float,
    Text,
    Bytes,
    Uuid,
    /// Digits of the fraction, and the zone it is shown in.
    Time(u8, Tz),
    Date,
    /// A number of units, which only makes sense next to a time.
    Interval(Unit),
    Array(Box<Kind>),
    Tuple(Vec<Kind>),
}

impl Kind {
    /// The name that `types` shows.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Null => "Nullable(Nothing)".to_owned(),
            Self::Integer(name) => (*name).to_owned(),
            Self::Float => "Float64".to_owned(),
            Self::Text | Self::Bytes => "String".to_owned(),
            Self::Date => "Date".to_owned(),
            Self::Interval(unit) => format!("Interval{unit:?}"),
            Self::Array(item) => format!("Array({})", item.name()),
            Self::Uuid => "UUID".to_owned(),
            Self::Time(0, zone) => format!("DateTime('{zone}')"),
            Self::Time(digits, zone) => format!("DateTime64({digits}, '{zone}')"),
            Self::Tuple(items) => format!("Tuple({})", items.iter().map(Self::name).collect::<Vec<_>>().join(", ")),
        }
    }

    /// What ClickHouse puts where there is no value.
    pub(crate) fn default_value(&self) -> Value<'static> {
        match self {
            Self::Null => Value::Null,
            Self::Integer(_) | Self::Interval(_) => Value::Integer(0),
            Self::Float => Value::Float(0.0),
            Self::Date => Value::Date(0),
            Self::Array(_) => Value::Tuple(Vec::new()),
            Self::Text => Value::Text(Cow::Borrowed("")),
            Self::Bytes => Value::Bytes(Vec::new()),
            Self::Uuid => Value::Uuid(Uuid::nil()),
            Self::Time(..) => Value::Time(0),
            Self::Tuple(items) => Value::Tuple(items.iter().map(Self::default_value).collect()),
        }
    }

    /// Whether it is the type of a comparison.
    pub(crate) fn is_condition(&self) -> bool {
        matches!(self, Self::Integer("UInt8" | "Bool"))
    }

    /// Whether there are bytes in it, which nothing but a few functions can take.
    pub(crate) fn holds_bytes(&self) -> bool {
        match self {
            Self::Bytes => true,
            Self::Array(item) => item.holds_bytes(),
            Self::Tuple(items) => items.iter().any(Self::holds_bytes),
            _ => false,
        }
    }

    /// Whether values of both types can be compared without conversion.
    pub(crate) fn comparable(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, _)
            | (_, Self::Null)
            | (Self::Integer(_) | Self::Float, Self::Integer(_) | Self::Float)
            | (Self::Date, Self::Date)
            | (Self::Text, Self::Text)
            | (Self::Bytes, Self::Bytes)
            | (Self::Uuid, Self::Uuid)
            | (Self::Time(..), Self::Time(..)) => true,
            (Self::Tuple(left), Self::Tuple(right)) => {
                left.len() == right.len() && left.iter().zip(right).all(|(left, right)| left.comparable(right))
            }
            _ => false,
        }
    }
}

/// ClickHouse keeps a UUID as two halves and compares the second one first.
pub(crate) fn uuid_order(uuid: Uuid) -> u128 {
    uuid.as_u128().rotate_left(64)
}

#[expect(clippy::cast_precision_loss, reason = "what ClickHouse does when it compares both")]
fn float(integer: i128) -> f64 {
    integer as f64
}

impl PartialEq for Value<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Value<'_> {}

impl Ord for Value<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Integer(left), Self::Integer(right)) => left.cmp(right),
            (Self::Time(left), Self::Time(right)) | (Self::Date(left), Self::Date(right)) => left.cmp(right),
            (Self::Float(left), Self::Float(right)) => left.total_cmp(right),
            (Self::Integer(left), Self::Float(right)) => float(*left).total_cmp(right),
            (Self::Float(left), Self::Integer(right)) => left.total_cmp(&float(*right)),
            (Self::Text(left), Self::Text(right)) => left.as_bytes().cmp(right.as_bytes()),
            (Self::Bytes(left), Self::Bytes(right)) => left.cmp(right),
            (Self::Uuid(left), Self::Uuid(right)) => uuid_order(*left).cmp(&uuid_order(*right)),
            (Self::Tuple(left), Self::Tuple(right)) => left.cmp(right),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Value<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Value<'_> {
    /// NULL comes last; other mixtures don't pass the type check.
    fn rank(&self) -> u8 {
        match self {
            Self::Integer(_) | Self::Float(_) => 0,
            Self::Text(_) | Self::Bytes(_) => 1,
            Self::Uuid(_) => 2,
            Self::Time(_) => 3,
            Self::Date(_) => 4,
            Self::Tuple(_) => 5,
            Self::Null => 6,
        }
    }

    /// The value as a number with a fraction, if it is a number.
    pub(crate) fn number(&self) -> Option<f64> {
        match self {
            Self::Integer(value) => Some(float(*value)),
            Self::Float(value) => Some(*value),
            _ => None,
        }
    }

    /// The value in its type. As in ClickHouse, integers that don't fit start over.
    pub(crate) fn fitted(self, kind: &Kind) -> Self {
        match (self, kind) {
            (Self::Integer(number), Kind::Integer("UInt64")) => Self::Integer(number & i128::from(u64::MAX)),
            (Self::Integer(number), Kind::Integer("Int64")) => Self::Integer((number << 64) >> 64),
            (value, _) => value,
        }
    }

    pub(crate) fn into_owned(self) -> Value<'static> {
        match self {
            Self::Null => Value::Null,
            Self::Integer(value) => Value::Integer(value),
            Self::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
            Self::Bytes(bytes) => Value::Bytes(bytes),
            Self::Uuid(uuid) => Value::Uuid(uuid),
            Self::Time(micros) => Value::Time(micros),
            Self::Float(value) => Value::Float(value),
            Self::Date(days) => Value::Date(days),
            Self::Tuple(items) => Value::Tuple(items.into_iter().map(Value::into_owned).collect()),
        }
    }

    /// Appends the value as PostHog's renderer writes it.
    pub(crate) fn write_json(&self, kind: &Kind, out: &mut Vec<u8>) {
        match (self, kind) {
            (Self::Null, _) => out.extend_from_slice(b"null"),
            (Self::Integer(value), _) => out.extend_from_slice(value.to_string().as_bytes()),
            // No number is NULL, as for PostHog's renderer.
            (Self::Float(value), _) => out.extend_from_slice(serde_json::json!(value).to_string().as_bytes()),
            (Self::Date(days), _) => write_text(&date(*days), out),
            (Self::Text(text), _) => write_text(text, out),
            // Refused before any row is looked at.
            (Self::Bytes(bytes), _) => write_text(&String::from_utf8_lossy(bytes), out),
            (Self::Uuid(uuid), _) => {
                let mut buffer = Uuid::encode_buffer();
                out.push(b'"');
                out.extend_from_slice(uuid.hyphenated().encode_lower(&mut buffer).as_bytes());
                out.push(b'"');
            }
            (Self::Time(micros), Kind::Time(_, zone)) => write_text(&iso(*micros, *zone), out),
            (Self::Time(micros), _) => write_text(&iso(*micros, Tz::UTC), out),
            (Self::Tuple(items), kind) => {
                let kind_of = |index| match kind {
                    Kind::Tuple(kinds) => kinds.get(index).unwrap_or(&Kind::Null),
                    Kind::Array(item) => item,
                    _ => &Kind::Null,
                };
                out.push(b'[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    item.write_json(kind_of(index), out);
                }
                out.push(b']');
            }
        }
    }
}

/// Appends a JSON string. Runs without anything to escape are copied whole, which is what keeps
/// large pages quick in an unoptimised build.
fn write_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte < 0x20 || *byte == b'"' || *byte == b'\\') {
        let (plain, special) = rest.split_at(at);
        out.extend_from_slice(plain);
        match special.first() {
            Some(b'"') => out.extend_from_slice(b"\\\""),
            Some(b'\\') => out.extend_from_slice(b"\\\\"),
            Some(b'\n') => out.extend_from_slice(b"\\n"),
            Some(b'\r') => out.extend_from_slice(b"\\r"),
            Some(b'\t') => out.extend_from_slice(b"\\t"),
            Some(byte) => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            None => {}
        }
        rest = special.get(1..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// `2026-01-01T12:00:00.000001Z`, without the fraction if it is zero, with an offset outside UTC.
pub(crate) fn iso(micros: i64, zone: Tz) -> String {
    let Some(instant) = DateTime::from_timestamp_micros(micros) else { return String::new() };
    let fraction = if micros.rem_euclid(1_000_000) == 0 { "" } else { "%.6f" };
    if zone == Tz::UTC {
        instant.format(&format!("%Y-%m-%dT%H:%M:%S{fraction}Z")).to_string()
    } else {
        instant.with_timezone(&zone).format(&format!("%Y-%m-%dT%H:%M:%S{fraction}%:z")).to_string()
    }
}

/// `2026-01-01`.
pub(crate) fn date(days: i64) -> String {
    let date = i32::try_from(days).ok().and_then(NaiveDate::from_epoch_days);
    date.map_or_else(String::new, |date| date.to_string())
}

/// The day on which a time lies in `zone`.
pub(crate) fn day_of(micros: i64, zone: Tz) -> Option<i64> {
    let date = DateTime::from_timestamp_micros(micros)?.with_timezone(&zone).date_naive();
    Some(date.to_epoch_days().into())
}

/// The instant at which a day begins in `zone`.
pub(crate) fn midnight(days: i64, zone: Tz) -> Option<i64> {
    let date = NaiveDate::from_epoch_days(i32::try_from(days).ok()?)?;
    Some(local(date.and_hms_opt(0, 0, 0)?, zone))
}

/// What ClickHouse's `toString` makes of a time.
pub(crate) fn plain(micros: i64, digits: u8, zone: Tz) -> String {
    let Some(instant) = DateTime::from_timestamp_micros(micros) else { return String::new() };
    let fraction = match digits {
        0 => "",
        1..=3 => "%.3f",
        _ => "%.6f",
    };
    instant.with_timezone(&zone).format(&format!("%Y-%m-%d %H:%M:%S{fraction}")).to_string()
}

/// Reads a time; without a zone of its own it is meant in `zone`.
pub(crate) fn parse_time(text: &str, zone: Tz) -> Option<i64> {
    if let Ok(instant) = DateTime::parse_from_rfc3339(text) {
        return Some(instant.timestamp_micros());
    }
    let naive = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"]
        .iter()
        .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
        .or_else(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0))?;
    Some(local(naive, zone))
}

/// The instant of a wall clock reading: the first one if there are two, and as if the clock hadn't
/// jumped if there is none.
pub(crate) fn local(naive: NaiveDateTime, zone: Tz) -> i64 {
    let instant = zone.from_local_datetime(&naive).earliest().map(|local| local.with_timezone(&Utc));
    instant.unwrap_or_else(|| naive.and_utc()).timestamp_micros()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_compare_by_their_second_half() {
        let small_tail = Value::Uuid(Uuid::from_u128(0xffff_0000_0000_0000_0000_0000_0000_0001));
        let large_tail = Value::Uuid(Uuid::from_u128(0x0000_0000_0000_0000_0000_0000_0000_0002));
        assert!(small_tail < large_tail);
        let first_half = Value::Uuid(Uuid::from_u128(0x0000_0000_0000_0001_0000_0000_0000_0002));
        assert!(large_tail < first_half, "equal tails: the first half decides");
    }

    #[test]
    fn times_look_as_posthog_writes_them() {
        let micros = parse_time("2026-07-01 12:00:00.000120", Tz::UTC).unwrap();
        assert_eq!(iso(micros, Tz::UTC), "2026-07-01T12:00:00.000120Z");
        assert_eq!(iso(micros - 120, Tz::UTC), "2026-07-01T12:00:00Z");
        assert_eq!(iso(micros, Tz::Europe__Berlin), "2026-07-01T14:00:00.000120+02:00");
        assert_eq!(plain(micros, 6, Tz::UTC), "2026-07-01 12:00:00.000120");
        assert_eq!(parse_time("2026-07-01 14:00:00.00012", Tz::Europe__Berlin), Some(micros));
        assert_eq!(parse_time("2026-07-01T12:00:00.00012Z", Tz::Europe__Berlin), Some(micros));
        assert_eq!(parse_time("yesterday", Tz::UTC), None);
    }

    #[test]
    fn texts_survive_as_json() {
        for text in ["", "plain", "q\"b\\n\n\t\r\u{1}\u{7f}ñ🦔\u{2028}"] {
            let mut out = Vec::new();
            write_text(text, &mut out);
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }
}
