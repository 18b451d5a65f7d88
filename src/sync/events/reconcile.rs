//! Compares the ledger of one project with PostHog's figures, and reads until they agree.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Arc;

use chrono::{NaiveDate, TimeDelta};
use tokio::task::JoinSet;
use tracing::Instrument;

use super::begin::{Beginning, begin};
use super::differing::{differing_days, disagreement};
use super::event_days::ComparedDays;
use super::figures::{self, Observed};
use super::pages::WindowReader;
use super::windows::{CellWindow, windows};
use crate::error::Error;
use crate::posthog::http::{GiveUp, Refusal};
use crate::records::Fingerprint;
use crate::sync::export::{ExportOutcome, ExportReader};
use crate::sync::ledger::{
    CellKey, Choice, ChoiceChange, DaySet, Days, Decision, Difference, Figures, Forgotten, Ledger, Names, Part, Period,
    ROUNDS, Scope, Slice, bound, decide, differences, has_grown, observation, prove, tidy,
};
use crate::sync::observer::OnEstimate;
use crate::sync::query::reader::ProjectReader;
use crate::sync::read_plan::{PlannedMethod, PlannedRead};
use crate::sync::report::{Counts, Proof};
use crate::sync::state::export::{ExportState, ExportedCells};
use crate::sync::state::read_ahead::ReadAhead;
use crate::sync::state::table::ProjectState;
use crate::time::{DAY, Timestamp};

/// Rows that a first sync reads after its bound: few, since the state keeps their numbers.
const MOST_AHEAD: u32 = 100;
/// They are looked for among the events of this many days before the bound, and of all later ones.
const DAYS_AHEAD: i64 = 3;
/// So far may PostHog's clock and the one that stamps events be apart.
const CLOCK_TOLERANCE: TimeDelta = TimeDelta::minutes(1);

/// Reads the events of one project.
pub struct EventReader {
    reader: ProjectReader,
    /// The other way to fetch many rows, if there is one.
    exports: Option<ExportReader>,
    /// Whether it is known which columns the instance has.
    has_columns: bool,
    /// Rows of the cells that this sync reads by query, when that was decided.
    read: BTreeMap<(Part, CellKey), u64>,
    has_read: bool,
    /// What had been emitted and is to be read again.
    forgotten: Vec<Forgotten>,
    /// What PostHog has shown last, by part, if the ledger has the same cells still.
    shown: BTreeMap<Part, BTreeMap<CellKey, Fingerprint>>,
    /// Days that are compared.
    compares: Option<Days>,
    /// Rows that became visible while their cells were read.
    later: BTreeMap<(Part, CellKey), u64>,
    /// The figures that agree, before days are folded into months.
    compared: Option<ComparedDays>,
    /// The cells of an export that would go on, if nothing is to be read.
    resumed: Option<ExportedCells>,
    /// Rows that the first sync has emitted ahead of its bound.
    ahead: Option<ReadAhead>,
}

/// How reading events has ended.
pub enum EventsRead {
    /// What has been emitted agrees with PostHog's figures, which are these.
    Complete(Option<ComparedDays>),
    /// PostHog does not answer such questions, for this reason.
    NotComparable(Refusal),
}

/// What one round of comparing has found.
#[derive(Default)]
struct Round {
    /// Days of the cells that have been read.
    read: Option<Days>,
    /// Cells that still differ when no more rounds are left.
    differs: Vec<(Part, Difference)>,
    bytes: u64,
}

/// A cell that has to be read.
struct Differing {
    difference: Difference,
    /// Records of it that have been emitted before, if any have.
    emitted: Option<u64>,
    /// Rows that PostHog shows, if any have been emitted before.
    stored: u64,
}

impl EventReader {
    /// A reader that fetches rows by queries, or by `exports` where they are many.
    pub fn new(reader: ProjectReader, exports: Option<ExportReader>) -> Self {
        let (read, later) = (BTreeMap::new(), BTreeMap::new());
        Self {
            reader,
            exports,
            has_columns: false,
            read,
            has_read: false,
            forgotten: Vec::new(),
            shown: BTreeMap::new(),
            compares: None,
            later,
            compared: None,
            resumed: None,
            ahead: None,
        }
    }

