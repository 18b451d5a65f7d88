//! Typed expressions: what a query computes from one row or one group.

use std::borrow::Cow;
use std::cmp::Ordering;

use chrono::{DateTime, Timelike};
use chrono_tz::Tz;
use uuid::Uuid;

use super::value::{Kind, Value, local, plain};
use crate::posthog::store::{Event, Person};

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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    ToString,
    /// To whole seconds.
    ToSeconds,
    ToUuid,
    Coalesce,
    IntDiv,
    UnixSeconds,
    UnixMillis,
    StartOfDay,
    StartOfHour,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    Events,
    Persons,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Column {
    Uuid,
    Event,
    Properties,
    Timestamp,
    CreatedAt,
    DistinctId,
    ElementsChain,
    PersonId,
    PersonProperties,
    SessionId,
    WindowId,
    Group(usize),
    PersonMode,
    Id,
    IsIdentified,
    LastSeenAt,
}

impl Column {
    /// The column of that name, its type in `zone`, and whether it can be NULL.
    pub(crate) fn find(table: Table, name: &str, zone: Tz) -> Option<(Self, Kind, bool)> {
        let found = match (table, name) {
            (Table::Events, "uuid") => (Self::Uuid, Kind::Uuid),
            (Table::Events, "event") => (Self::Event, Kind::Text),
            (Table::Events, "timestamp") => (Self::Timestamp, Kind::Time(6, zone)),
            (Table::Events, "created_at") => (Self::CreatedAt, Kind::Time(6, zone)),
            (Table::Events, "distinct_id") => (Self::DistinctId, Kind::Text),
            (Table::Events, "elements_chain") => (Self::ElementsChain, Kind::Text),
            (Table::Events, "person_id" | "person.id") => (Self::PersonId, Kind::Uuid),
            (Table::Events, "person.properties") => (Self::PersonProperties, Kind::Text),
            (Table::Events, "$session_id") => (Self::SessionId, Kind::Text),
            (Table::Events, "$window_id") => (Self::WindowId, Kind::Text),
            (Table::Events, "person_mode") => (Self::PersonMode, Kind::Text),
            (Table::Events, group) if group.starts_with("$group_") => {
                let index = group.strip_prefix("$group_")?.parse().ok().filter(|index| *index < 5)?;
                (Self::Group(index), Kind::Text)
            }
            (_, "properties") => (Self::Properties, Kind::Text),
            (Table::Persons, "id") => (Self::Id, Kind::Uuid),
            (Table::Persons, "created_at") => (Self::CreatedAt, Kind::Time(3, zone)),
            (Table::Persons, "is_identified") => (Self::IsIdentified, Kind::Integer("Int8")),
            (Table::Persons, "last_seen_at") => return Some((Self::LastSeenAt, Kind::Time(3, zone), true)),
            _ => return None,
        };
        Some((found.0, found.1, false))
    }
}

/// A row of either table.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Row<'a> {
    Event(&'a Event, Option<&'a Person>),
    Person(&'a Person),
}

impl<'a> Row<'a> {
    fn column(self, column: Column) -> Value<'a> {
        let text = |text: &'a str| Value::Text(Cow::Borrowed(text));
        match (self, column) {
            (Row::Event(event, _), Column::Uuid) => Value::Uuid(event.uuid),
            (Row::Event(event, _), Column::Event) => text(&event.event),
            (Row::Event(event, _), Column::Properties) => text(&event.properties),
            (Row::Event(event, _), Column::Timestamp) => Value::Time(event.timestamp),
            (Row::Event(event, _), Column::CreatedAt) => Value::Time(event.created_at),
            (Row::Event(event, _), Column::DistinctId) => text(&event.distinct_id),
            (Row::Event(event, _), Column::ElementsChain) => text(&event.elements_chain),
            (Row::Event(event, _), Column::PersonId) => Value::Uuid(event.person_id),
            (Row::Event(_, person), Column::PersonProperties) => text(person.map_or("{}", |person| &person.properties)),
            (Row::Event(event, _), Column::SessionId) => text(&event.session_id),
            (Row::Event(event, _), Column::WindowId) => text(&event.window_id),
            (Row::Event(event, _), Column::Group(index)) => text(event.groups.get(index).map_or("", String::as_str)),
            (Row::Event(event, _), Column::PersonMode) => text(&event.person_mode),
            (Row::Person(person), Column::Id) => Value::Uuid(person.id),
            (Row::Person(person), Column::CreatedAt) => Value::Time(millis(person.created_at)),
            (Row::Person(person), Column::Properties) => text(&person.properties),
            (Row::Person(person), Column::IsIdentified) => Value::Integer(person.is_identified.into()),
            (Row::Person(person), Column::LastSeenAt) => {
                person.last_seen_at.map_or(Value::Null, |at| Value::Time(millis(at)))
            }
            // `Column::find` gives no column of the other table.
            _ => Value::Null,
        }
    }
}

/// The persons table has milliseconds only.
fn millis(micros: i64) -> i64 {
    micros.div_euclid(1000) * 1000
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

    pub(crate) fn evaluate<'a>(&'a self, scope: Scope<'a, '_>) -> Value<'a> {
        match &self.node {
            Node::Literal(value) => value.clone(),
            Node::Column(column) => scope.row.map_or(Value::Null, |row| row.column(*column)),
            Node::Tuple(items) => Value::Tuple(items.iter().map(|item| item.evaluate(scope)).collect()),
            Node::Call(function, arguments) => call(*function, arguments, scope),
            Node::Aggregate(index) => scope.aggregates.get(*index).cloned().unwrap_or(Value::Null),
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

fn call<'a>(function: Function, arguments: &'a [Expression], scope: Scope<'a, '_>) -> Value<'a> {
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
        (Function::UnixSeconds, Value::Time(micros)) => Value::Integer(micros.div_euclid(1_000_000)),
        (Function::UnixMillis, Value::Time(micros)) => Value::Integer(micros.div_euclid(1000)),
        (Function::StartOfDay, Value::Time(micros)) => start_of(micros, zone, true),
        (Function::StartOfHour, Value::Time(micros)) => start_of(micros, zone, false),
        _ => Value::Null,
    }
}

fn start_of<'a>(micros: i64, zone: Tz, day: bool) -> Value<'a> {
    let Some(instant) = DateTime::from_timestamp_micros(micros) else { return Value::Null };
    let wall = instant.with_timezone(&zone).naive_local();
    let hour = if day { 0 } else { wall.hour() };
    wall.date().and_hms_opt(hour, 0, 0).map_or(Value::Null, |start| Value::Time(local(start, zone)))
}
