//! Reads `person_distinct_ids` of one project by query.
//!
//! PostHog keeps these rows in the order of their distinct ids, so pages of the table itself, compared with
//! the last distinct id directly, cost what they hold. (Through the table that PostHog shows to users, each
//! page costs all rows that are still ahead, because the newest version of each is looked for first.)
//! Several rows of one distinct id become one here. Nothing shows when a row has changed, so each sync reads
//! all of them.

use std::sync::Arc;

use serde::de::IgnoredAny;

use super::context::ReadContext;
use super::page_size::PageSize;
use super::read_plan::{PlannedMethod, PlannedRead};
use super::report::{Counts, Proof};
use super::state::checkpoint::Checkpoint;
use super::state::export::ExportState;
use super::state::table::{DistinctIdsRead, LastMethod, ProjectState};
use crate::error::Error;
use crate::posthog::http::{Failure, GiveUp, NextAttempt, Reason, Refusal};
use crate::posthog::query::Rows;
use crate::posthog::{After, Malformed, Predicate, Query, Row};
use crate::records::DistinctIdWriter;
use crate::streams::{Column, PERSON_DISTINCT_IDS, WITHOUT_VERSIONS};

/// How often everything is read before its disagreement with the count is final.
const ATTEMPTS: u32 = 3;

/// Reads the distinct ids of one project.
pub struct DistinctIdReader {
    pub context: ReadContext,
    pub page_size: Arc<PageSize>,
    pub checkpoint: Arc<Checkpoint<ProjectState>>,
}

/// What a page has brought.
struct Page {
    rows: u64,
    /// Rows that were asked for.
    limit: u32,
    /// The distinct id whose rows it may have cut.
    last: Option<String>,
}

/// The table that is read, and what of it.
struct TableInUse {
    from: &'static str,
    columns: Vec<Column>,
}

impl DistinctIdReader {
    /// Reads all of them.
    ///
    /// # Errors
    /// When they cannot be read, or what was read does not agree with PostHog's count.
    pub async fn run(&self) -> Result<(), Error> {
        let project = self.context.project;
        let state = self.checkpoint.project(project).await;
        if state.watermark.is_some() && state.distinct_ids.is_none() && !self.context.incremental {
            return Ok(());
        }
        let (table, mut expected) = self.table_and_count().await?;
        if self.context.plan.is_some() {
            let rows = expected.unwrap_or_default();
            let pages = PlannedRead::pages(rows, self.page_size.rows(), rows);
            self.context.plan_read(PlannedMethod::Query, PlannedRead { rows: expected, ..pages });
            return Ok(());
        }
        let now = self.context.client.now();
        let beginning = || DistinctIdsRead { begun: now, after: None, rows: 0 };
        let mut read = state.distinct_ids.unwrap_or_else(beginning);
        for attempt in 1.. {
            self.read_all(&table, &mut read, expected).await?;
            if expected.is_none_or(|expected| read.rows >= expected) {
                break;
            }
            // Those that have been deleted meanwhile are not missing.
            expected = self.count(&table).await?;
            let Some(expected) = expected.filter(|expected| read.rows < *expected) else { break };
            if attempt == ATTEMPTS {
                return Err(Error::system(format!(
                    "person_distinct_ids do not agree with PostHog's count: {} read, {expected} stored, after {ATTEMPTS} attempts; the next sync reads them again",
                    read.rows
                )));
            }
            tracing::warn!("{} person_distinct_ids read but PostHog counts {expected}; reading them again", read.rows);
            read = DistinctIdsRead { begun: read.begun, ..beginning() };
        }
        match expected {
            Some(expected) => self.context.report.counted(Proof::Counted, Counts::of(read.rows, expected)),
            None => self.context.report.proven_by(Proof::ReadToEnd),
        }
        let change = |state: &mut ProjectState| {
            state.distinct_ids = None;
            state.watermark = Some(read.begun);
            state.method = Some(LastMethod::Query);
            state.export = ExportState::default();
            state.resume_from = None;
        };
        self.checkpoint.update(project, change).await
    }

