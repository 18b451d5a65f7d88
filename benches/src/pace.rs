//! How long syncs take when PostHog takes its time.
//!
//! The sandbox answers as slowly as PostHog Cloud did when it was observed, and has its limits. Nearly all of the time
//! is waiting, so the real clock is used: a faster one would make the program's own work look more expensive than it
//! is, and its polling cheaper.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use posthog_sandbox::posthog::{Exports, Limits, RequestLog, Sandbox};
use serde_json::{Value, json};

use crate::http::PROJECT;
use crate::programs::{Programs, Source};
use crate::results::{Pace, float};

/// How slow the server is, and how much it has.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// Events of the year.
    pub events: usize,
    /// How long a query takes.
    pub query: Duration,
    /// How long any other request takes.
    pub other: Duration,
    /// How long an export run takes.
    pub run: Duration,
}

/// Months over which the events are spread.
const MONTHS: i32 = 12;
/// Queries of a project that PostHog runs at a time.
const QUERIES_AT_A_TIME: f64 = 3.0;
/// The streams that have most of the rows.
const BIG: &str = "events,persons,sessions";

/// What is synced.
struct Syncs {
    name: &'static str,
    /// All streams if there are none.
    streams: Option<&'static str>,
    method: &'static str,
    /// Seconds that the first one may take.
    most_first: f64,
    /// Seconds that one may take that finds nothing new.
    most_idle: Option<f64>,
}

const SYNCS: [Syncs; 3] = [
    Syncs {
        name: "events, persons and sessions by `auto`",
        streams: Some(BIG),
        method: "auto",
        most_first: 120.0,
        most_idle: Some(10.0),
    },
    Syncs { name: "all streams by `query`", streams: None, method: "query", most_first: 10.0, most_idle: Some(7.0) },
    Syncs { name: "all streams by `auto`", streams: None, method: "auto", most_first: 130.0, most_idle: None },
];

/// Syncs a year-old project at PostHog's pace, each time from nothing and then once more.
///
/// # Errors
/// When a sync fails.
pub async fn measure(programs: &Programs, scale: Scale) -> anyhow::Result<Vec<Pace>> {
    let now = Utc::now();
    let sandbox = year_old(now, scale).await?;
    let mut rows = Vec::new();
    for Syncs { name, streams, method, most_first, most_idle } in SYNCS {
        let start = (now - TimeDelta::days(365)).format("%Y-%m-%dT00:00:00Z").to_string();
        let options = json!({"method": {"type": method}});
        let source = Source::of(programs, &sandbox.url(), &start, &options, streams).await?;
        let mut states = BTreeMap::new();
        for (sync, most) in [("first read", Some(most_first)), ("nothing new", most_idle)] {
            let Some(most) = most else { continue };
            sandbox.clear_requests();
            let runs_before = sandbox.export_runs().len();
            let begin = Instant::now();
            sync_from(&source, &mut states).await.with_context(|| format!("{name}, {sync}"))?;
            let wall = begin.elapsed().as_secs_f64();
            let runs = sandbox.export_runs().len() - runs_before;
            rows.push(row(format!("{name}: {sync}"), [wall, most], &sandbox.requests(), runs, scale));
        }
    }
    Ok(rows)
}

async fn year_old(now: DateTime<Utc>, scale: Scale) -> anyhow::Result<Sandbox> {
    let exports = Exports { running: scale.run, ..Exports::default() };
    let limits = Limits { latency: scale.query, other_latency: scale.other, ..Limits::posthog() };
    let sandbox = Sandbox::builder().exports(exports).start().await?;
    for month in 0..MONTHS {
        let newest = now - TimeDelta::hours(1) - TimeDelta::days(30) * month;
        sandbox.generate(PROJECT, scale.events / usize::try_from(MONTHS)?, u64::try_from(month)?, newest);
    }
    sandbox.generate_lists(PROJECT, 1);
    sandbox.set_limits(limits);
    Ok(sandbox)
}

/// Syncs from the states of all streams, and replaces them.
async fn sync_from(source: &Source, states: &mut BTreeMap<String, Value>) -> anyhow::Result<()> {
    let before = Value::Array(states.values().cloned().collect());
    let output = source.from_states(&before)?.command().output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for line in output.stdout.split(|byte| *byte == b'\n').filter(|line| line.starts_with(br#"{"type":"STATE""#)) {
        let message: Value = serde_json::from_slice(line)?;
        let stream =
            message["state"]["stream"]["stream_descriptor"]["name"].as_str().context("a state of no stream")?;
        states.insert(stream.to_owned(), message);
    }
    Ok(())
}

fn row(name: String, [wall, most]: [f64; 2], requests: &[RequestLog], runs: usize, scale: Scale) -> Pace {
    let queries = requests.iter().filter(|request| request.sql.is_some()).count();
    let run = if runs > 0 { scale.run.as_secs_f64() } else { 0.0 };
    let bound = (float(queries as u64) / QUERIES_AT_A_TIME).ceil() * scale.query.as_secs_f64();
    Pace { name, wall, most, queries, others: requests.len() - queries, runs, bound: bound.max(run) }
}
