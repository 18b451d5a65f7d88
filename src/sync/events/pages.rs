//! Reads a window page by page, and enters its cells into the ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Map;
use tokio::time::Instant;

use super::windows::CellWindow;
use crate::error::Error;
use crate::posthog::http::{Failure, NextAttempt};
use crate::posthog::query::Rows;
use crate::posthog::{Predicate, Query, RowKey};
use crate::records::{Fingerprint, RecordSink, RowWriter, day_of};
use crate::sync::ledger::{CellKey, Days, Ledger, Names, Part, Period, hogql};
use crate::sync::page_size::Smaller;
use crate::sync::query::reader::ProjectReader;
use crate::sync::state::interval::Interval;
use crate::sync::state::table::ProjectState;
use crate::time::Timestamp;

/// A page that takes longer than this is noted on the way.
const NOTE_EVERY: Duration = Duration::from_secs(20);

/// Reads the windows of one part of a ledger. Cheap to clone.
#[derive(Clone)]
pub(super) struct WindowReader {
    pub(super) reader: Arc<ProjectReader>,
    pub(super) part: Part,
    /// Events that the part is about.
    pub(super) names: Names,
    /// The ledger, for its slices and months.
    pub(super) ledger: Arc<Ledger>,
    /// Numbers of the rows that an earlier sync has emitted ahead of its bound.
    pub(super) known: Arc<BTreeSet<u64>>,
}

/// How far a window has been read.
struct Progress {
    /// The last row.
    after: Option<RowKey>,
    /// Rows before this have been read, too.
    from: Timestamp,
    /// Where the part being read ends, if the window is too large for the server.
    to: Option<Timestamp>,
    /// What has been emitted of each cell that is not closed.
    emitted: BTreeMap<Period, Fingerprint>,
    /// Cells before this one have been closed.
    closed: Option<Period>,
    /// Rows received, duplicates included; unknown when an earlier sync has read a part.
    received: Option<u64>,
}

/// How a page has ended.
enum Page {
    Rows { count: u64, limit: u32 },
    TooLarge,
}

impl WindowReader {
    /// Reads a window. Its cells are in the state then, and every record of them has been emitted.
    ///
    /// # Errors
    /// When PostHog stops answering usefully.
    pub(super) async fn read(&self, window: &CellWindow) -> Result<(), Error> {
        let reader = &self.reader;
        let writer = reader.context.row_writer(reader.table, &reader.columns).counting_days();
        let mut writer = writer.leaving_out(Arc::clone(&self.known));
        let mut progress = Progress::at_the_begin_of(window);
        if let Some(open) = &window.open {
            progress.after = Some(open.after.clone().into());
            progress.emitted.insert(open.period, open.emitted);
            progress.received = None;
        }
        let end = Timestamp::from_day(window.days.to);
        loop {
            let before = progress.after.clone();
            match self.read_page(window, &mut progress, &mut writer, u32::MAX).await? {
                Page::TooLarge => progress.to = Some(self.shorter(window, &progress)?),
                Page::Rows { count, limit } => {
                    if count > 0 && progress.after == before {
                        return Err(Error::system(format!(
                            "PostHog answers with the same page of events of {} again and again",
                            window.describe()
                        )));
                    }
                    if count > 0 && progress.may_have_more(window, count == u64::from(limit)) {
                        self.note(window, &mut progress, false).await?;
                        continue;
                    }
                    let Some(to) = progress.to.filter(|to| *to < end) else { break };
                    // Rows are not spread evenly: dare twice as much each time.
                    let length = Interval { from: progress.from, to }.length().saturating_mul(2);
                    progress.from = to;
                    progress.to = Some(to.plus_micros(length)).filter(|next| *next < end);
                }
            }
        }
        self.note(window, &mut progress, true).await
    }

    /// Reads rows of the last slice, a page of at most `most`, and returns their numbers. No cell is entered, and nothing
    /// depends on these rows: what does not come, the next sync reads.
    pub(super) async fn read_ahead(&self, days: Days, most: u32) -> BTreeSet<u64> {
        let reader = &self.reader;
        let slice = self.ledger.slices.len().saturating_sub(1);
        let window = CellWindow { slice, days, periods: Vec::new(), rows: 0, open: None };
        let mut writer = reader.context.row_writer(reader.table, &reader.columns).counting_days().remembering();
        if let Err(error) = self.read_page(&window, &mut Progress::at_the_begin_of(&window), &mut writer, most).await {
            tracing::debug!("the newest events are left to the next sync: {error}");
        }
        writer.take_numbers()
    }

