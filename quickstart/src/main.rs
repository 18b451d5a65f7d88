//! The main job in one command: events from a `PostHog` stand-in to a Patterns stand-in, twice.
//!
//! `make quickstart` runs it with the built programs. It exits with 1 when a count is off.

#![expect(clippy::print_stdout, reason = "it talks to a person")]

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use chrono::{Duration, Utc};
use posthog_sandbox::patterns::Webhook;
use posthog_sandbox::posthog::Sandbox;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

const PROJECT: u64 = 1001;
/// Events captured between the two syncs.
const NEW_EVENTS: usize = 120;

#[tokio::main]
async fn main() -> ExitCode {
    // Only fails when a provider has been installed before.
    drop(rustls::crypto::ring::default_provider().install_default());
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("\nQUICKSTART FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The programs and their files.
struct Workplace {
    programs: PathBuf,
    files: TempDir,
}

async fn run() -> Result<()> {
    let work = Workplace { programs: programs()?, files: TempDir::new()? };
    heading("A PostHog and a Patterns webhook, on this machine");
    let posthog = Sandbox::builder().start().await?;
    let stored = posthog.load_dataset(PROJECT, Utc::now() - Duration::hours(3))?;
    let webhook = Webhook::start().await?;
    println!("PostHog stand-in at {}, with {stored} events that official PostHog SDKs have sent", posthog.url());
    println!("Patterns stand-in at {}", webhook.url());
    work.write(
        "config.json",
        // Nothing here becomes visible late, so nothing has to be left for a later sync.
        &json!({"api_key": "phx_full", "base_url": posthog.url(), "start_date": "2020-01-01T00:00:00Z",
            "method": {"type": "auto", "settle_minutes": 0}}),
    )?;
    work.write("patterns.json", &json!({"webhook_url": webhook.url()}))?;
    std::fs::write(work.path("state.json"), "[]")?;

    heading("spec, check, discover, catalog");
    let spec = work.message("spec", &[]).await?;
    let fields = spec["spec"]["connectionSpecification"]["properties"].as_object().context("a specification")?.len();
    println!("spec      {fields} settings, 2 of them required");
    let check = work.message("check", &["--config", "config.json"]).await?;
    let status = &check["connectionStatus"];
    println!("check     {}: {}", text(&status["status"]), text(&status["message"]));
    ensure!(status["status"] == "SUCCEEDED", "check failed");
    let catalog = work.message("discover", &["--config", "config.json"]).await?;
    let streams = catalog["catalog"]["streams"].as_array().context("streams")?;
    println!("discover  {}", streams.iter().map(|stream| text(&stream["name"])).collect::<Vec<_>>().join(", "));
    let catalog = work.source("catalog", &["--config", "config.json", "--streams", "events"]).await?;
    std::fs::write(work.path("catalog.json"), catalog)?;

    heading("First sync: source-posthog read … | destination-patterns write …");
    work.sync().await?;
    expect("delivered", delivered(&webhook).len(), stored)?;

    heading("Second sync, after new events were captured");
    let new_ids = capture(&posthog).await?;
    println!("{} new events were captured; one comes from a device that was offline for 40 days", new_ids.len());
    let before = webhook.records().len();
    work.sync().await?;
    let sent = webhook.records().len() - before;
    println!("{sent} records were sent; only what is new was read");
    expect("delivered in all", delivered(&webhook).len(), stored + NEW_EVENTS)?;
    ensure!(new_ids.is_subset(&delivered(&webhook)), "a new event is missing");
    ensure!(sent < stored / 2, "the second sync read everything again");

    heading("What arrived, and what is kept");
    let records = webhook.records();
    let sample =
        records.iter().find(|record| record["event"] == "$pageview").or(records.first()).context("a record")?;
    println!("one record of {}:\n{}", records.len(), shortened(sample));
    println!(
        "\nthe state file, from which the next sync continues:\n{}",
        std::fs::read_to_string(work.path("state.json"))?.trim()
    );

    heading("The same with your own project");
    println!("{}", instructions(&work.programs));
    Ok(())
}

impl Workplace {
    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn write(&self, name: &str, content: &Value) -> Result<()> {
        Ok(std::fs::write(self.path(name), content.to_string())?)
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command
            .current_dir(self.files.path())
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .env_remove("POSTHOG_API_KEY");
        command
    }

    /// The output of a command of the source.
    async fn source(&self, command: &str, arguments: &[&str]) -> Result<Vec<u8>> {
        let output = self.program("source-posthog").arg(command).args(arguments).output().await?;
        ensure!(output.status.success(), "{command} failed: {}", String::from_utf8_lossy(&output.stdout));
        Ok(output.stdout)
    }

    /// The message of a command that answers with one, apart from its log.
    async fn message(&self, command: &str, arguments: &[&str]) -> Result<Value> {
        let output = self.source(command, arguments).await?;
        let mut lines =
            output.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
        lines.rfind(|message| message["type"] != "LOG").with_context(|| format!("{command} said nothing"))
    }

    /// One sync through a pipe, as a shell would do it.
    async fn sync(&self) -> Result<()> {
        let begin = Instant::now();
        let read = ["read", "--config", "config.json", "--catalog", "catalog.json", "--state", "state.json"];
        let write = ["write", "--config", "patterns.json", "--catalog", "catalog.json", "--state-file", "state.json"];
        let mut source = self.program("source-posthog").args(read).stdout(Stdio::piped()).spawn()?;
        let pipe: Stdio = source.stdout.take().context("the pipe")?.try_into()?;
        let destination = self
            .program("destination-patterns")
            .args(write)
            .arg("--quiet")
            .stdin(pipe)
            .stdout(Stdio::piped())
            .spawn()?;
        let (source, destination) = tokio::try_join!(source.wait(), destination.wait_with_output())?;
        let messages = String::from_utf8_lossy(&destination.stdout);
        if !source.success() || !destination.status.success() {
            bail!("the sync failed (source: {source}, destination: {}):\n{messages}", destination.status);
        }
        let states: Vec<Value> = messages
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|message| message["type"] == "STATE")
            .collect();
        let count: f64 =
            states.iter().filter_map(|state| state["state"]["destinationStats"]["recordCount"].as_f64()).sum();
        println!(
            "{count} events went from PostHog to Patterns in {:.1} s; {} states were acknowledged",
            begin.elapsed().as_secs_f64(),
            states.len()
        );
        Ok(())
    }
}

/// The directory of the built programs, which `make quickstart` builds beside this one.
fn programs() -> Result<PathBuf> {
    let quickstart = std::env::current_exe()?;
    let directory = quickstart.parent().context("the target directory")?.to_owned();
    for name in ["source-posthog", "destination-patterns"] {
        ensure!(directory.join(name).exists(), "{name} is not built; run `make quickstart`");
    }
    Ok(directory)
}

/// Sends new events to the capture endpoint, as an SDK would, and returns their uuids.
async fn capture(posthog: &Sandbox) -> Result<BTreeSet<String>> {
    let now = Utc::now();
    let events: Vec<Value> = (0..NEW_EVENTS)
        .map(|number| {
            let age = if number == 0 { Duration::days(40) } else { Duration::seconds(60) };
            json!({
                "uuid": uuid::Uuid::now_v7().to_string(),
                "event": "quickstart",
                "distinct_id": format!("visitor-{}", number % 7),
                "timestamp": now - age,
                "properties": {"number": number, "$lib": "quickstart"},
            })
        })
        .collect();
    let body = json!({"api_key": "phc_sandbox", "batch": events, "sent_at": now});
    let response = reqwest::Client::new().post(format!("{}/batch/", posthog.url())).json(&body).send().await?;
    ensure!(response.status().is_success(), "the capture endpoint answers {}", response.status());
    Ok(events.iter().filter_map(|event| event["uuid"].as_str().map(str::to_owned)).collect())
}

fn delivered(webhook: &Webhook) -> BTreeSet<String> {
    webhook.records().iter().filter_map(|record| record["uuid"].as_str().map(str::to_owned)).collect()
}

fn expect(what: &str, found: usize, wanted: usize) -> Result<()> {
    ensure!(found == wanted, "{found} events {what}, but {wanted} are stored");
    println!("{found} different events {what}, {wanted} stored: nothing is missing");
    Ok(())
}

fn heading(text: &str) {
    if std::io::stdout().is_terminal() {
        println!("\n\u{1b}[1m{text}\u{1b}[0m");
    } else {
        println!("\n== {text}");
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A record without the long tail of its properties.
fn shortened(record: &Value) -> String {
    let mut record = record.clone();
    if let Some(properties) = record["properties"].as_object_mut() {
        let (all, kept) = (properties.len(), 6);
        *properties = properties.iter().take(kept).map(|(key, value)| (key.clone(), value.clone())).collect();
        if all > kept {
            properties.insert("…".to_owned(), json!(format!("{} more", all - kept)));
        }
    }
    serde_json::to_string_pretty(&record).unwrap_or_default()
}

fn instructions(programs: &Path) -> String {
    let start = (Utc::now() - Duration::days(30)).format("%Y-%m-%dT00:00:00Z");
    format!(
        r#"make build
export PATH="{}:$PATH"
export POSTHOG_API_KEY=phx_...      # Settings > Personal API keys, scopes query:read, project:read and batch_export:write
echo '{{"base_url": "https://us.posthog.com", "start_date": "{start}"}}' > config.json
echo '{{"webhook_url": "https://api.patterns.app/api/app/webhooks/..."}}' > patterns.json
source-posthog check --config config.json
source-posthog catalog --config config.json --streams events > catalog.json
touch state.json
source-posthog read --quiet --config config.json --catalog catalog.json --state state.json \
  | destination-patterns write --config patterns.json --catalog catalog.json --state-file state.json"#,
        programs.with_file_name("release").display()
    )
}
