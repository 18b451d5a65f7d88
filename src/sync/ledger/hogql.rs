//! The `HogQL` of an observation.
//!
//! Every response is one row with an array of figures: no LIMIT can cut it, a response without it is
//! noticed, and its own numbers of cells and rows prove that it is whole.
//!
//! Texts only: conditions that hold users' words come from the caller, who sends these as values. Times
//! are literals that no time zone setting can shift.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::choice::Names;
use super::folded_months::FoldedMonths;
use super::period::{Days, Period};
use super::state::Ledger;
use crate::time::Timestamp;

/// The last day that the date of the server's sort key can hold, 6 June 2149.
const LAST_DATE: i64 = 65_535;

/// The number of a row's UTC day since the epoch.
///
/// Not `toUnixTimestamp`, which ends in 2106. The shift by a hundred years of 365.25 days makes the
/// dividend positive: `intDiv` rounds towards zero, and days before 1970 would be one too many.
pub const DAY: &str = "intDiv(toUnixTimestamp64Milli(timestamp) + 3155760000000, 86400000) - 36525";

/// What a row adds to the checksum: the last eight hex digits of a column of uuids as an unsigned integer.
/// `reinterpretAsUInt32` takes the lowest byte first, hence `reverse`.
pub fn checksum(column: &str) -> String {
    format!("reinterpretAsUInt32(reverse(unhex(right(toString({column}), 8))))")
}

/// What tells rows apart that are emitted: `PostHog` keeps rows that share a uuid but differ in name, distinct
/// id or day. Rows that agree in these and in their exact time are duplicates; a reader that goes by event
/// time and uuid sees them next to each other and emits one.
pub const IDENTITY: [&str; 4] = ["timestamp", "uuid", "event", "distinct_id"];

/// The first day of the period that a row belongs to.
pub fn period(months: &FoldedMonths) -> String {
    let ranges: Vec<String> = months.ranges().iter().map(|&range| in_days(range)).collect();
    if ranges.is_empty() {
        return DAY.to_owned();
    }
    let day_of_month = "toDayOfMonth(toTimeZone(timestamp, 'UTC'))";
    format!("{DAY} - if({}, {day_of_month} - 1, 0)", ranges.join(" OR "))
}

/// A condition on event time. Before 1970 it goes by [`DAY`], which rounds the last millisecond of a day
/// before 1970 to the next one; afterwards by the column itself, so that the server can skip parts.
pub fn in_days(days: Days) -> String {
    let mut conditions = Vec::with_capacity(2);
    if days.from > Days::ALL.from {
        conditions.push(bound(days.from, ">="));
    }
    if days.to < Days::ALL.to {
        conditions.push(bound(days.to, "<"));
    }
    if conditions.is_empty() { "1 = 1".to_owned() } else { format!("({})", conditions.join(" AND ")) }
}

/// A condition on event time in the column's own precision.
pub fn in_times(from: Timestamp, to: Timestamp) -> String {
    format!("timestamp >= {} AND timestamp < {}", from.literal(), to.literal())
}

fn bound(day: i64, operator: &str) -> String {
    // Dates of the server's sort key have 16 bits: beyond, a condition on the column skips rows that it should not.
    if day <= 0 || day > LAST_DATE {
        return format!("{DAY} {operator} {day}");
    }
    format!("timestamp {operator} {}", Timestamp::from_day(day).literal())
}

/// The number of the slice that a row belongs to, if it was ingested before the bound.
pub fn slice(ledger: &Ledger) -> String {
    let Some((_, bounds)) = ledger.slices.split_last() else { return "0".to_owned() };
    if bounds.is_empty() {
        return "0".to_owned();
    }
    let mut text = "multiIf(".to_owned();
    for (index, slice) in bounds.iter().enumerate() {
        // Writing to a String cannot fail.
        let written = write!(text, "created_at < {}, {index}, ", slice.until.literal());
        debug_assert!(written.is_ok());
    }
    format!("{text}{})", bounds.len())
}

