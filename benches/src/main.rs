//! Measures everything and writes it down; see `make bench`.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Parser, Subcommand};
use posthog_benchmark::drain::{Request, drain};
use posthog_benchmark::machine::Machine;
use posthog_benchmark::programs::{Programs, Server};
use posthog_benchmark::results::{Results, Way};
use posthog_benchmark::server::{Size, serve};
use posthog_benchmark::targets::Target;
use posthog_benchmark::{airbyte, concurrency, costs, measure, pace, planning, plot, report, targets, throughput};
use tokio::runtime::Runtime;

/// Measures the built programs next to plain downloads of the same bytes.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures everything and writes the figures into the documentation
    Run {
        /// Few events, to see that everything works; the documentation stays as it is
        #[arg(long)]
        quick: bool,
        /// Folder of the documentation
        #[arg(long, default_value = "docs")]
        documentation: PathBuf,
    },
    /// Measures what syncs cost, and prints that part of the documentation
    Costs {
        /// Few events
        #[arg(long)]
        quick: bool,
    },
    /// Measures syncs at PostHog's pace, and prints that part of the documentation
    Pace,
    /// Runs one program and prints what it has used
    Measure {
        /// Its standard input
        #[arg(long)]
        input: Option<PathBuf>,
        /// The program and its arguments
        #[arg(last = true, required = true)]
        program: Vec<OsString>,
    },
    /// Serves events from memory until it is ended; prints one line of JSON when it is ready
    Serve {
        /// Number of events
        #[arg(long)]
        events: u64,
        /// Events of a page, and of a day
        #[arg(long)]
        page: u64,
        /// Only figures of the events, spread over so many days up to now
        #[arg(long)]
        counted_days: Option<i64>,
    },
    /// Sends requests and throws the answers away
    Drain {
        /// The requests, as JSON
        requests: PathBuf,
    },
}

/// How much is measured.
struct Scale {
    page: u64,
    /// Events, and how often they are read.
    volumes: [(u64, usize); 3],
    /// How often they are written, for the smaller volume.
    writes: usize,
    spec: usize,
    /// None: Airbyte's connector is left out.
    airbyte: Option<[u64; 2]>,
    windows: u64,
    latency: Duration,
    concurrency: &'static [usize],
    rounds: usize,
    /// Rows of a page in the bursty year.
    planning: u64,
    costs: costs::Scale,
    pace: pace::Scale,
}

const FULL: Scale = Scale {
    page: 50_000,
    volumes: [(100_000, 15), (500_000, 7), (2_000_000, 5)],
    writes: 5,
    spec: 50,
    airbyte: Some([2_000, 20_000]),
    windows: 48,
    latency: Duration::from_millis(200),
    concurrency: &[1, 3, 6],
    rounds: 3,
    planning: 50_000,
    // Five years.
    costs: costs::Scale {
        paged: [(100_000, 10_000), (5_000_000, 50_000)],
        counted: (1_000_000_000, 1_826),
        added: 1_000,
        rounds: 5,
    },
    pace: pace::Scale {
        events: 20_000,
        query: Duration::from_millis(400),
        other: Duration::from_millis(250),
        run: Duration::from_secs(45),
    },
};

const QUICK: Scale = Scale {
    page: 500,
    volumes: [(1_000, 1), (2_000, 1), (3_000, 1)],
    writes: 1,
    spec: 3,
    airbyte: None,
    windows: 6,
    latency: Duration::from_millis(20),
    concurrency: &[1, 3],
    rounds: 1,
    planning: 500,
    costs: costs::Scale { paged: [(1_000, 500), (2_000, 500)], counted: (1_000_000, 100), added: 100, rounds: 1 },
    pace: pace::Scale {
        events: 1_000,
        query: Duration::from_millis(1),
        other: Duration::from_millis(1),
        run: Duration::from_millis(1),
    },
};

