//! What both programs have in common: the runtime, the writer, signals, panics and exit codes.

use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM};
use tokio::signal::unix::{SignalKind, signal};

use crate::error::Error;
use crate::net::remember_proxy_passwords;
use crate::protocol::{Message, Output, Writer, logging, output};

pub use crate::protocol::Audience;

/// What has to be done after a signal may take so long.
const CLEANUP: Duration = Duration::from_secs(3);

/// More threads than this would not be faster, since one writes what all of them make, but each has memory of its
/// own.
const MOST_WORKERS: usize = 4;

/// How a command has ended.
enum End {
    /// By itself, with its exit code if it has reported its failures.
    Command(Result<ExitCode, Error>),
    /// By a signal.
    Signal(i32),
}

/// Runs a command that writes to `Output`, and turns its result into messages and an exit code.
///
/// What the command returned; 1 when that is an error, which is reported here. On SIGTERM and SIGINT whole lines are
/// flushed, then the process ends by that signal, or with 0 where the command waits for one.
pub fn run<F>(audience: Audience, command: impl FnOnce(Output) -> F) -> ExitCode
where
    F: Future<Output = Result<ExitCode, Error>>,
{
    forbid_core_dumps();
    remember_proxy_passwords();
    std::panic::set_hook(Box::new(move |panic| {
        output::write_unqueued(&panic_message(&panic.to_string()), audience);
    }));
    // Only fails when a provider has been installed before.
    drop(rustls::crypto::ring::default_provider().install_default());
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_WORKERS);
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let error = Error::system(format!("cannot start: {error}"));
            output::write_unqueued(&Message::error(&error, None), audience);
            return ExitCode::FAILURE;
        }
    };
    let (end, closed, ends_well_by_signal) = runtime.block_on(async {
        let (output, writer) = Writer::stdout(audience);
        logging::install(&output);
        let end = tokio::select! {
            result = command(output.clone()) => End::Command(result),
            signal = termination() => End::Signal(signal),
        };
        if let End::Signal(_) = end {
            // A second signal, or a server that does not answer, ends the wait.
            tokio::select! {
                () = output.interrupted() => {}
                () = tokio::time::sleep(CLEANUP) => {}
                _ = termination() => {}
            }
        }
        // If stdout is closed, closing the writer reports it.
        if let End::Command(Err(error)) = &end {
            drop(output.message(&Message::error(error, None)).await);
        }
        (end, writer.close(&output).await, output.ends_well_by_signal())
    });
    // Reading stdin may block a thread for good; do not wait for it.
    runtime.shutdown_background();
    match (end, closed) {
        (End::Signal(_), Ok(())) if ends_well_by_signal => ExitCode::SUCCESS,
        (End::Signal(signal), _) => {
            drop(signal_hook::low_level::emulate_default_handler(signal));
            ExitCode::FAILURE
        }
        (End::Command(Ok(code)), Ok(())) => code,
        (End::Command(Err(_)), Ok(())) => ExitCode::FAILURE,
        (End::Command(_), Err(error)) => {
            // Stdout is gone.
            output::write_unqueued(&Message::error(&error, None), Audience::People);
            ExitCode::FAILURE
        }
    }
}

/// A core dump would hold the secrets. Lowering a limit cannot fail; were it to, nothing else could be done.
fn forbid_core_dumps() {
    let lowered = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    debug_assert!(lowered.is_ok());
}

/// The report of a panic.
fn panic_message(panic: &str) -> Message {
    let error = Error::system("the connector stopped because of a bug; everything up to the last STATE is safe")
        .with_details(panic);
    Message::error(&error, None)
}

async fn termination() -> i32 {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::warn!("signals cannot be handled here");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => SIGTERM,
        _ = interrupt.recv() => SIGINT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    #[test]
    fn panic_report_redacts_secrets() {
        let secret = Secret::new("phx_inside_a_panic");
        let panic = format!("panicked at src/x.rs:1:2:\ncalled `unwrap` on \"Key {}\"", secret.expose());
        let message = serde_json::to_string(&panic_message(&panic)).unwrap();
        assert!(message.contains("src/x.rs:1:2") && message.contains("Key [secret]"), "{message}");
        assert!(!message.contains("inside_a_panic"), "{message}");
    }
}
