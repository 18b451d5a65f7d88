//! Events are reconciled with PostHog's figures: nothing is lost, and ordinarily nothing comes twice.

use std::collections::{BTreeMap, BTreeSet};

use posthog_sandbox::posthog::{Action, Event, Exports, Fault, Retention, Sandbox, Server};
use serde_json::{Value, json};
use source_posthog::time::Timestamp;

use crate::support::messages::Messages;
use crate::support::program::{Source, catalog, state_file};
use crate::support::world::{
    PROJECT, event, event_ids, events, minutes_ago, sandbox, sandbox_with_exports, two_hours_ago,
};

const MINUTE: i64 = 60_000_000;
const DAY: i64 = 24 * 60;

fn incremental() -> Value {
    catalog(&["events"], "incremental")
}

/// The server's clock, some minutes ahead of the real one.
fn turn_clock(posthog: &Sandbox, minutes: i64) {
    posthog.set_server(Server { clock_ahead: minutes * 60, ..Server::cloud_2026() });
}

/// So many minutes later, for the server and the source.
fn later(posthog: &Sandbox, source: &Source, minutes: i64) {
    turn_clock(posthog, minutes);
    source.turn_clock(minutes * 60);
}

/// How often each event was emitted.
fn emissions<'m>(syncs: impl IntoIterator<Item = &'m Messages>) -> BTreeMap<String, usize> {
    let mut emitted = BTreeMap::new();
    for id in syncs.into_iter().flat_map(|messages| messages.ids("events")) {
        *emitted.entry(id).or_default() += 1;
    }
    emitted
}

fn queries(posthog: &Sandbox) -> usize {
    posthog.requests().iter().filter(|request| request.path.ends_with("/query/")).count()
}

/// A project that ingests all the time, whose events become visible up to two minutes after that.
#[tokio::test]
async fn ten_syncs_five_minutes_apart_emit_every_event_once() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, events(200, minutes_ago(60)));
    let now = minutes_ago(0);
    for number in 0..600_u32 {
        let created_at = now + i64::from(number) * 5_000_000;
        let lag = i64::from(number % 7) * 20_000_000;
        // Every ninth was captured long before it was sent.
        let back = if number % 9 == 0 { i64::from(number) * 3_600_000_000 } else { 2_000_000 };
        let event = Event { created_at, visible_at: Some(created_at + lag), ..event(number.into(), created_at - back) };
        posthog.insert(PROJECT, vec![Event { uuid: uuid::Uuid::from_u128(u128::from(number) + 10_000), ..event }]);
    }
    // The default ingestion delay.
    let source = Source::new(&posthog.url()).with("method", json!({"type": "query"}));
    let (mut state, mut syncs) = (None, Vec::new());
    for sync in 0..12 {
        later(&posthog, &source, sync * 5);
        let messages = source.read_all(&incremental(), state.as_ref()).await;
        state = Some(messages.state());
        syncs.push(messages);
    }
    let emitted = emissions(&syncs);
    assert!(emitted.values().all(|times| *times == 1), "{emitted:?}");
    assert_eq!(emitted.keys().cloned().collect::<BTreeSet<_>>(), event_ids(&posthog));
    assert!(syncs[2..10].iter().all(|sync| sync.records("events").len() >= 50), "each sync has new events");
}

