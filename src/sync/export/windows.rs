//! Which windows of ingestion time are still to be exported.

use std::collections::VecDeque;

use crate::sync::state::export::{HOUR, hour_of, start_of};
use crate::sync::state::interval::Interval;
use crate::time::Timestamp;

/// Windows that are not longer than this are not cut any more when `PostHog` cannot export them.
const SHORTEST: i64 = HOUR;

/// Hands out the windows of a pass in order, without gap or overlap.
#[derive(Debug)]
pub(super) struct Windows {
    /// Windows that have been handed out before and come again.
    returned: VecDeque<Interval>,
    next: Timestamp,
    to: Timestamp,
    /// Longest window, in microseconds.
    longest: i64,
}

impl Windows {
    /// Windows of at most `longest` microseconds from `from` to `to`.
    pub(super) fn new(from: Timestamp, to: Timestamp, longest: i64) -> Self {
        Self { returned: VecDeque::new(), next: from, to, longest }
    }

    /// The next window; `first_after` moves its begin to where there may be rows.
    pub(super) fn take(&mut self, first_after: impl FnOnce(Timestamp) -> Timestamp) -> Option<Interval> {
        if let Some(window) = self.returned.pop_front() {
            if window.length() <= self.longest {
                return Some(window);
            }
            let (first, rest) = window.cut(self.longest);
            self.returned.push_front(rest);
            return Some(first);
        }
        let from = first_after(self.next).clamp(self.next, self.next.max(self.to));
        let window = Interval { from, to: from.plus_micros(self.longest).min(self.to) };
        if window.is_empty() {
            return None;
        }
        self.next = window.to;
        Some(window)
    }

    /// Windows that were handed out come again, before all others. They are in order.
    pub(super) fn put_back(&mut self, windows: impl DoubleEndedIterator<Item = Interval>) {
        windows.rev().for_each(|window| self.returned.push_front(window));
    }

    /// A window was too long: from now on, none is longer than `longest`. Returns false if it was short
    /// already.
    pub(super) fn cut(&mut self, window: Interval, longest: i64) -> bool {
        if window.length() <= SHORTEST {
            return false;
        }
        self.longest = self.longest.min(longest.min(window.length() / 2).max(SHORTEST));
        true
    }

    /// The halves of a window whose run was late; none if it is short already.
    pub(super) fn halves(window: Interval) -> Option<[Interval; 2]> {
        (window.length() > SHORTEST).then(|| window.cut((window.length() / 2).max(SHORTEST)).into())
    }

    /// What of a window lies before and after a full hour in its middle; none if it is short already.
    pub(super) fn parts(window: Interval) -> Option<[Interval; 2]> {
        let middle = start_of(hour_of(window.from.plus_micros(window.length() / 2)));
        let is_inside = window.from < middle && window.length() > SHORTEST;
        is_inside.then_some([Interval { to: middle, ..window }, Interval { from: middle, ..window }])
    }

    /// Nothing longer than this until [`Windows::lengthen`].
    pub(super) fn shorten(&mut self, longest: i64) {
        self.longest = self.longest.min(longest);
    }

    /// Windows may be as long as this again.
    pub(super) fn lengthen(&mut self, longest: i64) {
        self.longest = longest;
    }

    /// PostHog's clock has not reached the end of a window: the pass ends earlier.
    pub(super) fn end_at(&mut self, to: Timestamp) {
        self.to = to;
        self.next = self.next.min(to);
    }

    /// Where the pass ends.
    pub(super) fn to(&self) -> Timestamp {
        self.to
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn windows_follow_each_other_without_gap_or_overlap(
            hours in 1..400_i64, longest in 1..100_i64, events in prop::collection::vec(0..4_u8, 0..40),
        ) {
            let (from, to) = (Timestamp::from_micros(0), Timestamp::from_micros(hours * HOUR));
            let mut windows = Windows::new(from, to, longest * HOUR);
            let (mut reached, mut events) = (from, events.into_iter());
            while let Some(window) = windows.take(|from| from) {
                prop_assert_eq!(window.from, reached);
                match events.next() {
                    // Too long: it comes again in two parts, with what was handed out after it.
                    Some(0) if windows.cut(window, window.length() / 2) => {
                        let behind = windows.take(|from| from);
                        windows.put_back([window].into_iter().chain(behind));
                    }
                    Some(1) => windows.put_back([window].into_iter()),
                    _ => reached = window.to,
                }
            }
            prop_assert_eq!(reached, to);
        }
    }

    #[test]
    fn parts_of_a_window_meet_at_a_full_hour() {
        let at = |minutes: i64| Timestamp::from_micros(minutes * HOUR / 60);
        let window = |from, to| Interval { from: at(from), to: at(to) };
        assert_eq!(Windows::parts(window(10, 200)), Some([window(10, 60), window(60, 200)]));
        assert_eq!(Windows::parts(window(60, 120)), None);
        assert_eq!(Windows::parts(window(61, 125)), None, "no full hour lies before its middle");
    }

    #[test]
    fn window_of_an_hour_is_not_cut() {
        let mut windows = Windows::new(Timestamp::MIN, Timestamp::MAX, 10 * HOUR);
        assert!(!windows.cut(Interval { from: Timestamp::from_micros(0), to: Timestamp::from_micros(HOUR) }, 1));
    }
}
