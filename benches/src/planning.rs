//! What planning by a histogram saves: a year of a bursty project, read in planned windows and day by
//! day.

use anyhow::{Context, ensure};
use chrono::{DateTime, Utc};
use posthog_sandbox::posthog::{Event, Sandbox};
use serde_json::json;

use crate::events::{DAY, date, of_day, samples};
use crate::http::{Client, PROJECT};
use crate::programs::{Programs, Source};
use crate::results::{Cost, Planning};

/// Days of the year.
const YEAR: i64 = 365;
/// Days between the last event and now.
const AGE: i64 = 10;
/// First day of a launch, and what its days have, in hundredths of a page.
const LAUNCHES: [(i64, &[u64]); 5] =
    [(30, &[60, 24, 8]), (101, &[60, 24, 8]), (190, &[60, 24, 8]), (282, &[60, 24, 8]), (333, &[40, 120, 30])];

/// Reads the year both ways, with pages of `page` rows.
///
/// # Errors
/// When one way misses events.
pub async fn compare(programs: &Programs, page: u64) -> anyhow::Result<Planning> {
    let samples = samples().await?;
    let first = Utc::now().timestamp_micros().div_euclid(DAY) - AGE - YEAR;
    let sandbox = Sandbox::builder().start().await?;
    let (mut days, mut total) = (Vec::new(), 0);
    for day in first..first + YEAR {
        let count = events_of(day - first, page);
        let events = of_day(&samples, day, count);
        total += count;
        days.push(Day {
            day,
            full: events.chunks_exact(usize::try_from(page)?).map(last).collect::<Option<_>>(),
            count,
        });
        sandbox.insert(PROJECT, events);
    }
    let start = format!("{}T00:00:00Z", date(first));
    let options = json!({"method": {"type": "query", "page_size": page, "settle_minutes": 0}});
    let source = Source::new(programs, &sandbox.url(), &start, &options).await?;
    let printed = source.count(None).await?;
    ensure!(printed.records == total, "{} records came of {total} events", printed.records);
    let planned = cost(&sandbox);
    let columns = columns(&sandbox)?;

    sandbox.clear_requests();
    day_by_day(&sandbox, &days, &columns, page).await?;
    let naive = cost(&sandbox);
    ensure!(naive.rows == total, "{} rows came of {total} events", naive.rows);
    Ok(Planning {
        days: days.len() as u64,
        days_with_events: days.iter().filter(|day| day.count > 0).count() as u64,
        heaviest: days.iter().map(|day| day.count).max().unwrap_or_default(),
        planned,
        naive,
    })
}

/// A day and the timestamps of the last events of its full pages.
struct Day {
    day: i64,
    full: Option<Vec<i64>>,
    count: u64,
}

fn last(events: &[Event]) -> Option<i64> {
    events.last().map(|event| event.timestamp)
}

/// A project of the size of a small company: busy on working days, nearly silent at weekends, and
/// crowded when it launches something.
fn events_of(day: i64, page: u64) -> u64 {
    let launch = LAUNCHES.iter().find_map(|(first, days)| days.get(usize::try_from(day - first).ok()?));
    let noise = u64::try_from(day * 7_919 % 97).unwrap_or_default();
    match (launch, day % 7) {
        (Some(hundredths), _) => page * hundredths / 100,
        (None, 5 | 6) => noise / 40,
        (None, _) => page * (10 + noise) / 50_000 + noise % 5,
    }
}

/// A request and a count for every UTC day.
async fn day_by_day(sandbox: &Sandbox, days: &[Day], columns: &str, page: u64) -> anyhow::Result<()> {
    let client = Client::default();
    for Day { day, full, .. } in days {
        let (from, to) = (literal(day * DAY)?, literal((day + 1) * DAY)?);
        let range = format!("FROM events WHERE timestamp >= {from} AND timestamp < {to}");
        let order = format!("ORDER BY timestamp ASC, toString(uuid) ASC LIMIT {page}");
        client.query(&sandbox.url(), &format!("SELECT {columns} {range} {order}")).await?;
        for last in full.iter().flatten() {
            let after = literal(*last)?;
            client.query(&sandbox.url(), &format!("SELECT {columns} {range} AND timestamp > {after} {order}")).await?;
        }
        client.query(&sandbox.url(), &format!("SELECT count() {range} LIMIT 1")).await?;
    }
    Ok(())
}

fn literal(micros: i64) -> anyhow::Result<String> {
    let instant = DateTime::from_timestamp_micros(micros).context("an instant")?;
    Ok(format!("toDateTime64('{}', 6, 'UTC')", instant.format("%Y-%m-%d %H:%M:%S%.6f")))
}

/// What the queries since the last time have cost. Rows of counts are not events.
fn cost(sandbox: &Sandbox) -> Cost {
    let mut cost = Cost::default();
    for request in sandbox.requests() {
        let Some(sql) = request.sql else { continue };
        cost.requests += 1;
        cost.read += request.bytes_read.unwrap_or_default();
        if !sql.contains("count()") {
            cost.rows += request.rows.unwrap_or_default() as u64;
        }
    }
    cost
}

/// The select list of the connector's pages.
fn columns(sandbox: &Sandbox) -> anyhow::Result<String> {
    let queries = sandbox.requests().into_iter().filter_map(|request| request.sql);
    let mut pages = queries.filter(|sql| sql.contains("ORDER BY timestamp"));
    let page = pages.next().context("the connector has asked for no page")?;
    let columns = page.strip_prefix("SELECT ").and_then(|rest| rest.split_once(" FROM events")).context("a page")?;
    Ok(columns.0.to_owned())
}
