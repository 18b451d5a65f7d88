//! What syncs cost: a first read, one with nothing new, and one with some new events.

use anyhow::{Context, ensure};
use chrono::Utc;
use serde_json::{Value, json};

use crate::http::PROJECT;
use crate::programs::{Programs, Server, Source};
use crate::results::{Spread, SyncCost, SyncCosts, float};
use crate::server::{EVENT_BYTES, FIGURE_BYTES, Size};

/// Queries that the connector sends in an hour, at the default share of PostHog's limit.
const QUERIES_AN_HOUR: f64 = 1_920.0;
/// Comparisons of a first read: one before, one after.
const COMPARISONS: u64 = 2;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// Events that are read, and rows of a page.
    pub paged: [(u64, u64); 2],
    /// Events that are only counted, and their days.
    pub counted: (u64, i64),
    /// Events that are new.
    pub added: u64,
    /// How often each sync is measured.
    pub rounds: usize,
}

/// Syncs with every number of events.
///
/// # Errors
/// When a sync fails, or prints another number of records than it should.
pub async fn measure(programs: &Programs, scale: Scale) -> anyhow::Result<Vec<SyncCosts>> {
    let mut all = Vec::new();
    // Queries for columns and figures, which are as many however many events there are.
    let (mut others, mut page_rows) = (0, 1);
    for (events, page) in scale.paged {
        let size = Size::pages(events, page);
        let server = Server::start(size).await?;
        let syncs = Syncs::new(programs, &server, page).await?;
        let (first, state) = syncs.run(None, events, 1).await?;
        let days = events / page;
        // Each day is a full page with an empty one behind it.
        others = first.queries.saturating_sub(2 * days);
        page_rows = page;
        let full = first.figures / COMPARISONS;
        let (idle, added) = syncs.go_on(state, scale).await?;
        all.push(SyncCosts { events, days, page, full, first, idle, added });
    }
    let (events, days) = scale.counted;
    let server = Server::start(Size { events, page: page_rows, counted_days: Some(days) }).await?;
    let syncs = Syncs::new(programs, &server, page_rows).await?;
    // The program makes the ledger itself, from a version 1 state.
    let read = json!({"version": 1, "projects": {PROJECT.to_string(): {"created_at": Utc::now().to_rfc3339()}}});
    let stream = json!({"stream_descriptor": {"name": "events"}, "stream_state": read});
    let (taken_over, state) = syncs.run(Some(json!({"type": "STREAM", "stream": stream})), 0, 0).await?;
    let (idle, added) = syncs.go_on(state, scale).await?;
    let days = u64::try_from(days)?;
    let first = planned(events, days, page_rows, others);
    all.push(SyncCosts { events, days, page: page_rows, full: taken_over.figures, first, idle, added });
    Ok(all)
}

/// The first read of events that no machine holds: every day is read by itself, page by page, and a page
/// reads all of its day.
fn planned(events: u64, days: u64, page: u64, others: u64) -> SyncCost {
    let of_day = events / days.max(1);
    let pages = of_day / page.max(1) + 1;
    let (queries, figures) = (days * pages + others, COMPARISONS * events * FIGURE_BYTES);
    let seconds = float(queries) / QUERIES_AN_HOUR * 3_600.0;
    SyncCost {
        queries,
        figures,
        bytes: figures + pages * events * EVENT_BYTES,
        wall: Spread::of([seconds]),
        planned: true,
    }
}

/// Syncs of one server's events.
struct Syncs<'a> {
    server: &'a Server,
    source: Source,
}

impl<'a> Syncs<'a> {
    async fn new(programs: &Programs, server: &'a Server, page: u64) -> anyhow::Result<Self> {
        let options = json!({"method": {"type": "query", "page_size": page, "settle_minutes": 0}});
        let source = Source::new(programs, &server.ready.url, &server.ready.start, &options).await?;
        Ok(Self { server, source })
    }

    /// A sync with nothing new, and one with new events.
    async fn go_on(&self, state: Value, scale: Scale) -> anyhow::Result<(SyncCost, SyncCost)> {
        let (idle, state) = self.run(Some(state), 0, scale.rounds).await?;
        self.server.add(scale.added).await?;
        let (added, _) = self.run(Some(state), scale.added, scale.rounds).await?;
        Ok((idle, added))
    }

    /// One sync whose queries and records are counted, and others that are timed.
    async fn run(&self, state: Option<Value>, records: u64, rounds: usize) -> anyhow::Result<(SyncCost, Value)> {
        self.server.queries().await?;
        let (printed, last) = self.source.sync(state.as_ref()).await?;
        ensure!(printed.records == records, "{} records came instead of {records}", printed.records);
        let queries = self.server.queries().await?;
        let mut seconds = Vec::new();
        for _ in 0..rounds {
            seconds.push(self.source.from_state(state.as_ref())?.run().await?.wall);
        }
        let last: Value = serde_json::from_slice(&last).context("a sync has printed no state")?;
        let (number, wall) = (queries.number, Spread::of(seconds));
        let cost = SyncCost { queries: number, figures: queries.figures, bytes: queries.bytes, wall, planned: false };
        Ok((cost, last["state"].clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_read_is_planned_by_pages() {
        // 25 rows a day are two full pages and one that is not.
        let plan = planned(100, 4, 10, 4);
        assert_eq!((plan.queries, plan.figures), (4 * 3 + 4, 8_000));
        assert_eq!(plan.bytes, 8_000 + 3 * 100 * EVENT_BYTES);
        assert!(plan.planned);
    }
}
