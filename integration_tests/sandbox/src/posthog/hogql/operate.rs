//! Arithmetic, dates and intervals: from syntax to typed expressions.

use chrono_tz::Tz;
use sqlparser::ast::{DateTimeField, Interval};

use super::expression::{Arithmetic, Expression, Function, Node, Scope};
use super::lower::Lowered;
use super::value::{Kind, Unit, Value};
use crate::posthog::error::ApiError;

/// Evaluates what doesn't depend on any row.
pub(super) fn folded(expression: Expression) -> Expression {
    if !expression.is_constant() || matches!(expression.node, Node::Literal(_) | Node::Tuple(_)) {
        return expression;
    }
    let value = expression.evaluate(Scope { row: None, aggregates: &[] }).into_owned();
    Expression::literal(value, expression.kind)
}

pub(super) fn call(function: Function, arguments: Vec<Expression>, kind: Kind) -> Expression {
    let nullable = arguments.iter().any(|argument| argument.nullable);
    folded(Expression { node: Node::Call(function, arguments), kind, nullable })
}

/// `left + right` and the like, of numbers or of a time and an interval.
pub(super) fn arithmetic(operator: Arithmetic, left: Expression, right: Expression) -> Lowered {
    let kind = match (&left.kind, &right.kind) {
        (Kind::Integer(left), Kind::Integer(right)) => {
            let unsigned = left.starts_with('U') && right.starts_with('U') && operator != Arithmetic::Minus;
            match operator {
                Arithmetic::Divide => Kind::Float,
                _ if unsigned => Kind::Integer("UInt64"),
                _ => Kind::Integer("Int64"),
            }
        }
        (Kind::Integer(_) | Kind::Float, Kind::Integer(_) | Kind::Float) => Kind::Float,
        (Kind::Time(..) | Kind::Date, Kind::Interval(_)) => return later(operator, left, right),
        (Kind::Interval(_), Kind::Time(..) | Kind::Date) if operator == Arithmetic::Plus => {
            return later(operator, right, left);
        }
        (left, right) => {
            let name = match operator {
                Arithmetic::Plus => "plus",
                Arithmetic::Minus => "minus",
                Arithmetic::Multiply => "multiply",
                Arithmetic::Divide => "divide",
            };
            let detail = format!("Illegal types {} and {} of arguments of function {name}", left.name(), right.name());
            return Err(ApiError::code("illegal_type_of_argument", detail));
        }
    };
    Ok(call(Function::Arithmetic(operator), vec![left, right], kind))
}

/// A time or a day, moved by an interval.
fn later(operator: Arithmetic, from: Expression, interval: Expression) -> Lowered {
    let Kind::Interval(unit) = interval.kind else { return Err(ApiError::unsupported("such an interval")) };
    let count = match operator {
        Arithmetic::Plus => interval,
        Arithmetic::Minus => {
            let zero = Expression::literal(Value::Integer(0), interval.kind.clone());
            let kind = interval.kind.clone();
            call(Function::Arithmetic(Arithmetic::Minus), vec![zero, interval], kind)
        }
        Arithmetic::Multiply | Arithmetic::Divide => {
            return Err(ApiError::unsupported("an interval as a factor"));
        }
    };
    if from.kind == Kind::Date && matches!(unit, Unit::Second | Unit::Minute | Unit::Hour) {
        return Err(ApiError::unsupported("a day moved by less than a day"));
    }
    let kind = from.kind.clone();
    Ok(call(Function::Shift(unit), vec![from, count], kind))
}

/// `INTERVAL 7 DAY`.
pub(super) fn interval(interval: &Interval, count: Expression) -> Lowered {
    let unit = match &interval.leading_field {
        Some(DateTimeField::Second | DateTimeField::Seconds) => Unit::Second,
        Some(DateTimeField::Minute | DateTimeField::Minutes) => Unit::Minute,
        Some(DateTimeField::Hour | DateTimeField::Hours) => Unit::Hour,
        Some(DateTimeField::Day | DateTimeField::Days) => Unit::Day,
        Some(DateTimeField::Week(None) | DateTimeField::Weeks) => Unit::Week,
        Some(DateTimeField::Month | DateTimeField::Months) => Unit::Month,
        Some(DateTimeField::Year | DateTimeField::Years) => Unit::Year,
        _ => return Err(ApiError::unsupported(format_args!("`{interval}`"))),
    };
    let plain = interval.leading_precision.is_none()
        && interval.last_field.is_none()
        && interval.fractional_seconds_precision.is_none();
    if !plain || !matches!(count.kind, Kind::Integer(_)) {
        return Err(ApiError::unsupported(format_args!("`{interval}`")));
    }
    Ok(Expression { kind: Kind::Interval(unit), ..count })
}

/// `toIntervalDay` and its like.
pub(super) fn interval_function(name: &str) -> Option<Unit> {
    Some(match name {
        "toIntervalSecond" => Unit::Second,
        "toIntervalMinute" => Unit::Minute,
        "toIntervalHour" => Unit::Hour,
        "toIntervalDay" => Unit::Day,
        "toIntervalWeek" => Unit::Week,
        "toIntervalMonth" => Unit::Month,
        "toIntervalYear" => Unit::Year,
        _ => return None,
    })
}

/// A day as the instant at which it begins, where it is compared with an instant.
pub(super) fn instant_of_day(expression: Expression, other: &Kind, zone: Tz) -> Expression {
    if expression.kind == Kind::Date && matches!(other, Kind::Time(..)) {
        return call(Function::Midnight(zone), vec![expression], Kind::Time(0, zone));
    }
    expression
}
