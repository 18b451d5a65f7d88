//! A stream ends with what it has read, what PostHog has, and by what they are known to agree.

use std::collections::BTreeMap;

use posthog_sandbox::posthog::{Action, Event, Exports, Fault, Server};
use serde_json::{Value, json};
use source_posthog::time::Timestamp;
use uuid::Uuid;

use crate::support::messages::Messages;
use crate::support::program::{Source, catalog, state_file};
use crate::support::world::{
    PROJECT, event, events, minutes_ago, person, sandbox, sandbox_with_exports, two_hours_ago, two_projects,
};

/// Noon, UTC, so many days ago.
fn noon(days: i64) -> i64 {
    Timestamp::from_day(Timestamp::from_micros(minutes_ago(0)).day() - days).plus_micros(12 * 3_600_000_000).micros()
}

/// The line at the end of a stream, and its fields.
fn end(messages: &Messages, stream: &str) -> (String, BTreeMap<String, String>) {
    let lines = messages.logs("INFO");
    let field = format!(" stream={stream} ");
    let ends: Vec<&String> = lines.iter().filter(|line| line.contains(" proof=") && line.contains(&field)).collect();
    assert_eq!(ends.len(), 1, "{}", messages.without_records());
    let (text, fields) = ends[0].split_once(" stream=").unwrap();
    let fields = format!("stream={fields}");
    let fields = fields.split(' ').map(|field| field.split_once('=').unwrap());
    (text.to_owned(), fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

fn estimates(messages: &Messages, stream: &str) -> Vec<u64> {
    let traces = messages.of_type("TRACE").into_iter().map(|message| &message["trace"]["estimate"]);
    traces
        .filter(|estimate| estimate["name"] == stream)
        .map(|estimate| estimate["row_estimate"].as_u64().unwrap())
        .collect()
}

fn assert_fields(fields: &BTreeMap<String, String>, expected: &Value) {
    for (name, value) in expected.as_object().unwrap() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        assert_eq!(fields.get(name), Some(&value), "{name} in {fields:?}");
    }
}

#[tokio::test]
async fn events_end_with_the_figures_of_posthog() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, events(5_000, minutes_ago(3 * 60)));
    let source = Source::new(&posthog.url());
    let catalog = catalog(&["events"], "incremental");
    let first = source.read_all(&catalog, None).await;
    let (text, fields) = end(&first, "events");
    assert!(text.starts_with("events: complete, 5,000 records in "), "{text}");
    let expected =
        "; PostHog has 5,000, and 5,000 of them have been emitted so far: number and checksum of every day agree";
    assert!(text.ends_with(expected), "{text}");
    assert_fields(
        &fields,
        &json!({"records": 5000, "repeats": 0, "posthog": 5000, "agrees": true, "proof": "compared"}),
    );
    assert!(fields["seconds"].parse::<f64>().is_ok_and(|seconds| seconds >= 0.0), "{fields:?}");
    assert_eq!(estimates(&first, "events").last(), Some(&5_000));
    // Thirty more, then three of the same minutes that nothing has shown so far.
    posthog.set_server(Server { clock_ahead: 5 * 60, ..Server::cloud_2026() });
    posthog.insert(PROJECT, (10_000..10_030).map(|number| event(number, minutes_ago(-4))).collect());
    let second = source.read_all(&catalog, Some(&first.state())).await;
    posthog.insert(PROJECT, (20_000..20_003).map(|number| event(number, minutes_ago(-4))).collect());
    posthog.set_server(Server { clock_ahead: 10 * 60, ..Server::cloud_2026() });
    let third = source.read_all(&catalog, Some(&second.state())).await;
    let (text, fields) = end(&third, "events");
    assert!(text.starts_with("events: complete, 33 records, 30 of them repeats, in "), "{text}");
    assert_fields(&fields, &json!({"records": 33, "repeats": 30, "posthog": 5033, "agrees": true}));
    // Nothing new: no estimate at all, which would show as 0 of 0.
    let fourth = source.read_all(&catalog, Some(&third.state())).await;
    assert_fields(&end(&fourth, "events").1, &json!({"records": 0, "repeats": 0, "posthog": 5033, "agrees": true}));
    assert_eq!(estimates(&fourth, "events"), [0_u64; 0]);
}

