//! One row of any table, and the values of its columns.

use std::borrow::Cow;

use uuid::Uuid;

use super::column::{Column, ElementsPart};
use super::session_column::{Empty, SessionColumn, SessionText};
use super::value::Value;
use crate::posthog::sessions::{Session, host};
use crate::posthog::store::{Event, Group, IngestionWarning, Person, RawDistinctId, RawPerson};

/// A row of any table.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Row<'a> {
    Event(EventRow<'a>),
    Person(&'a Person),
    DistinctId(&'a str, Uuid),
    RawPerson(&'a RawPerson),
    RawDistinctId(&'a RawDistinctId),
    Group(&'a Group),
    CohortPerson(i64, Uuid),
    Session(&'a Session),
    IngestionWarning(&'a IngestionWarning),
    /// Of a query in place of a table.
    Values(&'a [Value<'a>]),
}

/// An event, with what the query's mode says about its person.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EventRow<'a> {
    pub(crate) event: &'a Event,
    /// After merges.
    pub(crate) person_id: Uuid,
    /// The person whose properties are shown, if any are asked for.
    pub(crate) person: Option<&'a Person>,
}

impl<'a> Row<'a> {
    pub(crate) fn column(self, column: Column) -> Value<'a> {
        let value = match self {
            Row::Event(event) => of_event(event, column),
            Row::Person(person) => of_person(person, column),
            Row::Group(group) => of_group(group, column),
            Row::Session(session) => of_session(session, column),
            Row::IngestionWarning(warning) => match column {
                Column::Source => Some(text(&warning.source)),
                Column::Type => Some(text(&warning.kind)),
                Column::Details => Some(text(&warning.details)),
                Column::UpdatedAt => Some(Value::Time(warning.timestamp)),
                _ => None,
            },
            Row::DistinctId(distinct_id, person) => match column {
                Column::DistinctId => Some(text(distinct_id)),
                Column::PersonId => Some(Value::Uuid(person)),
                _ => None,
            },
            Row::RawPerson(row) => match column {
                Column::IsDeleted => Some(Value::Integer(row.is_deleted.into())),
                Column::Version => Some(Value::Integer(row.version.into())),
                _ => of_person(&row.person, column),
            },
            Row::RawDistinctId(row) => match column {
                Column::DistinctId => Some(text(&row.distinct_id)),
                Column::PersonId => Some(Value::Uuid(row.person)),
                Column::IsDeleted => Some(Value::Integer(row.is_deleted.into())),
                Column::Version => Some(Value::Integer(row.version.into())),
                _ => None,
            },
            Row::CohortPerson(cohort, person) => match column {
                Column::CohortId => Some(Value::Integer(cohort.into())),
                Column::PersonId => Some(Value::Uuid(person)),
                Column::One => Some(Value::Integer(1)),
                _ => None,
            },
            Row::Values(values) => match column {
                Column::Output(index) => values.get(index).cloned(),
                _ => None,
            },
        };
        // `Source::find` gives no column of another table.
        value.unwrap_or(Value::Null)
    }
}

fn text(text: &str) -> Value<'_> {
    Value::Text(Cow::Borrowed(text))
}

fn of_event(row: EventRow<'_>, column: Column) -> Option<Value<'_>> {
    let EventRow { event, person_id, person } = row;
    Some(match column {
        Column::Uuid => Value::Uuid(event.uuid),
        Column::Event => text(&event.event),
        Column::Properties => text(&event.properties),
        Column::Timestamp => Value::Time(event.timestamp),
        Column::CreatedAt => Value::Time(event.created_at),
        Column::DistinctId => text(&event.distinct_id),
        Column::ElementsChain => text(&event.elements_chain),
        Column::ElementsHref => text(quoted(&event.elements_chain, "href").next().unwrap_or_default()),
        Column::Elements(part) => Value::Tuple(elements(&event.elements_chain, part).into_iter().map(text).collect()),
        Column::PersonId => Value::Uuid(person_id),
        Column::EventPersonId => Value::Uuid(event.person_id),
        Column::PersonProperties => text(person.map_or("{}", |person| &person.properties)),
        Column::SessionId => text(&event.session_id),
        Column::WindowId => text(&event.window_id),
        Column::Group(index) => text(event.groups.get(index)?),
        Column::PersonMode => text(&event.person_mode),
        _ => return None,
    })
}

fn of_person(person: &Person, column: Column) -> Option<Value<'_>> {
    Some(match column {
        Column::Id => Value::Uuid(person.id),
        Column::CreatedAt => Value::Time(millis(person.created_at)),
        Column::Properties => text(&person.properties),
        Column::IsIdentified => Value::Integer(person.is_identified.into()),
        Column::LastSeenAt => Value::Time(millis(person.last_seen_at?)),
        _ => return None,
    })
}

fn of_group(group: &Group, column: Column) -> Option<Value<'_>> {
    Some(match column {
        Column::Index => Value::Integer(group.index.into()),
        Column::Key => text(&group.key),
        Column::CreatedAt => Value::Time(millis(group.created_at)),
        Column::UpdatedAt => Value::Time(group.updated_at),
        Column::Properties => text(&group.properties),
        _ => return None,
    })
}

fn of_session(session: &Session, column: Column) -> Option<Value<'_>> {
    use SessionColumn as Own;
    let own = match column {
        Column::SessionId => return Some(text(&session.id)),
        Column::DistinctId => return Some(text(&session.distinct_id)),
        Column::PersonId => return Some(Value::Uuid(session.person_id)),
        Column::Session(own) => own,
        _ => return None,
    };
    Some(match own {
        Own::Start => Value::Time(session.start),
        Own::End => Value::Time(session.end),
        Own::MaxInsertedAt => Value::Time(session.max_inserted_at),
        Own::Urls => Value::Tuple(session.urls.iter().map(|url| text(url)).collect()),
        Own::UrlCount => Value::Integer(i128::try_from(session.urls.len()).unwrap_or(i128::MAX)),
        Own::Text(which, empty) => {
            let value = match which {
                SessionText::EntryUrl => &session.entry_url,
                SessionText::EntryPath => &session.entry_path,
                SessionText::EntryHost => host(&session.entry_url),
                SessionText::EndUrl => &session.end_url,
                SessionText::EndPath => &session.end_path,
                SessionText::EndHost => host(&session.end_url),
                SessionText::LastExternalClick => &session.last_external_click,
            };
            if empty == Empty::Null && value.is_empty() { Value::Null } else { text(value) }
        }
        Own::Pageviews => Value::Integer(session.pageviews.into()),
        Own::Autocaptures => Value::Integer(session.autocaptures.into()),
        Own::Screens => Value::Integer(session.screens.into()),
        Own::CountUpToTwo => Value::Integer(session.count_up_to_two().into()),
        Own::ChannelType => text("Direct"),
        Own::Duration => Value::Integer(session.duration().into()),
        Own::IsBounce => Value::Integer(session.is_bounce().into()),
        Own::LargestPaint => Value::Float(session.largest_paint?),
        Own::Attribution(index) => text(session.attribution.get(index)?.as_deref()?),
        Own::HasAttribution(index) => Value::Integer(session.attribution.get(index)?.is_some().into()),
    })
}

/// The values of an attribute in a chain of elements.
fn quoted<'a>(chain: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let marker = format!("{name}=\"");
    let mut rest = chain;
    std::iter::from_fn(move || {
        let (_, tail) = rest.split_once(&marker)?;
        let (value, tail) = tail.split_once('"')?;
        rest = tail;
        Some(value)
    })
}

fn elements(chain: &str, part: ElementsPart) -> Vec<&str> {
    match part {
        ElementsPart::Texts => quoted(chain, "text").collect(),
        ElementsPart::Ids => quoted(chain, "attr_id").collect(),
        ElementsPart::Tags => {
            let tags = chain.split(';').map(|element| element.split(['.', ':']).next().unwrap_or_default());
            tags.filter(|tag| !tag.is_empty()).collect()
        }
    }
}

/// Some times have milliseconds only.
fn millis(micros: i64) -> i64 {
    micros.div_euclid(1000) * 1000
}