/// People who try it out send an event and read at once.
#[tokio::test]
async fn first_sync_reads_the_newest_events_ahead_and_no_later_sync_repeats_them() {
    for (method, minutes) in [("query", 60), ("auto", 60), ("auto", 3_000)] {
        let posthog = sandbox_with_exports(Exports::default()).await;
        posthog.insert(PROJECT, events(10, minutes_ago(minutes)));
        posthog.insert(PROJECT, (10_000..10_150).map(|number| event(number, minutes_ago(1))).collect());
        // A clock that is ahead has received this.
        posthog.insert(PROJECT, vec![event(40_000, minutes_ago(-6))]);
        let source = Source::new(&posthog.url()).with("method", json!({"type": method})).with("export_above", json!(0));
        let first = source.read_all(&incremental(), None).await;
        assert_eq!(first.ids("events").len(), 10 + 100, "as many as the state remembers");
        let logs = first.logs("INFO").join("\n");
        assert!(logs.contains("100 events that PostHog received after"), "{logs}");
        let second = source.read_all(&incremental(), Some(&first.state())).await;
        assert_eq!(second.ids("events").len(), 0, "nothing is due yet");
        // Some of these minutes became visible late, and others came since.
        posthog.insert(PROJECT, (20_000..20_005).map(|number| event(number, minutes_ago(1))).collect());
        posthog.insert(PROJECT, (30_000..30_007).map(|number| event(number, minutes_ago(-4))).collect());
        later(&posthog, &source, 8);
        let third = source.read_all(&incremental(), Some(&second.state())).await;
        assert_eq!(third.ids("events").len(), 50 + 5 + 7);
        later(&posthog, &source, 20);
        let fourth = source.read_all(&incremental(), Some(&third.state())).await;
        assert_eq!(fourth.ids("events").len(), 1);
        let emitted = emissions(&[first, second, third, fourth]);
        assert!(emitted.values().all(|times| *times == 1), "{method}: {emitted:?}");
        assert_eq!(emitted.keys().cloned().collect::<BTreeSet<_>>(), event_ids(&posthog));
    }
}

#[tokio::test]
async fn newest_events_of_a_first_sync_come_again_only_if_asked_for() {
    for older in [vec![], vec![event(4, minutes_ago(3_000))]] {
        let posthog = sandbox().await;
        let newest = minutes_ago(1);
        // A clock that is ahead has received the third.
        posthog.insert(PROJECT, vec![event(1, newest), event(2, newest), event(3, minutes_ago(-6))]);
        posthog.insert(PROJECT, older.clone());
        let source = Source::new(&posthog.url());
        let first = source.read_all(&incremental(), None).await;
        assert_eq!(first.ids("events").len(), 2 + older.len());
        let day = chrono::DateTime::from_timestamp_micros(newest).unwrap().format("%Y-%m-%d").to_string();
        let again = Source::new(&posthog.url()).with("reread_days", json!([day]));
        for (source, expected) in [(source, 1), (again, 3)] {
            later(&posthog, &source, 10);
            let second = source.read_all(&incremental(), Some(&first.state())).await;
            assert_eq!(second.ids("events").len(), expected, "{older:?}");
        }
    }
}

#[tokio::test]
async fn events_that_become_visible_late_repeat_only_their_slice() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, events(5_000, minutes_ago(3 * 60)));
    let source = Source::new(&posthog.url());
    let first = source.read_all(&incremental(), None).await;
    later(&posthog, &source, 5);
    posthog.insert(PROJECT, (10_000..10_030).map(|number| event(number, minutes_ago(-4))).collect());
    let second = source.read_all(&incremental(), Some(&first.state())).await;
    assert_eq!(second.ids("events").len(), 30);
    // Three more of the same minutes, which no query has shown so far.
    posthog.insert(PROJECT, (20_000..20_003).map(|number| event(number, minutes_ago(-4))).collect());
    later(&posthog, &source, 10);
    let third = source.read_all(&incremental(), Some(&second.state())).await;
    assert_eq!(third.ids("events").len(), 33, "the slice of five minutes, and nothing else");
    let logs = third.logs("INFO").join("\n");
    assert!(logs.contains("PostHog has 33 and showed 30 before") && logs.contains("30 of them are repeats"), "{logs}");
    let fourth = source.read_all(&incremental(), Some(&third.state())).await;
    assert_eq!(fourth.ids("events").len(), 0);
}

/// Noon, so many days ago, and the day's name.
fn noon(days_ago: i64) -> (i64, String) {
    let day = Timestamp::from_day(Timestamp::now().day() - days_ago);
    (day.micros() + 43_200_000_000, day.date().to_string())
}

