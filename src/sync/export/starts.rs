//! Starts the runs of windows, again and in parts if need be.

use std::collections::VecDeque;
use std::time::Duration;

use super::reader::ExportReader;
use super::row_limit::LimitReached;
use super::run::Running;
use super::stored::StoredByHour;
use super::windows::Windows;
use crate::error::Error;
use crate::posthog::http::{GiveUp, Observer, Reason, Refusal, Retry};
use crate::sync::state::export::ExportWindow;
use crate::sync::state::interval::Interval;

/// Attempts at a request that is not worth the configured patience.
const FIRST_ATTEMPTS: usize = 3;
/// Pause before a run is started again when others use up what the project may run.
const ROOM_PAUSE: Duration = Duration::from_secs(10);

/// What has become of a run that was to be started.
pub(super) enum Start {
    /// It runs.
    Started(Running),
    /// As many run as the project may have.
    NoRoom,
    /// It would export more rows than the sync may.
    OverLimit(LimitReached),
    /// The window is too long for this server.
    TooLong,
    /// PostHog's clock has not reached the end of the window.
    InFuture,
    /// Exports do not work here.
    Impossible(String),
}

impl ExportReader {
    /// Starts the run of a window; `wait` for room when as many run as PostHog allows.
    pub(super) async fn start(
        &self,
        interval: Interval,
        wait: bool,
        stored: Option<&StoredByHour>,
    ) -> Result<Start, Error> {
        let client = &self.reader.context.client;
        let (exports, request) = (self.exports(), self.request(interval));
        let claim = match self.supervision.row_limit.claim(self.rows_of(interval, stored), wait) {
            Ok(claim) => claim,
            Err(reached) => return Ok(Start::OverLimit(reached)),
        };
        loop {
            let retry =
                if self.supervision.is_proven() { client.retry() } else { Retry::with_attempts(FIRST_ATTEMPTS) };
            return Ok(match retry.run(client.limiter(), || exports.start(&request)).await {
                Ok(run) => {
                    tracing::debug!("export run {run} of {interval} started");
                    self.supervision.started(&run);
                    Start::Started(Running::new(ExportWindow::new(interval, run), client.now(), claim))
                }
                Err(GiveUp::TooLarge { .. }) => Start::TooLong,
                Err(GiveUp::Refused(Refusal { reason: Reason::TooManyRuns, summary, .. })) if wait => {
                    // Nothing of ours runs, so others use the project's share: only starting waits.
                    let until = chrono::Utc::now() + ROOM_PAUSE;
                    self.reader.context.observer.waiting(&summary, until);
                    tokio::time::sleep(ROOM_PAUSE).await;
                    continue;
                }
                Err(GiveUp::Refused(Refusal { reason: Reason::TooManyRuns, .. })) => Start::NoRoom,
                Err(GiveUp::Refused(Refusal { reason: Reason::IntervalInFuture, .. })) => Start::InFuture,
                Err(GiveUp::Refused(Refusal { reason: Reason::NotFound | Reason::NotPostHog, .. })) => {
                    Start::Impossible("this PostHog has no file download exports".to_owned())
                }
                Err(GiveUp::Attempts { last, .. }) if !self.supervision.is_proven() => Start::Impossible(last),
                Err(give_up) => return Err(give_up.into()),
            });
        }
    }

    /// Cancels a run that is no longer needed. A run that cannot be cancelled is left alone.
    pub(super) async fn cancel(&self, run: &str) {
        if self.reader.context.plan.is_some() {
            return;
        }
        let client = &self.reader.context.client;
        let exports = self.exports();
        match Retry::with_attempts(FIRST_ATTEMPTS).run(client.limiter(), || exports.cancel(run)).await {
            Ok(()) => tracing::info!("export run {run} cancelled"),
            Err(give_up) => tracing::warn!("export run {run} could not be cancelled: {}", Error::from(give_up)),
        }
        self.supervision.ended(run);
    }

    /// The first window has to be exported again, in parts. Windows are read in order, so those behind it
    /// come again, too.
    pub(super) async fn put_all_back(
        &self,
        running: &mut VecDeque<Running>,
        windows: &mut Windows,
    ) -> Result<(), Error> {
        let mut again = Vec::with_capacity(running.len());
        for (place, Running { window, .. }) in running.drain(..).enumerate() {
            if place > 0 {
                self.cancel(&window.run).await;
            }
            again.push(window.interval);
        }
        windows.put_back(again.into_iter());
        self.note(running).await
    }

    /// Starts the run of the first window again; the others keep theirs.
    pub(super) async fn start_again(
        &self,
        running: &mut VecDeque<Running>,
        windows: &mut Windows,
        stored: Option<&StoredByHour>,
    ) -> Result<(), Error> {
        let Some(interval) = running.front().map(|running| running.window.interval) else { return Ok(()) };
        let Start::Started(run) = self.start(interval, true, stored).await? else {
            return self.put_all_back(running, windows).await;
        };
        if let Some(first) = running.front_mut() {
            *first = run;
        }
        self.note(running).await
    }

    /// The run of the first window was late: starts it in parts, unless it is short already. Returns how many runs
    /// have been started.
    pub(super) async fn start_in_parts(
        &self,
        running: &mut VecDeque<Running>,
        windows: &mut Windows,
        stored: Option<&StoredByHour>,
        reason: &str,
    ) -> Result<Option<u64>, Error> {
        let Some(ExportWindow { interval, run, .. }) = running.front().map(|first| first.window.clone()) else {
            return Ok(None);
        };
        let is_exception = self.supervision.is_exception(interval.length());
        let length = self.supervision.length_after(interval.length());
        if let Some(halves) = Windows::halves(interval).filter(|_| is_exception) {
            tracing::warn!("export run {run} of {interval}: {reason}; it is started again in two parts");
            self.start_halves(running, windows, stored, halves).await?;
            return Ok(Some(2));
        }
        if !windows.cut(interval, length) {
            return Ok(None);
        }
        tracing::warn!("export run {run} of {interval}: {reason}; it is started again in shorter parts");
        self.put_all_back(running, windows).await?;
        Ok(Some(0))
    }

    /// Starts runs of the halves of the first window instead of its own; the others keep theirs.
    async fn start_halves(
        &self,
        running: &mut VecDeque<Running>,
        windows: &mut Windows,
        stored: Option<&StoredByHour>,
        halves: [Interval; 2],
    ) -> Result<(), Error> {
        let mut started = Vec::with_capacity(halves.len());
        for half in halves {
            let Start::Started(run) = self.start(half, true, stored).await? else {
                for Running { window, .. } in started {
                    self.cancel(&window.run).await;
                }
                return self.put_all_back(running, windows).await;
            };
            started.push(run);
        }
        running.pop_front();
        started.into_iter().rev().for_each(|half| running.push_front(half));
        self.note(running).await
    }
}