    /// Reads what the ledger and PostHog differ in.
    ///
    /// # Errors
    /// When PostHog stops answering usefully, or the figures cannot be made to agree. What has been read
    /// is in the state.
    pub async fn run(&mut self, on_estimate: OnEstimate<'_>) -> Result<EventsRead, Error> {
        let project = self.reader.context.project;
        let before = self.reader.checkpoint.project(project).await;
        match self.reconcile(on_estimate).await {
            Ok(()) => Ok(EventsRead::Complete(self.compared.take())),
            Err(GiveUp::Refused(refusal)) => {
                // Exports go on from their own state, unless events have been read in another way.
                if !self.has_read {
                    self.reader.checkpoint.note(project, |state| *state = before).await;
                }
                Ok(EventsRead::NotComparable(refusal))
            }
            Err(give_up) => {
                self.report_unfinished().await;
                Err(give_up.into())
            }
        }
    }

    async fn reconcile(&mut self, on_estimate: OnEstimate<'_>) -> Result<(), GiveUp> {
        let context = self.reader.context.clone();
        let wanted = self.reader.choice();
        let state = self.reader.checkpoint.project(context.project).await;
        let clock = context.client.now();
        let Beginning { mut ledger, narrow, notice } = begin(&state, &wanted, self.reader.wanted(), clock)?;
        if let Some(notice) = notice {
            tracing::info!("{notice}");
        }
        let kept = state.export.cells.as_ref().and_then(|cells| cells.bounds.last().copied());
        let bound = bound(clock, context.config.method.ingestion_delay, &ledger);
        let is_first = state.ledger.is_none() && ledger.assumed.is_none();
        // Rows that have been read ahead come by query, which can leave them out.
        ledger.open_slices(bound, state.read_ahead.iter().flat_map(|ahead| [ahead.from, ahead.until]), kept);
        let before = state.ledger.as_ref().filter(|_| narrow.is_none());
        let reads_again = self.forget_days(&mut ledger).await?;
        let ahead = state.read_ahead.filter(|_| !reads_again);
        self.ahead.clone_from(&ahead);
        let begun = state.export.cells.clone();
        let resumed = begun.clone().filter(|cells| self.exports.is_some() && is_of(cells, before, &ledger));
        if let (Some(exports), Some(_), None) = (&self.exports, &begun, &resumed) {
            exports.cancel_all(&state.export).await;
        }
        self.change(|state| {
            *state = ProjectState {
                ledger: Some(ledger),
                read_ahead: ahead,
                // An export of other cells is dropped together with the ledger that it was for. The assumption
                // of the new one has taken over what version 1 had compared.
                export: match (begun, &resumed) {
                    (Some(_), None) => ExportState::default(),
                    _ => ExportState { compared_until: None, ..state.export.clone() },
                },
                exports_failed_at: state.exports_failed_at,
                method: state.method,
                ..ProjectState::default()
            };
        })
        .await?;
        // Before anything is read: no event of the other names is wanted any more.
        if let Some(names) = narrow {
            self.narrow(names, &wanted).await?;
        }
        if let Some(before) = state.ledger.filter(|before| before.choice.filter == wanted.filter) {
            self.forgotten = self.ledger().await.forgotten_since(&before);
        }
        if let Some(cells) = resumed {
            self.finish_export(cells, on_estimate).await?;
        }
        self.compare_and_read(bound, on_estimate).await?;
        self.reader
            .checkpoint
            .note(context.project, |state| {
                state.read_ahead = state.read_ahead.take().filter(|ahead| bound < ahead.until);
            })
            .await;
        if is_first && context.plan.is_none() && !context.config.method.ingestion_delay.is_zero() {
            self.read_ahead(wanted.names, bound).await?;
        }
        Ok(())
    }

