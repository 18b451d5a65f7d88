//! Marks persons that have been deleted, or merged into others.
//!
//! PostHog marks them by a row (`posthog/models/person/util.py`), in a table of all versions, but not
//! since when. Exports show it for deleted persons, and for none that was merged, since nothing belongs to
//! those any more. So the state keeps number and checksum of the ids that have been emitted as deleted, in 256
//! buckets; a sync asks for the same figures in one query, and reads the buckets that differ.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use serde_json::Map;

use super::emitted_rows::EmittedRows;
use super::figure_row::{self, Number};
use super::ledger::hogql;
use super::query::reader::ProjectReader;
use crate::error::Error;
use crate::posthog::http::{Failure, GiveUp, NextAttempt, Reason, Refusal};
use crate::posthog::query::{MOST_ROWS, Rows};
use crate::posthog::{After, Malformed, Predicate, Query, Row};
use crate::records::{Fingerprint, RowWriter, Written};
use crate::streams::{Column, PERSONS, RAW_PERSONS, deleted_person, newest_of_person};

/// The bucket of an id: its last two hex digits, which are random in every version of uuid. Two new deletions
/// make two buckets differ, whose other persons come again.
const BUCKET: &str = "reinterpretAsUInt32(unhex(right(toString(id), 2)))";
/// How often buckets are read before their disagreement with the count is final.
const ATTEMPTS: u32 = 3;
/// A comparison that reads less than this is part of every sync.
const CHEAP_BYTES: u64 = 400_000_000;
/// A more expensive one is done once in so much time.
const EXPENSIVE_EVERY: TimeDelta = TimeDelta::hours(24);

/// Reads the deleted persons of one project.
pub struct DeletedPersonReader<'a> {
    pub reader: &'a ProjectReader,
    /// What this sync has emitted already.
    pub emitted: &'a EmittedRows,
}

