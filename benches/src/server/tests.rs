use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use super::content::{Content, Size};
use super::question::recognize;
use crate::events::DAY;

/// 64 events on eight days, of which the sandbox has rendered two.
const SIZE: Size = Size { events: 64, page: 8, counted_days: None };

async fn ask(content: &Arc<Content>, sql: &str, values: &Value) -> Vec<Value> {
    let question = recognize(sql, values).unwrap();
    let answer = content.answer(sql, question, false).await.unwrap();
    let answer: Value = serde_json::from_slice(&answer.body).unwrap();
    answer["results"].as_array().unwrap().clone()
}

fn instant(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn literal(instant: DateTime<Utc>) -> String {
    format!("toDateTime64('{}', 6, 'UTC')", instant.format("%Y-%m-%d %H:%M:%S%.6f"))
}

#[tokio::test]
async fn figures_are_those_of_the_pages() {
    let content = Arc::new(Content::new(SIZE).await.unwrap());
    let start = DateTime::from_timestamp_micros(content.first_day() * DAY).unwrap();
    let arrived = format!("created_at < {}", literal(start + chrono::Days::new(20)));
    let window = format!("{arrived} AND (timestamp >= {})", literal(start));
    let order = "ORDER BY timestamp ASC, toString(uuid) ASC, event ASC, distinct_id ASC, created_at DESC LIMIT 8";
    let (mut after, mut values, mut pages) = (String::new(), Value::Null, 0);
    let mut days: BTreeMap<i64, (u64, u64)> = BTreeMap::new();
    loop {
        let sql = format!("SELECT timestamp, uuid, event, distinct_id FROM events WHERE {window}{after} {order}");
        let rows = ask(&content, &sql, &values).await;
        let Some(last) = rows.last() else { break };
        for row in &rows {
            let (time, uuid) = (instant(row[0].as_str().unwrap()), row[1].as_str().unwrap());
            let day = days.entry(time.timestamp().div_euclid(86_400)).or_default();
            let digits = u64::try_from(Uuid::parse_str(uuid).unwrap().as_u128() & 0xffff_ffff).unwrap();
            *day = (day.0 + 1, day.1 + digits);
        }
        let time = literal(instant(last[0].as_str().unwrap()));
        after = format!(
            " AND timestamp >= {time} AND (timestamp, toString(uuid), event, distinct_id) > \
             ({time}, {{after_id}}, {{after_event}}, {{after_distinct_id}})"
        );
        values = json!({"after_id": last[1], "after_event": last[2], "after_distinct_id": last[3]});
        pages += 1;
    }
    assert_eq!((pages, days.len()), (8, 8));

    let observation = format!(
        "SELECT count() AS cells, sum(row_count) AS stored, groupArray((period, slice, row_count, row_checksum)) AS \
         figures FROM (SELECT intDiv(toUnixTimestamp64Milli(timestamp) + 3155760000000, 86400000) - 36525 AS period, \
         0 AS slice, count() AS row_count, sum(reinterpretAsUInt32(reverse(unhex(right(toString(uuid), 8))))) AS \
         row_checksum FROM events WHERE {arrived} AND 1 = 1 GROUP BY period, slice) LIMIT 1"
    );
    let figures: Vec<Value> = days.iter().map(|(day, (rows, sum))| json!([day, 0, rows, sum])).collect();
    assert_eq!(ask(&content, &observation, &Value::Null).await, [json!([8, 64, figures])]);
    let halfway = literal(start + chrono::Duration::hours(36));
    let split = observation.replace("0 AS slice", &format!("multiIf(created_at < {halfway}, 0, 1) AS slice"));
    let question = recognize(&split, &Value::Null).unwrap();
    assert!(content.answer(&split, question, false).await.is_err(), "parts of a day are not known");
}
