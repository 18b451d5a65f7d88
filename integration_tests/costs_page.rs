//! The example in docs/costs.md, with what `plan` says of a sandbox.

use std::fmt::Write;

use chrono::Utc;
use posthog_sandbox::posthog::{Event, Exports, Sandbox, Server};
use serde_json::{Value, json};
use source_posthog::time::Timestamp;

use crate::plan::plan;
use crate::support::program::{Source, assert_committed, catalog, repository_file};
use crate::support::world::{PROJECT, event, sandbox_with_exports};

const PAGE: &str = "docs/costs.md";
const BEGIN: &str = "<!-- an example, written by `make spec` -->\n";
const END: &str = "<!-- end of the example -->";

/// Events of each day, of which every tenth has another name.
const EACH: u32 = 400;
/// Days of events.
const DAYS: i64 = 60;
const DAY: i64 = 86_400_000_000;

/// One event every few minutes from `begin` on.
fn events_of(begin: i64, count: u32) -> Vec<Event> {
    let number = |index: u32| u128::try_from(begin).unwrap() + u128::from(index);
    let name = |index: u32| if index.is_multiple_of(10) { "order paid" } else { "$pageview" }.to_owned();
    let at = |index: u32| begin + i64::from(index) * (DAY / i64::from(EACH));
    (0..count).map(|index| Event { event: name(index), ..event(number(index), at(index)) }).collect()
}

/// A row of the table: what all lines of a plan say together.
fn row(what: &str, plan: &Value) -> String {
    let sum = |field: &str| {
        let reads = plan["reads"].as_array().unwrap().iter();
        reads.map(|read| read[field].as_u64().unwrap()).sum::<u64>()
    };
    let bytes = sum("bytes");
    let (megabytes, tenths) = (bytes / 1_000_000, bytes % 1_000_000 / 100_000);
    format!(
        "| {what} | {} | {} | {} | {megabytes}.{tenths} MB | {} | {} |\n",
        sum("rows"),
        sum("runs"),
        plan["billed_rows"],
        sum("requests"),
        plan["minutes"],
    )
}

/// Turns the clocks of both sides to shortly after noon of the day that begins at `today`, and so many seconds on: neither the
/// time of day nor a minute more or less changes in which slice an event is.
fn turn_clocks(posthog: &Sandbox, source: &Source, today: i64, later: i64) {
    let ahead = today / 1_000_000 + 43_200 + 130 + later - Utc::now().timestamp();
    posthog.set_server(Server { clock_ahead: ahead, ..Server::cloud_2026() });
    source.turn_clock(ahead);
}

#[tokio::test]
async fn example_of_the_page_is_what_plan_says() {
    let posthog = sandbox_with_exports(Exports::default()).await;
    let today = Timestamp::from_day(Timestamp::now().day() + 1).micros();
    (1..=DAYS).for_each(|day| posthog.insert(PROJECT, events_of(today - day * DAY, EACH)));
    let start = json!(Timestamp::from_micros(today - DAYS * DAY));
    let source = |method: &str| {
        Source::new(&posthog.url())
            .with("method", json!({"type": method, "settle_minutes": 0}))
            .with("export_above", json!(20_000))
            .with("start_date", start.clone())
    };
    let named =
        |method: &str| source(method).with("include_events", json!(["order paid"])).with("export_above", json!(2_000));
    let (by_query, by_export) = (source("query"), source("export"));
    let (named_by_query, named_by_export) = (named("query"), named("export"));
    let catalog = catalog(&["events"], "incremental");
    let mut table = String::new();
    for (what, source) in [
        ("everything, `query`", &by_query),
        ("everything, `export`", &by_export),
        ("one event name, `query`", &named_by_query),
        ("one event name, `export`", &named_by_export),
    ] {
        turn_clocks(&posthog, source, today, 0);
        table += &row(&format!("first sync of {what}"), &plan(source, &posthog, &catalog, None).await.1);
    }
    turn_clocks(&posthog, &by_query, today, 0);
    let state = by_query.read_all(&catalog, None).await.state();
    posthog.insert(PROJECT, events_of(today + DAY / 2, EACH / 24));
    for (what, seconds) in [("an hour later", 3_600), ("a day later", 86_400)] {
        if seconds > 3_600 {
            posthog.insert(PROJECT, events_of(today + DAY / 2 + DAY / 24 + 1, EACH - EACH / 24));
        }
        for (method, source) in [("query", &by_query), ("export", &by_export)] {
            turn_clocks(&posthog, source, today, seconds);
            let (_, planned) = plan(source, &posthog, &catalog, Some(&state)).await;
            table += &row(&format!("next sync, {what}, `{method}`"), &planned);
        }
    }
    let mut example = format!(
        "A project has {EACH} events on each of {DAYS} days, of which every tenth is named `order paid`. `export_above` is 20,000, for the one \
         event name 2,000. `source-posthog plan` says:\n\n"
    );
    writeln!(
        example,
        "| | rows | runs | may be billed | PostHog reads | requests | minutes |\n|---|---|---|---|---|---|---|"
    )
    .unwrap();
    example += &table;
    let page = std::fs::read_to_string(repository_file(PAGE)).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("a place for the example");
    let (_, after) = rest.split_once(END).expect("the end of the example");
    assert_committed(PAGE, &format!("{before}{BEGIN}{example}{END}{after}"));
}
