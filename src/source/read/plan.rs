//! `plan`: what the next `read` would do. It decides like `read`, with the same code, and stops where reading begins.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, sink, stdout};
use std::sync::Arc;
use std::time::Duration;

use comfy_table::{Table, presets};
use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;
use serde_json::json;
use tracing::instrument::WithSubscriber;
use tracing::subscriber::NoSubscriber;

use super::jobs::{Job, Jobs, in_order, with_shared_runs};
use super::setup::{Account, Setup, saved_states};
use super::summary::Summary;
use super::{Prepared, Round, Sync, prepare};
use crate::config::Config;
use crate::error::Error;
use crate::posthog::http::Client;
use crate::protocol::state::SavedStates;
use crate::protocol::{Audience, Output, SyncMode, Writer, logging};
use crate::source::catalog;
use crate::source::cli::PlanArguments;
use crate::source::first_read::{ROW_BYTES, export_time, query_time};
use crate::sync::{PlannedMethod, PlannedRead, ReadPlan};

/// What a page of a list takes.
const LIST_PAGE: Duration = Duration::from_secs(1);
/// Requests of one run: it is started, looked at, and has a file at least.
const REQUESTS_OF_A_RUN: u64 = 3;

/// What would be read of one stream of one project by one method.
#[derive(Debug, Serialize)]
struct Line {
    stream: String,
    project_id: u64,
    method: &'static str,
    days: Option<u64>,
    rows: Option<u64>,
    runs: u64,
    /// None where it cannot be counted before.
    billed_rows: Option<u64>,
    bytes: u64,
    requests: u64,
    minutes: u64,
}

/// A plan as it is printed.
#[derive(Debug)]
struct Forecast {
    lines: Vec<Line>,
    /// Streams that cannot be read, and why.
    failed: BTreeMap<String, Vec<String>>,
    minutes: u64,
    limit: Option<u64>,
    /// Queries and other requests that planning took.
    spent: (usize, usize),
}

/// What the first sync of these streams would take, one sentence each.
pub(in crate::source) async fn first_read(
    config: &Config,
    client: &Client,
    account: Account,
    streams: &[&str],
) -> Result<Vec<String>, Error> {
    let (silent, _writer) = Writer::start(sink(), Audience::Program);
    let names: Vec<String> = streams.iter().map(|name| (*name).to_owned()).collect();
    let planning = async {
        let catalog = catalog::configured(config, &names, SyncMode::Incremental).await?;
        let setup = Setup::new(config.clone(), client.clone(), catalog).await?;
        forecast(&setup, &SavedStates::default(), Some(account), &silent).await
    };
    let forecast = planning.with_subscriber(NoSubscriber::default()).await?;
    let lines = forecast.lines.iter().map(Line::describe);
    Ok(lines.chain([forecast.total("The first read")]).chain(forecast.problems()).collect())
}

/// Prints what the next sync would read. Returns false if something could not be planned.
pub(in crate::source) async fn plan(arguments: &PlanArguments, output: &Output) -> Result<bool, Error> {
    // Nothing that readers emit is to be seen: states, statuses, and logs of what they begin.
    let (silent, writer) = Writer::start(sink(), Audience::Program);
    let planning = async {
        let saved = saved_states(&arguments.sync)?;
        let setup = Setup::from_arguments(&arguments.sync).await?;
        forecast(&setup, &saved, None, &silent).await
    };
    let forecast = planning.with_subscriber(logging::warnings(output)).await;
    writer.close(&silent).await?;
    let forecast = forecast?;
    let text = if arguments.json || !stdout().is_terminal() { forecast.as_json() } else { forecast.for_people() };
    output.line(text.into_bytes()).await?;
    Ok(forecast.failed.is_empty())
}

async fn forecast(
    setup: &Setup,
    saved: &SavedStates,
    account: Option<Account>,
    silent: &Output,
) -> Result<Forecast, Error> {
    let (plan, summary) = (ReadPlan::default(), Arc::new(Summary::begin(None, silent.clone())));
    let round = Round { account, plan: Some(plan.clone()), ..Round::new(saved, true) };
    let Prepared { sync, jobs, .. } = prepare(setup, round, silent, &summary).await?;
    let mut failed = BTreeMap::new();
    for jobs in with_shared_runs(in_order(jobs)) {
        let jobs = match jobs {
            Jobs::Two(persons, ids) => {
                let streams = [persons.stream.name.clone(), ids.stream.name.clone()];
                for (stream, errors) in streams.into_iter().zip(sync.read_both([persons, ids]).await?) {
                    note_failures(&mut failed, stream, &errors);
                }
                continue;
            }
            Jobs::One(job) => vec![job],
            Jobs::EventsAndDays(events, days) => vec![events, days],
        };
        for Job { stream, incremental, selection, kind } in jobs {
            let errors = sync.read_job(kind, &selection, &stream, incremental).await?;
            note_failures(&mut failed, stream.name.clone(), &errors);
        }
    }
    Ok(Forecast::new(&sync, &plan, failed))
}

