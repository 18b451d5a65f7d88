//! Emits the figures of days that have changed.
//!
//! If events were read in the same sync, these are the ledger's: what has been emitted, found equal to what PostHog has.
//! Otherwise PostHog is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::day_changes::{DayCells, DayLosses, changes, days_to_emit, folded, known, losses, of_month, sum};
use super::figures;
use crate::error::Error;
use crate::posthog::http::GiveUp;
use crate::records::{DayProof, EventDayWriter, Fingerprint};
use crate::sync::context::ReadContext;
use crate::sync::ledger::{Cell, Choice, Days, Figures, FullObservation, Ledger, Names, Period, Slice, observation};
use crate::sync::read_plan::{PlannedMethod, PlannedRead};
use crate::sync::report::Proof;
use crate::sync::state::checkpoint::Checkpoint;
use crate::sync::state::stream::{FieldsEntry, is_default};
use crate::time::Timestamp;

/// What the state keeps for a project: the figures that have been emitted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventDaysState {
    /// By day, and by month where they are old.
    #[serde(skip_serializing_if = "is_default")]
    days: DayCells,
    /// How many events have disappeared from each day, as long as it is kept as such.
    #[serde(skip_serializing_if = "is_default")]
    deleted: DayLosses,
    /// The events that the figures are about; none in states of older versions.
    #[serde(skip_serializing_if = "Option::is_none")]
    choice: Option<Choice>,
    /// The last time that all days were counted, if events were not read in the same sync.
    #[serde(skip_serializing_if = "Option::is_none")]
    full: Option<FullObservation>,
}

impl FieldsEntry for EventDaysState {}

/// What a sync of events has found equal to PostHog's figures.
#[derive(Debug, Clone)]
pub struct ComparedDays {
    /// What PostHog received before this.
    until: Timestamp,
    choice: Choice,
    asked: Option<(Timestamp, Timestamp)>,
    days: DayCells,
}

impl ComparedDays {
    /// The days of a ledger that has been compared; none before its first sync.
    pub(super) fn of(ledger: &Ledger) -> Option<Self> {
        let names =
            ledger.added.as_ref().map_or_else(|| ledger.choice.names.clone(), |added| ledger.choice.names.plus(added));
        let choice = Choice { names, filter: ledger.choice.filter.clone() };
        Some(Self { until: ledger.until()?, choice, asked: ledger.asked, days: ledger.by_period() })
    }
}

/// The figures of a sync, and whether `PostHog` or what has been emitted shows them.
struct Found {
    until: Timestamp,
    choice: Choice,
    asked: Option<(Timestamp, Timestamp)>,
    days: DayCells,
    is_compared: bool,
    full: Option<FullObservation>,
}

/// Reads the days of one project.
pub struct EventDayReader {
    /// Whom to ask, and where records go.
    pub context: ReadContext,
    /// Where progress is kept.
    pub checkpoint: Arc<Checkpoint<EventDaysState>>,
}

impl EventDayReader {
    /// Emits the days whose figures have changed since the state. `compared` are those of the events that were read
    /// in the same sync.
    ///
    /// # Errors
    /// When PostHog stops answering usefully.
    pub async fn run(&self, compared: Option<ComparedDays>) -> Result<(), Error> {
        let state = self.checkpoint.project(self.context.project).await;
        if self.context.plan.is_some() {
            return self.plan(&state).await;
        }
        let mut found = match compared {
            Some(ComparedDays { until, choice, asked, days }) => {
                Found { until, choice, asked, days, is_compared: true, full: state.full }
            }
            None => self.count(&state).await?,
        };
        let mut changed = changes(&state.days, &found.days);
        let by_day = self.days_of(&found, &changed.months).await?;
        for month in std::mem::take(&mut changed.months) {
            let days = of_month(&by_day, month);
            let Some(cell) = found.days.remove(&month) else { continue };
            let held = of_month(&state.days, month);
            if sum(&days).emitted == cell.emitted {
                let days = days.into_iter().map(|(day, own)| (day, Cell { assumed: cell.assumed, ..own })).collect();
                changed.days.extend(days_to_emit(&held, &days, month));
                found.days.insert(month, cell);
            } else {
                tracing::info!("the figures of {month} are changing; the next sync emits them");
                found.days.extend(held);
            }
        }
        let writer =
            EventDayWriter::new(&self.context.selection, &self.context.stream, self.context.project, found.until);
        // Figures of other events say nothing, and neither do those of a server that may be behind.
        let comparable = found.is_compared && state.choice.as_ref() == Some(&found.choice);
        let lost = losses(&state.days, &changed.days, &state.deleted, comparable);
        let mut batch = self.context.batch();
        for (day, cell) in changed.days {
            let proof = match (found.is_compared, cell.assumed) {
                (_, true) => DayProof::Assumed,
                (true, false) => DayProof::Compared,
                (false, false) => DayProof::Counted,
            };
            let deleted = lost.get(&Period::day(day)).copied().filter(|_| found.is_compared);
            writer.write(day, cell.emitted, deleted, proof, batch.lines.as_vec());
            batch.records += 1;
        }
        batch.send(true).await?;
        self.context.report.proven_by(Proof::Figures);
        let mut deleted = state.deleted;
        deleted.extend(lost);
        let (days, deleted) = folded(found.days, deleted, days_asked(found.asked), found.until);
        let state = EventDaysState { days, deleted, choice: Some(found.choice), full: found.full };
        self.checkpoint.set(self.context.project, state).await
    }

