//! File download exports of the PostHog stand-in, seen through its sockets.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::collections::HashSet;
use std::io::Read as _;
use std::time::Duration;

use chrono::{DateTime, Utc};
use flate2::read::GzDecoder;
use posthog_sandbox::posthog::{
    Action, Event, ExportOutcome, ExportServer, Exports, Fault, HangingRuns, Key, Limits, Person, Project, Sandbox,
    Server,
};
use serde_json::{Value, json};
use support::{KEY, PATH, download, fetch, get, post, send, start, status};
use uuid::Uuid;

const DAY: i64 = 86_400_000_000;

fn day(text: &str) -> i64 {
    let instant: DateTime<Utc> = format!("2026-03-{text}T00:00:00Z").parse().unwrap();
    instant.timestamp_micros()
}

async fn with(exports: Exports) -> Sandbox {
    Sandbox::builder().server(Server::forgiving()).exports(exports).start().await.unwrap()
}

/// A request for the events of the second of March.
fn request() -> Value {
    json!({
        "model": "events", "file": {"format": "JSONLines", "compression": "gzip"},
        "data_interval_start": "2026-03-02T00:00:00Z", "data_interval_end": "2026-03-03T00:00:00Z",
    })
}

fn requesting(more: &Value) -> Value {
    let mut body = request();
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// One event, taken in at `created_at`.
fn event(number: u128, created_at: i64) -> Event {
    Event {
        uuid: Uuid::from_u128(number),
        timestamp: created_at,
        created_at,
        properties: format!(r#"{{"number":{number}}}"#),
        ..Event::default()
    }
}

/// Where a file of a run is.
async fn link(posthog: &Sandbox, run: &str, file: &str) -> String {
    let reply = download(posthog, run, file).await;
    assert_eq!((reply.status, reply.header("cache-control")), (302, Some("no-store")));
    reply.header("location").unwrap().to_owned()
}

fn unpack(body: &[u8]) -> std::io::Result<String> {
    let mut text = String::new();
    GzDecoder::new(body).read_to_string(&mut text)?;
    Ok(text)
}

/// The lines of all files of a run that is done.
async fn lines(posthog: &Sandbox, body: &Value) -> Vec<String> {
    let run = start(posthog, body).await;
    let files = status(posthog, &run).await["files"].as_array().unwrap().clone();
    let mut lines = Vec::new();
    for file in files {
        let link = link(posthog, &run, file.as_str().unwrap()).await;
        let text = unpack(&fetch(&link, &[]).await.body).unwrap();
        lines.extend(text.lines().map(str::to_owned));
    }
    lines
}

async fn rows(posthog: &Sandbox, body: &Value) -> Vec<Value> {
    lines(posthog, body).await.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The `number` of each event.
async fn numbers(posthog: &Sandbox, body: &Value) -> Vec<u64> {
    rows(posthog, body).await.iter().map(|row| row["properties"]["number"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn by_default_there_are_no_exports() {
    let posthog = Sandbox::builder().server(Server::forgiving()).start().await.unwrap();
    let reply = post(&posthog, PATH, &request()).await;
    assert_eq!((reply.status, reply.json()["code"].clone()), (404, json!("not_found")));
    posthog.set_exports(Exports { enabled: false, missing_status: 403, ..Exports::default() });
    let reply = post(&posthog, PATH, &request()).await;
    assert_eq!((reply.status, reply.json()["code"].clone()), (403, json!("permission_denied")));
    assert!(!reply.text().contains("scope"));
    posthog.set_exports(Exports::default());
    start(&posthog, &request()).await;
}

#[tokio::test]
async fn a_run_goes_through_its_states() {
    let hour = Duration::from_hours(1);
    let posthog = with(Exports { starting: hour, ..Exports::default() }).await;
    let starting = start(&posthog, &request()).await;
    assert_eq!(status(&posthog, &starting).await, json!({"status": "Starting"}));
    posthog.set_exports(Exports { running: hour, ..Exports::default() });
    let running = start(&posthog, &request()).await;
    assert_eq!(status(&posthog, &running).await, json!({"status": "Running"}));
    posthog.insert(1001, vec![event(1, day("02"))]);
    posthog.set_exports(Exports { completed_lag: hour, ..Exports::default() });
    let lagging = start(&posthog, &request()).await;
    assert_eq!(status(&posthog, &lagging).await, json!({"status": "Running"}));
    assert_eq!(posthog.export_runs()[2].rows, 1, "done, and not shown as such");
    let reply = download(&posthog, &lagging, "0").await;
    assert_eq!((reply.status, reply.detail()), (400, "The export is not completed. Current status: Running".into()));

    let cancelled = post(&posthog, &format!("{PATH}{running}/cancel/"), &json!({})).await;
    assert_eq!((cancelled.status, cancelled.json()), (200, json!({"cancelled": true})));
    assert_eq!(status(&posthog, &running).await, json!({"status": "Cancelled"}));
    let refused = post(&posthog, &format!("{PATH}{lagging}/cancel/"), &json!({})).await;
    assert_eq!((refused.status, refused.detail()), (400, "Cannot cancel a run that is in 'Completed' status".into()));

    let page = get(&posthog, &format!("{PATH}?limit=2"), "phx_full").await.json();
    assert_eq!((page["count"].clone(), page["results"][0]["id"].clone()), (json!(3), json!(lagging)));
    assert_eq!(page["results"][1]["status"], "Cancelled");
    assert_eq!(page["results"][1]["data_interval_start"], "2026-03-02T00:00:00Z");
    let next = page["next"].as_str().unwrap().strip_prefix(&posthog.url()).unwrap().to_owned();
    assert_eq!(get(&posthog, &next, "phx_full").await.json()["results"][0]["id"], json!(starting));
    assert_eq!(get(&posthog, &format!("{PATH}{}/", Uuid::nil()), "phx_full").await.status, 404);
    assert_eq!(post(&posthog, &format!("{PATH}{running}/"), &json!({})).await.status, 405);
}

#[tokio::test]
async fn rows_that_come_while_a_run_works_are_in_its_files() {
    let wait = Duration::from_millis(250);
    let posthog = with(Exports { starting: wait, running: wait, completed_lag: wait, ..Exports::default() }).await;
    let run = start(&posthog, &request()).await;
    posthog.insert(1001, vec![event(1, day("02"))]);
    let mut seen = Vec::new();
    loop {
        let answer = status(&posthog, &run).await;
        seen.push(answer["status"].as_str().unwrap().to_owned());
        if answer["status"] == "Completed" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    seen.dedup();
    let order = |status: &String| ["Starting", "Running", "Completed"].iter().position(|known| known == status);
    assert!(seen.iter().all(|status| order(status).is_some()) && seen.is_sorted_by_key(order), "{seen:?}");
    let runs = posthog.export_runs();
    assert_eq!((runs[0].id.to_string(), runs[0].status.as_str()), (run, "Completed"));
    assert_eq!((runs[0].files, runs[0].rows, runs[0].start, runs[0].end), (1, 1, day("02"), day("03")));
}

#[tokio::test]
async fn some_runs_fail() {
    let outcome = |nth: u64, status: &str| ExportOutcome {
        nth: vec![nth],
        status: status.to_owned(),
        error: "out of disk".to_owned(),
    };
    let (outcomes, hanging) =
        (vec![outcome(2, "FailedRetryable")], vec![HangingRuns { nth: vec![3], ..HangingRuns::default() }]);
    let posthog = with(Exports { outcomes, hanging, start_errors: vec![1], ..Exports::default() }).await;
    let reply = post(&posthog, PATH, &request()).await;
    let detail = "The batch export failed to start. Please try again later.";
    assert_eq!((reply.status, reply.json()), (500, json!({"detail": detail})));
    let failed = start(&posthog, &request()).await;
    assert_eq!(status(&posthog, &failed).await, json!({"status": "FailedRetryable", "error": "out of disk"}));
    let endless = start(&posthog, &request()).await;
    assert_eq!(status(&posthog, &endless).await, json!({"status": "Running"}));
    assert_eq!(post(&posthog, &format!("{PATH}{endless}/cancel/"), &json!({})).await.status, 200);
    let good = start(&posthog, &request()).await;
    assert_eq!(status(&posthog, &good).await, json!({"status": "Completed", "files": []}), "no rows, no files");
    assert_eq!(posthog.export_runs().len(), 3);
}

#[tokio::test]
async fn requests_are_validated() {
    let posthog = with(Exports::default()).await;
    let file = |more: Value| json!({"file": more});
    for (more, code, attr, detail) in [
        (json!({"model": "groups"}), "invalid_choice", "model", "\"groups\" is not a valid choice."),
        (json!({"file": null}), "required", "file", "This field is required."),
        (file(json!({})), "required", "file__format", "This field is required."),
        (file(json!({"format": "CSV"})), "invalid_choice", "file__format", "\"CSV\" is not a valid choice."),
        (file(json!({"format": "Parquet"})), "invalid_input", "file__format", "does not support files in the format"),
        (
            file(json!({"format": "JSONLines", "compression": "rar"})),
            "invalid_choice",
            "file__compression",
            "\"rar\" is not a valid choice.",
        ),
        (
            file(json!({"format": "JSONLines", "compression": "zstd"})),
            "invalid_input",
            "file",
            "Compression 'zstd' is not supported for JSONLines file format",
        ),
        (
            file(json!({"format": "JSONLines", "compression": "brotli"})),
            "invalid_input",
            "file__compression",
            "does not support brotli",
        ),
        (
            file(json!({"format": "JSONLines", "max_size_mb": 0})),
            "min_value",
            "file__max_size_mb",
            "Ensure this value is greater than or equal to 1.",
        ),
        (
            json!({"model": "persons", "include": ["a"]}),
            "invalid_input",
            "include",
            "'include' is only supported for events",
        ),
        (json!({"exclude": "a"}), "not_a_list", "exclude", "Expected a list of items."),
        (json!({"data_interval_end": null}), "required", "data_interval_end", "This field is required."),
        (json!({"data_interval_start": "soon"}), "invalid", "data_interval_start", "Datetime has wrong format."),
        (
            json!({"data_interval_start": "2026-03-03T01:00:00+01:00"}),
            "invalid_input",
            "",
            "data interval start must be before data interval end",
        ),
        (
            json!({"data_interval_end": "2026-03-09T00:00:00.000001Z"}),
            "invalid_input",
            "",
            "data interval range too big",
        ),
    ] {
        let reply = post(&posthog, PATH, &requesting(&more)).await;
        let answer = reply.json();
        assert_eq!((reply.status, &answer["type"]), (400, &json!("validation_error")), "{more}");
        assert_eq!((&answer["code"], answer["attr"].as_str().unwrap_or_default()), (&json!(code), attr));
        assert!(reply.detail().contains(detail), "{answer}");
    }
    assert!(posthog.export_runs().is_empty());
    let week = json!({"data_interval_end": "2026-03-09T00:00:00", "model": "sessions", "include": []});
    start(&posthog, &requesting(&week)).await;
}

#[tokio::test]
async fn keys_need_the_scope() {
    let key = |value: &str, scopes: &[&str]| Key {
        value: value.to_owned(),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        projects: None,
    };
    let posthog = Sandbox::builder()
        .server(Server::forgiving())
        .project(Project::default())
        .project(Project { id: 2002, ..Project::default() })
        .key(key("phx_full", &["batch_export:write"]))
        .key(key("phx_read", &["batch_export:read"]))
        .key(key("phx_query", &["query:read"]))
        .exports(Exports::default())
        .start()
        .await
        .unwrap();
    let run = start(&posthog, &request()).await;
    let body = request().to_string();
    let refused = send(&posthog, "POST", PATH, &[("authorization", "Bearer phx_read")], body.as_bytes()).await;
    assert_eq!((refused.status, refused.detail()), (403, "API key missing required scope 'batch_export:write'".into()));
    let environments = PATH.replace("projects", "environments");
    assert_eq!(get(&posthog, &format!("{environments}{run}/"), "phx_read").await.status, 200);
    let refused = get(&posthog, PATH, "phx_query").await;
    assert_eq!((refused.status, refused.detail()), (403, "API key missing required scope 'batch_export:read'".into()));
    let elsewhere = PATH.replace("1001", "2002");
    assert_eq!(get(&posthog, &format!("{elsewhere}{run}/"), "phx_full").await.status, 404, "another project's run");

    posthog.set_limits(Limits { other: vec![(1, Duration::from_mins(1))], ..Limits::default() });
    assert_eq!(get(&posthog, PATH, "phx_full").await.status, 200);
    assert_eq!(get(&posthog, PATH, "phx_full").await.status, 429);
}

#[tokio::test]
async fn events_are_chosen_by_when_they_came() {
    let posthog = with(Exports::default()).await;
    let (from, to) = (day("02"), day("03"));
    let soon = Utc::now().timestamp_micros() + 3600 * 1_000_000;
    let named = |number, name: &str| Event { event: name.to_owned(), ..event(number, from + 1) };
    posthog.insert(
        1001,
        vec![
            event(1, from - 1),
            event(2, from),
            event(3, to - 1),
            event(4, to),
            Event { timestamp: from - 10 * DAY, ..event(5, from) },
            Event { visible_at: Some(to), ..event(6, from) },
            Event { visible_at: Some(from), ..event(7, from - DAY) },
            Event { visible_at: Some(soon), ..event(8, from) },
            named(9, "order"),
            named(10, "click"),
            Event { timestamp: to + DAY, ..event(11, from) },
            Event { created_at: from + 5, ..event(2, from) },
        ],
    );
    let sorted = |mut numbers: Vec<u64>| {
        numbers.sort_unstable();
        numbers
    };
    let all = numbers(&posthog, &request()).await;
    assert!(!all.is_sorted(), "{all:?}");
    assert_eq!(sorted(all), [2, 3, 5, 7, 9, 10, 11]);
    let some = requesting(&json!({"include": ["order", "click"], "exclude": ["click"]}));
    assert_eq!(numbers(&posthog, &some).await, [9]);
    let rest = requesting(&json!({"exclude": ["$pageview"]}));
    assert_eq!(sorted(numbers(&posthog, &rest).await), [9, 10]);
    let server = Server::forgiving();
    posthog.set_server(Server { exports: ExportServer { lookback_days: Some(2), ..server.exports }, ..server });
    assert_eq!(sorted(numbers(&posthog, &request()).await), [2, 3, 7, 9, 10]);
    let run = posthog.export_runs().remove(1);
    assert_eq!((run.project, run.model.as_str(), run.rows), (1001, "events", 1));
    assert_eq!((run.include, run.exclude), (vec!["order".to_owned(), "click".to_owned()], vec!["click".to_owned()]));
}

#[tokio::test]
async fn neighbouring_intervals_hold_every_event_once() {
    let posthog = with(Exports { rows_per_file: Some(300), ..Exports::default() }).await;
    posthog.generate(1001, 2000, 1, "2026-03-01T12:00:00Z".parse().unwrap());
    let key = |uuid: String, event: &str, distinct_id: &str| (uuid, event.to_owned(), distinct_id.to_owned());
    let truth = posthog.events(1001);
    let truth: HashSet<_> =
        truth.iter().map(|event| key(event.uuid.to_string(), &event.event, &event.distinct_id)).collect();
    let mut found = Vec::new();
    let first: DateTime<Utc> = "2026-01-25T00:00:00Z".parse().unwrap();
    for week in 0..6 {
        let start = first + Duration::from_hours(week * 7 * 24);
        let end = start + Duration::from_hours(7 * 24);
        let interval = json!({"data_interval_start": start.to_rfc3339(), "data_interval_end": end.to_rfc3339()});
        for row in rows(&posthog, &requesting(&interval)).await {
            assert!(row["properties"].is_object());
            let text = |name: &str| row[name].as_str().unwrap();
            found.push(key(text("uuid").to_owned(), text("event"), text("distinct_id")));
        }
    }
    assert_eq!((found.len(), found.into_iter().collect::<HashSet<_>>()), (truth.len(), truth));
}

#[tokio::test]
async fn an_event_looks_as_it_is_stored() {
    let posthog = with(Exports::default()).await;
    let person = Uuid::from_u128(7);
    let plain = r#"{"z":1.50,"a":123456789012345678901234567890,"b":[-0.0,1e21],"z":{"é":"\u00e9"}}"#;
    posthog.insert(
        1001,
        vec![
            Event {
                properties: plain.to_owned(),
                person_id: person,
                elements_chain: "a:text=\"x\"".to_owned(),
                created_at: day("02") + 1_500_000,
                ..event(1, day("02"))
            },
            Event { properties: "{\"nan\":NaN,\n\"list\":[-Infinity]}".to_owned(), ..event(2, day("02")) },
            Event { properties: "no JSON".to_owned(), ..event(3, day("02")) },
        ],
    );
    let row = Person {
        id: person,
        created_at: 0,
        properties: r#"{"plan":"pro"}"#.to_owned(),
        is_identified: true,
        last_seen_at: None,
        distinct_ids: vec!["user".to_owned()],
    };
    posthog.insert_person(1001, row);
    let mut lines = lines(&posthog, &request()).await;
    lines.sort_unstable();
    assert_eq!(
        lines[0],
        format!(
            "{{\"uuid\":\"00000000-0000-0000-0000-000000000001\",\"event\":\"$pageview\",\"distinct_id\":\"user\",\
             \"person_id\":\"{person}\",\"properties\":{plain},\"person_properties\":{{\"plan\":\"pro\"}},\
             \"elements_chain\":\"a:text=\\\"x\\\"\",\"timestamp\":\"2026-03-02T00:00:00+00:00\",\
             \"created_at\":\"2026-03-02T00:00:01.500000+00:00\",\"_inserted_at\":\"2026-03-02T00:00:01.500000+00:00\"}}"
        )
    );
    let second: Value = serde_json::from_str(&lines[1]).unwrap();
    assert_eq!(second["properties"], json!({"nan": null, "list": [null]}));
    assert_eq!(second["person_properties"], json!({}));
    let third: Value = serde_json::from_str(&lines[2]).unwrap();
    assert_eq!(third["properties"], Value::Null);
}

#[tokio::test]
async fn persons_and_sessions_can_be_exported() {
    let posthog = with(Exports::default()).await;
    let person = |number: u128, last_seen_at| Person {
        id: Uuid::from_u128(number),
        created_at: day("01"),
        properties: r#"{"plan":"pro"}"#.to_owned(),
        is_identified: true,
        last_seen_at,
        distinct_ids: vec![format!("a{number}"), format!("b{number}")],
    };
    posthog.insert_person(1001, person(1, Some(day("02"))));
    posthog.insert_person(1001, person(2, None));
    let mut persons = rows(&posthog, &requesting(&json!({"model": "persons"}))).await;
    // The lines of a person are in no order.
    persons.sort_by_key(|row| row["distinct_id"].to_string());
    let row = |distinct_id: &str| {
        json!({
            "team_id": 1001, "distinct_id": distinct_id, "person_id": Uuid::from_u128(1).to_string(),
            "properties": {"plan": "pro"}, "person_distinct_id_version": 0, "person_version": DAY,
            "created_at": "2026-03-01T00:00:00+00:00", "_inserted_at": "2026-03-02T00:00:00+00:00",
            "is_deleted": false,
        })
    };
    assert_eq!(persons, [row("a1"), row("b1")]);

    let view = |number, name: &str, at, url: &str| Event {
        session_id: "s1".to_owned(),
        event: name.to_owned(),
        timestamp: at,
        properties: format!(r#"{{"$current_url":{url}}}"#),
        ..event(number, at + 1_000_000)
    };
    let noon = day("02") + DAY / 2;
    let second = view(2, "$autocapture", noon + 90_500_000, "null");
    let copy = Event { created_at: noon + 99_000_000, ..second.clone() };
    let other = Event { session_id: "s2".to_owned(), ..event(3, day("03")) };
    posthog.insert(1001, vec![view(1, "$pageview", noon, "\"https://shop.example.com/\""), second, copy, other]);
    let sessions = rows(&posthog, &requesting(&json!({"model": "sessions"}))).await;
    let wanted = json!({
        "team_id": 1001, "session_id": "s1", "distinct_id": "user", "person_id": Uuid::nil().to_string(),
        "start_timestamp": "2026-03-02T12:00:00+00:00", "end_timestamp": "2026-03-02T12:01:30.500000+00:00",
        "pageview_count": 1, "autocapture_count": 1, "screen_count": 0, "session_duration": 90,
        "entry_current_url": "https://shop.example.com/", "end_current_url": null,
        "_inserted_at": "2026-03-02T12:01:39+00:00",
    });
    assert_eq!(sessions, [wanted]);
}

/// A sandbox with ten events in files of four, and a run over them.
async fn three_files() -> (Sandbox, String) {
    let posthog = with(Exports { rows_per_file: Some(4), ..Exports::default() }).await;
    posthog.insert(1001, (0..10).map(|number| event(number, day("02"))).collect());
    let run = start(&posthog, &request()).await;
    (posthog, run)
}

#[tokio::test]
async fn large_results_come_in_several_files() {
    let (posthog, run) = three_files().await;
    let files = status(&posthog, &run).await["files"].as_array().unwrap().clone();
    assert_eq!((files.len(), posthog.export_runs()[0].files), (3, 3));
    let mut uuids = HashSet::new();
    for (index, wanted) in [4, 4, 2].into_iter().enumerate() {
        let named = link(&posthog, &run, files[index].as_str().unwrap()).await;
        assert!(named.starts_with(&posthog.files_url()) && named.contains("X-Amz-Signature="));
        let by_index = link(&posthog, &run, &index.to_string()).await;
        assert_ne!(named, by_index, "each link has its own signature");
        let reply = fetch(&named, &[("accept-encoding", "gzip")]).await;
        assert_eq!((reply.status, reply.header("content-encoding")), (200, None));
        assert_eq!(reply.header("accept-ranges"), Some("bytes"));
        let again = fetch(&by_index, &[]).await;
        assert_eq!((&again.body, again.header("etag")), (&reply.body, reply.header("etag")));
        let text = unpack(&reply.body).unwrap();
        assert_eq!(text.lines().count(), wanted);
        uuids.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["uuid"].to_string()));
    }
    assert_eq!(uuids.len(), 10);
    for unknown in ["3", "00000000-0000-0000-0000-000000000000", "99999999999999999999"] {
        assert_eq!(download(&posthog, &run, unknown).await.status, 404);
    }
    let unnamed = get(&posthog, &format!("{PATH}{run}/download/"), "phx_full").await;
    assert_eq!(unnamed.status, 400);

    let large = (0..3).map(|number| Event {
        properties: format!("{{\"text\":\"{}\"}}", "x".repeat(400_000)),
        ..event(100 + number, day("05"))
    });
    posthog.set_exports(Exports::default());
    posthog.insert(1001, large.collect());
    let body = requesting(&json!({
        "file": {"format": "JSONLines", "compression": null, "max_size_mb": 1},
        "data_interval_start": "2026-03-05T00:00:00Z", "data_interval_end": "2026-03-06T00:00:00Z",
    }));
    let run = start(&posthog, &body).await;
    assert_eq!(posthog.export_runs()[1].files, 2);
    let reply = fetch(&link(&posthog, &run, "0").await, &[]).await;
    assert_eq!(String::from_utf8(reply.body).unwrap().lines().count(), 2);
}

#[tokio::test]
async fn parts_of_a_file_can_be_fetched() {
    let (posthog, run) = three_files().await;
    let link = link(&posthog, &run, "0").await;
    let whole = fetch(&link, &[]).await;
    let length = whole.body.len();
    let tag = whole.header("etag").unwrap();
    let rest = fetch(&link, &[("range", "bytes=20-"), ("if-range", tag)]).await;
    assert_eq!((rest.status, rest.body.as_slice()), (206, &whole.body[20..]));
    assert_eq!(rest.header("content-range"), Some(format!("bytes 20-{}/{length}", length - 1).as_str()));
    assert_eq!(rest.header("etag"), Some(tag));
    let some = fetch(&link, &[("range", "bytes=10-19")]).await;
    assert_eq!((some.status, some.body.as_slice(), some.promised()), (206, &whole.body[10..20], 10));
    assert_eq!(fetch(&link, &[("range", "bytes=20-"), ("if-range", "\"old\"")]).await.status, 200);
    assert_eq!(fetch(&link, &[("if-match", "\"old\"")]).await.status, 412);
    let beyond = fetch(&link, &[("range", &format!("bytes={length}-"))]).await;
    assert_eq!((beyond.status, beyond.header("content-range")), (416, Some(format!("bytes */{length}").as_str())));
    let log = posthog.file_requests();
    assert_eq!((log[2].range.as_deref(), log[2].status, log[2].authorized), (Some("bytes=10-19"), Some(206), false));
    assert!(link.ends_with(&log[2].path));

    posthog.set_exports(Exports { ranges: false, ..Exports::default() });
    let reply = fetch(&link, &[("range", "bytes=10-19")]).await;
    assert_eq!((reply.status, reply.body.len(), reply.header("accept-ranges")), (200, length, None));
    posthog.clear_requests();
    assert!(posthog.file_requests().is_empty());
}

#[tokio::test]
async fn the_key_stays_with_the_api() {
    let (posthog, run) = three_files().await;
    let good = link(&posthog, &run, "0").await;
    let leaked = fetch(&good, &[KEY]).await;
    assert_eq!((leaked.status, leaked.header("content-type")), (400, Some("application/xml")));
    assert!(leaked.text().contains("<Code>InvalidArgument</Code>"));
    assert_eq!((posthog.authorization_leaks(), posthog.file_requests()[0].authorized), (1, true));
    let api = posthog.requests();
    assert!(api.iter().all(|request| request.authorized && !request.path.contains("X-Amz")));
    assert!(fetch(good.split('?').next().unwrap(), &[]).await.text().contains("<Code>AccessDenied</Code>"));
    let other = good.replace("events-00000", "events-00001");
    assert!(fetch(&other, &[]).await.text().contains("<Code>SignatureDoesNotMatch</Code>"));
    assert_eq!(posthog.authorization_leaks(), 1);
}

#[tokio::test]
async fn the_file_host_may_redirect_on() {
    let posthog = with(Exports { redirects: 2, redirect_back: true, ..Exports::default() }).await;
    posthog.insert(1001, vec![event(1, day("02"))]);
    let run = start(&posthog, &request()).await;
    let mut place = link(&posthog, &run, "0").await;
    let mut places = Vec::new();
    let reply = loop {
        let reply = fetch(&place, &[]).await;
        let Some(next) = reply.header("location").map(str::to_owned) else { break reply };
        assert_eq!(reply.status, 307);
        let (host, _) = place.strip_prefix("http://").unwrap().split_once('/').unwrap();
        places.push(format!("http://{host}"));
        place = if next.starts_with('/') { format!("http://{host}{next}") } else { next };
    };
    let (api, files) = (posthog.url(), posthog.files_url());
    assert_eq!(places.iter().collect::<Vec<_>>(), [&files, &api, &files, &files]);
    assert_eq!((reply.status, unpack(&reply.body).unwrap().lines().count()), (200, 1));
    let detour = posthog.requests().pop().unwrap();
    assert!(!detour.authorized && detour.status == Some(307));
    let again = link(&posthog, &run, "0").await.replace(&files, &api);
    assert_eq!(fetch(&again, &[KEY]).await.status, 307);
    assert_eq!(posthog.authorization_leaks(), 1);
}

#[tokio::test]
async fn files_and_links_expire() {
    let (posthog, run) = three_files().await;
    let old = link(&posthog, &run, "0").await;
    posthog.set_exports(Exports { url_lifetime: Some(Duration::ZERO), ..Exports::default() });
    let short = fetch(&link(&posthog, &run, "0").await, &[]).await;
    assert_eq!(short.status, 403);
    assert!(short.text().contains("<Code>AccessDenied</Code><Message>Request has expired</Message>"));
    assert_eq!(fetch(&old, &[]).await.status, 200);
    posthog.expire_export_files();
    let gone = download(&posthog, &run, "0").await;
    assert_eq!((gone.status, gone.detail()), (400, "This file download has expired".to_owned()));
    assert_eq!(fetch(&old, &[]).await.status, 403);

    posthog.set_exports(Exports { file_lifetime: Some(Duration::ZERO), ..Exports::default() });
    let run = start(&posthog, &request()).await;
    assert_eq!(download(&posthog, &run, "0").await.status, 400);
    posthog.set_exports(Exports::default());
    let run = start(&posthog, &request()).await;
    assert_eq!(fetch(&link(&posthog, &run, "0").await, &[]).await.status, 200);
}

#[tokio::test]
async fn files_break_as_told() {
    let (posthog, run) = three_files().await;
    let link = link(&posthog, &run, "0").await;
    let whole = fetch(&link, &[]).await;
    let length = whole.body.len();
    let broken = |action: Action, range: &'static str| {
        posthog.set_faults(vec![Fault::new(Action::Reset), Fault::files(action).method("get").times(1)]).unwrap();
        let link = &link;
        async move { fetch(link, &[("range", range)]).await }
    };
    let reply = broken(Action::CorruptByte, "").await;
    assert_eq!((reply.status, reply.promised(), reply.body.len()), (200, length, length));
    assert!(unpack(&reply.body).is_err());
    let middle = broken(Action::CorruptByte, "bytes=20-").await;
    assert_eq!((middle.status, middle.body.as_slice()), (206, &reply.body[20..]));
    let reply = broken(Action::CutGzip, "").await;
    assert!(reply.clean && reply.promised() == length / 2 && reply.body.len() == length / 2);
    assert!(unpack(&reply.body).is_err());
    let reply = broken(Action::BrokenLine, "").await;
    let text = unpack(&reply.body).unwrap();
    let sound = text.lines().filter(|line| serde_json::from_str::<Value>(line).is_ok()).count();
    assert_eq!((reply.promised(), text.lines().count(), sound), (reply.body.len(), 4, 3));

    let reply = broken(Action::status(503), "").await;
    assert_eq!((reply.status, posthog.file_requests().last().unwrap().fault), (503, Some("status")));
    let reply = broken(Action::Truncate { fraction: 0.5 }, "").await;
    assert!(reply.clean && reply.promised() == length && reply.body.len() == length / 2);
    let reply = broken(Action::ResetMidBody { fraction: 0.5 }, "").await;
    assert!(!reply.clean && reply.promised() == length);
    let reply = broken(Action::Reset, "").await;
    assert!(reply.status == 0 && reply.body.is_empty());
    assert_eq!(posthog.file_requests().last().unwrap().status, None);
    let reply = broken(Action::Stall { wait: Duration::from_millis(10) }, "").await;
    assert!(reply.clean && reply.body.len() == length / 2);
    let reply = broken(Action::Drip { pieces: 5, over: Duration::from_millis(10) }, "bytes=5-").await;
    assert_eq!((reply.status, reply.body.len()), (206, length - 5));
    let reply = broken(Action::Delay { wait: Duration::from_millis(10) }, "").await;
    assert_eq!(reply.body, whole.body);

    posthog.set_faults(vec![Fault::new(Action::status(502)).path("/download/"), Fault::files(Action::Reset)]).unwrap();
    assert_eq!(status(&posthog, &run).await["status"], "Completed", "faults of files are for files only");
    assert_eq!(download(&posthog, &run, "0").await.status, 502);
}
