//! Reading and writing at full speed, next to the floor.
//!
//! The floor is curl downloading exactly what the connector has asked for and throwing it away, with
//! the fastest program that is installed behind it where they are compressed. Subjects take turns, so that whatever else the
//! machine does meets all of them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde_json::json;
use tempfile::TempDir;

use crate::drain;
use crate::measure::{Subject, Used};
use crate::programs::{Printed, Programs, Server, Source};
use crate::results::{Comparison, Row, Spread, Volume, Way};
use crate::server::Size;

/// Reads the events of a server in one way, several times.
///
/// # Errors
/// When a program fails, or prints another number of records than there are events.
pub async fn read(
    programs: &Programs,
    server: &Server,
    size: Size,
    way: Way,
    rounds: usize,
) -> anyhow::Result<Comparison> {
    let method = match way {
        Way::Query | Way::QueryGzip => json!({"type": "query", "page_size": size.page, "settle_minutes": 0}),
        Way::Export => json!({"type": "export", "settle_minutes": 0}),
        Way::Write => anyhow::bail!("`write` does not read"),
    };
    server.compress(way == Way::QueryGzip).await?;
    server.refuse_figures(way == Way::Export).await?;
    let ready = &server.ready;
    let source = Source::new(programs, &ready.url, &ready.start, &json!({"method": method, "export_above": 0})).await?;
    server.traffic().await?;
    let printed = source.count(None).await?;
    ensure!(printed.records == size.events, "{} records came of {} events", printed.records, size.events);
    let traffic = server.traffic().await?;
    let volume = Volume { events: size.events, unpacked: traffic.unpacked, sent: traffic.sent };

    let folder = TempDir::new()?;
    let requests = folder.path().join("requests.json");
    std::fs::write(&requests, serde_json::to_string(&traffic.requests)?)?;
    let packed = traffic.requests.iter().any(|request| request.gzip);
    let unpacker = packed.then(unpacker);
    let floor = floor(&traffic.requests, unpacker, folder.path())?;
    let ceiling = Subject::new(std::env::current_exe()?).with(["drain"]).with([&requests]);
    let used = take_turns(&[&floor, &ceiling, source.subject()], rounds).await?;
    let [floor, ceiling, program] = <[Vec<Used>; 3]>::try_from(used).ok().context("three subjects")?;
    let name = unpacker.map_or_else(|| "curl (floor)".to_owned(), |unpacker| format!("curl and {unpacker} (floor)"));
    Ok(Comparison {
        way,
        program: Row::new(way.name(), volume, &program, Some(&floor)),
        ceiling: Some(Row::new("server's ceiling", volume, &ceiling, Some(&floor))),
        floor: Row::new(&name, volume, &floor, None),
    })
}

/// Writes events to a webhook that takes everything, several times.
///
/// # Errors
/// When a program fails or does not acknowledge all records.
pub async fn write(programs: &Programs, server: &Server, size: Size, rounds: usize) -> anyhow::Result<Comparison> {
    let ready = &server.ready;
    server.compress(false).await?;
    server.refuse_figures(false).await?;
    let options = json!({"method": {"type": "query", "page_size": size.page, "settle_minutes": 0}});
    let source = Source::new(programs, &ready.url, &ready.start, &options).await?;
    let folder = TempDir::new_in(prepared(programs.cache())?)?;
    let [messages, config] = ["messages.jsonl", "config.json"].map(|name| folder.path().join(name));
    let printed = source.count(Some(&messages)).await?;
    ensure!(printed.records == size.events, "{} records came of {} events", printed.records, size.events);
    std::fs::write(&config, json!({"webhook_url": ready.webhook}).to_string())?;
    let program = programs.subject("destination-patterns").with(["write", "--config"]).with([&config]);
    let program = program.with(["--catalog"]).with([&source.catalog()]).reading(&messages);
    acknowledged(&program, &messages, printed).await?;
    let bytes = std::fs::metadata(&messages)?.len();
    let volume = Volume { events: size.events, unpacked: bytes, sent: bytes };
    let floor = Subject::new("curl")
        .with(["-sS", "--fail", "-o", "/dev/null", "-H", "Expect:", "-X", "POST", "-T"])
        .with([&messages])
        .with([&ready.webhook]);
    let used = take_turns(&[&floor, &program], rounds).await?;
    let [floor, program] = <[Vec<Used>; 2]>::try_from(used).ok().context("two subjects")?;
    Ok(Comparison {
        way: Way::Write,
        program: Row::new(Way::Write.name(), volume, &program, Some(&floor)),
        ceiling: None,
        floor: Row::new("curl, uploading (floor)", volume, &floor, None),
    })
}

