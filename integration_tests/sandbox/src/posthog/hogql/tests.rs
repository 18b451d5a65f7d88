mod figures;

use chrono_tz::Tz;
use serde_json::{Map, Value as Json, json};
use uuid::Uuid;

use super::{Answer, Setting, compile, run};
use crate::posthog::Server;
use crate::posthog::store::{DAY, Event, Person, Tables};

/// 2026-01-05T00:00:00Z.
const MONDAY: i64 = 1_767_571_200_000_000;

fn zones(shown: Tz, literals: Tz) -> Setting {
    Setting { shown, literals, schema: Server::forgiving().schema, now: MONDAY + 10 * DAY }
}

fn ask_in(tables: &Tables, sql: &str, values: &Json, setting: Setting) -> Result<Vec<Json>, String> {
    let values: Map<String, Json> = values.as_object().cloned().unwrap_or_default();
    let select = compile(sql, &values, setting).map_err(|error| format!("{} {}", error.code, error.detail))?;
    let Answer { rows, .. } = run(&select, tables, setting.now, select.limit.unwrap_or(100));
    let mut shown = Vec::new();
    for row in rows {
        let mut items = Vec::new();
        for (value, output) in row.iter().zip(&select.outputs) {
            let mut text = Vec::new();
            value.write_json(&output.expression.kind, &mut text);
            items.push(serde_json::from_slice(&text).unwrap());
        }
        shown.push(Json::Array(items));
    }
    Ok(shown)
}

fn ask(tables: &Tables, sql: &str) -> Vec<Json> {
    ask_in(tables, sql, &Json::Null, zones(Tz::UTC, Tz::UTC)).unwrap()
}

fn refuse(sql: &str) -> String {
    ask_in(&Tables::default(), sql, &Json::Null, zones(Tz::UTC, Tz::UTC)).unwrap_err()
}

fn tables(events: Vec<Event>) -> Tables {
    let mut tables = Tables::default();
    tables.insert(events);
    tables
}

/// Ten instants with a hundred events each; the uuids ascend in one half and descend in the other.
fn ties() -> Tables {
    let event = |number: u64| Event {
        uuid: Uuid::from_u64_pair(number.wrapping_mul(0x9e37_79b9_7f4a_7c15), u64::MAX - number),
        timestamp: MONDAY + i64::try_from(number / 100).unwrap(),
        ..Event::default()
    };
    tables((0..1000).rev().map(event).collect())
}

fn pages(tables: &Tables, key: &str, wrap: impl Fn(&str) -> String) -> Vec<String> {
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let sql = format!(
            "SELECT uuid, timestamp FROM events WHERE timestamp >= toDateTime64('2026-01-05 00:00:00.000000', 6, 'UTC') \
             AND timestamp < toDateTime64('2026-01-06 00:00:00', 6, 'UTC') {after} ORDER BY timestamp ASC, {key} ASC, \
             created_at DESC LIMIT 70"
        );
        let rows = ask(tables, &sql);
        for row in &rows {
            seen.push(row[0].as_str().unwrap().to_owned());
        }
        let Some(last) = rows.last().filter(|_| rows.len() == 70) else { return seen };
        let (time, uuid) = (last[1].as_str().unwrap().replace('T', " ").replace('Z', ""), last[0].as_str().unwrap());
        after = format!("AND (timestamp, {key}) > (toDateTime64('{time}', 6, 'UTC'), {})", wrap(uuid));
    }
}

#[test]
fn keyset_pages_over_ties_return_everything_once() {
    let tables = ties();
    for seen in [
        pages(&tables, "toString(uuid)", |uuid| format!("'{uuid}'")),
        pages(&tables, "uuid", |uuid| format!("toUUID('{uuid}')")),
    ] {
        assert_eq!(seen.len(), 1000);
        assert_eq!(seen.iter().collect::<std::collections::HashSet<_>>().len(), 1000);
    }
}

#[test]
fn mixing_both_orders_of_uuids_loses_rows() {
    // The mistake that the stand-in has to punish: sorted by the server, compared as text.
    let tables = ties();
    let sql = "SELECT uuid FROM events ORDER BY timestamp, uuid LIMIT 70";
    let last = ask(&tables, sql).pop().unwrap()[0].as_str().unwrap().to_owned();
    let rest = ask(
        &tables,
        &format!(
            "SELECT count() FROM events WHERE (timestamp, toString(uuid)) > (toDateTime64('2026-01-05 00:00:00', 6, 'UTC'), '{last}')"
        ),
    );
    assert_ne!(rest, [json!([930])]);
}

