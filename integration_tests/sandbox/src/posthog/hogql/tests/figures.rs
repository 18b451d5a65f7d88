//! Numbers and checksums of rows by day, in one row of an answer, and pages by all that identifies a row.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value as Json, json};

use super::*;

const DAY_NUMBER: &str = "intDiv(toUnixTimestamp64Milli(timestamp) + 3155760000000, 86400000) - 36525";
const CHECKSUM: &str = "reinterpretAsUInt32(reverse(unhex(right(toString(uuid), 8))))";
const IDENTITY: &str = "timestamp, uuid, event, distinct_id";

fn at(text: &str) -> String {
    format!("toDateTime64('{text} 00:00:00.000000', 6, 'UTC')")
}

fn micros(text: &str) -> i64 {
    super::super::parse_time(text, Tz::UTC).unwrap()
}

/// January to September of 2026 count as months.
fn folded() -> String {
    let months = format!("(timestamp >= {} AND timestamp < {})", at("2026-01-01"), at("2026-10-01"));
    let none = format!("(timestamp >= {} AND timestamp < {})", at("2031-01-01"), at("2031-02-01"));
    format!("{DAY_NUMBER} - if({months} OR {none}, toDayOfMonth(toTimeZone(timestamp, 'UTC')) - 1, 0)")
}

fn slices() -> String {
    let (first, second) = (at("2026-06-01"), at("2026-11-01"));
    format!("multiIf(created_at < {first}, 0, created_at < {second}, 1, 2)")
}

fn one_row(names: &str, grouped: &str) -> String {
    format!(
        "SELECT count() AS cells, sum(row_count) AS stored, groupArray(({names})) AS figures FROM ({grouped}) LIMIT 1"
    )
}

fn observation(period: &str, slice: &str, filter: &str) -> String {
    let grouped = format!(
        "SELECT {period} AS period, {slice} AS slice, count() AS row_count, sum({CHECKSUM}) AS row_checksum \
         FROM events WHERE {filter} GROUP BY period, slice"
    );
    one_row("period, slice, row_count, row_checksum", &grouped)
}

fn distinct(period: &str, filter: &str) -> String {
    let grouped = format!(
        "SELECT period, sum(duplicates) AS row_count, sum(duplicates * digits) AS row_checksum, \
         count() AS distinct_count, sum(digits) AS distinct_checksum \
         FROM (SELECT {period} AS period, {CHECKSUM} AS digits, count() AS duplicates FROM events WHERE {filter} \
         GROUP BY period, digits, {IDENTITY}) GROUP BY period"
    );
    one_row("period, row_count, row_checksum, distinct_count, distinct_checksum", &grouped)
}

fn narrowing(period: &str, slice: &str, remaining: &str, filter: &str) -> String {
    let grouped = format!(
        "SELECT period, slice, sum(duplicates) AS row_count, sum(duplicates * digits) AS row_checksum, \
         sumIf(duplicates, remains) AS remaining_count, sumIf(duplicates * digits, remains) AS remaining_checksum, \
         countIf(remains) AS remaining_distinct_count, sumIf(digits, remains) AS remaining_distinct_checksum \
         FROM (SELECT {period} AS period, {slice} AS slice, {CHECKSUM} AS digits, {remaining} AS remains, \
         count() AS duplicates FROM events WHERE {filter} \
         GROUP BY period, slice, digits, remains, {IDENTITY}) GROUP BY period, slice"
    );
    let names = "period, slice, row_count, row_checksum, remaining_count, remaining_checksum, \
        remaining_distinct_count, remaining_distinct_checksum";
    one_row(names, &grouped)
}

