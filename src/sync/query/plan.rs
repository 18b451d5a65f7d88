//! Where to cut a scan into windows.
//!
//! `PostHog` stores events by day, and a page costs nearly its whole days whatever its LIMIT. So
//! windows are whole UTC days, as many as fill a page; a day with more rows than a page is one
//! window that is read page by page.

use crate::sync::state::interval::Interval;
use crate::time::Timestamp;

/// What is read, counted and closed as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    /// Positions inside.
    pub(super) interval: Interval,
    /// Rows that the server has counted, copies included, if it has.
    pub(super) rows: Option<u64>,
}

/// Rows of one UTC day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Day {
    /// Number of the day since the epoch.
    pub(super) number: i64,
    /// Rows, unless they could not be counted.
    pub(super) rows: Option<u64>,
}

/// Cuts `whole` into windows of about `target` rows each, without gap or overlap.
///
/// No window spans more than `most_days` days, counted from its first to its last row. `days` are the
/// days that have rows, in ascending order. Stretches without rows belong to their neighbours; when no
/// day has any, the whole is one window that knows that it is empty.
pub(crate) fn windows(whole: Interval, days: &[Day], target: u64, most_days: i64) -> Vec<Window> {
    let mut windows = Vec::new();
    let mut from = whole.from;
    let mut rows: Option<u64> = Some(0);
    let mut first = i64::MIN;
    for day in days {
        let start = Timestamp::from_day(day.number).clamp(whole.from, whole.to);
        let few = rows.zip(day.rows).is_some_and(|(sum, more)| sum == 0 || sum + more <= target);
        if rows == Some(0) {
            first = day.number;
        }
        let fits = few && day.number - first < most_days;
        if !fits && start > from {
            windows.push(Window { interval: Interval { from, to: start }, rows });
            from = start;
            rows = Some(0);
            first = day.number;
        }
        rows = rows.zip(day.rows).map(|(sum, more)| sum + more);
    }
    windows.push(Window { interval: Interval { from, to: whole.to }, rows });
    windows.retain(|window| !window.interval.is_empty());
    windows
}

/// Narrows windows to the days that have rows. The stretches between them become windows that know that they are
/// empty, so they are not read: a few rows of long ago would cost everything around them.
pub(crate) fn narrowed(windows: Vec<Window>, days: &[Day]) -> Vec<Window> {
    let mut narrowed = Vec::with_capacity(windows.len());
    for Window { interval, rows } in windows {
        let inside = |day: &&Day| {
            let start = Timestamp::from_day(day.number).max(interval.from);
            day.rows != Some(0) && Timestamp::from_day(day.number + 1) > interval.from && start < interval.to
        };
        let (first, last) = (days.iter().find(inside), days.iter().rfind(inside));
        let Some((first, last)) = first.zip(last) else {
            narrowed.push(Window { interval, rows });
            continue;
        };
        let from = Timestamp::from_day(first.number).max(interval.from);
        let to = Timestamp::from_day(last.number + 1).min(interval.to);
        narrowed.push(Window { interval: Interval { to: from, ..interval }, rows: Some(0) });
        narrowed.push(Window { interval: Interval { from, to }, rows });
        narrowed.push(Window { interval: Interval { from: to, ..interval }, rows: Some(0) });
    }
    narrowed.retain(|window| !window.interval.is_empty());
    narrowed
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn instant(hours: i64) -> Timestamp {
        Timestamp::from_micros(hours * 3_600_000_000)
    }

    proptest! {
        #[test]
        fn windows_cover_the_whole_once_and_count_every_row(
            from in 0i64..240, hours in 0i64..2_400, target in 1u64..500, most_days in prop_oneof![Just(i64::MAX), 1i64..9],
            counts in prop::collection::btree_map(0i64..120, prop::option::weighted(0.9, 1u64..300), 0..40),
        ) {
            let whole = Interval { from: instant(from), to: instant(from + hours) };
            let days: Vec<Day> = counts
                .iter()
                .map(|(number, rows)| Day { number: *number, rows: *rows })
                .filter(|day| Timestamp::from_day(day.number + 1) > whole.from && Timestamp::from_day(day.number) < whole.to)
                .collect();
            let windows = windows(whole, &days, target, most_days);
            let mut next = whole.from;
            for window in &windows {
                prop_assert_eq!(window.interval.from, next);
                prop_assert!(!window.interval.is_empty());
                next = window.interval.to;
                let inside: Vec<&Day> = days.iter().filter(|day| {
                    let start = Timestamp::from_day(day.number).max(whole.from);
                    window.interval.from <= start && start < window.interval.to
                }).collect();
                prop_assert_eq!(window.rows, inside.iter().map(|day| day.rows).sum::<Option<u64>>());
                prop_assert!(inside.len() <= 1 || window.rows.is_some_and(|rows| rows <= target));
                let ends = inside.iter().filter(|day| day.rows != Some(0)).map(|day| day.number);
                let span = ends.clone().max().zip(ends.min()).map_or(0, |(last, first)| last - first);
                prop_assert!(span < most_days);
            }
            prop_assert_eq!(next, whole.to.max(whole.from));

            let (mut next, mut rows) = (whole.from, Some(0));
            for window in narrowed(windows.clone(), &days) {
                prop_assert_eq!(window.interval.from, next);
                next = window.interval.to;
                let has_rows = days.iter().any(|day| {
                    let start = Timestamp::from_day(day.number).max(whole.from);
                    day.rows != Some(0) && window.interval.from <= start && start < window.interval.to
                });
                prop_assert_eq!(has_rows, window.rows != Some(0));
                rows = rows.zip(window.rows).map(|(sum, more)| sum + more);
            }
            prop_assert_eq!(next, whole.to.max(whole.from));
            prop_assert_eq!(rows, windows.iter().map(|window| window.rows).sum::<Option<u64>>());
        }
    }

    #[test]
    fn days_are_joined_until_a_page_is_full() {
        let whole = Interval { from: Timestamp::from_day(10), to: Timestamp::MAX };
        let day = |number, rows| Day { number, rows: Some(rows) };
        let cut: Vec<(i64, i64, Option<u64>)> =
            windows(whole, &[day(10, 40), day(12, 50), day(13, 900), day(20, 5)], 100, i64::MAX)
                .iter()
                .map(|window| (window.interval.from.day(), window.interval.to.day(), window.rows))
                .collect();
        assert_eq!(cut, [(10, 13, Some(90)), (13, 20, Some(900)), (20, Timestamp::MAX.day(), Some(5))]);
        assert_eq!(windows(whole, &[], 100, i64::MAX), [Window { interval: whole, rows: Some(0) }]);
    }
}