    /// Reads the newest events in a project's first sync: people who try it out look for what they sent a minute ago.
    async fn read_ahead(&mut self, names: Names, bound: Timestamp) -> Result<(), GiveUp> {
        self.choose_columns().await?;
        let reader = Arc::new(self.reader.clone());
        let until = self.reader.context.client.now().minus(-CLOCK_TOLERANCE);
        let mut ledger = self.ledger().await;
        ledger.slices.push(Slice::new(until));
        let pages = WindowReader { reader, part: Part::Main, names, ledger: Arc::new(ledger), known: Arc::default() };
        // PostHog orders its table by day, so to look for them among all events would cost as much as all events.
        let recent = self.days().intersection(Days { from: bound.day() - DAYS_AHEAD, ..Days::ALL });
        let rows = if recent.is_empty() { BTreeSet::new() } else { pages.read_ahead(recent, MOST_AHEAD).await };
        if rows.is_empty() {
            return Ok(());
        }
        tracing::info!(
            "{} events that PostHog received after {bound} have been read ahead; the next sync compares them",
            rows.len()
        );
        self.change(|state| state.read_ahead = Some(ReadAhead { from: bound, until, rows })).await
    }

    /// Reads until nothing differs, and tidies the ledger.
    async fn compare_and_read(&mut self, bound: Timestamp, on_estimate: OnEstimate<'_>) -> Result<(), GiveUp> {
        let asked = self.days();
        let days = observation(&self.ledger().await, asked, bound);
        if days != asked {
            tracing::info!("comparing {days}; to compare all days costs PostHog so much that it is done once a day");
        }
        self.compares = Some(days);
        let (mut to_compare, mut bytes, mut last) = (days, 0, Round::default());
        let mut clock = self.reader.context.client.now();
        for round in 0..=ROUNDS {
            clock = self.reader.context.client.now();
            last = self.round(round, to_compare, clock, on_estimate).await?;
            if round == 0 {
                bytes = last.bytes;
            }
            if self.reader.context.plan.is_some() {
                // What is read is compared once more.
                let queries = if last.read.is_some() { 2 } else { 1 };
                let compared = PlannedRead { rows: Some(0), queries, bytes: bytes * queries, ..PlannedRead::default() };
                self.reader.context.plan_read(PlannedMethod::Query, compared);
                return Ok(());
            }
            match last.read {
                // The other cells have just been found to agree.
                Some(read) => to_compare = read,
                None => break,
            }
        }
        let complete = last.differs.is_empty();
        let scope = Scope { days, is_full: days == asked, is_complete: complete, bytes: Some(bytes) };
        if complete {
            self.compares = None;
            self.report_figures(days, &[]).await;
        } else {
            // Before slices merge, so that the figures are still those of its cells.
            self.report_unfinished().await;
        }
        self.compared = ComparedDays::of(&self.ledger().await).filter(|_| complete);
        self.change_ledger(|ledger| {
            if complete && scope.is_full {
                ledger.join_added(scope, clock);
            }
            tidy(ledger, scope, clock);
        })
        .await?;
        if complete { Ok(()) } else { Err(disagreement(&last.differs).into()) }
    }

