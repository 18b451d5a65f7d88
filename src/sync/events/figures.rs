//! Asks PostHog for the figures of cells.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::posthog::Query;
use crate::posthog::http::GiveUp;
use crate::records::Fingerprint;
use crate::sync::context::ReadContext;
use crate::sync::figure_row::{Number, ask};
use crate::sync::ledger::{CellKey, Days, Figures, Ledger, Names, NarrowedFigures, Period, hogql};
use crate::sync::state::interval::Interval;
use crate::time::Timestamp;

/// Periods in one question, so that its text stays short.
pub(super) const MOST_PERIODS: usize = 50;

/// What an observation shows.
#[derive(Debug, Default)]
pub(super) struct Observed {
    /// Rows as stored, of every cell that has any.
    pub(super) figures: BTreeMap<CellKey, Fingerprint>,
    /// Bytes that the server has read for it.
    pub(super) bytes: u64,
}

/// Observes all cells of some days, in parts when that is too much for one query.
///
/// # Errors
/// When PostHog does not answer, or its figures are not whole.
pub(super) async fn observe(
    context: &ReadContext,
    ledger: &Ledger,
    names: &Names,
    days: Days,
) -> Result<Observed, GiveUp> {
    let mut observed = Observed::default();
    let whole = ledger.months.whole_periods(days);
    let mut parts = vec![Span::whole(whole)];
    while let Some(part) = parts.pop() {
        let query = query(ledger, names, &part, |condition| hogql::observation(ledger, whole, condition));
        let Some(answer) = ask(context, "events", &query, 2).await? else {
            parts.extend(part.halves(context)?);
            continue;
        };
        observed.bytes += answer.bytes;
        for row in answer.rows {
            let [period, slice, count, checksum] = row.0.as_slice() else { return Err(unexpected().into()) };
            let key = usize::try_from(slice.0).ok().and_then(|slice| ledger.key(period.day(), slice));
            let key = key.ok_or_else(unexpected)?;
            let figure: &mut Fingerprint = observed.figures.entry(key).or_default();
            *figure = figure.plus(Fingerprint::new(count.unsigned(), checksum.unsigned()));
        }
    }
    Ok(observed)
}

/// Figures with and without duplicates of some cells of one slice. Cells without rows are left out.
///
/// # Errors
/// As for [`observe`].
pub(super) async fn distinct(
    context: &ReadContext,
    ledger: &Ledger,
    names: &Names,
    slice: usize,
    periods: &[Period],
) -> Result<BTreeMap<CellKey, Figures>, GiveUp> {
    let mut found: BTreeMap<CellKey, Figures> = BTreeMap::new();
    for periods in periods.chunks(MOST_PERIODS) {
        let (Some(first), Some(last)) = (periods.first(), periods.last()) else { continue };
        let mut parts = vec![Span::whole(Days { from: first.days().from, to: last.days().to })];
        while let Some(part) = parts.pop() {
            let query = query(ledger, names, &part, |condition| hogql::distinct(ledger, slice, periods, condition));
            let Some(answer) = ask(context, "events", &query, 1).await? else {
                parts.extend(part.halves(context)?);
                continue;
            };
            for row in answer.rows {
                let [period, raw_count, raw_checksum, count, checksum] = row.0.as_slice() else {
                    return Err(unexpected().into());
                };
                let key = ledger.key(period.day(), slice).ok_or_else(unexpected)?;
                let raw = Fingerprint::new(raw_count.unsigned(), raw_checksum.unsigned());
                let distinct = Fingerprint::new(count.unsigned(), checksum.unsigned());
                let figures = found.entry(key).or_default();
                *figures = Figures { raw: figures.raw.plus(raw), distinct: figures.distinct.plus(distinct) };
            }
        }
    }
    Ok(found)
}

/// Figures of all cells, of the ledger's names and of those that remain when it is narrowed to `remaining`.
///
/// # Errors
/// As for [`observe`]; it cannot be asked for in parts.
pub(super) async fn narrowed(
    context: &ReadContext,
    ledger: &Ledger,
    remaining: &Names,
) -> Result<BTreeMap<CellKey, NarrowedFigures>, GiveUp> {
    let (condition, mut values) =
        hogql::condition(&ledger.choice.names, ledger.choice.filter.as_deref(), ledger.asked, "held");
    let (remains, more) = hogql::names_condition(remaining, "remaining");
    values.extend(more);
    let text = hogql::narrowing(ledger, condition.as_deref(), remains.as_deref().unwrap_or("1 = 1"));
    let query = Query { text, values, persons_at_ingestion: false };
    let Some(answer) = ask(context, "events", &query, 2).await? else {
        return Err(Error::transient(
            "PostHog cannot count all events within its time limit; try again later, or choose as many events as before",
        )
        .into());
    };
    let mut found = BTreeMap::new();
    for row in answer.rows {
        let [period, slice, figures @ ..] = row.0.as_slice() else { return Err(unexpected().into()) };
        let numbers: Vec<u64> = figures.iter().map(Number::unsigned).collect();
        let [held, held_sum, raw, raw_sum, distinct, distinct_sum] = numbers.as_slice() else {
            return Err(unexpected().into());
        };
        let key = usize::try_from(slice.0).ok().and_then(|slice| ledger.key(period.day(), slice));
        let wanted =
            Figures { raw: Fingerprint::new(*raw, *raw_sum), distinct: Fingerprint::new(*distinct, *distinct_sum) };
        let figures = NarrowedFigures { held_raw: Fingerprint::new(*held, *held_sum), wanted };
        found.insert(key.ok_or_else(unexpected)?, figures);
    }
    Ok(found)
}

fn unexpected() -> Error {
    Error::system("PostHog's figures of events are about cells that were not asked for; report this as a bug")
}

/// Event times that are asked about at once. Figures add up over any parts.
#[derive(Debug)]
struct Span {
    times: Interval,
    /// Whether it is all of them, so that no condition is needed.
    is_whole: bool,
}

impl Span {
    fn whole(days: Days) -> Self {
        let (from, to) = (Timestamp::from_day(days.from), Timestamp::from_day(days.to));
        Self { times: Interval { from, to }, is_whole: true }
    }

    /// Its halves, the second one first.
    fn halves(&self, context: &ReadContext) -> Result<[Self; 2], Error> {
        let (first, second) = self.times.halve(context.client.now()).ok_or_else(|| {
            Error::transient(format!(
                "PostHog cannot count the events from {} within its time limit; try again later",
                self.times
            ))
        })?;
        Ok([second, first].map(|times| Self { times, is_whole: false }))
    }
}

/// A query about events of these names at the times that the ledger is about.
fn query(ledger: &Ledger, names: &Names, part: &Span, text: impl FnOnce(Option<&str>) -> String) -> Query {
    let (mut condition, values) = hogql::condition(names, ledger.choice.filter.as_deref(), ledger.asked, "chosen");
    if !part.is_whole {
        let times = hogql::in_times(part.times.from, part.times.to);
        condition = Some(condition.map_or(times.clone(), |condition| format!("{condition} AND {times}")));
    }
    Query { text: text(condition.as_deref()), values, persons_at_ingestion: false }
}