#[tokio::test]
async fn days_are_read_once_more_when_the_settings_ask_for_it() {
    // Ten events a day, young ones and some of a month that has been folded.
    const DAYS: [i64; 6] = [3, 4, 100, 101, 102, 103];
    for method in ["query", "export"] {
        let posthog = sandbox_with_exports(Exports::default()).await;
        for (days_ago, number) in DAYS.into_iter().zip(0..) {
            let at = noon(days_ago).0;
            let numbered = |index: u32| event((number * 100 + index).into(), at + i64::from(index));
            posthog.insert(PROJECT, (0..10).map(numbered).collect());
        }
        let method = json!({"type": method, "settle_minutes": 0});
        let [young, from, to] = [4, 102, 101].map(|days_ago| noon(days_ago).1);
        let source = |days| Source::new(&posthog.url()).with("method", method.clone()).with("reread_days", days);
        let (source, again) = (source(json!([])), source(json!([young, format!("{from}/{to}")])));
        let first = source.read_all(&incremental(), None).await;
        assert_eq!(first.ids("events").len(), 60);
        let second = again.read_all(&incremental(), Some(&first.state())).await;
        let days: BTreeSet<String> = second
            .records("events")
            .iter()
            .map(|record| record["timestamp"].as_str().unwrap().split('T').next().unwrap().to_owned())
            .collect();
        assert_eq!(days, [young.clone(), from.clone(), to.clone()].into(), "{}", second.without_records());
        assert_eq!(second.ids("events").len(), 30);
        let logs = second.logs("INFO").join("\n");
        assert!(logs.contains("are read again, as `reread_days` asks; 30 of them had been emitted before"), "{logs}");
        // Once more does nothing, and the log has a line about it.
        let idle = again.read_all(&incremental(), Some(&second.state())).await;
        let days = format!("`reread_days`: {from} to {to}, {young} have been read again already");
        let logs = idle.logs("INFO").join("\n");
        assert!(logs.contains(&days) && logs.contains("to have them read once more, sync once without them"), "{logs}");
        assert_eq!((idle.ids("events").len(), second.logs("INFO").join("\n").contains("again already")), (0, false));
        // Days before the start date are left alone.
        let start = json!(format!("{young}T00:00:00Z"));
        let later = Source::new(&posthog.url()).with("method", method.clone()).with("start_date", start);
        let later = later.with("reread_days", json!([from]));
        let third = later.read_all(&incremental(), Some(&second.state())).await;
        assert_eq!((third.ids("events").len(), third.logs("INFO").join("\n").contains("are read again")), (0, false));
        let outside =
            format!("`reread_days`: {from} not read, because `start_date` and `end_date` leave these days out");
        let warnings = third.logs("WARN");
        assert_eq!(warnings.iter().filter(|line| line.contains(&outside)).count(), 1, "{warnings:?}");
        assert!(!third.logs("INFO").join("\n").contains("again already"), "none of the days is asked for");
        for (source, state) in [(&again, second.state()), (&source, third.state())] {
            assert_eq!(source.read_all(&incremental(), Some(&state)).await.ids("events").len(), 0);
        }
    }
}

#[tokio::test]
async fn days_before_the_cursor_of_airbytes_connector_are_read_when_the_settings_ask_for_it() {
    let posthog = sandbox().await;
    for (days_ago, number) in [30, 31, 100, 101].into_iter().zip(0..) {
        let at = noon(days_ago).0;
        posthog.insert(PROJECT, (0..10).map(|index: u32| event((number * 100 + index).into(), at)).collect());
    }
    let state = json!({PROJECT.to_string(): {"timestamp": format!("{}T00:00:00.000000+00:00", noon(2).1)}});
    let source = |days| Source::new(&posthog.url()).with("reread_days", days);
    let [source, first, second] = [json!([]), json!([noon(31).1]), json!([noon(101).1])].map(source);
    let mut state = state_file("events", &state);
    for (source, numbers) in [(&source, 0), (&first, 10), (&second, 10), (&second, 0)] {
        let messages = source.read_all(&incremental(), Some(&state)).await;
        assert_eq!(messages.ids("events").len(), numbers, "{}", messages.without_records());
        state = messages.state();
    }
}

/// Events of one cell.
fn of_one_hour(numbers: impl IntoIterator<Item = u32>) -> Vec<Event> {
    let begin = minutes_ago(2 * 60);
    let numbered = |number: u32| Event { created_at: begin, ..event(number.into(), begin + i64::from(number)) };
    numbers.into_iter().map(numbered).collect()
}

