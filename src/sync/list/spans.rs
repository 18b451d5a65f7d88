//! Which spans of time a list is read for that begins with the start date.

use chrono::TimeDelta;

use super::state::ListState;
use crate::time::Timestamp;

/// How often a list is looked through for objects that come late.
const LATE_LOOK_EVERY: TimeDelta = TimeDelta::hours(24);

/// A span of time, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
}

/// What earlier syncs have read of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Covered {
    /// The start date.
    pub(super) from: Timestamp,
    /// What lies behind this is read again.
    pub(super) settled: Timestamp,
}

/// How far behind the last sync a list is read again.
#[derive(Debug, Clone, Copy)]
pub(super) struct LookBack {
    /// By every sync.
    pub(super) usual: TimeDelta,
    /// Once a day, behind the last such look; none if nothing comes later than the usual look-back finds.
    pub(super) late: Option<TimeDelta>,
}

impl LookBack {
    /// Whether a sync looks for what comes late.
    pub(super) fn is_late_look(self, state: &ListState, until: Timestamp) -> bool {
        let last = state.late_look.or(state.watermark);
        self.late.is_some() && last.is_none_or(|last| last <= until.minus(LATE_LOOK_EVERY))
    }

    /// From when on a sync looks for what comes late, if it does.
    pub(super) fn late_from(self, state: &ListState, until: Timestamp) -> Option<Timestamp> {
        let last = state.late_look.or(state.watermark).unwrap_or(until);
        self.late.filter(|_| self.is_late_look(state, until)).map(|late| last.minus(late))
    }

    /// When the last such look was, after a sync that found `state`.
    pub(super) fn late_look_after(self, state: &ListState, until: Timestamp) -> Option<Timestamp> {
        self.late?;
        // A clock that was ahead does not put it off.
        let last = state.late_look.or(state.watermark).filter(|last| *last <= until);
        if self.is_late_look(state, until) { Some(until) } else { last.or(Some(until)) }
    }

    /// From when on the next sync that looks furthest back meets objects again, if this sync leaves `state`.
    pub(super) fn furthest(self, state: &ListState, until: Timestamp) -> Timestamp {
        let late = self.late.zip(state.late_look).map(|(late, look)| look.minus(late));
        let usual = until.minus(self.usual);
        late.map_or(usual, |late| late.min(usual))
    }
}

impl Covered {
    /// What a state says when a sync begins at `until`. One without `from` does not know its start date, so
    /// everything is read again.
    pub(super) fn of(state: &ListState, look_back: LookBack, until: Timestamp) -> Option<Self> {
        let (watermark, from) = state.watermark.zip(state.from)?;
        let usual = watermark.minus(look_back.usual);
        let late = look_back.late_from(state, until).map(|from| {
            // Further back than it is known what the destination has, everything would come again.
            state.sent.complete_from().filter(|complete_from| *complete_from > from).unwrap_or(from)
        });
        Some(Self { from, settled: late.map_or(usual, |late| late.min(usual)) })
    }

    /// The start date of what has been read after a sync from `start` on. Before a later start date nothing is
    /// read again, so that it does not count as read any more.
    pub(super) fn from_after(covered: Option<Self>, start: Timestamp) -> Timestamp {
        covered.filter(|covered| start <= covered.settled).map_or(start, |covered| covered.from.min(start))
    }
}

/// What has to be read: everything from `start` on, or what an earlier start date adds, and what is not settled.
pub(super) fn spans(start: Timestamp, covered: Option<Covered>, until: Timestamp) -> Vec<Span> {
    let whole = Span { from: start, to: until };
    let mut spans = match covered {
        None => vec![whole],
        Some(Covered { from, settled }) if start < from && settled <= from => vec![whole],
        Some(Covered { from, settled }) => {
            let earlier = (start < from).then_some(Span { from: start, to: from });
            earlier.into_iter().chain([Span { from: start.max(settled), to: until }]).collect()
        }
    };
    // A watermark can be ahead of the clock.
    spans.retain(|span| span.from <= span.to);
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK_BACK: LookBack = LookBack { usual: TimeDelta::days(1), late: Some(TimeDelta::days(8)) };

    fn at(day: i64) -> Timestamp {
        Timestamp::from_day(20_000 + day)
    }

    #[test]
    fn earlier_start_date_is_a_span_of_its_own() {
        let spans = |start: i64, covered: Option<(i64, i64)>| {
            let covered = covered.map(|(from, settled)| Covered { from: at(from), settled: at(settled) });
            let spans = spans(at(start), covered, at(100)).into_iter();
            spans.map(|span| (span.from.day() - 20_000, span.to.day() - 20_000)).collect::<Vec<_>>()
        };
        assert_eq!(spans(10, None), [(10, 100)]);
        assert_eq!(spans(10, Some((10, 89))), [(89, 100)]);
        assert_eq!(spans(3, Some((10, 89))), [(3, 10), (89, 100)]);
        assert_eq!(spans(3, Some((90, 89))), [(3, 100)], "both in one");
        assert_eq!(spans(95, Some((10, 89))), [(95, 100)]);
        assert_eq!(spans(10, Some((10, 899))), []);
    }

    #[test]
    fn what_a_later_start_date_leaves_out_does_not_count_as_read() {
        let from_after = |start: i64, covered: Option<(i64, i64)>| {
            let covered = covered.map(|(from, settled)| Covered { from: at(from), settled: at(settled) });
            Covered::from_after(covered, at(start)).day() - 20_000
        };
        assert_eq!(from_after(10, None), 10);
        assert_eq!([from_after(10, Some((10, 89))), from_after(3, Some((10, 89)))], [10, 3]);
        assert_eq!([from_after(50, Some((10, 89))), from_after(90, Some((10, 89)))], [10, 90]);
    }

    #[test]
    fn late_objects_are_looked_for_once_a_day() {
        let state = |watermark: i64, late_look: Option<i64>| ListState {
            watermark: Some(at(watermark)),
            late_look: late_look.map(at),
            from: Some(at(0)),
            ..ListState::default()
        };
        let settled = |state: &ListState| Covered::of(state, LOOK_BACK, at(100)).unwrap().settled.day() - 20_000;
        assert_eq!(settled(&state(100, Some(100))), 99);
        assert_eq!(settled(&state(100, Some(99))), 91);
        assert_eq!(settled(&state(90, Some(89))), 81);
        assert_eq!(settled(&state(90, None)), 82, "of an earlier version");
        assert_eq!(settled(&state(200, None)), 199, "ahead of the clock");
        let late_look = |state: &ListState| LOOK_BACK.late_look_after(state, at(100)).unwrap().day() - 20_000;
        assert_eq!(
            [(99, 99), (100, 100), (200, 200)].map(|(mark, late)| late_look(&state(mark, Some(late)))),
            [100; 3]
        );
        assert_eq!(LOOK_BACK.furthest(&state(100, Some(98)), at(100)), at(90));
        let usual = LookBack { late: None, ..LOOK_BACK };
        assert_eq!(usual.furthest(&state(100, None), at(100)), at(99));
        let without = ListState { from: None, ..state(90, None) };
        assert_eq!(Covered::of(&without, LOOK_BACK, at(100)), None);
    }
}
