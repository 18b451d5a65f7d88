//! What servers try that mean harm, or have gone mad: text that a terminal obeys, clocks, and ids that lead
//! elsewhere. What fills the memory is in `huge.rs`, what gets at secrets in `secrets.rs`.

use posthog_sandbox::patterns::Webhook;
use posthog_sandbox::posthog::{Action, Exports, Fault, Sandbox, Server};
use serde_json::{Value, json};

use crate::support::destination::Destination;
use crate::support::program::{Outcome, Source, catalog, run, state_file};
use crate::support::secrets::WEBHOOK;
use crate::support::terminal::Terminal;
use crate::support::world::{PROJECT, events, minutes_ago, sandbox, sandbox_with_exports, two_hours_ago};

/// Sets a title, clears the screen, fills the clipboard, turns the text around.
const HOSTILE: &str = "x\u{1b}]0;OWNED\u{7}\u{1b}[2J\u{1b}]52;c;T1dORUQ=\u{7}\u{9b}2J\u{9d}0;OWNED\u{9c}\u{7f}\u{202e}dlrow\u{2066}\r\nlast";

/// A character that a terminal obeys.
fn is_obeyed(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// All texts in a message.
fn texts<'v>(value: &'v Value, found: &mut Vec<&'v str>) {
    match value {
        Value::String(text) => found.push(text),
        Value::Array(values) => values.iter().for_each(|value| texts(value, found)),
        Value::Object(members) => members.values().for_each(|value| texts(value, found)),
        _ => {}
    }
}

/// Fails if a message for people holds what a terminal obeys, or a line does so as it is.
fn assert_plain(outcome: &Outcome, quoted: &str) {
    let text = outcome.messages.text();
    assert!(text.contains(quoted), "the server is quoted nowhere: {text}");
    for line in text.lines() {
        // A backspace is an escape like all others in JSON, but not raw.
        let raw = line.chars().find(|character| is_obeyed(*character) && *character != '\u{7f}');
        assert_eq!(raw, None, "{line}");
        let message: Value = serde_json::from_str(line).unwrap();
        if message["type"] == "RECORD" {
            continue;
        }
        let mut found = Vec::new();
        texts(&message, &mut found);
        for text in found {
            assert!(!text.contains(is_obeyed), "{text:?}");
            assert!(text.chars().count() < 9_000, "{} characters", text.len());
        }
    }
    assert!(!outcome.stderr.lines().any(|line| line.contains(is_obeyed)), "{:?}", outcome.stderr);
}

fn quoting(code: u16, text: &str) -> Fault {
    Fault::new(Action::error(code, &json!(text), &json!("error")))
}

#[tokio::test]
async fn text_from_servers_is_plain_and_short_in_every_message() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, events(5, minutes_ago(30)));
    let long = format!("{HOSTILE}{}", "y".repeat(60_000));
    for code in [400, 401, 402, 403, 500] {
        posthog.set_faults(vec![quoting(code, &long)]).unwrap();
        for level in ["info", "trace"] {
            let source = Source::new(&posthog.url()).with("attempts", json!(2)).with_environment("LOG_LEVEL", level);
            assert_plain(&run(source.command("check")).await, "x\u{fffd}]0;OWNED");
            assert_plain(&source.read(&catalog(&["events"], "incremental"), None).await, "x\u{fffd}]0;OWNED");
        }
    }
}

#[tokio::test]
async fn records_keep_every_character_and_show_none_that_a_terminal_obeys() {
    let posthog = sandbox().await;
    let mut odd = events(1, minutes_ago(30));
    odd[0].properties = json!({"text": HOSTILE.replace('\u{7f}', "")}).to_string();
    posthog.insert(PROJECT, odd);
    let outcome = Source::new(&posthog.url()).read(&catalog(&["events"], "incremental"), None).await;
    assert_plain(&outcome, "OWNED");
    assert_eq!(outcome.messages.records("events")[0]["properties"]["text"], HOSTILE.replace('\u{7f}', ""));
}

/// What a run shows on a terminal; the messages go elsewhere.
async fn on_a_terminal(source: &Source) -> String {
    let terminal = Terminal::open();
    let mut command = source.read_command(&catalog(&["events"], "incremental"), None);
    command.env("TERM", "xterm").stderr_to(terminal.program_side());
    let output = command.output().await;
    assert!(output.status.success());
    terminal.end().await
}

#[tokio::test]
async fn the_line_on_the_terminal_shows_nothing_that_it_would_obey() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, events(5, minutes_ago(30)));
    let body = json!({"type": "throttled_error", "code": "throttled", "detail": HOSTILE, "attr": null}).to_string();
    let headers = vec![("retry-after".to_owned(), "4".to_owned())];
    posthog.set_faults(vec![Fault::query(Action::Status { code: 429, body, headers }).nth(&[2])]).unwrap();
    let shown = on_a_terminal(&Source::new(&posthog.url())).await;
    assert!(shown.contains("OWNED"), "{shown:?}");
    for wrong in ["\u{1b}]", "\u{1b}[2J", "\u{7}", "\u{9b}", "\u{9d}", "\u{202e}", "\u{2066}"] {
        assert!(!shown.contains(wrong), "{wrong:?} in {shown:?}");
    }
}

/// Sets the server's clock.
fn turn_clock(posthog: &Sandbox, seconds: i64) {
    posthog.set_server(Server { clock_ahead: seconds, ..Server::cloud_2026() });
}