    /// Enters what would be read, if nothing is to be read: the figures are not those of a sync of events.
    async fn plan(&self, state: &EventDaysState) -> Result<(), Error> {
        let (_, unknown, bytes) = self.observe(state).await?;
        let questions = (unknown.len() as u64).div_ceil(figures::MOST_PERIODS as u64);
        let (queries, days) = (1 + questions, unknown.iter().flat_map(|period| period.days().numbers()).collect());
        let planned = PlannedRead { days, queries, bytes: bytes.saturating_mul(queries), ..PlannedRead::default() };
        self.context.plan_read(PlannedMethod::Query, planned);
        Ok(())
    }

    /// Figures without duplicates by day.
    async fn days_of(&self, found: &Found, periods: &BTreeSet<Period>) -> Result<DayCells, GiveUp> {
        let ledger = ledger_of_days(found.choice.clone(), found.asked, found.until);
        let periods: Vec<Period> = periods.iter().copied().collect();
        let figures = figures::distinct(&self.context, &ledger, &found.choice.names, 0, &periods).await?;
        let asked = days_asked(found.asked);
        let cells = figures
            .into_iter()
            .map(|(key, Figures { raw, distinct })| (key.period, Cell { raw, ..Cell::emitted(distinct) }));
        Ok(cells.filter(|(period, _)| asked.contains_all(period.days())).collect())
    }

    /// Counts the days that look different from what has been emitted.
    async fn count(&self, state: &EventDaysState) -> Result<Found, GiveUp> {
        let (mut found, unknown, _) = self.observe(state).await?;
        let mut days = self.days_of(&found, &unknown).await?;
        found.days.append(&mut days);
        Ok(found)
    }

    /// The figures that look the same as those that have been emitted, the periods with others, and the bytes that the server
    /// has read.
    async fn observe(&self, state: &EventDaysState) -> Result<(Found, BTreeSet<Period>, u64), GiveUp> {
        let (choice, (from, to)) = chosen(&self.context);
        let until = self.context.client.now().minus(self.context.config.method.ingestion_delay);
        let ledger = Ledger { full: state.full, ..ledger_of_days(choice.clone(), Some((from, to)), until) };
        let asked = days_asked(ledger.asked);
        let observed_days = observation(&ledger, asked, until);
        let observed = figures::observe(&self.context, &ledger, &choice.names, observed_days).await?;
        let raw: BTreeMap<_, _> = observed.figures.into_iter().map(|(key, figure)| (key.period, figure)).collect();
        let (days, unknown) = known(&state.days, &raw, observed_days);
        let full = FullObservation { until, days: observed_days, bytes: Some(observed.bytes) };
        let full = if observed_days == asked { Some(full) } else { state.full };
        let found = Found { until, choice, asked: Some((from, to)), days, is_compared: false, full };
        Ok((found, unknown, observed.bytes))
    }
}

fn days_asked(asked: Option<(Timestamp, Timestamp)>) -> Days {
    asked.map_or(Days::ALL, |(from, to)| Days::touched_by(from, to))
}

/// PostHog's figures of these days, as far as the configuration asks for them: without duplicates, unless `agrees` is
/// content with those that still has them. Only what was received before `until`.
///
/// # Errors
/// When PostHog does not answer usefully.
pub async fn count_days(
    context: &ReadContext,
    until: Timestamp,
    days: Days,
    agrees: impl Fn(i64, Fingerprint) -> bool,
) -> Result<BTreeMap<i64, Fingerprint>, Error> {
    let (choice, asked) = chosen(context);
    let ledger = ledger_of_days(choice.clone(), Some(asked), until);
    let wanted = days.intersection(days_asked(Some(asked)));
    if wanted.is_empty() {
        return Ok(BTreeMap::new());
    }
    let observed = figures::observe(context, &ledger, &choice.names, wanted).await?;
    let (mut days, mut unclear) = (BTreeMap::new(), Vec::new());
    for (key, figure) in observed.figures {
        let day = key.period.first();
        days.insert(day, figure);
        if !agrees(day, figure) {
            unclear.push(key.period);
        }
    }
    let distinct = figures::distinct(context, &ledger, &choice.names, 0, &unclear).await?;
    days.extend(distinct.into_iter().map(|(key, figures)| (key.period.first(), figures.distinct)));
    Ok(days)
}

/// The events that the configuration asks for, and from when to when.
fn chosen(context: &ReadContext) -> (Choice, (Timestamp, Timestamp)) {
    let config = &context.config;
    let names = Names::new(&config.include_events, &config.exclude_events);
    let choice = Choice { names, filter: config.event_filter.clone() };
    (choice, (config.start, config.end.unwrap_or(Timestamp::MAX)))
}

/// A ledger with one slice and without months: PostHog's figures of it are those of days.
fn ledger_of_days(choice: Choice, asked: Option<(Timestamp, Timestamp)>, until: Timestamp) -> Ledger {
    Ledger { asked, slices: vec![Slice::new(until)], ..Ledger::new(choice, None) }
}