/// The fastest program that is installed and unpacks gzip from its standard input.
fn unpacker() -> &'static str {
    let folders: Vec<PathBuf> = std::env::var_os("PATH").iter().flat_map(std::env::split_paths).collect();
    let is_installed = |name: &&str| folders.iter().any(|folder| folder.join(name).is_file());
    ["igzip", "pigz"].into_iter().find(is_installed).unwrap_or("gzip")
}

/// Starts `spec` many times.
///
/// # Errors
/// When it fails.
pub async fn spec(programs: &Programs, rounds: usize) -> anyhow::Result<Spread> {
    let used = take_turns(&[&programs.subject("source-posthog").with(["spec"])], rounds).await?;
    Ok(Spread::of(used.iter().flatten().map(|used| used.wall)))
}

/// Runs every subject once a round; in every round, another one is the first.
async fn take_turns(subjects: &[&Subject], rounds: usize) -> anyhow::Result<Vec<Vec<Used>>> {
    let mut used: Vec<Vec<Used>> = vec![Vec::new(); subjects.len()];
    for round in 0..rounds {
        let mut turns: Vec<_> = subjects.iter().zip(&mut used).collect();
        let first = round % turns.len().max(1);
        turns.rotate_left(first);
        for (subject, used) in turns {
            used.push(subject.run().await?);
        }
    }
    Ok(used)
}

/// The destination has to give the state back, with the number of its records.
async fn acknowledged(program: &Subject, messages: &Path, printed: Printed) -> anyhow::Result<()> {
    let input = std::fs::File::open(messages)?;
    let output = program.command().stdin(input).output().await?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "`write` has failed: {text:.2000}");
    let count = format!("\"destinationStats\":{{\"recordCount\":{}.0", printed.records);
    ensure!(text.contains(&count), "`write` has not acknowledged {} records: {text:.2000}", printed.records);
    Ok(())
}

/// curl with the same requests, one after the other over the same connections.
fn floor(requests: &[drain::Request], unpacker: Option<&str>, folder: &Path) -> anyhow::Result<Subject> {
    let mut script = String::new();
    for (number, request) in requests.iter().enumerate() {
        if number > 0 {
            script.push_str("next\n");
        }
        write!(script, "silent\nfail\nurl = \"http://{}{}\"\n", request.host, request.path)?;
        writeln!(script, "output = \"{}\"", if unpacker.is_some() { "-" } else { "/dev/null" })?;
        if let Some(authorization) = &request.authorization {
            writeln!(script, "header = \"Authorization: {authorization}\"")?;
        }
        if request.gzip && request.method == "POST" {
            writeln!(script, "header = \"Accept-Encoding: gzip\"")?;
        }
        if request.method == "POST" {
            let body = request.body.replace('\\', r"\\").replace('"', "\\\"");
            writeln!(script, "header = \"Content-Type: application/json\"\ndata = \"{body}\"")?;
        }
    }
    let file = folder.join("curl.config");
    std::fs::write(&file, script)?;
    if let Some(unpacker) = unpacker {
        return Ok(Subject::shell(&format!("curl --config '{}' | {unpacker} -dc > /dev/null", file.display())));
    }
    Ok(Subject::new("curl").with(["--config"]).with([&file]))
}

fn prepared(folder: PathBuf) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}