/// Events before and after 1970, of months that are folded and of one that is not, some with copies.
fn world() -> Tables {
    let event = |digits: u128, name: &str, timestamp: &str, created_at: &str| Event {
        uuid: Uuid::from_u128(0xffff << 32 | digits),
        event: name.to_owned(),
        timestamp: micros(timestamp),
        created_at: micros(created_at),
        ..Event::default()
    };
    let copied = event(0x10, "a", "2026-02-10 08:00:00", "2026-02-10 08:00:01");
    let late = Event { created_at: micros("2026-11-20 00:00:00"), ..copied.clone() };
    let renamed = Event { event: "b".to_owned(), ..copied.clone() };
    let other_person = Event { distinct_id: "other".to_owned(), ..copied.clone() };
    let edge = event(0x400, "a", "2026-10-01 00:00:00", "2026-10-01 00:00:01");
    tables(vec![
        event(1, "a", "1969-12-30 12:00:00", "2026-02-01 00:00:00"),
        event(2, "a", "1969-12-31 23:59:59.998999", "2026-02-01 00:00:00"),
        event(4, "b", "1969-12-31 23:59:59.999500", "2026-02-01 00:00:00"),
        copied.clone(),
        copied,
        late,
        renamed,
        other_person,
        event(0x100, "b", "2026-02-28 23:59:59.999999", "2026-06-01 00:00:00"),
        event(0x200, "b", "2026-09-30 23:59:59.999999", "2026-10-01 00:00:00"),
        edge.clone(),
        edge,
        event(0xffff_ffff, "b", "2026-10-02 00:00:00", "2026-11-01 00:00:00"),
    ])
}

fn ask_with(tables: &Tables, sql: &str, values: &Json) -> Vec<Json> {
    ask_in(tables, sql, values, zones(Tz::UTC, Tz::UTC)).unwrap()
}

#[test]
fn an_observation_is_one_row_with_every_copy_in_it() {
    let tables = world();
    let before = format!("created_at < {} AND 1 = 1", at("2026-11-25"));
    assert_eq!(
        ask(&tables, &observation(DAY_NUMBER, "0", &before)),
        [json!([
            8,
            13,
            [
                [-2, 0, 1, 1],
                [-1, 0, 1, 2],
                // The last half of a millisecond before 1970 counts to 1970.
                [0, 0, 1, 4],
                [20_494, 0, 5, 0x50],
                [20_512, 0, 1, 0x100],
                [20_726, 0, 1, 0x200],
                [20_727, 0, 2, 0x800],
                [20_728, 0, 1, 0xffff_ffff_u64]
            ]
        ])]
    );
    let values = json!({"include_0": "b"});
    let some = format!("{before} AND event IN ({{include_0}})");
    assert_eq!(
        ask_with(&tables, &observation(&folded(), &slices(), &some), &values),
        [json!([
            5,
            5,
            [
                [0, 0, 1, 4],
                [20_485, 0, 1, 0x10],
                [20_485, 1, 1, 0x100],
                [20_697, 1, 1, 0x200],
                [20_728, 2, 1, 0xffff_ffff_u64]
            ]
        ])]
    );
    let days = format!("({DAY_NUMBER} >= -1 AND {DAY_NUMBER} < 0) OR (timestamp >= {})", at("2026-10-02"));
    assert_eq!(
        ask(&tables, &observation(DAY_NUMBER, "0", &days)),
        [json!([2, 2, [[-1, 0, 1, 2], [20_728, 0, 1, 0xffff_ffff_u64]]])]
    );
    assert_eq!(ask(&tables, &observation(&folded(), "0", "event = 'none'")), [json!([0, 0, []])]);
    assert_eq!(ask(&Tables::default(), &observation(DAY_NUMBER, "0", "1 = 1")), [json!([0, 0, []])]);
}

#[test]
fn copies_are_counted_apart_from_what_shares_only_the_uuid() {
    let tables = world();
    let (first, second) = (at("2026-01-01"), at("2026-10-02"));
    let filter = format!(
        "created_at >= {first} AND created_at < {} AND ((timestamp >= {first} AND timestamp < {second}))",
        at("2026-11-25")
    );
    assert_eq!(
        ask(&tables, &distinct(&folded(), &filter)),
        [json!([3, 9, [[20_485, 6, 0x150, 4, 0x130], [20_697, 1, 0x200, 1, 0x200], [20_727, 2, 0x800, 1, 0x400]]])]
    );
    assert_eq!(
        ask(&tables, &distinct(DAY_NUMBER, "timestamp < created_at - toIntervalDay(30000)")),
        [json!([0, 0, []])]
    );
}

