//! Half-open intervals of positions and sets of them.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// `[from, to)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interval {
    /// First instant inside.
    pub from: Timestamp,
    /// First instant after it.
    pub to: Timestamp,
}

impl Interval {
    /// Returns true if nothing can be inside.
    pub fn is_empty(&self) -> bool {
        self.from >= self.to
    }

    /// Length in microseconds.
    pub fn length(&self) -> i64 {
        self.to.micros().saturating_sub(self.from.micros())
    }

    /// Cuts off the first part, `length` microseconds long; the rest is empty when it is shorter.
    #[must_use]
    pub fn cut(&self, length: i64) -> (Self, Self) {
        let at = self.from.plus_micros(length).min(self.to);
        (Self { to: at, ..*self }, Self { from: at, ..*self })
    }

    /// What both have in common; may be empty.
    #[must_use]
    pub fn intersection(&self, other: Self) -> Self {
        Self { from: self.from.max(other.from), to: self.to.min(other.to) }
    }

    /// Cuts in two, at midnight UTC when it is longer than a day.
    ///
    /// The part that can hold rows ends at `horizon`, which matters for intervals without a real
    /// end. `None` when it is too short.
    pub fn halve(&self, horizon: Timestamp) -> Option<(Self, Self)> {
        let end = self.to.min(horizon.max(self.from).next_midnight());
        let span = end.micros() - self.from.micros();
        if span < 2 {
            return None;
        }
        let middle = self.from.plus_micros(span / 2);
        let midnight = middle.next_midnight();
        let middle = if midnight > self.from && midnight < end {
            midnight
        } else if Timestamp::from_day(middle.day()) > self.from {
            Timestamp::from_day(middle.day())
        } else {
            middle
        };
        Some((Self { to: middle, ..*self }, Self { from: middle, ..*self }))
    }
}

impl std::fmt::Display for Interval {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} to {}", self.from, self.to)
    }
}

/// Disjoint intervals in ascending order; neighbours are merged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Interval>", into = "Vec<Interval>")]
pub struct Intervals(Vec<Interval>);

impl Intervals {
    /// Adds an interval.
    pub fn add(&mut self, added: Interval) {
        if added.is_empty() {
            return;
        }
        self.0.push(added);
        self.0.sort_unstable_by_key(|interval| interval.from);
        let mut merged: Vec<Interval> = Vec::with_capacity(self.0.len());
        for interval in self.0.drain(..) {
            match merged.last_mut() {
                Some(last) if interval.from <= last.to => last.to = last.to.max(interval.to),
                _ => merged.push(interval),
            }
        }
        self.0 = merged;
    }

    /// What of `whole` is in none of the intervals.
    pub fn gaps(&self, whole: Interval) -> Vec<Interval> {
        let mut gaps = Vec::new();
        let mut from = whole.from;
        for interval in &self.0 {
            gaps.push(Interval { from, to: interval.from.min(whole.to) });
            from = from.max(interval.to);
        }
        gaps.push(Interval { from, to: whole.to });
        gaps.retain(|gap| !gap.is_empty());
        gaps
    }
}

impl From<Vec<Interval>> for Intervals {
    fn from(list: Vec<Interval>) -> Self {
        let mut set = Self::default();
        for interval in list {
            set.add(interval);
        }
        set
    }
}

impl From<Intervals> for Vec<Interval> {
    fn from(set: Intervals) -> Self {
        set.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn interval(from: i64, to: i64) -> Interval {
        Interval { from: Timestamp::from_micros(from), to: Timestamp::from_micros(to) }
    }

    proptest! {
        #[test]
        fn gaps_and_members_share_the_whole(list in prop::collection::vec((0i64..60, 0i64..60), 0..10)) {
            let mut set = Intervals::default();
            for (from, to) in &list {
                set.add(interval(*from, *to));
            }
            let gaps = set.gaps(interval(5, 50));
            for point in 0..60 {
                let added = list.iter().any(|(from, to)| (*from..*to).contains(&point));
                let inside = |interval: &Interval| interval.from.micros() <= point && point < interval.to.micros();
                prop_assert_eq!(set.0.iter().filter(|member| inside(member)).count(), usize::from(added));
                let gap = (5..50).contains(&point) && !added;
                prop_assert_eq!(gaps.iter().filter(|member| inside(member)).count(), usize::from(gap));
            }
            prop_assert!(set.0.windows(2).all(|pair| pair[0].to < pair[1].from));
        }

        #[test]
        fn halves_are_two_parts_of_the_whole(from in 0i64..10_000_000_000_000, length in 0i64..4_000_000_000_000_000) {
            let whole = interval(from, from + length);
            let mut rest = vec![whole];
            for _ in 0..200 {
                let Some(next) = rest.pop() else { break };
                if let Some((first, second)) = next.halve(Timestamp::MAX) {
                    prop_assert!(!first.is_empty() && !second.is_empty());
                    prop_assert_eq!((first.from, first.to, second.to), (next.from, second.from, next.to));
                    rest.push(first);
                }
            }
        }
    }

    #[test]
    fn an_endless_interval_is_cut_where_rows_can_be() {
        let now = Timestamp::parse("2026-11-23T14:00:00Z").unwrap();
        let whole = Interval { from: Timestamp::parse("2026-11-01").unwrap(), to: Timestamp::MAX };
        let (first, second) = whole.halve(now).unwrap();
        assert_eq!(first.to, Timestamp::parse("2026-11-13").unwrap());
        assert_eq!(second.to, Timestamp::MAX);
    }
}
