//! Calls of functions that look at one row.

use chrono_tz::Tz;

use super::expression::{Expression, Function, Node};
use super::lower::{Lowered, Lowering, day, time, tuple, uuid, wrong_number};
use super::operate::interval_function;
use super::value::{Kind, Value};
use crate::posthog::error::ApiError;

const KNOWN: [&str; 24] = [
    "concat",
    "toString",
    "toDateTime64",
    "toDateTime",
    "toUUID",
    "intDiv",
    "toUnixTimestamp",
    "toUnixTimestamp64Milli",
    "tuple",
    "toStartOfDay",
    "toStartOfHour",
    "toDate",
    "toFloat",
    "toInt",
    "now",
    "if",
    "multiIf",
    "toDayOfMonth",
    "toTimeZone",
    "right",
    "reverse",
    "unhex",
    "reinterpretAsUInt32",
    "cityHash64",
];

impl Lowering<'_> {
    pub(super) fn call(&self, name: &str, mut arguments: Vec<Expression>) -> Lowered {
        let first = arguments.first().map(|argument| argument.kind.clone());
        let nullable = arguments.iter().any(|argument| argument.nullable);
        let (function, kind) = match (name, first, arguments.len()) {
            ("tuple", _, 1..) => return Ok(tuple(arguments)),
            ("now", _, 0) => return Ok(instant(self.now.div_euclid(1_000_000) * 1_000_000, 0, self.shown)),
            ("toDateTime64", Some(Kind::Text), 2 | 3) => return self.date_time(name, &arguments, arguments.get(1)),
            ("toDateTime", Some(Kind::Text), 1 | 2) => return self.date_time(name, &arguments, None),
            (
                "toString",
                Some(Kind::Integer(_) | Kind::Float | Kind::Text | Kind::Uuid | Kind::Time(..) | Kind::Date),
                1,
            ) => (Function::ToString, Kind::Text),
            ("concat", Some(Kind::Text), 2..) if arguments.iter().all(|argument| argument.kind == Kind::Text) => {
                (Function::Concat, Kind::Text)
            }
            ("toDate", Some(Kind::Text), 1) => {
                let Some(Node::Literal(Value::Text(text))) = arguments.first().map(|argument| &argument.node) else {
                    return Err(ApiError::unsupported("`toDate` of a text that is no literal"));
                };
                return Ok(Expression::literal(day(text)?, Kind::Date));
            }
            ("toDate", Some(Kind::Time(..) | Kind::Date), 1) => (Function::ToDate, Kind::Date),
            ("toFloat", Some(Kind::Integer(_) | Kind::Float | Kind::Text), 1) => {
                return Ok(Expression {
                    node: Node::Call(Function::ToFloat, arguments),
                    kind: Kind::Float,
                    nullable: true,
                });
            }
            ("toInt", Some(Kind::Integer(_) | Kind::Float | Kind::Text), 1) => {
                return Ok(Expression {
                    node: Node::Call(Function::ToInteger, arguments),
                    kind: Kind::Integer("Int64"),
                    nullable: true,
                });
            }
            (name, Some(Kind::Integer(_)), 1) if interval_function(name).is_some() => {
                let unit = interval_function(name).ok_or_else(|| wrong_number(name))?;
                let [count] = <[Expression; 1]>::try_from(arguments).map_err(|_| wrong_number(name))?;
                return Ok(Expression { kind: Kind::Interval(unit), ..count });
            }
            ("toDateTime", Some(Kind::Time(_, zone)), 1) => (Function::ToSeconds, Kind::Time(0, zone)),
            ("toUUID", Some(Kind::Text), 1) => {
                if let Some(Node::Literal(Value::Text(text))) = arguments.first().map(|argument| &argument.node) {
                    return Ok(Expression::literal(Value::Uuid(uuid(text)?), Kind::Uuid));
                }
                (Function::ToUuid, Kind::Uuid)
            }
            ("toUUID", Some(Kind::Uuid), 1) => (Function::ToUuid, Kind::Uuid),
            ("intDiv", Some(Kind::Integer(_)), 2) if is_divisor(arguments.get(1)) => {
                (Function::IntDiv, Kind::Integer("Int64"))
            }
            ("toUnixTimestamp", Some(Kind::Time(..)), 1) => (Function::UnixSeconds, Kind::Integer("UInt32")),
            ("toUnixTimestamp64Milli", Some(Kind::Time(..)), 1) => (Function::UnixMillis, Kind::Integer("Int64")),
            ("toStartOfDay", Some(Kind::Time(_, zone)), 1) => (Function::StartOfDay, Kind::Time(0, zone)),
            ("toStartOfHour", Some(Kind::Time(_, zone)), 1) => (Function::StartOfHour, Kind::Time(0, zone)),
            ("toDayOfMonth", Some(Kind::Time(..) | Kind::Date), 1) => (Function::DayOfMonth, Kind::Integer("UInt8")),
            ("toTimeZone", Some(Kind::Time(digits, _)), 2) => {
                let [time, zone] = <[Expression; 2]>::try_from(arguments).map_err(|_| wrong_number(name))?;
                return Ok(Expression { kind: Kind::Time(digits, zone_of(&zone)?), ..time });
            }
            ("cityHash64", Some(_), 1..) => (Function::Hash, Kind::Integer("UInt64")),
            ("if", _, 3) => return branches(name, arguments),
            ("multiIf", _, 3..) if arguments.len() % 2 == 1 => return branches(name, arguments),
            ("right", Some(Kind::Text | Kind::Bytes), 2) => {
                let Some(Node::Literal(Value::Integer(count))) = arguments.get(1).map(|argument| &argument.node) else {
                    return Err(ApiError::unsupported("`right` by anything but a number"));
                };
                let count =
                    usize::try_from(*count).map_err(|_| ApiError::unsupported("`right` by less than nothing"))?;
                (Function::Right(count), Kind::Bytes)
            }
            ("reverse", Some(Kind::Text | Kind::Bytes), 1) => (Function::Reverse, Kind::Bytes),
            ("unhex", Some(Kind::Text | Kind::Bytes), 1) => (Function::Unhex, Kind::Bytes),
            ("reinterpretAsUInt32", Some(Kind::Text | Kind::Bytes), 1) => {
                (Function::ReinterpretUInt32, Kind::Integer("UInt32"))
            }
            (coalesce, Some(kind), 1..) if coalesce.eq_ignore_ascii_case("coalesce") => {
                for argument in arguments.iter_mut().skip(1) {
                    *argument = self.adapted(argument.clone(), &kind)?;
                    if !kind.comparable(&argument.kind) {
                        let detail =
                            format!("There is no supertype for types {}, {}", kind.name(), argument.kind.name());
                        return Err(ApiError::code("no_common_type", detail));
                    }
                }
                let nullable = arguments.iter().all(|argument| argument.nullable);
                return Ok(Expression { node: Node::Call(Function::Coalesce, arguments), kind, nullable });
            }
            (known, _, _) if KNOWN.contains(&known) => {
                let kinds = arguments.iter().map(|argument| argument.kind.name()).collect::<Vec<_>>().join(", ");
                return Err(ApiError::code(
                    "illegal_type_of_argument",
                    format!("Illegal number or types of arguments of function {known}: ({kinds})"),
                ));
            }
            (unknown, _, _) => return Err(ApiError::unsupported(format_args!("the function `{unknown}`"))),
        };
        Ok(Expression { node: Node::Call(function, arguments), kind, nullable })
    }

    /// `toDateTime64(text, digits[, zone])` and `toDateTime(text[, zone])`.
    fn date_time(&self, name: &str, arguments: &[Expression], digits: Option<&Expression>) -> Lowered {
        let Some(Node::Literal(Value::Text(text))) = arguments.first().map(|argument| &argument.node) else {
            return Err(ApiError::unsupported(format_args!("`{name}` of anything but a literal")));
        };
        let digits = match digits.map(|digits| &digits.node) {
            None => 0,
            Some(Node::Literal(Value::Integer(digits @ 0..=6))) => u8::try_from(*digits).unwrap_or(6),
            Some(_) => return Err(ApiError::unsupported("a precision of toDateTime64 other than 0 to 6")),
        };
        let zone = arguments.get(if name == "toDateTime64" { 2 } else { 1 });
        let zone = match zone {
            None => self.literals,
            Some(zone) => zone_of(zone)?,
        };
        let unit = 10_i64.pow(6 - u32::from(digits));
        Ok(instant(time(text, zone)?.div_euclid(unit) * unit, digits, zone))
    }
}

