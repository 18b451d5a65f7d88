//! The measured programs with their files, and the server.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use axum::http::Method;
use memchr::memmem;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::http::{API_KEY, Client, PROJECT};
use crate::measure::Subject;
use crate::server::{Queries, Ready, Size, Traffic};

const RECORD: &[u8] = br#"{"type":"RECORD""#;
const STATE: &[u8] = br#"{"type":"STATE""#;

/// The built programs, which are beside this one.
#[derive(Debug, Clone)]
pub struct Programs(PathBuf);

impl Programs {
    /// Those of the build that this program is of.
    ///
    /// # Errors
    /// When one of them is missing.
    pub fn find() -> anyhow::Result<Self> {
        let folder = std::env::current_exe()?.parent().context("this program is in no folder")?.to_owned();
        for name in ["source-posthog", "destination-patterns"] {
            ensure!(folder.join(name).exists(), "{} is missing; use `make bench`", folder.join(name).display());
        }
        Ok(Self(folder))
    }

    /// A program that can be measured.
    pub fn subject(&self, name: &str) -> Subject {
        Subject::new(self.0.join(name))
    }

    /// A folder for what may be kept from run to run.
    pub fn cache(&self) -> PathBuf {
        self.0.parent().unwrap_or(&self.0).join("benchmark")
    }
}

/// What a `read` has printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Printed {
    /// RECORD messages.
    pub records: u64,
    /// STATE messages.
    pub states: u64,
}

/// The source with a configuration and a catalog for the events of one project.
#[derive(Debug)]
pub struct Source {
    folder: TempDir,
    subject: Subject,
}

impl Source {
    /// Prepares reading from `url`; `options` are added to the configuration.
    ///
    /// # Errors
    /// When the files cannot be written or the program does not know the stream.
    pub async fn new(programs: &Programs, url: &str, start: &str, options: &Value) -> anyhow::Result<Self> {
        Self::of(programs, url, start, options, Some("events")).await
    }

    /// The same for these streams, or for all.
    ///
    /// # Errors
    /// As for [`Source::new`].
    pub async fn of(
        programs: &Programs,
        url: &str,
        start: &str,
        options: &Value,
        streams: Option<&str>,
    ) -> anyhow::Result<Self> {
        let mut config = json!({
            "api_key": API_KEY, "base_url": url, "start_date": start, "project_ids": [PROJECT], "rate_limit_share": 1.0,
        });
        if let (Some(config), Some(options)) = (config.as_object_mut(), options.as_object()) {
            config.extend(options.clone());
        }
        let folder = TempDir::new()?;
        let [config_file, catalog_file] = ["config.json", "catalog.json"].map(|name| folder.path().join(name));
        std::fs::write(&config_file, config.to_string())?;
        let program = programs.subject("source-posthog");
        let catalog = program.clone().with(["catalog", "--config"]).with([&config_file]);
        let catalog = streams.into_iter().fold(catalog, |catalog, names| catalog.with(["--streams", names]));
        let catalog = catalog.command().output().await?;
        ensure!(catalog.status.success(), "`catalog` has failed: {}", String::from_utf8_lossy(&catalog.stdout));
        std::fs::write(&catalog_file, catalog.stdout)?;
        let subject = program.with(["read", "--quiet", "--config"]).with([&config_file]);
        let subject = subject.with(["--catalog"]).with([&catalog_file]);
        Ok(Self { folder, subject })
    }

    /// `read`, to be measured.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    pub fn catalog(&self) -> PathBuf {
        self.folder.path().join("catalog.json")
    }

    /// Reads once and counts; records and the last state go to `copy`, if there is one.
    ///
    /// # Errors
    /// When the program fails.
    pub async fn count(&self, copy: Option<&Path>) -> anyhow::Result<Printed> {
        count(&self.subject, copy).await
    }

    /// `read` from a state as it has been printed.
    ///
    /// # Errors
    /// When the state cannot be written to a file.
    pub fn from_state(&self, state: Option<&Value>) -> anyhow::Result<Subject> {
        state.map_or_else(|| Ok(self.subject.clone()), |state| self.from_states(&json!([state])))
    }

    /// `read` from a list of states.
    ///
    /// # Errors
    /// When the states cannot be written to a file.
    pub fn from_states(&self, states: &Value) -> anyhow::Result<Subject> {
        let file = self.folder.path().join("state.json");
        std::fs::write(&file, states.to_string())?;
        Ok(self.subject.clone().with(["--state"]).with([&file]))
    }

    /// Reads once from a state, and counts; the last state is returned, too.
    ///
    /// # Errors
    /// When the program fails.
    pub async fn sync(&self, state: Option<&Value>) -> anyhow::Result<(Printed, Vec<u8>)> {
        listen(&self.from_state(state)?, None).await
    }
}

