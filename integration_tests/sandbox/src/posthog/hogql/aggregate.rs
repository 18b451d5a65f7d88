//! Aggregate functions: their calls, and what they make of the rows of a group.

use std::collections::BTreeSet;

use super::expression::{Arithmetic, Expression, Node};
use super::function::compute;
use super::lower::{Lowered, Lowering, tuple, wrong_number};
use super::select::has_aggregate;
use super::value::{Kind, Value};
use crate::posthog::error::ApiError;

/// An aggregate function and its argument.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Aggregate {
    pub(crate) function: AggregateFunction,
    pub(crate) argument: Option<Expression>,
    /// Only rows for which it holds are looked at.
    pub(crate) condition: Option<Expression>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AggregateFunction {
    Count,
    UniqExact,
    Min,
    Max,
    Sum,
    Average,
    /// The first value that comes along.
    Any,
    /// The last value of the greatest tuple.
    ArgMax,
    /// All values, in the order in which they come along.
    Array,
}

impl AggregateFunction {
    /// The function of that name, and whether its last argument is a condition.
    pub(super) fn find(name: &str, distinct: bool) -> Option<(Self, bool)> {
        let function = match name.to_ascii_lowercase().as_str() {
            "count" if distinct => Self::UniqExact,
            "count" => Self::Count,
            "min" => Self::Min,
            "max" => Self::Max,
            "sum" => Self::Sum,
            "avg" => Self::Average,
            "any" => Self::Any,
            _ => match name {
                "uniqExact" => Self::UniqExact,
                "argMax" => Self::ArgMax,
                "groupArray" => Self::Array,
                "countIf" => return Some((Self::Count, true)),
                "sumIf" => return Some((Self::Sum, true)),
                _ => return None,
            },
        };
        Some((function, false))
    }
}

impl Lowering<'_> {
    pub(super) fn aggregate(
        &mut self,
        name: &str,
        function: AggregateFunction,
        conditional: bool,
        mut arguments: Vec<Expression>,
    ) -> Lowered {
        if arguments.iter().any(has_aggregate) {
            let detail = format!("Aggregate function {name} is found inside another aggregate function");
            return Err(ApiError::code("illegal_aggregation", detail));
        }
        let condition = if conditional { Some(arguments.pop().ok_or_else(|| wrong_number(name))?) } else { None };
        if let Some(condition) = condition.as_ref().filter(|condition| !condition.kind.is_condition()) {
            return Err(illegal(name, &condition.kind));
        }
        if function == AggregateFunction::ArgMax {
            let [value, by] = <[Expression; 2]>::try_from(arguments).map_err(|_| wrong_number(name))?;
            if value.nullable {
                return Err(ApiError::unsupported("`argMax` of what may be NULL, which it leaves out"));
            }
            arguments = vec![tuple(vec![by, value])];
        }
        let argument = arguments.pop();
        if !arguments.is_empty() || (argument.is_none() && function != AggregateFunction::Count) {
            return Err(wrong_number(name));
        }
        let (kind, nullable) = match (function, &argument) {
            (AggregateFunction::Min | AggregateFunction::Max | AggregateFunction::Any, Some(argument)) => {
                (argument.kind.clone(), argument.nullable)
            }
            (AggregateFunction::ArgMax, Some(Expression { node: Node::Tuple(items), .. })) => {
                (items.last().map_or(Kind::Null, |value| value.kind.clone()), false)
            }
            (AggregateFunction::Sum | AggregateFunction::Average, Some(argument)) => {
                let kind = match &argument.kind {
                    Kind::Integer(_) | Kind::Float if function == AggregateFunction::Average => Kind::Float,
                    Kind::Integer(of) if of.starts_with('U') || *of == "Bool" => Kind::Integer("UInt64"),
                    Kind::Integer(_) => Kind::Integer("Int64"),
                    Kind::Float => Kind::Float,
                    other => return Err(illegal(name, other)),
                };
                (kind, argument.nullable)
            }
            (AggregateFunction::Array, Some(argument)) => (Kind::Array(Box::new(argument.kind.clone())), false),
            _ => (Kind::Integer("UInt64"), false),
        };
        let aggregate = Aggregate { function, argument, condition };
        let index = self.aggregates.iter().position(|known| *known == aggregate).unwrap_or_else(|| {
            self.aggregates.push(aggregate);
            self.aggregates.len() - 1
        });
        Ok(Expression { node: Node::Aggregate(index), kind, nullable })
    }
}