/// `if` and `multiIf`: conditions with the values that they choose, and the value without any.
fn branches(name: &str, arguments: Vec<Expression>) -> Lowered {
    let (pairs, otherwise) = arguments.as_chunks::<2>();
    if let Some([condition, _]) = pairs.iter().find(|[condition, _]| !condition.kind.is_condition()) {
        let detail = format!("Illegal type {} of a condition of function {name}", condition.kind.name());
        return Err(ApiError::code("illegal_type_of_argument", detail));
    }
    let values: Vec<&Expression> = pairs.iter().map(|[_, value]| value).chain(otherwise).collect();
    let kind = values.first().map_or(Kind::Null, |first| first.kind.clone());
    let integers = values.iter().all(|value| matches!(value.kind, Kind::Integer(_)));
    let kind = match values.iter().find(|value| value.kind != kind) {
        None => kind,
        Some(_) if integers => Kind::Integer("Int64"),
        Some(other) => {
            let detail = format!("There is no supertype for types {}, {}", kind.name(), other.kind.name());
            return Err(ApiError::code("no_common_type", detail));
        }
    };
    let nullable = values.iter().any(|value| value.nullable);
    Ok(Expression { node: Node::Call(Function::MultiIf, arguments), kind, nullable })
}

fn zone_of(argument: &Expression) -> Result<Tz, ApiError> {
    let Node::Literal(Value::Text(zone)) = &argument.node else {
        return Err(ApiError::unsupported("a time zone that is no literal"));
    };
    zone.parse().map_err(|_| ApiError::code("bad_arguments", format!("Unknown time zone {zone:?}")))
}

fn instant(micros: i64, digits: u8, zone: Tz) -> Expression {
    Expression::literal(Value::Time(micros), Kind::Time(digits, zone))
}

fn is_divisor(argument: Option<&Expression>) -> bool {
    matches!(argument.map(|argument| &argument.node), Some(Node::Literal(Value::Integer(number))) if *number != 0)
}
