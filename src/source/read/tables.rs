//! How tables are read: by exports, by query, or by both.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use tracing::Instrument;

use super::jobs::TableJob;
use super::{Outcome, ProjectPlan, Sync, lock, missing_scope};
use crate::error::Error;
use crate::posthog::account::{self, QUERY_SCOPE};
use crate::posthog::http::{FileClient, GiveUp, Retry, Silent};
use crate::protocol::StreamDescriptor;
use crate::records::NulledValues;
use crate::source::event_filter;
use crate::source::first_read::FirstRead;
use crate::source::retention;
use crate::streams::{EVENTS, PERSON_DISTINCT_IDS, PERSONS, Selection, Table};
use crate::sync::{
    DeletedPersonReader, DistinctIdReader, EmittedRows, EventReader, EventsRead, ExportOutcome, ExportReader,
    LastMethod, OnEstimate, ProjectReader, ProjectState, Rights, StreamState,
};

/// Attempts at a request whose answer is only for the log.
const RETENTION_ATTEMPTS: usize = 2;

impl Sync {
    /// Reads persons and their distinct ids, from the same export runs where they are exported.
    pub(super) async fn run_both(&self, persons: TableJob, distinct_ids: TableJob) -> Result<Outcome, Error> {
        let begin = Instant::now();
        let jobs = [persons, distinct_ids];
        for job in &jobs {
            self.begin(&job.stream).await?;
        }
        let streams = jobs.each_ref().map(|job| Arc::clone(&job.stream));
        let mut worst = Outcome::Complete;
        for (stream, failures) in streams.iter().zip(self.read_both(jobs).await?) {
            worst = worst.max(self.finish(stream, &failures, begin).await?);
        }
        Ok(worst)
    }

    /// Reads two tables of all projects, side by side. Returns what went wrong with each.
    pub(super) async fn read_both(&self, jobs: [TableJob; 2]) -> Result<[Vec<Error>; 2], Error> {
        let incremental = jobs.iter().all(|job| job.incremental);
        let nulled = NulledValues::default();
        let estimates = [AtomicU64::new(0), AtomicU64::new(0)];
        let [first, second] = jobs.map(|job| {
            let TableJob { stream, table, state, selection, .. } = job;
            let checkpoint = self.checkpoint(&stream, state);
            (stream, table, selection, checkpoint)
        });
        let [expect_first, expect_second] = [(&first.0, &estimates[0]), (&second.0, &estimates[1])]
            .map(|(stream, estimate)| move |rows: u64| self.expect(stream, estimate, rows));
        let failures = self
            .read_projects(|project| {
                let [own, other] = [&first, &second].map(|(stream, table, selection, checkpoint)| {
                    let context = self.context(project, stream, selection, incremental, &nulled);
                    self.reader(context, table, Arc::clone(checkpoint))
                });
                let span = tracing::info_span!("read", project);
                self.read_project_of_both((own, &expect_first), (other, &expect_second)).instrument(span)
            })
            .await?;
        for ((_, _, _, checkpoint), failures) in [&first, &second].into_iter().zip(&failures) {
            checkpoint.finish(!incremental && failures.is_empty()).await?;
        }
        Ok(failures)
    }

