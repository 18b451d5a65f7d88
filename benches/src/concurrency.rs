//! How much faster it is to read several windows at a time when the server takes its time.

use std::time::Duration;

use anyhow::ensure;
use chrono::Utc;
use posthog_sandbox::posthog::{Limits, Sandbox};
use serde_json::json;

use crate::events::{DAY, date, of_day, samples};
use crate::http::PROJECT;
use crate::programs::{Programs, Source};
use crate::results::{Concurrency, Spread};

/// Events of a window.
const EVENTS: u64 = 80;
/// Two windows do not fit on a page.
const PAGE: u64 = 100;
/// Days between the last event and now.
const AGE: i64 = 10;

/// Reads `windows` windows with every number of requests at a time; every query takes `latency`.
///
/// The server runs as many queries at a time as the connector sends: three are what PostHog Cloud
/// allows, more are for instances of one's own.
///
/// # Errors
/// When a read fails or misses events.
pub async fn measure(
    programs: &Programs,
    windows: u64,
    latency: Duration,
    requests: &[usize],
    rounds: usize,
) -> anyhow::Result<Vec<Concurrency>> {
    let samples = samples().await?;
    let first = Utc::now().timestamp_micros().div_euclid(DAY) - AGE - i64::try_from(windows)?;
    let sandbox = Sandbox::builder().start().await?;
    for day in first..first + i64::try_from(windows)? {
        sandbox.insert(PROJECT, of_day(&samples, day, EVENTS));
    }
    let start = format!("{}T00:00:00Z", date(first));
    let mut seconds: Vec<Vec<f64>> = vec![Vec::new(); requests.len()];
    let mut peaks = vec![0; requests.len()];
    for _ in 0..rounds {
        for (index, concurrency) in requests.iter().enumerate() {
            let limit = (*concurrency).max(3);
            let limits = Limits { latency, concurrency: Some(limit), ..Limits::default() };
            sandbox.set_limits(limits);
            sandbox.clear_requests();
            let options = json!({"method": {"type": "query", "page_size": PAGE, "settle_minutes": 0}, "concurrency": concurrency});
            let source = Source::new(programs, &sandbox.url(), &start, &options).await?;
            let used = source.subject().run().await?;
            let stats = sandbox.stats();
            // Figures are one row, before the events are read and after.
            let wanted = usize::try_from(windows * EVENTS)? + 2;
            ensure!(stats.rows == wanted, "{} rows were sent instead of {wanted}", stats.rows);
            if let (Some(seconds), Some(peak)) = (seconds.get_mut(index), peaks.get_mut(index)) {
                seconds.push(used.wall);
                *peak = stats.peak_queries.max(*peak);
            }
        }
    }
    let rows = requests.iter().zip(seconds).zip(peaks);
    Ok(rows.map(|((requests, wall), peak)| Concurrency { requests: *requests, peak, wall: Spread::of(wall) }).collect())
}
