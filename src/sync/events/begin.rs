//! The ledger that a sync begins with.

use chrono::TimeDelta;

use crate::error::Error;
use crate::sync::ledger::{Assumption, Choice, ChoiceChange, FutureState, Ledger, Names};
use crate::sync::state::error::unusable;
use crate::sync::state::interval::Interval;
use crate::sync::state::table::ProjectState;
use crate::time::Timestamp;

/// The lookback window with which version 1 wrote its watermarks.
const VERSION_1_LOOKBACK: TimeDelta = TimeDelta::minutes(60);

/// All event times.
const ALL: Interval = Interval { from: Timestamp::MIN, to: Timestamp::MAX };

/// How a sync begins.
#[derive(Debug)]
pub(super) struct Beginning {
    pub(super) ledger: Ledger,
    /// Names to narrow the ledger to, before anything is read.
    pub(super) narrow: Option<Names>,
    /// What the user should know about it.
    pub(super) notice: Option<String>,
}

/// The ledger of a state for a choice of events and the event times that are asked for; `clock` is the server's.
///
/// # Errors
/// When the state is ahead of the clock, so that nothing can be made of it.
pub(super) fn begin(
    state: &ProjectState,
    wanted: &Choice,
    asked: Interval,
    clock: Timestamp,
) -> Result<Beginning, Error> {
    let (mut ledger, mut notice) = match &state.ledger {
        Some(ledger) => {
            // Its figures are compared all the same, so nothing is lost if a clock was ahead.
            let ahead = ledger.until().filter(|until| *until > clock);
            let notice = ahead.map(|until| {
                format!(
                    "the last sync's bound ({until}) is ahead of PostHog's clock ({clock}); one of the clocks was wrong"
                )
            });
            (ledger.clone(), notice)
        }
        None => assumed(state, wanted, clock)?,
    };
    ledger.widen(asked.from, asked.to);
    let mut narrow = None;
    match ChoiceChange::between(&ledger.choice, wanted) {
        ChoiceChange::None => ledger.forget_added(),
        ChoiceChange::Restart => {
            let reason = if ledger.choice.filter == wanted.filter {
                "none of the events chosen now were chosen before"
            } else {
                "`event_filter` has changed"
            };
            notice = Some(format!("{reason}, so all events that are chosen now are read"));
            ledger = Ledger::new(wanted.clone(), None);
            ledger.widen(asked.from, asked.to);
        }
        ChoiceChange::Narrow(names) => {
            ledger.forget_added();
            narrow = Some(names);
        }
        ChoiceChange::Add(names) => {
            notice = Some(
                "more events are chosen than before; those that are new are read from the start date on".to_owned(),
            );
            ledger.begin_added(names);
        }
    }
    Ok(Beginning { ledger, narrow, notice })
}

/// A ledger without figures, from what a state of another kind says has been read.
fn assumed(state: &ProjectState, wanted: &Choice, clock: Timestamp) -> Result<(Ledger, Option<String>), Error> {
    let (names, assumption) = match (state.watermark, state.resume_from) {
        (Some(watermark), _) => {
            // What exports had left out was found by a comparison that was behind the watermark.
            let read = state.export.compared_until.map_or(watermark, |compared| compared.min(watermark));
            let covered = state.covered.unwrap_or(ALL);
            let assumption = Assumption::from_version_1(read, VERSION_1_LOOKBACK, (covered.from, covered.to), clock);
            (state.names.clone(), assumption)
        }
        (None, Some(cursor)) => (None, Assumption::from_cursor(cursor, clock)),
        (None, None) => return Ok((Ledger::new(wanted.clone(), None), None)),
    };
    let assumption = assumption.map_err(ahead)?;
    let notice = format!(
        "the state has no figures to compare with: what PostHog received before {} of {} is assumed to be complete, and compared from now on",
        assumption.ingested_before, assumption.days
    );
    let choice = Choice { names: names.unwrap_or_else(|| wanted.names.clone()), ..wanted.clone() };
    Ok((Ledger::new(choice, Some(assumption)), Some(notice)))
}

fn ahead(FutureState { claimed, clock }: FutureState) -> Error {
    unusable(format_args!(
        "it says that events have been read up to {claimed}, which is ahead of PostHog's clock ({clock}), so later events could be missed"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::ledger::Days;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    const CLOCK: &str = "2026-11-27T12:00:00Z";

    #[test]
    fn a_watermark_becomes_an_assumption_up_to_what_was_compared() {
        let mut state = ProjectState { watermark: Some(at("2026-11-27T10:00:00Z")), ..ProjectState::default() };
        let begin =
            |state: &ProjectState| begin(state, &Choice::all(), ALL, at(CLOCK)).unwrap().ledger.assumed.unwrap();
        assert_eq!(begin(&state).ingested_before, at("2026-11-27T09:00:00Z"));
        assert_eq!(begin(&state).days, Days::ALL);
        state.export.compared_until = Some(at("2026-11-27T08:00:00Z"));
        state.covered = Some(Interval { from: at("2026-01-01"), to: Timestamp::MAX });
        assert_eq!(begin(&state).ingested_before, at("2026-11-27T07:00:00Z"));
        assert_eq!(begin(&state).days.from, at("2026-01-01").day());
    }

    #[test]
    fn a_state_ahead_of_the_clock_is_refused() {
        for state in [
            ProjectState { watermark: Some(at("2027-01-01")), ..ProjectState::default() },
            ProjectState { resume_from: Some(at("2027-01-01")), ..ProjectState::default() },
        ] {
            let error = begin(&state, &Choice::all(), ALL, at(CLOCK)).unwrap_err();
            assert!(error.message().contains("2027-01-01") && error.message().contains("ahead"), "{error}");
        }
    }

    #[test]
    fn an_empty_state_assumes_nothing() {
        let beginning = begin(&ProjectState::default(), &Choice::all(), ALL, at(CLOCK)).unwrap();
        assert_eq!((beginning.ledger.assumed, beginning.notice), (None, None));
    }
}
