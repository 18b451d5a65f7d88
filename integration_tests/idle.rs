//! A sync with nothing new starts no export run, and whatever is new is found all the same.

use posthog_sandbox::posthog::{Exports, Sandbox, Server};
use serde_json::{Value, json};

use crate::support::messages::Messages;
use crate::support::program::{Source, catalog};
use crate::support::world::{PROJECT, minutes_ago, person, sandbox_with_exports, two_hours_ago};

const STREAMS: [&str; 4] = ["events", "persons", "person_distinct_ids", "sessions"];

fn source(posthog: &Sandbox) -> Source {
    Source::new(&posthog.url()).with("export_above", json!(20_000))
}

/// Syncs from a state. Returns what came, and how many runs were started.
async fn sync(posthog: &Sandbox, source: &Source, state: Option<&Value>) -> (Messages, usize) {
    let before = posthog.export_runs().len();
    let messages = source.read_all(&catalog(&STREAMS, "incremental"), state).await;
    (messages, posthog.export_runs().len() - before)
}

fn ids(messages: &Messages, stream: &str, id: &str) -> Vec<String> {
    messages.records(stream).iter().map(|record| record[id].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn an_idle_sync_starts_no_export_run() {
    let posthog = sandbox_with_exports(Exports::default()).await;
    posthog.generate(PROJECT, 500, 1, two_hours_ago());
    let source = source(&posthog);
    let (first, _) = sync(&posthog, &source, None).await;
    let (second, runs) = sync(&posthog, &source, Some(&first.state())).await;
    assert_eq!(runs, 0, "{}", second.without_records());
    assert_eq!(second.of_type("RECORD").len(), 0);
    let (third, runs) = sync(&posthog, &source, Some(&second.state())).await;
    assert_eq!((runs, third.of_type("RECORD").len()), (0, 0), "{}", third.without_records());
    // With PostHog's latencies, what a sync takes are its requests.
    posthog.clear_requests();
    sync(&posthog, &source, Some(&third.state())).await;
    let requests = posthog.requests().len();
    assert!(requests <= 24, "{requests} requests");
}

#[tokio::test]
async fn every_change_of_a_person_is_exported() {
    let posthog = sandbox_with_exports(Exports::default()).await;
    posthog.generate(PROJECT, 500, 1, two_hours_ago());
    let source = source(&posthog);
    let mut state = sync(&posthog, &source, None).await.0.state();
    let persons = posthog.persons(PROJECT);
    let [kept, merged, deleted] = [0, 1, 2].map(|place: usize| persons[place].clone());
    let new = person(77, minutes_ago(5), None);
    let changes: [(&str, String, &dyn Fn()); 3] = [
        ("persons", new.id.to_string(), &|| posthog.insert_person(PROJECT, new.clone())),
        ("person_distinct_ids", merged.distinct_ids[0].clone(), &|| {
            posthog.merge(PROJECT, &kept.distinct_ids[0], &merged.distinct_ids[0]);
        }),
        ("persons", deleted.id.to_string(), &|| posthog.delete_person(PROJECT, deleted.id)),
    ];
    for (stream, id, change) in changes {
        change();
        let (messages, runs) = sync(&posthog, &source, Some(&state)).await;
        assert!(runs > 0, "{stream} {id}: {}", messages.without_records());
        let field = if stream == "persons" { "id" } else { "distinct_id" };
        assert!(ids(&messages, stream, field).contains(&id), "{stream} {id}: {}", messages.without_records());
        let (after, runs) = sync(&posthog, &source, Some(&messages.state())).await;
        assert_eq!((runs, after.of_type("RECORD").len()), (0, 0), "{}", after.without_records());
        state = after.state();
    }
}

/// What PostHog received in the newest minutes is left to the next sync, but it is part of the figures.
#[tokio::test]
async fn what_an_export_has_left_to_the_next_sync_is_exported_then() {
    let posthog = sandbox_with_exports(Exports::default()).await;
    posthog.generate(PROJECT, 500, 1, two_hours_ago());
    let source = source(&posthog).with("method", json!({"type": "auto", "settle_minutes": 3}));
    let mut state = sync(&posthog, &source, None).await.0.state();
    posthog.insert_person(PROJECT, person(77, minutes_ago(0), None));
    // The first two end before the time at which the person was seen first, by the clock of that sync.
    for (minutes, is_exported) in [(10, true), (10, true), (20, true), (25, false)] {
        posthog.set_server(Server { clock_ahead: minutes * 60, ..Server::cloud_2026() });
        source.turn_clock(minutes * 60);
        let (messages, runs) = sync(&posthog, &source, Some(&state)).await;
        assert_eq!(runs > 0, is_exported, "{minutes} minutes later: {}", messages.without_records());
        state = messages.state();
    }
    let tomorrow = 25 * 60 * 60;
    posthog.set_server(Server { clock_ahead: tomorrow, ..Server::cloud_2026() });
    source.turn_clock(tomorrow);
    assert!(sync(&posthog, &source, Some(&state)).await.1 > 0, "once a day in any case");
}
