//! The tables, and where a query reads its rows.

use chrono_tz::Tz;

use super::column::Column;
use super::schema::Schema;
use super::select::Select;
use super::value::Kind;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    Events,
    Persons,
    PersonDistinctIds,
    /// All versions of persons.
    RawPersons,
    /// All versions of distinct ids.
    RawPersonDistinctIds,
    Groups,
    /// Members of cohorts that are computed.
    CohortPeople,
    /// The same with the columns that ClickHouse keeps them by.
    RawCohortPeople,
    /// Members of cohorts that were listed by hand.
    StaticCohortPeople,
    Sessions,
    IngestionWarnings,
}

/// The tables by their names.
const TABLES: [(&str, Table); 12] = [
    ("events", Table::Events),
    ("persons", Table::Persons),
    ("person_distinct_ids", Table::PersonDistinctIds),
    ("raw_persons", Table::RawPersons),
    ("raw_person_distinct_ids", Table::RawPersonDistinctIds),
    ("groups", Table::Groups),
    ("raw_groups", Table::Groups),
    ("cohort_people", Table::CohortPeople),
    ("raw_cohort_people", Table::RawCohortPeople),
    ("static_cohort_people", Table::StaticCohortPeople),
    ("sessions", Table::Sessions),
    ("system.ingestion_warnings", Table::IngestionWarnings),
];

/// Tables of PostHog that aren't here.
const ABSENT: [&str; 7] = [
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
        TABLES.iter().find(|(own, _)| *own == name).map(|(_, table)| *table)
    }

    /// Whether PostHog has a table of that name and this stand-in hasn't.
    pub(crate) fn is_absent(name: &str) -> bool {
        ABSENT.contains(&name) || name.starts_with("system.")
    }

    /// The names of all tables that PostHog has.
    pub(crate) fn names() -> Vec<&'static str> {
        TABLES.iter().map(|(name, _)| *name).chain(ABSENT).collect()
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
    pub(crate) fn find(&self, name: &str, zone: Tz, schema: Schema) -> Option<(Column, Kind, bool)> {
        match self {
            Self::Table(table) => Column::find(*table, name, zone, schema),
            Self::Query(select) => {
                let index = select.outputs.iter().position(|output| output.name == name)?;
                let expression = &select.outputs.get(index)?.expression;
                Some((Column::Output(index), expression.kind.clone(), expression.nullable))
            }
        }
    }

    /// The columns that `*` stands for.
    pub(crate) fn asterisk(&self, schema: Schema) -> Vec<&str> {
        match self {
            Self::Table(table) => Column::asterisk(*table, schema),
            Self::Query(select) => select.outputs.iter().map(|output| output.name.as_str()).collect(),
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
