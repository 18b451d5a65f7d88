//! The columns of each table, by the schema of the instance.

use chrono_tz::Tz;

use super::schema::{PersonsOnEvents, Schema};
use super::session_column::SessionColumn;
use super::table::Table;
use super::value::Kind;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Column {
    Uuid,
    Event,
    Properties,
    Timestamp,
    CreatedAt,
    DistinctId,
    ElementsChain,
    ElementsHref,
    /// Values of one sort in the chain of elements.
    Elements(ElementsPart),
    /// After merges.
    PersonId,
    /// As stored with the event.
    EventPersonId,
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
    Type,
    Source,
    Details,
    One,
    IsDeleted,
    Version,
    Session(SessionColumn),
    /// Of a query in place of a table, by its position.
    Output(usize),
}

/// What can be read from a chain of elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ElementsPart {
    Texts,
    Ids,
    Tags,
}

impl Column {
    pub(super) fn find(table: Table, name: &str, zone: Tz, schema: Schema) -> Option<(Self, Kind, bool)> {
        let found = match table {
            Table::Events => return Self::of_events(name, zone, schema).map(|(column, kind)| (column, kind, false)),
            Table::Persons | Table::RawPersons => match name {
                "is_deleted" if table == Table::RawPersons => (Self::IsDeleted, Kind::Integer("Int8")),
                "version" if table == Table::RawPersons => (Self::Version, Kind::Integer("UInt64")),
                "id" => (Self::Id, Kind::Uuid),
                "created_at" => (Self::CreatedAt, Kind::Time(3, zone)),
                "properties" => (Self::Properties, Kind::Text),
                "is_identified" => (Self::IsIdentified, Kind::Integer("Int8")),
                "last_seen_at" if schema.person_last_seen_at => {
                    return Some((Self::LastSeenAt, Kind::Time(3, zone), true));
                }
                _ => return None,
            },
            Table::PersonDistinctIds | Table::RawPersonDistinctIds => match name {
                "is_deleted" if table == Table::RawPersonDistinctIds => (Self::IsDeleted, Kind::Integer("Int8")),
                "version" if table == Table::RawPersonDistinctIds => (Self::Version, Kind::Integer("Int64")),
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
            Table::IngestionWarnings => match name {
                "source" => (Self::Source, Kind::Text),
                "type" => (Self::Type, Kind::Text),
                "details" => (Self::Details, Kind::Text),
                "timestamp" => (Self::UpdatedAt, Kind::Time(6, zone)),
                _ => return None,
            },
            Table::Sessions => return SessionColumn::find(name, zone, schema.sessions),
        };
        Some((found.0, found.1, false))
    }

    fn of_events(name: &str, zone: Tz, schema: Schema) -> Option<(Self, Kind)> {
        use PersonsOnEvents::{AsIngested, OverriddenIdOwnProperties};
        let mode = schema.persons_on_events;
        let texts = || Kind::Array(Box::new(Kind::Text));
        Some(match name {
            "uuid" => (Self::Uuid, Kind::Uuid),
            "event" => (Self::Event, Kind::Text),
            "properties" => (Self::Properties, Kind::Text),
            "timestamp" => (Self::Timestamp, Kind::Time(6, zone)),
            "created_at" => (Self::CreatedAt, Kind::Time(6, zone)),
            "distinct_id" => (Self::DistinctId, Kind::Text),
            "elements_chain" => (Self::ElementsChain, Kind::Text),
            "elements_chain_href" => (Self::ElementsHref, Kind::Text),
            "elements_chain_texts" => (Self::Elements(ElementsPart::Texts), texts()),
            "elements_chain_ids" => (Self::Elements(ElementsPart::Ids), texts()),
            "elements_chain_elements" => (Self::Elements(ElementsPart::Tags), texts()),
            "person_id" | "person.id" if mode == AsIngested => (Self::EventPersonId, Kind::Uuid),
            "person_id" | "person.id" => (Self::PersonId, Kind::Uuid),
            "event_person_id" if mode.overrides() => (Self::EventPersonId, Kind::Uuid),
            "poe.id" if mode == OverriddenIdOwnProperties => (Self::PersonId, Kind::Uuid),
            "poe.id" => (Self::EventPersonId, Kind::Uuid),
            "person.properties" => (Self::PersonProperties, Kind::Text),
            "$session_id" => (Self::SessionId, Kind::Text),
            "$window_id" => (Self::WindowId, Kind::Text),
            "person_mode" if schema.event_person_mode => (Self::PersonMode, Kind::Text),
            group => {
                let index = group.strip_prefix("$group_")?.parse().ok().filter(|index| *index < 5)?;
                (Self::Group(index), Kind::Text)
            }
        })
    }

    /// The columns that `SELECT *` shows, in their order. As in HogQL, those that come from a join are
    /// not among them, so `person_id` of events is only there in some modes.
    pub(super) fn asterisk(table: Table, schema: Schema) -> Vec<&'static str> {
        let mode = schema.persons_on_events;
        let mut names = match table {
            Table::Events => vec![
                "uuid",
                "event",
                "properties",
                "timestamp",
                "distinct_id",
                "elements_chain",
                "created_at",
                "$session_id",
                "$window_id",
                "person_mode",
                "person_id",
                "$group_0",
                "$group_1",
                "$group_2",
                "$group_3",
                "$group_4",
                "elements_chain_href",
                "elements_chain_texts",
                "elements_chain_ids",
                "elements_chain_elements",
                "event_person_id",
            ],
            Table::Persons => vec!["id", "created_at", "properties", "is_identified", "last_seen_at"],
            Table::RawPersons => {
                vec!["id", "created_at", "properties", "is_identified", "last_seen_at", "is_deleted", "version"]
            }
            Table::PersonDistinctIds => vec!["distinct_id", "person_id"],
            Table::RawPersonDistinctIds => vec!["distinct_id", "person_id", "is_deleted", "version"],
            Table::Groups => vec!["index", "key", "created_at", "updated_at", "properties"],
            Table::CohortPeople | Table::StaticCohortPeople => vec!["person_id", "cohort_id"],
            Table::RawCohortPeople => vec!["person_id", "cohort_id", "sign", "version"],
            Table::IngestionWarnings => vec!["source", "type", "details", "timestamp"],
            Table::Sessions => SessionColumn::asterisk(schema.sessions),
        };
        names.retain(|name| match *name {
            "person_mode" => schema.event_person_mode,
            "person_id" => table != Table::Events || mode != PersonsOnEvents::Joined,
            "event_person_id" => mode.overrides(),
            "last_seen_at" => schema.person_last_seen_at,
            _ => true,
        });
        names
    }

    /// Names that a refusal may suggest.
    pub(super) fn known(table: Table, schema: Schema) -> Vec<&'static str> {
        let more: &[&str] = match table {
            Table::Events => &["person", "person_id", "session", "team_id"],
            Table::Sessions => &["id", "session_id_v7", "duration", "team_id"],
            _ => &["team_id"],
        };
        let mut names = Self::asterisk(table, schema);
        let more: Vec<_> = more.iter().filter(|name| !names.contains(name)).collect();
        names.extend(more);
        names
    }
}
