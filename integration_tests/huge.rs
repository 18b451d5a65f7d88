//! Events of any size and depth, and input without an end or with next to nothing in it: all of the former,
//! none of the latter, and never more memory than the documents promise.

use std::io::Write as _;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use posthog_sandbox::posthog::{Action, Builder, Event, Exports, Fault, Project, Sandbox};
use serde_json::{Value, json};
use source_posthog::posthog::row_reader::LONGEST;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::support::program::{Source, catalog};
use crate::support::world::{PROJECT, event, minutes_ago, sandbox, sandbox_with_exports, two_hours_ago};

/// What the documents promise.
const MOST_MEMORY: u64 = 64 * 1024 * 1024;

/// An event with these properties, as text.
fn with_properties(number: u128, properties: String) -> Event {
    Event { properties, ..event(number, minutes_ago(90)) }
}

/// Properties of about this size: many keys, long texts, every kind of escape.
fn large(bytes: usize) -> String {
    let texts: Vec<Value> = (0..=bytes / 1_000)
        .map(|number| json!({"number": number, "text": "é\"\\\n🦔/".repeat(10), "filler": "x".repeat(800)}))
        .collect();
    json!({"texts": texts}).to_string()
}

fn deep(levels: usize) -> String {
    format!("{{\"deep\":{}1{}}}", "[{\"a\":".repeat(levels / 2), "}]".repeat(levels / 2))
}

fn many_keys(count: usize) -> String {
    let keys: Vec<String> = (0..count).map(|number| format!("\"key {number}\":{number}")).collect();
    format!("{{{}}}", keys.join(","))
}

fn huge_events() -> Vec<Event> {
    vec![
        with_properties(1, large(200 * 1024)),
        with_properties(2, large(2 * 1024 * 1024)),
        with_properties(3, deep(10_000)),
        with_properties(4, "{}".to_owned()),
        with_properties(5, many_keys(20_000)),
    ]
}

/// What a read has printed.
struct Outcome {
    lines: Vec<String>,
    is_success: bool,
    /// The most memory that the process has had in use, in bytes.
    memory: u64,
}

impl Outcome {
    fn error(&self) -> &str {
        assert!(!self.is_success);
        self.lines.iter().find(|line| line.contains("\"type\":\"ERROR\"")).expect("an error")
    }
}

/// Reads events to the end.
async fn read(source: &Source) -> Outcome {
    read_stream(source, "events").await
}

/// Reads a stream to the end, and looks at the process all the time. The mark that is looked at never falls,
/// so one look after the worst is enough.
async fn read_stream(source: &Source, stream: &str) -> Outcome {
    read_streams(source, &[stream]).await
}

async fn read_streams(source: &Source, streams: &[&str]) -> Outcome {
    let mut command = source.read_command(&catalog(streams, "incremental"), None);
    let mut child = command.env("LOG_LEVEL", "info").spawn();
    let status = format!("/proc/{}/status", child.id());
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    let (mut lines, mut memory) = (Vec::new(), 0);
    let mut look = tokio::time::interval(Duration::from_millis(1));
    loop {
        tokio::select! {
            line = output.next_line() => match line.unwrap() {
                Some(line) => lines.push(line),
                None => break,
            },
            _ = look.tick() => {}
        }
        memory = memory.max(most_memory(&status).unwrap_or(0));
    }
    Outcome { lines, is_success: child.wait().await.success(), memory }
}

/// The high-water mark of a process's memory, in bytes; none when the process is no more.
fn most_memory(status: &str) -> Option<u64> {
    let text = std::fs::read_to_string(status).ok()?;
    let kilobytes = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix(" kB")?;
    Some(kilobytes.parse::<u64>().unwrap() * 1024)
}