#[tokio::test]
async fn days_that_grow_while_they_are_read_are_left_to_the_next_sync() {
    for has_duplicate in [false, true] {
        let posthog = sandbox().await;
        let mut rows = of_one_hour(0..10);
        rows.extend(has_duplicate.then(|| rows[0].clone()));
        posthog.insert(PROJECT, rows);
        // Each query for figures shows one more than the pages before it: the first is asked before them.
        let at_queries = if has_duplicate { vec![4, 7, 10] } else { vec![4] };
        posthog.insert_at_queries(PROJECT, at_queries.into_iter().zip(of_one_hour(100..110)));
        let source = Source::new(&posthog.url());
        let first = source.read_all(&incremental(), None).await;
        let logs = first.logs("INFO").join("\n");
        assert!(logs.contains("1 events became visible while their days were read"), "{logs}");
        posthog.insert_waiting();
        let second = source.read_all(&incremental(), Some(&first.state())).await;
        assert_eq!(emissions([&first, &second]).len(), event_ids(&posthog).len(), "{logs}");
    }
}

#[tokio::test]
async fn events_that_appear_in_front_of_a_full_page_hide_none_behind_it() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, of_one_hour([0, 2, 4, 6]));
    // With the second page: as many rows have come as were counted then, and one is left.
    posthog.insert_at_queries(PROJECT, of_one_hour([3]).into_iter().map(|event| (4, event)));
    let source = Source::new(&posthog.url()).with("method", json!({"type": "query", "page_size": 2}));
    let first = source.read_all(&incremental(), None).await;
    assert_eq!(first.ids("events").len(), 5, "{}", first.without_records());
}

#[tokio::test]
async fn sync_without_new_events_asks_one_query_and_no_run() {
    for method in ["query", "export"] {
        let posthog = sandbox_with_exports(Exports::default()).await;
        posthog.generate(PROJECT, 2_000, 3, two_hours_ago());
        let method = json!({"type": method, "settle_minutes": 0});
        let source = Source::new(&posthog.url()).with("method", method);
        let first = source.read_all(&incremental(), None).await;
        let runs = posthog.export_runs().len();
        posthog.clear_requests();
        let second = source.read_all(&incremental(), Some(&first.state())).await;
        assert_eq!((second.ids("events").len(), queries(&posthog), posthog.export_runs().len()), (0, 1, runs));
    }
}

#[tokio::test]
async fn state_of_ten_years_is_small_and_readable() {
    let posthog = sandbox().await;
    let ten_years = (0..3_650).map(|day| event(day, minutes_ago(i64::try_from(day).unwrap() * DAY + 60)));
    posthog.insert(PROJECT, ten_years.collect());
    let source = Source::new(&posthog.url()).with("start_date", json!("2010-01-01T00:00:00Z"));
    let messages = source.read_all(&incremental(), None).await;
    assert_eq!(messages.ids("events").len(), 3_650);
    let state = messages.stream_state("events");
    assert!(state.to_string().len() < 10_000, "{} bytes", state.to_string().len());
    let slices = state["projects"]["1001"]["ledger"]["slices"].as_array().unwrap();
    let yesterday = Timestamp::from_micros(minutes_ago(DAY + 60)).date().to_string();
    let cells = slices.iter().flat_map(|slice| slice["unsettled"].as_object().into_iter().flatten());
    let cell = cells.filter(|(day, _)| **day == yesterday).map(|(_, cell)| cell.as_str().unwrap()).next();
    assert!(cell.is_some_and(|cell| cell.starts_with("1 ")), "{yesterday}: {cell:?}");
}

/// PostHog keeps rows that share a uuid and differ in name or distinct id.
#[tokio::test]
async fn rows_that_share_a_uuid_are_emitted_by_both_methods() {
    for export in [false, true] {
        let posthog = sandbox_with_exports(Exports::default()).await;
        let first = event(1, minutes_ago(2 * DAY));
        let renamed = Event { event: "renamed".into(), ..first.clone() };
        let other_person = Event { distinct_id: "another".into(), ..first.clone() };
        posthog.insert(PROJECT, vec![first, renamed, other_person]);
        for page_size in [1, 2, 100] {
            let source = Source::new(&posthog.url());
            let source = if export { source.with_exports() } else { source.with_page_size(page_size) };
            let messages = source.read_all(&incremental(), None).await;
            let rows: BTreeSet<(String, String)> = messages
                .records("events")
                .iter()
                .map(|record| (record["event"].to_string(), record["distinct_id"].to_string()))
                .collect();
            assert_eq!((rows.len(), messages.ids("events").len()), (3, 3), "export: {export}, page size {page_size}");
            let again = source.read_all(&incremental(), Some(&messages.state())).await;
            assert_eq!(again.ids("events").len(), 0);
        }
    }
}

