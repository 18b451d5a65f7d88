//! What all scans and windows of one project share, and the queries that they ask.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Map;

use super::plan::Day;
use crate::error::Error;
use crate::posthog::query::{MOST_ROWS, Small};
use crate::posthog::{Predicate, Query, RowKey};
use crate::streams::{Changes, Column, Table};
use crate::sync::context::{LOOKBACK, ReadContext};
use crate::sync::page_size::PageSize;
use crate::sync::state::checkpoint::Checkpoint;
use crate::sync::state::interval::Interval;
use crate::sync::state::scan::Changed;
use crate::sync::state::table::ProjectState;
use crate::time::Timestamp;

/// Reads one table of one project. Cheap to clone.
#[derive(Clone)]
pub struct ProjectReader {
    /// Whom to ask, and where records go.
    pub context: ReadContext,
    /// What is read.
    pub table: &'static Table,
    /// Selected columns.
    pub columns: Vec<Column>,
    /// Rows to ask for.
    pub page_size: Arc<PageSize>,
    /// Whether persons of events are those at ingestion, as exports have them.
    pub persons_at_ingestion: bool,
    /// Which rows are read; all of them without it.
    pub changed: Option<Changed>,
    /// Whether the columns that the instance lacks have been left out.
    pub columns_chosen: bool,
    /// Where progress is kept.
    pub checkpoint: Arc<Checkpoint<ProjectState>>,
}

/// What the histogram of a scan has found.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// Days that have rows, in ascending order.
    pub(super) days: Vec<Day>,
    /// Bytes that the server has read for it, when it counts them.
    pub(super) bytes: Option<u64>,
}

impl ProjectReader {
    pub(super) fn predicate(&self, interval: Interval) -> Predicate {
        let mut predicate = Predicate::default();
        predicate.range(self.table.sort_key, interval.from, interval.to);
        if let Some((changes, changed)) = self.table.changes.as_ref().zip(self.changed) {
            restrict(&mut predicate, changes, changed);
        }
        predicate
    }

    /// The next page of a window: `limit` rows after `after`.
    pub(crate) fn page(&self, interval: Interval, after: Option<&RowKey>, limit: u32) -> Query {
        // Everything before the key has been read; the narrower range spares the server the work.
        let from = after.map_or(interval.from, |key| key.sort_key.max(interval.from));
        self.page_of(self.predicate(Interval { from, ..interval }), after, limit)
    }

    /// The next page of the rows that fulfil a condition: `limit` rows after `after`.
    pub(crate) fn page_of(&self, mut predicate: Predicate, after: Option<&RowKey>, limit: u32) -> Query {
        let (sort_key, id, identity) = (self.table.sort_key, self.table.id, self.table.identity);
        if let Some(key) = after {
            predicate.after(sort_key, id, identity, key);
        }
        let list: Vec<&str> = self.columns.iter().filter_map(|column| column.expression).collect();
        let mut order = format!("{sort_key} ASC, toString({id}) ASC");
        for column in identity {
            order = format!("{order}, {column} ASC");
        }
        if let Some(duplicates) = self.table.duplicates {
            order = format!("{order}, {duplicates}");
        }
        let tail = format!("ORDER BY {order} LIMIT {limit}");
        let query = predicate.select(&list.join(", "), self.table.from, &tail);
        Query { persons_at_ingestion: self.persons_at_ingestion, ..query }
    }

    /// Counts the different rows of an interval.
    ///
    /// # Errors
    /// When the server does not answer, or cannot count even a tiny part in time.
    pub(crate) async fn count(&self, interval: Interval) -> Result<u64, Error> {
        let different = format!("uniqExact(tuple({}, toString({})))", self.table.sort_key, self.table.id);
        self.number(interval, &different).await
    }

    /// Counts all rows of an interval, copies included.
    ///
    /// # Errors
    /// As for [`ProjectReader::count`].
    pub async fn count_all(&self, interval: Interval) -> Result<u64, Error> {
        self.number(interval, "count()").await
    }

