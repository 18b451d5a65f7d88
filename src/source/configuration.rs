//! The configuration file of a command.

use std::path::Path;

use super::custom_queries;
use crate::config::Config;
use crate::error::Error;

/// Reads the file and checks what the configuration alone cannot: names against those of the streams.
pub(super) fn from_file(path: &Path) -> Result<Config, Error> {
    let config = Config::from_file(path)?;
    custom_queries::check_names(&config)?;
    Ok(config)
}