#[tokio::test]
async fn events_that_disappear_are_noted_and_nothing_is_read_again() {
    let posthog = sandbox().await;
    posthog.insert(
        PROJECT,
        (0..40).map(|number| event(number, minutes_ago(i64::try_from(number).unwrap() * 30 * DAY + 5 * DAY))).collect(),
    );
    let source = Source::new(&posthog.url());
    let first = source.read_all(&incremental(), None).await;
    assert_eq!(first.ids("events").len(), 40);
    // Only of a cell that has agreed since its ingestion was three days past, fewer rows mean deletions.
    later(&posthog, &source, 5 * DAY);
    let first = source.read_all(&incremental(), Some(&first.state())).await;
    assert_eq!(first.ids("events").len(), 0);
    posthog.set_retention(PROJECT, Retention { months: 12, enforced: true });
    let second = source.read_all(&incremental(), Some(&first.state())).await;
    assert_eq!(second.ids("events").len(), 0);
    assert!(second.text().contains("are gone from PostHog"), "{}", second.without_records());
    let third = source.read_all(&incremental(), Some(&second.state())).await;
    assert_eq!(third.ids("events").len(), 0);
    assert!(!third.text().contains("are gone from PostHog"), "said once");
}

#[tokio::test]
async fn other_event_names_read_only_what_is_new() {
    let posthog = sandbox().await;
    let named = |number: u128| {
        let name = ["a", "b", "c"][usize::try_from(number % 3).unwrap()];
        Event { event: name.into(), ..event(number, minutes_ago(60 + i64::try_from(number).unwrap() * 60)) }
    };
    posthog.insert(PROJECT, (0..300).map(named).collect());
    let source = |names: &[&str]| Source::new(&posthog.url()).with("include_events", json!(names));
    let mut state = None;
    for (names, expected) in [
        (&["a"][..], 100),
        (&["a", "b"], 100),
        (&["a", "b"], 0),
        (&["b"], 0),
        (&[], 200),
        (&["b", "c"], 0),
        (&["a"], 100),
    ] {
        let messages = source(names).read_all(&incremental(), state.as_ref()).await;
        assert_eq!(messages.ids("events").len(), expected, "{names:?}: {}", messages.without_records());
        state = Some(messages.state());
    }
}

#[tokio::test]
async fn an_earlier_start_date_reads_only_the_days_that_it_adds() {
    let posthog = sandbox().await;
    posthog.insert(
        PROJECT,
        (0..100).map(|number| event(number, minutes_ago(i64::try_from(number).unwrap() * DAY + 30))).collect(),
    );
    let day = |days: i64| Timestamp::from_day(Timestamp::from_micros(minutes_ago(days * DAY)).day()).to_string();
    let source = |days: i64| Source::new(&posthog.url()).with("start_date", json!(day(days)));
    let first = source(20).read_all(&incremental(), None).await;
    let second = source(50).read_all(&incremental(), Some(&first.state())).await;
    let third = source(20).read_all(&incremental(), Some(&second.state())).await;
    let fourth = source(50).read_all(&incremental(), Some(&third.state())).await;
    assert_eq!(second.ids("events").len(), 30);
    assert_eq!((third.ids("events").len(), fourth.ids("events").len()), (0, 0));
    assert!(emissions([&first, &second]).values().all(|times| *times == 1));
}

/// With a time of day, the first and the last day are read in part.
#[tokio::test]
async fn dates_with_a_time_of_day_are_exact() {
    for export in [false, true] {
        let posthog = sandbox_with_exports(Exports::default()).await;
        posthog.insert(
            PROJECT,
            (0..96).map(|number| event(number, minutes_ago(i64::try_from(number).unwrap() * 60 + 150))).collect(),
        );
        let (from, to) = (minutes_ago(72 * 60), minutes_ago(24 * 60));
        let dates = |source: Source, from: i64| {
            source
                .with("start_date", json!(Timestamp::from_micros(from).to_string()))
                .with("end_date", json!(Timestamp::from_micros(to).to_string()))
        };
        let source = |from| {
            let source = Source::new(&posthog.url());
            dates(if export { source.with_exports() } else { source }, from)
        };
        let inside = |from: i64| -> BTreeSet<String> {
            let events = posthog.events(PROJECT);
            let inside = events.iter().filter(|event| (from..to).contains(&event.timestamp));
            inside.map(|event| event.uuid.to_string()).collect()
        };
        let first = source(from).read_all(&incremental(), None).await;
        assert_eq!(first.id_set("events"), inside(from), "export: {export}");
        let earlier = from - 10 * 60 * MINUTE;
        let second = source(earlier).read_all(&incremental(), Some(&first.state())).await;
        let union: BTreeSet<String> = first.id_set("events").union(&second.id_set("events")).cloned().collect();
        assert_eq!(union, inside(earlier), "export: {export}");
    }
}