    /// Compares once, and reads what differs unless this is the last round.
    async fn round(
        &mut self,
        round: u32,
        days: Days,
        clock: Timestamp,
        on_estimate: OnEstimate<'_>,
    ) -> Result<Round, GiveUp> {
        let mut outcome = Round::default();
        for part in [Part::Main, Part::Added] {
            let mut ledger = self.ledger().await;
            let Some(names) = names_of(&ledger, part) else { continue };
            let context = self.reader.context.clone();
            let mut observed = figures::observe(&context, &ledger, &names, days).await?;
            outcome.bytes += observed.bytes;
            let mut found = differences(&ledger, part, &observed.figures, days);
            self.leave_out_resumed(part, &ledger, &mut found);
            let by_export = round == 0 && self.is_for_export(&found);
            if by_export && self.split(&found).await? {
                self.shown.clear();
                ledger = self.ledger().await;
                observed = figures::observe(&context, &ledger, &names, days).await?;
                found = differences(&ledger, part, &observed.figures, days);
            }
            self.remember(&ledger, part, days, &observed);
            let project = context.project;
            self.reader
                .checkpoint
                .note(project, |state| {
                    if let Some(ledger) = &mut state.ledger {
                        prove(ledger, part, &observed.figures, clock);
                    }
                })
                .await;
            let differing = self.decide(part, &names, &found, clock).await?;
            if round == ROUNDS {
                outcome.differs.extend(differing.iter().map(|cell| (part, cell.difference)));
                continue;
            }
            if differing.is_empty() {
                continue;
            }
            for Differing { difference, emitted, stored } in &differing {
                if let Some(emitted) = emitted {
                    tracing::info!(
                        "events of {}: PostHog has {stored} and showed {emitted} before, so they are read again; up to {} of them are repeats",
                        difference.key.period,
                        emitted.min(stored)
                    );
                }
            }
            let keys: Vec<CellKey> = differing.iter().map(|cell| cell.difference.key).collect();
            self.has_read = true;
            let touched = keys.iter().map(|key| key.period.days());
            let hull = touched.chain(outcome.read).reduce(|a, b| Days { from: a.from.min(b.from), to: a.to.max(b.to) });
            outcome.read = hull;
            Self::report(round, &keys, &observed);
            on_estimate(keys.iter().filter_map(|key| observed.figures.get(key)).map(|figure| figure.count).sum());
            self.fetch(part, names, keys, &observed, by_export, on_estimate).await?;
        }
        Ok(outcome)
    }

    /// Decides which cells to read, and notes in the ledger what needs no reading. Cells that have only grown
    /// since this sync has read them are left to the next one.
    async fn decide(
        &mut self,
        part: Part,
        names: &Names,
        found: &[Difference],
        clock: Timestamp,
    ) -> Result<Vec<Differing>, GiveUp> {
        let ledger = self.ledger().await;
        let is_unclear = |difference: &&Difference| {
            let cell = ledger.cell(part, difference.key);
            decide(cell, ledger.is_assumed(part, difference.key), difference.observed, None) == Decision::AskDistinct
        };
        let mut unclear: BTreeMap<usize, Vec<_>> = BTreeMap::new();
        for difference in found.iter().filter(is_unclear) {
            unclear.entry(difference.key.slice).or_default().push(difference.key.period);
        }
        let mut distinct: BTreeMap<CellKey, Figures> = BTreeMap::new();
        for (slice, periods) in unclear {
            distinct.extend(figures::distinct(&self.reader.context, &ledger, names, slice, &periods).await?);
        }
        let (mut differing, mut noted) = (Vec::new(), Vec::new());
        let (mut gone, mut assumed, mut grown) = (BTreeMap::new(), 0_u64, BTreeMap::new());
        for difference in found.iter().copied() {
            let Difference { key, observed, .. } = difference;
            let cell = ledger.cell(part, key);
            // A cell that is not among them has no rows any more.
            let figures = cell.map(|_| distinct.get(&key).copied().unwrap_or_default());
            match decide(cell, ledger.is_assumed(part, key), observed, figures) {
                Decision::Assume => {
                    assumed += observed.count;
                    noted.push((key, None, observed));
                }
                Decision::NoteRaw(figures) => noted.push((key, Some(figures), observed)),
                Decision::NoteGone(figures, count) => {
                    *gone.entry(key.period).or_insert(0_u64) += count;
                    noted.push((key, Some(figures), observed));
                }
                Decision::Read | Decision::AskDistinct => {
                    let figures = figures.unwrap_or_default();
                    let (before, is_settled) = (self.read.get(&(part, key)), ledger.is_settled(key.slice, clock));
                    match cell {
                        Some(cell) if has_grown(cell, before.copied(), figures, is_settled) => {
                            grown.insert((part, key), figures.distinct.count - cell.emitted.count);
                        }
                        _ => differing.push(Differing {
                            difference,
                            emitted: cell.map(|cell| cell.emitted.count),
                            stored: figures.distinct.count,
                        }),
                    }
                }
            }
        }
        for (period, count) in gone {
            tracing::info!("{count} events of {period} are gone from PostHog: deleted, expired or merged");
        }
        self.later.retain(|of, _| !differing.iter().any(|cell| (part, cell.difference.key) == *of));
        let more: u64 = grown.values().sum();
        self.later.extend(grown);
        if more > 0 {
            tracing::info!("{more} events became visible while their days were read; the next sync reads them");
        }
        if assumed > 0 {
            tracing::info!("{assumed} events are taken for read, as the state says");
        }
        if !noted.is_empty() {
            self.change_ledger(|ledger| {
                for (key, figures, observed) in noted {
                    match figures {
                        Some(figures) => ledger.note(part, key, figures, clock),
                        None => ledger.assume(key, observed),
                    }
                }
            })
            .await?;
        }
        Ok(differing)
    }

