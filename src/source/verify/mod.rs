//! `verify`: compares a warehouse's table of events with PostHog.

mod compare;
mod counts;
mod dialect;
pub mod sql;

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;

use comfy_table::{Table, presets};
use serde_json::json;

pub use dialect::Dialect;

use super::cli::VerifyArguments;
use super::configuration;
use crate::config::Config;
use crate::error::Error;
use crate::posthog::http::Client;
use crate::protocol::{Output, StreamDescriptor};
use crate::records::NulledValues;
use crate::streams::{EVENTS, Selection};
use crate::sync::ledger::Days;
use crate::sync::{ReadContext, StreamObserver, StreamReport, count_days};
use crate::time::Timestamp;
use compare::{TableDifference, differences, reread_days};
use counts::TableCounts;

/// What was compared, and what differs.
struct Comparison {
    differences: Vec<TableDifference>,
    days: u64,
    /// By project: events that PostHog received before this are compared.
    received_before: BTreeMap<u64, Timestamp>,
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
    Ok(comparison.differences.is_empty())
}

async fn compare(config: &Path, file: &Path, output: &Output) -> Result<Comparison, Error> {
    let config = Arc::new(configuration::from_file(config).await?);
    let tables = counts::from_file(file)?;
    if tables.is_empty() {
        return Err(Error::config(
            "the file of counts has no rows; the table is empty, or the query was about another one",
        ));
    }
    for project in config.project_ids.iter().flatten().filter(|project| !tables.contains_key(project)) {
        tracing::warn!("project {project} is not in the file of counts, so it is not compared");
    }
    let client = Client::new(&config)?;
    let mut comparison = Comparison { differences: Vec::new(), days: 0, received_before: BTreeMap::new() };
    for (project, table) in tables {
        let (until, days) = extent(&config, &client, &table);
        let context = context(&client, &config, project, output);
        let agrees = |day: i64, posthog| table.days.get(&day).is_some_and(|table| table.agrees(posthog));
        let posthog = count_days(&context, until, agrees).await.map_err(|error| error.in_project(project))?;
        let compared = posthog.keys().chain(table.days.keys()).filter(|day| days.contains(**day));
        comparison.days += compared.collect::<std::collections::BTreeSet<_>>().len() as u64;
        comparison.differences.extend(differences(project, &posthog, &table.days, days));
        comparison.received_before.insert(project, until);
    }
    Ok(comparison)
}

/// Up to when PostHog may have received what the table has, and the days to compare. Where the table does not say
/// what it has received last, its last day and today may not be whole yet.
fn extent(config: &Config, client: &Client, table: &TableCounts) -> (Timestamp, Days) {
    let asked = Days::touched_by(config.start, config.end.unwrap_or(Timestamp::MAX));
    if let Some(newest) = table.newest {
        return (newest.plus_micros(1), asked);
    }
    let until = client.now().minus(config.method.ingestion_delay);
    // Clocks of senders that are ahead make days of the future.
    let last = table.days.keys().next_back().copied().unwrap_or(asked.to).min(until.day());
    (until, asked.intersection(Days { to: last, ..Days::ALL }))
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
    fn as_json(&self) -> String {
        let received_before: serde_json::Map<_, _> =
            self.received_before.iter().map(|(project, until)| (project.to_string(), json!(until))).collect();
        let result = json!({
            "agrees": self.differences.is_empty(),
            "days": self.days,
            "received_before": received_before,
            "differences": self.differences,
            "reread_days": reread_days(&self.differences),
        });
        format!("{result}\n")
    }

    fn for_people(&self) -> String {
        if self.differences.is_empty() {
            return format!("The table has what PostHog has, on all {} days.\n", self.days);
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
        format!("{table}\n\n{} of {} days differ. {advice}\n", self.differences.len(), self.days)
    }
}