#[tokio::test]
async fn events_that_differ_in_the_end_show_both_figures() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, events(100, noon(2)));
    let dropped = Fault::query(Action::DropRows { rows: 1 }).sql("properties").times(u64::MAX);
    posthog.set_faults(vec![dropped]).unwrap();
    let outcome = Source::new(&posthog.url()).read(&catalog(&["events"], "incremental"), None).await;
    assert_eq!(outcome.code, Some(1));
    let (text, fields) = end(&outcome.messages, "events");
    assert!(
        text.starts_with("events: incomplete, ") && text.contains("PostHog has 100, and 99 of them have been"),
        "{text}"
    );
    let day = Timestamp::from_micros(noon(2)).date();
    assert!(text.ends_with(&format!("they differ; these days differ: {day} (99 emitted, PostHog has 100)")), "{text}");
    let expected = json!({"posthog": 100, "agrees": false, "proof": "compared", "differing_days": 1});
    assert_fields(&fields, &expected);
}

#[tokio::test]
async fn events_that_were_not_read_to_the_end_show_how_far_that_is() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, events(100, noon(4)));
    posthog.insert(PROJECT, (1_000..1_060).map(|number| event(number, noon(2))).collect());
    let refused = Action::Status { code: 400, body: r#"{"detail": "no"}"#.into(), headers: Vec::new() };
    let day = Timestamp::from_micros(noon(2)).date();
    // Windows of one day each, one after the other, of which only the first one is answered.
    let pages_of_day = Fault::query(refused).sql(&format!("timestamp >= [^<]*{day}")).times(u64::MAX);
    posthog.set_faults(vec![pages_of_day]).unwrap();
    let source = Source::new(&posthog.url()).with("events_time_step", json!(1)).with("concurrency", json!(1));
    let outcome = source.read(&catalog(&["events"], "incremental"), None).await;
    assert_eq!(outcome.code, Some(1), "{}", outcome.messages.without_records());
    let (text, fields) = end(&outcome.messages, "events");
    assert!(text.contains("PostHog has 160, and 100 of them have been emitted"), "{text}");
    assert!(text.ends_with(&format!("these days differ: {day} (0 emitted, PostHog has 60)")), "{text}");
    let expected = json!({"records": 100, "posthog": 160, "agrees": false, "proof": "compared", "differing_days": 1});
    assert_fields(&fields, &expected);
}

#[tokio::test]
async fn only_what_comes_again_is_a_repeat() {
    let posthog = sandbox().await;
    let day = Timestamp::from_micros(noon(5)).date().to_string();
    posthog.insert(PROJECT, (0..30).map(|number| event(number, noon(5))).collect());
    let named = (100..120).map(|number| Event { event: "order paid".to_owned(), ..event(number, noon(5)) });
    posthog.insert(PROJECT, named.collect());
    let catalog = catalog(&["events"], "incremental");
    let all = Source::new(&posthog.url());
    let state = all.read_all(&catalog, None).await.state();
    // Fewer names, and all of the day's events are to be read again.
    let fewer = || Source::new(&posthog.url()).with("include_events", json!(["order paid"]));
    let again = fewer().with("reread_days", json!([day]));
    let read = again.read_all(&catalog, Some(&state)).await;
    assert_fields(&end(&read, "events").1, &json!({"records": 20, "repeats": 20, "posthog": 20, "agrees": true}));
    // Nothing comes again where reading fails.
    let refused = Action::Status { code: 400, body: r#"{"detail": "no"}"#.into(), headers: Vec::new() };
    posthog.set_faults(vec![Fault::query(refused).sql("properties").times(u64::MAX)]).unwrap();
    let failed = again.read(&catalog, Some(&state)).await;
    assert_fields(&end(&failed.messages, "events").1, &json!({"records": 0, "repeats": 0}));
    posthog.set_faults(Vec::new()).unwrap();
    // What is new beside it is no repeat.
    let late = |number| Event { created_at: minutes_ago(10), event: "order paid".to_owned(), ..event(number, noon(5)) };
    posthog.insert(PROJECT, (200..203).map(late).collect());
    let more = again.read_all(&catalog, Some(&state)).await;
    assert_fields(&end(&more, "events").1, &json!({"records": 23, "repeats": 20, "posthog": 23}));
}

#[tokio::test]
async fn an_assumption_is_no_proof_and_named_as_such() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, events(50, minutes_ago(3 * 24 * 60)));
    let cursor = Timestamp::from_micros(minutes_ago(60)).to_string();
    let state = state_file("events", &json!({"1001": {"timestamp": cursor}}));
    let messages = Source::new(&posthog.url()).read_all(&catalog(&["events"], "incremental"), Some(&state)).await;
    let (text, fields) = end(&messages, "events");
    assert!(text.ends_with("; 50 of them are assumed to have been emitted before, as the state says"), "{text}");
    assert_fields(&fields, &json!({"records": 0, "posthog": 50, "agrees": true, "proof": "compared,assumed"}));
}

