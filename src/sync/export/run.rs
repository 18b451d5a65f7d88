//! Waits for a run, patiently and visibly.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::reader::ExportReader;
use super::row_limit::Claim;
use crate::error::Error;
use crate::posthog::exports::RunStatus;
use crate::protocol::StreamDescriptor;
use crate::protocol::message::{Message, StreamStatus};
use crate::sync::state::export::ExportWindow;
use crate::time::Timestamp;

/// Pauses between two looks at a run grow with its age, so that little time is lost and few requests are sent.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A pause is this part of a run's age.
const PAUSE_PART: u32 = 6;
/// `PostHog` ends no run before the end of its interval is so old, in microseconds
/// (`wait_for_delta_past_data_interval_end` in `batch_exports`; 30 seconds, and some for clocks).
const OLD_ENOUGH_AFTER: i64 = 45_000_000;
/// A wait is mentioned every so often.
const MENTION_EVERY: Duration = Duration::from_secs(30);
/// A run without files looks as if it were running on servers from before September 2026; after this
/// time it is looked at more closely.
const PERHAPS_EMPTY_AFTER: Duration = Duration::from_mins(1);
/// Without a number of rows to compare with, a run must look ended and empty for so long, since files
/// are noted some time after a run's end.
const SURELY_EMPTY_AFTER: Duration = Duration::from_secs(20);
/// `PostHog` notes the files of a run that has ended one by one, and tries again after a second when that
/// fails. So long must their list stay the same where a missing file would not be noticed otherwise.
const SURELY_ALL_AFTER: Duration = Duration::from_secs(2);
/// Assumed longest duration of a run that had ended before its first status request.
const UNWATCHED: Duration = Duration::from_secs(10);
/// So long may files be missing from the list of a run that has ended with rows.
const NOTED_AFTER: Duration = Duration::from_mins(2);

/// A window whose run is under way.
#[derive(Clone)]
pub(super) struct Running {
    /// The window as the state keeps it.
    pub(super) window: ExportWindow,
    /// Since when this program knows of the run.
    since: Instant,
    /// Whether this program has started it.
    is_ours: bool,
    /// Its rows, if this program has started it.
    claim: Option<Arc<Claim>>,
    /// How long `PostHog` waits until the end of the interval is old enough.
    young_for: Duration,
}

impl Running {
    /// A window whose run has been started now, by the server's clock.
    pub(super) fn new(window: ExportWindow, clock: Timestamp, claim: Claim) -> Self {
        let young_for = window.interval.to.plus_micros(OLD_ENOUGH_AFTER).micros() - clock.micros();
        let young_for = Duration::from_micros(u64::try_from(young_for).unwrap_or_default());
        Self { window, since: Instant::now(), is_ours: true, claim: Some(Arc::new(claim)), young_for }
    }

    /// A window whose run an earlier sync has started.
    pub(super) fn resumed(window: ExportWindow) -> Self {
        Self { window, since: Instant::now(), is_ours: false, claim: None, young_for: Duration::ZERO }
    }

    /// The run has exported so many rows.
    pub(super) fn exported(&self, rows: u64) {
        if let Some(claim) = &self.claim {
            claim.exported(rows);
        }
    }
}

/// How waiting for a run has ended.
pub(super) enum Prepared {
    /// With files, which may be none.
    Files {
        /// Their ids.
        files: Vec<String>,
        /// Total rows, if `PostHog` reports them.
        rows: Option<u64>,
    },
    /// Without files; another run may succeed.
    Failed {
        /// What happened.
        reason: String,
        /// Whether a shorter interval has better chances.
        too_long: bool,
    },
    /// `PostHog` does not export for this organization; the reason.
    Refused(String),
    /// It was cancelled when the sync that had started it was interrupted.
    Cancelled,
    /// It has not ended in this time.
    Late(Duration),
}

impl Prepared {
    /// All files have been read already.
    pub(super) fn read() -> Self {
        Self::Files { files: Vec::new(), rows: None }
    }
}

