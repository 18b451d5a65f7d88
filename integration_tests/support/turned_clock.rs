//! The connector in the test's own process, on the same paused clock as the sandbox, which is turned forward
//! whenever everybody waits. So an hour passes in seconds, and times are exact.

use std::io::Write;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser;
use posthog_sandbox::posthog::Sandbox;
use serde_json::{Value, json};
use source_posthog::protocol::{Audience, Writer};
use source_posthog::source::{self, Arguments};
use tempfile::TempDir;
use tokio::time::Instant;

use super::messages::Messages;

/// The most by which the clock is turned at a time.
const STEP: Duration = Duration::from_millis(100);

/// Where the connector writes.
#[derive(Clone, Default)]
struct Stdout(Arc<Mutex<Vec<u8>>>);

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Stdout {
    /// What has been printed so far.
    fn text(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
}

/// A command of the program, and the files that it reads.
struct Started {
    arguments: Arguments,
    _directory: TempDir,
}

/// A command with a configuration, and other files by the names of their arguments.
fn command(name: &str, url: &str, settings: &Value, files: &[(&str, &Value)], more: &[&str]) -> Started {
    // Only fails when another test of this process was first.
    drop(rustls::crypto::ring::default_provider().install_default());
    let directory = tempfile::tempdir().unwrap();
    let mut config = json!({"api_key": "phx_full", "base_url": url, "start_date": "2020-01-01T00:00:00Z"});
    config.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    let mut arguments = vec!["source-posthog".to_owned(), name.to_owned()];
    for (argument, content) in [("config", &config)].iter().chain(files) {
        let path = directory.path().join(argument);
        std::fs::write(&path, content.to_string()).unwrap();
        arguments.extend([format!("--{argument}"), path.to_str().unwrap().to_owned()]);
    }
    arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
    Started { arguments: Arguments::parse_from(arguments), _directory: directory }
}

/// Runs a command until it ends, or until `end` does. Returns its exit code if it has ended, and how long that took.
async fn run(started: &Started, stdout: &Stdout, end: impl Future<Output = ()>) -> (Option<ExitCode>, Duration) {
    let (output, writer) = Writer::start(stdout.clone(), Audience::Program);
    // While bytes are on their way, everybody seems to wait. The clock goes on in small steps then, not to the
    // next deadline.
    let steps = tokio::spawn(async {
        loop {
            tokio::time::sleep(STEP).await;
            std::thread::sleep(STEP / 1_000);
        }
    });
    let begin = Instant::now();
    let code = tokio::select! {
        code = source::run(&started.arguments.command, &output) => Some(code.unwrap()),
        () = end => None,
    };
    let took = begin.elapsed();
    steps.abort();
    writer.close(&output).await.unwrap();
    (code, took)
}

/// Reads everything from the beginning or a state. Returns what is printed, and how long that took.
pub(crate) async fn read(
    posthog: &Sandbox,
    catalog: &Value,
    state: Option<&Value>,
    settings: &Value,
) -> (Messages, Duration) {
    let files: Vec<_> = [("catalog", catalog)].into_iter().chain(state.map(|state| ("state", state))).collect();
    let started = command("read", &posthog.url(), settings, &files, &["--quiet"]);
    let stdout = Stdout::default();
    let (code, took) = run(&started, &stdout, std::future::pending()).await;
    let messages = Messages::parse(&stdout.text());
    assert_eq!(code, Some(ExitCode::SUCCESS), "{}", messages.without_records());
    (messages, took)
}

/// Checks a configuration. Returns verdict and message, and how long that took.
pub(crate) async fn check(url: &str, settings: &Value) -> (String, String, Duration) {
    let (started, stdout) = (command("check", url, settings, &[], &[]), Stdout::default());
    let (code, took) = run(&started, &stdout, std::future::pending()).await;
    assert_eq!(code, Some(ExitCode::SUCCESS));
    let (status, message) = Messages::parse(&stdout.text()).connection_status();
    (status, message, took)
}

/// A `read --follow` that is under way.
pub(crate) struct Following {
    stdout: Stdout,
}

impl Following {
    /// What has been printed so far.
    pub(crate) fn messages(&self) -> Messages {
        Messages::of_rounds(&self.stdout.text())
    }

    /// Waits until what has been printed is as it should be.
    pub(crate) async fn until(&self, is_so: impl Fn(&Messages) -> bool) {
        let mut seen = 0;
        loop {
            let text = self.stdout.text();
            if text.len() > seen && is_so(&Messages::of_rounds(&text)) {
                return;
            }
            seen = text.len();
            tokio::time::sleep(STEP).await;
        }
    }

    /// Waits until a stream has been read so many times.
    pub(crate) async fn ends_of(&self, stream: &str, count: usize) {
        self.until(|messages| messages.ends_of(stream) >= count).await;
    }
}

/// Reads again and again, while `script` is being acted.
pub(crate) async fn follow(
    posthog: &Sandbox,
    catalog: &Value,
    settings: Value,
    script: impl AsyncFnOnce(&Following),
) -> Messages {
    let started = command("read", &posthog.url(), &settings, &[("catalog", catalog)], &["--quiet", "--follow=60"]);
    let following = Following { stdout: Stdout::default() };
    let (code, _) = run(&started, &following.stdout, script(&following)).await;
    let messages = following.messages();
    assert_eq!(code, None, "it has ended: {}", messages.without_records());
    messages
}
