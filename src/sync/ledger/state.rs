//! The ledger of one project, as it is changed and as the state keeps it.
//!
//! ```json
//! {"choice": {"names": {"all_but": []}}, "months": [["2016-11-01", "2026-09-01"]],
//!  "full": {"until": "2026-11-24T10:00:00.000000Z", "days": [null, null]},
//!  "slices": [{"until": "2026-11-21T10:00:00.000000Z", "cells": {"2026-08": "31000 8f2c…", "2026-11-21": "1200 9f3c…"}}]}
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::assumption::Assumption;
use super::cell::{Cell, Figures};
use super::choice::{Choice, Names};
use super::combine::combine;
use super::day_set::DaySet;
use super::folded_months::FoldedMonths;
use super::full_observation::{FullObservation, SETTLED};
use super::period::{Days, Period};
use super::rules::{Rule, holds};
use super::slice::{CellKey, Part, Slice};
use crate::posthog::RowKey;
use crate::records::Fingerprint;
#[cfg(test)]
use crate::records::day_of;
use crate::sync::state::stream::is_default;
use crate::time::Timestamp;

/// What has been emitted of a project's events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    /// Events that the cells are about.
    pub choice: Choice,
    /// Names that are being added; [`Slice::added`] is about them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub added: Option<Names>,
    /// Days that have been folded into months.
    #[serde(default, skip_serializing_if = "is_default")]
    pub months: FoldedMonths,
    /// The last sync that observed all days that were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full: Option<FullObservation>,
    /// The widest event times that have been asked for. Cells of the days that they cut are about a part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<(Timestamp, Timestamp)>,
    /// What is believed of a state without figures, until all of it has been observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assumed: Option<Assumption>,
    /// Days that the user asks to read once more, of which what had been emitted has been forgotten.
    #[serde(default, skip_serializing_if = "is_default")]
    pub reread: DaySet,
    /// Slices of ingestion time, ascending and without gaps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slices: Vec<Slice>,
    /// Cells that have been read in part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open: Vec<OpenCell>,
}

/// Where rows are continued: in the order of event time, uuid as a string, name and distinct id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SortKey {
    pub event_time: Timestamp,
    /// Text of the uuid.
    pub uuid: String,
    /// Name and distinct id: rows can share a uuid and differ in these.
    #[serde(default, skip_serializing_if = "is_default")]
    pub identity: Vec<String>,
}

impl From<RowKey> for SortKey {
    fn from(key: RowKey) -> Self {
        Self { event_time: key.sort_key, uuid: key.id, identity: key.identity }
    }
}

impl From<SortKey> for RowKey {
    fn from(key: SortKey) -> Self {
        Self { sort_key: key.event_time, id: key.uuid, identity: key.identity }
    }
}

/// A cell that has been read in part. Named by its bounds, not by the number of its slice: numbers
/// change when slices merge, and with other bounds it is another cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenCell {
    /// Which ledger.
    #[serde(default, skip_serializing_if = "is_default")]
    pub part: Part,
    /// First ingestion time inside; none for the first slice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingested_from: Option<Timestamp>,
    /// First ingestion time after it.
    pub ingested_before: Timestamp,
    /// Event time.
    pub period: Period,
    /// The last row that has been emitted.
    pub after: SortKey,
    /// What has been emitted up to there.
    pub emitted: Fingerprint,
}

/// A cell's figures for all names of the ledger and for those that remain, from one response.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NarrowedFigures {
    /// Rows as stored, of all names of the ledger.
    pub held_raw: Fingerprint,
    /// Figures of the names that remain.
    pub wanted: Figures,
}

impl Ledger {
    /// A ledger of which nothing has been emitted.
    pub fn new(choice: Choice, assumed: Option<Assumption>) -> Self {
        Self {
            choice,
            added: None,
            months: FoldedMonths::default(),
            full: None,
            asked: None,
            assumed,
            reread: DaySet::default(),
            slices: Vec::new(),
            open: Vec::new(),
        }
    }

