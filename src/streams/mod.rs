//! What can be read. A stream that comes from a `HogQL` table is one constant; see [`Table`].

mod account;
mod column;
pub mod custom;
mod distinct_ids;
mod event_days;
mod events;
mod groups;
mod ingestion_warnings;
mod keyset;
mod lists;
mod nested;
mod organizations;
mod persons;
mod projects;
mod property_columns;
mod selection;
mod sessions;
mod survey_responses;
mod table;

use serde_json::Value;

use crate::posthog::account::QUERY_SCOPE;
use crate::protocol::{Catalog, Stream, SyncMode};

pub use account::AccountStream;
pub use column::{Column, ExportedAs, Kind, Properties};
pub use distinct_ids::{PERSON_DISTINCT_IDS, WITHOUT_VERSIONS};
pub use event_days::{EVENT_DAYS, EVENT_DAYS_CURSOR, EVENT_DAYS_KEY};
pub use events::EVENTS;
pub use groups::GROUPS;
pub use ingestion_warnings::INGESTION_WARNINGS;
pub use keyset::{COHORT_PEOPLE, KeysetStream, KeysetTable};
pub use lists::{Change, LISTS, List, Passes};
pub use nested::{Children, NESTED_LISTS, NestedList};
pub use organizations::ORGANIZATIONS;
pub use persons::{PERSONS, RAW_PERSONS, deleted_person, newest_of_person};
pub use projects::PROJECTS;
pub use property_columns::{PropertyColumns, PropertyType};
pub use selection::Selection;
pub use sessions::SESSIONS;
pub use survey_responses::SURVEY_RESPONSES;
pub use table::{Changes, Table};
pub(crate) use table::{PROJECT_FIELD, PROPERTIES_FIELD, VERSION_FIELD};

/// The streams that are read from tables.
pub static TABLES: &[&Table] = &[&EVENTS, &PERSONS, &SESSIONS, &GROUPS, &PERSON_DISTINCT_IDS];

/// The streams that are read in the order of a key, without the user's own.
pub static KEYSET_STREAMS: &[&KeysetStream] = &[&COHORT_PEOPLE, &SURVEY_RESPONSES, &INGESTION_WARNINGS];

/// The streams about the account.
pub static ACCOUNT_STREAMS: &[&AccountStream] = &[&ORGANIZATIONS, &PROJECTS];

/// Where a stream comes from.
#[derive(Debug, Clone, Copy)]
pub enum Source {
    Table(&'static Table),
    /// A table without a time, or a query of the user's.
    KeysetStream(&'static KeysetStream),
    List(&'static List),
    NestedList(&'static NestedList),
    Account(&'static AccountStream),
    /// Figures of events.
    EventDays,
}

impl Source {
    /// The source of the stream with this name, if there is one; `custom` are those of the user.
    pub fn find(name: &str, custom: &[&'static KeysetStream]) -> Option<Self> {
        let table = TABLES.iter().find(|table| table.stream == name).map(|table| Self::Table(table));
        let keyset = || {
            KEYSET_STREAMS
                .iter()
                .chain(custom)
                .find(|keyset| keyset.stream == name)
                .map(|keyset| Self::KeysetStream(keyset))
        };
        let account = || ACCOUNT_STREAMS.iter().find(|account| account.stream == name);
        table
            .or_else(keyset)
            .or_else(|| List::find(name).map(Self::List))
            .or_else(|| NestedList::find(name).map(Self::NestedList))
            .or_else(|| account().map(|account| Self::Account(account)))
            .or_else(|| (name == EVENT_DAYS).then_some(Self::EventDays))
    }

    /// JSON schema of the records, without the user's own columns.
    pub fn schema(self) -> Value {
        match self {
            Self::Table(table) => table.schema(),
            Self::KeysetStream(keyset) => keyset.schema(),
            Self::List(list) => list.schema(),
            Self::NestedList(nested) => nested.list.schema(),
            Self::Account(account) => account.schema(),
            Self::EventDays => event_days::schema(),
        }
    }

    pub fn is_incremental(self) -> bool {
        match self {
            Self::Table(_) | Self::EventDays => true,
            Self::KeysetStream(keyset) => keyset.cursor.is_some(),
            Self::List(list) => list.change.is_some(),
            Self::NestedList(nested) => nested.list.change.is_some(),
            Self::Account(_) => false,
        }
    }

    /// Whether it is read page by page, whatever has changed.
    pub fn is_list(self) -> bool {
        matches!(self, Self::List(_) | Self::NestedList(_) | Self::Account(_))
    }

    /// The scope that the key needs.
    pub fn scope(self) -> &'static str {
        match self {
            Self::Table(_) | Self::KeysetStream(_) | Self::EventDays => QUERY_SCOPE,
            Self::List(list) => list.scope,
            Self::NestedList(nested) => nested.list.scope,
            Self::Account(account) => account.scope,
        }
    }
}

/// The streams that come from lists, of a project or of its objects.
pub fn all_lists() -> impl Iterator<Item = &'static List> {
    LISTS.iter().chain(NESTED_LISTS.iter().map(|nested| &nested.list))
}

/// Names of the streams that are always there.
pub fn names() -> Vec<&'static str> {
    let tables = TABLES.iter().map(|table| table.stream).chain(KEYSET_STREAMS.iter().map(|keyset| keyset.stream));
    let accounts = ACCOUNT_STREAMS.iter().map(|account| account.stream);
    tables.chain([EVENT_DAYS]).chain(accounts).chain(all_lists().map(|list| list.stream)).collect()
}

/// The answer of `discover`, with the user's own streams and fields.
pub fn catalog(custom: &[&'static KeysetStream], property_columns: impl Fn(&Table) -> PropertyColumns) -> Catalog {
    let tables = TABLES.iter().map(|table| {
        let mut schema = table.schema();
        property_columns(table).add_to(&mut schema);
        describe(table.stream, schema, table.primary_key, Some(table.cursor_field), true)
    });
    let keyset = KEYSET_STREAMS
        .iter()
        .chain(custom)
        .map(|keyset| describe(keyset.stream, keyset.schema(), &keyset.primary_key(), keyset.cursor, true));
    let event_days = describe(EVENT_DAYS, event_days::schema(), &EVENT_DAYS_KEY, Some(EVENT_DAYS_CURSOR), true);
    let accounts = ACCOUNT_STREAMS
        .iter()
        .map(|account| describe(account.stream, account.schema(), &[AccountStream::PRIMARY_KEY], None, false));
    let lists = all_lists().map(|list| {
        let cursor = list.change.map(|change| change.field);
        describe(list.stream, list.schema(), list.primary_key, cursor, true)
    });
    Catalog { streams: tables.chain(keyset).chain([event_days]).chain(accounts).chain(lists).collect() }
}

fn describe(name: &str, schema: Value, primary_key: &[&str], cursor: Option<&str>, is_resumable: bool) -> Stream {
    let path = |field: &str| vec![field.to_owned()];
    let mut supported_sync_modes = vec![SyncMode::FullRefresh];
    supported_sync_modes.extend(cursor.map(|_| SyncMode::Incremental));
    Stream {
        name: name.to_owned(),
        json_schema: schema,
        supported_sync_modes,
        source_defined_cursor: cursor.map(|_| true),
        default_cursor_field: cursor.map(path),
        source_defined_primary_key: Some(primary_key.iter().map(|field| path(field)).collect()),
        namespace: None,
        is_resumable: Some(is_resumable),
    }
}
