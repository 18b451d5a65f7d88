//! Streams about the account itself: objects of a fixed form, one record each.

use serde_json::{Map, Value};

use super::column::Column;

/// A stream of objects that do not belong to a project.
#[derive(Debug)]
pub struct AccountStream {
    pub stream: &'static str,
    /// Scope that the key needs.
    pub scope: &'static str,
    /// Other fields are left out.
    pub fields: &'static [Column],
}

impl AccountStream {
    pub const PRIMARY_KEY: &'static str = "id";

    /// JSON schemas of the fields, by name.
    pub(crate) fn schemas(&self) -> Map<String, Value> {
        self.fields.iter().map(|column| (column.field.to_owned(), column.schema())).collect()
    }

    pub fn schema(&self) -> Value {
        super::table::object_schema(self.schemas())
    }
}