fn note_failures(failed: &mut BTreeMap<String, Vec<String>>, stream: String, errors: &[Error]) {
    if !errors.is_empty() {
        failed.insert(stream, errors.iter().map(ToString::to_string).collect());
    }
}

impl Forecast {
    fn new(sync: &Sync, plan: &ReadPlan, failed: BTreeMap<String, Vec<String>>) -> Self {
        let mut times: BTreeMap<(u64, PlannedMethod), Duration> = BTreeMap::new();
        let mut lines = Vec::new();
        for ((stream, project_id, method), read) in plan.reads() {
            let time = time(&sync.config, method, &read);
            *times.entry((project_id, method)).or_default() += time;
            lines.push(Line::new(stream, project_id, method, &read, time));
        }
        // Projects have limits of their own, and so have queries and runs.
        let longest = times.into_values().max().unwrap_or_default();
        let limit = sync.config.max_exported_rows;
        Self { lines, failed, minutes: minutes(longest), limit, spent: sync.client.limiter().sent() }
    }

    /// Streams whose rows are not counted before they are read.
    fn not_counted(&self) -> BTreeSet<&str> {
        self.lines.iter().filter(|line| line.rows.is_none()).map(|line| line.stream.as_str()).collect()
    }

    /// Rows that may be billed, as far as they are known before, and whether those of a read are not.
    fn billed_rows(&self) -> (u64, bool) {
        let is_unknown = self.lines.iter().any(|line| line.billed_rows.is_none());
        (self.lines.iter().filter_map(|line| line.billed_rows).sum(), is_unknown)
    }

    fn as_json(&self) -> String {
        let (queries, others) = self.spent;
        let (billed, is_unknown) = self.billed_rows();
        let plan = json!({
            "reads": self.lines,
            "not_counted": self.not_counted(),
            "failed": self.failed,
            "billed_rows": (!is_unknown).then_some(billed),
            "max_exported_rows": self.limit,
            "minutes": self.minutes,
            "planning": {"queries": queries, "other_requests": others},
        });
        format!("{plan}\n")
    }

    fn for_people(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY);
        table.set_header([
            "stream",
            "project",
            "method",
            "days",
            "rows",
            "runs",
            "may be billed",
            "PostHog reads",
            "requests",
            "minutes",
        ]);
        let number = |number: Option<u64>| number.map_or("?".to_owned(), |number| HumanCount(number).to_string());
        for line in &self.lines {
            table.add_row([
                line.stream.clone(),
                line.project_id.to_string(),
                line.method.to_owned(),
                line.days.map_or(String::new(), |days| days.to_string()),
                number(line.rows),
                line.runs.to_string(),
                number(line.billed_rows),
                HumanBytes(line.bytes).to_string(),
                line.requests.to_string(),
                line.minutes.to_string(),
            ]);
        }
        let (queries, others) = self.spent;
        let problems: String = self.problems().map(|problem| problem + "\n").collect();
        format!(
            "{table}\n\n{} This plan took {queries} queries and {others} other requests.\n{problems}",
            self.total("To read all of it")
        )
    }

    /// How long everything takes, and what it may cost.
    fn total(&self, what: &str) -> String {
        let mut sentences = vec![format!("{what} takes about {} min.", self.minutes)];
        sentences.extend(self.billing());
        let not_counted: Vec<&str> = self.not_counted().into_iter().collect();
        if !not_counted.is_empty() {
            sentences.push(format!("Not counted before they are read: {}.", not_counted.join(", ")));
        }
        sentences.join(" ")
    }

    /// What cannot be read.
    fn problems(&self) -> impl Iterator<Item = String> {
        self.failed.iter().map(|(stream, problems)| format!("{stream} cannot be read: {}", problems.join("; ")))
    }

    /// What may be billed, and where the limit ends a sync.
    fn billing(&self) -> Option<String> {
        let (billed, is_unknown) = self.billed_rows();
        let may_be_billed = match billed {
            0 if !is_unknown => return None,
            0 => "PostHog may bill exported rows; nothing counts them before.".to_owned(),
            billed => {
                let least = if is_unknown { "at least " } else { "" };
                format!("PostHog may bill {least}{} exported rows.", HumanCount(billed))
            }
        };
        let limit = match self.limit {
            Some(limit) if billed > limit => format!(
                " `max_exported_rows` ends a sync before a run with which it would export more than {}, so this takes several syncs.",
                HumanCount(limit)
            ),
            Some(limit) if is_unknown => format!(
                " `max_exported_rows` ends a sync after the run with which it has exported {} or more.",
                HumanCount(limit)
            ),
            _ => String::new(),
        };
        Some(may_be_billed + &limit)
    }
}