impl DeletedPersonReader<'_> {
    /// Emits those that have been deleted since the state.
    ///
    /// # Errors
    /// When the server does not answer usefully.
    pub async fn run(&self) -> Result<(), Error> {
        let (context, project) = (&self.reader.context, self.reader.context.project);
        let known = self.reader.checkpoint.project(project).await.deleted;
        let now = context.client.now();
        let recently = known.compared_at.is_some_and(|at| at > now.minus(EXPENSIVE_EVERY));
        if recently && known.bytes.is_some_and(|bytes| bytes > CHEAP_BYTES) {
            return Ok(());
        }
        let (observed, bytes) = match self.observe().await {
            Ok(Some(observed)) => observed,
            Err(GiveUp::Refused(Refusal {
                reason: Reason::UnknownTable(_) | Reason::UnknownColumn(_),
                summary,
                ..
            })) => {
                tracing::info!(
                    "this PostHog does not expose the table `{RAW_PERSONS}` ({summary}), so queries do not find deleted persons"
                );
                return Ok(());
            }
            Ok(None) => {
                tracing::warn!(
                    "PostHog could not find the deleted persons within its time limit, so this sync does not mark them"
                );
                return Ok(());
            }
            Err(give_up) => return Err(give_up.into()),
        };
        for part in parts(&known.buckets, &observed) {
            let figures = self.read_whole(&part, &observed).await?;
            self.reader
                .checkpoint
                .update(project, |state| {
                    for bucket in part {
                        let figure = figures.get(&bucket).copied().unwrap_or_default();
                        state.deleted.buckets.insert(bucket, figure);
                    }
                })
                .await?;
        }
        self.reader
            .checkpoint
            .update(project, |state| {
                state.deleted.buckets.retain(|bucket, _| observed.contains_key(bucket));
                state.deleted.compared_at = Some(now);
                state.deleted.bytes = Some(bytes);
            })
            .await
    }

    /// Figures of all buckets that have deleted persons, and the bytes that the server has read for them; none when
    /// that is too much for one query.
    async fn observe(&self) -> Result<Option<(BTreeMap<u8, Fingerprint>, u64)>, GiveUp> {
        let Some(answer) = figure_row::ask(&self.reader.context, PERSONS.stream, &figures(), 1).await? else {
            return Ok(None);
        };
        let figure = |row: &[Number]| {
            let [bucket, rows, sum] = row else { return None };
            let bucket = u8::try_from(bucket.unsigned()).ok()?;
            Some((bucket, Fingerprint::new(rows.unsigned(), sum.unsigned())))
        };
        Ok(Some((answer.rows.iter().filter_map(|row| figure(row)).collect(), answer.bytes)))
    }

    /// Emits the deleted persons of some buckets, again if there are fewer than have been observed. Returns their
    /// figures.
    async fn read_whole(
        &self,
        buckets: &[u8],
        observed: &BTreeMap<u8, Fingerprint>,
    ) -> Result<BTreeMap<u8, Fingerprint>, Error> {
        let rows = |figures: &BTreeMap<u8, Fingerprint>| -> u64 {
            buckets.iter().filter_map(|bucket| figures.get(bucket)).map(|figure| figure.count).sum()
        };
        let mut stored = rows(observed);
        let mut read = 0;
        for _ in 0..ATTEMPTS {
            let figures = self.read(buckets).await?;
            read = rows(&figures);
            if read >= stored {
                return Ok(figures);
            }
            // Those that have come back meanwhile are not missing.
            stored = self.observe().await?.map_or(stored, |(observed, _)| rows(&observed));
            if read >= stored {
                return Ok(figures);
            }
            tracing::warn!("{read} deleted persons read but PostHog counts {stored}; reading them again");
        }
        Err(Error::system(format!(
            "deleted persons do not agree with PostHog's count: {read} read, {stored} stored, after {ATTEMPTS} attempts; the next sync reads them again"
        )))
    }

    /// Emits the deleted persons of some buckets. Returns their figures.
    async fn read(&self, buckets: &[u8]) -> Result<BTreeMap<u8, Fingerprint>, Error> {
        let context = &self.reader.context;
        let columns = deleted_person(&context.selection);
        let mut writer = context.row_writer(self.reader.table, &columns);
        let mut figures = BTreeMap::new();
        let mut retry = context.client.retry();
        let mut after: Option<String> = None;
        let noticed = context.client.now().literal();
        loop {
            let limit = self.reader.page_size.rows();
            let query = page(&columns, buckets, &noticed, after.as_deref(), limit);
            let (mut rows, before) = (0, after.clone());
            let result = self.request(&query, &mut writer, &mut figures, &mut rows).await;
            after = writer.last_key().map_err(|problem| Error::system(problem.0))?.map(|key| key.id).or(after);
            match result {
                Ok(()) if rows == 0 => return Ok(figures),
                Ok(()) => {}
                Err(failure) => {
                    if after > before {
                        retry.progress();
                    }
                    let next = retry.after(failure, context.client.limiter()).await?;
                    if next == NextAttempt::Smaller && !self.reader.page_size.too_large(limit, true) {
                        return Err(Error::transient(
                            "PostHog cannot read even one deleted person in time; try again later",
                        ));
                    }
                }
            }
        }
    }

    async fn request(
        &self,
        query: &Query,
        writer: &mut RowWriter,
        figures: &mut BTreeMap<u8, Fingerprint>,
        rows: &mut u64,
    ) -> Result<(), Failure> {
        let context = &self.reader.context;
        let mut response = Rows::open(&context.client, context.project, query, &context.observer).await?;
        writer.stamp();
        let mut batch = context.batch();
        loop {
            let (lines, records) = (batch.lines.as_vec(), &mut batch.records);
            let mut take = |row: &Row<'_>| -> Result<(), Malformed> {
                let begin = lines.len();
                *rows += 1;
                if writer.write(row, lines)? == Written::Copy {
                    return Ok(());
                }
                let text = |place: usize| row.get(place).map_or("", |value| value.get());
                let id = text(0).trim_matches('"').as_bytes();
                let mut person = Fingerprint::EMPTY;
                person.add_uuid(id);
                let bucket = u8::try_from(person.checksum & 0xff).unwrap_or_default();
                let figure: &mut Fingerprint = figures.entry(bucket).or_default();
                *figure = figure.plus(person);
                let version = text(row.len() - 1).as_bytes();
                if self.emitted.is_new(PERSONS.stream, id, version) {
                    *records += 1;
                } else {
                    lines.truncate(begin);
                }
                Ok(())
            };
            let outcome = response.read(&mut take).await;
            let ended = !matches!(outcome, Ok(None));
            batch.send(ended).await?;
            if ended {
                return outcome.map(|_| ());
            }
        }
    }
}

