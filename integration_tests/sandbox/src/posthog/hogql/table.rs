//! The tables, their columns, and the rows that are read from them.

use std::borrow::Cow;

use chrono_tz::Tz;
use uuid::Uuid;

use super::select::Select;
use super::value::{Kind, Value};
use crate::posthog::sessions::Session;
use crate::posthog::store::{Event, Group, Person};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    Events,
    Persons,
    PersonDistinctIds,
    Groups,
    /// Members of cohorts that are computed.
    CohortPeople,
    /// The same with the columns that ClickHouse keeps them by.
    RawCohortPeople,
    /// Members of cohorts that were listed by hand.
    StaticCohortPeople,
    Sessions,
}

/// Tables of PostHog that aren't here.
const ABSENT: [&str; 9] = [
    "raw_persons",
    "raw_person_distinct_ids",
    "raw_sessions",
    "session_replay_events",
    "raw_session_replay_events",
    "log_entries",
    "heatmaps",
    "query_log",
    "numbers",
];

impl Table {
    pub(crate) fn find(name: &str) -> Option<Self> {
        Some(match name {
            "events" => Self::Events,
            "persons" => Self::Persons,
            "person_distinct_ids" => Self::PersonDistinctIds,
            "groups" | "raw_groups" => Self::Groups,
            "cohort_people" => Self::CohortPeople,
            "raw_cohort_people" => Self::RawCohortPeople,
            "static_cohort_people" => Self::StaticCohortPeople,
            "sessions" => Self::Sessions,
            _ => return None,
        })
    }

    /// Whether PostHog has a table of that name and this stand-in hasn't.
    pub(crate) fn is_absent(name: &str) -> bool {
        ABSENT.contains(&name) || name.starts_with("system.")
    }
}

/// Where a query reads its rows.
#[derive(Debug)]
pub(crate) enum Source {
    Table(Table),
    Query(Box<Select>),
}

impl Source {
    /// The column of that name, its type in `zone`, and whether it can be NULL.
    pub(crate) fn find(&self, name: &str, zone: Tz) -> Option<(Column, Kind, bool)> {
        match self {
            Self::Table(table) => Column::find(*table, name, zone),
            Self::Query(select) => {
                let index = select.outputs.iter().position(|output| output.name == name)?;
                let expression = &select.outputs.get(index)?.expression;
                Some((Column::Output(index), expression.kind.clone(), expression.nullable))
            }
        }
    }

    /// Whether a column holds the JSON text of an object whose properties can be addressed.
    pub(crate) fn is_object(&self, column: Column) -> bool {
        match (self, column) {
            (_, Column::Properties | Column::PersonProperties) => true,
            (Self::Query(select), Column::Output(index)) => select
                .outputs
                .get(index)
                .and_then(|output| output.expression.column())
                .is_some_and(|column| select.source.is_object(column)),
            _ => false,
        }
    }
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
    Index,
    Key,
    UpdatedAt,
    CohortId,
    One,
    Session(SessionColumn),
    /// Of a query in place of a table, by its position.
    Output(usize),
}

/// The columns of sessions that no other table has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionColumn {
    Start,
    End,
    Urls,
    UrlCount,
    EntryUrl,
    EntryPath,
    EndUrl,
    EndPath,
    Pageviews,
    Autocaptures,
    Screens,
    ChannelType,
    Duration,
    IsBounce,
    Campaign(usize),
}

impl Column {
    fn find(table: Table, name: &str, zone: Tz) -> Option<(Self, Kind, bool)> {
        let found = match table {
            Table::Events => return Self::of_events(name, zone).map(|(column, kind)| (column, kind, false)),
            Table::Persons => match name {
                "id" => (Self::Id, Kind::Uuid),
                "created_at" => (Self::CreatedAt, Kind::Time(3, zone)),
                "properties" => (Self::Properties, Kind::Text),
                "is_identified" => (Self::IsIdentified, Kind::Integer("Int8")),
                "last_seen_at" => return Some((Self::LastSeenAt, Kind::Time(3, zone), true)),
                _ => return None,
            },
            Table::PersonDistinctIds => match name {
                "distinct_id" => (Self::DistinctId, Kind::Text),
                "person_id" => (Self::PersonId, Kind::Uuid),
                _ => return None,
            },
            Table::Groups => match name {
                "index" => (Self::Index, Kind::Integer("UInt8")),
                "key" => (Self::Key, Kind::Text),
                "created_at" => (Self::CreatedAt, Kind::Time(3, zone)),
                "updated_at" => (Self::UpdatedAt, Kind::Time(6, zone)),
                "properties" => (Self::Properties, Kind::Text),
                _ => return None,
            },
            Table::CohortPeople | Table::StaticCohortPeople | Table::RawCohortPeople => match name {
                "person_id" => (Self::PersonId, Kind::Uuid),
                "cohort_id" => (Self::CohortId, Kind::Integer("Int64")),
                "sign" if table == Table::RawCohortPeople => (Self::One, Kind::Integer("Int8")),
                "version" if table == Table::RawCohortPeople => (Self::One, Kind::Integer("Int64")),
                _ => return None,
            },
            Table::Sessions => return Self::of_sessions(name, zone),
        };
        Some((found.0, found.1, false))
    }

