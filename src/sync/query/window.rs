//! Reads one window: pages until its end, then the audit.

use chrono::TimeDelta;

use super::plan::Window;
use super::reader::ProjectReader;
use crate::error::Error;
use crate::posthog::RowKey;
use crate::posthog::http::{Failure, NextAttempt};
use crate::posthog::query::Rows;
use crate::records::{RecordSink, RowCounts, RowWriter};
use crate::sync::page_size::Smaller;
use crate::sync::report::{Counts, Proof};
use crate::sync::state::interval::Interval;
use crate::sync::state::scan::{OpenWindow, Scan};
use crate::sync::state::table::ProjectState;
use crate::time::Timestamp;

/// Rows may become visible some minutes late. What is so recent at the end of a scan is read again by the
/// next sync, whose lookback window is longer.
pub(super) const SETTLING: TimeDelta = TimeDelta::minutes(10);
/// How often a window is read before its disagreement with the count is final.
const ATTEMPTS: u32 = 3;

/// One read of a window from its beginning, or from where an earlier run stopped.
#[derive(Default)]
struct WindowAttempt {
    /// The last row read.
    after: Option<RowKey>,
    /// Records emitted.
    records: u64,
    /// Rows received, copies included; unknown when an earlier run has read a part.
    received: Option<u64>,
    /// Copies among them.
    duplicates: u64,
}

impl WindowAttempt {
    fn new() -> Self {
        Self { received: Some(0), ..Self::default() }
    }

    fn count(&mut self, written: RowCounts) {
        self.duplicates += written.rows - written.records;
        if let Some(received) = &mut self.received {
            *received += written.rows;
        }
    }

    fn resume(open: OpenWindow) -> Self {
        Self { after: Some(open.after.into()), records: open.rows, received: None, duplicates: 0 }
    }
}

/// How reading a window has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The whole window has been read.
    Whole,
    /// It was too large: its first part has been read, the rest remains.
    Part {
        /// What has been read.
        read: Interval,
        /// What remains.
        rest: Interval,
    },
}

/// How a page has ended.
enum PageOutcome {
    Rows {
        count: u64,
        limit: u32,
    },
    /// Even a small page is too large.
    TooLarge,
}

impl ProjectReader {
    /// Reads a window of `scan` and closes it in the state.
    ///
    /// # Errors
    /// When `PostHog` stops answering usefully, or what was read does not agree with its counts.
    pub(crate) async fn read_window(
        &self,
        scan: &Scan,
        window: Window,
        open: Option<OpenWindow>,
    ) -> Result<Outcome, Error> {
        let mut interval = window.interval;
        let mut expected = window.rows;
        let mut attempt = open.map_or_else(WindowAttempt::new, WindowAttempt::resume);
        let mut writer = self.context.row_writer(self.table, &self.columns);
        if attempt.received.is_some() {
            writer = writer.counting_recent_rows(self.settled_until(scan));
        }
        let mut rest = None;
        for number in 1..=ATTEMPTS {
            while let Some(smaller) = self.read_pages(interval, expected, &mut attempt, &mut writer).await? {
                rest = Some(Interval { from: smaller.to, to: rest.map_or(interval.to, |rest: Interval| rest.to) });
                (interval, expected) = (smaller, None);
            }
            match self.audit(scan, interval, expected, &attempt, writer.settling()).await? {
                Audit::Agrees(counts) => {
                    self.context.report.counted(Proof::Counted, counts);
                    self.close(interval).await?;
                    return Ok(rest.map_or(Outcome::Whole, |rest| Outcome::Part { read: interval, rest }));
                }
                Audit::Differs { stored } if number == ATTEMPTS => {
                    return Err(Error::system(format!(
                        "{} from {interval} do not agree with PostHog's count: {} read, {stored} stored, after {ATTEMPTS} attempts. \
                         The window was not marked as read; the next sync reads it again",
                        self.table.stream, attempt.records
                    )));
                }
                Audit::Differs { stored } => {
                    tracing::warn!(
                        "{} {} read from {interval} but PostHog counts {stored}; reading them again",
                        attempt.records,
                        self.table.stream
                    );
                    expected = Some(stored);
                    attempt = WindowAttempt::new();
                    writer.restart();
                    self.note(interval, None).await?;
                }
            }
        }
        Err(Error::system(format!("{} from {interval} could not be read", self.table.stream)))
    }

    /// Reads pages to the window's end. Returns a smaller interval when the server cannot cope with
    /// this one; what has been read belongs to it.
    async fn read_pages(
        &self,
        interval: Interval,
        expected: Option<u64>,
        attempt: &mut WindowAttempt,
        writer: &mut RowWriter,
    ) -> Result<Option<Interval>, Error> {
        loop {
            let (records, key) = (attempt.records, attempt.after.clone());
            match self.read_page(interval, attempt, writer).await? {
                PageOutcome::TooLarge => return self.shorten(interval, attempt).map(Some),
                PageOutcome::Rows { count: 0, .. } => return Ok(None),
                PageOutcome::Rows { count, limit } => {
                    if attempt.after == key {
                        return Err(Error::system(format!(
                            "PostHog answers with the same page of {} from {interval} again and again",
                            self.table.stream
                        )));
                    }
                    // A page with fewer rows than asked for is the last one, unless the server has a
                    // lower limit than it admits; then rows are still missing.
                    let missing =
                        expected.zip(attempt.received).is_some_and(|(expected, received)| received < expected);
                    if count < u64::from(limit) && !missing {
                        return Ok(None);
                    }
                    if attempt.records > records {
                        self.note(interval, attempt.after.clone().map(|key| (key, attempt.records))).await?;
                    }
                }
            }
        }
    }

