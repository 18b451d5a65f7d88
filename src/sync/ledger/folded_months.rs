//! Which days are held as months.

use serde::{Deserialize, Serialize};

use super::day_set::DaySet;
use super::period::{Days, Period};

/// Which days have been folded into months: ranges of whole months.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FoldedMonths(DaySet);

impl FoldedMonths {
    /// The period that a day belongs to.
    pub fn period_of(&self, day: i64) -> Period {
        if self.0.contains(day) { Period::month_of(day) } else { Period::day(day) }
    }

    /// Widens days so that months that are touched are covered as a whole.
    #[must_use]
    pub fn whole_periods(&self, days: Days) -> Days {
        if days.is_empty() {
            return days;
        }
        Days { from: self.period_of(days.from).first(), to: self.period_of(days.to - 1).days().to }
    }

    /// Adds whole months.
    pub fn add(&mut self, months: Days) {
        self.0.add(months);
    }

    /// Takes out a month, whose days are periods of their own then.
    pub fn remove(&mut self, month: Period) {
        self.0.remove(month.days());
    }

    /// The ranges, ascending.
    pub fn ranges(&self) -> &[Days] {
        self.0.ranges()
    }

    /// Returns true if the ranges are whole months, disjoint and ascending.
    pub(super) fn is_valid(&self) -> bool {
        let whole = |day: i64| Period::month_of(day).first() == day;
        self.0.is_valid() && self.ranges().iter().all(|range| whole(range.from) && whole(range.to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folded_ranges_merge_and_widen_to_whole_months() {
        let day = |text: &str| text.parse::<Period>().unwrap().first();
        let mut folded = FoldedMonths::default();
        folded.add(Days { from: day("2026-03-01"), to: day("2026-04-01") });
        folded.add(Days { from: day("2025-12-15"), to: day("2026-03-10") }.whole_months());
        assert_eq!(folded.ranges(), [Days { from: day("2026-01-01"), to: day("2026-04-01") }]);
        assert!(folded.is_valid());
        let asked = Days { from: day("2026-02-10"), to: day("2026-05-05") };
        assert_eq!(folded.whole_periods(asked), Days { from: day("2026-02-01"), to: day("2026-05-05") });
    }
}