    /// Remembers what PostHog shows, in case that reading ends early.
    fn remember(&mut self, ledger: &Ledger, part: Part, days: Days, observed: &Observed) {
        let days = ledger.months.whole_periods(days);
        let shown = self.shown.entry(part).or_default();
        shown.retain(|key, _| !days.contains_all(key.period.days()));
        shown.extend(observed.figures.iter().map(|(key, figure)| (*key, *figure)));
    }

    /// Reports how far reading has come that has ended early, by the figures that PostHog has shown last.
    async fn report_unfinished(&mut self) {
        let ledger = self.ledger().await;
        let Some(days) = self.compares.take().filter(|_| !self.shown.is_empty()) else {
            let forgotten = std::mem::take(&mut self.forgotten);
            return self.reader.context.report.repeated(ledger.emitted_again(&forgotten));
        };
        // These cells differ as well.
        self.later.clear();
        let differs: Vec<(Part, Difference)> = self
            .shown
            .iter()
            .flat_map(|(part, shown)| differences(&ledger, *part, shown, days).into_iter().map(|found| (*part, found)))
            .collect();
        self.report_figures(days, &differs).await;
    }

    /// Reports what has been emitted of the days that were compared, and what PostHog has of them.
    async fn report_figures(&mut self, days: Days, differs: &[(Part, Difference)]) {
        let ledger = self.ledger().await;
        let is_full = days == self.days();
        let days = ledger.months.whole_periods(days);
        let cells = ledger.by_period();
        let compared = || cells.iter().filter(|(period, _)| days.contains_all(period.days()));
        let here: u64 = compared().map(|(_, cell)| cell.emitted.count).sum();
        let sum = |count: fn(&Difference) -> u64| differs.iter().map(|(_, difference)| count(difference)).sum::<u64>();
        let missing = sum(|difference| difference.observed.count);
        let later: u64 = self.later.values().sum();
        let posthog = (here + missing + later).saturating_sub(sum(|difference| difference.held.count));
        let report = &self.reader.context.report;
        let proof = if is_full { Proof::Compared } else { Proof::ComparedRecently };
        report.counted(proof, Counts { here, posthog, later });
        report.differ(differing_days(&cells, differs));
        report.repeated(ledger.emitted_again(&std::mem::take(&mut self.forgotten)));
        let assumed: u64 = compared().filter(|(_, cell)| cell.assumed).map(|(_, cell)| cell.emitted.count).sum();
        if assumed > 0 {
            report.counted(Proof::Assumed, Counts { here: assumed, ..Counts::default() });
        }
    }

    fn report(round: u32, keys: &[CellKey], observed: &Observed) {
        let rows: u64 = keys.iter().filter_map(|key| observed.figures.get(key)).map(|figure| figure.count).sum();
        let periods: BTreeSet<_> = keys.iter().map(|key| key.period).collect();
        if let (Some(first), Some(last)) = (periods.first(), periods.last()) {
            let again = if round == 0 { "" } else { " that are still missing" };
            tracing::info!("reading {rows} events{again}, of {} days or months from {first} to {last}", periods.len());
        }
    }