/// Fewer events of another part of a day are no deletions.
#[tokio::test]
async fn another_part_of_a_day_is_read_however_long_the_first_one_has_been_settled() {
    let posthog = sandbox().await;
    let day = Timestamp::from_day(Timestamp::from_micros(minutes_ago(10 * DAY)).day()).micros();
    let hour = 60 * MINUTE;
    let morning = (0..60).map(|number| event(number, day + i64::try_from(number).unwrap() * 10 * MINUTE));
    let afternoon = (100..140).map(|number| event(number, day + 13 * hour + i64::try_from(number).unwrap() * MINUTE));
    posthog.insert(PROJECT, morning.chain(afternoon).collect());
    let noon = Timestamp::from_micros(day + 12 * hour).to_string();
    let until_noon = || Source::new(&posthog.url()).with("end_date", json!(noon));
    let first = until_noon().read_all(&incremental(), None).await;
    let until_noon = until_noon();
    later(&posthog, &until_noon, 5 * DAY);
    let second = until_noon.read_all(&incremental(), Some(&first.state())).await;
    assert_eq!((first.ids("events").len(), second.ids("events").len()), (60, 0));
    let from_noon = Source::new(&posthog.url()).with("start_date", json!(noon));
    later(&posthog, &from_noon, 5 * DAY);
    let third = from_noon.read_all(&incremental(), Some(&second.state())).await;
    let all: BTreeSet<String> = first.id_set("events").union(&third.id_set("events")).cloned().collect();
    assert_eq!(all, event_ids(&posthog));
    assert!(!third.text().contains("are gone from PostHog"), "{}", third.without_records());
}

#[tokio::test]
async fn many_events_are_exported_and_few_are_queried() {
    let posthog = sandbox_with_exports(Exports::default()).await;
    posthog.insert(PROJECT, events(300, minutes_ago(3 * DAY)));
    for (above, exported) in [(299, true), (300, false)] {
        let before = posthog.export_runs().len();
        let source = Source::new(&posthog.url()).with_exports().with("export_above", json!(above));
        let messages = source.read_all(&incremental(), None).await;
        assert_eq!(messages.id_set("events"), event_ids(&posthog));
        assert_eq!(posthog.export_runs().len() > before, exported, "above {above}");
    }
}

/// A PostHog that refuses to compute figures is read by exports, each proven by its number of rows.
#[tokio::test]
async fn where_figures_are_refused_exports_go_on_without_them() {
    let posthog = sandbox_with_exports(Exports::default()).await;
    posthog.insert(PROJECT, events(50, minutes_ago(3 * DAY)));
    let body = r#"{"type":"authentication_error","code":"permission_denied","detail":"Your plan does not include queries.","attr":null}"#;
    let refused = Action::Status { code: 403, body: body.into(), headers: Vec::new() };
    posthog.set_faults(vec![Fault::query(refused)]).unwrap();
    let source = Source::new(&posthog.url()).with_exports();
    let first = source.read_all(&incremental(), None).await;
    assert_eq!(first.id_set("events"), event_ids(&posthog));
    let warnings = first.logs("WARN").join("\n");
    assert!(
        warnings.contains("cannot be compared") && warnings.contains("Your plan does not include queries"),
        "{warnings}"
    );
    posthog.insert(PROJECT, (900..910).map(|number| event(number, minutes_ago(0))).collect());
    later(&posthog, &source, 60);
    let second = source.read_all(&incremental(), Some(&first.state())).await;
    assert_eq!(second.ids("events").len(), 10);
    // With queries again, what was exported is compared and not read once more.
    posthog.set_faults(Vec::new()).unwrap();
    posthog.insert(PROJECT, (950..955).map(|number| event(number, minutes_ago(-58))).collect());
    later(&posthog, &source, 120);
    let third = source.read_all(&incremental(), Some(&second.state())).await;
    assert!(
        third
            .id_set("events")
            .is_superset(&(950..955).map(|number| uuid::Uuid::from_u128(number).to_string()).collect())
    );
    assert!(third.ids("events").len() < 30, "{}", third.ids("events").len());
    // By query alone there is no way to read them.
    posthog
        .set_faults(vec![Fault::query(Action::Status { code: 403, body: body.into(), headers: Vec::new() })])
        .unwrap();
    let outcome = Source::new(&posthog.url()).with_page_size(100).read(&incremental(), None).await;
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome.messages.errors()[0].contains("Your plan does not include queries"),
        "{:?}",
        outcome.messages.errors()
    );
}