/// Rows of the days, ingested before the bound; months that are touched as a whole.
fn rows(ledger: &Ledger, days: Days, condition: Option<&str>) -> String {
    let mut text = in_days(ledger.months.whole_periods(days));
    if let Some(until) = ledger.until() {
        text = format!("created_at < {} AND {text}", until.literal());
    }
    match condition {
        Some(condition) => format!("{text} AND {condition}"),
        None => text,
    }
}

/// One row with the figures of all cells that `grouped` selects by these names. `row_count` is one of them.
pub fn one_row(names: &str, grouped: &str) -> String {
    format!(
        "SELECT count() AS cells, sum(row_count) AS stored, groupArray(({names})) AS figures FROM ({grouped}) LIMIT 1"
    )
}

/// Count and checksum of every cell, duplicates included: `period, slice, row_count, row_checksum`.
pub fn observation(ledger: &Ledger, days: Days, condition: Option<&str>) -> String {
    let grouped = format!(
        "SELECT {} AS period, {} AS slice, count() AS row_count, sum({}) AS row_checksum FROM events WHERE {} GROUP BY period, slice",
        period(&ledger.months),
        slice(ledger),
        checksum("uuid"),
        rows(ledger, days, condition)
    );
    one_row("period, slice, row_count, row_checksum", &grouped)
}

/// Figures with and without duplicates of the cells of one slice and some periods, from one response:
/// `period, row_count, row_checksum, distinct_count, distinct_checksum`.
pub fn distinct(ledger: &Ledger, slice: usize, periods: &[Period], condition: Option<&str>) -> String {
    let periods: Vec<String> = periods.iter().map(|period| in_days(period.days())).collect();
    let mut ingested = Vec::with_capacity(2);
    if let Some(from) = ledger.ingested_from(slice) {
        ingested.push(format!("created_at >= {}", from.literal()));
    }
    if let Some(slice) = ledger.slices.get(slice) {
        ingested.push(format!("created_at < {}", slice.until.literal()));
    }
    let mut rows = format!("{} AND ({})", ingested.join(" AND "), periods.join(" OR "));
    if let Some(condition) = condition {
        rows = format!("{rows} AND {condition}");
    }
    let grouped = format!(
        "SELECT period, sum(duplicates) AS row_count, sum(duplicates * digits) AS row_checksum, count() AS distinct_count, sum(digits) AS distinct_checksum \
         FROM (SELECT {} AS period, {} AS digits, count() AS duplicates FROM events WHERE {rows} GROUP BY period, digits, {}) GROUP BY period",
        period(&ledger.months),
        checksum("uuid"),
        IDENTITY.join(", ")
    );
    one_row("period, row_count, row_checksum, distinct_count, distinct_checksum", &grouped)
}

/// Figures for narrowing: of every cell, raw of all names of the ledger, and raw and distinct of those that
/// fulfil `remaining`: `period, slice, row_count, row_checksum, remaining_count,
/// remaining_checksum, remaining_distinct_count, remaining_distinct_checksum`.
pub fn narrowing(ledger: &Ledger, condition: Option<&str>, remaining: &str) -> String {
    let grouped = format!(
        "SELECT period, slice, sum(duplicates) AS row_count, sum(duplicates * digits) AS row_checksum, \
         sumIf(duplicates, remains) AS remaining_count, sumIf(duplicates * digits, remains) AS remaining_checksum, \
         countIf(remains) AS remaining_distinct_count, sumIf(digits, remains) AS remaining_distinct_checksum \
         FROM (SELECT {} AS period, {} AS slice, {} AS digits, {remaining} AS remains, count() AS duplicates \
         FROM events WHERE {} GROUP BY period, slice, digits, remains, {}) GROUP BY period, slice",
        period(&ledger.months),
        slice(ledger),
        checksum("uuid"),
        rows(ledger, Days::ALL, condition),
        IDENTITY.join(", ")
    );
    one_row(
        "period, slice, row_count, row_checksum, remaining_count, remaining_checksum, remaining_distinct_count, remaining_distinct_checksum",
        &grouped,
    )
}