/// Asks for the figures of all buckets that have deleted persons.
fn figures() -> Query {
    let newest = format!("(SELECT id, argMax(is_deleted, version) AS gone FROM {RAW_PERSONS} GROUP BY id) AS newest");
    let mut predicate = Predicate::default();
    predicate.condition("gone = 1".to_owned(), Map::default());
    let columns = format!("{BUCKET} AS bucket, count() AS row_count, sum({}) AS row_checksum", hogql::checksum("id"));
    let grouped = predicate.select(&columns, &newest, "GROUP BY bucket");
    Query { text: hogql::one_row("bucket, row_count, row_checksum", &grouped.text), ..grouped }
}

/// Asks for the deleted persons of some buckets after an id.
fn page(columns: &[Column], buckets: &[u8], noticed: &str, after: Option<&str>, limit: u32) -> Query {
    let list: Vec<String> = buckets.iter().map(u8::to_string).collect();
    let mut chosen = Predicate::default();
    chosen.condition(format!("{BUCKET} IN ({})", list.join(", ")), Map::default());
    if let Some(after) = after {
        chosen.after_values(&[("toString(id)".to_owned(), After::Text(after.to_owned()))]);
    }
    let newest = chosen.select(&newest_of_person(columns), RAW_PERSONS, "GROUP BY id");
    let columns: Vec<&str> = columns
        .iter()
        .filter_map(|column| if column.field == "updated_at" { Some(noticed) } else { column.expression })
        .collect();
    let text = format!(
        "SELECT {} FROM ({}) AS newest WHERE gone = 1 ORDER BY toString(id) LIMIT {limit}",
        columns.join(", "),
        newest.text
    );
    Query { text, ..newest }
}

/// The buckets to read, in parts that are read, and then noted, as one. A bucket in which nothing is
/// deleted any more needs no reading.
fn parts(emitted: &BTreeMap<u8, Fingerprint>, observed: &BTreeMap<u8, Fingerprint>) -> Vec<Vec<u8>> {
    let mut parts: Vec<Vec<u8>> = Vec::new();
    let mut rows = 0;
    for (bucket, figure) in observed.iter().filter(|(bucket, figure)| emitted.get(bucket) != Some(figure)) {
        rows += figure.count;
        if let Some(part) = parts.last_mut().filter(|_| rows <= u64::from(MOST_ROWS)) {
            part.push(*bucket);
        } else {
            parts.push(vec![*bucket]);
            rows = figure.count;
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams::Selection;

    #[test]
    fn buckets_that_differ_are_read_in_parts_of_a_page() {
        let figure = |count: u64| Fingerprint::new(count, count);
        let emitted = [(0, figure(1)), (1, figure(2)), (9, figure(7))].into();
        let observed =
            [(0, figure(1)), (1, figure(3)), (2, figure(49_000)), (3, figure(60_000)), (4, figure(1))].into();
        assert_eq!(parts(&emitted, &observed), [vec![1, 2], vec![3], vec![4]]);
        assert_eq!(parts(&observed, &observed), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn ids_from_outside_travel_as_values() {
        let query = page(&deleted_person(&Selection::all()), &[1, 63], "now", Some("it's"), 5);
        assert!(query.text.contains("IN (1, 63) AND toString(id) > {after_0} GROUP BY id) AS newest"), "{query:?}");
        assert_eq!(query.values["after_0"], "it's");
    }
}
