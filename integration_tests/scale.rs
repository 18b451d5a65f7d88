//! A project that is split over several connections: no event is read twice, none is left out.

use std::collections::BTreeSet;

use posthog_sandbox::posthog::{Event, Exports, Sandbox};
use serde_json::{Value, json};
use source_posthog::time::Timestamp;

use crate::support::program::{Source, catalog};
use crate::support::world::{PROJECT, event, minutes_ago, sandbox, sandbox_with_exports, two_hours_ago, two_projects};

const MINUTES_OF_A_DAY: i64 = 1_440;

/// Fails unless the parts hold every event of these projects, each in exactly one of them.
fn assert_parts(parts: &[BTreeSet<String>], posthog: &Sandbox, projects: &[u64]) {
    let stored = |project: &u64| posthog.events(*project).into_iter().map(|event| event.uuid.to_string());
    let wanted: BTreeSet<String> = projects.iter().flat_map(stored).collect();
    let together: BTreeSet<String> = parts.iter().flatten().cloned().collect();
    assert_eq!(together, wanted);
    assert_eq!(parts.iter().map(BTreeSet::len).sum::<usize>(), wanted.len(), "an event is in two parts");
    assert!(parts.iter().all(|part| !part.is_empty()));
}

/// Reads all parts twice; in between, events arrive, among them some for every part.
async fn read_twice(posthog: &Sandbox, sources: &[Source], new_events: Vec<Event>) -> Vec<BTreeSet<String>> {
    let catalog = catalog(&["events"], "incremental");
    let (mut parts, mut states): (Vec<BTreeSet<String>>, Vec<Value>) = (Vec::new(), Vec::new());
    for source in sources {
        let messages = source.read_all(&catalog, None).await;
        parts.push(messages.id_set("events"));
        states.push(messages.state());
    }
    let now = minutes_ago(0);
    posthog.insert(PROJECT, new_events.into_iter().map(|event| Event { created_at: now, ..event }).collect());
    for ((source, part), state) in sources.iter().zip(&mut parts).zip(&states) {
        part.extend(source.read_all(&catalog, Some(state)).await.id_set("events"));
    }
    parts
}

/// Sources for all events before the first border, between the borders, and from the last one on.
fn by_time(borders: &[i64], source: impl Fn() -> Source) -> Vec<Source> {
    let border = |micros: &i64| json!(Timestamp::from_micros(*micros));
    let begins = [None].into_iter().chain(borders.iter().map(Some));
    let ends = borders.iter().map(Some).chain([None]);
    let part = |(begin, end): (Option<&i64>, Option<&i64>)| {
        let source = source();
        let source = begin.into_iter().fold(source, |source, begin| source.with("start_date", border(begin)));
        end.into_iter().fold(source, |source, end| source.with("end_date", border(end)))
    };
    begins.zip(ends).map(part).collect()
}

/// Events on the borders and a microsecond before them.
fn new_events_at(borders: &[i64]) -> Vec<Event> {
    let timestamps = borders.iter().flat_map(|border| [*border, border - 1]);
    (900_000..).zip(timestamps).map(|(number, at)| event(number, at)).collect()
}

#[tokio::test]
async fn query_syncs_of_adjacent_time_ranges_read_every_event_in_exactly_one() {
    let posthog = sandbox().await;
    posthog.generate(PROJECT, 800, 3, two_hours_ago());
    let borders = [minutes_ago(12 * MINUTES_OF_A_DAY), minutes_ago(3 * MINUTES_OF_A_DAY)];
    posthog.insert(PROJECT, borders.iter().flat_map(|border| ties(*border)).collect());
    let sources = by_time(&borders, || Source::new(&posthog.url()).with_page_size(50));
    assert_parts(&read_twice(&posthog, &sources, new_events_at(&borders)).await, &posthog, &[PROJECT]);
}

/// More than a page of events on one microsecond, and as many just before it.
fn ties(border: i64) -> Vec<Event> {
    let base = u128::from(border.unsigned_abs());
    (0..120).map(|number| event(base + number, border - i64::from(number % 2 == 0))).collect()
}

#[tokio::test]
async fn export_syncs_of_adjacent_time_ranges_read_every_event_in_exactly_one() {
    let posthog = sandbox_with_exports(Exports::default()).await;
    posthog.generate(PROJECT, 800, 3, two_hours_ago());
    let borders = [minutes_ago(12 * MINUTES_OF_A_DAY), minutes_ago(3 * MINUTES_OF_A_DAY)];
    posthog.insert(PROJECT, borders.iter().flat_map(|border| ties(*border)).collect());
    let sources = by_time(&borders, || Source::new(&posthog.url()).with_exports());
    assert_parts(&read_twice(&posthog, &sources, new_events_at(&borders)).await, &posthog, &[PROJECT]);
}

#[tokio::test]
async fn included_and_excluded_event_names_read_every_event_in_exactly_one_sync() {
    for exports in [false, true] {
        let posthog = if exports { sandbox_with_exports(Exports::default()).await } else { sandbox().await };
        posthog.generate(PROJECT, 800, 3, two_hours_ago());
        let source = || {
            let source = Source::new(&posthog.url());
            if exports { source.with_exports() } else { source.with_page_size(100) }
        };
        let names = json!(["$pageview", "$autocapture"]);
        let sources = [source().with("include_events", names.clone()), source().with("exclude_events", names)];
        // The rest holds names that nobody has thought of.
        let called = |number: u128, name: &str| Event { event: name.to_owned(), ..event(number, minutes_ago(1)) };
        let new_events = vec![called(1, "$pageview"), called(2, "quite new"), called(3, "$PAGEVIEW"), called(4, "")];
        assert_parts(&read_twice(&posthog, &sources, new_events).await, &posthog, &[PROJECT]);
    }
}

#[tokio::test]
async fn syncs_of_single_projects_read_every_event_in_exactly_one() {
    let posthog = two_projects().await;
    let sources = [1001, 1002].map(|project: u64| Source::new(&posthog.url()).with("project_ids", json!([project])));
    for project in [1001, 1002] {
        posthog.generate(project, 300, project, two_hours_ago());
    }
    let new_events = (1..=5).map(|number| event(number, minutes_ago(0)));
    assert_parts(&read_twice(&posthog, &sources, new_events.collect()).await, &posthog, &[1001, 1002]);
}
