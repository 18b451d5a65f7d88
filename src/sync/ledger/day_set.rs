//! Sets of days.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::period::Days;

/// UTC days: disjoint ranges that do not touch, ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DaySet(Vec<Days>);

impl DaySet {
    /// The ranges, ascending.
    pub fn ranges(&self) -> &[Days] {
        &self.0
    }

    /// Returns true if no day is inside.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns true if the day is inside.
    pub fn contains(&self, day: i64) -> bool {
        self.0.iter().any(|range| range.contains(day))
    }

    /// Returns true if every one of these days is inside.
    pub fn contains_all(&self, days: Days) -> bool {
        self.0.iter().any(|range| range.contains_all(days))
    }

    /// Returns true if one of these days is inside.
    pub fn touches(&self, days: Days) -> bool {
        self.0.iter().any(|range| !range.intersection(days).is_empty())
    }

    pub fn add(&mut self, days: Days) {
        if days.is_empty() {
            return;
        }
        self.0.push(days);
        self.0.sort_unstable_by_key(|range| range.from);
        let mut merged: Vec<Days> = Vec::with_capacity(self.0.len());
        for range in self.0.drain(..) {
            match merged.last_mut() {
                Some(last) if range.from <= last.to => last.to = last.to.max(range.to),
                _ => merged.push(range),
            }
        }
        self.0 = merged;
    }

    pub fn remove(&mut self, days: Days) {
        let sides = |range: Days| {
            [Days { to: range.to.min(days.from), ..range }, Days { from: range.from.max(days.to), ..range }]
        };
        self.0 = std::mem::take(&mut self.0).into_iter().flat_map(sides).filter(|range| !range.is_empty()).collect();
    }

    /// The days that are not in the other set.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        let mut rest = self.clone();
        other.0.iter().for_each(|range| rest.remove(*range));
        rest
    }

    /// Returns true if the ranges are what this type promises.
    pub(super) fn is_valid(&self) -> bool {
        self.0.iter().all(|range| !range.is_empty()) && self.0.windows(2).all(|pair| pair[0].to < pair[1].from)
    }
}

impl FromIterator<Days> for DaySet {
    fn from_iter<I: IntoIterator<Item = Days>>(ranges: I) -> Self {
        let mut set = Self::default();
        ranges.into_iter().for_each(|range| set.add(range));
        set
    }
}

impl fmt::Display for DaySet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges: Vec<String> = self.0.iter().map(Days::to_string).collect();
        formatter.write_str(&ranges.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ranges() -> impl Strategy<Value = Vec<(i64, i64)>> {
        prop::collection::vec((0_i64..40, 0_i64..10), 0..8)
    }

    fn set(ranges: &[(i64, i64)]) -> DaySet {
        ranges.iter().map(|(from, length)| Days { from: *from, to: from + length }).collect()
    }

    proptest! {
        #[test]
        fn a_set_of_ranges_is_one_of_days(first in ranges(), second in ranges()) {
            let (one, other) = (set(&first), set(&second));
            let rest = one.minus(&other);
            prop_assert!(one.is_valid() && rest.is_valid());
            for day in 0..60 {
                let is_in = |ranges: &[(i64, i64)]| ranges.iter().any(|(from, length)| (*from..from + length).contains(&day));
                prop_assert_eq!(one.contains(day), is_in(&first));
                prop_assert_eq!(rest.contains(day), is_in(&first) && !is_in(&second));
                prop_assert_eq!(one.touches(Days { from: day, to: day + 1 }), one.contains(day));
            }
        }
    }

    #[test]
    fn days_and_ranges_are_written_for_people() {
        assert_eq!(set(&[(0, 1), (5, 2)]).to_string(), "1970-01-01, 1970-01-06 to 1970-01-07");
    }
}
