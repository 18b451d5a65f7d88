//! Runs a script, and reports what the program did wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::Utc;
use posthog_sandbox::posthog::{Event, Exports, Fault, Sandbox, Server};
use serde_json::{Value, json};
use source_posthog::time::Timestamp;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use uuid::Uuid;

use super::script::{MINUTE, Method, Mode, SECOND, Script, Settings, Step, Sync, mixed};
use crate::support::messages::Messages;
use crate::support::program::{Source, catalog};
use crate::support::world::{PROJECT, sandbox_with_exports};

/// The program knows the server's clock to two seconds.
const CLOCK_IS_OFF: i64 = 4 * SECOND;
/// A sync of so few events that has not ended by then never will.
const LONGEST: Duration = Duration::from_mins(5);

/// Time, uuid, name, distinct id.
type Identity = (i64, Uuid, String, String);

fn identity(event: &Event) -> Identity {
    (event.timestamp, event.uuid, event.event.clone(), event.distinct_id.clone())
}

/// A run of the program.
struct Run {
    messages: Messages,
    /// None if it was killed.
    code: Option<i32>,
}

struct Life {
    posthog: Sandbox,
    is_quiet: bool,
    /// Seconds by which the server's clock is ahead.
    ahead: i64,
    state: Option<Value>,
    /// The state is that of a full refresh that has not ended.
    refreshes: bool,
    /// Every row that there ever was.
    rows: BTreeMap<Identity, Vec<Event>>,
    /// How often the destination has received what.
    received: BTreeMap<Identity, usize>,
    /// The same of the full refresh that has not ended.
    refreshed: BTreeSet<Identity>,
}

/// Runs a script to its end.
///
/// # Errors
/// What went wrong.
pub(super) async fn live(script: &Script) -> Result<(), String> {
    let posthog = sandbox_with_exports(Exports::default()).await;
    let ahead = (script.begin - Utc::now().timestamp_micros()).div_euclid(SECOND);
    let mut life = Life {
        posthog,
        is_quiet: script.is_quiet,
        ahead,
        state: None,
        refreshes: false,
        rows: BTreeMap::new(),
        received: BTreeMap::new(),
        refreshed: BTreeSet::new(),
    };
    life.wait(0);
    for (number, step) in script.steps.iter().enumerate() {
        match step {
            Step::Arrive(rows) => life.insert(rows.iter().map(super::script::Row::event).collect()),
            Step::Wait(seconds) => life.wait(*seconds),
            Step::Delete { percent, salt } => life.delete(*percent, *salt),
            Step::Merge => drop(life.posthog.merge_duplicates(PROJECT)),
            Step::Sync(sync) => {
                life.sync(sync).await.map_err(|problem| format!("step {number}: {problem}"))?;
            }
        }
    }
    Ok(())
}

impl Life {
    fn now(&self) -> i64 {
        Utc::now().timestamp_micros() + self.ahead * SECOND
    }

    fn wait(&mut self, seconds: i64) {
        self.ahead += seconds;
        self.posthog.set_server(Server { clock_ahead: self.ahead, ..Server::cloud_2026() });
    }

    fn insert(&mut self, events: Vec<Event>) {
        for event in &events {
            self.rows.entry(identity(event)).or_default().push(event.clone());
        }
        self.posthog.insert(PROJECT, events);
    }

    fn delete(&self, percent: u64, salt: u64) {
        let uuids = self.posthog.events(PROJECT).into_iter().map(|event| event.uuid);
        self.posthog.delete_events(PROJECT, uuids.filter(|uuid| mixed(uuid.as_u64_pair().0 ^ salt) % 100 < percent));
    }

    /// What a sync that begins now owes.
    fn owed(&self, settings: &Settings) -> BTreeSet<Identity> {
        let now = self.now() - CLOCK_IS_OFF;
        let bound = now - settings.settle_minutes * MINUTE;
        let events = self.posthog.events(PROJECT).into_iter();
        let owed = events.filter(|event| {
            let is_visible = event.visible_at.is_none_or(|at| at <= now);
            is_visible && event.created_at < bound && settings.asks_for(event)
        });
        owed.map(|event| identity(&event)).collect()
    }

    async fn sync(&mut self, sync: &Sync) -> Result<(), String> {
        for (queries, row) in &sync.appearing {
            let event = row.event();
            self.rows.entry(identity(&event)).or_default().push(event.clone());
            self.posthog.insert_at_queries(PROJECT, [(*queries, event)]);
        }
        let owed = self.owed(&sync.settings);
        self.posthog.clear_requests();
        let fault = sync.trouble.iter().map(|trouble| {
            let fault = match trouble.sql {
                Some(sql) => Fault::query(trouble.action.clone()).sql(sql),
                None => Fault::files(trouble.action.clone()),
            };
            fault.times(trouble.times)
        });
        self.posthog.set_faults(fault.collect()).unwrap();
        let run = tokio::time::timeout(LONGEST, self.run(sync)).await.map_err(|_| "it does not end".to_owned())?;
        self.posthog.set_faults(Vec::new()).unwrap();
        self.posthog.insert_waiting();
        self.judge(sync, &owed, &run).map_err(|problem| format!("{problem}\n{}", told(&run.messages)))
    }

