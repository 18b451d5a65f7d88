//! What all scans and windows of one project share, and the queries that they ask.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::checkpoint::Checkpoint;
use super::interval::Interval;
use super::page_size::PageSize;
use super::plan::Day;
use super::scan::Scan;
use crate::config::{Config, QueryOptions};
use crate::error::Error;
use crate::http::{Client, Observer};
use crate::posthog::query::{MOST_ROWS, small_with_retry};
use crate::posthog::{Key, Predicate, Query};
use crate::protocol::message::Message;
use crate::protocol::{Output, StreamDescriptor};
use crate::streams::{Column, Lifted, Table};
use crate::time::Timestamp;

/// Hours that are counted in one query, which answers with [`MOST_ROWS`] rows at most.
const MOST_HOURS: i64 = 40_000;

/// Reads one table of one project.
pub struct ProjectReader {
    /// Sends the requests.
    pub client: Client,
    /// What is read.
    pub table: &'static Table,
    /// Number of the project.
    pub project: u64,
    /// Whether a later sync continues from this one.
    pub incremental: bool,
    /// Selected columns.
    pub columns: Vec<Column>,
    /// Properties that are fields of their own.
    pub lifted: Arc<Lifted>,
    /// Options of the method.
    pub options: QueryOptions,
    /// The user's configuration.
    pub config: Arc<Config>,
    /// Rows to ask for.
    pub page_size: PageSize,
    /// Where records go.
    pub output: Output,
    /// Name under which they go.
    pub stream: Arc<StreamDescriptor>,
    /// Where progress is noted.
    pub checkpoint: Arc<Checkpoint>,
    /// Hears of waits.
    pub observer: StreamObserver,
}

/// Tells the platform that a stream waits for a limit.
pub struct StreamObserver {
    /// Where messages go.
    pub output: Output,
    /// The stream that waits.
    pub stream: Arc<StreamDescriptor>,
}

impl Observer for StreamObserver {
    fn waiting(&self, reason: &str, until: DateTime<Utc>) {
        self.output.progress().waiting(&format!("waiting until {}: {reason}", until.format("%H:%M:%S UTC")));
        self.output.hint(&Message::rate_limited(StreamDescriptor::clone(&self.stream), until));
    }
}

/// What the histogram of a scan has found.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    /// Days that have rows, in ascending order.
    pub(super) days: Vec<Day>,
    /// Bytes that the server has read for it, when it counts them.
    pub(super) bytes: Option<u64>,
}

impl ProjectReader {
    fn predicate(&self, scan: &Scan, interval: Interval) -> Predicate {
        let mut predicate = Predicate::default();
        predicate.range(self.table.position, interval.from, interval.to);
        if let Some(arrival) = self.table.arrival {
            predicate.range(arrival, scan.arrived_from.unwrap_or(Timestamp::MIN), scan.until);
        }
        if let Some(far) = self.table.far.filter(|_| scan.far) {
            predicate.condition(far);
        }
        self.choose_names(&mut predicate);
        predicate
    }

    fn choose_names(&self, predicate: &mut Predicate) {
        if let Some(column) = self.table.name_column {
            predicate.names(column, "IN", "include", &self.config.include_events);
            predicate.names(column, "NOT IN", "exclude", &self.config.exclude_events);
        }
    }

    /// The next page of a window: `limit` rows after `after`.
    pub(super) fn page(&self, scan: &Scan, interval: Interval, after: Option<&Key>, limit: u32) -> Query {
        // Everything before the key has been read; the narrower range spares the server the work.
        let from = after.map_or(interval.from, |key| key.position.max(interval.from));
        let mut predicate = self.predicate(scan, Interval { from, ..interval });
        let (position, id) = (self.table.position, self.table.id);
        if let Some(key) = after {
            predicate.after(position, id, key);
        }
        let list: Vec<&str> = self.columns.iter().filter_map(|column| column.expression).collect();
        let copies = self.table.copies.map(|order| format!(", {order}")).unwrap_or_default();
        let tail = format!("ORDER BY {position} ASC, toString({id}) ASC{copies} LIMIT {limit}");
        predicate.select(&list.join(", "), self.table.from, &tail)
    }

