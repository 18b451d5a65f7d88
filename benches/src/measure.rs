//! Runs a program as a process of its own and tells what it used.
//!
//! The kernel adds up what ended children used. So that every figure is about one program, it is
//! started by a small process that has no other children: the driver itself, called anew.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde::{Deserialize, Serialize};

/// What one process, with its children, has used.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Used {
    /// From start to end, in seconds.
    pub wall: f64,
    /// In user and kernel mode, in seconds.
    pub cpu: f64,
    /// Peak resident memory in bytes, of the largest process.
    pub peak: u64,
}

/// A program to be measured.
#[derive(Debug, Clone)]
pub struct Subject {
    program: OsString,
    arguments: Vec<OsString>,
    input: Option<PathBuf>,
}

impl Subject {
    /// A program without arguments.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self { program: program.as_ref().to_owned(), arguments: Vec::new(), input: None }
    }

    /// A line for the shell. A failure anywhere in a pipe is a failure.
    pub fn shell(line: &str) -> Self {
        Self::new("bash").with(["-o", "pipefail", "-c", line])
    }

    /// Adds arguments.
    #[must_use]
    pub fn with<T: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = T>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Reads standard input from a file.
    #[must_use]
    pub fn reading(mut self, file: &Path) -> Self {
        self.input = Some(file.to_owned());
        self
    }

    /// The program itself, to be run without being measured.
    pub fn command(&self) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(&self.program);
        command.args(&self.arguments);
        command
    }

    /// Runs it with its standard output discarded.
    ///
    /// # Errors
    /// When it cannot be started or does not end with success; what it wrote to standard error is
    /// part of the message.
    pub async fn run(&self) -> anyhow::Result<Used> {
        let mut command = tokio::process::Command::new(std::env::current_exe()?);
        command.arg("measure");
        if let Some(input) = &self.input {
            command.arg("--input").arg(input);
        }
        command.arg("--").arg(&self.program).args(&self.arguments);
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
        if !output.status.success() {
            bail!("{} has failed: {}", self.program.display(), String::from_utf8_lossy(&output.stderr));
        }
        serde_json::from_slice(&output.stdout).context("the figures of a process")
    }
}

/// Runs a program in this process' place and returns what it used. For a process without other
/// children.
///
/// # Errors
/// When it cannot be started or does not end with success.
pub fn measure(program: &OsStr, arguments: &[OsString], input: Option<&Path>) -> anyhow::Result<Used> {
    let input = match input {
        Some(path) => File::open(path).with_context(|| format!("open {}", path.display()))?.into(),
        None => Stdio::null(),
    };
    let begin = Instant::now();
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(input)
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("start {}", program.display()))?;
    let status = child.wait()?;
    let wall = begin.elapsed().as_secs_f64();
    ensure!(status.success(), "it ended with {status}");
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    Ok(Used { wall, cpu: processor_seconds(&usage), peak: u64::try_from(usage.max_rss())? * 1024 })
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of a program's run")]
fn processor_seconds(usage: &Usage) -> f64 {
    (usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64 / 1e6
}
