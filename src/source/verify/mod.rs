//! `verify`: compares a warehouse's table of events with PostHog.

mod compare;
mod counts;
mod dialect;
pub mod sql;

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;

use comfy_table::{Table, presets};
use serde_json::json;

pub use dialect::Dialect;

use super::cli::VerifyArguments;
use super::configuration;
use super::projects::project_ids;
use crate::config::Config;
use crate::error::Error;
use crate::posthog::account::ApiKey;
use crate::posthog::http::{Client, Silent};
use crate::protocol::{Output, StreamDescriptor};
use crate::records::NulledValues;
use crate::streams::{EVENTS, Selection};
use crate::sync::ledger::Days;
use crate::sync::{ReadContext, StreamObserver, StreamReport, count_days};
use crate::time::Timestamp;
use compare::{Problem, TableDifference, day, differences, reread_days};
use counts::TableCounts;

/// What was compared, and what differs.
#[derive(Default)]
struct Comparison {
    differences: Vec<TableDifference>,
    days: u64,
    /// By project: events that PostHog received before this are compared.
    received_before: BTreeMap<u64, Timestamp>,
    /// Days of which the settings ask for a part, and the table has more.
    unclear: BTreeSet<i64>,
    /// Projects of the settings, or of the key, that are not in the file and have events.
    missing_projects: Vec<u64>,
}

/// What of a table is compared.
struct Extent {
    /// Events that PostHog received before this may be in it.
    until: Timestamp,
    days: Days,
    /// Days of which it must have all: they ended before now, and begin after the newest row.
    later: Days,
}

/// Prints the query, or compares its result. Returns whether nothing differs.
pub(super) async fn verify(arguments: &VerifyArguments, output: &Output) -> Result<bool, Error> {
    if let (Some(dialect), Some(table)) = (arguments.sql, &arguments.table) {
        let query = match &arguments.event_days {
            Some(event_days) => sql::comparison(dialect, table, event_days),
            None => sql::figures(dialect, table, arguments.project),
        };
        output.line(query.into_bytes()).await?;
        return Ok(true);
    }
    let (Some(config), Some(file)) = (&arguments.config, &arguments.counts) else {
        return Err(Error::config("`verify` needs `--sql` with `--table`, or `--counts` with `--config`"));
    };
    let comparison = compare(config, file, output).await?;
    let text = if std::io::stdout().is_terminal() { comparison.for_people() } else { comparison.as_json() };
    output.line(text.into_bytes()).await?;
    Ok(comparison.agrees())
}

async fn compare(config: &Path, file: &Path, output: &Output) -> Result<Comparison, Error> {
    let config = Arc::new(configuration::from_file(config).await?);
    let tables = counts::from_file(file)?;
    if tables.is_empty() {
        return Err(Error::config(
            "the file of counts has no rows; the table is empty, or the query was about another one",
        ));
    }
    let client = Client::new(&config)?;
    let now = client.now().minus(config.method.ingestion_delay);
    let mut comparison = Comparison::default();
    for project in projects(&client, &config).await?.into_iter().filter(|project| !tables.contains_key(project)) {
        // What came today may be up to the next sync.
        let days = Days { to: now.day(), ..Days::ALL };
        let posthog = count_days(&context(&client, &config, project, output), now, days, |_, _| true).await;
        if !posthog.map_err(|error| error.in_project(project))?.is_empty() {
            comparison.missing_projects.push(project);
        }
    }
    for (project, table) in tables {
        let Extent { until, days, later } = extent(&config, now, &table);
        let context = context(&client, &config, project, output);
        let agrees = |day: i64, posthog| table.days.get(&day).is_some_and(|table| table.agrees(posthog));
        let in_project = |error: Error| error.in_project(project);
        let mut posthog = count_days(&context, until, days, agrees).await.map_err(in_project)?;
        if !later.is_empty() {
            posthog.retain(|day, _| !later.contains(*day));
            posthog.extend(count_days(&context, now, later, agrees).await.map_err(in_project)?);
        }
        let is_compared = |day: &i64| days.contains(*day) || later.contains(*day);
        let compared = posthog.keys().chain(table.days.keys()).copied().filter(is_compared).collect();
        let found = differences(project, &posthog, &table.days, &compared);
        comparison.days += compared.len() as u64;
        let (unclear, differing): (Vec<_>, Vec<_>) = found.into_iter().partition(|found| is_unclear(&config, found));
        comparison.unclear.extend(unclear.iter().map(|found| found.number));
        comparison.differences.extend(differing);
        comparison.received_before.insert(project, until);
    }
    Ok(comparison)
}

