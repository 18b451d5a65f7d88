//! What can be read. A stream that comes from a `HogQL` table is one constant; see [`Table`].

mod column;
mod document;
mod events;
mod exported;
mod lists;
mod objects;
mod persons;
pub mod projects;
mod record;
mod rows;
mod sessions;
mod table;
mod value;

use crate::protocol::{Catalog, Stream, SyncMode};

pub use column::{Column, Kind};
pub use events::EVENTS;
pub use exported::{Arrival, ExportWriter};
pub use lists::{LISTS, List, Passes};
pub use objects::{Object, ObjectWriter};
pub use persons::PERSONS;
pub use rows::{RowWriter, Written};
pub use sessions::SESSIONS;
pub use table::Table;

/// The streams that are read from tables.
pub static TABLES: &[&Table] = &[&EVENTS, &PERSONS, &SESSIONS];

/// Where a stream comes from.
#[derive(Debug, Clone, Copy)]
pub enum Source {
    /// A `HogQL` table.
    Table(&'static Table),
    /// A list endpoint.
    List(&'static List),
    /// The projects themselves.
    Projects,
}

impl Source {
    /// The source of the stream with this name, if there is one.
    pub fn find(name: &str) -> Option<Self> {
        if name == projects::NAME {
            return Some(Self::Projects);
        }
        let table = TABLES.iter().find(|table| table.stream == name).map(|table| Self::Table(table));
        table.or_else(|| List::find(name).map(Self::List))
    }

    /// Whether it can be read incrementally.
    pub fn is_incremental(self) -> bool {
        match self {
            Self::Table(_) => true,
            Self::List(list) => list.change.is_some(),
            Self::Projects => false,
        }
    }

    /// The scope that the key needs.
    pub fn scope(self) -> &'static str {
        match self {
            Self::Table(_) => "query:read",
            Self::List(list) => list.scope,
            Self::Projects => "project:read",
        }
    }
}

/// Names of all streams.
pub fn names() -> Vec<&'static str> {
    let tables = TABLES.iter().map(|table| table.stream);
    tables.chain([projects::NAME]).chain(LISTS.iter().map(|list| list.stream)).collect()
}

/// The answer of `discover`.
pub fn catalog() -> Catalog {
    let path = |field: &str| vec![field.to_owned()];
    let tables = TABLES.iter().map(|table| Stream {
        name: table.stream.to_owned(),
        json_schema: table.schema(),
        supported_sync_modes: vec![SyncMode::FullRefresh, SyncMode::Incremental],
        source_defined_cursor: Some(true),
        default_cursor_field: Some(path(table.cursor_field)),
        source_defined_primary_key: Some(vec![path(table.primary_key())]),
        namespace: None,
        is_resumable: Some(true),
    });
    let projects = Stream {
        name: projects::NAME.to_owned(),
        json_schema: projects::schema(),
        supported_sync_modes: vec![SyncMode::FullRefresh],
        source_defined_cursor: None,
        default_cursor_field: None,
        source_defined_primary_key: Some(vec![path(projects::PRIMARY_KEY)]),
        namespace: None,
        is_resumable: Some(false),
    };
    let lists = LISTS.iter().map(|list| {
        let cursor = list.change.map(|change| change.field);
        let mut supported_sync_modes = vec![SyncMode::FullRefresh];
        supported_sync_modes.extend(cursor.map(|_| SyncMode::Incremental));
        Stream {
            name: list.stream.to_owned(),
            json_schema: list.schema(),
            supported_sync_modes,
            source_defined_cursor: cursor.map(|_| true),
            default_cursor_field: cursor.map(path),
            source_defined_primary_key: Some(list.primary_key.iter().map(|field| path(field)).collect()),
            namespace: None,
            is_resumable: Some(true),
        }
    });
    Catalog { streams: tables.chain([projects]).chain(lists).collect() }
}
