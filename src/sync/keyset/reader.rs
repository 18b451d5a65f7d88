//! Reads a keyset stream of one project: pages in the order of the key, then a count.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::state::KeysetState;
use super::windows::{self, Keys, Planned};
use super::{cursor, owners};
use crate::error::Error;
use crate::posthog::http::{Failure, GiveUp, NextAttempt, Reason, Refusal};
use crate::posthog::query::{MOST_ROWS, Rows};
use crate::posthog::{After, Malformed, Predicate, Query, Row, row_size};
use crate::records::KeysetRowWriter;
use crate::streams::{Column, KeysetStream, KeysetTable};
use crate::sync::context::{LOOKBACK, ReadContext};
use crate::sync::page_size::PageSize;
use crate::sync::read_plan::{PlannedMethod, PlannedRead};
use crate::sync::report::{Counts, Proof};
use crate::sync::state::checkpoint::Checkpoint;
use crate::time::Timestamp;

/// How often a part is read before its disagreement with the count is final.
const ATTEMPTS: u32 = 3;

/// Reads one keyset stream of one project.
pub struct KeysetReader {
    /// Whom to ask, and where records go.
    pub context: ReadContext,
    /// What is read.
    pub keyset: &'static KeysetStream,
    /// Rows to ask for.
    pub page_size: PageSize,
    /// Where progress is kept.
    pub checkpoint: Arc<Checkpoint<KeysetState>>,
}

/// What a part holds by the server's count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct StoredRows {
    rows: u64,
    keys: u64,
}

/// The windows of a part, and the bytes that finding them has cost.
struct Windows {
    planned: Vec<Planned>,
    bytes: u64,
}

/// What reading a page has brought.
#[derive(Default)]
struct PageTotals {
    rows: u64,
    records: u64,
    bytes: u64,
    /// See [`KeysetState::reached`].
    reached: Option<Value>,
}

impl KeysetReader {
    /// Reads everything, or what is new at the cursor.
    ///
    /// # Errors
    /// When a part cannot be read, or what was read does not agree with PostHog's count.
    pub async fn run(&self) -> Result<(), Error> {
        let mut state = self.checkpoint.project(self.context.project).await;
        let query = self.fingerprint();
        if state.query.as_ref().is_some_and(|known| *known != query) {
            tracing::info!(
                "the state of {} is that of another query or sync mode, so everything is read again",
                self.keyset.stream
            );
            state = KeysetState::default();
        }
        state.query = Some(query);
        if state.done && !self.context.incremental {
            return Ok(());
        }
        let now = self.context.client.now();
        self.distrust_the_future(&mut state, now);
        if self.context.plan.is_some() {
            return self.plan(&state).await;
        }
        self.mention_rows_without_cursor(&state).await?;
        state.begun = self.cursor().map(|_| state.begun.unwrap_or(now));
        let (mut bytes, first) = (0, state.part);
        for (number, part) in (0..).zip(self.keyset.parts).skip_while(|(number, _)| *number < first) {
            state.part = number;
            match self.read_part(part, &mut state).await {
                Ok(more) => bytes += more,
                Err(GiveUp::Refused(Refusal { reason: Reason::UnknownTable(_), .. })) if part.optional => {
                    tracing::info!("this PostHog has no table `{}`", part.from);
                }
                Err(give_up) => return Err(give_up.into()),
            }
            state.watermark = state.reached.take().or(state.watermark);
            state.window = None;
            state.rewind();
        }
        if bytes > 0 {
            tracing::info!("reading {} made PostHog read {bytes} bytes", self.keyset.stream);
        }
        let state = KeysetState { part: 0, begun: None, done: !self.context.incremental, ..state };
        self.checkpoint.set(self.context.project, state).await
    }