    /// Sums up what `column` says of an interval, in parts when it is too large for one query.
    async fn number(&self, interval: Interval, column: &str) -> Result<u64, Error> {
        let mut total = 0;
        let mut parts = vec![interval];
        while let Some(part) = parts.pop() {
            let query = self.predicate(part).select(column, self.table.from, "LIMIT 1");
            match self.ask::<(u64,)>(&query).await? {
                Some(response) => {
                    let row = response
                        .rows
                        .first()
                        .ok_or_else(|| Error::system(format!("PostHog's count of {part} returned no row")))?;
                    total += row.0;
                }
                None => parts.extend(self.halve(part)?),
            }
        }
        Ok(total)
    }

    /// Counts the rows of every day of an interval.
    ///
    /// # Errors
    /// When the server does not answer.
    pub(crate) async fn histogram(&self, interval: Interval) -> Result<Histogram, Error> {
        let columns = format!("{} AS day, count()", self.table.day);
        let tail = format!("GROUP BY day ORDER BY day LIMIT {MOST_ROWS}");
        let mut histogram = Histogram::default();
        // The last part is taken first, so parts are kept in descending order.
        let mut parts = vec![interval];
        while let Some(part) = parts.pop() {
            let query = self.predicate(part).select(&columns, self.table.from, &tail);
            match self.ask::<(i64, u64)>(&query).await? {
                Some(response) => {
                    let days = response.rows.iter().map(|(number, rows)| Day { number: *number, rows: Some(*rows) });
                    histogram.days.extend(days);
                    histogram.bytes = sum(histogram.bytes, response.bytes_read);
                }
                // A day that cannot even be counted is read in parts without a count.
                None if part.from.day() == part.to.plus_micros(-1).day() => {
                    histogram.days.push(Day { number: part.from.day(), rows: None });
                }
                None => {
                    let [second, first] = self.halve(part)?;
                    parts.extend([second, first]);
                }
            }
        }
        merge_same_days(&mut histogram.days);
        Ok(histogram)
    }

    /// The two halves of an interval, the second one first.
    pub(super) fn halve(&self, interval: Interval) -> Result<[Interval; 2], Error> {
        let (first, second) = interval.halve(self.context.client.now()).ok_or_else(|| {
            Error::transient(format!(
                "PostHog cannot count {} from {interval} within its time limit; try again later",
                self.table.stream
            ))
        })?;
        Ok([second, first])
    }

    /// Asks for a small response; none when the query is too large.
    ///
    /// # Errors
    /// When the server does not answer usefully.
    pub(crate) async fn ask<T: DeserializeOwned + Send>(&self, query: &Query) -> Result<Option<Small<T>>, Error> {
        self.context.ask_unless_too_large(query).await
    }
}

/// The bytes that two queries have read, as far as the server counts them.
pub(crate) fn sum(first: Option<u64>, second: Option<u64>) -> Option<u64> {
    first.into_iter().chain(second).reduce(|sum, more| sum + more)
}

/// Leaves rows out that have not changed in the time that is meant.
fn restrict(predicate: &mut Predicate, changes: &Changes, rows: Changed) {
    let Changes { at, end, .. } = changes;
    let Interval { from, to } = rows.interval;
    let hour = LOOKBACK.num_hours();
    if rows.exported {
        // All versions of exports have these, whether they go by the end of a session or by its last change.
        predicate.range(end, from, to);
        predicate.before(at, to);
        predicate.condition(format!("{at} < {end} + toIntervalHour({hour})"), Map::new());
        return;
    }
    if to < Timestamp::MAX {
        predicate.range(at, from, to);
    } else if from > Timestamp::MIN {
        predicate.from(at, from);
    }
    if rows.left_out {
        // Exports go by the end of a session and by the interval of their run: newer versions leave out what changed
        // three days after it had ended, older ones what changed in a later run. Runs of a sync begin an hour before
        // the end of the last one, so all of these have changed at least an hour after their end. And whatever ends
        // after the last interval has not been exported at all.
        let late = format!("({at} >= {end} + toIntervalHour({hour}) OR {end} >= {})", to.literal());
        predicate.condition(late, Map::new());
    }
}

/// Two parts of an interval may share a day.
fn merge_same_days(days: &mut Vec<Day>) {
    days.dedup_by(|later, earlier| {
        let same = later.number == earlier.number;
        if same {
            earlier.rows = earlier.rows.zip(later.rows).map(|(first, second)| first + second);
        }
        same
    });
}