#[test]
fn what_remains_is_counted_beside_everything() {
    let values = json!({"x": "b"});
    let sql = narrowing(&folded(), &slices(), "event NOT IN ({x})", &format!("timestamp >= {}", at("2026-01-01")));
    assert_eq!(
        ask_with(&world(), &sql, &values),
        [json!([
            6,
            10,
            [
                [20_485, 0, 4, 0x40, 3, 0x30, 2, 0x20],
                [20_485, 1, 1, 0x100, 0, 0, 0, 0],
                [20_485, 2, 1, 0x10, 1, 0x10, 1, 0x10],
                [20_697, 1, 1, 0x200, 0, 0, 0, 0],
                [20_727, 1, 2, 0x800, 2, 0x800, 1, 0x400],
                [20_728, 2, 1, 0xffff_ffff_u64, 0, 0, 0, 0]
            ]
        ])]
    );
    assert_eq!(ask_with(&Tables::default(), &sql, &values), [json!([0, 0, []])]);
}

#[test]
fn the_number_of_a_day_and_its_sum_have_types_of_clickhouse() {
    let select = compile(&observation(&folded(), &slices(), "1 = 1"), &Map::new(), zones(Tz::UTC, Tz::UTC)).unwrap();
    let kinds: Vec<String> = select.outputs.iter().map(|output| output.expression.kind.name()).collect();
    assert_eq!(kinds, ["UInt64", "UInt64", "Array(Tuple(Int64, Int64, UInt64, UInt64))"]);
    assert_eq!(select.counts(), [0]);
}

#[test]
fn sums_are_unsigned_and_start_over() {
    let event = |number| Event { uuid: Uuid::from_u128(0xffff_ffff), timestamp: number, ..Event::default() };
    let square = u64::from(u32::MAX).pow(2);
    let sum = format!("SELECT sum({CHECKSUM} * {CHECKSUM}) AS total FROM events");
    assert_eq!(ask(&tables(vec![event(1)]), &sum), [json!([square])]);
    let two = tables(vec![event(1), event(2)]);
    assert_eq!(ask(&two, &sum), [json!([square.wrapping_mul(2)])]);
    let more = format!("SELECT toString(total + total), total > 9223372036854775807 FROM ({sum})");
    assert_eq!(ask(&two, &more), [json!([square.wrapping_mul(4).to_string(), 1])]);
}