/// Fails unless each event has been read once, with its properties to the letter.
fn assert_each_once(outcome: &Outcome, events: &[Event]) {
    assert!(outcome.is_success);
    let records: Vec<&String> = outcome.lines.iter().filter(|line| line.starts_with("{\"type\":\"RECORD\"")).collect();
    assert_eq!(records.len(), events.len());
    for event in events {
        let id = format!("\"id\":\"{}\"", event.uuid);
        let record = records.iter().find(|record| record.contains(&id)).unwrap();
        assert!(record.contains(&format!("\"properties\":{},", event.properties)), "{id} {}", record.len());
    }
    if cfg!(target_os = "linux") {
        assert!((1..MOST_MEMORY).contains(&outcome.memory), "{} bytes", outcome.memory);
    }
}

#[tokio::test]
async fn huge_and_deep_events_are_read_by_queries() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, huge_events());
    for page_size in [1, 1_000] {
        let source = Source::new(&posthog.url()).with_page_size(page_size);
        assert_each_once(&read(&source).await, &posthog.events(PROJECT));
    }
}

#[tokio::test]
async fn huge_and_deep_events_are_read_by_exports() {
    let posthog = sandbox_with_exports(Exports::default()).await;
    posthog.insert(PROJECT, huge_events());
    let outcome = read(&Source::new(&posthog.url()).with_exports()).await;
    assert!(posthog.file_requests().iter().any(|request| request.status == Some(200)));
    assert_each_once(&outcome, &posthog.events(PROJECT));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn standard_output_is_written_in_blocks_of_64_kib() {
    const WRITE: usize = 64 * 1024;
    let posthog = sandbox().await;
    posthog.insert(PROJECT, (0..1_000).map(|number| with_properties(number, large(2_000))).collect());
    let source = Source::new(&posthog.url());
    let writes = source.read_command(&catalog(&["events"], "incremental"), None).writes().await;
    let whole = writes.concat();
    assert!(whole.len() > 2 * 1024 * 1024, "{} bytes", whole.len());
    assert!(writes.iter().all(|write| write.len() <= WRITE));
    // What is left over when nothing waits is written at once, so that nobody has to wait for it.
    let rests = writes.iter().filter(|write| write.len() < WRITE);
    assert!(rests.map(Vec::len).sum::<usize>() < whole.len() / 10);
}

fn assert_rejected(outcome: &Outcome, reason: &str) {
    assert!(outcome.error().contains(reason), "{}", outcome.error());
    if cfg!(target_os = "linux") {
        // More than nothing: the failed attempts were looked at.
        assert!((LONGEST as u64..MOST_MEMORY).contains(&outcome.memory), "{} bytes", outcome.memory);
    }
}

#[tokio::test]
async fn gzip_bomb_does_not_exhaust_memory() {
    let posthog = sandbox_with_exports(Exports::default()).await;
    posthog.insert(PROJECT, vec![with_properties(1, "{}".to_owned())]);
    posthog.set_faults(vec![Fault::files(Action::Bomb { megabytes: 1_024 })]).unwrap();
    let outcome = read(&Source::new(&posthog.url()).with_exports().with("attempts", json!(2))).await;
    assert_rejected(&outcome, "a line is longer than 8 MiB");
}

#[tokio::test]
async fn endless_rows_do_not_exhaust_memory() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, vec![with_properties(1, "{}".to_owned())]);
    for begin in [r#"{"results":[["#, r#"{"results":[[""#, r#"{"columns":""#] {
        let endless = Action::Endless { begin: begin.to_owned() };
        posthog.set_faults(vec![Fault::query(endless).sql("SELECT uuid")]).unwrap();
        let outcome = read(&Source::new(&posthog.url()).with("attempts", json!(2)).with_page_size(1_000)).await;
        if begin.ends_with('[') {
            assert!(outcome.error().contains("not JSON"), "{}", outcome.error());
        } else {
            assert_rejected(&outcome, "a row, or a value beside the rows, is longer than 8 MiB");
        }
    }
}