    /// Enters cells that have been read, and how far the one under way has been.
    async fn note(&self, window: &CellWindow, progress: &mut Progress, ended: bool) -> Result<(), Error> {
        if window.periods.is_empty() {
            return Ok(());
        }
        let current = progress.after.clone().filter(|_| !ended);
        let current = current.map(|key| (self.ledger.months.period_of(day_of(key.sort_key)), key));
        let closed = progress.close(window, current.as_ref().map(|(period, _)| *period));
        let (part, slice) = (self.part, window.slice);
        let open = current.map(|(period, key)| {
            let emitted = progress.emitted.get(&period).copied().unwrap_or_default();
            (CellKey { slice, period }, key, emitted)
        });
        let mut repeats = 0;
        let change = |state: &mut ProjectState| {
            let Some(ledger) = &mut state.ledger else { return };
            for (period, figure) in closed {
                let key = CellKey { slice, period };
                repeats += ledger.repeats(part, key, figure.count);
                ledger.enter(part, key, figure);
            }
            if let Some((key, after, emitted)) = open {
                repeats += ledger.repeats(part, key, emitted.count);
                ledger.set_open(part, key, after.into(), emitted);
            }
        };
        let noted = self.reader.checkpoint.update(self.reader.context.project, change).await;
        self.reader.context.report.repeated(repeats);
        noted
    }

    /// Reads one page of at most `most` rows, however often that takes.
    async fn read_page(
        &self,
        window: &CellWindow,
        progress: &mut Progress,
        writer: &mut RowWriter,
        most: u32,
    ) -> Result<Page, Error> {
        let (context, page_size) = (&self.reader.context, &self.reader.page_size);
        let mut retry = context.client.retry();
        let mut may_be_tiny = false;
        loop {
            let limit = page_size.rows().min(most);
            let before = progress.after.clone();
            let failure = match self.request(window, limit, progress, writer).await {
                Ok(count) => {
                    if count == u64::from(limit) {
                        page_size.succeeded();
                    }
                    return Ok(Page::Rows { count, limit });
                }
                Err(failure) => failure,
            };
            if progress.after != before {
                retry.progress();
            }
            match retry.after(failure, context.client.limiter()).await? {
                NextAttempt::Same => {}
                NextAttempt::Smaller => {
                    let can_be_shortened = || self.shorter(window, progress).is_ok();
                    match page_size.after_too_large(limit, &mut may_be_tiny, can_be_shortened) {
                        Some(Smaller::Page) => {}
                        Some(Smaller::Window) => return Ok(Page::TooLarge),
                        None => {
                            return Err(Error::transient(format!(
                                "PostHog cannot read even one event of {}; try again later",
                                window.describe()
                            )));
                        }
                    }
                }
            }
        }
    }

    /// Sends one request and emits its rows as they come. A failure leaves the progress at the last row
    /// that came.
    async fn request(
        &self,
        window: &CellWindow,
        limit: u32,
        progress: &mut Progress,
        writer: &mut RowWriter,
    ) -> Result<u64, Failure> {
        let context = &self.reader.context;
        let query = self.query(window, progress, limit);
        let mut response = Rows::open(&context.client, context.project, &query, &context.observer).await?;
        writer.stamp();
        let mut batch = context.batch();
        let mut noted = Instant::now();
        loop {
            let mut sink = RecordSink::new(writer, &mut batch.lines);
            let outcome = response.read(&mut sink).await;
            let written = sink.written();
            batch.records += written.records;
            progress.received = progress.received.map(|received| received + written.rows);
            let ended = !matches!(outcome, Ok(None));
            let is_due = noted.elapsed() >= NOTE_EVERY;
            batch.send(ended || is_due).await?;
            if ended || is_due {
                self.advance(progress, writer)?;
            }
            if ended {
                return outcome.map(Option::unwrap_or_default);
            }
            if is_due {
                self.note(window, progress, false).await?;
                noted = Instant::now();
            }
        }
    }

    /// Takes over what the writer has emitted.
    fn advance(&self, progress: &mut Progress, writer: &mut RowWriter) -> Result<(), Error> {
        for (day, figure) in writer.take_figures() {
            let cell = progress.emitted.entry(self.ledger.months.period_of(day)).or_default();
            *cell = cell.plus(figure);
        }
        let last = writer.last_key().map_err(|problem| Error::system(problem.0))?;
        progress.after = last.or(progress.after.take());
        Ok(())
    }