#[test]
fn uuids_sort_by_their_second_half_and_texts_by_their_first() {
    let event = |high, low| Event { uuid: Uuid::from_u64_pair(high, low), timestamp: MONDAY, ..Event::default() };
    let tables = tables(vec![event(1, 3), event(2, 2), event(3, 1)]);
    let first = |by: &str| ask(&tables, &format!("SELECT uuid FROM events ORDER BY {by} LIMIT 1"))[0][0].clone();
    assert_eq!(first("uuid"), "00000000-0000-0003-0000-000000000001");
    assert_eq!(first("toString(uuid)"), "00000000-0000-0001-0000-000000000003");
    assert_eq!(first("uuid DESC"), "00000000-0000-0001-0000-000000000003");
    let above = ask(&tables, "SELECT count() FROM events WHERE uuid > toUUID('00000000-0000-0002-0000-000000000002')");
    assert_eq!(above, [json!([1])]);
}

#[test]
fn histograms_and_audits_count_every_row() {
    let event = |number: u128, timestamp| Event { uuid: Uuid::from_u128(number), timestamp, ..Event::default() };
    let tables = tables(vec![
        event(1, MONDAY),
        event(2, MONDAY + DAY - 1),
        event(2, MONDAY + DAY - 1),
        event(3, MONDAY + DAY),
        event(4, MONDAY + 9 * DAY),
    ]);
    let day = MONDAY / DAY;
    let histogram = "SELECT intDiv(toUnixTimestamp64Milli(timestamp), 86400000) AS day, count() FROM events WHERE \
        timestamp < toDateTime64('2026-01-10 00:00:00.000000', 6, 'UTC') GROUP BY day ORDER BY day LIMIT 50000";
    assert_eq!(ask(&tables, histogram), [json!([day, 3]), json!([day + 1, 1])]);
    assert_eq!(ask(&tables, &histogram.replace("ORDER BY day", "ORDER BY count() ASC"))[0], json!([day + 1, 1]));
    let audit = "SELECT count(), uniqExact(tuple(timestamp, toString(uuid))), count(DISTINCT uuid) FROM events";
    assert_eq!(ask(&tables, audit), [json!([5, 4, 4])]);
    assert_eq!(ask(&tables, &format!("{audit} WHERE event = 'other'")), [json!([0, 0, 0])]);
    let hours = "SELECT toStartOfHour(timestamp) AS hour, min(uuid), max(created_at) FROM events GROUP BY hour ORDER BY hour DESC LIMIT 1";
    assert_eq!(
        ask(&tables, hours),
        [json!(["2026-01-14T00:00:00Z", "00000000-0000-0000-0000-000000000004", "1970-01-01T00:00:00Z"])]
    );
}

#[test]
fn the_query_for_events_is_understood() {
    let event = Event {
        uuid: Uuid::from_u128(7),
        event: "it's".to_owned(),
        properties: r#"{"a":"b\"c"}"#.to_owned(),
        timestamp: MONDAY + 1,
        created_at: MONDAY + 5_000_000,
        session_id: "s".to_owned(),
        groups: ["g0", "", "", "", "g4"].map(str::to_owned),
        ..Event::default()
    };
    let hidden = Event { visible_at: Some(MONDAY + 11 * DAY), ..event.clone() };
    let tables = tables(vec![event, hidden]);
    let sql = "SELECT uuid, event, properties, timestamp, created_at, distinct_id, elements_chain, person_id, \
        `$session_id`, `$window_id`, `$group_0`, `$group_1`, `$group_2`, `$group_3`, `$group_4`, person_mode, \
        person.properties FROM events \
        WHERE timestamp >= toDateTime64('2026-01-05 00:00:00.000000', 6, 'UTC') AND timestamp < toDateTime64('2026-01-06 \
        00:00:00.000000', 6, 'UTC') AND created_at < toDateTime64('2026-01-07 00:00:00.000000', 6, 'UTC') AND event IN \
        ({include_0}, {include_1}) AND event NOT IN ('x') AND (timestamp, toString(uuid)) > \
        (toDateTime64('2026-01-05 00:00:00.000001', 6, 'UTC'), '00000000-0000-0000-0000-000000000006') ORDER BY \
        timestamp ASC, toString(uuid) ASC, created_at DESC LIMIT 50000";
    let values = json!({"include_0": "it's", "include_1": "$pageview"});
    let rows = ask_in(&tables, sql, &values, zones(Tz::UTC, Tz::UTC)).unwrap();
    assert_eq!(
        rows,
        [json!([
            "00000000-0000-0000-0000-000000000007",
            "it's",
            "{\"a\":\"b\\\"c\"}",
            "2026-01-05T00:00:00.000001Z",
            "2026-01-05T00:00:05Z",
            "user",
            "",
            "00000000-0000-0000-0000-000000000000",
            "s",
            "",
            "g0",
            "",
            "",
            "",
            "g4",
            "full",
            "{}"
        ])]
    );
}