    /// Reads cells, by export or by query.
    async fn fetch(
        &mut self,
        part: Part,
        names: Names,
        mut keys: Vec<CellKey>,
        observed: &Observed,
        by_export: bool,
        on_estimate: OnEstimate<'_>,
    ) -> Result<(), GiveUp> {
        if by_export {
            let ledger = self.ledger().await;
            // What was ingested last may not be stored yet, so files may lack some of it.
            let newest = ledger.slices.len().saturating_sub(1);
            let has_ahead = |slice: usize| {
                let from = ledger.ingested_from(slice).unwrap_or(Timestamp::MIN);
                let slice = ledger.slices.get(slice);
                self.ahead
                    .as_ref()
                    .zip(slice)
                    .is_some_and(|(ahead, slice)| from < ahead.until && ahead.from < slice.until)
            };
            let is_recent = |key: &&CellKey| key.slice == newest || has_ahead(key.slice);
            let (recent, exported): (Vec<_>, Vec<_>) = keys.iter().partition(is_recent);
            if !exported.is_empty() {
                self.plan_cells(PlannedMethod::Export, &exported, observed);
            }
            if !exported.is_empty() && self.export(part, &names, &ledger, &exported, on_estimate).await? {
                keys = recent;
            }
        }
        let rows = |key: &CellKey| observed.figures.get(key).map_or(0, |figure| figure.count);
        self.read.extend(keys.iter().map(|key| ((part, *key), rows(key))));
        self.query(part, names, &keys, observed).await.map_err(GiveUp::from)
    }

    /// Reads cells by export. Returns false if exports do not work here.
    async fn export(
        &mut self,
        part: Part,
        names: &Names,
        ledger: &Ledger,
        keys: &[CellKey],
        on_estimate: OnEstimate<'_>,
    ) -> Result<bool, GiveUp> {
        let Some(exports) = &self.exports else { return Ok(false) };
        match exports.read_cells(part, names, ledger, keys, on_estimate).await? {
            ExportOutcome::Complete => Ok(true),
            ExportOutcome::Impossible => {
                self.exports = None;
                Ok(false)
            }
        }
    }

    /// Forgets the days that are to be read once more, and have not been yet. Returns whether there are any.
    async fn forget_days(&mut self, ledger: &mut Ledger) -> Result<bool, GiveUp> {
        let context = &self.reader.context;
        let days = |range: &RangeInclusive<NaiveDate>| Days {
            from: Timestamp::from_date(*range.start()).day(),
            to: Timestamp::from_date(*range.end()).day() + 1,
        };
        // Days that are not asked for now are read again once they are.
        let asked = self.days();
        let in_settings: DaySet = context.config.reread_days.iter().map(days).collect();
        let wanted: DaySet = in_settings.ranges().iter().map(|range| range.intersection(asked)).collect();
        let outside = in_settings.minus(&wanted);
        if !outside.is_empty() {
            tracing::warn!(
                "`reread_days`: {outside} not read, because `start_date` and `end_date` leave these days out"
            );
        }
        let due = ledger.due(&wanted);
        if due.is_empty() && !wanted.is_empty() {
            tracing::info!(
                "`reread_days`: {wanted} have been read again already; to have them read once more, sync once without them"
            );
        }
        let mut forgotten = 0;
        for month in ledger.months_with(&due) {
            let mut figures = BTreeMap::new();
            if !due.contains_all(month.days()) {
                let mut by_day = ledger.clone();
                by_day.months.remove(month);
                let days: Vec<Period> = (month.days().from..month.days().to).map(Period::day).collect();
                for slice in (0..ledger.slices.len()).filter(|&slice| ledger.slices[slice].cells.contains_key(&month)) {
                    let names = &ledger.choice.names;
                    figures.extend(figures::distinct(context, &by_day, names, slice, &days).await?);
                }
            }
            forgotten += ledger.unfold(month, &figures);
        }
        forgotten += ledger.forget_days(wanted);
        if forgotten > 0 || (ledger.assumed.is_some() && !due.is_empty()) {
            tracing::info!(
                "events of {due} are read again, as `reread_days` asks; {forgotten} of them had been emitted before"
            );
        }
        Ok(!due.is_empty())
    }

    /// Goes on with an export that an earlier sync has begun.
    async fn finish_export(&mut self, cells: ExportedCells, on_estimate: OnEstimate<'_>) -> Result<(), GiveUp> {
        let ledger = self.ledger().await;
        let (Some(exports), Some(names)) = (&self.exports, names_of(&ledger, cells.part)) else { return Ok(()) };
        tracing::info!("going on with an export that was interrupted");
        if self.reader.context.plan.is_some() {
            self.resumed = Some(cells.clone());
        }
        if exports.resume_cells(cells, &names, &ledger, on_estimate).await? == ExportOutcome::Impossible {
            self.exports = None;
        }
        Ok(())
    }

