//! Typed expressions: what a query computes from one row or one group.

use std::cmp::Ordering;

use chrono_tz::Tz;

use super::column::Column;
use super::function::call;
use super::row::Row;
use super::value::{Kind, Unit, Value};

/// An expression with its type.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Expression {
    pub(crate) node: Node,
    pub(crate) kind: Kind,
    pub(crate) nullable: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    Literal(Value<'static>),
    Column(Column),
    Tuple(Vec<Expression>),
    Call(Function, Vec<Expression>),
    Compare(Comparison, Box<Expression>, Box<Expression>),
    In {
        item: Box<Expression>,
        list: Vec<Value<'static>>,
        negated: bool,
    },
    IsNull {
        item: Box<Expression>,
        negated: bool,
    },
    All(Vec<Expression>),
    Any(Vec<Expression>),
    Not(Box<Expression>),
    /// The result of the aggregate function with this number.
    Aggregate(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }

    /// The same comparison with its sides exchanged.
    pub(crate) fn flipped(self) -> Self {
        match self {
            Self::Less => Self::Greater,
            Self::LessOrEqual => Self::GreaterOrEqual,
            Self::Greater => Self::Less,
            Self::GreaterOrEqual => Self::LessOrEqual,
            same => same,
        }
    }
}

/// Functions of the values in one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Function {
    ToString,
    /// To whole seconds.
    ToSeconds,
    ToUuid,
    ToFloat,
    ToInteger,
    ToDate,
    /// The instant at which a day begins, in this zone.
    Midnight(Tz),
    Coalesce,
    Concat,
    IntDiv,
    /// Condition, value, condition, value, and so on; at the end what there is otherwise.
    MultiIf,
    UnixSeconds,
    UnixMillis,
    StartOfDay,
    StartOfHour,
    DayOfMonth,
    /// So many bytes at the end.
    Right(usize),
    Reverse,
    Unhex,
    /// Of four bytes, the lowest one first.
    ReinterpretUInt32,
    /// Not the hash of ClickHouse, but one as good.
    Hash,
    Arithmetic(Arithmetic),
    /// So many units later than the first argument.
    Shift(Unit),
    /// The property at the end of this path.
    Property(Vec<String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    Plus,
    Minus,
    Multiply,
    Divide,
}

/// What an expression can look at: a row (of a group, any of its rows) and the aggregates.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scope<'a, 's> {
    pub(crate) row: Option<Row<'a>>,
    pub(crate) aggregates: &'s [Value<'static>],
}

impl Expression {
    pub(crate) fn literal(value: Value<'static>, kind: Kind) -> Self {
        let nullable = value == Value::Null;
        Self { node: Node::Literal(value), kind, nullable }
    }

    /// The column that it is, if it is nothing else.
    pub(crate) fn column(&self) -> Option<Column> {
        match self.node {
            Node::Column(column) => Some(column),
            _ => None,
        }
    }

    pub(crate) fn evaluate<'a>(&'a self, scope: Scope<'a, '_>) -> Value<'a> {
        match &self.node {
            Node::Literal(value) => value.clone(),
            Node::Column(column) => scope.row.map_or(Value::Null, |row| row.column(*column)),
            Node::Tuple(items) => Value::Tuple(items.iter().map(|item| item.evaluate(scope)).collect()),
            Node::Call(function, arguments) => call(function, arguments, scope).fitted(&self.kind),
            Node::Aggregate(index) => scope.aggregates.get(*index).cloned().unwrap_or(Value::Null).fitted(&self.kind),
            _ => Value::Integer(self.holds(scope).into()),
        }
    }

    /// The expression as a condition.
    pub(crate) fn holds(&self, scope: Scope<'_, '_>) -> bool {
        match &self.node {
            Node::Compare(comparison, left, right) => match compare(left, right, scope) {
                Some(order) => comparison.holds(order),
                // HogQL wraps comparisons so that NULL differs from everything and is never larger.
                None => *comparison == Comparison::NotEqual,
            },
            Node::In { item, list, negated } => list.contains(&item.evaluate(scope)) != *negated,
            Node::IsNull { item, negated } => (item.evaluate(scope) == Value::Null) != *negated,
            Node::All(items) => items.iter().all(|item| item.holds(scope)),
            Node::Any(items) => items.iter().any(|item| item.holds(scope)),
            Node::Not(item) => !item.holds(scope),
            _ => self.evaluate(scope) == Value::Integer(1),
        }
    }

    /// Whether anything in it depends on a row.
    pub(crate) fn is_constant(&self) -> bool {
        match &self.node {
            Node::Literal(_) => true,
            Node::Tuple(items) | Node::Call(_, items) => items.iter().all(Self::is_constant),
            _ => false,
        }
    }

    /// Whether it reads the column.
    pub(crate) fn reads(&self, column: Column) -> bool {
        match &self.node {
            Node::Column(own) => *own == column,
            Node::Literal(_) | Node::Aggregate(_) => false,
            Node::Tuple(items) | Node::Call(_, items) | Node::All(items) | Node::Any(items) => {
                items.iter().any(|item| item.reads(column))
            }
            Node::Compare(_, left, right) => left.reads(column) || right.reads(column),
            Node::In { item, .. } | Node::IsNull { item, .. } | Node::Not(item) => item.reads(column),
        }
    }
}

/// Compares two expressions, tuples item by item so that later items are only computed on a tie.
fn compare(left: &Expression, right: &Expression, scope: Scope<'_, '_>) -> Option<Ordering> {
    if let (Node::Tuple(lefts), Node::Tuple(rights)) = (&left.node, &right.node) {
        for (left, right) in lefts.iter().zip(rights) {
            let order = compare(left, right, scope)?;
            if order.is_ne() {
                return Some(order);
            }
        }
        return Some(Ordering::Equal);
    }
    match (left.evaluate(scope), right.evaluate(scope)) {
        (Value::Null, _) | (_, Value::Null) => None,
        (left, right) => Some(left.cmp(&right)),
    }
}
