//! `spec` and `discover`, which send no request.

use std::path::Path;

use crate::config::{Config, specification};
use crate::error::Error;
use crate::protocol::{Message, Output};
use crate::streams;

/// Prints the specification.
pub(super) async fn spec(output: &Output) -> Result<(), Error> {
    output.message(&Message::Spec { spec: specification() }).await
}

/// Prints the streams. They are the same for every project, so the configuration is only checked.
pub(super) async fn discover(config: &Path, output: &Output) -> Result<(), Error> {
    Config::from_file(config)?;
    output.message(&Message::Catalog { catalog: streams::catalog() }).await
}