    /// Counts the different rows of an interval, in parts when it is too large for one query.
    ///
    /// # Errors
    /// When the server does not answer, or cannot count even a tiny part in time.
    pub(super) async fn count(&self, scan: &Scan, interval: Interval) -> Result<u64, Error> {
        let columns = format!("uniqExact(tuple({}, toString({})))", self.table.position, self.table.id);
        let mut total = 0;
        let mut parts = vec![interval];
        while let Some(part) = parts.pop() {
            let query = self.predicate(scan, part).select(&columns, self.table.from, "LIMIT 1");
            match self.ask::<(u64,)>(&query).await? {
                Some((rows, _)) => {
                    let row = rows
                        .first()
                        .ok_or_else(|| Error::system(format!("PostHog has answered a count of {part} with no row")))?;
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
    pub(super) async fn histogram(&self, scan: &Scan, interval: Interval) -> Result<Histogram, Error> {
        let columns = format!("{} AS day, count()", self.table.day);
        let tail = format!("GROUP BY day ORDER BY day LIMIT {MOST_ROWS}");
        let mut histogram = Histogram::default();
        // The last part is taken first, so parts are kept in descending order.
        let mut parts = vec![interval];
        while let Some(part) = parts.pop() {
            let query = self.predicate(scan, part).select(&columns, self.table.from, &tail);
            match self.ask::<(i64, u64)>(&query).await? {
                Some((rows, bytes)) => {
                    histogram.days.extend(rows.iter().map(|(number, rows)| Day { number: *number, rows: Some(*rows) }));
                    histogram.bytes = bytes.map(|bytes| bytes + histogram.bytes.unwrap_or(0)).or(histogram.bytes);
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

    /// Counts the rows (of the table that feeds this one, if there is one) that arrived in every hour since the epoch from `from` until `until`. Returns
    /// the bytes that the server has read, too; none when it cannot count them in time.
    ///
    /// # Errors
    /// When the server does not answer.
    pub(super) async fn arrivals(
        &self,
        from: Timestamp,
        until: Timestamp,
    ) -> Result<Option<(BTreeMap<i64, u64>, Option<u64>)>, Error> {
        let source = self.table.fed_by.unwrap_or(self.table);
        let Some(arrival) = source.arrival else { return Ok(None) };
        let columns = format!("intDiv(toUnixTimestamp64Milli({arrival}), 3600000) AS hour, count()");
        let tail = format!("GROUP BY hour ORDER BY hour LIMIT {MOST_ROWS}");
        let (mut hours, mut total) = (BTreeMap::new(), None);
        let mut begin = from;
        while begin < until {
            let end = begin.plus_micros(MOST_HOURS * 3_600_000_000).min(until);
            let wanted = self.wanted();
            // What happens after the end date still changes what has begun before.
            let to = if self.table.fed_by.is_some() { Timestamp::MAX } else { wanted.to };
            let mut parts = vec![Interval { to, ..wanted }];
            while let Some(part) = parts.pop() {
                let mut predicate = Predicate::default();
                predicate.range(source.position, part.from, part.to);
                predicate.range(arrival, begin, end);
                self.choose_names(&mut predicate);
                let query = predicate.select(&columns, source.from, &tail);
                match self.ask::<(i64, u64)>(&query).await? {
                    Some((rows, bytes)) => {
                        for (hour, rows) in rows {
                            *hours.entry(hour).or_default() += rows;
                        }
                        total = bytes.map(|bytes| bytes + total.unwrap_or(0)).or(total);
                    }
                    None => match part.halve(self.client.now()) {
                        Some((first, second)) => parts.extend([second, first]),
                        None => return Ok(None),
                    },
                }
            }
            begin = end;
        }
        Ok(Some((hours, total)))
    }

    /// The two halves of an interval, the second one first.
    fn halve(&self, interval: Interval) -> Result<[Interval; 2], Error> {
        let (first, second) = interval.halve(self.client.now()).ok_or_else(|| {
            Error::transient(format!(
                "project {}: PostHog cannot count {} from {interval} within its time limit; try again later",
                self.project, self.table.stream
            ))
        })?;
        Ok([second, first])
    }

    async fn ask<T: serde::de::DeserializeOwned + Send>(
        &self,
        query: &Query,
    ) -> Result<Option<(Vec<T>, Option<u64>)>, Error> {
        let answer = small_with_retry(&self.client, self.project, query, &self.observer, self.client.retry()).await?;
        Ok(answer.map(|answer| (answer.rows, answer.bytes_read)))
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
