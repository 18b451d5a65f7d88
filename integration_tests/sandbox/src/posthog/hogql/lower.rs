//! From syntax to typed expressions; whatever isn't known is refused by name.

use std::borrow::Cow;
use std::collections::HashMap;

use chrono_tz::Tz;
use sqlparser::ast::{
    BinaryOperator, DuplicateTreatment, Expr, Function as SqlFunction, FunctionArg, FunctionArgExpr,
    FunctionArgumentList, FunctionArguments, UnaryOperator, Value as SqlValue,
};
use uuid::Uuid;

use super::aggregate::{Aggregate, AggregateFunction};
use super::column::Column;
use super::expression::{Arithmetic, Comparison, Expression, Function, Node, Scope};
use super::operate::{arithmetic, folded, instant_of_day, interval};
use super::refusal::similar;
use super::schema::Schema;
use super::table::Source;
use super::value::{Kind, Value, day_of, parse_time};
use crate::posthog::error::ApiError;

pub(super) type Lowered = Result<Expression, ApiError>;

/// Turns the expressions of one query into typed ones.
pub(crate) struct Lowering<'s> {
    pub(crate) source: &'s Source,
    /// What the query calls its source.
    pub(crate) name: Option<String>,
    /// Zone in which columns are shown.
    pub(crate) shown: Tz,
    /// Zone in which literals without a zone are read.
    pub(crate) literals: Tz,
    pub(crate) now: i64,
    pub(crate) schema: Schema,
    pub(crate) aliases: HashMap<String, Expression>,
    pub(crate) aggregates: Vec<Aggregate>,
}

