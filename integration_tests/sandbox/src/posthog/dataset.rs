//! The stored data set: events that real SDKs sent.

use std::io::{BufRead as _, BufReader};

use anyhow::Context;
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use flate2::read::GzDecoder;
use serde_json::{Map, Value};

use super::capture::{Arrival, ingest};
use super::hogql::parse_time;
use super::store::{Event, Tables};

const EVENTS: &[u8] = include_bytes!("../../data/events.jsonl.gz");

/// Takes the events in one by one, as the capture endpoints would have at the time.
pub(crate) fn load(project: u64, tables: &mut Tables, newest: DateTime<Utc>) -> anyhow::Result<usize> {
    let mut lines: Vec<(i64, Map<String, Value>)> = Vec::new();
    for (number, line) in BufReader::new(GzDecoder::new(EVENTS)).lines().enumerate() {
        let line = line.context("read the stored events")?;
        let read = || {
            let mut event: Map<String, Value> = serde_json::from_str(&line)?;
            let timestamp = event.remove("timestamp").and_then(|text| parse_time(text.as_str()?, Tz::UTC));
            // In milliseconds, as PostHog takes them in.
            anyhow::Ok((timestamp.context("no timestamp")?.div_euclid(1000) * 1000, event))
        };
        lines.push(read().with_context(|| format!("line {} of the stored events", number + 1))?);
    }
    let latest = lines.iter().map(|(timestamp, _)| *timestamp).max().unwrap_or_default();
    let shift = newest.timestamp_micros() - latest;
    let count = lines.len();
    for (number, (timestamp, event)) in (0_i64..).zip(lines) {
        let timestamp = timestamp + shift;
        // Between 0.1 and 2 seconds on the way, the same for each event every time; in milliseconds.
        let now = (timestamp + 100_000 + number * 7_919_000 % 1_900_000).div_euclid(1000) * 1000;
        let row = ingest(tables, project, event, Arrival { now, sent_at: None });
        let row = row.map_err(|error| anyhow::anyhow!("line {} of the stored events: {}", number + 1, error.detail))?;
        tables.insert_one(Event { timestamp, ..row });
    }
    Ok(count)
}