fn main() -> ExitCode {
    match execute(Arguments::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // A sentence, without a stack trace even where one is asked for.
            drop(writeln!(std::io::stderr(), "The benchmark has failed: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Returns false if a target was missed.
fn execute(command: Command) -> anyhow::Result<bool> {
    match command {
        Command::Run { quick, documentation } => {
            return runtime()?.block_on(run(if quick { &QUICK } else { &FULL }, quick, &documentation));
        }
        Command::Costs { quick } => {
            let scale = if quick { QUICK.costs } else { FULL.costs };
            let costs = runtime()?.block_on(costs::measure(&Programs::find()?, scale))?;
            let mut text = String::new();
            report::costs(&mut text, &costs, scale.added)?;
            writeln!(std::io::stdout(), "{text}")?;
            return verdict(Instant::now(), &costs.iter().flat_map(targets::of_costs).collect::<Vec<_>>());
        }
        Command::Pace => {
            let pace = runtime()?.block_on(pace::measure(&Programs::find()?, FULL.pace))?;
            let mut text = String::new();
            report::pace(&mut text, &pace)?;
            writeln!(std::io::stdout(), "{text}")?;
            return verdict(Instant::now(), &pace.iter().map(targets::of_pace).collect::<Vec<_>>());
        }
        Command::Serve { events, page, counted_days } => {
            let size = Size { events, page, counted_days };
            runtime()?
                .block_on(serve(size, |ready| Ok(writeln!(std::io::stdout(), "{}", serde_json::to_string(ready)?)?)))
        }
        Command::Measure { input, program } => {
            let (program, arguments) = program.split_first().context("no program")?;
            let used = measure::measure(program, arguments, input.as_deref())?;
            Ok(writeln!(std::io::stdout(), "{}", serde_json::to_string(&used)?)?)
        }
        Command::Drain { requests } => {
            let requests: Vec<Request> = serde_json::from_slice(&std::fs::read(requests)?)?;
            Ok(writeln!(std::io::stdout(), "{}", drain(&requests)?)?)
        }
    }?;
    Ok(true)
}

fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

async fn run(scale: &Scale, quick: bool, documentation: &Path) -> anyhow::Result<bool> {
    let programs = Programs::find()?;
    let begin = Instant::now();
    say(begin, "spec")?;
    let spec = throughput::spec(&programs, scale.spec).await?;
    let airbyte = match scale.airbyte {
        Some(events) => {
            say(begin, "Airbyte's connector")?;
            airbyte::compare(&programs, events, scale.rounds).await?
        }
        None => None,
    };
    say(begin, "requests at a time")?;
    let (windows, latency) = (scale.windows, scale.latency);
    let concurrency = concurrency::measure(&programs, windows, latency, scale.concurrency, scale.rounds).await?;
    say(begin, "a year in planned windows")?;
    let planning = planning::compare(&programs, scale.planning).await?;
    say(begin, "what syncs cost")?;
    let costs = costs::measure(&programs, scale.costs).await?;
    say(begin, "syncs at PostHog's pace")?;
    let pace = pace::measure(&programs, scale.pace).await?;
    let mut comparisons = Vec::new();
    for (events, rounds) in scale.volumes {
        let size = Size::pages(events, scale.page);
        let server = Server::start(size).await?;
        for way in [Way::Query, Way::QueryGzip, Way::Export] {
            say(begin, &format!("{}, {events} events", way.name()))?;
            comparisons.push(throughput::read(&programs, &server, size, way, rounds).await?);
        }
        if events == scale.volumes[0].0 {
            say(begin, &format!("{}, {events} events", Way::Write.name()))?;
            comparisons.push(throughput::write(&programs, &server, size, scale.writes).await?);
        }
    }
    let mut results = Results {
        machine: Machine::here(),
        page: scale.page,
        comparisons,
        spec,
        spec_runs: scale.spec,
        airbyte,
        latency: latency.as_secs_f64(),
        windows,
        concurrency,
        planning,
        added: scale.costs.added,
        costs,
        pace,
        targets: Vec::new(),
    };
    results.targets = targets::judge(&results);
    write(&results, quick, &programs.cache(), documentation)?;
    say(begin, "done")?;
    // Nothing follows from the figures of a quick run.
    if quick { Ok(true) } else { verdict(begin, &results.targets) }
}

/// Prints which targets were met. Returns false if one was missed.
fn verdict(begin: Instant, targets: &[Target]) -> anyhow::Result<bool> {
    for target in targets {
        let verdict = if target.met { "met   " } else { "MISSED" };
        say(begin, &format!("{verdict} {}: {}", target.aim, target.reached))?;
    }
    let missed = targets.iter().filter(|target| !target.met).count();
    match missed {
        0 => say(begin, "All targets were met.")?,
        1 => say(begin, "One target was missed; it is marked in the table of targets.")?,
        _ => say(begin, &format!("{missed} targets were missed; they are marked in the table of targets."))?,
    }
    Ok(missed == 0)
}

/// Writes JSON, picture and tables; those of a quick run where nobody takes them for figures.
fn write(results: &Results, quick: bool, cache: &Path, documentation: &Path) -> anyhow::Result<()> {
    let page = std::fs::read_to_string(documentation.join("PERFORMANCE.md")).context("docs/PERFORMANCE.md")?;
    let folder = if quick { cache.join("quick") } else { documentation.to_owned() };
    let pictures = folder.join("pictures");
    std::fs::create_dir_all(&pictures)?;
    std::fs::create_dir_all(cache)?;
    std::fs::write(folder.join("PERFORMANCE.md"), report::insert(&page, results)?)?;
    std::fs::write(pictures.join("performance.svg"), plot::draw(results)?)?;
    let json = if quick { folder.join("results.json") } else { cache.join("results.json") };
    Ok(std::fs::write(json, serde_json::to_string_pretty(results)?)?)
}

fn say(begin: Instant, text: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stderr(), "{:6.1} s  {text}", begin.elapsed().as_secs_f64())?)
}