    /// How many distinct ids there are; none when that cannot be counted.
    ///
    /// # Errors
    /// When the server does not answer usefully.
    pub async fn count_all(&self) -> Result<Option<u64>, Error> {
        Ok(self.table_and_count().await?.1)
    }

    /// The table that this instance has, and how many distinct ids are in it.
    async fn table_and_count(&self) -> Result<(TableInUse, Option<u64>), Error> {
        let table = TableInUse {
            from: PERSON_DISTINCT_IDS.from,
            columns: PERSON_DISTINCT_IDS.selected(false, &self.context.selection),
        };
        let refusal = match self.counted(&table).await {
            Ok(count) => return Ok((table, count)),
            Err(GiveUp::Refused(refusal)) if lacks_the_table(&refusal) => refusal,
            Err(give_up) => return Err(give_up.into()),
        };
        tracing::warn!(
            "this PostHog does not expose the table `{}` ({}), so distinct ids are read from `{WITHOUT_VERSIONS}`: deleted ones are missing, and `version` is null",
            table.from,
            refusal.summary
        );
        let with_versions = ["is_deleted", "version"];
        let columns = table.columns.iter().filter(|column| !with_versions.contains(&column.field)).copied().collect();
        let table = TableInUse { from: WITHOUT_VERSIONS, columns };
        let count = self.count(&table).await?;
        Ok((table, count))
    }

    async fn count(&self, table: &TableInUse) -> Result<Option<u64>, Error> {
        Ok(self.counted(table).await?)
    }

    async fn counted(&self, table: &TableInUse) -> Result<Option<u64>, GiveUp> {
        // The columns are asked for in the same query, which fails if one is missing.
        let columns: Vec<&str> = table.columns.iter().filter_map(|column| column.expression).collect();
        let probe = Predicate::default().select(&columns.join(", "), table.from, "LIMIT 0");
        self.context.ask::<IgnoredAny>(&probe).await?;
        let query = Predicate::default().select("uniqExact(distinct_id)", table.from, "LIMIT 1");
        match self.context.ask::<(u64,)>(&query).await {
            Ok(response) => {
                let no_row = || GiveUp::Unusable("PostHog's count of person_distinct_ids returned no row".to_owned());
                Ok(Some(response.rows.first().ok_or_else(no_row)?.0))
            }
            Err(GiveUp::TooLarge { .. }) => {
                tracing::warn!(
                    "PostHog cannot count person_distinct_ids within its time limit, so the rows read are not compared with its count"
                );
                Ok(None)
            }
            Err(give_up) => Err(give_up),
        }
    }

    /// Reads page after page until there are no more rows.
    async fn read_all(
        &self,
        table: &TableInUse,
        read: &mut DistinctIdsRead,
        expected: Option<u64>,
    ) -> Result<(), Error> {
        loop {
            let before = read.rows;
            let Page { rows, limit, last } = self.read_page(table, read).await?;
            if rows == 0 {
                return Ok(());
            }
            // A page may have cut the rows of its last distinct id, which therefore come again. If it has no
            // others, their newest is asked for.
            if let Some(last) = last {
                let is_last = rows < u64::from(limit) && expected.is_some_and(|expected| read.rows + 1 >= expected);
                if is_last || read.rows == before {
                    self.read_newest(table, last, read).await?;
                }
                if is_last {
                    return Ok(());
                }
            }
            let progress = read.clone();
            self.checkpoint.update(self.context.project, |state| state.distinct_ids = Some(progress)).await?;
        }
    }

    fn page(table: &TableInUse, after: Option<&str>, limit: u32) -> Query {
        let mut predicate = Predicate::default();
        if let Some(after) = after {
            predicate.after_values(&[("distinct_id".to_owned(), After::Text(after.to_owned()))]);
        }
        Self::select(&predicate, table, &format!("ORDER BY distinct_id LIMIT {limit}"))
    }

