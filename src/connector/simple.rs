//! `spec` and `discover`.

use std::path::Path;

use super::custom;
use crate::config::{Config, specification};
use crate::error::Error;
use crate::http::{Client, Silent};
use crate::posthog::account::{Key, project_ids};
use crate::protocol::{Message, Output};
use crate::streams::{self, Keyed};

/// Prints the specification.
pub(super) async fn spec(output: &Output) -> Result<(), Error> {
    output.message(&Message::Spec { spec: specification() }).await
}

/// Prints the streams. Only those of the user's own queries need requests.
pub(super) async fn discover(config: &Path, output: &Output) -> Result<(), Error> {
    let config = Config::from_file(config)?;
    let catalog = streams::catalog(&custom_streams(&config).await?);
    output.message(&Message::Catalog { catalog }).await
}

/// The streams of the user's own queries, as the first project describes them.
pub(super) async fn custom_streams(config: &Config) -> Result<Vec<&'static Keyed>, Error> {
    if config.custom_queries.is_empty() {
        return Ok(Vec::new());
    }
    let client = Client::new(config)?;
    let key = Key::fetch(&client, client.retry(), &Silent).await?;
    let ids = project_ids(&client, config, key.as_ref(), || client.retry(), &Silent).await?;
    let first = ids.first().copied().unwrap_or_default();
    custom::streams(&client, config, first, || client.retry(), &Silent)
        .await
        .map_err(|error| error.within(format_args!("project {first}")))
}
