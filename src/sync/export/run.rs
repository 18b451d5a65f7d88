//! Waits for a run, patiently and visibly.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::ExportReader;
use crate::error::Error;
use crate::posthog::exports::{ExportRequest, RunStatus};
use crate::protocol::StreamDescriptor;
use crate::protocol::message::{Message, StreamStatus};
use crate::sync::state::export::ExportWindow;
use crate::sync::state::interval::Interval;

/// Pauses between two looks at a run grow from the first to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A wait is mentioned every so often.
const MENTION_EVERY: Duration = Duration::from_secs(30);
/// A run without files looks as if it were running; after this time it is looked at more closely.
const PERHAPS_EMPTY_AFTER: Duration = Duration::from_mins(1);
/// It must look ended and empty for so long, since files appear some time after a run's end.
const SURELY_EMPTY_AFTER: Duration = Duration::from_mins(1);
/// `PostHog` notes the files of a run that has ended one by one, and tries again after a second when that
/// fails. So long must their list stay the same where nothing else would tell that one is missing.
const SURELY_ALL_AFTER: Duration = Duration::from_secs(2);
/// `PostHog` itself ends a run long before.
const LONGEST_RUN: Duration = Duration::from_hours(24);

/// A window whose run is under way.
#[derive(Clone)]
pub(crate) struct Running {
    /// The window as the state keeps it.
    pub(super) window: ExportWindow,
    /// Since when this program knows of the run.
    since: Instant,
}

impl Running {
    /// A window with its run, seen now.
    pub(crate) fn new(window: ExportWindow) -> Self {
        Self { window, since: Instant::now() }
    }
}

/// How waiting for a run has ended.
pub(crate) enum Prepared {
    /// With these files, which may be none.
    Files(Vec<String>),
    /// Without files; another run may succeed.
    Failed {
        /// What happened.
        reason: String,
        /// Whether a shorter interval has better chances.
        too_large: bool,
    },
}

impl ExportReader {
    /// What the run of a window has to contain.
    pub(crate) fn request(&self, interval: Interval) -> ExportRequest<'_> {
        let names = self.reader.table.event_name_column.is_some();
        let config = &self.reader.context.config;
        ExportRequest {
            model: self.model,
            from: interval.from,
            to: interval.to,
            include: if names { &config.include_events } else { &[] },
            exclude: if names { &config.exclude_events } else { &[] },
        }
    }

    /// Waits until the run of a window has ended.
    ///
    /// # Errors
    /// When `PostHog` stops answering usefully, or refuses to export because of billing.
    pub(crate) async fn prepared(&self, running: &Running) -> Result<Prepared, Error> {
        let (reader, window) = (&self.reader, &running.window);
        let exports = self.exports();
        let (begin, client) = (running.since, &reader.context.client);
        let (mut pause, mut mentioned) = (FIRST_PAUSE, Instant::now());
        let mut empty_since: Option<Instant> = None;
        let mut seen: Option<BTreeSet<String>> = None;
        let is_compared = self.is_compared(window.interval).await;
        loop {
            let status = client.retry().run(client.limiter(), || exports.status(&window.run)).await?;
            let word = match status {
                RunStatus::Ready(files) => {
                    // Files may appear a moment after the run's end, in any order.
                    let listed: BTreeSet<String> = files.iter().cloned().collect();
                    if seen.as_ref() == Some(&listed) || (is_compared && !files.is_empty()) {
                        return Ok(Prepared::Files(files));
                    }
                    if !is_compared && !files.is_empty() {
                        pause = SURELY_ALL_AFTER;
                    }
                    seen = Some(listed);
                    "Completed".to_owned()
                }
                RunStatus::Unknown => {
                    return Ok(Prepared::Failed {
                        reason: "PostHog does not know it any more".into(),
                        too_large: false,
                    });
                }
                RunStatus::Failed { status, reason } => return failed(&status, &reason),
                RunStatus::Preparing(word) => word,
            };
            if begin.elapsed() > LONGEST_RUN {
                return Err(Error::transient(format!(
                    "PostHog has been preparing the export of {} for {} hours; try again later, or set `method` to `query`",
                    window.interval,
                    LONGEST_RUN.as_secs() / 3_600
                )));
            }
            if begin.elapsed() > PERHAPS_EMPTY_AFTER && word != "Starting" {
                let has_ended = client.retry().run(client.limiter(), || exports.has_ended_empty(&window.run)).await?;
                empty_since = has_ended.then(|| empty_since.unwrap_or_else(Instant::now));
                if empty_since.is_some_and(|since| since.elapsed() > SURELY_EMPTY_AFTER) {
                    tracing::info!("export run {} has ended without files", window.run);
                    return Ok(Prepared::Files(Vec::new()));
                }
            }
            if mentioned.elapsed() >= MENTION_EVERY {
                mentioned = Instant::now();
                self.mention(window, &word, begin.elapsed());
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        }
    }

    /// Tells the user, and the platform, that this is a wait and no hang.
    fn mention(&self, window: &ExportWindow, word: &str, elapsed: Duration) {
        let reader = &self.reader;
        let text = format!("PostHog prepares the export of {} ({word} for {} s)", window.interval, elapsed.as_secs());
        tracing::info!("{text}");
        reader.context.output.progress().waiting(&text);
        let stream = StreamDescriptor::clone(&reader.context.stream);
        reader.context.output.hint(&Message::status(stream, StreamStatus::Running));
    }
}

/// What a failed run means.
fn failed(status: &str, reason: &str) -> Result<Prepared, Error> {
    if status == "FailedBilling" {
        return Err(Error::config(format!(
            "PostHog does not export because of billing ({reason}): the organization's plan or its billing limit allows no more exported rows. Raise the limit for batch exports in PostHog under Settings > Billing, or set `method` to `query`"
        )));
    }
    let reason = if reason.is_empty() { status.to_owned() } else { format!("{status} ({reason})") };
    Ok(Prepared::Failed { reason, too_large: status == "TimedOut" })
}