/// The projects that a sync reads: without `project_ids`, all that the key can access.
async fn projects(client: &Client, config: &Config) -> Result<Vec<u64>, Error> {
    let key = match &config.project_ids {
        Some(_) => None,
        None => ApiKey::fetch(client, client.retry(), &Silent).await?,
    };
    project_ids(client, config, key.as_ref(), || client.retry(), &Silent).await
}

/// What can be compared. Events that PostHog received after the newest row are up to the next sync, as long as their day
/// has not ended. Where the file has no `newest`, the last day of the table and today may not be whole yet.
fn extent(config: &Config, now: Timestamp, table: &TableCounts) -> Extent {
    let asked = Days::touched_by(config.start, config.end.unwrap_or(Timestamp::MAX));
    let before_today = asked.intersection(Days { to: now.day(), ..Days::ALL });
    let after = |day: i64| before_today.intersection(Days { from: day + 1, ..Days::ALL });
    if let Some(newest) = table.newest {
        return Extent { until: newest.plus_micros(1), days: asked, later: after(newest.day()) };
    }
    // Clocks of senders that are ahead make days of the future.
    let last = table.days.keys().next_back().copied().unwrap_or(asked.to).min(now.day());
    Extent { until: now, days: asked.intersection(Days { to: last, ..Days::ALL }), later: after(last) }
}

/// Whether a day has more events in the table only because the settings ask for a part of it.
fn is_unclear(config: &Config, found: &TableDifference) -> bool {
    let is_cut = |instant: Timestamp| !instant.is_midnight() && instant.day() == found.number;
    found.problem == Problem::TooMany && (is_cut(config.start) || config.end.is_some_and(is_cut))
}

fn context(client: &Client, config: &Arc<Config>, project: u64, output: &Output) -> ReadContext {
    let stream = Arc::new(StreamDescriptor { name: EVENTS.stream.to_owned(), namespace: None });
    ReadContext {
        client: client.clone(),
        config: Arc::clone(config),
        project,
        incremental: false,
        output: output.clone(),
        stream: Arc::clone(&stream),
        selection: Selection::all(),
        observer: StreamObserver { output: output.clone(), stream },
        nulled: NulledValues::default(),
        report: StreamReport::default(),
        plan: None,
    }
}

impl Comparison {
    fn agrees(&self) -> bool {
        self.differences.is_empty() && self.missing_projects.is_empty()
    }

    fn as_json(&self) -> String {
        let received_before: serde_json::Map<_, _> =
            self.received_before.iter().map(|(project, until)| (project.to_string(), json!(until))).collect();
        let result = json!({
            "agrees": self.agrees(),
            "days": self.days,
            "received_before": received_before,
            "not_compared": self.unclear.iter().map(|number| day(*number)).collect::<Vec<_>>(),
            "missing_projects": self.missing_projects,
            "differences": self.differences,
            "reread_days": reread_days(&self.differences),
        });
        format!("{result}\n")
    }

    fn for_people(&self) -> String {
        let unclear = self.unclear.iter().map(|number| {
            format!("{} is not compared: the settings ask for a part of it, and the table has more.\n", day(*number))
        });
        let missing = self.missing_projects.iter().map(|project| {
            format!(
                "Project {project} has events in PostHog and is not in the file of counts: nothing of it has been loaded, or the query was about another table.\n"
            )
        });
        let notes = unclear.chain(missing).collect::<Vec<_>>().concat();
        if self.differences.is_empty() {
            return format!("The table has what PostHog has, on all {} days.\n{notes}", self.days);
        }
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY);
        table.set_header(["project", "day", "problem", "in PostHog", "in the table", "duplicates"]);
        for difference in &self.differences {
            table.add_row([
                difference.project_id.to_string(),
                difference.day.clone(),
                difference.problem.name().to_owned(),
                difference.in_posthog.to_string(),
                difference.in_table.to_string(),
                difference.duplicates.to_string(),
            ]);
        }
        let days = reread_days(&self.differences);
        let advice = if days.is_empty() {
            String::new()
        } else {
            format!("Set this to have what is missing read by the next sync:\n\n  \"reread_days\": {}\n", json!(days))
        };
        format!("{table}\n\n{} of {} days differ. {advice}\n{notes}", self.differences.len(), self.days)
    }
}
