//! Where a pass begins and ends.

use super::reader::{CLOCKS_AHEAD, ExportReader};
use crate::error::Error;
use crate::posthog::account;
use crate::sync::context::LOOKBACK;
use crate::sync::query::reader::ProjectReader;
use crate::sync::state::export::ExportState;
use crate::sync::state::interval::Interval;
use crate::sync::state::table::{LastMethod, ProjectState};
use crate::time::{Timestamp, days};

impl ExportReader {
    /// The times of ingestion that this sync reads for a stream; none when there is nothing to read.
    pub(super) async fn pass(&self, reader: &ProjectReader) -> Result<Option<Interval>, Error> {
        let project = reader.context.project;
        let mut state = reader.checkpoint.project(project).await;
        reader.check_state(&state)?;
        let known = state.export.windows.clone();
        if self.must_start_again(reader, &mut state) {
            let changed = state.clone();
            reader.checkpoint.update(project, |state| *state = changed).await?;
            for window in known.iter().filter(|window| !state.export.windows.contains(window)) {
                self.cancel(&window.run).await;
            }
        }
        // A pass whose end has been reached is over, even if the sync ended before it could record that.
        let open = state.export.until.filter(|until| state.watermark.is_none_or(|watermark| watermark < *until));
        let until = open.unwrap_or_else(|| reader.context.client.now().minus(self.ingestion_delay));
        let from = match (state.export.windows.first(), state.watermark) {
            (Some(window), _) => window.interval.from,
            // What was stored late is found by looking back; a query may have left it out, and a table without
            // a column for it has nothing to compare by.
            (None, Some(watermark))
                if state.method == Some(LastMethod::Query)
                    || reader.table.ingestion_time.is_none() && watermark < until =>
            {
                watermark.minus(LOOKBACK)
            }
            (None, Some(watermark)) => watermark,
            (None, None) => match (self.complete_until(&state), state.resume_from) {
                (Some(until), _) => until.minus(LOOKBACK),
                (None, Some(from)) => from.minus(days(CLOCKS_AHEAD)),
                (None, None) => self.beginning().await?,
            },
        };
        if open.is_none() && state.watermark.is_some() && !reader.context.incremental {
            return Ok(None);
        }
        Ok((from < until).then_some(Interval { from, to: until }))
    }

    /// Until when everything that is asked for had been ingested and emitted, by a ledger that cannot be compared
    /// any more.
    fn complete_until(&self, state: &ProjectState) -> Option<Timestamp> {
        let wanted = self.reader.wanted();
        state.ledger.as_ref()?.complete_until(wanted.from, wanted.to, &self.names())
    }

    /// When the configuration asks for more than runs and watermark are about, they are of no use.
    /// Returns whether `state` has changed.
    fn must_start_again(&self, reader: &ProjectReader, state: &mut ProjectState) -> bool {
        let mut changed = false;
        let names = self.names();
        let before = state.names.clone();
        if before.as_ref().is_some_and(|before| *before != names) && !state.export.windows.is_empty() {
            tracing::info!("other events are chosen now, so runs under way are started again");
            state.export.windows.clear();
            changed = true;
        }
        if before.is_some_and(|before| !names.minus(&before).is_empty()) {
            if !reader.context.incremental {
                *state = ProjectState::default();
                return true;
            }
            tracing::warn!(
                "more events are chosen than before; of those that are new, only what PostHog receives from now on is read, because the key lacks the scope `query:read`. To read all of them, clear the stream's state"
            );
        }
        let (wanted, Some(covered)) = (reader.wanted(), state.covered) else { return changed };
        // Events ingested before a date can only be from that date if a clock was ahead.
        let restart = if wanted.from < covered.from {
            Some(None)
        } else if wanted.to > covered.to {
            let from = covered.to.minus(days(CLOCKS_AHEAD));
            Some(state.watermark.map(|watermark| watermark.min(from)))
        } else {
            None
        };
        let Some(watermark) = restart else { return changed };
        tracing::info!("the dates ask for more than before, so it is exported again");
        state.watermark = watermark;
        state.covered = None;
        state.export = ExportState::default();
        true
    }

    /// The first time of ingestion that can matter, by the project's age.
    pub async fn beginning(&self) -> Result<Timestamp, Error> {
        let reader = &self.reader;
        let project = account::project(
            &reader.context.client,
            reader.context.project,
            reader.context.client.retry(),
            &reader.context.observer,
        )
        .await;
        let start = self.earliest();
        let created = match project {
            Ok(project) => project.created_at,
            Err(error) => {
                tracing::debug!("{error}");
                None
            }
        };
        let created = created.map(|created| created.minus(days(1)));
        let beginning = match (reader.table.bounded_by_dates, created) {
            (true, created) => created.map_or(start, |created| created.max(start)),
            (false, Some(created)) => created,
            (false, None) => {
                tracing::warn!(
                    "{} from before {start} are not exported, because the key lacks the scope `project:read` and so the project's age is unknown",
                    reader.table.stream
                );
                start
            }
        };
        Ok(Timestamp::from_day(beginning.day()))
    }

    /// The positions that everything up to the watermark has been read for.
    pub(super) fn covered(&self, state: &ProjectState) -> Interval {
        let wanted = self.reader.wanted();
        state.covered.map_or(wanted, |covered| covered.intersection(wanted))
    }
}