    async fn run(&self, sync: &Sync) -> Run {
        let source = source(&self.posthog.url(), &sync.settings);
        source.turn_clock(self.ahead);
        let mode = if sync.mode == Mode::Incremental { "incremental" } else { "full_refresh" };
        let catalog = catalog(&["events"], mode);
        let Some(most) = sync.killed_after else {
            let outcome = source.read(&catalog, self.state.as_ref()).await;
            return Run { messages: outcome.messages, code: outcome.code };
        };
        let mut child = source.read_command(&catalog, self.state.as_ref()).spawn();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut text = Vec::new();
        for _ in 0..most {
            stdout.read_until(b'\n', &mut text).await.unwrap();
        }
        child.kill().await;
        // Whatever is in the pipe is read, as a shell's next program would; a torn line is none.
        stdout.read_to_end(&mut text).await.unwrap();
        text.truncate(text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1));
        Run { messages: Messages::parse(&text), code: child.wait().await.code() }
    }

    /// Takes over what a run has printed.
    fn judge(&mut self, sync: &Sync, owed: &BTreeSet<Identity>, run: &Run) -> Result<(), String> {
        let Run { messages, code } = run;
        let faulty = self.posthog.requests().iter().any(|request| request.fault.is_some())
            || self.posthog.file_requests().iter().any(|request| request.fault.is_some());
        if sync.killed_after.is_none() && !faulty && *code != Some(0) {
            return Err(format!("it failed without a reason: {:?}", messages.errors()));
        }
        self.identities(&sync.settings, messages)?;
        // What a STATE covers has come before it; what comes after the last one is not relied on.
        let last = messages.state_lines().last().copied();
        let covered = match last {
            _ if *code == Some(0) => self.identities(&sync.settings, messages)?,
            Some(last) => self.identities(&sync.settings, &messages.up_to(last))?,
            None => Vec::new(),
        };
        let state = last.map(|_| messages.state());
        if *code == Some(0) && state.is_none() {
            return Err("it ended without a STATE".to_owned());
        }
        let is_full = sync.mode != Mode::Incremental;
        if sync.mode == (Mode::Full { kept: false }) {
            let mut refreshed = if self.refreshes { self.refreshed.clone() } else { BTreeSet::new() };
            refreshed.extend(covered);
            return if *code == Some(0) { complete(owed, |one| refreshed.contains(one)) } else { Ok(()) };
        }
        if state.is_some() {
            if is_full && !self.refreshes {
                self.refreshed.clear();
            }
            self.refreshed.extend(covered.iter().cloned());
            self.refreshes = is_full && *code != Some(0);
            self.state = state;
        }
        for one in covered {
            *self.received.entry(one).or_default() += 1;
        }
        if *code == Some(0) {
            complete(owed, |one| if is_full { self.refreshed.contains(one) } else { self.received.contains_key(one) })?;
        }
        match self.received.iter().find(|(_, times)| self.is_quiet && **times > 1) {
            Some((one, times)) => Err(format!("{one:?} came {times} times")),
            None => Ok(()),
        }
    }

    /// The events of records, which have to be some that were asked for.
    fn identities(&self, settings: &Settings, messages: &Messages) -> Result<Vec<Identity>, String> {
        let records = messages.records("events").into_iter().map(|record| {
            let text = |field: &str| record[field].as_str().unwrap_or_default().to_owned();
            let micros = |field: &str| Timestamp::parse(&text(field)).map_or(i64::MAX, Timestamp::micros);
            let one =
                (micros("timestamp"), text("uuid").parse().unwrap_or_default(), text("event"), text("distinct_id"));
            let is_same = |event: &&Event| {
                event.created_at == micros("created_at")
                    && event.person_id.to_string() == text("person_id")
                    && event.elements_chain == text("elements_chain")
                    && serde_json::from_str(&event.properties).ok().as_ref() == Some(&record["properties"])
            };
            match self.rows.get(&one).and_then(|rows| rows.iter().find(is_same)) {
                None => Err(format!("there is no such event: {record}")),
                Some(event) if !settings.allows(event) => Err(format!("the settings do not ask for {record}")),
                Some(event) if event.created_at > self.now() => Err(format!("it has not come yet: {record}")),
                Some(_) => Ok(one),
            }
        });
        records.collect()
    }
}

/// What a run has told, and its last state.
fn told(messages: &Messages) -> String {
    let logs = ["WARN", "INFO"].into_iter().flat_map(|level| messages.logs(level));
    let lines: Vec<String> = messages.errors().into_iter().chain(logs).collect();
    format!("{}\n{}", lines.join("\n"), messages.stream_state("events"))
}

/// Fails unless everything that is owed has come.
fn complete(owed: &BTreeSet<Identity>, has_come: impl Fn(&Identity) -> bool) -> Result<(), String> {
    let missing: Vec<&Identity> = owed.iter().filter(|one| !has_come(one)).collect();
    match missing.as_slice() {
        [] => Ok(()),
        [first, ..] => Err(format!("{} of {} events are missing, such as {first:?}", missing.len(), owed.len())),
    }
}

fn source(url: &str, settings: &Settings) -> Source {
    let time = |micros: i64| json!(Timestamp::from_micros(micros).to_string());
    let minutes = settings.settle_minutes;
    let method = match settings.method {
        Method::Query => json!({"type": "query", "page_size": settings.page_size, "settle_minutes": minutes}),
        Method::Export => json!({"type": "export", "settle_minutes": minutes}),
        Method::Auto => json!({"type": "auto", "settle_minutes": minutes}),
    };
    let source = Source::new(url)
        .with("method", method)
        .with("export_above", json!(settings.export_above))
        .with("concurrency", json!(settings.concurrency))
        .with("rate_limit_share", json!(1))
        .with("attempts", json!(2))
        .with("start_date", time(settings.start))
        .with("include_events", json!(settings.include))
        .with("exclude_events", json!(settings.exclude))
        .with("reread_days", json!(settings.reread));
    match settings.end {
        Some(end) => source.with("end_date", time(end)),
        None => source,
    }
}
