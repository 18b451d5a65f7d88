//! Exports the cells of a ledger that have to be read.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::cells::Cells;
use super::pass::ExportOutcome;
use super::reader::ExportReader;
use crate::error::Error;
use crate::records::Fingerprint;
use crate::sync::ledger::{CellFigures, CellKey, Days, Ledger, Names, Part};
use crate::sync::observer::OnEstimate;
use crate::sync::state::export::{ExportState, ExportedCells};
use crate::sync::state::interval::Interval;
use crate::sync::state::table::ProjectState;
use crate::time::Timestamp;

/// PostHog stores an event some time after it has received it: so much later than the last cell's ingestion
/// time files may still hold its rows, in microseconds.
const STORED_WITHIN: i64 = 3_600_000_000;

impl ExportReader {
    /// Reads cells of a ledger, and enters them. What files have left out shows when they are compared.
    ///
    /// # Errors
    /// When exports neither succeed nor show that they cannot.
    pub async fn read_cells(
        &self,
        part: Part,
        names: &Names,
        ledger: &Ledger,
        keys: &[CellKey],
        on_estimate: OnEstimate<'_>,
    ) -> Result<ExportOutcome, Error> {
        let mut emitted = CellFigures::new();
        for key in keys {
            let Some(slice) = ledger.slices.get(key.slice) else { continue };
            emitted.entry(slice.until).or_default().insert(key.period, Fingerprint::EMPTY);
        }
        let bounds = ledger.slices.iter().map(|slice| slice.until).collect();
        let (Some(first), Some(last)) = (keys.iter().map(|key| key.slice).min(), emitted.keys().next_back()) else {
            return Ok(ExportOutcome::Complete);
        };
        let from = match ledger.ingested_from(first) {
            Some(from) => from,
            None => self.beginning().await?,
        };
        let to = last.plus_micros(STORED_WITHIN).min(self.reader.context.client.now());
        let cells = ExportedCells { part, bounds, emitted, next: Some(from) };
        let state = ExportState { until: Some(to), cells: Some(cells.clone()), ..ExportState::default() };
        self.reader.checkpoint.update(self.reader.context.project, |project| project.export = state).await?;
        self.fetch(cells, names, ledger, Interval { from, to }, on_estimate).await
    }

    /// Goes on with cells that an earlier sync has begun.
    ///
    /// # Errors
    /// As for [`ExportReader::read_cells`].
    pub async fn resume_cells(
        &self,
        cells: ExportedCells,
        names: &Names,
        ledger: &Ledger,
        on_estimate: OnEstimate<'_>,
    ) -> Result<ExportOutcome, Error> {
        let state = self.reader.checkpoint.project(self.reader.context.project).await.export;
        let first = state.windows.first().map(|window| window.interval.from);
        let (Some(to), Some(first)) = (state.until, first.or(cells.next)) else {
            return Ok(ExportOutcome::Complete);
        };
        self.fetch(cells, names, ledger, Interval { from: first, to }, on_estimate).await
    }

    async fn fetch(
        &self,
        cells: ExportedCells,
        names: &Names,
        ledger: &Ledger,
        pass: Interval,
        on_estimate: OnEstimate<'_>,
    ) -> Result<ExportOutcome, Error> {
        let part = cells.part;
        // A pass that is resumed may have cells of days that are not asked for any more.
        let wanted = self.reader.wanted();
        let days = ledger.months.whole_periods(Days::touched_by(wanted.from, wanted.to));
        let whole = Interval { from: Timestamp::from_day(days.from), to: Timestamp::from_day(days.to) };
        let asked = ledger.asked.map_or(whole, |(from, to)| whole.intersection(Interval { from, to }));
        let selection = Cells {
            names: names.clone(),
            bounds: cells.bounds,
            months: ledger.months.clone(),
            wanted: cells.emitted,
            asked,
        };
        let reader = Self { cells: Some(Arc::new(selection)), ..self.clone() };
        let outcome = reader.export_pass(pass, on_estimate).await?;
        let mut repeats = 0;
        let change = |state: &mut ProjectState| {
            let emitted = state.export.cells.take().map(|cells| cells.emitted).unwrap_or_default();
            state.export = ExportState::default();
            let Some(ledger) = state.ledger.as_mut().filter(|_| outcome == ExportOutcome::Complete) else { return };
            let slices: BTreeMap<Timestamp, usize> =
                ledger.slices.iter().enumerate().map(|(index, slice)| (slice.until, index)).collect();
            for (until, periods) in emitted {
                let Some(&slice) = slices.get(&until) else { continue };
                for (period, figure) in periods {
                    let key = CellKey { slice, period };
                    repeats += ledger.repeats(part, key, figure.count);
                    ledger.enter(part, key, figure);
                }
            }
        };
        self.reader.checkpoint.update(self.reader.context.project, change).await?;
        self.reader.context.report.repeated(repeats);
        Ok(outcome)
    }

    /// Cancels the runs of a state that will not be read.
    pub async fn cancel_all(&self, state: &ExportState) {
        for window in state.windows.iter().filter(|window| !window.done) {
            self.cancel(&window.run).await;
        }
    }
}