    /// The next page of a window.
    fn query(&self, window: &CellWindow, progress: &Progress, limit: u32) -> Query {
        let mut predicate = Predicate::default();
        if let Some(from) = self.ledger.ingested_from(window.slice) {
            predicate.from("created_at", from);
        }
        if let Some(slice) = self.ledger.slices.get(window.slice) {
            predicate.before("created_at", slice.until);
        }
        predicate.condition(hogql::in_days(window.days), Map::new());
        // Everything before the last row has been read; the narrower range spares the server the work.
        let from = progress.reached();
        if from > Timestamp::from_day(window.days.from) {
            predicate.from("timestamp", from);
        }
        if let Some(to) = progress.to {
            predicate.before("timestamp", to);
        }
        let filter = self.ledger.choice.filter.as_deref();
        let (condition, values) = hogql::condition(&self.names, filter, self.ledger.asked, "chosen");
        if let Some(condition) = condition {
            predicate.condition(condition, values);
        }
        self.reader.page_of(predicate, progress.after.as_ref(), limit)
    }

    /// Where to end instead, if the server cannot cope with the part being read.
    fn shorter(&self, window: &CellWindow, progress: &Progress) -> Result<Timestamp, Error> {
        let to = progress.to.unwrap_or(Timestamp::from_day(window.days.to));
        let left = Interval { from: progress.reached(), to };
        let halves = left.halve(self.reader.context.client.now());
        halves.map(|(first, _)| first.to).ok_or_else(|| {
            Error::transient(format!("the events of {} cannot be read in smaller parts", window.describe()))
        })
    }
}

impl Progress {
    fn at_the_begin_of(window: &CellWindow) -> Self {
        Self {
            after: None,
            from: Timestamp::from_day(window.days.from),
            to: None,
            emitted: BTreeMap::new(),
            closed: None,
            received: Some(0),
        }
    }

    /// Where the part that is left begins.
    fn reached(&self) -> Timestamp {
        self.after.as_ref().map_or(self.from, |key| key.sort_key.max(self.from))
    }

    /// Whether rows may follow a page that was not empty. A page that is not full is the last one, unless
    /// the server has a lower limit than it admits; then rows are still missing. A full page never is, not
    /// even when as many rows have come as PostHog had counted: some of them may have become visible since,
    /// in front of others.
    fn may_have_more(&self, window: &CellWindow, is_full: bool) -> bool {
        let is_missing = self.received.is_some_and(|received| received < window.rows);
        is_full || is_missing && self.to.is_none()
    }

    /// Takes out the cells before `current`, or all that are left, with what has been emitted of each.
    fn close(&mut self, window: &CellWindow, current: Option<Period>) -> BTreeMap<Period, Fingerprint> {
        let is_closed = |period: &Period| current.is_none_or(|current| *period < current);
        let was_closed = |period: &Period| self.closed.is_some_and(|closed| *period < closed);
        let mut closed: BTreeMap<Period, Fingerprint> = window
            .periods
            .iter()
            .filter(|period| is_closed(period) && !was_closed(period))
            .map(|period| (*period, Fingerprint::EMPTY))
            .collect();
        self.closed = current.or(self.closed);
        self.emitted.retain(|period, figure| {
            let is_closed = is_closed(period);
            if is_closed {
                closed.insert(*period, *figure);
            }
            !is_closed
        });
        closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_page_is_the_last_one_when_all_counted_rows_have_come() {
        let window = CellWindow { slice: 0, days: Days { from: 1, to: 2 }, periods: vec![], rows: 20, open: None };
        let mut progress = Progress::at_the_begin_of(&window);
        for (received, full_page, short_page) in
            [(Some(10), true, true), (Some(20), true, false), (Some(30), true, false), (None, true, false)]
        {
            progress.received = received;
            assert_eq!(progress.may_have_more(&window, true), full_page, "{received:?}");
            assert_eq!(progress.may_have_more(&window, false), short_page, "{received:?}");
        }
        (progress.received, progress.to) = (Some(20), Some(Timestamp::MAX));
        assert!(progress.may_have_more(&window, true), "a part has no count of its own");
        assert!(!progress.may_have_more(&window, false));
    }

    #[test]
    fn every_cell_is_closed_once_with_all_of_its_rows() {
        let day = Period::day;
        let figure = |count| Fingerprint::new(count, count);
        let window = CellWindow {
            slice: 0,
            days: Days { from: 1, to: 6 },
            periods: vec![day(1), day(2), day(5)],
            rows: 9,
            open: None,
        };
        let mut progress = Progress::at_the_begin_of(&window);
        progress.emitted = [(day(1), figure(3)), (day(2), figure(1))].into();
        assert_eq!(progress.close(&window, Some(day(2))), [(day(1), figure(3))].into());
        assert_eq!(progress.close(&window, Some(day(2))), BTreeMap::new());
        progress.emitted.insert(day(3), figure(2));
        let all = [(day(2), figure(1)), (day(3), figure(2)), (day(5), Fingerprint::EMPTY)];
        assert_eq!(progress.close(&window, None), all.into());
    }
}
