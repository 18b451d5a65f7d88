//! Counts rows by the hour in which they arrived.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

use super::reader::ExportReader;
use crate::error::Error;
use crate::posthog::Predicate;
use crate::posthog::query::{MOST_ROWS, Small};
use crate::sync::ledger::names_condition;
use crate::sync::query::reader::sum;
use crate::sync::state::export::{HOUR, start_of};
use crate::sync::state::interval::Interval;
use crate::time::Timestamp;

/// Hours that are counted in one query, which answers with [`MOST_ROWS`] rows at most.
const MOST_HOURS: i64 = 40_000;
/// How often hours are counted in a row before their disagreement with the count of all is final.
const MOST_ATTEMPTS: u32 = 3;

/// Rows by the number of the hour since the epoch, and the bytes that the server has read to count
/// them, if it reports them.
pub(crate) type Arrivals = (BTreeMap<i64, u64>, Option<u64>);

impl ExportReader {
    /// Counts the rows (of the table that feeds this one, if there is one) that arrived in every hour
    /// from `from`, where an hour begins, until `until`; none when the server cannot do it in time.
    ///
    /// An hour that the answer leaves out would be taken for empty, so answers are compared with the
    /// count of all their hours. An answer that is cut is continued where it ends.
    ///
    /// # Errors
    /// When the server does not answer, or its answers do not agree.
    pub(crate) async fn arrivals(&self, from: Timestamp, until: Timestamp) -> Result<Option<Arrivals>, Error> {
        let source = self.reader.table.fed_by.unwrap_or(self.reader.table);
        let Some(ingestion_time) = source.ingestion_time else { return Ok(None) };
        let hour = format!("intDiv(toUnixTimestamp64Milli({ingestion_time}), 3600000) AS hour, count()");
        let by_hour = format!("GROUP BY hour ORDER BY hour LIMIT {MOST_ROWS}");
        let (mut hours, mut bytes) = (BTreeMap::new(), None);
        let (mut begin, mut attempts) = (from, 0);
        while begin < until {
            let stretch = Interval { from: begin, to: begin.plus_micros(MOST_HOURS * HOUR).min(until) };
            // First all, then each: what becomes visible meanwhile is only in the second answer.
            let Some((counted, read)) = self.arrived_in(ingestion_time, stretch).await? else { return Ok(None) };
            bytes = sum(bytes, read);
            let Some(shown) = self.arrived::<(i64, u64)>(ingestion_time, stretch, &hour, &by_hour).await? else {
                return Ok(None);
            };
            bytes = sum(bytes, shown.bytes_read);
            let rows: u64 = shown.rows.iter().map(|(_, rows)| rows).sum();
            let mut agreed = stretch;
            if rows < counted {
                let last = shown.rows.iter().map(|(hour, _)| *hour).max().unwrap_or(i64::MIN);
                agreed.to = start_of(last.saturating_add(1)).clamp(stretch.from, stretch.to);
                let Some((within, read)) = self.arrived_in(ingestion_time, agreed).await? else { return Ok(None) };
                bytes = sum(bytes, read);
                if agreed.is_empty() || rows < within {
                    attempts += 1;
                    if attempts == MOST_ATTEMPTS {
                        return Err(Error::system(format!(
                            "PostHog's counts of {} do not agree: {counted} arrived from {stretch}, {rows} of them in its hours. Nothing was skipped; try again later, or set `method` to `query`",
                            self.reader.table.stream
                        )));
                    }
                    continue;
                }
            }
            for (hour, rows) in shown.rows {
                *hours.entry(hour).or_default() += rows;
            }
            (begin, attempts) = (agreed.to, 0);
        }
        Ok(Some((hours, bytes)))
    }

    /// Counts the rows that arrived in a stretch, with the bytes that this read.
    async fn arrived_in(&self, ingestion_time: &str, stretch: Interval) -> Result<Option<(u64, Option<u64>)>, Error> {
        if stretch.is_empty() {
            return Ok(Some((0, None)));
        }
        let Some(response) = self.arrived::<(u64,)>(ingestion_time, stretch, "count()", "LIMIT 1").await? else {
            return Ok(None);
        };
        if response.rows.is_empty() {
            return Err(Error::system(format!("PostHog's count of {stretch} returned no row; try again later")));
        }
        Ok(Some((response.rows.iter().map(|(rows,)| rows).sum(), response.bytes_read)))
    }

    /// Asks about the rows that arrived in a stretch, in parts when that is too large for one query;
    /// none when even small parts are.
    async fn arrived<T: DeserializeOwned + Send>(
        &self,
        ingestion_time: &str,
        stretch: Interval,
        columns: &str,
        tail: &str,
    ) -> Result<Option<Small<T>>, Error> {
        let reader = &self.reader;
        let source = reader.table.fed_by.unwrap_or(reader.table);
        let wanted = reader.wanted();
        // What happens after the end date still changes what has begun before.
        let to = if reader.table.fed_by.is_some() { Timestamp::MAX } else { wanted.to };
        let mut whole = Small { rows: Vec::new(), bytes_read: None };
        let mut parts = vec![Interval { to, ..wanted }];
        while let Some(part) = parts.pop() {
            let mut predicate = Predicate::default();
            predicate.range(source.sort_key, part.from, part.to);
            predicate.range(ingestion_time, stretch.from, stretch.to);
            let names = self.names();
            if let (Some(_), (Some(condition), values)) = (source.event_name_column, names_condition(&names, "chosen"))
            {
                predicate.condition(condition, values);
            }
            match reader.ask::<T>(&predicate.select(columns, source.from, tail)).await? {
                Some(response) => {
                    whole.rows.extend(response.rows);
                    whole.bytes_read = sum(whole.bytes_read, response.bytes_read);
                }
                None => match part.halve(reader.context.client.now()) {
                    Some((first, second)) => parts.extend([second, first]),
                    None => return Ok(None),
                },
            }
        }
        Ok(Some(whole))
    }
}
