//! Measures everything and writes it down; see `make bench`.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Parser, Subcommand};
use posthog_benchmark::drain::{Request, drain};
use posthog_benchmark::machine::Machine;
use posthog_benchmark::programs::{Programs, Server};
use posthog_benchmark::results::{Results, Way};
use posthog_benchmark::server::{Size, serve};
use posthog_benchmark::{airbyte, concurrency, measure, planning, plot, report, targets, throughput};
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
}

const FULL: Scale = Scale {
    page: 50_000,
    volumes: [(100_000, 15), (500_000, 9), (2_000_000, 9)],
    writes: 5,
    spec: 50,
    airbyte: Some([2_000, 20_000]),
    windows: 48,
    latency: Duration::from_millis(200),
    concurrency: &[1, 3, 6],
    rounds: 3,
    planning: 50_000,
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
};

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Run { quick, documentation } => {
            runtime()?.block_on(run(if quick { &QUICK } else { &FULL }, quick, &documentation))
        }
        Command::Serve { events, page } => runtime()?.block_on(serve(Size { events, page }, |ready| {
            Ok(writeln!(std::io::stdout(), "{}", serde_json::to_string(ready)?)?)
        })),
        Command::Measure { input, program } => {
            let (program, arguments) = program.split_first().context("no program")?;
            let used = measure::measure(program, arguments, input.as_deref())?;
            Ok(writeln!(std::io::stdout(), "{}", serde_json::to_string(&used)?)?)
        }
        Command::Drain { requests } => {
            let requests: Vec<Request> = serde_json::from_slice(&std::fs::read(requests)?)?;
            Ok(writeln!(std::io::stdout(), "{}", drain(&requests)?)?)
        }
    }
}

fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

async fn run(scale: &Scale, quick: bool, documentation: &Path) -> anyhow::Result<()> {
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
    let mut comparisons = Vec::new();
    for (events, rounds) in scale.volumes {
        let size = Size { events, page: scale.page };
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
        targets: Vec::new(),
    };
    results.targets = targets::judge(&results);
    write(&results, quick, &programs.cache(), documentation)?;
    say(begin, "done")?;
    // Nothing follows from the figures of a quick run.
    for target in results.targets.iter().filter(|_| !quick) {
        let verdict = if target.met { "met   " } else { "MISSED" };
        say(begin, &format!("{verdict} {}: {}", target.aim, target.reached))?;
    }
    let missed = results.targets.iter().filter(|target| !quick && !target.met).count();
    anyhow::ensure!(missed == 0, "{missed} targets were missed");
    Ok(())
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
