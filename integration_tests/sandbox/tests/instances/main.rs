//! Instances of PostHog that the stand-in can stand for, seen through its sockets.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod exported_rows;
mod lists;
mod queries;
mod runs;
#[path = "../support/mod.rs"]
mod support;

use chrono::{DateTime, Duration, Utc};
use posthog_sandbox::posthog::{Builder, Event, Exports, Sandbox, Server};
use serde_json::{Value, json};
use uuid::Uuid;

use support::{PATH, download, fetch, post, start, status};

const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;

fn builder(server: Server) -> Builder {
    Sandbox::builder().server(server)
}

async fn cloud() -> Sandbox {
    builder(Server::cloud_2026()).start().await.unwrap()
}

/// An instance with file exports.
async fn exporting(server: Server, exports: Exports) -> Sandbox {
    builder(server).exports(exports).start().await.unwrap()
}

/// The instant so many microseconds ago, in whole seconds.
fn ago(micros: i64) -> i64 {
    (Utc::now().timestamp_micros() - micros).div_euclid(1_000_000) * 1_000_000
}

fn iso(micros: i64) -> String {
    DateTime::from_timestamp_micros(micros).unwrap().to_rfc3339()
}

fn event(number: u128, timestamp: i64, created_at: i64) -> Event {
    Event { uuid: Uuid::from_u128(number), timestamp, created_at, ..Event::default() }
}

fn request(model: &str, start: i64, end: i64) -> Value {
    json!({
        "model": model, "file": {"format": "JSONLines", "compression": "gzip"},
        "data_interval_start": iso(start), "data_interval_end": iso(end),
    })
}

/// The files of a run that is done, as they are on the file host.
async fn files(posthog: &Sandbox, run: &str) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    for file in status(posthog, run).await["files"].as_array().unwrap() {
        let reply = download(posthog, run, file.as_str().unwrap()).await;
        bodies.push(fetch(reply.header("location").unwrap(), &[]).await.body);
    }
    bodies
}

/// The rows of a run over the last two days.
async fn recent_rows(posthog: &Sandbox, model: &str) -> Vec<Value> {
    rows(posthog, &request(model, ago(2 * DAY), Utc::now().timestamp_micros())).await
}

async fn rows(posthog: &Sandbox, body: &Value) -> Vec<Value> {
    let run = start(posthog, body).await;
    let mut rows = Vec::new();
    for body in files(posthog, &run).await {
        let text = std::io::read_to_string(flate2::read::MultiGzDecoder::new(body.as_slice())).unwrap();
        rows.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
    }
    rows
}

#[test]
fn switches_are_set_by_name() {
    let mut server = Server::named("cloud-2026").unwrap();
    assert_eq!(server, Server::cloud_2026());
    assert!(Server::NAMES.iter().all(|name| Server::named(name).is_some()));
    for switch in [
        "sessions=v3",
        "person_last_seen_at=false",
        "event_person_mode=false",
        "persons_on_events=disabled",
        "refusals=bare",
        "person_times=-05:00",
        "event_times=naive",
        "sessions_in_project_zone=false",
        "session_fields=few",
        "sessions_lookback_days=none",
        "lookback_days=3",
        "unbounded_days=none",
        "records_completed=null",
        "empty_runs_complete=false",
        "concurrent_runs=2",
        "future_refused=false",
        "member_per_line=false",
        "current_answers=false",
        "bucket=false",
        "temporal=false",
        "experiment_orders_checked=false",
        "archived_hidden=false",
        "merges_rewrite_events",
        "clock_ahead=-5",
    ] {
        let before = server.clone();
        server.set(switch).unwrap();
        assert_ne!(server, before, "{switch}");
    }
    assert!(server.set("sessions=v4").is_err() && server.set("nonsense=1").is_err());
}

#[tokio::test]
async fn clock_ahead_shows_in_the_date_and_moves_the_future() {
    for seconds in [-90, 90] {
        let server = Server { clock_ahead: seconds, ..Server::cloud_2026() };
        let posthog = exporting(server, Exports::default()).await;
        let reply = support::query(&posthog, "SELECT now() FROM events").await;
        let date = DateTime::parse_from_rfc2822(reply.header("date").unwrap()).unwrap().to_utc();
        let ahead = date - Utc::now();
        assert!((ahead - Duration::seconds(seconds)).abs() < Duration::seconds(10), "{ahead}");
        let reply = post(&posthog, PATH, &request("events", ago(HOUR), ago(0))).await;
        assert_eq!(reply.status, if seconds < 0 { 400 } else { 202 }, "{}", reply.text());
    }
}