#[test]
fn persons_without_last_seen_fall_back() {
    let mut tables = Tables::default();
    for (number, last_seen_at) in [(1, Some(MONDAY + DAY)), (2, None), (3, Some(MONDAY + DAY))] {
        tables.put_person(Person {
            id: Uuid::from_u128(number),
            created_at: MONDAY,
            properties: "{}".to_owned(),
            is_identified: number == 1,
            last_seen_at,
            distinct_ids: Vec::new(),
        });
    }
    let sql = "SELECT id, created_at, properties, is_identified, coalesce(last_seen_at, created_at) FROM persons WHERE \
        coalesce(last_seen_at, created_at) >= toDateTime64('2026-01-01 00:00:00.000000', 6, 'UTC') AND \
        (coalesce(last_seen_at, created_at), toString(id)) > (toDateTime64('2026-01-05 00:00:00.000000', 6, 'UTC'), \
        '00000000-0000-0000-0000-000000000002') ORDER BY coalesce(last_seen_at, created_at) ASC, toString(id) ASC LIMIT 1";
    let row = json!(["00000000-0000-0000-0000-000000000001", "2026-01-05T00:00:00Z", "{}", 1, "2026-01-06T00:00:00Z"]);
    assert_eq!(ask(&tables, sql), [row]);
    let days = "SELECT intDiv(toUnixTimestamp(coalesce(last_seen_at, created_at)), 86400) AS day, count() FROM persons \
        GROUP BY day ORDER BY day LIMIT 10";
    assert_eq!(ask(&tables, days), [json!([MONDAY / DAY, 1]), json!([MONDAY / DAY + 1, 2])]);
    assert_eq!(ask(&tables, "SELECT count(last_seen_at), count() FROM persons"), [json!([2, 3])]);
    assert_eq!(ask(&tables, "SELECT count() FROM persons WHERE last_seen_at IS NULL"), [json!([1])]);
    assert_eq!(ask(&tables, "SELECT count() FROM persons WHERE last_seen_at > '2000-01-01 00:00:00'"), [json!([2])]);
}

#[test]
fn zones_shift_literals_and_what_is_shown() {
    let tables = tables(vec![Event { timestamp: MONDAY, ..Event::default() }]);
    let berlin = zones(Tz::Europe__Berlin, Tz::Europe__Berlin);
    let shown = |sql: &str| ask_in(&tables, sql, &Json::Null, berlin).unwrap();
    assert_eq!(shown("SELECT timestamp FROM events"), [json!(["2026-01-05T01:00:00+01:00"])]);
    assert_eq!(shown("SELECT toStartOfDay(timestamp) FROM events"), [json!(["2026-01-05T00:00:00+01:00"])]);
    assert_eq!(shown("SELECT toString(timestamp) FROM events"), [json!(["2026-01-05 01:00:00.000000"])]);
    let without = "SELECT count() FROM events WHERE timestamp >= toDateTime64('2026-01-05 00:30:00', 6)";
    assert_eq!(shown(without), [json!([1])], "a literal without a zone is in the project's");
    assert_eq!(shown(&without.replace("6)", "6, 'UTC')")), [json!([0])]);
}

#[test]
fn an_alias_hides_the_column() {
    let tables = ties();
    let by_text = ask(&tables, "SELECT toString(uuid) AS uuid FROM events ORDER BY timestamp, uuid LIMIT 3");
    let by_uuid = ask(&tables, "SELECT toString(uuid) AS text FROM events ORDER BY timestamp, uuid LIMIT 3");
    assert_ne!(by_text, by_uuid);
    let qualified = "SELECT toString(e.uuid) AS uuid FROM events e ORDER BY timestamp, e.uuid LIMIT 3";
    assert_eq!(ask(&tables, qualified), by_uuid, "a qualified name is that of the column");
    let third = "SELECT event, timestamp, toString(uuid) FROM events ORDER BY 2, 3 LIMIT 1";
    assert_eq!(ask(&tables, third)[0][2], by_text[0][0]);
    let grouped = "SELECT toDate(timestamp), count() FROM events GROUP BY 1 ORDER BY 2 DESC";
    assert_eq!(ask(&tables, grouped), [json!(["2026-01-05", 1000])]);
}