    /// Enters the rows of cells that would be exported, if nothing is to be read.
    fn plan_cells(&self, method: PlannedMethod, keys: &[CellKey], observed: &Observed) {
        let rows = keys.iter().filter_map(|key| observed.figures.get(key)).map(|figure| figure.count).sum();
        let days = keys.iter().flat_map(|key| key.period.days().numbers()).collect();
        self.reader.context.plan_read(method, PlannedRead { days, rows: Some(rows), ..PlannedRead::default() });
    }

    /// If nothing is to be read, cells of an export that would go on do not differ any more.
    fn leave_out_resumed(&self, part: Part, ledger: &Ledger, found: &mut Vec<Difference>) {
        let Some(resumed) = &self.resumed else { return };
        let is_resumed = |difference: &Difference| {
            let slice = ledger.slices.get(difference.key.slice);
            let cells = slice.and_then(|slice| resumed.emitted.get(&slice.until));
            resumed.part == part && cells.is_some_and(|cells| cells.contains_key(&difference.key.period))
        };
        for Difference { key, held, observed, .. } in found.extract_if(.., |difference| is_resumed(difference)) {
            let rows = Some(observed.count.saturating_sub(held.count));
            let days = key.period.days().numbers().collect();
            self.reader.context.plan_read(PlannedMethod::Export, PlannedRead { days, rows, ..PlannedRead::default() });
        }
    }

    /// Whether these are so many rows that they are worth an export. What an export leaves out is read by query.
    /// Only the server can tell which lines fulfil a condition of the user's.
    fn is_for_export(&self, found: &[Difference]) -> bool {
        let rows: u64 = found.iter().map(|difference| difference.observed.count).sum();
        let config = &self.reader.context.config;
        self.exports.is_some() && config.event_filter.is_none() && rows > config.export_above
    }

    /// Cuts long slices of which nothing has been emitted where export windows will end.
    ///
    /// An export leaves out events that were ingested long after they happened. In slices as long as a
    /// window these are cells of their own, so reading them by query repeats nothing.
    async fn split(&mut self, found: &[Difference]) -> Result<bool, GiveUp> {
        let Some(exports) = &self.exports else { return Ok(false) };
        let ledger = self.ledger().await;
        let long = |index: usize| {
            let slice = ledger.slices.get(index)?;
            let is_new = slice.is_empty() && !ledger.open.iter().any(|open| open.ingested_before == slice.until);
            is_new.then_some((ledger.ingested_from(index), slice.until))
        };
        let slices: BTreeSet<usize> = found.iter().map(|difference| difference.key.slice).collect();
        let mut cuts = Vec::new();
        for (from, until) in slices.into_iter().filter_map(long) {
            let from = match from {
                Some(from) => from,
                None => exports.beginning().await?,
            };
            let first = found.iter().map(|difference| difference.key.period.first()).min();
            let mut day = first.map_or(from.day(), |first| from.day().max(first - 1)) + 1;
            while Timestamp::from_day(day) < until.plus_micros(-DAY) {
                cuts.push(Timestamp::from_day(day));
                day += exports.window_days();
            }
        }
        if cuts.is_empty() {
            return Ok(false);
        }
        self.change_ledger(|ledger| ledger.split(&cuts)).await?;
        Ok(true)
    }