/// What a ledger has not read yet, exports have to read when figures are refused from then on.
#[tokio::test]
async fn figures_that_are_refused_later_lose_nothing() {
    let body = r#"{"type":"authentication_error","code":"permission_denied","detail":"No.","attr":null}"#;
    for (what, names, start, killed) in [
        ("interrupted", vec![], "2020-01-01T00:00:00Z", true),
        ("more names", vec!["$pageview"], "2020-01-01T00:00:00Z", false),
        ("an earlier date", vec![], "2026-11-20T00:00:00Z", false),
        ("nothing", vec![], "2020-01-01T00:00:00Z", false),
    ] {
        let posthog = sandbox_with_exports(Exports::default()).await;
        posthog.generate(PROJECT, 300, 3, two_hours_ago());
        let first = Source::new(&posthog.url())
            .with("method", json!({"type": "query", "page_size": 20, "settle_minutes": 0}))
            .with("include_events", json!(names))
            .with("start_date", json!(start))
            .read_all(&incremental(), None)
            .await;
        let first = if killed { first.up_to(first.state_lines()[4]) } else { first };
        let refused = Action::Status { code: 403, body: body.into(), headers: Vec::new() };
        posthog.set_faults(vec![Fault::query(refused)]).unwrap();
        let second = Source::new(&posthog.url()).with_exports().read_all(&incremental(), Some(&first.state())).await;
        let read: BTreeSet<String> = first.id_set("events").union(&second.id_set("events")).cloned().collect();
        // PostHog leaves out what happened long before it was ingested, and nothing can notice.
        let events = posthog.events(PROJECT);
        let exported = events.iter().filter(|event| event.created_at - event.timestamp < 6 * 24 * 60 * MINUTE);
        let missing: Vec<String> =
            exported.map(|event| event.uuid.to_string()).filter(|id| !read.contains(id)).collect();
        assert_eq!(missing, Vec::<String>::new(), "{what}: {}", second.without_records());
        assert!(what != "nothing" || second.ids("events").len() < 20, "{} repeats", second.ids("events").len());
    }
}

/// The bound never goes back, and the figures show what was read under a clock that was ahead.
#[tokio::test]
async fn clocks_that_go_wrong_lose_nothing() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, events(100, minutes_ago(60)));
    let source = Source::new(&posthog.url());
    let (mut state, mut syncs) = (None, Vec::new());
    for (number, clock) in [0, 24 * 60, 5, -90, 10, 15].into_iter().enumerate() {
        turn_clock(&posthog, clock);
        let new = (0..10).map(|event| u128::try_from(1_000 * (number + 1) + event).unwrap());
        posthog.insert(PROJECT, new.map(|number| event(number, minutes_ago(1))).collect());
        let messages = source.read_all(&incremental(), state.as_ref()).await;
        state = Some(messages.state());
        syncs.push(messages);
    }
    assert_eq!(emissions(&syncs).keys().cloned().collect::<BTreeSet<_>>(), event_ids(&posthog));
}

#[tokio::test]
async fn settings_without_effect_are_accepted_and_named_once() {
    let posthog = sandbox().await;
    let method = json!({"type": "query", "overlap_minutes": 30, "late_window_days": 10});
    let messages = Source::new(&posthog.url()).with("method", method).read_all(&incremental(), None).await;
    let named = messages.logs("INFO").iter().filter(|log| log.contains("has no effect any more")).count();
    assert_eq!(named, 1);
}