    fn newest_of(table: &TableInUse, distinct_id: &str) -> Query {
        let mut predicate = Predicate::default();
        let values = [("only".to_owned(), serde_json::Value::from(distinct_id))].into_iter().collect();
        predicate.condition("distinct_id = {only}".to_owned(), values);
        let has_versions = table.columns.iter().any(|column| column.field == "version");
        Self::select(&predicate, table, if has_versions { "ORDER BY version DESC LIMIT 1" } else { "LIMIT 1" })
    }

    fn select(predicate: &Predicate, table: &TableInUse, tail: &str) -> Query {
        let columns: Vec<&str> = table.columns.iter().filter_map(|column| column.expression).collect();
        predicate.select(&columns.join(", "), table.from, tail)
    }

    /// Reads the newest row of one distinct id.
    async fn read_newest(
        &self,
        table: &TableInUse,
        distinct_id: String,
        read: &mut DistinctIdsRead,
    ) -> Result<(), Error> {
        let query = Self::newest_of(table, &distinct_id);
        let mut writer = self.writer(table, read);
        let mut retry = self.context.client.retry();
        while let Err(failure) = self.request(&query, &mut writer, read, &mut 0).await {
            if retry.after(failure, self.context.client.limiter()).await? == NextAttempt::Smaller {
                return Err(too_large());
            }
        }
        let mut batch = self.context.batch();
        if writer.finish(batch.lines.as_vec()) {
            batch.records += 1;
            read.rows += batch.send(true).await?;
        }
        read.after = Some(distinct_id);
        Ok(())
    }

    /// Reads one page, however often that takes.
    async fn read_page(&self, table: &TableInUse, read: &mut DistinctIdsRead) -> Result<Page, Error> {
        let mut retry = self.context.client.retry();
        loop {
            let (mut rows, before, limit) = (0, read.rows, self.page_size.rows());
            let query = Self::page(table, read.after.as_deref(), limit);
            let mut writer = self.writer(table, read);
            let failure = match self.request(&query, &mut writer, read, &mut rows).await {
                Ok(()) => return Ok(Page { rows, limit, last: writer.drop_last() }),
                Err(failure) => failure,
            };
            if read.rows > before {
                retry.progress();
            }
            match retry.after(failure, self.context.client.limiter()).await? {
                NextAttempt::Same => {}
                NextAttempt::Smaller if self.page_size.too_large(limit, true) => {}
                NextAttempt::Smaller => return Err(too_large()),
            }
        }
    }

    fn writer(&self, table: &TableInUse, read: &DistinctIdsRead) -> DistinctIdWriter {
        let context = &self.context;
        DistinctIdWriter::new(
            &PERSON_DISTINCT_IDS,
            &table.columns,
            &context.selection,
            &context.stream,
            context.project,
            read.after.clone(),
        )
        .warning(&context.nulled)
    }

    /// Sends one request and emits records as its rows come; `read` goes along.
    async fn request(
        &self,
        query: &Query,
        writer: &mut DistinctIdWriter,
        read: &mut DistinctIdsRead,
        rows: &mut u64,
    ) -> Result<(), Failure> {
        let context = &self.context;
        let mut response = Rows::open(&context.client, context.project, query, &context.observer).await?;
        writer.stamp();
        let mut batch = context.batch();
        loop {
            let (lines, records) = (batch.lines.as_vec(), &mut batch.records);
            let mut take = |row: &Row<'_>| -> Result<(), Malformed> {
                *records += u64::from(writer.write(row, lines)?);
                *rows += 1;
                Ok(())
            };
            let outcome = response.read(&mut take).await;
            let ended = !matches!(outcome, Ok(None));
            read.rows += batch.send(ended).await?;
            if ended {
                read.after = writer.written().map(str::to_owned);
                return outcome.map(|_| ());
            }
        }
    }
}

fn lacks_the_table(refusal: &Refusal) -> bool {
    matches!(refusal.reason, Reason::UnknownTable(_) | Reason::UnknownColumn(_))
}

fn too_large() -> Error {
    Error::transient("PostHog cannot read even one row of person_distinct_ids in time; try again later")
}
