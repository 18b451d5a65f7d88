//! `read` is ended at many points and in many ways, and started again with the last whole STATE that
//! it printed, until it completes: together the runs hold every event.
//!
//! Points are numbers of lines, so that they are the same every time. `KILL_SEED` tries others.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;

use posthog_sandbox::posthog::{Action, Exports, Fault, Sandbox};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::support::child::Watched;
use crate::support::messages::Messages;
use crate::support::program::{Source, catalog};
use crate::support::world::{PROJECT, event_ids, sandbox, sandbox_with_exports, two_hours_ago};

const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;
/// What a program says that waits; it does so for waits of some seconds.
const WAITING: &str = "RATE_LIMITED";
/// A read that is ended again and again has completed after so many runs.
const MOST_RUNS: usize = 60;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Kill,
    Terminate,
    ClosePipe,
}

const WAYS: [Way; 3] = [Way::Kill, Way::Terminate, Way::ClosePipe];

/// When a run is ended.
#[derive(Debug, Clone, Copy)]
enum When {
    /// After so many lines.
    Lines(usize),
    /// After so many STATE messages.
    States(usize),
    /// When it says that it waits for a limit; or else after so many lines.
    Waiting(usize),
}

impl When {
    fn is_reached(self, line: &str, lines: usize, states: usize) -> bool {
        match self {
            Self::Lines(count) => lines >= count,
            Self::States(count) => states >= count,
            Self::Waiting(count) => line.contains(WAITING) || lines >= count,
        }
    }
}

/// Random numbers that are the same every time (xorshift).
struct Random(u64);