    /// Enters what would be read, if nothing is to be read, by one count of each part.
    async fn plan(&self, state: &KeysetState) -> Result<(), Error> {
        for part in (0..).zip(self.keyset.parts).skip_while(|(number, _)| *number < state.part).map(|(_, part)| part) {
            let mut bytes = 0;
            let keys = match self.count(part, &KeysetState { window: None, ..state.clone() }, &mut bytes).await {
                Ok(stored) => stored.keys,
                Err(GiveUp::Refused(Refusal { reason: Reason::UnknownTable(_), .. })) if part.optional => continue,
                Err(give_up) => return Err(give_up.into()),
            };
            let pages = PlannedRead::pages(keys, self.page_size.rows(), 0);
            // A page of a window reads nothing but its window; any other reads what counting does.
            let (counts, reads) = if self.keyset.windows.is_some() { (2, 3) } else { (1, pages.queries + 1) };
            let planned = PlannedRead { queries: pages.queries + counts, bytes: bytes.saturating_mul(reads), ..pages };
            self.context.plan_read(PlannedMethod::Query, planned);
        }
        Ok(())
    }

    /// Forgets what a state says of a time that has not come yet: rows that were added before that time
    /// would never be read.
    fn distrust_the_future(&self, state: &mut KeysetState, now: Timestamp) {
        let Some(kind) = self.cursor().map(|column| column.kind) else { return };
        let latest = now.minus(-LOOKBACK);
        let watermark = state.watermark.clone().filter(|watermark| cursor::is_ahead(kind, watermark, latest));
        if watermark.is_some() || state.begun.is_some_and(|begun| begun > latest) {
            tracing::warn!(
                "the state of {} is ahead of PostHog's clock ({now}), so everything is read again",
                self.keyset.stream
            );
            *state = KeysetState { query: state.query.take(), ..KeysetState::default() };
        }
    }

    /// Reads a part, window by window if the stream has windows. Returns the bytes that this has cost.
    async fn read_part(&self, part: &KeysetTable, state: &mut KeysetState) -> Result<u64, GiveUp> {
        let Some(windows) = self.windows(part, state).await? else {
            if state.window.take().is_some() {
                state.rewind();
            }
            return self.read_rows(part, state, None).await;
        };
        let mut bytes = windows.bytes;
        for Planned { window, keys } in windows.planned {
            if state.window != Some(window) {
                state.window = Some(window);
                state.rewind();
            }
            bytes += self.read_rows(part, state, Some(keys)).await?;
        }
        Ok(bytes)
    }

    /// The windows that are still to be read; none for a stream without them, or if the server cannot count
    /// them in time.
    async fn windows(&self, part: &KeysetTable, state: &KeysetState) -> Result<Option<Windows>, GiveUp> {
        let Some(field) = self.keyset.windows else { return Ok(None) };
        let (everything, mut bytes) = (KeysetState::default(), 0);
        let total = self.count(part, &everything, &mut bytes).await?.keys;
        let Some(counted) = self.count_by(field, part, total, &mut bytes).await? else { return Ok(None) };
        let found: u64 = counted.iter().map(|keys| keys.keys).sum();
        if found < total && found < self.count(part, &everything, &mut bytes).await?.keys {
            return Err(GiveUp::Unusable(format!(
                "PostHog's counts of {} do not agree: {found} keys by {field}, but {total} in all; the next sync tries again",
                self.keyset.stream
            )));
        }
        let numbers: Vec<i64> = counted.iter().map(|keys| keys.number).collect();
        let deleted = match self.keyset.owners {
            Some(list) => owners::deleted(&self.context, list, &numbers).await?,
            None => BTreeSet::new(),
        };
        if !deleted.is_empty() {
            tracing::info!("rows of {} deleted {} are left out", deleted.len(), self.keyset.owners.unwrap_or_default());
        }
        let planned = windows::plan(&counted, &deleted, self.page_size.rows().into(), state.window);
        Ok(Some(Windows { planned, bytes }))
    }