    /// Reads a ledger from a state.
    ///
    /// # Errors
    /// The sentence that names the field.
    pub fn parse(value: &Value) -> Result<Self, String> {
        let ledger: Self = serde_path_to_error::deserialize(value)
            .map_err(|error| format!("`{}`: {}", error.path(), error.inner()))?;
        ledger.validate()?;
        Ok(ledger)
    }

    /// The ledger as the state keeps it.
    pub fn to_value(&self) -> Value {
        json!(self)
    }

    /// What serde cannot see: bounds that ascend, and periods that are folded where the state says so.
    fn validate(&self) -> Result<(), String> {
        if !self.months.is_valid() {
            return Err("`months` are not ascending ranges of whole months".to_owned());
        }
        if !self.reread.is_valid() {
            return Err("`reread` are not ascending ranges of days".to_owned());
        }
        for (index, slice) in self.slices.iter().enumerate() {
            if index > 0 && self.slices[index - 1].until >= slice.until {
                return Err(format!("`slices[{index}].until` is not after the one before"));
            }
            for (name, cells) in [("cells", &slice.cells), ("added", &slice.added)] {
                let folded = |period: &&Period| self.months.period_of(period.first()) != **period;
                if let Some(period) = cells.keys().find(folded) {
                    return Err(format!("`slices[{index}].{name}.{period}` does not agree with `months`"));
                }
            }
            if self.added.is_none() && !slice.added.is_empty() {
                return Err(format!("`slices[{index}].added` is about names that `added` does not have"));
            }
        }
        Ok(())
    }

    /// The end of the newest slice: the bound of the last sync.
    pub fn until(&self) -> Option<Timestamp> {
        self.slices.last().map(|slice| slice.until)
    }

    /// The bound of the last sync that ended complete for all of these event times and names; none if there is
    /// none.
    pub fn complete_until(&self, from: Timestamp, to: Timestamp, names: &Names) -> Option<Timestamp> {
        let full = self.full.filter(|full| full.days.contains_all(Days::touched_by(from, to)))?;
        let is_wide = self.asked.is_some_and(|(first, end)| first <= from && to <= end);
        (is_wide && self.choice.names == *names && self.added.is_none()).then_some(full.until)
    }

    /// Takes over the event times that are asked for now. A day that was cut before and is wanted in a larger part
    /// is forgotten, so that it is read again: fewer rows of one part would look like deletions of the other.
    /// Narrower times change nothing; of the days that they cut, all stays compared.
    pub fn widen(&mut self, from: Timestamp, to: Timestamp) {
        let Some((first, end)) = self.asked else {
            self.asked = Some((from, to));
            return;
        };
        let widened = [(from < first).then_some(first), (to > end).then_some(end)];
        let cut = widened.into_iter().flatten().filter(|instant| !instant.is_midnight());
        for period in cut.map(|instant| self.months.period_of(instant.day())) {
            for slice in &mut self.slices {
                slice.cells.remove(&period);
                slice.added.remove(&period);
            }
            self.open.retain(|open| open.period != period);
            self.full = None;
        }
        self.asked = Some((first.min(from), end.max(to)));
    }

    /// Whether what was ingested in a slice is taken for visible; `clock` is the server's time.
    pub fn is_settled(&self, slice: usize, clock: Timestamp) -> bool {
        self.slices.get(slice).is_some_and(|slice| clock >= slice.until.plus_micros(SETTLED))
    }

    /// The first ingestion time of a slice; none for the first one.
    pub fn ingested_from(&self, slice: usize) -> Option<Timestamp> {
        self.slices.get(slice.checked_sub(1)?).map(|before| before.until)
    }

    /// The cell that the server means by the first day of a period and the number of a slice; none when
    /// there is no such slice or no such period.
    pub fn key(&self, first_day: i64, slice: usize) -> Option<CellKey> {
        let period = self.months.period_of(first_day);
        (slice < self.slices.len() && period.first() == first_day).then_some(CellKey { slice, period })
    }

    /// The cell in which a row with this event time and ingestion time is; none when it was ingested after
    /// the bound.
    #[cfg(test)]
    pub fn key_of(&self, event_time: Timestamp, ingested_at: Timestamp) -> Option<CellKey> {
        let slice = self.slices.partition_point(|slice| slice.until <= ingested_at);
        (slice < self.slices.len()).then(|| CellKey { slice, period: self.months.period_of(day_of(event_time)) })
    }

