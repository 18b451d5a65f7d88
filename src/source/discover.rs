//! `spec` and `discover`.

use std::path::Path;

use super::custom_queries::CustomStreams;
use super::projects::project_ids;
use super::property_types::Types;
use super::{configuration, custom_queries, property_types};
use crate::config::{Config, specification};
use crate::error::{Error, FailureType};
use crate::posthog::account::ApiKey;
use crate::posthog::http::{Client, Silent};
use crate::protocol::{Catalog, Message, Output};
use crate::streams;

/// Prints the specification.
pub(super) async fn spec(output: &Output) -> Result<(), Error> {
    output.message(&Message::Spec { spec: specification() }).await
}

/// Prints the streams. Only what the user has added needs requests.
pub(super) async fn discover(config: &Path, output: &Output) -> Result<(), Error> {
    let catalog = known_streams(&configuration::from_file(config).await?).await?;
    output.message(&Message::Catalog { catalog }).await
}

/// All streams with the user's own queries and fields.
pub(super) async fn known_streams(config: &Config) -> Result<Catalog, Error> {
    let CustomStreams { streams: custom, failed } = custom_streams(config, |_| true).await?;
    for (name, error) in failed {
        // A stream must not vanish from a connection because PostHog is out of reach for a moment.
        if error.failure_type() != FailureType::Config {
            return Err(error);
        }
        tracing::error!("the stream `{name}` is left out: {error}");
    }
    let mut types = Types::new();
    if property_types::any(config) {
        let (client, ids) = projects(config).await?;
        types = property_types::types(&client, config, &ids, &Silent).await?;
    }
    Ok(streams::catalog(&custom, |table| property_types::by_types(config, table, &types)))
}

/// The streams of the custom queries whose names are `wanted`, as the first project describes them.
pub(super) async fn custom_streams(config: &Config, wanted: impl Fn(&str) -> bool) -> Result<CustomStreams, Error> {
    if !config.custom_queries.iter().any(|query| wanted(&query.name)) {
        return Ok(CustomStreams::default());
    }
    let (client, ids) = projects(config).await?;
    let first = ids.first().copied().unwrap_or_default();
    Ok(custom_queries::describe(&client, config, first, wanted, || client.retry()).await)
}

async fn projects(config: &Config) -> Result<(Client, Vec<u64>), Error> {
    let client = Client::new(config)?;
    let key = ApiKey::fetch(&client, client.retry(), &Silent).await?;
    let ids = project_ids(&client, config, key.as_ref(), || client.retry(), &Silent).await?;
    Ok((client, ids))
}
