//! What states without figures say: older versions of this project, and other connectors.
//!
//! Their days are *assumed*, not compared: they hold no figure that `PostHog` could be asked for, so there is
//! nothing to compare with, and reading everything again would repeat every event of the past. The
//! figures that `PostHog` shows at the first sync are entered for the assumed cells; from then on they are
//! compared like any other, so what becomes visible or is deleted later is found. What is missing
//! already is found by `reread_days`.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use super::period::Days;
use crate::time::Timestamp;

/// How far before Airbyte's cursor ingestion time is assumed to have been read: rows may have become
/// visible an hour late, which that connector does not look for.
const CURSOR_LOOKBACK: TimeDelta = TimeDelta::hours(1);

/// So much may a state be ahead of the clock.
const TOLERANCE: TimeDelta = TimeDelta::hours(1);

/// Cells that are taken for emitted without being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assumption {
    /// Days of event time.
    pub days: Days,
    /// Only rows that were ingested before this.
    pub ingested_before: Timestamp,
}

/// A state from which nothing can be assumed, because it is ahead of the clock: what it claims to have
/// been read includes what is yet to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FutureState {
    /// The time in the state.
    pub claimed: Timestamp,
    /// `PostHog`'s clock.
    pub clock: Timestamp,
}

impl Assumption {
    /// From a state of version 1: rows ingested before its watermark, less the lookback window with which
    /// it was written, and with an event time in the dates that it covers. Days that are covered in
    /// part are read again.
    ///
    /// # Errors
    /// When the watermark is ahead of the clock.
    pub fn from_version_1(
        watermark: Timestamp,
        lookback: TimeDelta,
        covered: (Timestamp, Timestamp),
        clock: Timestamp,
    ) -> Result<Self, FutureState> {
        let from = if covered.0 <= Timestamp::MIN { Days::ALL.from } else { first_whole_day(covered.0) };
        let to = if covered.1 >= Timestamp::MAX { Days::ALL.to } else { covered.1.day() };
        Self { days: Days { from, to }, ingested_before: watermark.minus(lookback) }.checked(watermark, clock)
    }

    /// From the cursor of Airbyte's connector, an event time: the days before its day, as far as rows were
    /// ingested before the cursor, less an hour. Events of those days that came in later are read: that
    /// connector goes by event time and does not see them.
    ///
    /// # Errors
    /// When the cursor is ahead of the clock.
    pub fn from_cursor(cursor: Timestamp, clock: Timestamp) -> Result<Self, FutureState> {
        let days = Days { to: cursor.day(), ..Days::ALL };
        Self { days, ingested_before: cursor.minus(CURSOR_LOOKBACK) }.checked(cursor, clock)
    }

    fn checked(self, claimed: Timestamp, clock: Timestamp) -> Result<Self, FutureState> {
        // Clocks of servers differ by seconds, and the lookback has been subtracted.
        let is_ahead = claimed.minus(TOLERANCE) > clock;
        if is_ahead { Err(FutureState { claimed, clock }) } else { Ok(self) }
    }
}

/// The first day that lies at or after the instant as a whole.
fn first_whole_day(instant: Timestamp) -> i64 {
    if instant.is_midnight() { instant.day() } else { instant.day() + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    #[test]
    fn only_whole_days_that_were_covered_are_assumed() {
        let covered = (at("2026-01-01T12:00:00Z"), at("2026-02-01T12:00:00Z"));
        let assumed =
            Assumption::from_version_1(at("2026-03-01T12:00:00Z"), TimeDelta::minutes(60), covered, at("2026-03-02"))
                .unwrap();
        assert_eq!(assumed.days, Days { from: at("2026-01-02").day(), to: at("2026-02-01").day() });
        assert_eq!(assumed.ingested_before, at("2026-03-01T11:00:00Z"));
    }

    #[test]
    fn dates_without_an_end_assume_all_days() {
        let covered = (Timestamp::MIN, Timestamp::MAX);
        let assumed = Assumption::from_version_1(at("2026-03-01"), TimeDelta::zero(), covered, at("2026-03-02"));
        assert_eq!(assumed.unwrap().days, Days::ALL);
    }

    #[test]
    fn the_day_of_a_cursor_is_read() {
        let assumed = Assumption::from_cursor(at("2026-03-01T23:00:00Z"), at("2026-03-02")).unwrap();
        assert!(!assumed.days.contains(at("2026-03-01").day()) && assumed.days.contains(at("2026-02-28").day()));
        assert_eq!(assumed.ingested_before, at("2026-03-01T22:00:00Z"));
    }

    #[test]
    fn nothing_is_assumed_from_a_state_ahead_of_the_clock() {
        let (claimed, clock) = (at("2026-12-01"), at("2026-11-26"));
        assert_eq!(Assumption::from_cursor(claimed, clock), Err(FutureState { claimed, clock }));
        assert!(Assumption::from_cursor(at("2026-11-26T00:00:05Z"), clock).is_ok(), "clocks differ by seconds");
    }
}
