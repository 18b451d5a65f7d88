//! Reads the streams about the account.

use std::sync::Arc;

use crate::error::Error;
use crate::posthog::account::{self, ApiKey};
use crate::posthog::http::{Client, GiveUp};
use crate::posthog::lists::Pages;
use crate::protocol::{Batch, Output, StreamDescriptor};
use crate::records::AccountWriter;
use crate::streams::{AccountStream, ORGANIZATIONS, Selection};
use crate::sync::StreamObserver;

/// Objects asked for per page.
const PAGE: usize = 100;

/// Reads one stream about the account.
pub(super) struct AccountReader<'r> {
    pub(super) client: &'r Client,
    pub(super) output: &'r Output,
    pub(super) stream: &'r Arc<StreamDescriptor>,
    pub(super) account: &'static AccountStream,
    pub(super) selection: &'r Selection,
}

impl AccountReader<'_> {
    /// Reads the stream and returns what went wrong. `projects` are those that are read.
    ///
    /// # Errors
    /// When the output is closed.
    pub(super) async fn run(&self, key: Option<&ApiKey>, projects: Vec<u64>) -> Result<Vec<Error>, Error> {
        let mut failures = Vec::new();
        if self.account.stream == ORGANIZATIONS.stream {
            match self.organizations(key).await {
                Err(error) if error.is_output_closed() => return Err(error),
                result => failures.extend(result.err()),
            }
        } else {
            for id in projects {
                match self.project(id).await {
                    Err(error) if error.is_output_closed() => return Err(error),
                    result => failures.extend(result.err().map(|error| error.in_project(id))),
                }
            }
        }
        // The stream keeps nothing between syncs; the protocol wants a state all the same.
        self.output.state(self.stream, serde_json::json!({"version": 1, "complete": failures.is_empty()})).await?;
        Ok(failures)
    }

    fn observer(&self) -> StreamObserver {
        StreamObserver { output: self.output.clone(), stream: Arc::clone(self.stream) }
    }

    async fn project(&self, id: u64) -> Result<(), Error> {
        let project = account::project(self.client, id, self.client.retry(), &self.observer()).await?;
        self.write([&*project.json]).await
    }

    async fn organizations(&self, key: Option<&ApiKey>) -> Result<(), Error> {
        if key.is_some_and(|key| key.scoped_teams.as_ref().is_some_and(|teams| !teams.is_empty())) {
            return Err(Error::config(
                "the API key is limited to projects, and PostHog shows organizations only to unrestricted keys; use a key with access to the whole organization, or remove the stream from the catalog",
            ));
        }
        let observer = self.observer();
        let mut pages = Pages::new(self.client, "api/organizations/".to_owned(), &observer);
        let mut query = format!("limit={PAGE}&offset=0");
        loop {
            let page = pages.read(&query).await.map_err(|give_up: GiveUp| Error::from(give_up))?;
            self.write(page.objects.iter().map(|object| &**object)).await?;
            let Some(next) = page.next else { return Ok(()) };
            query = next;
        }
    }

    async fn write(&self, objects: impl IntoIterator<Item = &serde_json::value::RawValue>) -> Result<(), Error> {
        let writer = AccountWriter::new(self.account, self.selection, self.stream);
        let mut batch = Batch::new(self.output, self.stream);
        for object in objects {
            writer
                .write(object, batch.lines.as_vec())
                .map_err(|error| Error::system(format!("its description is not usable: {error}")))?;
            batch.records += 1;
        }
        batch.send(true).await?;
        Ok(())
    }
}