#[tokio::test]
async fn other_streams_say_by_what_they_are_known_to_be_complete() {
    let posthog = sandbox_with_exports(Exports::default()).await;
    posthog.generate(PROJECT, 500, 3, two_hours_ago());
    for number in 1..=7 {
        posthog.insert_person(PROJECT, person(number, minutes_ago(600), None));
    }
    let streams = ["persons", "cohorts", "projects"];
    let by_query = Source::new(&posthog.url()).with_page_size(1000);
    let messages = by_query.read_all(&catalog(&streams, "full_refresh"), None).await;
    let (text, fields) = end(&messages, "persons");
    assert!(text.contains("PostHog counts ") && text.contains(" were read"), "{text}");
    assert_fields(&fields, &json!({"agrees": true, "proof": "counted", "posthog": fields["records"]}));
    assert_fields(&end(&messages, "cohorts").1, &json!({"agrees": true, "proof": "counted"}));
    let (text, fields) = end(&messages, "projects");
    assert!(text.ends_with("read to the end; PostHog does not count them"), "{text}");
    assert_fields(&fields, &json!({"records": 1, "proof": "read_to_end"}));
    assert_eq!(fields.get("agrees").or(fields.get("posthog")), None, "nothing was compared");
    let exported =
        Source::new(&posthog.url()).with_exports().read_all(&catalog(&["persons"], "incremental"), None).await;
    let (text, fields) = end(&exported, "persons");
    assert!(text.contains("PostHog has exported "), "{text}");
    assert_fields(&fields, &json!({"agrees": true, "proof": "exported"}));
}

#[tokio::test]
async fn exports_that_cannot_be_compared_say_so() {
    let posthog = sandbox_with_exports(Exports::default()).await;
    posthog.insert(PROJECT, events(40, minutes_ago(3 * 60)));
    let body = r#"{"type":"authentication_error","code":"permission_denied","detail":"Feature unavailable."}"#;
    let refused = Action::Status { code: 403, body: body.into(), headers: Vec::new() };
    posthog.set_faults(vec![Fault::query(refused).times(u64::MAX)]).unwrap();
    let messages =
        Source::new(&posthog.url()).with_exports().read_all(&catalog(&["events"], "incremental"), None).await;
    let (text, fields) = end(&messages, "events");
    assert!(text.contains("PostHog has exported 40 rows, and 40 were read"), "{text}");
    assert_fields(&fields, &json!({"records": 40, "agrees": true, "proof": "exported"}));
}

/// Number of events and checksum of each day of these events, as strings.
fn days(events: &[Event]) -> BTreeMap<String, (u64, String)> {
    let mut days: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for event in events {
        let day = Timestamp::from_micros(event.timestamp).date().to_string();
        let (count, checksum) = days.entry(day).or_default();
        (*count, *checksum) = (*count + 1, *checksum + (event.uuid.as_u128() & 0xffff_ffff) as u64);
    }
    days.into_iter().map(|(day, (count, checksum))| (day, (count, checksum.to_string()))).collect()
}

/// The same of the records of `event_days`.
fn emitted_days(messages: &Messages) -> BTreeMap<String, (u64, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let records = messages.records("event_days").into_iter();
    records.map(|data| (text(&data["day"]), (data["events"].as_u64().unwrap(), text(&data["checksum"])))).collect()
}

const DAY: i64 = 24 * 60;

/// Events of three hundred days, some of them on each of ten days.
fn old_and_new_events() -> Vec<Event> {
    let at = |number: u32| minutes_ago(300 + i64::from(number % 300) * DAY);
    (0..1_000).map(|number| event(u128::from(number) * 7_919, at(number))).collect()
}