    /// Reads persons and distinct ids of one project, from the same runs if both are exported.
    async fn read_project_of_both(
        &self,
        (mut persons, expect_persons): (ProjectReader, OnEstimate<'_>),
        (mut distinct_ids, expect_ids): (ProjectReader, OnEstimate<'_>),
    ) -> [Result<(), Error>; 2] {
        let exports = (self.chosen_exports(&mut persons).await, self.chosen_exports(&mut distinct_ids).await);
        match exports {
            (Ok(Some(exports)), Ok(Some(_))) => {
                let exports = ExportReader { companion: Some(Arc::new(distinct_ids.clone())), ..exports };
                match self.export(&exports, expect_persons).await {
                    Ok(ExportOutcome::Complete) => [self.mark_deleted(&persons, &exports.emitted_rows).await, Ok(())],
                    Ok(ExportOutcome::Impossible) => {
                        let by_persons = self.read_by(persons, None, expect_persons);
                        let (of_persons, of_ids) =
                            tokio::join!(by_persons, self.read_by(distinct_ids, None, expect_ids));
                        [of_persons, of_ids]
                    }
                    Err(error) => [Err(error.clone()), Err(error)],
                }
            }
            (of_persons, of_ids) => {
                let by_persons = async { self.read_by(persons, of_persons?, expect_persons).await };
                let by_ids = async { self.read_by(distinct_ids, of_ids?, expect_ids).await };
                let (of_persons, of_ids) = tokio::join!(by_persons, by_ids);
                [of_persons, of_ids]
            }
        }
    }

    /// Exports of a table that is no events, if it is to be read by them this time.
    async fn chosen_exports(&self, reader: &mut ProjectReader) -> Result<Option<ExportReader>, Error> {
        let project = reader.context.project;
        let Some(plan) = self.projects.iter().find(|plan| plan.id == project) else { return Ok(None) };
        match self.exports(plan, reader).await? {
            Some(exports) if !self.is_quicker_by_query(reader, &exports).await? => Ok(Some(exports)),
            _ => Ok(None),
        }
    }

    /// Reads by exports, unless that would bring nothing. `export_above` 0 asks for exports in any case.
    async fn export(&self, exports: &ExportReader, on_estimate: OnEstimate<'_>) -> Result<ExportOutcome, Error> {
        if self.config.export_above > 0 && exports.compare_persons().await? {
            return Ok(ExportOutcome::Complete);
        }
        exports.run(on_estimate).await
    }

    /// Marks the persons that have been deleted, as far as queries show them.
    async fn mark_deleted(&self, reader: &ProjectReader, emitted: &EmittedRows) -> Result<(), Error> {
        // What is deleted shows when it is compared: not in a plan.
        if reader.table.stream != PERSONS.stream || !self.may(QUERY_SCOPE) || self.plan.is_some() {
            return Ok(());
        }
        DeletedPersonReader { reader, emitted }.run().await
    }

    /// Reads a table of all projects, each by its method.
    pub(super) async fn read_table(
        &self,
        table: &'static Table,
        state: StreamState<ProjectState>,
        selection: &Selection,
        stream: &Arc<StreamDescriptor>,
        incremental: bool,
    ) -> Result<Vec<Error>, Error> {
        let estimate = AtomicU64::new(0);
        let on_estimate = |rows: u64| self.expect(stream, &estimate, rows);
        self.read_each(state, stream, selection, incremental, |context, checkpoint| {
            self.read_project(self.reader(context, table, checkpoint), &on_estimate)
        })
        .await
    }

    /// Reads a table of one project by the method that has been chosen for it.
    async fn read_project(&self, mut reader: ProjectReader, on_estimate: OnEstimate<'_>) -> Result<(), Error> {
        let project = reader.context.project;
        let Some(plan) = self.projects.iter().find(|plan| plan.id == project) else { return Ok(()) };
        if reader.table.stream == EVENTS.stream {
            self.warn_about_retention(project).await;
        }
        let mut exports = self.exports(plan, &reader).await?;
        if reader.table.stream == EVENTS.stream {
            if exports.is_some() && self.config.event_filter.is_some() {
                tracing::info!("{}", event_filter::BY_QUERY);
            }
            let refused = if self.may(QUERY_SCOPE) {
                lock(&self.compared).insert(project, None);
                match EventReader::new(reader.clone(), exports.clone()).run(on_estimate).await? {
                    EventsRead::Complete(days) => {
                        lock(&self.compared).insert(project, days);
                        return Ok(());
                    }
                    EventsRead::NotComparable(refusal) => Some(refusal),
                }
            } else {
                None
            };
            // Nothing was compared, so PostHog has to be asked for the figures of days.
            lock(&self.compared).remove(&project);
            let refusal =
                refused.as_ref().map_or("the API key lacks the scope `query:read`", |refusal| &refusal.summary);
            let refusal = refusal.to_owned();
            if self.config.event_filter.is_some() {
                let missing = || missing_scope(EVENTS.stream, QUERY_SCOPE);
                return Err(refused.as_ref().map_or_else(missing, event_filter::refused));
            }
            let Some(exports) = &mut exports else {
                let missing = || missing_scope(EVENTS.stream, QUERY_SCOPE);
                return Err(refused.map_or_else(missing, |refusal| GiveUp::Refused(refusal).into()));
            };
            tracing::warn!(
                "what is exported cannot be compared with PostHog's figures ({refusal}); PostHog's number of exported rows is the only proof"
            );
            exports.may_query = false;
        }
        if reader.table.changes.is_some() && self.may(QUERY_SCOPE) {
            reader.choose_columns().await?;
            if reader.table.changes.is_none() && exports.take().is_some() {
                tracing::info!(
                    "this PostHog does not show which {stream} have changed, so {stream} that exports omit could not be found; all are read by query",
                    stream = reader.table.stream
                );
            }
        }
        self.read_left_out(&reader).await?;
        let exports = match exports {
            Some(exports)
                if self.is_quicker_by_query(&mut reader, &exports).await? || self.are_few_changes(&reader).await? =>
            {
                None
            }
            exports => exports,
        };
        self.read_by(reader, exports, on_estimate).await
    }

    /// Reads a table by these exports, or by query if there are none or they turn out not to work.
    async fn read_by(
        &self,
        mut reader: ProjectReader,
        exports: Option<ExportReader>,
        on_estimate: OnEstimate<'_>,
    ) -> Result<(), Error> {
        if let Some(exports) = exports {
            match self.export(&exports, on_estimate).await? {
                ExportOutcome::Complete if self.plan.is_some() => return Ok(()),
                ExportOutcome::Complete => {
                    self.read_left_out(&reader).await?;
                    if reader.table.changes.is_some() && !reader.context.incremental && self.may(QUERY_SCOPE) {
                        // What has changed in a full refresh has no later sync to be read by.
                        Arc::new(reader.clone()).run(&|_| {}).await?;
                    }
                    return self.mark_deleted(&reader, &exports.emitted_rows).await;
                }
                // Part of it may have been exported before.
                ExportOutcome::Impossible => self.read_left_out(&reader).await?,
            }
        }
        if reader.checkpoint.project(reader.context.project).await.watermark.is_some() {
            // Queries for what is new do not find everything that the figures show.
            reader.checkpoint.note(reader.context.project, |state| state.person_figures = None).await;
        }
        if reader.table.stream == PERSON_DISTINCT_IDS.stream {
            let ProjectReader { context, page_size, checkpoint, .. } = reader;
            return DistinctIdReader { context, page_size, checkpoint }.run().await;
        }
        reader.choose_columns().await?;
        let reader = Arc::new(reader);
        reader.run(on_estimate).await?;
        self.mark_deleted(&reader, &EmittedRows::default()).await
    }

    /// Exports of a table, if it is to be read by them.
    async fn exports(&self, plan: &ProjectPlan, reader: &ProjectReader) -> Result<Option<ExportReader>, Error> {
        let method = plan.method.as_ref().map_err(Error::clone)?;
        if !method.is_export() || reader.table.export.is_none() || !self.may_export(plan, reader).await {
            return Ok(None);
        }
        let may_query = self.may(QUERY_SCOPE);
        let rights = Rights { may_query, falls_back: method.is_automatic() && may_query };
        let files = self.files.get_or_try_init(|| async { FileClient::new(&self.config) }).await?.clone();
        Ok(Some(ExportReader::new(Arc::new(reader.clone()), files, Arc::clone(&plan.supervision), rights)))
    }

    /// Warns where a project hides its older events, with the day from which on there are some. A key that
    /// may not read the project's settings reads events all the same.
    async fn warn_about_retention(&self, project: u64) {
        let retry = Retry::with_attempts(RETENTION_ATTEMPTS);
        if let Ok(settings) = account::project(&self.client, project, retry, &Silent).await
            && let Some(notice) = retention::notice(&settings, self.config.start, self.client.now())
        {
            tracing::warn!("project {project}: {notice}");
        }
    }

    /// Whether queries are quicker for the first read of a table, where exports would need a run for every week
    /// since the project began. `export_above` 0 asks for exports in any case.
    async fn is_quicker_by_query(&self, reader: &mut ProjectReader, exports: &ExportReader) -> Result<bool, Error> {
        let state = reader.checkpoint.project(reader.context.project).await;
        let is_first = state.watermark.is_none() && state.resume_from.is_none() && state.export.windows.is_empty();
        if !is_first || !self.may(QUERY_SCOPE) || reader.table.stream == EVENTS.stream || self.config.export_above == 0
        {
            return Ok(false);
        }
        if state.scan.is_some() || state.distinct_ids.is_some() {
            // A first read by query was interrupted; it goes on.
            return Ok(true);
        }
        let rows = if reader.table.stream == PERSON_DISTINCT_IDS.stream {
            let ProjectReader { context, page_size, checkpoint, .. } = reader.clone();
            DistinctIdReader { context, page_size, checkpoint }.count_all().await?
        } else {
            reader.choose_columns().await?;
            Some(reader.count_all(reader.wanted()).await?)
        };
        let Some(rows) = rows else { return Ok(false) };
        let concurrency = u64::try_from(self.config.concurrency).unwrap_or(u64::MAX);
        let is_in_order = reader.table.rows_move || reader.table.stream == PERSON_DISTINCT_IDS.stream;
        let first_read = FirstRead {
            rows,
            page_size: u64::from(reader.page_size.rows()),
            pages_at_a_time: if is_in_order { 1 } else { concurrency },
            pages_read_all: reader.table.rows_move,
            age: self.client.now().micros() - exports.beginning().await?.micros(),
            runs_at_a_time: u64::try_from(self.config.export_runs).unwrap_or(u64::MAX),
        };
        let estimate = first_read.estimate();
        let by_query = estimate.is_quicker_by_query();
        if by_query && self.plan.is_none() {
            // What is read now is what these figures show.
            exports.compare_persons().await?;
        }
        tracing::info!(
            "{rows} {}: {estimate}; the first read is by {}, later syncs export the changes",
            reader.table.stream,
            if by_query { "query" } else { "export" }
        );
        Ok(by_query)
    }

    /// Reads what exports have left out by query, where PostHog shows what has changed and the key may query.
    async fn read_left_out(&self, reader: &ProjectReader) -> Result<(), Error> {
        let state = reader.checkpoint.project(reader.context.project).await;
        let has_been_exported = state.method == Some(LastMethod::Export) && state.export.windows.is_empty();
        if reader.table.changes.is_none() || !has_been_exported || !self.may(QUERY_SCOPE) {
            return Ok(());
        }
        let reader = Arc::new(reader.clone());
        reader.compare_exported().await?;
        reader.read_left_out().await
    }

    /// Whether so little has changed that queries read it in seconds, and without a run.
    async fn are_few_changes(&self, reader: &ProjectReader) -> Result<bool, Error> {
        let state = reader.checkpoint.project(reader.context.project).await;
        let may_count = self.may(QUERY_SCOPE) && reader.context.incremental && state.export.windows.is_empty();
        if reader.table.changes.is_none() || state.watermark.is_none() || !may_count {
            return Ok(false);
        }
        let few = reader.count_changes().await?.filter(|rows| *rows <= self.config.export_above);
        if let Some(rows) = few {
            tracing::info!(
                "{rows} changed {} are read by query, which is quicker than an export run",
                reader.table.stream
            );
        }
        Ok(few.is_some())
    }

    /// Whether exports may be expected to work; otherwise queries read what exports would have.
    async fn may_export(&self, plan: &ProjectPlan, reader: &ProjectReader) -> bool {
        if reader.checkpoint.project(plan.id).await.method == Some(LastMethod::Export) {
            plan.supervision.prove();
        }
        let Some(reason) = plan.supervision.failure().filter(|_| self.may(QUERY_SCOPE)) else { return true };
        tracing::info!("{} are read by query, because file exports do not work here: {reason}", reader.table.stream);
        false
    }
}