impl Random {
    fn new(salt: u64) -> Self {
        let seed: u64 = std::env::var("KILL_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
        Self((seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ salt.wrapping_mul(0xbf58_476d_1ce4_e5b9)) | 1)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }

    /// `patience` grows, or a run that dies before its first STATE would go on for ever.
    fn when(&mut self, patience: usize) -> When {
        match self.below(3) {
            0 => When::Lines(1 + self.below(patience)),
            1 => When::States(1 + self.below(1 + patience / 60)),
            _ => When::Waiting(10 * patience),
        }
    }
}

/// A whole line, with its line feed; none at the end, or when the last one is not whole.
async fn next_line(stdout: &mut BufReader<Watched>) -> Option<String> {
    let mut line = Vec::new();
    stdout.read_until(b'\n', &mut line).await.unwrap();
    (line.last() == Some(&b'\n')).then(|| String::from_utf8(line).unwrap())
}

/// How often programs were ended, and how.
#[derive(Default)]
struct Ends {
    /// By way, those that noticed it; others were done before they could.
    noticed: [usize; WAYS.len()],
    waiting: usize,
    all: usize,
}

/// Reads until `when`, ends the program, and returns what it printed and whether it had completed.
async fn read_and_end(
    source: &Source,
    catalog: &Value,
    state: Option<&Value>,
    when: When,
    way: Way,
    ends: &mut Ends,
) -> (Messages, bool) {
    let mut child = source.read_command(catalog, state).spawn();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let (mut text, mut lines, mut states) = (String::new(), 0, 0);
    let mut due = false;
    while let Some(line) = next_line(&mut stdout).await {
        lines += 1;
        states += usize::from(line.starts_with(r#"{"type":"STATE""#));
        due = when.is_reached(&line, lines, states);
        text.push_str(&line);
        if due {
            ends.waiting += usize::from(line.contains(WAITING));
            break;
        }
    }
    if !due {
        assert!(child.wait().await.success(), "{text}");
        return (Messages::parse(text.as_bytes()), true);
    }
    match way {
        Way::Kill => {
            child.signal(SIGKILL).await;
            // Whatever is in the pipe is read, as a shell's next program would; a torn line is none.
            while let Some(line) = next_line(&mut stdout).await {
                text.push_str(&line);
            }
        }
        Way::Terminate => {
            child.signal(SIGTERM).await;
            // What it had is written to the last line.
            let mut rest = Vec::new();
            while stdout.read_until(b'\n', &mut rest).await.unwrap() > 0 {}
            assert!(rest.is_empty() || rest.ends_with(b"\n"), "the last line is torn");
            text.push_str(std::str::from_utf8(&rest).unwrap());
        }
        Way::ClosePipe => drop(stdout),
    }
    let end = child.wait().await;
    // It may have been done before it noticed.
    let expected = match way {
        Way::Kill => end.signal() == Some(SIGKILL),
        Way::Terminate => end.signal() == Some(SIGTERM),
        Way::ClosePipe => end.code() == Some(1),
    };
    assert!(expected || end.success(), "{way:?}: {end:?}");
    ends.all += 1;
    ends.noticed[way as usize] += usize::from(expected);
    (Messages::parse(text.as_bytes()), way == Way::Terminate && end.success())
}

/// Ends reads until one completes; the runs together must hold every event.
async fn read_with_interruptions(
    posthog: &Sandbox,
    source: &Source,
    mode: &str,
    ways: &[Way],
    salt: u64,
    ends: &mut Ends,
) {
    let truth = event_ids(posthog);
    let catalog = catalog(&["events"], mode);
    let mut random = Random::new(salt);
    let (mut state, mut seen) = (None, BTreeSet::new());
    for run in 0..MOST_RUNS {
        let way = ways[random.below(ways.len())];
        let when = random.when(20 + 12 * run);
        let (messages, complete) = read_and_end(source, &catalog, state.as_ref(), when, way, ends).await;
        // What a STATE covers has come before it, in this run or an earlier one: only that counts.
        let last = messages.state_lines().last().copied();
        if complete {
            seen.extend(messages.id_set("events"));
            assert_eq!(seen, truth, "{mode}, {ways:?}, salt {salt}, after {run} runs");
            return;
        }
        if let Some(last) = last {
            let covered = messages.up_to(last);
            seen.extend(covered.id_set("events"));
            state = Some(covered.state());
        }
    }
    panic!("no end after {MOST_RUNS} runs");
}

/// Each way alone and all of them mixed, in both modes.
async fn assert_resumes_after_every_interruption(posthog: &Sandbox, source: &Source, first_salt: u64) {
    let mut ends = Ends::default();
    for (salt, mode) in (first_salt..).zip(["incremental", "full_refresh"]) {
        for (more, way) in (10..).zip(WAYS) {
            read_with_interruptions(posthog, source, mode, &[way], salt + more, &mut ends).await;
        }
        read_with_interruptions(posthog, source, mode, &WAYS, salt, &mut ends).await;
    }
    let Ends { noticed, waiting, all } = ends;
    assert!(all > 30 && waiting > 3 && noticed.iter().all(|times| *times > 3), "{all}, {waiting}, {noticed:?}");
    let requests = posthog.requests().into_iter().filter_map(|request| request.fault);
    let fired: BTreeSet<&str> =
        requests.chain(posthog.file_requests().into_iter().filter_map(|one| one.fault)).collect();
    assert_eq!(fired, BTreeSet::from(["status", "truncate"]));
}

#[tokio::test]
async fn query_syncs_ended_in_every_way_resume_without_loss() {
    let posthog = sandbox().await;
    posthog.generate(PROJECT, 700, 5, two_hours_ago());
    posthog
        .set_faults(vec![
            Fault::query(Action::Truncate { fraction: 0.6 }).sql("properties").every(5),
            Fault::query(Action::status(500)).every(17),
            Fault::query(Action::throttle(4)).every(19),
        ])
        .unwrap();
    let source = Source::new(&posthog.url()).with_page_size(50);
    assert_resumes_after_every_interruption(&posthog, &source, 0).await;
}

#[tokio::test]
async fn export_syncs_ended_in_every_way_resume_without_loss() {
    let exports = Exports { rows_per_file: Some(60), ..Exports::default() };
    let posthog = sandbox_with_exports(exports).await;
    posthog.generate(PROJECT, 700, 5, two_hours_ago());
    posthog
        .set_faults(vec![
            Fault::files(Action::Truncate { fraction: 0.6 }).every(5),
            Fault::new(Action::status(500)).path("batch_exports").every(13),
            Fault::new(Action::throttle(4)).path("batch_exports").every(31),
        ])
        .unwrap();
    let source = Source::new(&posthog.url()).with_exports();
    assert_resumes_after_every_interruption(&posthog, &source, 100).await;
}
