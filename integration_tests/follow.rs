//! `read --follow`: one sync after the other in one process.

use std::time::Duration;

use chrono::Utc;
use posthog_sandbox::patterns::Webhook;
use posthog_sandbox::posthog::{Action, Fault, Sandbox};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::time::Instant;

use crate::support::child::{Child, Watched};
use crate::support::destination::Destination;
use crate::support::messages::Messages;
use crate::support::program::{Source, catalog};
use crate::support::turned_clock;
use crate::support::world::{PROJECT, assert_events, event, events, minutes_ago, sandbox};

const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;

fn by_query() -> Value {
    json!({"method": {"type": "query", "settle_minutes": 0}, "attempts": 2})
}

async fn sandbox_with_events() -> Sandbox {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, events(3, minutes_ago(60)));
    posthog
}

/// Adds an event that PostHog has received just now.
fn insert_now(posthog: &Sandbox, number: u128) -> String {
    let event = event(number, Utc::now().timestamp_micros() - 1_000_000);
    let id = event.uuid.to_string();
    posthog.insert(PROJECT, vec![event]);
    id
}

#[tokio::test(start_paused = true)]
async fn an_event_arrives_within_one_round() {
    let posthog = sandbox_with_events().await;
    let catalog = catalog(&["events"], "incremental");
    let messages = turned_clock::follow(&posthog, &catalog, by_query(), async |reading| {
        for round in 1..4 {
            reading.ends_of("events", round).await;
            let id = insert_now(&posthog, 100 + round as u128);
            reading.until(|messages| messages.ids("events").contains(&id)).await;
            let begun = reading.messages().statuses("events").iter().filter(|status| *status == "STARTED").count();
            assert_eq!(begun, round + 1, "it arrives with the next round");
        }
        reading.ends_of("events", 4).await;
    });
    let messages = messages.await;
    assert_events(&messages, &posthog, &[PROJECT]);
    assert_eq!(messages.ids("events").len(), 6, "nothing comes twice");
}

#[tokio::test(start_paused = true)]
async fn lists_and_what_is_read_in_full_come_once_an_hour() {
    let posthog = sandbox_with_events().await;
    posthog.generate_lists(PROJECT, 1);
    let mut streams = catalog(&["events", "insights"], "incremental");
    streams["streams"]
        .as_array_mut()
        .unwrap()
        .extend(catalog(&["annotations"], "full_refresh")["streams"].as_array().unwrap().clone());
    let messages = turned_clock::follow(&posthog, &streams, by_query(), async |reading| {
        reading.until(|messages| messages.ends_of("annotations") >= 1 && messages.ends_of("insights") >= 1).await;
        reading.until(|messages| messages.ends_of("annotations") >= 2 && messages.ends_of("insights") >= 2).await;
    });
    let messages = messages.await;
    let annotations = posthog.list(PROJECT, "annotations").len();
    assert!(annotations > 0 && messages.records("annotations").len() == 2 * annotations, "all of them, twice");
    assert_eq!(messages.records("insights").len(), posthog.list(PROJECT, "insights").len(), "none has changed");
    let lists = posthog.requests().into_iter().filter(|request| request.path.contains("/annotations/"));
    let begins: Vec<Instant> = lists.map(|request| request.instant).collect();
    let apart = *begins.last().unwrap() - begins[0];
    // How long requests take by this clock depends on the machine.
    assert!(apart > Duration::from_mins(30), "read again after {apart:?}");
    assert!(messages.ends_of("events") > 10, "{} rounds meanwhile", messages.ends_of("events"));
}