#[tokio::test]
async fn days_of_events_are_emitted_when_their_figures_change() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, old_and_new_events());
    let source = Source::new(&posthog.url());
    // The order of the catalog does not matter.
    let both = catalog(&["event_days", "events"], "incremental");
    let first = source.read_all(&both, None).await;
    assert_eq!(emitted_days(&first), days(&posthog.events(PROJECT)));
    let record = first.records("event_days")[0];
    assert_eq!((&record["project_id"], &record["proof"]), (&json!(PROJECT), &json!("compared")));
    assert_eq!(first.statuses("event_days"), ["STARTED", "RUNNING", "COMPLETE"]);
    let asked = posthog.requests().iter().filter(|request| request.path.ends_with("/query/")).count();
    assert!(asked < 20, "the figures are those of the sync: {asked} queries");
    assert!(first.stream_state("event_days").to_string().len() < 5_000, "{}", first.stream_state("event_days"));
    // Nothing is new.
    let second = source.read_all(&both, Some(&first.state())).await;
    assert_eq!(second.records("event_days").len(), 0);
    // A late event of an old month, and a new one.
    posthog.set_server(Server { clock_ahead: 4 * 60, ..Server::cloud_2026() });
    let late = Event { created_at: minutes_ago(-2), ..event(900_001, minutes_ago(200 * DAY)) };
    posthog.insert(PROJECT, vec![late.clone(), event(900_002, minutes_ago(-2))]);
    let third = source.read_all(&both, Some(&second.state())).await;
    let (truth, emitted) = (days(&posthog.events(PROJECT)), emitted_days(&third));
    for event in [&late, &event(900_002, minutes_ago(-2))] {
        let day = Timestamp::from_micros(event.timestamp).date().to_string();
        assert_eq!(emitted.get(&day), truth.get(&day), "{day}");
    }
    // The days of one month, and today.
    assert!(emitted.len() <= 32, "{emitted:?}");
    let none = (0, "0".to_owned());
    assert!(emitted.iter().all(|(day, figure)| truth.get(day).unwrap_or(&none) == figure), "{emitted:?}");
}

#[tokio::test]
async fn days_of_events_can_be_counted_without_reading_them() {
    let posthog = sandbox().await;
    let mut inserted = old_and_new_events();
    posthog.insert(PROJECT, inserted.clone());
    // A duplicate that is not merged yet counts once.
    posthog.insert(PROJECT, vec![Event { created_at: inserted[5].created_at + 1, ..inserted[5].clone() }]);
    let source = Source::new(&posthog.url());
    let alone = catalog(&["event_days"], "incremental");
    let first = source.read_all(&alone, None).await;
    assert_eq!(emitted_days(&first), days(&inserted));
    assert_eq!(first.records("event_days")[0]["proof"], "counted");
    let (text, fields) = end(&first, "event_days");
    assert!(text.ends_with("these are PostHog's own figures"), "{text}");
    assert_fields(&fields, &json!({"records": days(&inserted).len(), "proof": "figures"}));
    posthog.clear_requests();
    let second = source.read_all(&alone, Some(&first.state())).await;
    assert_eq!(second.records("event_days").len(), 0);
    assert_eq!(posthog.requests().iter().filter(|request| request.path.ends_with("/query/")).count(), 1);
    // All events of an old day are deleted.
    let gone = Timestamp::from_micros(inserted[250].timestamp).date();
    let (deleted, kept): (Vec<_>, Vec<_>) =
        inserted.drain(..).partition(|event| Timestamp::from_micros(event.timestamp).date() == gone);
    posthog.delete_events(PROJECT, deleted.iter().map(|event| event.uuid));
    let third = source.read_all(&alone, Some(&second.state())).await;
    assert_eq!(emitted_days(&third).get(&gone.to_string()), Some(&(0, "0".to_owned())));
    let truth = days(&kept);
    let none = (0, "0".to_owned());
    assert!(emitted_days(&third).iter().all(|(day, figure)| truth.get(day).unwrap_or(&none) == figure));
}

/// What the records of `event_days` say of a day: number of events, and how many have disappeared.
fn day_record(messages: &Messages, day: &str) -> (u64, Option<u64>) {
    let records = messages.records("event_days");
    let record = records.iter().find(|data| data["day"] == day).unwrap_or_else(|| panic!("no record of {day}"));
    (record["events"].as_u64().unwrap(), record["deleted"].as_u64())
}