#[tokio::test]
async fn endless_responses_do_not_exhaust_memory() {
    let posthog = sandbox().await;
    let endless = Action::Endless { begin: "{\"name\":\"".to_owned() };
    posthog.set_faults(vec![Fault::new(endless).path("/api/projects")]).unwrap();
    let outcome = read(&Source::new(&posthog.url()).with("attempts", json!(2))).await;
    assert!(outcome.error().contains("a response is larger than 8 MiB"), "{}", outcome.error());
    if cfg!(target_os = "linux") {
        assert!(outcome.memory < MOST_MEMORY, "{} bytes", outcome.memory);
    }
}

fn packed(parts: &[&[u8]]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    for part in parts {
        encoder.write_all(part).unwrap();
    }
    encoder.finish().unwrap()
}

fn gzip(parts: &[&[u8]]) -> Action {
    let headers = vec![("content-encoding".to_owned(), "gzip".to_owned())];
    Action::Raw { headers, body: packed(parts) }
}

/// 62 MiB of this between two others, in some kilobytes.
fn repeated(begin: &str, middle: &str, end: &str) -> Action {
    gzip(&[begin.as_bytes(), middle.repeat(62 * 1024 * 1024 / middle.len()).as_bytes(), end.as_bytes()])
}

/// A response in zstd that wants a window of 128 MiB.
fn wide_window() -> Action {
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.window_log(27).unwrap();
    for piece in [&br#"{"results":["#[..], &vec![b' '; 160 * 1024 * 1024], b"]}"] {
        encoder.write_all(piece).unwrap();
    }
    let headers = vec![("content-encoding".to_owned(), "zstd".to_owned())];
    Action::Raw { headers, body: encoder.finish().unwrap() }
}

/// A response in zstd that fills a window of this size, as a power of two, and leaves nothing to keep.
fn filled_window(size: u32, members: usize) -> Action {
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.window_log(size).unwrap();
    encoder.write_all(b"{").unwrap();
    for number in 0..members {
        // Not the same everywhere, or the window would not be needed.
        write!(encoder, "\"{}\":{number},", "x".repeat(200 + number % 800)).unwrap();
    }
    encoder.write_all(br#""results":[]}"#).unwrap();
    let headers = vec![("content-encoding".to_owned(), "zstd".to_owned())];
    Action::Raw { headers, body: encoder.finish().unwrap() }
}

#[tokio::test]
async fn what_cannot_be_unpacked_is_asked_for_in_gzip() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, huge_events());
    // All that a server may want of its clients, but more than this one has for each response.
    posthog.set_faults(vec![Fault::query(filled_window(23, 10_000)).nth(&[1])]).unwrap();
    let outcome = read(&Source::new(&posthog.url())).await;
    assert_each_once(&outcome, &posthog.events(PROJECT));
    let requests = posthog.requests();
    let refused = requests.iter().position(|request| request.fault.is_some()).unwrap();
    assert!(requests[..=refused].iter().all(|request| request.accepts_zstd));
    assert!(requests.len() > refused + 2 && requests[refused + 1..].iter().all(|request| !request.accepts_zstd));
}

/// Several projects.
fn three_projects() -> Builder {
    let project = |id: u64| Project {
        id,
        name: "One of many".to_owned(),
        timezone: "UTC".to_owned(),
        token: format!("phc_{id}"),
    };
    (PROJECT..1004).fold(Sandbox::builder(), |builder, id| builder.project(project(id)))
}