    /// What has been emitted of a cell; none if nothing has.
    pub fn cell(&self, part: Part, key: CellKey) -> Option<&Cell> {
        self.slices.get(key.slice)?.part(part).get(&key.period)
    }

    /// Returns true if rows of a cell without figures are believed to have been emitted.
    pub fn is_assumed(&self, part: Part, key: CellKey) -> bool {
        let (Some(assumed), Some(slice)) = (self.assumed, self.slices.get(key.slice)) else { return false };
        part == Part::Main
            && slice.until <= assumed.ingested_before
            && assumed.days.contains_all(key.period.days())
            && !self.reread.touches(key.period.days())
    }

    /// Enters a cell of which all rows have been emitted. It is yet to be proven.
    pub fn enter(&mut self, part: Part, key: CellKey, emitted: Fingerprint) {
        if holds(Rule::EnterForgetsPosition) {
            self.forget_open(part, key);
        }
        self.set(part, key, Cell::emitted(emitted));
    }

    /// Enters a cell that is believed to have been emitted, with the figure that `PostHog` shows.
    pub fn assume(&mut self, key: CellKey, observed: Fingerprint) {
        self.set(Part::Main, key, Cell { assumed: true, ..Cell::emitted(observed) });
    }

    /// Notes figures of a cell without reading it: duplicates came or were merged, or rows are gone.
    /// `clock` is the server's time when it was asked.
    pub fn note(&mut self, part: Part, key: CellKey, figures: Figures, clock: Timestamp) {
        let Some(slice) = self.slices.get(key.slice) else { return };
        let settled = clock >= slice.until.plus_micros(SETTLED);
        let Some(cell) = self.cell(part, key).copied() else { return };
        let raw = if holds(Rule::KeepRawFigure) { figures.raw } else { figures.distinct };
        self.set(part, key, Cell { emitted: figures.distinct, raw, settled: cell.settled || settled, ..cell });
    }

    /// Sets a cell; one without rows is none.
    fn set(&mut self, part: Part, key: CellKey, cell: Cell) {
        let Some(slice) = self.slices.get_mut(key.slice) else { return };
        if cell.emitted.is_empty() {
            slice.part_mut(part).remove(&key.period);
        } else {
            slice.part_mut(part).insert(key.period, cell);
        }
    }

    /// Notes how far a cell has been read.
    pub fn set_open(&mut self, part: Part, key: CellKey, after: SortKey, emitted: Fingerprint) {
        self.forget_open(part, key);
        let Some(slice) = self.slices.get(key.slice) else { return };
        self.open.push(OpenCell {
            part,
            ingested_from: self.ingested_from(key.slice),
            ingested_before: slice.until,
            period: key.period,
            after,
            emitted,
        });
    }

    /// Where reading a cell continues, and what has been emitted of it.
    pub fn open(&self, part: Part, key: CellKey) -> Option<&OpenCell> {
        self.open.iter().find(|open| self.is_open(open, part, key))
    }

    fn is_open(&self, open: &OpenCell, part: Part, key: CellKey) -> bool {
        let until = self.slices.get(key.slice).map(|slice| slice.until);
        let bounds = !holds(Rule::PositionHasBounds)
            || (open.ingested_from == self.ingested_from(key.slice) && Some(open.ingested_before) == until);
        open.part == part && open.period == key.period && bounds
    }

    fn forget_open(&mut self, part: Part, key: CellKey) {
        let open = std::mem::take(&mut self.open);
        self.open = open.into_iter().filter(|open| !self.is_open(open, part, key)).collect();
    }

    /// Begins a second ledger for names that are wanted too. Names that were being added before and are
    /// not all among them are forgotten: what was emitted of them may come again.
    pub fn begin_added(&mut self, names: Names) {
        if self.added.as_ref() == Some(&names) {
            return;
        }
        self.forget_added();
        self.added = Some(names);
    }

    /// Forgets the second ledger.
    pub fn forget_added(&mut self) {
        self.added = None;
        self.open.retain(|open| open.part == Part::Main);
        for slice in &mut self.slices {
            slice.added.clear();
        }
    }