    /// Reads one page, however often that takes.
    async fn read_page(
        &self,
        interval: Interval,
        attempt: &mut WindowAttempt,
        writer: &mut RowWriter,
    ) -> Result<PageOutcome, Error> {
        let mut retry = self.context.client.retry();
        let mut may_be_tiny = false;
        loop {
            let limit = self.page_size.rows();
            let received = attempt.received.unwrap_or(0) + attempt.records;
            let failure = match self.request_page(interval, limit, attempt, writer).await {
                Ok(count) => {
                    if count == u64::from(limit) {
                        self.page_size.succeeded();
                    }
                    return Ok(PageOutcome::Rows { count, limit });
                }
                Err(failure) => failure,
            };
            if attempt.received.unwrap_or(0) + attempt.records > received {
                retry.progress();
            }
            match retry.after(failure, self.context.client.limiter()).await? {
                NextAttempt::Same => {}
                NextAttempt::Smaller => {
                    let can_be_shortened = || self.shorten(interval, attempt).is_ok();
                    match self.page_size.after_too_large(limit, &mut may_be_tiny, can_be_shortened) {
                        Some(Smaller::Page) => {}
                        Some(Smaller::Window) => return Ok(PageOutcome::TooLarge),
                        None => {
                            return Err(Error::transient(format!(
                                "PostHog cannot read even one row of {} from {interval}; try again later",
                                self.table.stream
                            )));
                        }
                    }
                }
            }
        }
    }

    /// Sends one request and emits its rows as they come. A failure leaves the attempt at the last row
    /// that came.
    async fn request_page(
        &self,
        interval: Interval,
        limit: u32,
        attempt: &mut WindowAttempt,
        writer: &mut RowWriter,
    ) -> Result<u64, Failure> {
        let context = &self.context;
        let query = self.page(interval, attempt.after.as_ref(), limit);
        let mut response = Rows::open(&context.client, context.project, &query, &context.observer).await?;
        writer.stamp();
        let mut batch = context.batch();
        loop {
            let mut sink = RecordSink::new(writer, &mut batch.lines);
            let outcome = response.read(&mut sink).await;
            let written = sink.written();
            batch.records += written.records;
            attempt.count(written);
            let ended = !matches!(outcome, Ok(None));
            attempt.records += batch.send(ended).await?;
            if ended {
                let last = writer.last_key().map_err(|problem| Error::system(problem.0))?;
                attempt.after = last.or(attempt.after.take());
                return outcome.map(Option::unwrap_or_default);
            }
        }
    }

    /// Marks a window of the project's scan as read and agreed upon.
    pub(crate) async fn close(&self, interval: Interval) -> Result<(), Error> {
        let change = |project: &mut ProjectState| {
            if let Some(scan) = &mut project.scan {
                scan.close(interval);
            }
        };
        self.checkpoint.update(self.context.project, change).await
    }

    /// Notes in the state how far the window has been read.
    async fn note(&self, interval: Interval, progress: Option<(RowKey, u64)>) -> Result<(), Error> {
        self.checkpoint
            .update(self.context.project, |project| {
                if let Some(scan) = &mut project.scan {
                    scan.set_open(interval, progress);
                }
            })
            .await
    }

    /// What is older than this is visible by now; the rest is in the next sync's lookback window.
    fn settled_until(&self, scan: &Scan) -> Timestamp {
        scan.until.minus(SETTLING + self.table.rounds_to)
    }

    /// The first half of what is left, together with what has been read.
    fn shorten(&self, interval: Interval, attempt: &WindowAttempt) -> Result<Interval, Error> {
        let from = attempt.after.as_ref().map_or(interval.from, |key| key.sort_key.max(interval.from));
        let left = Interval { from, ..interval };
        let (first, _) = left
            .halve(self.context.client.now())
            .ok_or_else(|| Error::transient(format!("{interval} cannot be read in smaller parts")))?;
        Ok(Interval { from: interval.from, to: first.to })
    }

    /// Compares what was read with what the server counts.
    async fn audit(
        &self,
        scan: &Scan,
        interval: Interval,
        expected: Option<u64>,
        attempt: &WindowAttempt,
        settling: Option<u64>,
    ) -> Result<Audit, Error> {
        // The plan has counted these rows already. Copies make that count ambiguous.
        if attempt.duplicates == 0
            && expected.is_some()
            && expected == attempt.received
            && Some(attempt.records) == expected
        {
            return Ok(Audit::Agrees(Counts::of(attempt.records, attempt.records)));
        }
        // Nothing but its sort key shows that a row is new. Rows that move on while they are read have been
        // read all the same, so there may be more than are still in the window.
        let counted = Interval { to: interval.to.min(self.settled_until(scan)), ..interval };
        let mut stored = 0;
        for _ in 0..2 {
            stored = if counted.is_empty() { 0 } else { self.count(counted).await? };
            let settled = attempt.records.saturating_sub(settling.unwrap_or(0));
            if settled >= stored {
                return Ok(Audit::Agrees(Counts::of(settled, stored)));
            }
        }
        Ok(Audit::Differs { stored })
    }
}

enum Audit {
    Agrees(Counts),
    Differs { stored: u64 },
}