#[test]
fn whatever_is_not_understood_is_refused_by_name() {
    for (sql, wanted) in [
        ("SELECT * EXCEPT (uuid) FROM events", "in a SELECT list"),
        ("SELECT uuid FROM heatmaps", "table `heatmaps`"),
        ("SELECT uuid FROM nothing", "Unknown table `nothing`."),
        ("SELECT e.nope FROM events e", "Unable to resolve field: nope"),
        ("SELECT other.uuid FROM events", "Unable to resolve field: other"),
        ("SELECT event.a FROM events", "Can not access property \"a\" on field \"event\"."),
        ("SELECT a.uuid FROM (SELECT uuid AS id FROM events) AS a", "Unable to resolve field: uuid"),
        ("SELECT id FROM (SELECT id FROM nothing) AS a", "Unknown table `nothing`."),
        ("SELECT id FROM (SELECT id FROM persons LIMIT 5 OFFSET 5) AS a", "OFFSET is not supported"),
        ("SELECT id FROM (SELECT id FROM persons UNION ALL SELECT id FROM persons) AS a", "UNION"),
        ("SELECT event + 1 FROM events", "illegal_type"),
        ("SELECT sum(event) FROM events", "illegal_type"),
        ("SELECT event % 2 FROM events", "operator `%`"),
        ("SELECT now() - INTERVAL 2 QUARTER FROM events", "INTERVAL"),
        ("SELECT key FROM groups WHERE index > 'many'", "type_mismatch"),
        ("SELECT uuid FROM events JOIN persons ON 1 = 1", "FROM"),
        ("SELECT lower(event) FROM events", "function `lower`"),
        ("SELECT countDistinctIf(event, 1 = 1) FROM events", "function `countDistinctIf`"),
        ("SELECT right(event, 3) FROM events", "bytes `right(event, 3)`"),
        ("SELECT groupArray((event, unhex(event))) FROM events", "bytes"),
        ("SELECT count() FROM events WHERE right(event, 1) = 'a'", "illegal_type"),
        ("SELECT right(event, -1) FROM events", "`right`"),
        ("SELECT unhex(1) FROM events", "illegal_type"),
        ("SELECT toTimeZone(timestamp, event) FROM events", "time zone"),
        ("SELECT toTimeZone(timestamp, 'Mars') FROM events", "Unknown time zone"),
        ("SELECT if(1 = 1, event, 0) FROM events", "no_common_type"),
        ("SELECT if(event, 1, 0) FROM events", "illegal_type"),
        ("SELECT multiIf(1 = 1, 1, 1 = 1, 0) FROM events", "illegal_type"),
        ("SELECT sumIf(1, event) FROM events", "illegal_type"),
        ("SELECT sumIf(1 = 1) FROM events", "number_of_arguments"),
        ("SELECT groupArray() FROM events", "number_of_arguments"),
        ("SELECT sum(count()) FROM events", "illegal_aggregation"),
        ("SELECT nope FROM events", "Unable to resolve field: nope"),
        ("SELECT DISTINCT uuid FROM events", "clauses"),
        ("SELECT uuid FROM events FINAL", "FROM"),
        ("SELECT count() FROM events GROUP BY event HAVING count() > 1", "clauses"),
        ("SELECT uuid FROM events WHERE event LIKE 'a%'", "LIKE"),
        ("SELECT uuid FROM events WHERE event = uuid", "illegal_type"),
        ("SELECT uuid FROM events WHERE timestamp > toDateTime64('soon', 6, 'UTC')", "cannot_parse_datetime"),
        (
            "SELECT uuid FROM events LIMIT 5 OFFSET 5",
            "OFFSET is not supported on queries made with a personal API key.",
        ),
        ("SELECT uuid FROM events LIMIT 5, 5", "OFFSET is not supported"),
        ("SELECT uuid FROM events LIMIT 1 BY event", "LIMIT BY"),
        ("SELECT uuid FROM events UNION ALL SELECT uuid FROM events", "UNION"),
        ("WITH x AS (SELECT 1) SELECT uuid FROM events", "clauses"),
        ("SELECT uuid FROM events SETTINGS max_threads = 1", "clauses"),
        ("SELECT event, count() FROM events", "not_an_aggregate"),
        ("SELECT uuid FROM events WHERE count() > 1", "illegal_aggregation"),
        ("SELECT count() OVER () FROM events", "clause"),
        ("SELECT 1e400 FROM events", "number 1e400"),
        ("SELECT toDateTime64(event, 6) FROM events", "literal"),
        ("SELECT uuid FROM events ORDER BY uuid NULLS FIRST", "ORDER BY"),
        ("SELECT uuid FROM events ORDER BY 2", "`2`"),
        ("SELECT uuid FROM events ORDER BY 'uuid'", "`'uuid'`"),
        ("SELEC uuid", "syntax_error"),
        ("SELECT uuid FROM events; SELECT 1", "syntax_error"),
    ] {
        let refused = refuse(sql);
        assert!(refused.contains(wanted), "{sql}: {refused}");
    }
}
