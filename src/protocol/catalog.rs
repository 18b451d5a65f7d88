//! What can be read (`discover`) and what shall be read (the configured catalog).

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::api_catalog::protocol_shape;
use crate::error::Error;
use crate::input_file;
use crate::json_text;

/// Name of a stream as the configured catalog has it. An absent namespace is not an empty one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StreamDescriptor {
    pub name: String,
    /// Namespace, copied from the catalog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

impl StreamDescriptor {
    /// Some programs write no namespace as an empty one.
    #[must_use]
    pub fn without_empty_namespace(self) -> Self {
        Self { namespace: self.namespace.filter(|namespace| !namespace.is_empty()), ..self }
    }
}

impl fmt::Display for StreamDescriptor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(formatter, "`{}` of the namespace `{namespace}`", self.name),
            None => write!(formatter, "`{}`", self.name),
        }
    }
}

/// Response of `discover`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Catalog {
    pub streams: Vec<Stream>,
}

/// A stream that a source offers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stream {
    pub name: String,
    /// JSON schema (draft 7) of the record data.
    #[serde(default)]
    pub json_schema: Value,
    #[serde(default)]
    pub supported_sync_modes: Vec<SyncMode>,
    /// Whether the source alone decides on the cursor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_defined_cursor: Option<bool>,
    /// Path of the cursor field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_cursor_field: Option<Vec<String>>,
    /// Paths of the primary key's fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_defined_primary_key: Option<Vec<Vec<String>>>,
    /// Namespace; this source has none of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Whether an interrupted full refresh continues where it stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_resumable: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncMode {
    /// Everything, every time.
    FullRefresh,
    /// What is new since the state.
    Incremental,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConfiguredCatalog {
    pub streams: Vec<ConfiguredStream>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConfiguredStream {
    /// The stream as it was discovered.
    pub stream: Stream,
    #[serde(default = "full_refresh")]
    pub sync_mode: SyncMode,
    /// How the destination writes it; a plain word, because platforms add to the list.
    #[serde(default = "append", deserialize_with = "append_if_null")]
    pub destination_sync_mode: String,
    /// Path of the cursor field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor_field: Option<Vec<String>>,
    /// Paths of the primary key's fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary_key: Option<Vec<Vec<String>>>,
}

impl ConfiguredStream {
    /// Name and namespace, exactly as configured.
    pub fn descriptor(&self) -> StreamDescriptor {
        StreamDescriptor { name: self.stream.name.clone(), namespace: self.stream.namespace.clone() }
    }
}

impl ConfiguredCatalog {
    /// Reads a configured catalog from a JSON file.
    ///
    /// # Errors
    /// When the file cannot be read or is not a configured catalog; the message names the file and
    /// the offending key.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let shown = path.display();
        let text = input_file::read(path)
            .map_err(|error| Error::config(format!("cannot read the catalog file `{shown}`: {error}")))?;
        Self::parse(&text).map_err(|problem| {
            Error::config(format!(
                "the catalog `{shown}` {problem}; make one with `source-posthog catalog --config CONFIG`"
            ))
        })
    }

    /// Reads the JSON text of a configured catalog, in the protocol's spelling or in that of Airbyte's API.
    ///
    /// # Errors
    /// What is wrong with it, to be put behind its name; the offending key is named.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let document = protocol_shape(json_text::parse(text)?)?;
        serde_path_to_error::deserialize(document)
            .map_err(|error| format!("is not usable at `{}`: {}", error.path(), error.inner()))
    }
}

fn full_refresh() -> SyncMode {
    SyncMode::FullRefresh
}

fn append() -> String {
    "append".to_owned()
}

fn append_if_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_else(append))
}
