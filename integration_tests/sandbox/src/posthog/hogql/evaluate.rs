//! Runs a query over the rows of one project.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::aggregate::State;
use super::column::Column;
use super::expression::{Expression, Scope};
use super::row::{EventRow, Row};
use super::schema::PersonsOnEvents;
use super::select::{Select, is_timestamp};
use super::table::{Source, Table};
use super::value::Value;
use uuid::Uuid;

use crate::posthog::store::{Event, Tables};

/// The rows of an answer and what it took to find them.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) rows: Vec<Vec<Value<'a>>>,
    /// Rows in the range of timestamps that was looked at.
    pub(crate) rows_read: usize,
}

/// The first `limit` rows of the answer.
pub(crate) fn run<'a>(select: &'a Select, tables: &'a Tables, now: i64, limit: usize) -> Answer<'a> {
    match &select.source {
        Source::Table(Table::Events) => {
            let (found, rows_read) = events(select, tables, now, limit);
            Answer { rows: finish(select, found, limit), rows_read }
        }
        Source::Table(Table::Sessions) => {
            let sessions = tables.sessions(now);
            detach(answer(select, sessions.iter().map(Row::Session), limit))
        }
        Source::Table(Table::Persons) => {
            let mut persons: Vec<_> = tables.persons().map(AsRef::as_ref).collect();
            // A hash map has no order, and answers should repeat.
            persons.sort_by_key(|person| person.id);
            answer(select, persons.into_iter().map(Row::Person), limit)
        }
        Source::Table(Table::PersonDistinctIds) => {
            let rows =
                tables.distinct_ids().into_iter().map(|(distinct_id, person)| Row::DistinctId(distinct_id, person));
            answer(select, rows, limit)
        }
        Source::Table(Table::IngestionWarnings) => {
            answer(select, tables.ingestion_warnings.iter().map(Row::IngestionWarning), limit)
        }
        Source::Table(Table::RawPersons) => {
            let rows = tables.raw_persons();
            detach(answer(select, rows.iter().map(Row::RawPerson), limit))
        }
        Source::Table(Table::RawPersonDistinctIds) => {
            let rows = tables.raw_distinct_ids();
            detach(answer(select, rows.iter().map(Row::RawDistinctId), limit))
        }
        Source::Table(Table::Groups) => answer(select, tables.groups().map(Row::Group), limit),
        Source::Table(table @ (Table::CohortPeople | Table::RawCohortPeople | Table::StaticCohortPeople)) => {
            let listed = *table == Table::StaticCohortPeople;
            let cohorts = tables.cohorts.iter().filter(|(_, cohort)| cohort.is_static == listed);
            let people =
                cohorts.flat_map(|(id, cohort)| cohort.people.iter().map(|person| Row::CohortPerson(*id, *person)));
            answer(select, people, limit)
        }
        Source::Query(inner) => {
            let rows = run(inner, tables, now, inner.limit.unwrap_or(usize::MAX));
            let answer = answer(select, rows.rows.iter().map(|row| Row::Values(row)), limit);
            Answer { rows_read: rows.rows_read, ..detach(answer) }
        }
    }
}

fn answer<'a>(select: &'a Select, rows: impl Iterator<Item = Row<'a>>, limit: usize) -> Answer<'a> {
    let mut rows_read = 0;
    let found = rows.inspect(|_| rows_read += 1).filter(|row| matches(select, *row)).collect();
    Answer { rows: finish(select, found, limit), rows_read }
}

/// The answer without anything of the rows it was made from.
fn detach<'a>(answer: Answer<'_>) -> Answer<'a> {
    let rows = answer.rows.into_iter().map(|row| row.into_iter().map(Value::into_owned).collect()).collect();
    Answer { rows, rows_read: answer.rows_read }
}

fn finish<'a>(select: &'a Select, found: Vec<Row<'a>>, limit: usize) -> Vec<Vec<Value<'a>>> {
    match &select.groups {
        Some(groups) => grouped(select, groups, &found, limit),
        None => sorted(select, found, limit),
    }
}

fn matches(select: &Select, row: Row<'_>) -> bool {
    select.filter.as_ref().is_none_or(|filter| filter.holds(Scope { row: Some(row), aggregates: &[] }))
}