#[tokio::test]
async fn days_say_how_many_events_have_disappeared() {
    let posthog = sandbox().await;
    let inserted = old_and_new_events();
    posthog.insert(PROJECT, inserted.clone());
    let source = Source::new(&posthog.url());
    let both = catalog(&["events", "event_days"], "incremental");
    let day_of = |event: &Event| Timestamp::from_micros(event.timestamp).date().to_string();
    let of_day = |back: usize| {
        let day = day_of(&inserted[back]);
        (inserted.iter().filter(|event| day_of(event) == day).map(|event| event.uuid).collect::<Vec<_>>(), day)
    };
    let (recent, today, old) = (of_day(20), of_day(0), of_day(200));
    let all = |ids: &[Uuid]| ids.len() as u64;
    let first = source.read_all(&both, None).await;
    assert_eq!(day_record(&first, &recent.1), (all(&recent.0), Some(0)));

    // Whether their arrival is settled or not; nothing is known of a day that is kept by month.
    posthog.delete_events(PROJECT, [recent.0[0], recent.0[1], today.0[0], old.0[0]]);
    let second = source.read_all(&both, Some(&first.state())).await;
    assert_eq!(day_record(&second, &recent.1), (all(&recent.0) - 2, Some(2)));
    assert_eq!(day_record(&second, &today.1), (all(&today.0) - 1, Some(1)));
    assert_eq!(day_record(&second, &old.1), (all(&old.0) - 1, None));
    // A sync that was killed before its state was kept is repeated.
    let again = source.read_all(&both, Some(&first.state())).await;
    assert_eq!(day_record(&again, &recent.1), (all(&recent.0) - 2, Some(2)));
    // The number is that of all syncs.
    posthog.delete_events(PROJECT, [recent.0[2]]);
    let third = source.read_all(&both, Some(&second.state())).await;
    assert_eq!(day_record(&third, &recent.1), (all(&recent.0) - 3, Some(3)));

    // Without `events`, PostHog's answer alone is no proof that something is gone; afterwards the number goes on.
    posthog.insert(PROJECT, vec![Event { uuid: Uuid::from_u128(77), ..inserted[20].clone() }]);
    let state = third.state();
    let counted = source.read_all(&catalog(&["event_days"], "incremental"), Some(&state)).await;
    assert_eq!(day_record(&counted, &recent.1), (all(&recent.0) - 2, None));
    // Events that are not chosen any more have not disappeared.
    let name = inserted[20].event.clone();
    let fewer = Source::new(&posthog.url()).with("exclude_events", json!([name]));
    let narrowed = fewer.read_all(&both, Some(&state)).await;
    let (left, deleted) = day_record(&narrowed, &recent.1);
    assert!(left < all(&recent.0) - 2 && deleted == Some(3), "{left} {deleted:?}");
}

#[tokio::test]
async fn days_of_events_that_were_not_read_completely_are_not_emitted() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, events(100, minutes_ago(3 * 60)));
    let dropped = Fault::query(Action::DropRows { rows: 1 }).sql("properties").times(u64::MAX);
    posthog.set_faults(vec![dropped]).unwrap();
    let outcome = Source::new(&posthog.url()).read(&catalog(&["events", "event_days"], "incremental"), None).await;
    assert_eq!(outcome.code, Some(1));
    assert_eq!(outcome.messages.records("event_days").len(), 0);
    let errors = outcome.messages.errors();
    assert!(errors.iter().any(|error| error.contains("the figures of their days are not known")), "{errors:?}");
}

/// What a table has that these events have been loaded into: day, events, rows and checksum.
fn table_of(events: &[Event]) -> Vec<(String, u64, u64, String)> {
    days(events).into_iter().map(|(day, (count, sum))| (day, count, count, sum)).collect()
}

/// Compares a table of these counts (day, events, rows, checksum) with PostHog. Returns exit code and result.
async fn verify(source: &Source, rows: &[(String, u64, u64, String)], newest: &str) -> (Option<i32>, Value) {
    let line = |(day, events, rows, checksum): &(String, u64, u64, String)| {
        format!("{PROJECT},{day},{events},{rows},{checksum},{newest}\n")
    };
    let lines: String = rows.iter().map(line).collect();
    let csv = format!("project_id,day,events,row_count,checksum,newest\n{lines}");
    let mut command = source.command("verify");
    command.arg("--counts").arg(source.file("counts.csv", &csv));
    let output = command.output().await;
    let text = String::from_utf8(output.stdout).unwrap();
    let result = text.lines().last().and_then(|line| serde_json::from_str(line).ok());
    (output.status.code(), result.unwrap_or_else(|| panic!("{text}")))
}