impl Lowering<'_> {
    pub(crate) fn expression(&mut self, expr: &Expr) -> Lowered {
        match expr {
            Expr::Nested(inner) => self.expression(inner),
            Expr::Identifier(name) => self.column(&name.value),
            Expr::CompoundIdentifier(parts) => {
                let parts: Vec<&str> = parts.iter().map(|part| part.value.as_str()).collect();
                match parts.split_first() {
                    Some((first, rest)) if !rest.is_empty() && self.name.as_deref() == Some(*first) => self.path(rest),
                    _ => self.path(&parts),
                }
            }
            Expr::Interval(by) => interval(by, self.expression(&by.value)?),
            Expr::Value(value) => literal(&value.value),
            Expr::UnaryOp { op: UnaryOperator::Minus, expr } => negative(self.expression(expr)?),
            Expr::UnaryOp { op: UnaryOperator::Not, expr } => {
                let [item] = operands("not", [self.expression(expr)?])?;
                Ok(condition(Node::Not(Box::new(item))))
            }
            Expr::Tuple(items) => self.tuple(items),
            Expr::IsNull(item) => self.is_null(item, false),
            Expr::IsNotNull(item) => self.is_null(item, true),
            Expr::InList { expr, list, negated } => self.in_list(expr, list, *negated),
            Expr::BinaryOp { left, op, right } => self.binary(left, op, right),
            Expr::Function(function) => self.function(function),
            other => Err(ApiError::unsupported(format_args!("the expression `{other}`"))),
        }
    }

    fn column(&self, name: &str) -> Lowered {
        // As in HogQL, an alias hides the column of the same name.
        match self.aliases.get(name) {
            Some(aliased) => Ok(aliased.clone()),
            None => self.stored(name),
        }
    }

    /// A column of the source, whatever has its name as an alias.
    pub(super) fn stored(&self, name: &str) -> Lowered {
        let (column, kind, nullable) =
            self.source.find(name, self.shown, self.schema).ok_or_else(|| self.unresolved(name))?;
        Ok(Expression { node: Node::Column(column), kind, nullable })
    }

    /// A column, or a property of the object whose JSON text a column holds.
    fn path(&self, parts: &[&str]) -> Lowered {
        let whole = parts.join(".");
        if parts.len() < 2 || self.source.find(&whole, self.shown, self.schema).is_some() {
            return self.stored(&whole);
        }
        for length in (1..parts.len()).rev() {
            let (head, keys) = parts.split_at(length);
            let Some((column, kind, _)) = self.source.find(&head.join("."), self.shown, self.schema) else { continue };
            if !self.source.is_object(column) {
                let (key, head) = (keys.join("."), head.join("."));
                let detail = format!("Can not access property \"{key}\" on field \"{head}\".");
                return Err(ApiError::refused(detail, Vec::new()));
            }
            let keys = keys.iter().map(|key| (*key).to_owned()).collect();
            let column = Expression { node: Node::Column(column), kind, nullable: false };
            let node = Node::Call(Function::Property(keys), vec![column]);
            return Ok(Expression { node, kind: Kind::Text, nullable: true });
        }
        Err(self.unresolved(parts.first().copied().unwrap_or_default()))
    }

    fn unresolved(&self, name: &str) -> ApiError {
        let known = match self.source {
            Source::Table(table) => Column::known(*table, self.schema),
            Source::Query(_) => self.source.asterisk(self.schema),
        };
        ApiError::refused(format!("Unable to resolve field: {name}"), similar(name, &known))
    }

    fn tuple(&mut self, items: &[Expr]) -> Lowered {
        let items = items.iter().map(|item| self.expression(item)).collect::<Result<Vec<_>, _>>()?;
        Ok(tuple(items))
    }

    fn is_null(&mut self, item: &Expr, negated: bool) -> Lowered {
        Ok(condition(Node::IsNull { item: Box::new(self.expression(item)?), negated }))
    }

    fn in_list(&mut self, item: &Expr, list: &[Expr], negated: bool) -> Lowered {
        let item = self.expression(item)?;
        let mut values = Vec::with_capacity(list.len());
        for each in list {
            let each = self.expression(each)?;
            let (_, each) = self.comparable(&item, &each)?;
            let Some(value) = constant(&each) else {
                return Err(ApiError::unsupported("IN with anything but literals"));
            };
            values.push(value);
        }
        Ok(condition(Node::In { item: Box::new(item), list: values, negated }))
    }

    fn binary(&mut self, left: &Expr, op: &BinaryOperator, right: &Expr) -> Lowered {
        let comparison = match op {
            BinaryOperator::And | BinaryOperator::Or => {
                let is_and = *op == BinaryOperator::And;
                let both = [self.expression(left)?, self.expression(right)?];
                let both = operands(if is_and { "and" } else { "or" }, both)?.into();
                return Ok(condition(if is_and { Node::All(both) } else { Node::Any(both) }));
            }
            BinaryOperator::Eq => Comparison::Equal,
            BinaryOperator::NotEq => Comparison::NotEqual,
            BinaryOperator::Lt => Comparison::Less,
            BinaryOperator::LtEq => Comparison::LessOrEqual,
            BinaryOperator::Gt => Comparison::Greater,
            BinaryOperator::GtEq => Comparison::GreaterOrEqual,
            other => {
                let operator = match other {
                    BinaryOperator::Plus => Arithmetic::Plus,
                    BinaryOperator::Minus => Arithmetic::Minus,
                    BinaryOperator::Multiply => Arithmetic::Multiply,
                    BinaryOperator::Divide => Arithmetic::Divide,
                    _ => return Err(ApiError::unsupported(format_args!("the operator `{other}`"))),
                };
                return arithmetic(operator, self.expression(left)?, self.expression(right)?);
            }
        };
        let (left, right) = (self.expression(left)?, self.expression(right)?);
        let (left, right) = self.comparable(&left, &right)?;
        Ok(condition(Node::Compare(comparison, Box::new(left), Box::new(right))))
    }

    /// Gives both sides the same type; ClickHouse reads a text literal as whatever it is compared with.
    fn comparable(&self, left: &Expression, right: &Expression) -> Result<(Expression, Expression), ApiError> {
        if let (Node::Tuple(lefts), Node::Tuple(rights)) = (&left.node, &right.node)
            && lefts.len() == rights.len()
        {
            let pairs = lefts.iter().zip(rights).map(|(left, right)| self.comparable(left, right));
            let (lefts, rights): (Vec<_>, Vec<_>) = pairs.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
            return Ok((tuple(lefts), tuple(rights)));
        }
        let (left, right) = (self.adapted(left.clone(), &right.kind)?, self.adapted(right.clone(), &left.kind)?);
        let (kinds, zone) = ((left.kind.clone(), right.kind.clone()), self.literals);
        let (left, right) = (instant_of_day(left, &kinds.1, zone), instant_of_day(right, &kinds.0, zone));
        if left.kind.comparable(&right.kind) {
            return Ok((left, right));
        }
        let detail =
            format!("Illegal types of arguments ({}, {}) of a comparison", left.kind.name(), right.kind.name());
        Err(ApiError::code("illegal_type_of_argument", detail))
    }

    pub(super) fn adapted(&self, literal: Expression, wanted: &Kind) -> Lowered {
        match (&literal.node, wanted) {
            (Node::Literal(Value::Text(text)), Kind::Time(..)) => {
                let micros = time(text, self.literals)?;
                Ok(Expression::literal(Value::Time(micros), wanted.clone()))
            }
            (Node::Literal(Value::Text(text)), Kind::Uuid) => {
                Ok(Expression::literal(Value::Uuid(uuid(text)?), Kind::Uuid))
            }
            (Node::Literal(Value::Text(text)), Kind::Date) => Ok(Expression::literal(day(text)?, Kind::Date)),
            (Node::Literal(Value::Text(text)), Kind::Integer(_)) => {
                let number = text.parse::<i64>().map_err(|_| {
                    ApiError::code("type_mismatch", format!("Cannot convert string '{text}' to type {}", wanted.name()))
                })?;
                Ok(Expression::literal(Value::Integer(number.into()), wanted.clone()))
            }
            _ => Ok(literal),
        }
    }

    fn function(&mut self, function: &SqlFunction) -> Lowered {
        let name = function.name.to_string();
        let FunctionArguments::List(FunctionArgumentList { duplicate_treatment, args, clauses }) = &function.args
        else {
            return Err(ApiError::unsupported(format_args!("this form of `{name}`")));
        };
        let plain = SqlFunction { args: function.args.clone(), ..bare(function) };
        if plain != *function || !clauses.is_empty() {
            return Err(ApiError::unsupported(format_args!("a clause of `{function}`")));
        }
        let mut arguments = Vec::with_capacity(args.len());
        for argument in args {
            match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => arguments.push(self.expression(expr)?),
                FunctionArg::Unnamed(FunctionArgExpr::Wildcard) if name.eq_ignore_ascii_case("count") => {}
                other => return Err(ApiError::unsupported(format_args!("the argument `{other}` of `{name}`"))),
            }
        }
        let distinct = match duplicate_treatment {
            None => false,
            Some(DuplicateTreatment::Distinct) if name.eq_ignore_ascii_case("count") => true,
            Some(_) => return Err(ApiError::unsupported(format_args!("DISTINCT or ALL in `{name}`"))),
        };
        if let Some((function, conditional)) = AggregateFunction::find(&name, distinct) {
            return self.aggregate(&name, function, conditional, arguments);
        }
        Ok(folded(self.call(&name, arguments)?))
    }
}