    /// Reads cells by query, several windows at a time.
    async fn query(&mut self, part: Part, names: Names, keys: &[CellKey], observed: &Observed) -> Result<(), Error> {
        if keys.is_empty() {
            return Ok(());
        }
        self.choose_columns().await?;
        let ledger = Arc::new(self.ledger().await);
        let config = &self.reader.context.config;
        let (target, concurrency) = (u64::from(self.reader.page_size.rows()), config.concurrency);
        let most_days = config.window_days.map_or(i64::MAX, i64::from);
        let mut queue: VecDeque<CellWindow> = windows(&ledger, part, keys, &observed.figures, target, most_days).into();
        if self.reader.context.plan.is_some() {
            for window in queue {
                let pages = PlannedRead::pages(window.rows, self.reader.page_size.rows(), window.rows);
                let days = window.periods.iter().flat_map(|period| period.days().numbers()).collect();
                self.reader.context.plan_read(PlannedMethod::Query, PlannedRead { days, ..pages });
            }
            return Ok(());
        }
        let known = Arc::new(self.ahead.as_ref().map(|ahead| ahead.rows.clone()).unwrap_or_default());
        let reader = Arc::new(self.reader.clone());
        let pages = WindowReader { reader, part, names, ledger, known };
        let mut running = JoinSet::new();
        loop {
            while running.len() < concurrency {
                let Some(window) = queue.pop_front() else { break };
                let pages = pages.clone();
                running.spawn(async move { pages.read(&window).await }.in_current_span());
            }
            match running.join_next().await {
                None => return Ok(()),
                Some(Ok(outcome)) => outcome?,
                Some(Err(error)) => {
                    return Err(Error::system("a task of this connector has failed").with_details(error.to_string()));
                }
            }
        }
    }

    async fn choose_columns(&mut self) -> Result<(), Error> {
        if !self.has_columns {
            self.reader.choose_columns().await?;
            self.has_columns = true;
        }
        Ok(())
    }

    /// Takes over the figures of fewer names. Cells that differ are forgotten, and read with these names.
    async fn narrow(&mut self, names: Names, wanted: &Choice) -> Result<(), GiveUp> {
        let (ledger, days, clock) = (self.ledger().await, self.days(), self.reader.context.client.now());
        let held = ledger.choice.names.clone();
        let observed = figures::observe(&self.reader.context, &ledger, &held, days).await?;
        let found = differences(&ledger, Part::Main, &observed.figures, days);
        // What needs no reading, such as merged duplicates, is noted, so that its cells agree.
        self.decide(Part::Main, &held, &found, clock).await?;
        let ledger = self.ledger().await;
        let observed = figures::narrowed(&self.reader.context, &ledger, &names).await?;
        tracing::info!("fewer events are chosen than before; what has been emitted of the others is forgotten");
        self.change_ledger(|ledger| {
            ledger.narrow(names, &observed);
            if let ChoiceChange::Add(names) = ChoiceChange::between(&ledger.choice, wanted) {
                ledger.begin_added(names);
            }
        })
        .await
    }

    /// Days that the configuration asks for.
    fn days(&self) -> Days {
        let wanted = self.reader.wanted();
        Days::touched_by(wanted.from, wanted.to)
    }

    async fn ledger(&self) -> Ledger {
        let state = self.reader.checkpoint.project(self.reader.context.project).await;
        state.ledger.unwrap_or_else(|| Ledger::new(self.reader.choice(), None))
    }

    async fn change(&self, change: impl FnOnce(&mut ProjectState)) -> Result<(), GiveUp> {
        Ok(self.reader.checkpoint.update(self.reader.context.project, change).await?)
    }

    async fn change_ledger(&self, change: impl FnOnce(&mut Ledger)) -> Result<(), GiveUp> {
        self.change(|state| {
            if let Some(ledger) = &mut state.ledger {
                change(ledger);
            }
        })
        .await
    }
}

/// Whether cells whose export was begun with a ledger are cells of the present one, of the same names.
fn is_of(cells: &ExportedCells, before: Option<&Ledger>, ledger: &Ledger) -> bool {
    let names = names_of(ledger, cells.part);
    let bounds = ledger.slices.iter().map(|slice| slice.until).take(cells.bounds.len());
    names.is_some()
        && names == before.and_then(|before| names_of(before, cells.part))
        && bounds.eq(cells.bounds.iter().copied())
}

/// Names that a part of a ledger is about.
fn names_of(ledger: &Ledger, part: Part) -> Option<Names> {
    match part {
        Part::Main => Some(ledger.choice.names.clone()),
        Part::Added => ledger.added.clone(),
    }
}
