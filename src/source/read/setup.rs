//! What the syncs of a process have in common, and what its key may read.

use std::sync::Arc;

use tokio::sync::OnceCell;

use crate::config::{Config, MethodChoice};
use crate::error::{Error, FailureType};
use crate::posthog::account::ApiKey;
use crate::posthog::http::{Client, FileClient, Silent};
use crate::protocol::state::SavedStates;
use crate::protocol::{ConfiguredCatalog, ConfiguredStream, SyncMode};
use crate::source::cli::SyncArguments;
use crate::source::custom_queries::CustomStreams;
use crate::source::discover::custom_streams;
use crate::source::method::{self, ChosenMethod};
use crate::source::projects::project_ids;
use crate::source::{catalog, configuration};
use crate::streams::{PERSONS, Source};

/// What stays the same from one sync to the next.
pub(in crate::source) struct Setup {
    pub(super) config: Arc<Config>,
    pub(super) catalog: ConfiguredCatalog,
    pub(super) custom: CustomStreams,
    pub(super) client: Client,
    /// Made when it is needed first: reading the system's certificates takes its time.
    pub(super) files: Arc<OnceCell<FileClient>>,
}

/// What the key may read, and how.
pub(in crate::source) struct Account {
    /// What is known of the key.
    pub(in crate::source) key: Option<ApiKey>,
    /// How the tables of each project are read, or why that could not be found out.
    pub(in crate::source) methods: Vec<(u64, Result<ChosenMethod, Error>)>,
}

impl Setup {
    /// Reads configuration and catalog.
    pub(super) async fn from_arguments(arguments: &SyncArguments) -> Result<Self, Error> {
        Self::with_catalog_of(configuration::from_file(&arguments.config).await?, arguments).await
    }

    /// Reads the catalog.
    pub(super) async fn with_catalog_of(config: Config, arguments: &SyncArguments) -> Result<Self, Error> {
        let catalog = match &arguments.catalog {
            Some(file) => ConfiguredCatalog::from_file(file)?,
            None => catalog::configured(&config, &arguments.streams, SyncMode::Incremental).await?,
        };
        let client = Client::new(&config)?;
        Self::new(config, client, catalog).await
    }

    /// Asks for the columns of the custom queries that are chosen.
    pub(super) async fn new(config: Config, client: Client, catalog: ConfiguredCatalog) -> Result<Self, Error> {
        if catalog.streams.is_empty() {
            return Err(Error::config("the catalog has no streams; choose at least one"));
        }
        if !config.method.obsolete.is_empty() {
            tracing::info!(
                "{} has no effect any more: what has been read is compared with PostHog's figures instead",
                config.method.obsolete.join(" and ")
            );
        }
        let custom =
            custom_streams(&config, |name| catalog.streams.iter().any(|stream| stream.stream.name == name)).await?;
        for configured in catalog.streams.iter().filter(|configured| configured.sync_mode == SyncMode::Incremental) {
            let name = &configured.stream.name;
            if Source::find(name, &custom.streams).is_some_and(|source| !source.is_incremental()) {
                // Some drivers ask for every stream in this way.
                tracing::warn!("the stream `{name}` cannot be read incrementally, so it is read in full");
            }
        }
        Ok(Self { config: Arc::new(config), catalog, custom, client, files: Arc::default() })
    }

    /// The chosen streams; if not all, those where it costs little to look for what is new. Lists cost a request for
    /// every hundred objects, and what is read in full is emitted again.
    pub(super) fn streams(&self, all: bool) -> Vec<&ConfiguredStream> {
        let is_by_query = self.config.method.choice == MethodChoice::Query;
        let is_cheap = |configured: &ConfiguredStream| {
            let source = Source::find(&configured.stream.name, &self.custom.streams);
            configured.sync_mode == SyncMode::Incremental
                && source.is_some_and(|source| match source {
                    // Each export repeats, and bills, what has changed in the last hour; without exports, all distinct
                    // ids are read.
                    Source::Table(table) if table.exports_repeat_rows() => {
                        is_by_query && table.stream == PERSONS.stream
                    }
                    source => source.is_incremental() && !source.is_list(),
                })
        };
        self.catalog.streams.iter().filter(|configured| all || is_cheap(configured)).collect()
    }

    /// Whether asking again may tell more about the custom queries.
    pub(super) fn is_incomplete(&self) -> bool {
        self.custom.failed.iter().any(|(_, error)| error.failure_type() != FailureType::Config)
    }
}

impl Account {
    /// Asks for the key's projects, and how each is read if `tables` are.
    pub(super) async fn of(setup: &Setup, tables: bool) -> Result<Self, Error> {
        let Setup { client, config, .. } = setup;
        let key = ApiKey::fetch(client, client.retry(), &Silent).await?;
        let mut methods = Vec::new();
        for id in project_ids(client, config, key.as_ref(), || client.retry(), &Silent).await? {
            let method = if tables {
                method::choose(client, config, key.as_ref(), id, client.retry(), &Silent).await
            } else {
                Ok(ChosenMethod::Query(None))
            };
            methods.push((id, method));
        }
        Ok(Self { key, methods })
    }
}

/// The states to continue from.
pub(super) fn saved_states(arguments: &SyncArguments) -> Result<SavedStates, Error> {
    Ok(arguments.state.as_deref().map(SavedStates::from_file).transpose()?.unwrap_or_default())
}