/// The call without any of the clauses that other dialects allow.
fn bare(function: &SqlFunction) -> SqlFunction {
    SqlFunction {
        name: function.name.clone(),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::None,
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    }
}

fn literal(value: &SqlValue) -> Lowered {
    match value {
        SqlValue::SingleQuotedString(text) => {
            Ok(Expression::literal(Value::Text(Cow::Owned(text.clone())), Kind::Text))
        }
        SqlValue::Number(text, _) => {
            if let Ok(number) = text.parse::<i64>() {
                return Ok(Expression::literal(Value::Integer(number.into()), Kind::Integer("Int64")));
            }
            let fraction = text.parse().ok().filter(|_| text.contains('.'));
            let number = fraction.ok_or_else(|| ApiError::unsupported(format_args!("the number {text}")))?;
            Ok(Expression::literal(Value::Float(number), Kind::Float))
        }
        SqlValue::Boolean(value) => Ok(Expression::literal(Value::Integer((*value).into()), Kind::Integer("Bool"))),
        SqlValue::Null => Ok(Expression::literal(Value::Null, Kind::Null)),
        other => Err(ApiError::unsupported(format_args!("the literal {other}"))),
    }
}

fn negative(operand: Expression) -> Lowered {
    match operand.node {
        Node::Literal(Value::Integer(number)) => Ok(Expression::literal(Value::Integer(-number), operand.kind)),
        Node::Literal(Value::Float(number)) => Ok(Expression::literal(Value::Float(-number), operand.kind)),
        _ => Err(ApiError::unsupported("a minus before anything but a number")),
    }
}

fn constant(expression: &Expression) -> Option<Value<'static>> {
    expression.is_constant().then(|| expression.evaluate(Scope { row: None, aggregates: &[] }).into_owned())
}

pub(super) fn tuple(items: Vec<Expression>) -> Expression {
    let kind = Kind::Tuple(items.iter().map(|item| item.kind.clone()).collect());
    Expression { node: Node::Tuple(items), kind, nullable: false }
}

/// What a logical function takes: numbers, of which comparisons are some.
fn operands<const COUNT: usize>(function: &str, items: [Expression; COUNT]) -> Result<[Expression; COUNT], ApiError> {
    let is_number = |kind: &Kind| matches!(kind, Kind::Integer(_) | Kind::Float | Kind::Null);
    match items.iter().zip(1..).find(|(item, _)| !is_number(&item.kind)) {
        None => Ok(items),
        Some((item, number)) => {
            let name = item.kind.name();
            let detail = format!("Illegal type ({name}) of {number} argument of function {function}");
            Err(ApiError::code("illegal_type_of_argument", detail))
        }
    }
}

fn condition(node: Node) -> Expression {
    Expression { node, kind: Kind::Integer("UInt8"), nullable: false }
}

pub(super) fn time(text: &str, zone: Tz) -> Result<i64, ApiError> {
    parse_time(text, zone)
        .ok_or_else(|| ApiError::code("cannot_parse_datetime", format!("Cannot parse datetime: {text:?}")))
}

pub(super) fn day(text: &str) -> Result<Value<'static>, ApiError> {
    let day = parse_time(text, Tz::UTC).and_then(|micros| day_of(micros, Tz::UTC));
    day.map(Value::Date).ok_or_else(|| ApiError::code("cannot_parse_date", format!("Cannot parse date: {text:?}")))
}

pub(super) fn uuid(text: &str) -> Result<Uuid, ApiError> {
    Uuid::try_parse(text).map_err(|_| ApiError::code("cannot_parse_uuid", format!("Cannot parse uuid {text}")))
}

pub(super) fn wrong_number(name: &str) -> ApiError {
    ApiError::code("number_of_arguments_doesnt_match", format!("Number of arguments for function {name} doesn't match"))
}
