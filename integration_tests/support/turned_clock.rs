//! The connector in the test's own process, on the same paused clock as the sandbox, which is turned forward
//! whenever everybody waits. So an hour passes in seconds, and times are exact.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser;
use posthog_sandbox::posthog::Sandbox;
use serde_json::{Value, json};
use source_posthog::protocol::{Audience, Writer};
use source_posthog::source::{self, Arguments};
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

/// Reads everything from the beginning or a state. Returns what is printed, and how long that took.
pub(crate) async fn read(
    posthog: &Sandbox,
    catalog: &Value,
    state: Option<&Value>,
    settings: &Value,
) -> (Messages, Duration) {
    // Only fails when another test of this process was first.
    drop(rustls::crypto::ring::default_provider().install_default());
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &Value| {
        let path = directory.path().join(name);
        std::fs::write(&path, content.to_string()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let mut config = json!({"api_key": "phx_full", "base_url": posthog.url(), "start_date": "2020-01-01T00:00:00Z"});
    config.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    let (config, catalog) = (file("config.json", &config), file("catalog.json", catalog));
    let state = state.map(|state| file("state.json", state));
    let mut arguments = vec!["source-posthog", "read", "--quiet", "--config", &config, "--catalog", &catalog];
    arguments.extend(state.iter().flat_map(|state| ["--state", state]));
    let arguments = Arguments::parse_from(arguments);
    let stdout = Stdout::default();
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
    let code = source::run(&arguments.command, &output).await.unwrap();
    let took = begin.elapsed();
    steps.abort();
    writer.close(&output).await.unwrap();
    let messages = Messages::parse(&stdout.0.lock().unwrap());
    assert_eq!(code, std::process::ExitCode::SUCCESS, "{}", messages.without_records());
    (messages, took)
}