fn illegal(name: &str, kind: &Kind) -> ApiError {
    let detail = format!("Illegal type {} of argument for aggregate function {name}", kind.name());
    ApiError::code("illegal_type_of_argument", detail)
}

/// What an aggregate function has seen so far.
pub(super) enum State<'a> {
    Count(i128),
    Distinct(BTreeSet<Value<'a>>),
    Least(Option<Value<'a>>),
    Greatest(Option<Value<'a>>),
    First(Option<Value<'a>>),
    Sum(Option<Value<'a>>),
    Average(f64, f64),
    All(Vec<Value<'a>>),
}

impl<'a> State<'a> {
    pub(super) fn new(aggregate: &Aggregate) -> Self {
        match aggregate.function {
            AggregateFunction::Count => Self::Count(0),
            AggregateFunction::UniqExact => Self::Distinct(BTreeSet::new()),
            AggregateFunction::Min => Self::Least(None),
            AggregateFunction::Max | AggregateFunction::ArgMax => Self::Greatest(None),
            AggregateFunction::Any => Self::First(None),
            AggregateFunction::Average => Self::Average(0.0, 0.0),
            AggregateFunction::Sum => Self::Sum(None),
            AggregateFunction::Array => Self::All(Vec::new()),
        }
    }

    /// `value` is `None` for `count()`; NULL is never counted.
    pub(super) fn add(&mut self, value: Option<Value<'a>>) {
        let value = match value {
            Some(Value::Null) => return,
            value => value,
        };
        match (self, value) {
            (Self::Count(count), _) => *count += 1,
            (Self::Distinct(seen), Some(value)) => {
                seen.insert(value);
            }
            (Self::Least(least), Some(value)) => {
                if least.as_ref().is_none_or(|least| value < *least) {
                    *least = Some(value);
                }
            }
            (Self::Greatest(greatest), Some(value)) => {
                if greatest.as_ref().is_none_or(|greatest| value > *greatest) {
                    *greatest = Some(value);
                }
            }
            (Self::First(first), Some(value)) => {
                first.get_or_insert(value);
            }
            (Self::Sum(sum), Some(value)) => {
                *sum = Some(match sum {
                    Some(sum) => compute(Arithmetic::Plus, sum, &value),
                    None => value,
                });
            }
            (Self::Average(sum, count), Some(value)) => {
                *sum += value.number().unwrap_or_default();
                *count += 1.0;
            }
            (Self::All(values), Some(value)) => values.push(value),
            (_, None) => {}
        }
    }

    pub(super) fn finish(self, aggregate: &Aggregate) -> Value<'static> {
        match self {
            Self::Count(count) => Value::Integer(count),
            Self::Distinct(seen) => Value::Integer(i128::try_from(seen.len()).unwrap_or(i128::MAX)),
            Self::Average(sum, count) => Value::Float(sum / count),
            Self::Greatest(Some(Value::Tuple(mut items))) if aggregate.function == AggregateFunction::ArgMax => {
                items.pop().map_or(Value::Null, Value::into_owned)
            }
            Self::All(values) => Value::Tuple(values.into_iter().map(Value::into_owned).collect()),
            Self::Least(Some(value))
            | Self::Greatest(Some(value))
            | Self::First(Some(value))
            | Self::Sum(Some(value)) => value.into_owned(),
            // ClickHouse gives the type's default for no rows, 1970 for a time.
            Self::Least(None) | Self::Greatest(None) | Self::First(None) | Self::Sum(None) => {
                match aggregate.argument.as_ref() {
                    Some(argument) if !argument.nullable => argument.kind.default_value(),
                    _ => Value::Null,
                }
            }
        }
    }
}