    fn of_events(name: &str, zone: Tz) -> Option<(Self, Kind)> {
        Some(match name {
            "uuid" => (Self::Uuid, Kind::Uuid),
            "event" => (Self::Event, Kind::Text),
            "properties" => (Self::Properties, Kind::Text),
            "timestamp" => (Self::Timestamp, Kind::Time(6, zone)),
            "created_at" => (Self::CreatedAt, Kind::Time(6, zone)),
            "distinct_id" => (Self::DistinctId, Kind::Text),
            "elements_chain" => (Self::ElementsChain, Kind::Text),
            "person_id" | "person.id" => (Self::PersonId, Kind::Uuid),
            "person.properties" => (Self::PersonProperties, Kind::Text),
            "$session_id" => (Self::SessionId, Kind::Text),
            "$window_id" => (Self::WindowId, Kind::Text),
            "person_mode" => (Self::PersonMode, Kind::Text),
            group => {
                let index = group.strip_prefix("$group_")?.parse().ok().filter(|index| *index < 5)?;
                (Self::Group(index), Kind::Text)
            }
        })
    }

    fn of_sessions(name: &str, zone: Tz) -> Option<(Self, Kind, bool)> {
        use SessionColumn as Own;
        let campaign = |index| Some((Self::Session(Own::Campaign(index)), Kind::Text, true));
        let (column, kind) = match name {
            "session_id" | "id" => return Some((Self::SessionId, Kind::Text, false)),
            "distinct_id" => return Some((Self::DistinctId, Kind::Text, false)),
            "person_id" => return Some((Self::PersonId, Kind::Uuid, false)),
            "$entry_referring_domain" => return campaign(0),
            "$entry_utm_source" => return campaign(1),
            "$entry_utm_campaign" => return campaign(2),
            "$entry_utm_medium" => return campaign(3),
            "$entry_utm_term" => return campaign(4),
            "$entry_utm_content" => return campaign(5),
            "$start_timestamp" => (Own::Start, Kind::Time(6, zone)),
            "$end_timestamp" => (Own::End, Kind::Time(6, zone)),
            "$urls" => (Own::Urls, Kind::Array(Box::new(Kind::Text))),
            "$num_uniq_urls" => (Own::UrlCount, Kind::Integer("UInt64")),
            "$entry_current_url" => (Own::EntryUrl, Kind::Text),
            "$entry_pathname" => (Own::EntryPath, Kind::Text),
            "$end_current_url" => (Own::EndUrl, Kind::Text),
            "$end_pathname" => (Own::EndPath, Kind::Text),
            "$pageview_count" => (Own::Pageviews, Kind::Integer("UInt64")),
            "$autocapture_count" => (Own::Autocaptures, Kind::Integer("UInt64")),
            "$screen_count" => (Own::Screens, Kind::Integer("UInt64")),
            "$channel_type" => (Own::ChannelType, Kind::Text),
            "$session_duration" => (Own::Duration, Kind::Integer("Int64")),
            "$is_bounce" => (Own::IsBounce, Kind::Integer("UInt8")),
            _ => return None,
        };
        Some((Self::Session(column), kind, false))
    }
}

/// A row of any table.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Row<'a> {
    Event(&'a Event, Option<&'a Person>),
    Person(&'a Person),
    DistinctId(&'a str, Uuid),
    Group(&'a Group),
    CohortPerson(i64, Uuid),
    Session(&'a Session),
    /// Of a query in place of a table.
    Values(&'a [Value<'a>]),
}

impl<'a> Row<'a> {
    pub(crate) fn column(self, column: Column) -> Value<'a> {
        let value = match self {
            Row::Event(event, person) => of_event(event, person, column),
            Row::Person(person) => of_person(person, column),
            Row::Group(group) => of_group(group, column),
            Row::Session(session) => of_session(session, column),
            Row::DistinctId(distinct_id, person) => match column {
                Column::DistinctId => Some(text(distinct_id)),
                Column::PersonId => Some(Value::Uuid(person)),
                _ => None,
            },
            Row::CohortPerson(cohort, person) => match column {
                Column::CohortId => Some(Value::Integer(cohort)),
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

fn of_event<'a>(event: &'a Event, person: Option<&'a Person>, column: Column) -> Option<Value<'a>> {
    Some(match column {
        Column::Uuid => Value::Uuid(event.uuid),
        Column::Event => text(&event.event),
        Column::Properties => text(&event.properties),
        Column::Timestamp => Value::Time(event.timestamp),
        Column::CreatedAt => Value::Time(event.created_at),
        Column::DistinctId => text(&event.distinct_id),
        Column::ElementsChain => text(&event.elements_chain),
        Column::PersonId => Value::Uuid(event.person_id),
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
    let seconds = (session.end - session.start).div_euclid(1_000_000);
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
        Own::Urls => Value::Tuple(session.urls.iter().map(|url| text(url)).collect()),
        Own::UrlCount => Value::Integer(i64::try_from(session.urls.len()).unwrap_or(i64::MAX)),
        Own::EntryUrl => text(&session.entry_url),
        Own::EntryPath => text(&session.entry_path),
        Own::EndUrl => text(&session.end_url),
        Own::EndPath => text(&session.end_path),
        Own::Pageviews => Value::Integer(session.pageviews),
        Own::Autocaptures => Value::Integer(session.autocaptures),
        Own::Screens => Value::Integer(session.screens),
        Own::ChannelType => text("Direct"),
        Own::Duration => Value::Integer(seconds),
        Own::IsBounce => Value::Integer((session.events == 1).into()),
        Own::Campaign(index) => text(session.campaign.get(index)?.as_deref()?),
    })
}

/// Some times have milliseconds only.
fn millis(micros: i64) -> i64 {
    micros.div_euclid(1000) * 1000
}