impl Line {
    fn new(stream: String, project_id: u64, method: PlannedMethod, read: &PlannedRead, time: Duration) -> Self {
        Self {
            stream,
            project_id,
            method: match method {
                PlannedMethod::Query => "query",
                PlannedMethod::Export => "export",
                PlannedMethod::List => "list",
            },
            days: Some(read.days.len() as u64).filter(|days| *days > 0),
            rows: read.rows,
            runs: read.runs,
            billed_rows: if read.runs > 0 { read.exported_rows } else { Some(0) },
            bytes: bytes(read),
            requests: read.queries + read.runs * REQUESTS_OF_A_RUN,
            minutes: minutes(time),
        }
    }

    /// The line as a sentence.
    fn describe(&self) -> String {
        let Self { stream, project_id, method, minutes, .. } = self;
        let rows = self.rows.map_or_else(|| "all".to_owned(), |rows| HumanCount(rows).to_string());
        format!("project {project_id}: {rows} {stream} are read by {method} in about {minutes} min")
    }
}

/// Bytes that the server reads to answer queries.
fn bytes(read: &PlannedRead) -> u64 {
    read.bytes.saturating_add(read.scanned_rows.saturating_mul(ROW_BYTES))
}

fn time(config: &Config, method: PlannedMethod, read: &PlannedRead) -> Duration {
    let at_a_time = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    match method {
        PlannedMethod::Query => query_time(read.queries, at_a_time(config.concurrency), bytes(read)),
        PlannedMethod::Export => export_time(read.runs, at_a_time(config.export_runs)),
        PlannedMethod::List => LIST_PAGE.saturating_mul(u32::try_from(read.queries).unwrap_or(u32::MAX)),
    }
}

fn minutes(time: Duration) -> u64 {
    time.as_secs().div_ceil(60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forecast(limit: Option<u64>) -> Forecast {
        let read = PlannedRead { rows: Some(1_200), runs: 2, exported_rows: Some(1_500), ..PlannedRead::default() };
        let time = export_time(2, 1);
        let line = Line::new("events".to_owned(), 7, PlannedMethod::Export, &read, time);
        let unknown = PlannedRead { queries: 4, ..PlannedRead::default() };
        let list = Line::new("recordings".to_owned(), 7, PlannedMethod::List, &unknown, Duration::ZERO);
        let failed = BTreeMap::from([("groups".to_owned(), vec!["no".to_owned()])]);
        Forecast { lines: vec![line, list], failed, minutes: minutes(time), limit, spent: (3, 4) }
    }

    #[test]
    fn text_names_costs_limit_and_what_is_unknown() {
        let text = forecast(None).for_people();
        for part in
            ["1,200", "1,500", "about 2 min", "may bill 1,500", "read: recordings", "3 queries and 4", "groups cannot"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        let of = |limit| forecast(Some(limit)).for_people();
        assert!(of(1_500).contains("may bill 1,500") && !of(1_500).contains("max_exported_rows"), "{}", of(1_500));
        assert!(of(1_499).contains("may bill 1,500") && of(1_499).contains("export more than 1,499"), "{}", of(1_499));
    }

    #[test]
    fn rows_that_are_not_counted_are_not_taken_for_none() {
        let unknown = PlannedRead { runs: 1, ..PlannedRead::default() };
        let line = |read: PlannedRead| Line::new("persons".to_owned(), 7, PlannedMethod::Export, &read, Duration::ZERO);
        let mut forecast = forecast(None);
        forecast.lines.push(line(unknown.clone()));
        assert!(forecast.for_people().contains("may bill at least 1,500"), "{}", forecast.for_people());
        forecast.limit = Some(2_000);
        assert!(forecast.for_people().contains("after the run with which"), "{}", forecast.for_people());
        assert_eq!(line(unknown).billed_rows, None);
        assert_eq!(line(PlannedRead::default()).billed_rows, Some(0), "without a run");
    }
}