#[test]
fn checksums_are_those_of_the_last_digits_of_each_uuid() {
    let event = |number: u64| Event {
        uuid: Uuid::from_u64_pair(number, (number / 2).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        event: format!("event {}", number / 2 % 3),
        timestamp: MONDAY - DAY * 20_460 + i64::try_from(number / 2 % 97).unwrap() * DAY / 16,
        created_at: i64::try_from(number % 5).unwrap() * DAY,
        ..Event::default()
    };
    // Every seventh has a copy.
    let mut events: Vec<Event> = (0..20_000).map(event).collect();
    events.extend((0..20_000).step_by(7).map(event));
    let mut cells: BTreeMap<(i64, u64), (u64, u64)> = BTreeMap::new();
    let mut days: BTreeMap<i64, [u64; 4]> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for event in &events {
        let day = (event.timestamp / 1000).div_euclid(86_400_000);
        let slice = u64::from(event.created_at >= 2 * DAY) + u64::from(event.created_at >= 4 * DAY);
        let [.., high, upper, lower, low] = event.uuid.into_bytes();
        let digits = u64::from(u32::from_be_bytes([high, upper, lower, low]));
        let cell = cells.entry((day, slice)).or_default();
        (cell.0, cell.1) = (cell.0 + 1, cell.1.wrapping_add(digits));
        let figures = days.entry(day).or_default();
        let is_new = seen.insert((event.timestamp, event.uuid, event.event.clone()));
        let added = if is_new { [1, digits, 1, digits] } else { [1, digits, 0, 0] };
        for (figure, added) in figures.iter_mut().zip(added) {
            *figure = figure.wrapping_add(added);
        }
    }
    assert!(cells.keys().any(|(day, _)| *day < 0) && cells.keys().any(|(day, _)| *day > 0));
    let count = events.len();
    let tables = tables(events);
    let slices = "multiIf(created_at < toDateTime64('1970-01-03 00:00:00.000000', 6, 'UTC'), 0, \
        created_at < toDateTime64('1970-01-05 00:00:00.000000', 6, 'UTC'), 1, 2)";
    let figures: Vec<Json> = cells.iter().map(|((day, slice), (rows, sum))| json!([day, slice, rows, sum])).collect();
    assert_eq!(ask(&tables, &observation(DAY_NUMBER, slices, "1 = 1")), [json!([cells.len(), count, figures])]);
    let figures: Vec<Json> = days.iter().map(|(day, [a, b, c, d])| json!([day, a, b, c, d])).collect();
    assert_eq!(ask(&tables, &distinct(DAY_NUMBER, "1 = 1")), [json!([days.len(), count, figures])]);
}

#[test]
fn pages_by_the_whole_identity_return_rows_that_share_a_uuid() {
    // Three instants, two uuids, names and distinct ids that sort in either direction, and three copies of each.
    let event = |number: u64| Event {
        uuid: Uuid::from_u64_pair(2 - number / 12 % 2, number / 12 % 2),
        event: ["it's", "$pageview"][usize::from((number / 6).is_multiple_of(2))].to_owned(),
        distinct_id: ["b", "a"][usize::from((number / 3).is_multiple_of(2))].to_owned(),
        timestamp: MONDAY + 1 + i64::try_from(number / 24).unwrap(),
        created_at: MONDAY + DAY + i64::try_from(number % 3).unwrap(),
        ..Event::default()
    };
    let tables = tables((0..72).map(event).collect());
    let (mut seen, mut after, mut values) = (Vec::new(), String::new(), json!({}));
    loop {
        let sql = format!(
            "SELECT timestamp, uuid, event, distinct_id, created_at FROM events WHERE created_at >= {} AND created_at < {} \
             AND timestamp >= {}{after} ORDER BY timestamp ASC, toString(uuid) ASC, event ASC, distinct_id ASC, \
             created_at DESC LIMIT 7",
            at("2026-01-06"),
            at("2026-01-07"),
            at("2026-01-05")
        );
        let rows = ask_with(&tables, &sql, &values);
        seen.extend(rows.iter().cloned());
        let Some(last) = rows.last().filter(|_| rows.len() == 7) else { break };
        let time = last[0].as_str().unwrap().replace('T', " ").replace('Z', "");
        after = format!(
            " AND (timestamp, toString(uuid), event, distinct_id) > \
             (toDateTime64('{time}', 6, 'UTC'), {{after_id}}, {{after_event}}, {{after_distinct_id}})"
        );
        values = json!({"after_id": last[1], "after_event": last[2], "after_distinct_id": last[3]});
    }
    let text = |row: &Json, place: usize| row[place].as_str().unwrap().to_owned();
    let keys: Vec<[String; 4]> = seen.iter().map(|row| [0, 1, 2, 3].map(|place| text(row, place))).collect();
    assert!(keys.is_sorted(), "by the texts of all four");
    let keys: BTreeSet<[String; 4]> = keys.into_iter().collect();
    assert_eq!(keys.len(), 24, "rows that differ in name or distinct id are all there");
    let first = seen.iter().position(|row| row[4] == "2026-01-06T00:00:00.000002Z");
    assert_eq!(first, Some(0), "the latest of the copies comes first");
}