/// Runs a connector and counts what it prints; records and the last state go to `copy`, if there is
/// one.
///
/// # Errors
/// When the program fails.
pub async fn count(subject: &Subject, copy: Option<&Path>) -> anyhow::Result<Printed> {
    Ok(listen(subject, copy).await?.0)
}

async fn listen(subject: &Subject, copy: Option<&Path>) -> anyhow::Result<(Printed, Vec<u8>)> {
    let mut copy = copy.map(|path| File::create(path).map(BufWriter::new)).transpose()?;
    let mut child = subject.command().stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let mut output = BufReader::with_capacity(1 << 20, child.stdout.take().context("no standard output")?);
    let (mut printed, mut line) = (Printed::default(), Vec::new());
    let (mut state, mut last) = (Vec::new(), Vec::new());
    while output.read_until(b'\n', &mut line).await? > 0 {
        if is(&line, RECORD) {
            printed.records += 1;
            if let Some(copy) = &mut copy {
                copy.write_all(&line)?;
            }
        } else if is(&line, STATE) {
            printed.states += 1;
            state.clone_from(&line);
        } else if memmem::find(&line, b"\"ERROR\"").is_some() {
            last.clone_from(&line);
        }
        line.clear();
    }
    let status = child.wait().await?;
    ensure!(status.success(), "a read has ended with {status}: {:.2000}", String::from_utf8_lossy(&last));
    if let Some(copy) = &mut copy {
        // The last state stands for all: the number of records that it names is only about its own.
        let mut state: Value = serde_json::from_slice(&state)?;
        if let Some(state) = state["state"].as_object_mut() {
            state.remove("sourceStats");
        }
        writeln!(copy, "{state}")?;
        copy.flush()?;
    }
    Ok((printed, state))
}

/// Whether a message is of a type, however the connector spaces its JSON.
fn is(line: &[u8], start: &[u8]) -> bool {
    let head: Vec<u8> = line.iter().take(start.len() + 4).copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    head.starts_with(start)
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// Where it is.
    pub ready: Ready,
    client: Client,
    /// Ends with this value.
    _process: Child,
}

impl Server {
    /// Starts one and waits until it has everything in memory that does not depend on questions.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(size: Size) -> anyhow::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["serve", "--events", &size.events.to_string(), "--page", &size.page.to_string()])
            .args(size.counted_days.map(|days| format!("--counted-days={days}")))
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut lines = BufReader::new(process.stdout.take().context("no standard output")?).lines();
        let line = lines.next_line().await?.context("the benchmark server has not started")?;
        Ok(Self { ready: serde_json::from_str(&line)?, client: Client::default(), _process: process })
    }

    /// What has been asked since the last time.
    ///
    /// # Errors
    /// When the server is gone.
    pub async fn traffic(&self) -> anyhow::Result<Traffic> {
        self.client.json(Method::GET, &format!("{}/benchmark/traffic", self.ready.url), None).await
    }

    /// Queries since the last time.
    ///
    /// # Errors
    /// When the server is gone.
    pub async fn queries(&self) -> anyhow::Result<Queries> {
        self.client.json(Method::GET, &format!("{}/benchmark/queries", self.ready.url), None).await
    }

    /// Adds events that happen and arrive now. Returns when a sync that begins finds them in its past.
    ///
    /// # Errors
    /// When the server is gone.
    pub async fn add(&self, events: u64) -> anyhow::Result<()> {
        self.switch(&format!("add/{events}")).await?;
        // The connector goes by the date of an answer, which is in whole seconds.
        tokio::time::sleep(Duration::from_secs(2)).await;
        Ok(())
    }

    /// Compresses the answers of queries from now on, or does not.
    ///
    /// # Errors
    /// When the server is gone.
    pub async fn compress(&self, gzip: bool) -> anyhow::Result<()> {
        self.switch(&format!("gzip/{gzip}")).await
    }

    /// Whether queries for figures are refused. All files have the same events, whose figures are not those
    /// of the pages.
    ///
    /// # Errors
    /// When the server is gone.
    pub async fn refuse_figures(&self, refused: bool) -> anyhow::Result<()> {
        self.switch(if refused { "figures/refused" } else { "figures/given" }).await
    }

    async fn switch(&self, switch: &str) -> anyhow::Result<()> {
        let answer = self.client.send(Method::PUT, &format!("{}/benchmark/{switch}", self.ready.url), None).await?;
        ensure!(answer.status.is_success(), "the benchmark server answers {}", answer.status);
        Ok(())
    }
}
