//! `catalog`: prints a configured catalog, so that it need not be written by hand.

use super::cli::CatalogArguments;
use super::configuration;
use super::discover::known_streams;
use crate::config::Config;
use crate::error::Error;
use crate::protocol::{ConfiguredCatalog, ConfiguredStream, Output, Stream, SyncMode};

/// Prints a configured catalog for the chosen streams. It is not a protocol message, but a file.
pub(super) async fn catalog(arguments: &CatalogArguments, output: &Output) -> Result<(), Error> {
    let config = configuration::from_file(&arguments.config).await?;
    let configured = configured(&config, &arguments.streams, arguments.sync_mode.into()).await?;
    let mut text = serde_json::to_vec_pretty(&configured)
        .map_err(|error| Error::system("the catalog could not be written").with_details(error.to_string()))?;
    text.push(b'\n');
    output.line(text).await
}

/// A configured catalog of the streams with these names, or of all.
pub(super) async fn configured(
    config: &Config,
    names: &[String],
    sync_mode: SyncMode,
) -> Result<ConfiguredCatalog, Error> {
    let known = known_streams(config).await?.streams;
    let chosen: Vec<&str> = names.iter().map(|name| name.trim()).filter(|name| !name.is_empty()).collect();
    if let Some(unknown) = chosen.iter().find(|name| known.iter().all(|stream| stream.name != **name)) {
        let names = known.iter().map(|stream| stream.name.as_str()).collect::<Vec<_>>().join(", ");
        return Err(Error::config(format!("there is no stream `{unknown}`; `--streams` takes {names}")));
    }
    let wanted = known.into_iter().filter(|stream| chosen.is_empty() || chosen.contains(&stream.name.as_str()));
    Ok(ConfiguredCatalog { streams: wanted.map(|stream| configure(stream, sync_mode)).collect() })
}

fn configure(stream: Stream, wanted: SyncMode) -> ConfiguredStream {
    let sync_mode = if stream.supported_sync_modes.contains(&wanted) { wanted } else { SyncMode::FullRefresh };
    ConfiguredStream {
        sync_mode,
        destination_sync_mode: "append".to_owned(),
        cursor_field: stream.default_cursor_field.clone().filter(|_| sync_mode == SyncMode::Incremental),
        primary_key: stream.source_defined_primary_key.clone(),
        stream,
    }
}
