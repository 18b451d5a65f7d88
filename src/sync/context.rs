//! What all readers of streams share.

use std::sync::Arc;

use chrono::TimeDelta;
use serde::de::DeserializeOwned;

use super::observer::StreamObserver;
use super::read_plan::{PlannedMethod, PlannedRead, ReadPlan};
use super::report::StreamReport;
use crate::config::Config;
use crate::error::Error;
use crate::posthog::Query;
use crate::posthog::http::{Client, GiveUp};
use crate::posthog::query::{Small, small_with_retry};
use crate::protocol::{Batch, Output, StreamDescriptor};
use crate::records::{NulledValues, RowWriter};
use crate::streams::{Column, Selection, Table};

/// Rows may become visible so long after the time by which they are ordered. Each sync of a stream with a
/// watermark begins so long before it.
pub(crate) const LOOKBACK: TimeDelta = TimeDelta::minutes(60);

/// One stream of one project: whom to ask, and where its records go. Cheap to clone.
#[derive(Clone)]
pub struct ReadContext {
    /// Sends the requests.
    pub client: Client,
    /// The user's configuration.
    pub config: Arc<Config>,
    pub project: u64,
    /// Whether a later sync continues from this one.
    pub incremental: bool,
    /// Where messages go.
    pub output: Output,
    /// Name under which records go.
    pub stream: Arc<StreamDescriptor>,
    /// Fields that its records have.
    pub selection: Selection,
    /// Reports waits.
    pub observer: StreamObserver,
    /// Warns of values that become null.
    pub nulled: NulledValues,
    /// Takes what is known about the stream's completeness.
    pub report: StreamReport,
    /// Where is entered what would be read, if nothing is to be read.
    pub plan: Option<ReadPlan>,
}

impl ReadContext {
    /// An empty batch of records.
    pub(crate) fn batch(&self) -> Batch<'_> {
        Batch::new(&self.output, &self.stream)
    }

    /// A writer of records from rows that have these columns.
    pub(crate) fn row_writer(&self, table: &Table, columns: &[Column]) -> RowWriter {
        RowWriter::new(table, columns, &self.selection, &self.stream, self.project).warning(&self.nulled)
    }

    /// The path of a list of the project.
    pub(super) fn list_path(&self, list: &str) -> String {
        format!("api/projects/{}/{list}/", self.project)
    }

    /// Enters what would be read, if nothing is to be read.
    pub(super) fn plan_read(&self, method: PlannedMethod, read: PlannedRead) {
        if let Some(plan) = &self.plan {
            plan.add(&self.stream.name, self.project, method, read);
        }
    }

    /// Asks for a small response, as often as the configuration allows.
    ///
    /// # Errors
    /// When the server does not answer usefully; [`GiveUp::TooLarge`] when the query is too large.
    pub(crate) async fn ask<T: DeserializeOwned + Send>(&self, query: &Query) -> Result<Small<T>, GiveUp> {
        small_with_retry(&self.client, self.project, query, &self.observer, self.client.retry()).await
    }

    /// Like [`ReadContext::ask`], for callers that can ask for less: none when the query is too large.
    ///
    /// # Errors
    /// When the server does not answer usefully.
    pub(crate) async fn ask_unless_too_large<T: DeserializeOwned + Send>(
        &self,
        query: &Query,
    ) -> Result<Option<Small<T>>, Error> {
        match self.ask(query).await {
            Ok(response) => Ok(Some(response)),
            Err(GiveUp::TooLarge { .. }) => Ok(None),
            Err(give_up) => Err(give_up.into()),
        }
    }
}