const DAY: i64 = 24 * 3_600;

#[tokio::test]
async fn clocks_that_are_days_apart_are_refused() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, events(5, minutes_ago(30)));
    for days in [2, -2, 30_000, -300_000] {
        turn_clock(&posthog, days * DAY);
        let source = Source::new(&posthog.url());
        let (status, message) = source.check().await;
        assert!(status == "FAILED" && message.contains("correct the one that is wrong"), "{days}: {message}");
        for stream in ["events", "persons", "annotations"] {
            let outcome = source.read(&catalog(&[stream], "incremental"), None).await;
            let error = outcome.messages.errors().join("");
            assert!(outcome.code == Some(1) && error.contains("PostHog's clock says"), "{days} {stream}: {error}");
            assert!(outcome.messages.state_lines().is_empty(), "{days} {stream}: {}", outcome.messages.text());
        }
    }
}

/// All instants in a state.
fn instants(state: &Value) -> Vec<chrono::DateTime<chrono::Utc>> {
    let mut found = Vec::new();
    texts(state, &mut found);
    let parsed = found.into_iter().filter_map(|text| chrono::DateTime::parse_from_rfc3339(text).ok());
    // The dates that are covered reach to the end of time.
    parsed.map(|instant| instant.to_utc()).filter(|instant| instant.timestamp() < 10_000_000_000).collect()
}

#[tokio::test]
async fn no_state_goes_beyond_a_clock_that_is_believed() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, events(5, minutes_ago(30)));
    posthog.generate(PROJECT, 20, 3, two_hours_ago());
    posthog.generate_lists(PROJECT, 3);
    for hours in [3, 20] {
        turn_clock(&posthog, hours * 3_600);
        let source = Source::new(&posthog.url());
        let streams = catalog(&["events", "persons", "sessions", "cohorts"], "incremental");
        let first = source.read_all(&streams, None).await;
        let warnings = first.logs("WARN").join("\n");
        assert!(warnings.contains("minutes ahead of this machine's"), "{warnings}");
        let latest = chrono::Utc::now() + chrono::TimeDelta::minutes(5);
        let instants = instants(&first.state());
        assert!(!instants.is_empty() && instants.iter().all(|instant| *instant <= latest), "{}", first.state());
        // When the clock is right again, everything goes on.
        turn_clock(&posthog, 0);
        let late = u128::try_from(1_000 + hours).unwrap();
        posthog.insert(PROJECT, vec![crate::support::world::event(late, minutes_ago(1))]);
        let second = source.read_all(&streams, Some(&first.state())).await;
        assert!(second.ids("events").contains(&uuid::Uuid::from_u128(late).to_string()), "{}", second.text());
    }
}

#[tokio::test]
async fn ids_that_would_lead_elsewhere_are_not_asked_for() {
    let posthog = sandbox_with_exports(Exports::default()).await;
    posthog.insert(PROJECT, events(5, minutes_ago(90)));
    let evil = "../../../../../internal-app/delete?user=1&x=";
    let started = json!({"id": evil}).to_string();
    let files = json!({"id": "r", "status": "Completed", "files": [evil], "records_completed": 5}).to_string();
    let answer = |body: &str| Action::Raw { headers: Vec::new(), body: body.as_bytes().to_vec() };
    let exports = "/file_download_batch_exports/";
    for fault in [
        Fault::new(answer(&started)).method("POST").path(&format!("{exports}$")).sql("data_interval"),
        Fault::new(answer(&files)).method("GET").path(&format!("{exports}[^/]+/$")),
    ] {
        posthog.clear_requests();
        posthog.set_faults(vec![fault]).unwrap();
        let outcome = Source::new(&posthog.url()).with_exports().read(&catalog(&["events"], "incremental"), None).await;
        let error = outcome.messages.errors().join("\n");
        assert!(outcome.code == Some(1) && error.contains("the id of an export run or file"), "{error}");
        assert!(posthog.requests().iter().all(|request| !request.path.contains("internal-app")));
    }
    // From a state, too.
    posthog.set_faults(Vec::new()).unwrap();
    posthog.clear_requests();
    let interval = json!({"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"});
    let window = json!({"interval": interval, "run": evil, "files": [], "rows": 0});
    let state = json!({"version": 1, "projects": {"1001": {"export": {"windows": [window]}}}});
    let source = Source::new(&posthog.url()).with_exports();
    let outcome = source.read(&catalog(&["persons"], "incremental"), Some(&state_file("persons", &state))).await;
    assert!(
        posthog.requests().iter().all(|request| !request.path.contains("internal-app")),
        "{}",
        outcome.messages.text()
    );
}

#[tokio::test]
async fn an_answer_of_the_webhook_without_an_end_is_cut_off() {
    let (server, webhook) = (sandbox().await, Webhook::start().await.unwrap());
    server.set_faults(vec![Fault::new(Action::Endless { begin: "{".to_owned() })]).unwrap();
    // Nothing else would end it.
    let destination = Destination::new(&webhook)
        .with("webhook_url", json!(format!("{}/api/app/webhooks/{WEBHOOK}", server.url())))
        .with("request_timeout_seconds", json!(3_600));
    let record = json!({"type": "RECORD", "record": {"stream": "events", "data": {"uuid": "u"}, "emitted_at": 1}});
    destination.delivered(&format!("{record}\n")).await;
    assert_eq!(server.requests().len(), 1);
}
