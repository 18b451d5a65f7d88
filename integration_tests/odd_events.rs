//! Events at odd times, in odd order and in odd numbers: by both methods, in full and incrementally.

use posthog_sandbox::posthog::{Event, Exports, Project, Sandbox};
use source_posthog::time::Timestamp;

use crate::support::program::{Source, catalog};
use crate::support::world::{
    assert_events, assert_exported_events, assert_no_duplicates, event, minutes_ago, two_projects_with,
};

const DAY: i64 = 86_400_000_000;
/// In New York, in Kolkata, on Lord Howe Island, whose clocks are changed by half an hour, and in Berlin,
/// where nothing happens.
const PROJECTS: [u64; 4] = [1001, 1002, 1003, 1004];

/// Instants at which clocks are changed somewhere, days that not every year has, and ends of years.
const BORDERS: [&str; 12] = [
    "2026-03-08T07:00:00Z",
    "2025-11-02T05:00:00Z",
    "2025-11-02T06:00:00Z",
    "2026-03-29T01:00:00Z",
    "2025-10-26T01:00:00Z",
    "2026-04-04T15:00:00Z",
    "2025-10-04T15:30:00Z",
    "2024-02-29T00:00:00Z",
    "2024-03-01T00:00:00Z",
    "2026-01-01T00:00:00Z",
    "2026-02-28T18:30:00Z",
    "2026-03-01T05:00:00Z",
];

/// Events on both sides of every border.
fn at_borders() -> Vec<i64> {
    let instants = BORDERS.iter().map(|text| Timestamp::parse(text).unwrap().micros());
    instants.flat_map(|at| [at - DAY, at - 1_000_001, at - 1, at, at + 1, at + 1_800_000_000, at + DAY]).collect()
}

/// A number that differs in both halves, which `ClickHouse` orders the other way round.
fn number(project: u64, index: usize) -> u128 {
    (u128::from(project) << 100) + (index as u128) * 0x1_0000_0000_0001
}

/// The first hour of a day in UTC, three days ago.
fn recent() -> i64 {
    minutes_ago(3 * 1_440).div_euclid(DAY) * DAY + DAY / 24
}

fn odd_events(project: u64) -> Vec<Event> {
    let received = |timestamp: i64, created_at: i64| (timestamp, created_at);
    let recent = recent();
    let mut times: Vec<(i64, i64)> = Vec::new();
    times.extend(at_borders().into_iter().map(|at| received(at, at + 2_000_000)));
    // The later it happened, the earlier it came.
    times.extend((0..100).map(|index| received(recent + index * 1_000_000, recent + DAY / 2 - index * 3_000_000)));
    // Forty days late, and from a clock that is a year ahead.
    times.extend((0..30).map(|index| received(recent - 40 * DAY - index, recent + index * 7_000_000)));
    times.extend((0..30).map(|index| received(recent + 400 * DAY + index, recent + index * 7_000_000)));
    // More than five pages of one microsecond.
    times.extend((0..2_600).map(|index| received(recent - DAY, recent - DAY + index / 100)));
    // A day with most of the volume, in no order.
    times.extend((0..4_000).map(|index| received(recent + (index * 7_919 % 50_000) * 1_000_003, recent + DAY + index)));
    let numbered = times.into_iter().enumerate();
    numbered
        .map(|(index, (timestamp, created_at))| Event { created_at, ..event(number(project, index), timestamp) })
        .collect()
}

/// Events that arrive now, with timestamps at every border and in between.
fn late_events(project: u64) -> Vec<Event> {
    let now = minutes_ago(0);
    let others = [now - 40 * DAY, now + 400 * DAY, now - 1_000_000, recent() - DAY];
    let times = at_borders().into_iter().chain(others).enumerate();
    times.map(|(index, at)| Event { created_at: now, ..event(number(project, 100_000 + index), at) }).collect()
}

async fn sandbox(exports: bool) -> Sandbox {
    let builder = Sandbox::builder();
    let builder = if exports { builder.exports(Exports::default()) } else { builder };
    let project = |id: u64, timezone: &str| Project {
        id,
        name: timezone.to_owned(),
        timezone: timezone.to_owned(),
        token: format!("phc_{id}"),
    };
    let builder = builder.project(project(1003, "Australia/Lord_Howe")).project(project(1004, "Europe/Berlin"));
    let posthog = two_projects_with(builder).await;
    for project in [1001, 1002, 1003] {
        posthog.insert(project, odd_events(project));
    }
    posthog
}

async fn read(exports: bool, mode: &str) {
    let posthog = sandbox(exports).await;
    let source = Source::new(&posthog.url());
    let source = if exports { source.with_exports() } else { source.with_page_size(500) };
    let catalog = catalog(&["events"], mode);
    let mut messages = source.read_all(&catalog, None).await;
    let assert_all = if exports { assert_exported_events } else { assert_events };
    assert_all(&messages, &posthog, &PROJECTS);
    assert_no_duplicates(&messages);
    if mode == "incremental" {
        for project in [1001, 1002, 1003] {
            posthog.insert(project, late_events(project));
        }
        let late = source.read_all(&catalog, Some(&messages.state())).await;
        assert_no_duplicates(&late);
        messages = messages.and(late);
        assert_all(&messages, &posthog, &PROJECTS);
    }
}

#[tokio::test]
async fn full_refresh_by_query_reads_every_odd_event_once() {
    read(false, "full_refresh").await;
}

#[tokio::test]
async fn incremental_sync_by_query_reads_every_odd_event_once() {
    read(false, "incremental").await;
}

#[tokio::test]
async fn full_refresh_by_export_reads_every_odd_event_once() {
    read(true, "full_refresh").await;
}

#[tokio::test]
async fn incremental_sync_by_export_reads_every_odd_event_once() {
    read(true, "incremental").await;
}