/// Between two rounds, the state is what it is between two syncs: another process reads the same as the next round.
#[tokio::test(start_paused = true)]
async fn another_process_can_go_on_after_any_round() {
    let posthog = sandbox_with_events().await;
    let catalog = catalog(&["events"], "incremental");
    let (after_one, after_two) = (std::cell::Cell::new(None), std::cell::Cell::new(None));
    let messages = turned_clock::follow(&posthog, &catalog, by_query(), async |reading| {
        reading.ends_of("events", 1).await;
        after_one.set(Some(reading.messages().state()));
        insert_now(&posthog, 100);
        reading.ends_of("events", 2).await;
        after_two.set(Some(reading.messages().state()));
    });
    let round = messages.await;
    let (apart, _) = turned_clock::read(&posthog, &catalog, after_one.take().as_ref(), &by_query()).await;
    assert_eq!(apart.ids("events"), round.ids("events")[3..]);
    let (nothing, _) = turned_clock::read(&posthog, &catalog, after_two.take().as_ref(), &by_query()).await;
    assert_eq!(nothing.records("events").len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_failed_round_is_followed_by_another() {
    let posthog = sandbox_with_events().await;
    let catalog = catalog(&["events"], "incremental");
    // One stream fails, then everything.
    for fault in [Fault::query(Action::status(500)), Fault::new(Action::status(500))] {
        let messages = turned_clock::follow(&posthog, &catalog, by_query(), async |reading| {
            reading.ends_of("events", 1).await;
            let before = posthog.requests().len();
            posthog.set_faults(vec![fault]).unwrap();
            while posthog.requests().len() < before + 5 {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            posthog.set_faults(Vec::new()).unwrap();
            let (id, ends) = (insert_now(&posthog, 100), reading.messages().ends_of("events"));
            reading.until(|messages| messages.ids("events").contains(&id)).await;
            reading.ends_of("events", ends + 1).await;
        });
        let messages = messages.await;
        assert_eq!(messages.statuses("events").last().map(String::as_str), Some("COMPLETE"));
        assert_events(&messages, &posthog, &[PROJECT]);
        posthog.delete_events(PROJECT, [event(100, 0).uuid]);
    }
}

/// A program that follows, and what it has printed so far.
struct Follower {
    child: Child,
    stdout: BufReader<Watched>,
    text: Vec<u8>,
}

impl Follower {
    fn start(source: &Source, streams: &[&str], interval: u32) -> Self {
        let mut command = source.read_command(&catalog(streams, "incremental"), None);
        command.arg(format!("--follow={interval}"));
        let mut child = command.spawn();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout, text: Vec::new() }
    }

    /// The next line; none at the end.
    async fn line(&mut self) -> Option<Vec<u8>> {
        let mut line = Vec::new();
        self.stdout.read_until(b'\n', &mut line).await.unwrap();
        self.text.extend_from_slice(&line);
        (!line.is_empty()).then_some(line)
    }

    /// Reads on until what has been printed is as it should be.
    async fn until(&mut self, is_so: impl Fn(&Messages) -> bool) {
        while !is_so(&Messages::of_rounds(&self.text)) {
            assert!(self.line().await.is_some(), "it has ended: {}", String::from_utf8_lossy(&self.text));
        }
    }

    /// Reads to the end. Returns the exit code; none when a signal has ended it.
    async fn end(mut self) -> (Option<i32>, Messages) {
        while self.line().await.is_some() {}
        (self.child.wait().await.code(), Messages::of_rounds(&self.text))
    }
}

#[tokio::test]
async fn a_signal_is_the_way_to_end_it() {
    let posthog = sandbox_with_events().await;
    let source = Source::new(&posthog.url()).with_page_size(100);
    for signal in [SIGINT, SIGTERM] {
        let mut follower = Follower::start(&source, &["events"], 3_600);
        follower.until(|messages| messages.ends_of("events") == 1).await;
        follower.child.signal(signal).await;
        let (code, messages) = follower.end().await;
        assert_eq!(code, Some(0), "{}", messages.without_records());
        assert_events(&messages, &posthog, &[PROJECT]);
        let again = source.read_all(&catalog(&["events"], "incremental"), Some(&messages.state())).await;
        assert_eq!(again.records("events").len(), 0);
    }
}

#[tokio::test]
async fn a_signal_in_the_middle_of_a_round_leaves_the_last_state() {
    let posthog = sandbox_with_events().await;
    let source = Source::new(&posthog.url()).with_page_size(100);
    let mut follower = Follower::start(&source, &["events", "cohorts"], 1);
    follower.until(|messages| messages.ends_of("events") == 1 && messages.ends_of("cohorts") == 1).await;
    posthog.set_faults(vec![Fault::query(Action::Delay { wait: Duration::from_mins(10) })]).unwrap();
    let started =
        |messages: &Messages| messages.statuses("events").iter().filter(|status| *status == "STARTED").count();
    follower.until(|messages| started(messages) > messages.ends_of("events")).await;
    follower.child.signal(SIGTERM).await;
    let (code, messages) = follower.end().await;
    assert_eq!(code, Some(0), "{}", messages.without_records());
    assert_eq!(messages.statuses("events").last().map(String::as_str), Some("INCOMPLETE"));
    assert_eq!(messages.statuses("cohorts").last().map(String::as_str), Some("COMPLETE"));
    posthog.set_faults(Vec::new()).unwrap();
    insert_now(&posthog, 100);
    let again = source.read_all(&catalog(&["events", "cohorts"], "incremental"), Some(&messages.state())).await;
    assert_eq!(again.ids("events"), [event(100, 0).uuid.to_string()]);
}

#[tokio::test]
async fn an_error_that_only_the_user_can_mend_ends_it() {
    let posthog = sandbox_with_events().await;
    let source = Source::new(&posthog.url()).with_page_size(100);
    let mut follower = Follower::start(&source, &["events"], 1);
    follower.until(|messages| messages.ends_of("events") == 1).await;
    let refusal = Action::error(401, &json!("Invalid personal API key."), &json!("authentication_failed"));
    posthog.set_faults(vec![Fault::new(refusal)]).unwrap();
    let (code, messages) = follower.end().await;
    assert_eq!(code, Some(1));
    let errors = messages.errors().join("\n");
    assert!(errors.starts_with("config_error") && errors.contains("`api_key`"), "{errors}");
}

/// Every round is acknowledged while the next one is waited for, and a clean end is one for both programs.
#[tokio::test]
async fn a_pipe_delivers_and_acknowledges_every_round() {
    let posthog = sandbox_with_events().await;
    let webhook = Webhook::start().await.unwrap();
    let source = Source::new(&posthog.url()).with_page_size(100);
    let destination = Destination::new(&webhook);
    let mut writer = destination.write_command().spawn();
    let mut input = writer.stdin.take().unwrap();
    let mut acknowledged = BufReader::new(writer.stdout.take().unwrap());
    let mut follower = Follower::start(&source, &["events", "persons"], 1);
    let mut delivered = Vec::new();
    for round in 1..=3_u128 {
        // Until the webhook and the state file have what the source has, nothing else is sent.
        let id = insert_now(&posthog, 100 + round);
        loop {
            let line = follower.line().await.expect("the source has ended");
            input.write_all(&line).await.unwrap();
            let is_state = line.starts_with(br#"{"type":"STATE","#);
            if is_state && Messages::of_rounds(&follower.text).ids("events").contains(&id) {
                break;
            }
        }
        let expected = Messages::of_rounds(&follower.text).stream_state("events");
        let mut line = String::new();
        while acknowledged.read_line(&mut line).await.unwrap() > 0 {
            let message: Value = serde_json::from_str(&line).unwrap();
            let stream = &message["state"]["stream"];
            if stream["stream_descriptor"]["name"] == "events" && stream["stream_state"] == expected {
                break;
            }
            line.clear();
        }
        delivered.push(id);
        let bodies = webhook.received().into_iter().map(|request| request.body).collect::<String>();
        assert!(delivered.iter().all(|id| bodies.contains(id)), "round {round}");
    }
    follower.child.signal(SIGTERM).await;
    while let Some(line) = follower.line().await {
        input.write_all(&line).await.unwrap();
    }
    let (code, messages) = follower.end().await;
    assert_eq!(code, Some(0), "{}", messages.without_records());
    drop(input);
    let mut rest = String::new();
    while acknowledged.read_line(&mut rest).await.unwrap() > 0 {}
    assert_eq!(writer.wait().await.code(), Some(0), "{rest}");
    let kept = destination.state_file();
    for state in messages.state().as_array().unwrap() {
        assert!(kept.as_array().unwrap().contains(state), "{state} in {kept}");
    }
}