impl ExportReader {
    /// Waits until the run of a window has ended, at most until its deadline.
    ///
    /// # Errors
    /// When `PostHog` stops answering usefully, or refuses to export because of billing.
    pub(super) async fn prepared(&self, running: &Running) -> Result<Prepared, Error> {
        let window = &running.window;
        let exports = self.exports();
        let (begin, client) = (running.since, &self.reader.context.client);
        let mut mentioned = Instant::now();
        // The list of files as it was seen first in its present length, and since when.
        let mut listed: Option<(BTreeSet<String>, Instant)> = None;
        let mut empty_since: Option<Instant> = None;
        let mut was_preparing = false;
        let is_compared = self.cells.is_some();
        loop {
            let word = match client.retry().run(client.limiter(), || exports.status(&window.run)).await? {
                RunStatus::Ready { files, rows } => {
                    if listed.is_none() {
                        // A run that had ended before it was looked at has taken less than it has waited.
                        let most = if was_preparing { Duration::MAX } else { UNWATCHED };
                        self.supervision.completed(running.is_ours.then(|| begin.elapsed().min(most)));
                    }
                    let set: BTreeSet<String> = files.iter().cloned().collect();
                    let since = match &listed {
                        Some((known, since)) if *known == set => *since,
                        _ => Instant::now(),
                    };
                    listed = Some((set, since));
                    let patience = match rows {
                        Some(0) => Duration::ZERO,
                        // Whether all files are listed shows when they have been read.
                        Some(_) if !files.is_empty() => Duration::ZERO,
                        Some(_) => NOTED_AFTER,
                        // The comparison with PostHog's count finds what is missing.
                        None if is_compared && files.is_empty() => Duration::ZERO,
                        None if files.is_empty() => SURELY_EMPTY_AFTER,
                        None => SURELY_ALL_AFTER,
                    };
                    if since.elapsed() >= patience {
                        return Ok(Prepared::Files { files, rows });
                    }
                    "Completed".to_owned()
                }
                RunStatus::Unknown => {
                    return Ok(Prepared::Failed {
                        reason: "PostHog does not know it any more".into(),
                        too_long: false,
                    });
                }
                // The sync that started it was ended by a signal and has cancelled it.
                RunStatus::Cancelled if !running.is_ours => return Ok(Prepared::Cancelled),
                RunStatus::Cancelled => {
                    return Ok(Prepared::Failed { reason: "Cancelled".into(), too_long: false });
                }
                RunStatus::Failed { status, reason } => return failed(&status, &reason, self.falls_back),
                RunStatus::Preparing(word) => {
                    was_preparing = true;
                    word
                }
            };
            let deadline = self.supervision.deadline() + running.young_for;
            if begin.elapsed() > PERHAPS_EMPTY_AFTER.min(deadline / 2) && listed.is_none() && word != "Starting" {
                let has_ended = client.retry().run(client.limiter(), || exports.has_ended_empty(&window.run)).await?;
                empty_since = has_ended.then(|| empty_since.unwrap_or_else(Instant::now));
                if empty_since.is_some_and(|since| since.elapsed() > SURELY_EMPTY_AFTER) {
                    tracing::info!("export run {} has ended without files", window.run);
                    self.supervision.completed(None);
                    return Ok(Prepared::Files { files: Vec::new(), rows: None });
                }
            }
            // A run that has ended, but whose files are not listed yet, is not late.
            if begin.elapsed() > deadline && listed.is_none() && empty_since.is_none() {
                return Ok(Prepared::Late(deadline));
            }
            if mentioned.elapsed() >= MENTION_EVERY {
                mentioned = Instant::now();
                self.mention(window, &word, begin.elapsed());
            }
            let longest = if listed.is_some() { SURELY_ALL_AFTER } else { LONGEST_PAUSE };
            let pause = (begin.elapsed() / PAUSE_PART).max(SHORTEST_PAUSE);
            tokio::time::sleep(pause.min(longest).min(deadline / 8)).await;
        }
    }

    /// Shows the user, and the platform, that this is a wait and not a hang.
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
fn failed(status: &str, reason: &str, falls_back: bool) -> Result<Prepared, Error> {
    if status == "FailedBilling" && falls_back {
        return Ok(Prepared::Refused(format!("PostHog does not export because of billing: {reason}")));
    }
    if status == "FailedBilling" {
        return Err(Error::config(format!(
            "PostHog does not export because of billing ({reason}): the organization's plan or its billing limit allows no more exported rows. Raise the limit for batch exports in PostHog under Settings > Billing, or set `method` to `query`"
        )));
    }
    let reason = if reason.is_empty() { status.to_owned() } else { format!("{status} ({reason})") };
    Ok(Prepared::Failed { reason, too_long: status == "TimedOut" })
}
