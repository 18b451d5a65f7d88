//! The configuration file of a command.

use std::io::Read;
use std::path::Path;

use super::custom_queries;
use crate::config::Config;
use crate::error::Error;

/// Reads the file, or standard input for `-`, and checks what the configuration alone cannot: names against those of
/// the streams.
pub(super) async fn from_file(path: &Path) -> Result<Config, Error> {
    let config = if path == Path::new("-") {
        let text = tokio::task::spawn_blocking(read_stdin).await;
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

fn read_stdin() -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    std::io::stdin().read_to_end(&mut text)?;
    Ok(text)
}
