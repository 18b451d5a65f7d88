//! The configuration file of a command.

use std::path::Path;

use super::custom_queries;
use crate::config::Config;
use crate::error::Error;
use crate::input_file;

/// Reads the file, or standard input for `-`, and checks what the configuration alone cannot: names against those of
/// the streams.
pub(super) async fn from_file(path: &Path) -> Result<Config, Error> {
    let config = if path == Path::new("-") {
        let text = tokio::task::spawn_blocking(input_file::read_stdin).await;
        let text = text
            .unwrap_or_else(|error| Err(error.into()))
            .map_err(|error| Error::config(format!("cannot read the configuration from standard input: {error}")))?;
        Config::from_text(&text)?
    } else {
        Config::from_file(path)?
    };
    custom_queries::check_names(&config)?;
    Ok(config)
}