#[tokio::test]
async fn verify_finds_every_kind_of_damage() {
    let posthog = sandbox().await;
    let inserted = old_and_new_events();
    posthog.insert(PROJECT, inserted.clone());
    // A duplicate that is not merged yet counts once.
    posthog.insert(PROJECT, vec![Event { created_at: inserted[5].created_at + 1, ..inserted[5].clone() }]);
    let source = Source::new(&posthog.url());
    let newest = inserted.iter().map(|event| event.created_at).max().unwrap().to_string();
    let whole = table_of(&inserted);
    // What PostHog receives later is up to the next sync.
    posthog.insert(PROJECT, vec![event(900_001, minutes_ago(5))]);
    let (code, result) = verify(&source, &whole, &newest).await;
    assert_eq!((code, &result["agrees"], &result["days"]), (Some(0), &json!(true), &json!(whole.len())), "{result}");
    let mut damaged = whole.clone();
    damaged[10].1 -= 1;
    damaged[11].3 = "1".to_owned();
    damaged[20].2 += 2;
    damaged[30].1 += 1;
    let gone = damaged.remove(40);
    let (code, result) = verify(&source, &damaged, &newest).await;
    assert_eq!((code, &result["agrees"]), (Some(3), &json!(false)), "{result}");
    let found: Vec<(String, String)> = result["differences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|found| (found["day"].as_str().unwrap().to_owned(), found["problem"].as_str().unwrap().to_owned()))
        .collect();
    let expected = [
        (&whole[10].0, "missing"),
        (&whole[11].0, "other events"),
        (&whole[20].0, "duplicates"),
        (&whole[30].0, "too many"),
        (&gone.0, "missing"),
    ];
    assert_eq!(found, expected.map(|(day, problem)| (day.clone(), problem.to_owned())));
    assert_eq!(result["reread_days"], json!([format!("{}/{}", whole[10].0, whole[11].0), gone.0]));
    // Without the time of the newest row, the last day of the table may not be whole.
    let (code, result) = verify(&source, &whole, "").await;
    assert_eq!((code, &result["days"]), (Some(0), &json!(whole.len() - 1)), "{result}");
}

#[tokio::test]
async fn verify_takes_no_day_without_a_checksum_for_proven() {
    let posthog = sandbox().await;
    let inserted: Vec<Event> =
        (0..20_u32).map(|number| event(u128::from(number), noon(2 + i64::from(number % 2)))).collect();
    posthog.insert(PROJECT, inserted.clone());
    let source = Source::new(&posthog.url());
    let whole = table_of(&inserted);
    let newest = (noon(2) + 1_000_000).to_string();
    let (code, result) = verify(&source, &whole, &newest).await;
    assert_eq!((code, &result["agrees"]), (Some(0), &json!(true)), "{result}");
    for null in ["", "NULL", "\\N"] {
        let mut without = whole.clone();
        without[1].3 = null.to_owned();
        let (code, result) = verify(&source, &without, &newest).await;
        assert_eq!((code, &result["agrees"]), (Some(3), &json!(false)), "{null}: {result}");
        assert_eq!(result["differences"][0]["problem"], "other events", "{result}");
        assert_eq!(result["reread_days"], json!([whole[1].0]), "{result}");
    }
}

#[tokio::test]
async fn verify_finds_the_days_that_a_table_lacks_at_its_end() {
    let posthog = sandbox().await;
    let inserted: Vec<Event> =
        (0..60_u32).map(|number| event(u128::from(number), noon(1 + i64::from(number % 6)))).collect();
    posthog.insert(PROJECT, inserted.clone());
    // What came today is up to the next sync.
    posthog.insert(PROJECT, vec![event(1_000, minutes_ago(4)), event(1_001, minutes_ago(4))]);
    let source = Source::new(&posthog.url());
    let all = table_of(&inserted);
    assert_eq!(all.len(), 6);
    let lost: Vec<Value> = all[4..].iter().map(|day| json!(day.0)).collect();
    let table = &all[..4];
    let newest = (noon(3) + 1_000_000).to_string();
    // A clock that is ahead has made a day of the future; it does not hide what is missing before.
    let future = Event { created_at: noon(3), ..event(2_000, noon(-20)) };
    posthog.insert(PROJECT, vec![future.clone()]);
    let mut with_future = table.to_vec();
    with_future.extend(table_of(&[future]));
    for newest in [newest.as_str(), ""] {
        let (code, result) = verify(&source, &with_future, newest).await;
        // Without the time of the newest row, nothing says where the table ends.
        let found: Vec<&Value> = result["differences"].as_array().unwrap().iter().map(|found| &found["day"]).collect();
        assert_eq!((code, found), (Some(3), lost.iter().collect()), "{newest}: {result}");
        assert_eq!(result["differences"][0]["problem"], "missing");
    }
    // The last day of such a table is not compared, those after it are.
    let (code, result) = verify(&source, table, "").await;
    assert_eq!((code, result["differences"].as_array().unwrap().len()), (Some(3), 2), "{result}");
    let (code, result) = verify(&source, &all, &(noon(1) + 1_000_000).to_string()).await;
    assert_eq!((code, &result["agrees"]), (Some(3), &json!(false)), "the event of the future is missing: {result}");
}

#[tokio::test]
async fn verify_says_which_projects_a_table_lacks() {
    let posthog = two_projects().await;
    let inserted: Vec<Event> = (0..20).map(|number| event(number, noon(2))).collect();
    posthog.insert(PROJECT, inserted.clone());
    let table = table_of(&inserted);
    let newest = (noon(2) + 1_000_000).to_string();
    let named = Source::new(&posthog.url()).with("project_ids", json!([PROJECT, 1002]));
    let all = Source::new(&posthog.url());
    for source in [&named, &all] {
        let (code, result) = verify(source, &table, &newest).await;
        let found = (code, &result["agrees"], &result["missing_projects"]);
        assert_eq!(found, (Some(0), &json!(true), &json!([])), "{result}");
    }
    posthog.insert(1002, vec![event(500, noon(2))]);
    // Without `project_ids`, the settings mean every project that the key can access.
    for source in [&named, &all] {
        let (code, result) = verify(source, &table, &newest).await;
        let found = (code, &result["agrees"], &result["missing_projects"]);
        assert_eq!(found, (Some(3), &json!(false), &json!([1002])), "{result}");
    }
}

#[tokio::test]
async fn verify_does_not_judge_a_day_of_which_the_settings_ask_for_a_part() {
    let posthog = sandbox().await;
    let (before, after) = (noon(5) - 3_600_000_000, noon(5) + 3_600_000_000);
    let inserted: Vec<Event> = (0..30).map(|number| event(number, if number < 10 { before } else { after })).collect();
    posthog.insert(PROJECT, inserted.clone());
    let source = Source::new(&posthog.url()).with("start_date", json!(Timestamp::from_micros(noon(5))));
    let day = Timestamp::from_micros(noon(5)).date().to_string();
    let newest = (after + 1_000_000).to_string();
    for (events, code, expected) in
        [(&inserted[..], 0, json!([day])), (&inserted[10..], 0, json!([])), (&inserted[11..], 3, json!([]))]
    {
        let table = table_of(events);
        let (exit, result) = verify(&source, &table, &newest).await;
        assert_eq!((exit, &result["not_compared"]), (Some(code), &expected), "{} events: {result}", events.len());
    }
}

#[tokio::test]
async fn verify_names_what_is_wrong_with_a_file() {
    let posthog = sandbox().await;
    let source = Source::new(&posthog.url());
    for (csv, expected) in [
        ("day,events\n", "the file of counts has no column `project_id`"),
        ("project_id,day,events,row_count\n", "the file of counts has no column `checksum`"),
        ("project_id,day,events,checksum,row_count\n", "the file of counts has no rows"),
        (
            "project_id,day,events,checksum,row_count\n1001,2026-11-24,1e3,5,1000\n",
            "line 2 of the file of counts has no usable `events`",
        ),
    ] {
        let mut command = source.command("verify");
        command.arg("--counts").arg(source.file("counts.csv", csv));
        let outcome = crate::support::program::run(command).await;
        assert_eq!(outcome.code, Some(1));
        assert_eq!(outcome.messages.text(), "", "errors are on standard error");
        assert!(outcome.stderr.starts_with("error: ") && outcome.stderr.contains(expected), "{}", outcome.stderr);
    }
}
