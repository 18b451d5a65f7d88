//! `destination-patterns`: nothing is acknowledged that has not arrived.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use posthog_sandbox::patterns::{Behaviour, Outcome, Webhook};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use crate::support::destination::{Destination, run};
use crate::support::program::catalog;
use crate::support::secrets::{BEARER, HEADER, SIGNING_KEY, WEBHOOK};

fn record(stream: &str, number: usize) -> String {
    let data = format!(r#"{{"uuid":"u-{number}","event":"e{}","n":{number}}}"#, number % 3);
    format!("{{\"type\":\"RECORD\",\"record\":{{\"stream\":\"{stream}\",\"data\":{data},\"emitted_at\":1}}}}\n")
}

/// A state that covers `count` records.
fn state(stream: &str, cursor: usize, count: usize) -> String {
    format!(
        "{{\"type\":\"STATE\",\"state\":{{\"type\":\"STREAM\",\"id\":{cursor},\"stream\":{{\"stream_descriptor\":{{\"name\":\"{stream}\"}},\"stream_state\":{{\"cursor\":{cursor}}}}},\"sourceStats\":{{\"recordCount\":{count}.0}}}}}}\n"
    )
}

/// `count` records, with a state after every `step`.
fn input(count: usize, step: usize) -> String {
    (1..=count)
        .map(|number| {
            let state = if number % step == 0 { state("events", number, step) } else { String::new() };
            record("events", number) + &state
        })
        .collect()
}

fn numbers(webhook: &Webhook) -> Vec<u64> {
    webhook.records().iter().map(|record| record["n"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn records_are_delivered_in_order_and_states_are_echoed_verbatim() {
    let webhook = Webhook::start().await.unwrap();
    let destination = Destination::new(&webhook);
    let outcomes = destination.delivered(&input(1_234, 100)).await;
    assert_eq!(numbers(&webhook), (1..=1_234).collect::<Vec<u64>>());
    assert_eq!(outcomes.cursors(), (1..=12).map(|step| step * 100).collect::<Vec<i64>>());
    let first = outcomes.text.lines().find(|line| line.starts_with("{\"type\":\"STATE\"")).unwrap();
    let expected =
        state("events", 100, 100).trim_end().replace("0.0}}}", "0.0},\"destinationStats\":{\"recordCount\":100.0}}}");
    assert_eq!(first, expected);
    let requests = webhook.received();
    assert_eq!(requests.iter().map(|request| request.records).collect::<Vec<usize>>(), [500, 500, 234]);
    assert!(requests.iter().all(|request| request.header("content-type") == Some("application/json")));
    assert_eq!(webhook.peak(), 1);
    let kept = destination.state_file();
    assert_eq!(
        kept,
        json!([{"type": "STREAM", "stream": {"stream_descriptor": {"name": "events"}, "stream_state": {"cursor": 1_200}}}])
    );
}

#[tokio::test]
async fn values_of_long_lines_are_delivered_unchanged() {
    let webhook = Webhook::start().await.unwrap();
    let long = "x\u{2028}".repeat(900_000);
    let datas = [
        r#"{ "z":12345678901234567890123,"a":1.0,"a":1e5,"é":"\ud83e\udd94" }"#.to_owned(),
        format!(r#"{{"long":"{long}"}}"#),
        r#"{"after":true}"#.to_owned(),
    ];
    let input: String = datas
        .iter()
        .map(|data| {
            format!("{{\"record\":{{\"emitted_at\":1,\"data\":{data},\"stream\":\"events\"}},\"type\":\"RECORD\"}}\n")
        })
        .collect();
    Destination::new(&webhook).delivered(&input).await;
    assert_eq!(webhook.texts(), datas);
    assert_eq!(webhook.received().len(), 3, "the long record goes alone");
}

#[tokio::test]
async fn state_is_acknowledged_after_every_record_before_it() {
    let webhook =
        Webhook::start_with(Behaviour { outcomes: vec![(1, Outcome::Gate)], ..Behaviour::default() }).await.unwrap();
    let destination =
        Destination::new(&webhook).with("batch", json!({"max_age_ms": 10})).with("request_timeout_seconds", json!(60));
    let mut child = destination.write_command().spawn();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all((record("events", 1) + &state("events", 1, 1)).as_bytes()).await.unwrap();
    webhook.wait_for_requests(1).await;
    // The first batch is held; another stream may overtake it, its state may not.
    stdin.write_all((record("persons", 2) + &state("persons", 2, 1)).as_bytes()).await.unwrap();
    webhook.wait_for_requests(2).await;
    assert_eq!(numbers(&webhook), [2]);
    assert!(!destination.path("state.json").exists(), "a state ran ahead");
    webhook.open_gate();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut states = Vec::new();
    drop(stdin);
    while let Some(line) = lines.next_line().await.unwrap() {
        if line.starts_with("{\"type\":\"STATE\"") {
            assert_eq!(numbers(&webhook).len(), 2);
            states.push(line);
        }
    }
    assert!(states[0].contains("\"name\":\"events\"") && states[1].contains("\"name\":\"persons\""), "{states:?}");
    assert!(child.wait().await.success());
}

#[tokio::test]
async fn transient_failures_are_retried_with_the_same_idempotency_key() {
    for outcome in [
        Outcome::status(500),
        Outcome::status(503),
        Outcome::status(408),
        Outcome::status(409),
        Outcome::status(425),
        Outcome::retry_after(429, "1"),
        Outcome::retry_after(503, "Mon, 01 Jan 2024 00:00:00 GMT"),
        Outcome::Break,
    ] {
        let webhook = Webhook::start_with(Behaviour {
            outcomes: vec![(1, outcome.clone()), (2, outcome.clone())],
            ..Behaviour::default()
        })
        .await
        .unwrap();
        let outcomes = Destination::new(&webhook).delivered(&input(10, 10)).await;
        assert_eq!(numbers(&webhook), (1..=10).collect::<Vec<u64>>(), "{outcome:?}");
        assert_eq!(outcomes.cursors(), [10]);
        let keys: Vec<String> =
            webhook.received().iter().map(|request| request.header("idempotency-key").unwrap().to_owned()).collect();
        assert!(keys.len() >= 3 && keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    }
}

#[tokio::test]
async fn lost_response_repeats_at_most_one_batch() {
    for outcome in [Outcome::StoreThenBreak, Outcome::StoreThenStall(Duration::from_secs(30))] {
        let webhook = Webhook::start_with(Behaviour { outcomes: vec![(2, outcome.clone())], ..Behaviour::default() })
            .await
            .unwrap();
        let destination = Destination::new(&webhook).with("batch", json!({"max_records": 10}));
        let outcomes = destination.delivered(&input(40, 20)).await;
        let numbers = numbers(&webhook);
        assert_eq!(numbers.len(), 50, "{outcome:?}");
        assert_eq!(numbers.iter().collect::<std::collections::BTreeSet<_>>().len(), 40);
        assert_eq!(outcomes.cursors(), [20, 40]);
    }
}

#[tokio::test]
async fn permanent_failure_ends_the_run_and_acknowledges_nothing_more() {
    for (outcome, expected) in [
        (Outcome::status(401), "config_error: the webhook denies access"),
        (Outcome::status(403), "config_error: the webhook denies access"),
        (Outcome::status(404), "config_error: there is no such webhook"),
        (Outcome::status(410), "config_error: there is no such webhook"),
        (
            Outcome::Status { code: 302, headers: vec![("location".into(), format!("https://new.example/{WEBHOOK}"))] },
            "config_error: the webhook redirects to https://new.example",
        ),
        (Outcome::status(400), "system_error: the webhook at http://127.0.0.1/… rejects a record of events"),
        (Outcome::status(422), "system_error: the webhook at http://127.0.0.1/… rejects a record"),
        (Outcome::status(501), "system_error: the webhook at http://127.0.0.1/… rejects a record"),
        (Outcome::status(505), "system_error"),
        (Outcome::status(500), "transient_error: the webhook at http://127.0.0.1/… did not accept a batch"),
    ] {
        let webhook = Webhook::start().await.unwrap();
        let destination = Destination::new(&webhook)
            .with("batch", json!({"max_records": 10}))
            .with("retry", json!({"first_wait_ms": 1, "max_elapsed_seconds": 0}));
        let later: Vec<(u64, Outcome)> = (2..200).map(|number| (number, outcome.clone())).collect();
        webhook.behave(Behaviour { outcomes: later, ..Behaviour::default() });
        let outcomes = destination.write(&input(30, 10)).await;
        assert_eq!(outcomes.code, Some(1), "{outcome:?}");
        assert!(outcomes.error().starts_with(expected), "{outcome:?}: {}", outcomes.error());
        assert_eq!(outcomes.cursors(), [10], "{outcome:?}");
        assert_eq!(destination.state_file()[0]["stream"]["stream_state"]["cursor"], 10);
    }
}

#[tokio::test]
async fn too_large_requests_are_halved_and_later_ones_stay_small() {
    let webhook = Webhook::start_with(Behaviour { max_records: Some(30), ..Behaviour::default() }).await.unwrap();
    let outcomes =
        Destination::new(&webhook).with("batch", json!({"max_records": 100})).delivered(&input(400, 400)).await;
    assert_eq!(numbers(&webhook), (1..=400).collect::<Vec<u64>>());
    assert_eq!(outcomes.cursors(), [400]);
    let refused = webhook.received().iter().filter(|request| request.status == Some(413)).count();
    assert!(refused <= 3, "{refused} requests were too large");
}

#[tokio::test]
async fn single_rejected_record_is_found_and_dead_lettered() {
    for code in [400, 422] {
        let poison = Some(("\"u-77\"".to_owned(), code));
        let webhook = Webhook::start_with(Behaviour { poison, ..Behaviour::default() }).await.unwrap();
        let destination = Destination::new(&webhook).with("dead_letter_file", json!("refused.jsonl"));
        let outcomes = destination.delivered(&input(200, 100)).await;
        assert_eq!(numbers(&webhook).len(), 199);
        assert_eq!(outcomes.cursors(), [100, 200]);
        let stats = |index: usize| outcomes.states()[index]["destinationStats"].clone();
        assert_eq!(stats(0), json!({"recordCount": 99.0, "rejectedRecordCount": 1.0}));
        assert_eq!(stats(1), json!({"recordCount": 100.0}));
        let refused: Value =
            serde_json::from_slice(&std::fs::read(destination.path("refused.jsonl")).unwrap()).unwrap();
        assert_eq!(
            (&refused["stream"], &refused["status"], &refused["record"]["n"]),
            (&json!("events"), &json!(code), &json!(77))
        );
    }
    let webhook =
        Webhook::start_with(Behaviour { poison: Some(("u-7".into(), 422)), ..Behaviour::default() }).await.unwrap();
    let outcomes = Destination::new(&webhook).write(&input(20, 5)).await;
    assert_eq!(outcomes.code, Some(1));
    assert!(outcomes.error().contains("`dead_letter_file`"), "{}", outcomes.error());
    assert!(outcomes.cursors().is_empty());
}

#[tokio::test]
async fn batch_rejected_for_another_reason_is_dead_lettered_whole() {
    let outcomes = vec![(2, Outcome::status(451))];
    let webhook = Webhook::start_with(Behaviour { outcomes, ..Behaviour::default() }).await.unwrap();
    let destination = Destination::new(&webhook)
        .with("dead_letter_file", json!("refused.jsonl"))
        .with("batch", json!({"max_records": 50}));
    let outcomes = destination.delivered(&input(100, 50)).await;
    assert_eq!(webhook.received().len(), 2, "a batch is not taken apart for nothing");
    assert_eq!(outcomes.states()[1]["destinationStats"], json!({"recordCount": 0.0, "rejectedRecordCount": 50.0}));
    let refused = std::fs::read_to_string(destination.path("refused.jsonl")).unwrap();
    assert_eq!(refused.lines().count(), 50);
}

#[tokio::test]
async fn slow_webhook_stops_reading_of_standard_input() {
    let webhook = Webhook::start_with(Behaviour { always: Some(Outcome::Gate), ..Behaviour::default() }).await.unwrap();
    let destination = Destination::new(&webhook).with("request_timeout_seconds", json!(600));
    let mut child = destination.write_command().spawn();
    let mut stdin = child.stdin.take().unwrap();
    let megabyte: String = input(1_000_000 / record("events", 1).len(), usize::MAX);
    let mut accepted = 0;
    // Until a megabyte is not taken for a second; a program that buffers takes them all.
    while accepted < 60 {
        match tokio::time::timeout(Duration::from_secs(1), stdin.write_all(megabyte.as_bytes())).await {
            Ok(written) => written.unwrap(),
            Err(_) => break,
        }
        accepted += 1;
    }
    assert!(accepted < 10, "{accepted} MB were read while the webhook had not answered once");
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kilobytes: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kilobytes < 64 * 1024, "{kilobytes} kB");
}

#[tokio::test]
async fn requests_are_compressed_signed_and_authorised_as_configured() {
    let webhook = Webhook::start_with(Behaviour { bearer: Some(BEARER.into()), ..Behaviour::default() }).await.unwrap();
    let destination = Destination::new(&webhook)
        .with("compression", json!("gzip"))
        .with("bearer_token", json!(format!("Bearer {BEARER}")))
        .with("headers", json!([{"name": "X-Team", "value": HEADER}]))
        .with("signing_secret", json!(format!("whsec_{}", STANDARD.encode(SIGNING_KEY))))
        .with("record_shape", json!("posthog_app"));
    destination.delivered(&input(3, 3)).await;
    let request = &webhook.received()[0];
    assert_eq!(request.header("content-encoding"), Some("gzip"));
    assert_eq!(request.header("x-team"), Some(HEADER));
    assert!(request.header("webhook-signature").unwrap().starts_with("v1,"));
    assert!(request.header("webhook-timestamp").unwrap().parse::<i64>().unwrap() > 1_700_000_000);
    assert_eq!(request.header("webhook-id"), request.header("idempotency-key"));
    assert_eq!(webhook.texts()[0], r#"{"ip":null,"event":"e1","uuid":"u-1"}"#);
}

#[tokio::test]
async fn only_allowed_events_are_sent_and_the_others_are_acknowledged() {
    let webhook = Webhook::start().await.unwrap();
    let destination = Destination::new(&webhook).with("allowed_event_types", json!("e1, E2 ,typo"));
    let outcomes = destination.delivered(&input(9, 3)).await;
    assert_eq!(numbers(&webhook), [1, 4, 7]);
    assert_eq!(outcomes.cursors(), [3, 6, 9]);
    let warnings: Vec<&Value> = outcomes.lines.iter().filter(|line| line["log"]["level"] == "WARN").collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    for blank in [json!(" "), json!(","), json!([" "])] {
        let outcomes = Destination::new(&webhook).with("allowed_event_types", blank).write(&input(1, 1)).await;
        assert!(outcomes.error().starts_with("config_error: `allowed_event_types`"), "{}", outcomes.error());
    }
}

#[tokio::test]
async fn parallel_requests_acknowledge_states_only_after_their_records() {
    let mut outcomes: Vec<(u64, Outcome)> = (1..=4).map(|number| (number, Outcome::Gate)).collect();
    outcomes.push((9, Outcome::StoreThenBreak));
    let behaviour = Behaviour { outcomes, ..Behaviour::default() };
    let webhook = Webhook::start_with(behaviour).await.unwrap();
    let destination = Destination::new(&webhook)
        .with("concurrency", json!(4))
        .with("batch", json!({"max_records": 10}))
        .with("request_timeout_seconds", json!(60));
    let open = async {
        webhook.wait_for_requests(4).await;
        webhook.open_gate();
    };
    let input = input(500, 25);
    let (outcomes, ()) = tokio::join!(destination.delivered(&input), open);
    let delivered: std::collections::BTreeSet<u64> = numbers(&webhook).into_iter().collect();
    assert_eq!(delivered.len(), 500);
    assert_eq!(outcomes.cursors(), (1..=20).map(|step| step * 25).collect::<Vec<i64>>());
    assert_eq!(webhook.peak(), 4);
}

#[tokio::test]
async fn run_after_a_kill_repeats_only_unacknowledged_records() {
    let webhook = Webhook::start().await.unwrap();
    let destination = Destination::new(&webhook).with("batch", json!({"max_records": 5}));
    let mut done = 0;
    for kill_after in [3, 9, 20, usize::MAX] {
        let mut child = destination.write_command().spawn();
        let mut stdin = child.stdin.take().unwrap();
        let rest: String =
            (done + 1..=200).map(|number| record("events", number) + &state("events", number, 1)).collect();
        let feed = tokio::spawn(async move { drop(stdin.write_all(rest.as_bytes()).await) });
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        while let Some(line) = lines.next_line().await.unwrap() {
            seen += usize::from(line.starts_with("{\"type\":\"STATE\""));
            if seen >= kill_after {
                child.kill().await;
                break;
            }
        }
        feed.await.unwrap();
        let kept = destination.state_file()[0]["stream"]["stream_state"]["cursor"].as_u64().unwrap();
        let delivered: std::collections::BTreeSet<u64> = numbers(&webhook).into_iter().collect();
        assert!((1..=kept).all(|number| delivered.contains(&number)), "the state ran ahead of what was delivered");
        done = usize::try_from(kept).unwrap();
    }
    assert_eq!(done, 200);
}

#[tokio::test]
async fn invalid_input_is_rejected() {
    let webhook = Webhook::start().await.unwrap();
    let destination = Destination::new(&webhook);
    for (input, expected) in [
        (record("sessions", 1), "config_error: received a record of the stream `sessions`"),
        (state("sessions", 1, 0), "config_error: received a state of the stream `sessions`"),
        (
            "{\"type\":\"RECORD\",\"record\":{\"stre\n".to_owned(),
            "system_error: line 1 of the input is neither a message",
        ),
        (
            "{\"type\": \"RECORD\", \"record\": {\"stream\": \"events\", \"data\": {\"n\": NaN}, \"emitted_at\": 1}}\n"
                .to_owned(),
            "system_error: line 1 of the input is neither a message",
        ),
    ] {
        let outcomes = destination.write(&input).await;
        assert_eq!(outcomes.code, Some(1));
        assert!(outcomes.error().starts_with(expected), "{}", outcomes.error());
    }
    let noise =
        "plain text\n\n{\"type\":\"LOG\",\"log\":{}}\n{\"type\":\"NEW\",\"x\":1}\n[1]\n".to_owned() + &input(2, 2);
    assert_eq!(destination.delivered(&noise).await.cursors(), [2]);
    assert_eq!(webhook.received().len(), 1);

    let mut overwrite = catalog(&["events"], "full_refresh");
    overwrite["streams"][0]["destination_sync_mode"] = json!("overwrite");
    let command = destination.write_command();
    std::fs::write(destination.path("catalog.json"), overwrite.to_string()).unwrap();
    let outcomes = run(command, "").await;
    assert!(outcomes.error().contains("set it to `append`"), "{}", outcomes.error());
}

#[tokio::test]
async fn source_that_ends_within_a_stream_fails_the_run() {
    let webhook = Webhook::start().await.unwrap();
    let status = |stream: &str, status: &str| {
        let descriptor = json!({"name": stream});
        let status =
            json!({"type": "STREAM_STATUS", "stream_status": {"stream_descriptor": descriptor, "status": status}});
        json!({"type": "TRACE", "trace": status}).to_string() + "\n"
    };
    let begun = status("events", "STARTED") + &status("events", "RUNNING") + &input(3, 3);
    let between = begun.clone() + &status("events", "COMPLETE");
    for (input, expected) in [(&begun, "in the middle of events"), (&between, "before persons")] {
        let outcomes = Destination::new(&webhook).write(input).await;
        assert_eq!((outcomes.code, outcomes.cursors()), (Some(1), vec![3]), "what came is delivered");
        assert!(outcomes.error().contains(&format!("the source stopped {expected}")), "{}", outcomes.error());
    }
    let complete = between + &status("persons", "STARTED") + &status("persons", "COMPLETE");
    assert_eq!(Destination::new(&webhook).delivered(&complete).await.cursors(), [3]);
}

#[tokio::test]
async fn source_that_never_began_fails_the_run() {
    let webhook = Webhook::start().await.unwrap();
    for (input, expected) in [
        ("", "the input contains no messages"),
        ("\n\nsh: source-posthog: not found\n", "the input contains no messages"),
        (
            "{\"type\":\"LOG\",\"log\":{\"level\":\"INFO\",\"message\":\"hello\"}}\n",
            "the source stopped before the first",
        ),
    ] {
        let outcomes = Destination::new(&webhook).write(input).await;
        assert_eq!(outcomes.code, Some(1), "{input}");
        assert!(outcomes.error().contains(expected), "{}", outcomes.error());
    }
}

#[tokio::test]
async fn no_state_is_acknowledged_that_covers_a_line_that_is_lost() {
    let webhook = Webhook::start().await.unwrap();
    let [first, second, end] = [record("events", 1), record("events", 2), state("events", 2, 2)];
    let pretty = serde_json::to_string_pretty(&serde_json::from_str::<Value>(&first).unwrap()).unwrap();
    for (input, expected) in [
        (format!("2026-11-26T18:00:00.1Z {first}2026-11-26T18:00:00.2Z {end}"), "line 1 of the input"),
        (format!("{first}\0\0{second}{end}"), "line 2 of the input"),
        (format!("{first}{}{second}{end}", first.split_at(30).0), "line 2 of the input"),
        (format!("{first}{}{end}", second.replace("\"type\"", "\"tyqe\"")), "line 2 of the input"),
        (format!("{first}{}{end}", second.split_at(40).1), "line 2 of the input"),
        (format!("{pretty}\n{end}"), "line 1 of the input"),
        (format!("[{}]\n", [&first, &second, &end].map(|line| line.trim_end()).join(",")), "jq -c"),
        (format!("{first}{end}"), "covers 2 records, but 1 were received"),
        (format!("{first}{second}{second}{end}"), "covers 2 records, but 3 were received"),
        (format!("{first}{}\n{end}", STANDARD.encode(&second)), "line 2 of the input"),
        (format!("{first}{}", end.replace("2.0", "\"2\"")), "covers 2 records, but 1 were received"),
        (
            format!("{first}{}", end.replace("sourceStats", "source_stats").replace("recordCount", "record_count")),
            "covers 2 records, but 1 were received",
        ),
        (format!("{first}{}", end.replace("2.0", "[2]")), "`sourceStats.recordCount` that is no number"),
        (
            format!("{first}{{\"type\":\"RECORD\",\"stream\":\"events\",\"record\":{{\"n\":2}}}}\n{end}"),
            "line 2 of the input is a RECORD that cannot be used: missing field `stream`",
        ),
        (
            format!("{first}{}", second.replace("\"events\"", "\"events\",\"namespace\":\"x\"")),
            "the stream `events` of the namespace `x`, which is not in the catalog",
        ),
    ] {
        let destination = Destination::new(&webhook);
        let outcomes = destination.write(&input).await;
        assert_eq!((outcomes.code, outcomes.cursors().len()), (Some(1), 0), "{input}");
        assert!(outcomes.error().contains(expected), "{}", outcomes.error());
        assert!(!destination.path("state.json").exists(), "{input}");
    }
    let before = webhook.records().len();
    let second = second.replace("\"events\"", "\"events\",\"namespace\":\"\"");
    let marked = format!("\u{feff}{first}\r\nsome program says hello\n\u{feff}{second}{end}");
    assert_eq!(Destination::new(&webhook).delivered(&marked).await.cursors(), [2]);
    assert_eq!(webhook.records().len() - before, 2);
}

#[tokio::test]
async fn state_file_is_read_in_every_shape_and_refused_before_anything_is_delivered() {
    let webhook = Webhook::start().await.unwrap();
    let old = json!({"streamDescriptor": {"name": "persons", "namespace": ""}, "streamState": {"cursor": 7}});
    for (text, kept) in [
        ("", 1),
        ("{}", 1),
        ("null", 1),
        (&*json!({"connectionState": {"stateType": "stream", "streamState": [old]}}).to_string(), 2),
        (&*json!({"persons": {"cursor": 7}}).to_string(), 2),
        (&*format!("\u{feff}{}{{\"type\":\"STA", state("persons", 7, 0)), 2),
        // What a machine leaves that loses power.
        (&*format!("{}\0\0\0", state("persons", 7, 0)), 2),
    ] {
        let destination = Destination::new(&webhook);
        std::fs::create_dir(destination.path("real")).unwrap();
        std::fs::write(destination.path("real/state.json"), text).unwrap();
        std::os::unix::fs::symlink("real/state.json", destination.path("state.json")).unwrap();
        destination.delivered(&input(1, 1)).await;
        assert!(destination.path("state.json").is_symlink());
        let states = destination.state_file();
        assert_eq!(states.as_array().unwrap().len(), kept, "{text}: {states}");
        assert_eq!(states[kept - 1]["stream"]["stream_state"]["cursor"], 1, "{states}");
    }
    let delivered = webhook.received().len();
    for text in ["{\"version\":2}", "5", "[{\"x\"", "key: value", "\0\0\0", "{\"api_key\":\"phx_s3cret\"}"] {
        let destination = Destination::new(&webhook);
        std::fs::write(destination.path("state.json"), text).unwrap();
        let outcomes = destination.write(&input(1, 1)).await;
        assert!(outcomes.error().contains("this is not a state"), "{}", outcomes.error());
        assert!(!outcomes.error().contains("s3cret"), "{}", outcomes.error());
        assert_eq!(std::fs::read_to_string(destination.path("state.json")).unwrap(), text);
    }
    let destination = Destination::new(&webhook);
    std::fs::create_dir(destination.path("state.json")).unwrap();
    let outcomes = destination.write(&input(1, 1)).await;
    assert!(outcomes.error().contains("`--state-file state.json` cannot be used"), "{}", outcomes.error());
    assert_eq!(webhook.received().len(), delivered, "nothing is delivered that could not be remembered");
}

#[tokio::test]
async fn webhook_that_accepts_nothing_ends_the_run_despite_a_dead_letter_file() {
    for code in [400, 451] {
        let always = Some(Outcome::status(code));
        let webhook = Webhook::start_with(Behaviour { always, ..Behaviour::default() }).await.unwrap();
        let destination = Destination::new(&webhook).with("dead_letter_file", json!("refused.jsonl"));
        let outcomes = destination.write(&input(200, 200)).await;
        assert_eq!((outcomes.code, outcomes.cursors().len()), (Some(1), 0));
        assert!(outcomes.error().contains("has accepted no record in this run"), "{}", outcomes.error());
        assert_eq!(std::fs::read_to_string(destination.path("refused.jsonl")).unwrap(), "");
        assert!(webhook.received().len() < 100);
        // One record may well be refused for what it holds.
        let outcomes = destination.delivered(&input(1, 1)).await;
        assert_eq!(outcomes.states()[0]["destinationStats"]["rejectedRecordCount"], 1.0);
        // A few go to the dead-letter file, but the error says that nothing else came through.
        let outcomes = destination.write(&input(3, 3)).await;
        assert_eq!((outcomes.code, outcomes.cursors()), (Some(1), vec![3]));
        assert!(outcomes.error().contains("all 3 are in `dead_letter_file`"), "{}", outcomes.error());
    }
}

#[tokio::test]
async fn two_bad_records_at_the_beginning_do_not_stop_the_others() {
    let poison = Some(("\"bad\"".to_owned(), 422));
    let webhook = Webhook::start_with(Behaviour { poison, ..Behaviour::default() }).await.unwrap();
    let batch = json!({"max_records": 2});
    let bad = |number: usize| record("events", number).replace(&format!("\"e{}\"", number % 3), "\"bad\"");
    let input = |count: usize| (1..=count).map(bad).collect::<String>() + &record("events", 100);
    let destination =
        Destination::new(&webhook).with("batch", batch.clone()).with("dead_letter_file", json!("refused.jsonl"));
    destination.delivered(&input(2)).await;
    assert_eq!(numbers(&webhook), [100]);
    // More than `dead_letter_limit` end the run, and the message names the way on.
    let destination = destination.with("dead_letter_limit", json!(3));
    let before = std::fs::read_to_string(destination.path("refused.jsonl")).unwrap();
    let outcomes = destination.write(&input(4)).await;
    assert!(outcomes.error().contains("raise `dead_letter_limit`"), "{}", outcomes.error());
    let lines = |text: &str| text.lines().count();
    let after = std::fs::read_to_string(destination.path("refused.jsonl")).unwrap();
    assert_eq!((lines(&before), lines(&after)), (2, 4), "the batch that was too many is not among them");
    destination.with("dead_letter_limit", json!(4)).delivered(&input(4)).await;
}

#[tokio::test]
async fn a_success_whose_body_says_that_it_failed_is_not_acknowledged() {
    let outcomes = vec![(2, Outcome::Body(r#"{"ok":false,"error":"quota exceeded"}"#))];
    let webhook = Webhook::start_with(Behaviour { outcomes, ..Behaviour::default() }).await.unwrap();
    let destination = Destination::new(&webhook)
        .with("batch", json!({"max_records": 1}))
        .with("dead_letter_file", json!("refused.jsonl"));
    let outcomes = destination.write(&input(3, 1)).await;
    assert_eq!((outcomes.code, outcomes.cursors()), (Some(1), vec![1]));
    assert!(outcomes.error().contains("quota exceeded"), "{}", outcomes.error());
    let pages = "the webhook responds with a web page";
    for (body, warnings) in [(r#"{"ok":true,"errors":[]}"#, 0), ("\n<!DOCTYPE html><title>Log in</title>", 1)] {
        let always = Some(Outcome::Body(body));
        webhook.behave(Behaviour { always, ..Behaviour::default() });
        let outcomes = destination.delivered(&input(3, 1)).await;
        assert_eq!(outcomes.text.matches(pages).count(), warnings, "{body}");
    }
}

#[tokio::test]
async fn a_dead_letter_file_is_shared_and_check_leaves_it_alone() {
    let poison = Some(("\"u-7\"".to_owned(), 422));
    let webhook = Webhook::start_with(Behaviour { poison, ..Behaviour::default() }).await.unwrap();
    let destination = Destination::new(&webhook).with("dead_letter_file", json!("refused.jsonl"));
    let path = destination.path("refused.jsonl");
    // Another run is just writing this line.
    let half = "{\"stream\":\"events\",\"at\":";
    std::fs::write(&path, half).unwrap();
    let other = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    other.lock().unwrap();
    assert_eq!(destination.check(&[]).await.0, "SUCCEEDED");
    let mut run = destination.write_command().spawn();
    let mut stdin = run.stdin.take().unwrap();
    stdin.write_all(input(10, 10).as_bytes()).await.unwrap();
    drop(stdin);
    // The whole batch, then down to the one record.
    webhook.wait_for_requests(8).await;
    assert_eq!(std::fs::read_to_string(&path).unwrap(), half);
    std::io::Write::write_all(&mut &other, b"1}\n").unwrap();
    other.unlock().unwrap();
    assert!(run.wait().await.success());
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[0]["at"], &lines[1]["record"]["n"]), (2, &json!(1), &json!(7)), "{text}");
}

#[tokio::test]
async fn rejected_records_are_not_written_to_a_file_that_is_overwritten() {
    let webhook = Webhook::start().await.unwrap();
    for (file, expected) in
        [("state.json", "--state-file"), ("./state.json", "--state-file"), ("catalog.json", "--catalog")]
    {
        for text in [None, Some("")] {
            let destination = Destination::new(&webhook).with("dead_letter_file", json!(file));
            if let Some(text) = text {
                std::fs::write(destination.path("state.json"), text).unwrap();
            }
            let outcomes = destination.write(&input(1, 1)).await;
            assert_eq!(outcomes.code, Some(1));
            let message = format!("`dead_letter_file` is the file of `{expected}`");
            assert!(outcomes.error().contains(&message), "{}", outcomes.error());
        }
    }
    assert!(webhook.received().is_empty());
}

#[tokio::test]
async fn an_answer_that_says_what_is_wrong_ends_the_run_with_it() {
    for (code, header, expected) in [
        (304, ("x", "y"), "says nothing about the records"),
        (402, ("x", "y"), "asks for payment"),
        (207, ("x", "y"), "207"),
        (405, ("allow", "GET"), "does not accept POST requests, only GET"),
        (411, ("x", "y"), "Content-Length"),
        (415, ("x", "y"), "set `compression` to `none`"),
        (308, ("location", &*format!("/api/app/webhooks/{WEBHOOK}/")), "the same URL with a trailing slash"),
    ] {
        let headers = vec![(header.0.into(), header.1.into())];
        let always = Some(Outcome::Status { code, headers });
        let webhook = Webhook::start_with(Behaviour { always, ..Behaviour::default() }).await.unwrap();
        let destination = Destination::new(&webhook)
            .with("compression", json!("gzip"))
            .with("dead_letter_file", json!("refused.jsonl"));
        let outcomes = destination.write(&input(3, 3)).await;
        assert_eq!((outcomes.code, outcomes.cursors().len(), webhook.received().len()), (Some(1), 0, 1));
        assert!(outcomes.error().contains(expected), "{code}: {}", outcomes.error());
    }
}

#[tokio::test]
async fn a_value_that_comes_back_has_another_idempotency_key() {
    let webhook = Webhook::start().await.unwrap();
    let destination = Destination::new(&webhook).with("batch", json!({"max_records": 1}));
    let lines = |numbers: &[usize]| numbers.iter().map(|number| record("persons", *number)).collect::<String>();
    destination.delivered(&lines(&[1, 2, 1])).await;
    destination.delivered(&lines(&[1])).await;
    let requests = webhook.received();
    let keys: std::collections::BTreeSet<_> = requests.iter().map(|request| request.header("webhook-id")).collect();
    assert_eq!(keys.len(), 4);
}

#[tokio::test]
async fn events_that_come_again_after_an_interruption_have_the_same_idempotency_key() {
    let webhook = Webhook::start().await.unwrap();
    let destination = Destination::new(&webhook).with("batch", json!({"max_records": 2}));
    let keys = || -> Vec<String> {
        let requests = webhook.received();
        requests.iter().map(|request| request.header("idempotency-key").unwrap().to_owned()).collect()
    };
    // The source dies after three events that no state covers.
    let begun = input(4, 4) + &(5..=7).map(|number| record("events", number)).collect::<String>();
    let outcomes = destination.write(&(begun + "{\"type\":\"REC")).await;
    assert_eq!((outcomes.code, outcomes.cursors()), (Some(1), vec![4]));
    let rest = (5..=7).map(|number| record("events", number)).collect::<String>() + &state("events", 7, 3);
    destination.delivered(&rest).await;
    let [.., third, fourth, fifth, sixth] = &keys()[..] else { panic!("{:?}", keys()) };
    assert_eq!((third, fourth), (fifth, sixth), "they come again");
    // A, B, A, with a state that does not change.
    let first = keys().len();
    for number in [8, 9, 8] {
        destination.delivered(&(record("events", number) + &state("events", 7, 1))).await;
    }
    // Somebody wants everything again.
    std::fs::write(destination.path("state.json"), "").unwrap();
    destination.delivered(&(record("events", 8) + &state("events", 7, 1))).await;
    let later: std::collections::BTreeSet<String> = keys().split_off(first).into_iter().collect();
    assert_eq!(later.len(), 4);
}

#[tokio::test]
async fn half_a_dead_letter_is_cut_before_the_next_one() {
    let poison = Some(("\"u-7\"".to_owned(), 422));
    let webhook = Webhook::start_with(Behaviour { poison, ..Behaviour::default() }).await.unwrap();
    let destination = Destination::new(&webhook).with("dead_letter_file", json!("refused.jsonl"));
    std::fs::write(destination.path("refused.jsonl"), "{\"stream\":\"events\"}\n{\"stream\":\"ev").unwrap();
    destination.delivered(&input(10, 10)).await;
    let text = std::fs::read_to_string(destination.path("refused.jsonl")).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[1]["record"]["n"]), (2, &json!(7)), "{text}");
}

#[tokio::test]
async fn log_and_failure_of_the_source_are_passed_on() {
    let webhook = Webhook::start().await.unwrap();
    let said = r#"{"type":"LOG","log":{"level":"WARN","message":"look here"}}
{"type":"TRACE","trace":{"type":"ERROR","emitted_at":1,"error":{"message":"the key is wrong","failure_type":"config_error"}}}
"#;
    let outcomes = Destination::new(&webhook).write(&(input(5, 5) + said)).await;
    assert_eq!(outcomes.code, Some(1));
    assert_eq!(outcomes.cursors(), [5], "what came is delivered and acknowledged all the same");
    assert_eq!(outcomes.error(), "config_error: the source has failed: the key is wrong");
    assert!(outcomes.text.contains(r#""level":"WARN","message":"source: look here""#), "{}", outcomes.text);
    let torn = input(5, 5) + record("events", 6).trim_end().trim_end_matches('}');
    let outcomes = Destination::new(&webhook).write(&torn).await;
    assert_eq!((outcomes.code, outcomes.cursors()), (Some(1), vec![5]));
    assert!(outcomes.error().starts_with("system_error: the source was cut off"), "{}", outcomes.error());
}

#[tokio::test]
async fn input_without_records_sends_no_request() {
    let webhook = Webhook::start().await.unwrap();
    let outcomes = Destination::new(&webhook).delivered(&state("events", 5, 0)).await;
    assert_eq!(outcomes.cursors(), [5]);
    assert!(webhook.received().is_empty());
}

#[tokio::test]
async fn second_run_with_the_same_state_file_is_rejected() {
    let webhook = Webhook::start().await.unwrap();
    let destination = Destination::new(&webhook);
    let mut first = destination.write_command().spawn();
    let mut stdin = first.stdin.take().unwrap();
    stdin.write_all(input(1, 1).as_bytes()).await.unwrap();
    webhook.wait_for_requests(1).await;
    let second = destination.write(&input(1, 1)).await;
    assert!(second.error().contains("another run"), "{}", second.error());
    drop(stdin);
    assert!(first.wait().await.success());
}

#[tokio::test]
async fn check_contacts_the_webhook_without_sending_a_record() {
    let webhook = Webhook::start().await.unwrap();
    let destination = Destination::new(&webhook);
    let (status, message) = destination.check(&[]).await;
    assert_eq!(status, "SUCCEEDED", "{message}");
    assert!(webhook.records().is_empty() && webhook.received()[0].method == "HEAD");
    assert_eq!(destination.check(&["--send-test-record"]).await.0, "SUCCEEDED");
    assert_eq!(webhook.records().len(), 1);
    webhook.behave(Behaviour { bearer: Some("other".into()), ..Behaviour::default() });
    let (status, message) = destination.check(&[]).await;
    assert_eq!(status, "FAILED");
    assert!(message.contains("bearer_token"), "{message}");
    let nowhere = Destination::new(&webhook).with("webhook_url", json!(format!("http://127.0.0.1:9/{WEBHOOK}")));
    let (status, message) = nowhere.check(&[]).await;
    assert_eq!(status, "FAILED");
    assert!(message.contains("`webhook_url`"), "{message}");
}

#[tokio::test]
async fn closed_stdout_ends_the_run_without_a_panic() {
    let webhook = Webhook::start().await.unwrap();
    let destination = Destination::new(&webhook).with("batch", json!({"max_records": 1}));
    let mut child = destination.write_command().spawn();
    drop(child.stdout.take());
    let mut stdin = child.stdin.take().unwrap();
    drop(stdin.write_all(input(50, 1).as_bytes()).await);
    drop(stdin);
    let output = child.wait_with_output().await;
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.starts_with("error: stdout was closed") && stderr.lines().count() == 1, "{stderr}");
}