/// As many queries as may are under way, and with them as many lists.
#[tokio::test]
async fn attacks_on_queries_and_lists_all_at_once_do_not_exhaust_memory() {
    let posthog = three_projects().start().await.unwrap();
    for id in PROJECT..1004 {
        posthog.insert(id, vec![with_properties(u128::from(id), "{}".to_owned())]);
    }
    let of_tables = |action: Action| Fault::query(action).sql("FROM (raw_)?(persons|sessions|groups|person_)");
    // As long as they may be, and nothing wrong with them.
    let long = "x".repeat(7_500 * 1024);
    let object = gzip(&[format!(r#"{{"results":[{{"id":1,"name":"{long}"}}]}}"#).as_bytes()]);
    let row = gzip(&[format!(r#"{{"results":[["{long}"],["{long}"#).as_bytes()]);
    posthog
        .set_faults(vec![
            Fault::new(object).path("/(annotations|cohorts|insights|surveys)/").every(2).times(8),
            of_tables(row).every(8).times(3),
            Fault::new(repeated(r#"{"results":[0"#, ",0", "]}")).path("/(annotations|cohorts|actions)/").times(12),
            Fault::new(repeated(r#"{"results":["#, "[", "]}")).path("/(insights|surveys|dashboards)/").times(12),
            of_tables(repeated(r#"{"results":[[1]"#, ",[1]", "]}")).every(7).times(3),
            of_tables(repeated(r#"{"results":[[0"#, ",0", "]]}")).every(6).times(3),
            of_tables(wide_window()).every(5).times(3),
            of_tables(filled_window(23, 16_000)).times(30),
        ])
        .unwrap();
    let source = Source::new(&posthog.url()).with_page_size(1_000).with("attempts", json!(2));
    let streams = "events persons sessions groups annotations cohorts actions insights surveys dashboards";
    let outcome = read_streams(&source, &streams.split(' ').collect::<Vec<_>>()).await;
    let fired = posthog.requests().iter().filter(|request| request.fault.is_some()).count();
    assert!(!outcome.is_success && fired > 40, "{fired}");
    if cfg!(target_os = "linux") {
        assert!((1..MOST_MEMORY).contains(&outcome.memory), "{} bytes", outcome.memory);
    }
}

/// Lines of a file of any table: for each, what the others have is beside the point.
fn line(number: usize, properties: &str) -> String {
    let id = uuid::Uuid::from_u128(number as u128);
    let time = "2026-01-01T00:00:00.000000+00:00";
    format!(
        r#"{{"uuid":"{id}","session_id":"{id}","person_id":"{id}","distinct_id":"{id}","event":"e","properties":{properties},"timestamp":"{time}","created_at":"{time}","_inserted_at":"{time}","start_timestamp":"{time}","end_timestamp":"{time}","max_inserted_at":"{time}","person_version":{number},"person_distinct_id_version":{number},"is_deleted":false}}"#
    )
}

/// Files that a host sends in place of what has been exported, each within some kilobytes.
fn hostile_files() -> Vec<Action> {
    let file = |parts: &[&[u8]]| Action::Raw { headers: Vec::new(), body: packed(parts) };
    let text = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes));
    let long = |bytes: usize| format!("{}\n", line(1, &text(bytes)));
    vec![
        // Very many records.
        file(&[format!("{}\n", line(1, "{}")).repeat(8_000).as_bytes()]),
        // Long lines, in turns, and as long as they may be without waiting for one.
        file(&[long(7_500 * 1024).as_bytes(), long(1_000).as_bytes(), long(7_000 * 1024).as_bytes()]),
        file(&[long(500 * 1024).repeat(10).as_bytes()]),
        file(&[&vec![b'0'; 64 * 1024 * 1024]]),
        // A long line that never becomes complete.
        file(&[&long(1_000).into_bytes(), &vec![b' '; 7 * 1024 * 1024]]),
    ]
}

/// Exports of every table of every project, with as many files as there may be.
#[tokio::test]
async fn attacks_on_exports_of_all_tables_at_once_do_not_exhaust_memory() {
    let exports = Exports { rows_per_file: Some(1), ..Exports::default() };
    let posthog = three_projects().exports(exports).start().await.unwrap();
    for id in PROJECT..1004 {
        posthog.generate(id, 30, 12, two_hours_ago());
    }
    let hostile = hostile_files();
    let faults = hostile.iter().enumerate().flat_map(|(place, action)| {
        let every = u64::try_from(hostile.len() - place).unwrap();
        ["/events-", "/persons-", "/sessions-"]
            .map(|table| Fault::files(action.clone()).path(table).every(every).times(2))
    });
    posthog.set_faults(faults.collect()).unwrap();
    let source = Source::new(&posthog.url()).with_exports().with("attempts", json!(2));
    let outcome = read_streams(&source, &["events", "persons", "person_distinct_ids", "sessions"]).await;
    let requests = posthog.file_requests();
    for table in ["/events-", "/persons-", "/sessions-"] {
        let fired = requests.iter().filter(|request| request.path.contains(table) && request.fault.is_some()).count();
        assert!(fired > 4, "{table}: {fired} of {}", requests.len());
    }
    if cfg!(target_os = "linux") {
        assert!((1..MOST_MEMORY).contains(&outcome.memory), "{} bytes", outcome.memory);
    }
}

#[tokio::test]
async fn small_responses_that_unpack_to_much_do_not_exhaust_memory() {
    let posthog = sandbox_with_exports(Exports::default()).await;
    posthog.insert(PROJECT, vec![with_properties(1, "{}".to_owned())]);
    let list = repeated(r#"{"results":[0"#, ",0", "]}");
    let some = |begin: &str, end: &str| gzip(&[begin.as_bytes(), ",0".repeat(4_000_000).as_bytes(), end.as_bytes()]);
    let fields: String = (0..600_000).map(|number| format!(",\"{number}\":0")).collect();
    let fields = format!(r#"{{"results":[{{"id":1{fields}}}]}}"#);
    let zeros = ",0".repeat(3_500_000);
    let flag = r#""has_encrypted_payloads":true,"filters":{"payloads":[0"#;
    let flag = format!(r#"{{"results":[{{"id":1,{flag}{zeros}]}}}}]}}"#);
    let figures = format!(r#"{{"results":[[1,1,[[0]{}]]]}}"#, ",[0]".repeat(1_700_000));
    let scopes = gzip(&[br#"{"scopes":[""#, br#"","#.repeat(2_000_000).as_slice(), br#"""]}"#]);
    for (case, fault, stream) in [
        ("a list", Fault::new(list.clone()).path("/annotations/"), "annotations"),
        ("a long list", Fault::new(some("[0", "]")).path("/annotations/"), "annotations"),
        ("an object of many fields", Fault::new(gzip(&[fields.as_bytes()])).path("/annotations/"), "annotations"),
        ("payloads of a flag", Fault::new(gzip(&[flag.as_bytes()])).path("/feature_flags/"), "feature_flags"),
        ("figures", Fault::query(gzip(&[figures.as_bytes()])).sql("AS figures"), "events"),
        ("projects", Fault::new(list.clone()).path(r"/api/projects/\?"), "events"),
        ("many projects", Fault::new(some(r#"{"results":[0"#, "]}")).path(r"/api/projects/\?"), "events"),
        ("scopes", Fault::new(scopes).path("/@current/"), "events"),
        ("export availability", Fault::new(list).path("/file_download_batch_exports/$").method("POST"), "events"),
        ("a row of many columns", Fault::query(repeated(r#"{"results":[[0"#, ",0", "]]}")), "events"),
        ("rows of a count", Fault::query(repeated(r#"{"results":[[1]"#, ",[1]", "]}")), "events"),
        ("a wide window", Fault::query(wide_window()), "events"),
        ("an error", Fault::query(repeated(r#"{"error":[0"#, ",0", r#"],"results":[]}"#)), "events"),
    ] {
        posthog.set_faults(vec![fault]).unwrap();
        posthog.clear_requests();
        let outcome = read_stream(&Source::new(&posthog.url()).with("attempts", json!(2)), stream).await;
        let fired = posthog.requests().iter().filter(|request| request.fault.is_some()).count();
        assert!(fired > 0, "{case}");
        if cfg!(target_os = "linux") {
            assert!((1..MOST_MEMORY).contains(&outcome.memory), "{case}: {} bytes", outcome.memory);
        }
    }
}