/// Matching events. If the query orders by timestamp, which is how they are stored, this stops
/// once there are enough of them.
fn events<'a>(select: &Select, tables: &'a Tables, now: i64, limit: usize) -> (Vec<Row<'a>>, usize) {
    let (from, to) = select.range();
    let range = tables.between(from.max(tables.hidden_before(now)), to);
    let with_person = select.reads(Column::PersonProperties);
    let first = select.order.first().filter(|(by, _)| is_timestamp(by));
    let stops = select.groups.is_none() && (select.order.is_empty() || first.is_some());
    let descending = first.is_some_and(|(_, descending)| *descending);
    let mut found = Vec::new();
    let mut last = None;
    for index in 0..range.len() {
        let Some(event) = range.get(if descending { range.len() - 1 - index } else { index }) else { break };
        if stops && found.len() >= limit && last != Some(event.timestamp) {
            break;
        }
        if event.visible_at.is_some_and(|at| at > now) {
            continue;
        }
        let mode = select.schema.persons_on_events;
        let person_id = person_of(event, tables, mode);
        let person = match mode {
            _ if !with_person => None,
            PersonsOnEvents::Joined | PersonsOnEvents::OverriddenIdJoinedProperties => tables.person(person_id),
            PersonsOnEvents::AsIngested | PersonsOnEvents::OverriddenIdOwnProperties => {
                tables.person_at_ingestion(event.person_id)
            }
        };
        let row = Row::Event(EventRow { event, person_id, person: person.map(AsRef::as_ref) });
        if matches(select, row) {
            last = Some(event.timestamp);
            found.push(row);
        }
    }
    (found, range.len())
}

/// The person that an event belongs to.
fn person_of(event: &Event, tables: &Tables, mode: PersonsOnEvents) -> Uuid {
    match mode {
        PersonsOnEvents::AsIngested => None,
        PersonsOnEvents::Joined => tables.owner(&event.distinct_id),
        _ => tables.person_override(&event.distinct_id),
    }
    .unwrap_or(event.person_id)
}

fn sorted<'a>(select: &'a Select, mut rows: Vec<Row<'a>>, limit: usize) -> Vec<Vec<Value<'a>>> {
    let scope = |row| Scope { row: Some(row), aggregates: &[] };
    rows.sort_by(|left, right| order(&select.order, |by| (by.evaluate(scope(*left)), by.evaluate(scope(*right)))));
    rows.truncate(limit);
    let output = |row| select.outputs.iter().map(|output| output.expression.evaluate(scope(row))).collect();
    rows.into_iter().map(output).collect()
}

fn order<'v>(
    expressions: &'v [(Expression, bool)],
    values: impl Fn(&'v Expression) -> (Value<'v>, Value<'v>),
) -> Ordering {
    for (by, descending) in expressions {
        let (left, right) = values(by);
        let order = compare(&left, &right, *descending);
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

/// NULL stays last in either direction.
fn compare(left: &Value<'_>, right: &Value<'_>, descending: bool) -> Ordering {
    let null = (*left == Value::Null).cmp(&(*right == Value::Null));
    let order = left.cmp(right);
    null.then(if descending { order.reverse() } else { order })
}

struct Group<'a> {
    sample: Option<Row<'a>>,
    states: Vec<State<'a>>,
}

fn grouped<'a>(select: &'a Select, groups: &'a [Expression], rows: &[Row<'a>], limit: usize) -> Vec<Vec<Value<'a>>> {
    let fresh = || select.aggregates.iter().map(State::new).collect::<Vec<_>>();
    let mut found: BTreeMap<Vec<Value<'_>>, Group<'_>> = BTreeMap::new();
    if groups.is_empty() {
        // Without keys there is always exactly one group.
        found.insert(Vec::new(), Group { sample: None, states: fresh() });
    }
    for row in rows {
        let scope = Scope { row: Some(*row), aggregates: &[] };
        let key = groups.iter().map(|key| key.evaluate(scope)).collect();
        let group = found.entry(key).or_insert_with(|| Group { sample: Some(*row), states: fresh() });
        for (aggregate, state) in select.aggregates.iter().zip(&mut group.states) {
            if aggregate.condition.as_ref().is_none_or(|condition| condition.holds(scope)) {
                state.add(aggregate.argument.as_ref().map(|argument| argument.evaluate(scope)));
            }
        }
    }
    let done: Vec<(Option<Row<'_>>, Vec<Value<'static>>)> = found
        .into_values()
        .map(|group| {
            let finished = group.states.into_iter().zip(&select.aggregates).map(|(state, of)| state.finish(of));
            (group.sample, finished.collect())
        })
        .collect();
    let mut results: Vec<(Vec<Value<'static>>, Vec<Value<'static>>)> = done
        .iter()
        .map(|(row, aggregates)| {
            let scope = Scope { row: *row, aggregates };
            let keys = select.order.iter().map(|(by, _)| by.evaluate(scope).into_owned()).collect();
            let outputs = select.outputs.iter().map(|output| output.expression.evaluate(scope).into_owned()).collect();
            (keys, outputs)
        })
        .collect();
    results.sort_by(|(left, _), (right, _)| {
        for ((left, right), (_, descending)) in left.iter().zip(right).zip(&select.order) {
            let order = compare(left, right, *descending);
            if order.is_ne() {
                return order;
            }
        }
        Ordering::Equal
    });
    results.truncate(limit);
    results.into_iter().map(|(_, outputs)| outputs).collect()
}