/// The condition for these events at these times, none for all, and the values of its placeholders. `filter` is a
/// condition of the user's, which has been checked.
///
/// Days of a ledger are whole. Where the configuration asks for a part of its first or last day, their cells
/// are about that part.
pub fn condition(
    names: &Names,
    filter: Option<&str>,
    asked: Option<(Timestamp, Timestamp)>,
    prefix: &str,
) -> (Option<String>, Map<String, Value>) {
    let (chosen, values) = names_condition(names, prefix);
    let within_a_day = |instant: &Timestamp| !instant.is_midnight();
    let (from, to) = (asked.map(|(from, _)| from), asked.map(|(_, to)| to));
    let from = from.filter(within_a_day).map(|from| format!("timestamp >= {}", from.literal()));
    let to = to.filter(within_a_day).map(|to| format!("timestamp < {}", to.literal()));
    // A line feed ends a comment that the filter may end with.
    let filter = filter.map(|filter| format!("({filter}\n)"));
    let conditions: Vec<String> = [chosen, filter, from, to].into_iter().flatten().collect();
    ((!conditions.is_empty()).then(|| conditions.join(" AND ")), values)
}

/// The condition for these names, none for all, and the values of its placeholders.
pub fn names_condition(names: &Names, prefix: &str) -> (Option<String>, Map<String, Value>) {
    let (operator, set) = match names {
        Names::Only(set) if set.is_empty() => return (Some("1 = 0".to_owned()), Map::new()),
        Names::AllBut(set) if set.is_empty() => return (None, Map::new()),
        Names::Only(set) => ("IN", set),
        Names::AllBut(set) => ("NOT IN", set),
    };
    let values: Map<String, Value> = set
        .iter()
        .enumerate()
        .map(|(number, name)| (format!("{prefix}_{number}"), Value::from(name.as_str())))
        .collect();
    let placeholders: Vec<String> = (0..set.len()).map(|number| format!("{{{prefix}_{number}}}")).collect();
    (Some(format!("event {operator} ({})", placeholders.join(", "))), values)
}

#[cfg(test)]
mod tests {
    use super::super::choice::Choice;
    use super::*;

    fn ledger() -> Ledger {
        let mut ledger = Ledger::new(Choice::all(), None);
        ledger.open_slices(Timestamp::from_day(20_000), [], None);
        ledger.slices.drain(1..3);
        ledger
    }

    #[test]
    fn an_observation_groups_by_period_and_slice() {
        assert_eq!(
            observation(&ledger(), Days::ALL, None),
            "SELECT count() AS cells, sum(row_count) AS stored, groupArray((period, slice, row_count, row_checksum)) AS figures FROM (SELECT intDiv(toUnixTimestamp64Milli(timestamp) + 3155760000000, 86400000) - 36525 AS period, \
             multiIf(created_at < toDateTime64('2024-10-03 00:00:00.000000', 6, 'UTC'), 0, 1) AS slice, count() AS row_count, \
             sum(reinterpretAsUInt32(reverse(unhex(right(toString(uuid), 8))))) AS row_checksum FROM events \
             WHERE created_at < toDateTime64('2024-10-04 00:00:00.000000', 6, 'UTC') AND 1 = 1 GROUP BY period, slice) LIMIT 1"
        );
    }

    #[test]
    fn folded_months_are_numbered_by_their_first_day_and_asked_for_as_a_whole() {
        let mut ledger = ledger();
        ledger.months.add(Days { from: 19_723, to: 19_723 + 31 });
        let text = observation(&ledger, Days { from: 19_730, to: Days::ALL.to }, Some("event IN ({include_0})"));
        assert!(text.contains("- if((timestamp >= toDateTime64('2024-01-01"), "{text}");
        assert!(text.contains("AND (timestamp >= toDateTime64('2024-01-01"), "{text}");
        assert!(text.contains("AND event IN ({include_0}) GROUP BY"), "{text}");
    }

    #[test]
    fn figures_without_duplicates_group_by_the_identity_of_a_row() {
        let text = distinct(&ledger(), 1, &[Period::day(-3)], None);
        assert!(text.contains("GROUP BY period, digits, timestamp, uuid, event, distinct_id)"), "{text}");
        assert!(text.contains("created_at >= toDateTime64('2024-10-03"), "{text}");
        assert!(text.contains("- 36525 >= -3 AND intDiv("), "{text}");
    }
}
