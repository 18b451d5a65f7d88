//! Processor time next to Airbyte's own connector, which is written in Python.
//!
//! Both read the same events from the same sandbox, which lets the deprecated list of events return
//! all of them instead of a thousand at a time, so that the other connector can read them at all.
//! Small and large runs tell start-up from work.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use anyhow::{Context, ensure};
use chrono::Utc;
use posthog_sandbox::posthog::{Event, Sandbox};
use serde_json::json;
use tokio::process::Command;

use crate::events::{DAY, date, of_day, samples};
use crate::http::{API_KEY, PROJECT};
use crate::measure::Subject;
use crate::programs::{Programs, Source, count};
use crate::results::{Airbyte, Spread};

const REQUIREMENTS: &str = include_str!("../airbyte/requirements.txt");
/// Events are read from days that are this old.
const AGE: i64 = 5;

/// Compares two runs; none when Python or its packages are not to be had, which is said.
///
/// # Errors
/// When one of the connectors fails or reads another number of events than there are.
pub async fn compare(programs: &Programs, events: [u64; 2], rounds: usize) -> anyhow::Result<Option<Airbyte>> {
    let program = match install(&programs.cache().join("airbyte")).await {
        Ok(program) => program,
        Err(error) => {
            say(&format!("Airbyte's connector is left out: {error:#}"));
            return Ok(None);
        }
    };
    let samples = samples().await?;
    let (few, many) = (
        both(programs, &program, &samples, events[0], rounds).await?,
        both(programs, &program, &samples, events[1], rounds).await?,
    );
    Ok(Some(Airbyte { version: version()?, events, theirs: [few.0, many.0], ours: [few.1, many.1] }))
}

/// Processor seconds of both connectors, the other one first.
async fn both(
    programs: &Programs,
    program: &Path,
    samples: &[Event],
    events: u64,
    rounds: usize,
) -> anyhow::Result<(Spread, Spread)> {
    let sandbox = Sandbox::builder().uncapped_events(true).start().await?;
    let today = Utc::now().timestamp_micros().div_euclid(DAY);
    sandbox.insert(PROJECT, of_day(samples, today - AGE, events));
    // The day before: the list of events leaves out what happened right at its beginning.
    let start = format!("{}T00:00:00Z", date(today - AGE - 1));
    let source =
        Source::new(programs, &sandbox.url(), &start, &json!({"method": {"type": "query", "settle_minutes": 0}}))
            .await?;
    let folder = tempfile::tempdir()?;
    let [config, catalog] = ["config.json", "catalog.json"].map(|name| folder.path().join(name));
    let options = json!({"api_key": API_KEY, "base_url": sandbox.url(), "start_date": start, "events_time_step": 30});
    std::fs::write(&config, options.to_string())?;
    let stream = json!({"name": "events", "json_schema": {}, "supported_sync_modes": ["full_refresh", "incremental"]});
    let chosen = json!({"stream": stream, "sync_mode": "incremental", "destination_sync_mode": "append"});
    std::fs::write(&catalog, json!({"streams": [chosen]}).to_string())?;
    let theirs = Subject::new(program).with(["read", "--config"]).with([&config]).with(["--catalog"]).with([&catalog]);
    for subject in [&theirs, source.subject()] {
        let printed = count(subject, None).await?;
        ensure!(printed.records == events, "{} records came of {events} events: {subject:?}", printed.records);
    }
    let (mut their_seconds, mut our_seconds) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        their_seconds.push(theirs.run().await?.cpu);
        our_seconds.push(source.subject().run().await?.cpu);
    }
    Ok((Spread::of(their_seconds), Spread::of(our_seconds)))
}

/// A virtual environment with the connector; made once.
async fn install(folder: &Path) -> anyhow::Result<PathBuf> {
    let (program, marker) = (folder.join("bin/source-posthog"), folder.join("installed"));
    if std::fs::read_to_string(&marker).is_ok_and(|installed| installed == REQUIREMENTS) {
        return Ok(program);
    }
    std::fs::create_dir_all(folder)?;
    let requirements = folder.join("requirements.txt");
    std::fs::write(&requirements, REQUIREMENTS)?;
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder)).await.context("python3 with venv")?;
    std::fs::write(&requirements, REQUIREMENTS)?;
    run(Command::new(folder.join("bin/pip"))
        .args(["install", "--quiet", "--no-deps", "--require-hashes", "--requirement"])
        .arg(&requirements))
    .await?;
    std::fs::write(&marker, REQUIREMENTS)?;
    Ok(program)
}

async fn run(command: &mut Command) -> anyhow::Result<Output> {
    let output = command.stdin(Stdio::null()).output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(output)
}

fn version() -> anyhow::Result<String> {
    let line = REQUIREMENTS.lines().find_map(|line| line.strip_prefix("airbyte-source-posthog=="));
    let line = line.context("the requirements lack the connector")?;
    Ok(line.trim_end_matches('\\').trim_end().to_owned())
}

#[expect(clippy::print_stderr, reason = "for whoever runs the benchmark")]
fn say(text: &str) {
    eprintln!("{text}");
}