    /// Counts the different keys by the numbers in `field`, in ascending order; none if the server cannot do it in
    /// time.
    async fn count_by(
        &self,
        field: &str,
        part: &KeysetTable,
        total: u64,
        bytes: &mut u64,
    ) -> Result<Option<Vec<Keys>>, GiveUp> {
        let expression = self.keyset.expression(field);
        let key: Vec<String> = self.key().collect();
        let columns = format!("{expression} AS number, uniqExact(tuple({}))", key.join(", "));
        let tail = format!("GROUP BY number ORDER BY number LIMIT {MOST_ROWS}");
        let (mut counted, mut found) = (Vec::<Keys>::new(), 0);
        loop {
            let mut predicate = Predicate::default();
            if let Some(last) = counted.last() {
                predicate.at_least(expression, &(last.number.saturating_add(1)).to_string());
            }
            let query = predicate.select(&columns, part.from, &tail);
            let Some(response) = self.context.ask_unless_too_large::<(i64, u64)>(&query).await? else {
                return Ok(None);
            };
            *bytes += response.bytes_read.unwrap_or(0);
            found += response.rows.iter().map(|(_, keys)| keys).sum::<u64>();
            let is_end = response.rows.is_empty() || found >= total;
            counted.extend(response.rows.into_iter().map(|(number, keys)| Keys { number, keys }));
            if is_end {
                return Ok(Some(counted));
            }
        }
    }

    /// Reads the rows of a part, or of the state's window, and compares them with the count, which is `counted`
    /// if it is known. Returns the bytes that this has cost.
    async fn read_rows(
        &self,
        part: &KeysetTable,
        state: &mut KeysetState,
        mut counted: Option<u64>,
    ) -> Result<u64, GiveUp> {
        let mut bytes = 0;
        for _ in 0..ATTEMPTS {
            let before = match counted.take() {
                Some(keys) => StoredRows { rows: keys, keys },
                None => self.count(part, state, &mut bytes).await?,
            };
            if self.keyset.key_must_be_unique && before.keys < before.rows {
                return Err(GiveUp::Fatal(Error::config(format!(
                    "`primary_key` of the custom query `{}` is not unique: {} rows have {} different keys, so rows would be lost; name columns that uniquely identify a row",
                    self.keyset.stream, before.rows, before.keys
                ))));
            }
            let ReadContext { selection, stream, project, nulled, .. } = &self.context;
            let mut writer = KeysetRowWriter::new(self.keyset, part, selection, self.order().len(), stream, *project)
                .warning(nulled)
                .ordered_by(self.cursor().map(|column| column.kind));
            writer.continue_after(&state.after);
            loop {
                let page = self.read_page(part, state, &mut writer).await?;
                bytes += page.bytes;
                state.rows += page.records;
                // A short page is the end only if nothing is missing: a server may have a lower limit
                // than it admits.
                let short = page.rows < u64::from(self.page_size.rows());
                let ended = page.rows == 0 || (short && state.rows >= before.keys);
                if ended && state.window.is_none() {
                    break;
                }
                self.checkpoint.set(self.context.project, state.clone()).await?;
                if ended {
                    break;
                }
            }
            if state.rows >= before.keys {
                self.context.report.counted(Proof::Counted, Counts::of(state.rows, before.keys));
                return Ok(bytes);
            }
            let after = self.count(part, state, &mut bytes).await?;
            if state.rows >= after.keys {
                self.context.report.counted(Proof::Counted, Counts::of(state.rows, after.keys));
                return Ok(bytes);
            }
            tracing::warn!(
                "{} {} read but PostHog counts {}; reading them again",
                state.rows,
                self.keyset.stream,
                after.keys
            );
            state.rewind();
        }
        Err(GiveUp::Fatal(Error::system(format!(
            "{} do not agree with PostHog's count, after {ATTEMPTS} attempts; the next sync reads them again",
            self.keyset.stream
        ))))
    }

    /// Identifies a query and its order: a place in the rows of one query means nothing in those of
    /// another.
    fn fingerprint(&self) -> String {
        let mut digest = Sha256::new();
        let parts = self.keyset.parts.iter().map(|part| part.from);
        let cursor = self.cursor().map(|column| column.field);
        for text in parts.chain(self.keyset.key.iter().copied()).chain(cursor).chain(self.keyset.windows) {
            digest.update(text);
            digest.update([0]);
        }
        let begin = digest.finalize().first_chunk().copied().unwrap_or_default();
        format!("{:016x}", u64::from_be_bytes(begin))
    }

