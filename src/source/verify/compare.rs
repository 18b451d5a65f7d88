//! What a table and PostHog differ in. Values only.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::counts::TableDay;
use crate::records::Fingerprint;
use crate::time::Timestamp;

/// In what way the table differs from PostHog on a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) enum Problem {
    /// It has fewer events.
    #[serde(rename = "missing")]
    Missing,
    /// It has more events: they were deleted in PostHog, or are not chosen.
    #[serde(rename = "too many")]
    TooMany,
    /// It has as many events, but others.
    #[serde(rename = "other events")]
    OtherEvents,
    /// It has the same events, some of them repeatedly.
    #[serde(rename = "duplicates")]
    Duplicates,
}

impl Problem {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::TooMany => "too many",
            Self::OtherEvents => "other events",
            Self::Duplicates => "duplicates",
        }
    }
}

/// A day that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct TableDifference {
    pub(super) project_id: u64,
    pub(super) day: String,
    pub(super) problem: Problem,
    pub(super) in_posthog: u64,
    pub(super) in_table: u64,
    pub(super) duplicates: u64,
    #[serde(skip)]
    pub(super) number: i64,
}

/// The days of a project that differ, in order. Only those in `days` are compared.
pub(super) fn differences(
    project_id: u64,
    posthog: &BTreeMap<i64, Fingerprint>,
    table: &BTreeMap<i64, TableDay>,
    days: &BTreeSet<i64>,
) -> Vec<TableDifference> {
    let differ = |number: i64| {
        let nothing = TableDay { events: 0, checksum: Some(0), rows: 0 };
        let table = table.get(&number).copied().unwrap_or(nothing);
        let posthog = posthog.get(&number).copied().unwrap_or_default();
        let problem = match table.events.cmp(&posthog.count) {
            std::cmp::Ordering::Less => Problem::Missing,
            std::cmp::Ordering::Greater => Problem::TooMany,
            std::cmp::Ordering::Equal if !table.agrees(posthog) => Problem::OtherEvents,
            std::cmp::Ordering::Equal if table.rows > table.events => Problem::Duplicates,
            std::cmp::Ordering::Equal => return None,
        };
        Some(TableDifference {
            project_id,
            day: day(number),
            problem,
            in_posthog: posthog.count,
            in_table: table.events,
            duplicates: table.rows.saturating_sub(table.events),
            number,
        })
    };
    days.iter().copied().filter_map(differ).collect()
}

/// The setting `reread_days` that makes the next sync read again what the table lacks.
pub(super) fn reread_days(differences: &[TableDifference]) -> Vec<String> {
    let lacks = |difference: &&TableDifference| matches!(difference.problem, Problem::Missing | Problem::OtherEvents);
    let mut numbers: Vec<i64> = differences.iter().filter(lacks).map(|difference| difference.number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let describe = |(first, last): (i64, i64)| {
        if first == last { day(first) } else { format!("{}/{}", day(first), day(last)) }
    };
    ranges.into_iter().map(describe).collect()
}

pub(super) fn day(number: i64) -> String {
    Timestamp::from_day(number).date().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_damage_is_named_and_days_that_lack_events_are_read_again() {
        let figure = Fingerprint::new;
        let posthog =
            [(1, figure(5, 50)), (2, figure(5, 50)), (3, figure(5, 50)), (4, figure(5, 50)), (6, figure(1, 1))];
        let row = |events, checksum, rows| TableDay { events, checksum: Some(checksum), rows };
        let table = [(1, row(5, 50, 5)), (2, row(4, 40, 4)), (3, row(5, 51, 5)), (4, row(5, 50, 7)), (5, row(2, 9, 2))];
        let found = differences(7, &posthog.into(), &table.into(), &(0..10).collect());
        let found: Vec<_> = found.iter().map(|found| (found.number, found.problem, found.duplicates)).collect();
        let expected = [
            (2, Problem::Missing, 0),
            (3, Problem::OtherEvents, 0),
            (4, Problem::Duplicates, 2),
            (5, Problem::TooMany, 0),
            (6, Problem::Missing, 0),
        ];
        assert_eq!(found, expected);
        let found = differences(7, &posthog.into(), &table.into(), &(0..10).collect());
        assert_eq!(reread_days(&found), ["1970-01-03/1970-01-04", "1970-01-07"]);
        assert!(differences(7, &posthog.into(), &table.into(), &[1].into()).is_empty());
    }
}