    /// Adds the second ledger to the first. Call it when both agree with `PostHog` for all days that are
    /// asked for; `clock` is the server's time when it was asked.
    pub fn join_added(&mut self, scope: super::scope::Scope, clock: Timestamp) {
        let Some(names) = self.added.take() else { return };
        self.choice.names = self.choice.names.plus(&names);
        self.open.clear();
        let observed = self.months.whole_periods(scope.days);
        for slice in &mut self.slices {
            let main = std::mem::take(&mut slice.cells);
            let added = std::mem::take(&mut slice.added);
            let is_settled = clock >= slice.until.plus_micros(SETTLED);
            slice.cells = combine(main, added, |period| is_settled && observed.contains_all(period.days()));
        }
    }

    /// Takes over the figures of fewer names, and returns how many cells have to be read again.
    ///
    /// `observed` holds figures for all names and for the remaining ones from one response, over all days
    /// of the ledger. Only a cell that agrees in that response is taken over: a row that has just become
    /// visible is in both figures, but has not been emitted. Other cells are forgotten and will be read.
    /// Call it when what needs no reading has been noted, so that these are few.
    pub fn narrow(&mut self, names: Names, observed: &BTreeMap<CellKey, NarrowedFigures>) -> usize {
        self.forget_added();
        self.open.clear();
        self.choice.names = names;
        let mut forgotten = 0;
        for (index, slice) in self.slices.iter_mut().enumerate() {
            slice.cells = std::mem::take(&mut slice.cells)
                .into_iter()
                .filter_map(|(period, cell)| {
                    let figures = observed.get(&CellKey { slice: index, period }).copied().unwrap_or_default();
                    if figures.held_raw != cell.raw && holds(Rule::NarrowOnlyProven) {
                        forgotten += 1;
                        return None;
                    }
                    let Figures { raw, distinct } = figures.wanted;
                    (!distinct.is_empty()).then_some((period, Cell { emitted: distinct, raw, ..cell }))
                })
                .collect();
        }
        forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::super::fold::tidy;
    use super::super::period::Days;
    use super::super::scope::Scope;
    use super::*;

    const HOUR: i64 = 3_600_000_000;

    fn full(bytes: u64) -> Scope {
        Scope { days: Days::ALL, is_full: true, is_complete: true, bytes: Some(bytes) }
    }

    /// A ledger after ten years of syncs every five minutes (the last ten days; once a day before), with
    /// ten thousand events a day, late ones of eight earlier days, and duplicates here and there.
    fn after_ten_years() -> Ledger {
        let mut ledger = Ledger::new(Choice::all(), None);
        let mut seed = 1_u64;
        let mut clock = Timestamp::from_day(17_000);
        let end = Timestamp::from_day(17_000 + 3653);
        while clock < end {
            let step = if clock < end.plus_micros(-240 * HOUR) { 24 * HOUR } else { HOUR / 12 };
            clock = clock.plus_micros(step);
            ledger.open_slices(clock, [], None);
            let slice = ledger.slices.len() - 1;
            for back in [0, 1, 2, 3, 8, 20, 45, 90, 400] {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let chance = if back == 0 { 1 } else { step / HOUR + 1 };
                if back > 3 && i64::try_from(seed >> 40).unwrap() % 24 >= chance {
                    continue;
                }
                let period = ledger.months.period_of(clock.day() - back);
                let key = CellKey { slice, period };
                let count = if back == 0 { 10_000 * step / (24 * HOUR) } else { 37 };
                let count = u64::try_from(count).unwrap();
                let figure = Fingerprint::new(count, count * 0x8000_1234 + seed % 0x10_0000);
                ledger.enter(Part::Main, key, figure);
                // Older duplicates have long been merged.
                if seed.is_multiple_of(400) && step < HOUR {
                    let raw = figure.plus(Fingerprint::new(1, seed >> 32));
                    ledger.note(Part::Main, key, Figures { raw, distinct: figure }, clock);
                }
            }
            let shown: BTreeMap<CellKey, Fingerprint> = ledger
                .slices
                .iter()
                .enumerate()
                .flat_map(|(slice, held)| {
                    held.cells.iter().map(move |(&period, cell)| (CellKey { slice, period }, cell.raw))
                })
                .collect();
            super::super::compare::prove(&mut ledger, Part::Main, &shown, clock);
            tidy(&mut ledger, full(0), clock);
        }
        ledger
    }

    #[test]
    fn ten_years_of_daily_events_fit_into_10_kilobytes() {
        let ledger = after_ten_years();
        let text = ledger.to_value().to_string();
        assert!(text.len() <= 10_000, "{} bytes: {text}", text.len());
        assert!(text.len() >= 8_000, "{} bytes are too few for ten years", text.len());
        assert_eq!(Ledger::parse(&ledger.to_value()).unwrap(), ledger);
    }

    #[test]
    fn a_ledger_with_everything_survives_being_written_and_read() {
        let mut ledger = Ledger::new(
            Choice { filter: Some("properties.a = 1".into()), ..Choice::all() },
            Some(Assumption { days: Days { from: 3, to: 5 }, ingested_before: Timestamp::from_day(4) }),
        );
        ledger.begin_added(Names::Only(["x".to_owned()].into()));
        ledger.open_slices(Timestamp::from_day(20_000), [], None);
        let key = ledger.key(19_999, 1).unwrap();
        ledger.enter(Part::Added, key, Fingerprint::new(1, u64::MAX));
        let after = SortKey { event_time: Timestamp::from_day(19_999), uuid: "0190".into(), identity: Vec::new() };
        ledger.set_open(Part::Main, key, after, Fingerprint::new(5, 6));
        assert_eq!(Ledger::parse(&ledger.to_value()).unwrap(), ledger);
    }

    #[test]
    fn what_is_wrong_in_a_state_is_named() {
        let good = json!({"choice": {"names": {"all_but": []}}});
        assert!(Ledger::parse(&good).is_ok());
        let slice = |until: &str, period: &str, cell: &str| json!({"until": until, "cells": {period: cell}});
        for (field, value, expected) in [
            ("choice", json!({"names": 5}), "`choice.names"),
            ("months", json!([["2026-01-02", "2026-03-01"]]), "`months`"),
            ("slices", json!([slice("2026-01-01", "2026-01", "1 1")]), "`slices[0].cells.2026-01`"),
            ("slices", json!([slice("2026-01-01", "2026-01-01", "1")]), "`slices[0].cells.2026-01-01`"),
            ("slices", json!([slice("2026-01-01", "someday", "1 1")]), "someday"),
            (
                "slices",
                json!([slice("2026-01-02", "2026-01-01", "1 1"), slice("2026-01-02", "2026-01-01", "1 1")]),
                "`slices[1].until`",
            ),
            ("slices", json!([{"until": "2026-01-01", "added": {"2026-01-01": "1 1"}}]), "`slices[0].added`"),
            ("open", json!([{}]), "`open[0]`"),
            ("watermark", json!(1), "watermark"),
        ] {
            let mut state = good.clone();
            state[field] = value;
            let error = Ledger::parse(&state).unwrap_err();
            assert!(error.contains(expected), "{state}: {error}");
        }
    }

    #[test]
    fn a_position_in_a_cell_with_other_bounds_is_not_used() {
        let mut ledger = Ledger::new(Choice::all(), None);
        ledger.open_slices(Timestamp::from_day(20_000), [], None);
        let key = ledger.key(19_999, 2).unwrap();
        let after = SortKey { event_time: Timestamp::from_day(19_999), uuid: "u".into(), identity: Vec::new() };
        ledger.set_open(Part::Main, key, after, Fingerprint::new(1, 1));
        assert!(ledger.open(Part::Main, key).is_some());
        ledger.slices.remove(1);
        let other = CellKey { slice: 1, ..key };
        ledger.slices[1].until = Timestamp::from_day(20_001);
        assert!(ledger.open(Part::Main, other).is_none());
        super::super::rules::BROKEN.set(Some(Rule::PositionHasBounds));
        assert!(ledger.open(Part::Main, other).is_some());
        super::super::rules::BROKEN.set(None);
    }
}