    /// The cursor's column, if this sync goes by it.
    fn cursor(&self) -> Option<&'static Column> {
        let cursor = self.keyset.cursor.filter(|_| self.context.incremental)?;
        self.keyset.columns.iter().find(|column| column.field == cursor)
    }

    /// Incremental syncs select rows by the cursor, so rows without one are never read. The first sync
    /// warns about them.
    async fn mention_rows_without_cursor(&self, state: &KeysetState) -> Result<(), Error> {
        let Some((cursor, expression)) = self.cursor().and_then(|column| Some((column.field, column.expression?)))
        else {
            return Ok(());
        };
        if state.watermark.is_some() || !state.after.is_empty() {
            return Ok(());
        }
        // A part that some versions lack is not asked about; its absence shows when it is read.
        for part in self.keyset.parts.iter().filter(|part| !part.optional) {
            let mut predicate = Predicate::default();
            predicate.has_value(expression, false);
            let query = predicate.select("count()", part.from, "LIMIT 1");
            let response = self.context.ask_unless_too_large::<(u64,)>(&query).await?;
            let lacking = response.and_then(|response| response.rows.first().copied()).map_or(0, |(rows,)| rows);
            if lacking > 0 {
                tracing::warn!(
                    "{lacking} rows of {} have no value in the cursor field `{cursor}`; incremental syncs leave them out, a full refresh reads them",
                    self.keyset.stream
                );
            }
        }
        Ok(())
    }

    /// The key's values as texts: two rows are the same when these are.
    fn key(&self) -> impl Iterator<Item = String> {
        self.keyset.key.iter().map(|field| format!("coalesce(toString({}), '')", self.keyset.expression(field)))
    }

    /// What rows are ordered by: the cursor, if there is one, and the key's values as texts.
    fn order(&self) -> Vec<String> {
        let cursor = self.cursor().and_then(|column| column.expression).map(str::to_owned);
        cursor.into_iter().chain(self.key()).collect()
    }

    /// The rows that this sync has to read.
    fn predicate(&self, state: &KeysetState) -> Result<Predicate, Error> {
        let mut predicate = Predicate::default();
        if let Some(expression) = self.cursor().and_then(|column| column.expression) {
            predicate.has_value(expression, true);
        }
        if let Some((field, window)) = self.keyset.windows.zip(state.window) {
            predicate.condition(window.condition(self.keyset.expression(field)), Map::new());
        }
        if let Some(((column, expression), watermark)) =
            self.cursor().and_then(|column| Some((column, column.expression?))).zip(state.watermark.as_ref())
        {
            let from = cursor::with_lookback(column.kind, watermark, LOOKBACK);
            let from = from.ok_or_else(|| self.unusable(watermark))?;
            predicate.at_least(expression, &from);
        }
        Ok(predicate)
    }

    fn unusable(&self, value: &Value) -> Error {
        Error::config(format!(
            "the state of `{}` is not usable: {value} is not a value of its cursor field. To read everything again, start without a state",
            self.keyset.stream
        ))
    }

    fn page(&self, part: &KeysetTable, state: &KeysetState, limit: u32) -> Result<Query, Error> {
        let mut predicate = self.predicate(state)?;
        let order = self.order();
        if !state.after.is_empty() {
            let mut after = Vec::with_capacity(order.len());
            let cursor = self.cursor().map(|column| column.kind);
            for (index, (expression, value)) in order.iter().zip(&state.after).enumerate() {
                let value = match cursor.filter(|_| index == 0) {
                    Some(kind) => After::Literal(cursor::literal(kind, value).ok_or_else(|| self.unusable(value))?),
                    None => After::Text(value.as_str().ok_or_else(|| self.unusable(value))?.to_owned()),
                };
                after.push((expression.clone(), value));
            }
            predicate.after_values(&after);
        }
        let columns = self.keyset.selected(&self.context.selection);
        let list: Vec<&str> =
            columns.iter().filter_map(|column| column.expression).chain(order.iter().map(|it| &**it)).collect();
        Ok(predicate.select(&list.join(", "), part.from, &format!("ORDER BY {} LIMIT {limit}", order.join(", "))))
    }

    /// Reads one page, however often that takes.
    async fn read_page(
        &self,
        part: &KeysetTable,
        state: &mut KeysetState,
        writer: &mut KeysetRowWriter,
    ) -> Result<PageTotals, GiveUp> {
        let mut retry = self.context.client.retry();
        let mut read = PageTotals::default();
        loop {
            let limit = self.page_size.rows();
            let query = self.page(part, state, limit)?;
            let before = read.rows;
            let failure = self.request(&query, state, writer, &mut read).await.err();
            state.reached = read.reached.take().or(state.reached.take());
            if read.rows > before && !writer.last().is_empty() {
                if state.after == writer.last() {
                    return Err(GiveUp::Fatal(Error::system(format!(
                        "PostHog answers with the same page of {} again and again",
                        self.keyset.stream
                    ))));
                }
                state.after = writer.last().to_vec();
                retry.progress();
            }
            let Some(failure) = failure else { return Ok(read) };
            match retry.after(failure, self.context.client.limiter()).await? {
                NextAttempt::Same => {}
                NextAttempt::Smaller if self.page_size.too_large(limit, true) => {}
                NextAttempt::Smaller => {
                    return Err(GiveUp::Fatal(Error::transient(format!(
                        "PostHog cannot read even one row of {} in time; try again later",
                        self.keyset.stream
                    ))));
                }
            }
        }
    }

    /// Sends one request and emits its rows as they come.
    async fn request(
        &self,
        query: &Query,
        state: &KeysetState,
        writer: &mut KeysetRowWriter,
        read: &mut PageTotals,
    ) -> Result<(), Failure> {
        let context = &self.context;
        let mut response = Rows::open(&context.client, context.project, query, &context.observer).await?;
        read.bytes += response.bytes_read().unwrap_or(0);
        writer.stamp();
        let cursor = self.cursor().map(|column| column.kind).zip(state.begun);
        let mut batch = self.context.batch();
        loop {
            let (lines, records, rows) = (&mut batch.lines, &mut batch.records, &mut read.rows);
            let reached = &mut read.reached;
            let mut take = |row: &Row<'_>| -> Result<(), Malformed> {
                lines.make_room(row_size(row));
                *records += u64::from(lines.append(|lines| writer.write(row, lines))?);
                *rows += 1;
                // Only a cursor is worth a look at every row.
                if let Some((kind, begun)) = cursor {
                    let sort_key = writer.position().filter(|value| !cursor::is_ahead(kind, value, begun));
                    *reached = sort_key.cloned().or(reached.take());
                }
                Ok(())
            };
            let outcome = response.read(&mut take).await;
            let ended = !matches!(outcome, Ok(None));
            read.records += batch.send(ended).await?;
            if ended {
                return outcome.map(|_| ());
            }
        }
    }

    /// Counts the rows of a part, or of the state's window, and their different keys. Adds the bytes that this
    /// has cost to `bytes`.
    async fn count(&self, part: &KeysetTable, state: &KeysetState, bytes: &mut u64) -> Result<StoredRows, GiveUp> {
        let key: Vec<String> = self.key().collect();
        let columns = format!("count(), uniqExact(tuple({}))", key.join(", "));
        let query = self.predicate(state)?.select(&columns, part.from, "LIMIT 1");
        let response = match self.context.ask::<(u64, u64)>(&query).await {
            Ok(response) => response,
            Err(GiveUp::TooLarge { .. }) => {
                tracing::warn!(
                    "PostHog cannot count {} within its time limit, so the rows read are not compared with its count",
                    self.keyset.stream
                );
                return Ok(StoredRows::default());
            }
            Err(give_up) => return Err(give_up),
        };
        *bytes += response.bytes_read.unwrap_or(0);
        let (rows, keys) =
            response.rows.first().copied().ok_or_else(|| {
                GiveUp::Unusable(format!("PostHog's count of {} returned no row", self.keyset.stream))
            })?;
        Ok(StoredRows { rows, keys })
    }
}
