//! The tables other than events, and queries as users write them.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use posthog_sandbox::posthog::{Event, Group, Person, Project, Sandbox, Server};
use serde_json::{Value, json};
use support::{post_query, query};
use uuid::Uuid;

const DAY: i64 = 86_400_000_000;

fn instant() -> DateTime<Utc> {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

async fn sandbox() -> Sandbox {
    Sandbox::builder().server(Server::forgiving()).start().await.unwrap()
}

async fn types(posthog: &Sandbox, sql: &str) -> Vec<Value> {
    let answer = query(posthog, sql).await.json();
    answer["types"].as_array().unwrap().iter().map(|pair| pair[1].clone()).collect()
}

async fn refused(posthog: &Sandbox, sql: &str) -> String {
    let reply = query(posthog, sql).await;
    assert_eq!(reply.status, 400, "{sql}");
    reply.json()["detail"].as_str().unwrap().to_owned()
}

fn group(index: u8, key: &str) -> Group {
    let at = instant().timestamp_micros();
    let properties = format!(r#"{{"name":"{key}","size":{index}}}"#);
    Group { index, key: key.to_owned(), created_at: at + 1234, updated_at: at + 5678, properties }
}

#[tokio::test]
async fn groups_are_paged_by_their_keys() {
    let posthog = sandbox().await;
    for number in (0..95_u8).rev() {
        posthog.insert_group(1001, group(number % 3, &format!("gröup {}", number / 2)));
    }
    posthog.insert_group(1001, Group { properties: "{}".to_owned(), ..group(1, "gröup 0") });
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let sql = format!(
            "SELECT index, key, created_at, updated_at, properties FROM groups {after} ORDER BY index, key LIMIT 10"
        );
        let rows = query(&posthog, &sql).await.rows();
        after = match rows.last() {
            Some(last) => format!("WHERE (index, key) > ({}, '{}')", last[0], last[1].as_str().unwrap()),
            None => break,
        };
        seen.extend(rows);
    }
    let truth = posthog.groups(1001);
    assert_eq!(seen.len(), truth.len());
    for (row, group) in seen.iter().zip(&truth) {
        assert_eq!((&row[0], &row[1], &row[4]), (&json!(group.index), &json!(group.key), &json!(group.properties)));
        assert_eq!((&row[2], &row[3]), (&json!("2026-03-01T12:00:00.001000Z"), &json!("2026-03-01T12:00:00.005678Z")));
    }
    assert_eq!(seen.iter().filter(|row| row[4] == "{}").count(), 1);
    let kinds = types(&posthog, "SELECT index, key, created_at, updated_at FROM groups").await;
    assert_eq!(kinds, ["UInt8", "String", "DateTime64(3, 'UTC')", "DateTime64(6, 'UTC')"]);
    let sql =
        "SELECT max(updated_at), min(index), count(), uniqExact(tuple(index, key)) FROM groups WHERE index IN (0, 2)";
    let count = truth.iter().filter(|group| group.index != 1).count();
    assert_eq!(query(&posthog, sql).await.rows(), [json!(["2026-03-01T12:00:00.005678Z", 0, count, count])]);
    let sql = "SELECT count() FROM groups WHERE index = {index} AND properties.name = {name}";
    let body = json!({"kind": "HogQLQuery", "query": sql, "values": {"index": 0, "name": "gröup 0"}});
    assert_eq!(post_query(&posthog, &json!({"query": body})).await.rows(), [json!([1])]);
}

#[tokio::test]
async fn distinct_ids_lead_to_persons() {
    let posthog = sandbox().await;
    posthog.generate(1001, 300, 1, instant());
    let rows =
        query(&posthog, "SELECT distinct_id, person_id FROM person_distinct_ids ORDER BY distinct_id LIMIT 5000")
            .await
            .rows();
    let persons = posthog.persons(1001);
    let truth: BTreeMap<&str, String> = persons
        .iter()
        .flat_map(|person| person.distinct_ids.iter().map(|id| (id.as_str(), person.id.to_string())))
        .collect();
    assert!(truth.len() > 100);
    let truth: Vec<Value> = truth.into_iter().map(|(id, person)| json!([id, person])).collect();
    assert_eq!(rows, truth);
    let first =
        query(&posthog, "SELECT max(distinct_id) FROM person_distinct_ids WHERE distinct_id <= 'b'").await.rows();
    assert!(first[0][0].as_str().unwrap().starts_with("anonymous-"));
}

#[tokio::test]
async fn cohorts_have_people() {
    let posthog = sandbox().await;
    let people: Vec<Uuid> = (1..=9).map(|number| Uuid::from_u64_pair(10 - number, number)).collect();
    posthog.set_cohort_people(1001, 7, false, people.clone());
    posthog.set_cohort_people(1001, 8, false, people[..4].to_vec());
    posthog.set_cohort_people(1001, 9, true, people[2..].to_vec());
    assert_eq!(posthog.cohort_people(1001).len(), 9 + 4 + 7);
    let (mut seen, mut after) = (BTreeSet::new(), String::new());
    loop {
        let sql = format!(
            "SELECT toString(person_id), cohort_id FROM cohort_people {after} ORDER BY toString(person_id), cohort_id LIMIT 4"
        );
        let rows = query(&posthog, &sql).await.rows();
        let Some(last) = rows.last() else { break };
        after = format!("WHERE (toString(person_id), cohort_id) > ('{}', {})", last[0].as_str().unwrap(), last[1]);
        seen.extend(rows.iter().map(|row| (row[1].as_i64().unwrap(), row[0].as_str().unwrap().parse().unwrap())));
    }
    let truth: BTreeSet<(i64, Uuid)> =
        posthog.cohort_people(1001).into_iter().filter(|(cohort, _)| *cohort != 9).collect();
    assert_eq!(seen, truth);
    let sql = "SELECT cohort_id, count() FROM static_cohort_people GROUP BY cohort_id";
    assert_eq!(query(&posthog, sql).await.rows(), [json!([9, 7])]);
    let sql =
        "SELECT cohort_id, sum(sign), max(version) FROM raw_cohort_people GROUP BY cohort_id ORDER BY cohort_id DESC";
    assert_eq!(query(&posthog, sql).await.rows(), [json!([8, 4, 1]), json!([7, 9, 1])]);
    assert_eq!(types(&posthog, "SELECT person_id, cohort_id FROM cohort_people").await, ["UUID", "Int64"]);
    posthog.set_cohort_people(1001, 7, false, Vec::new());
    assert_eq!(query(&posthog, "SELECT count() FROM cohort_people").await.rows(), [json!([4])]);
}

fn visit(session: &str, number: u128, name: &str, seconds: i64, properties: &str) -> Event {
    Event {
        uuid: Uuid::from_u128(number),
        event: name.to_owned(),
        timestamp: instant().timestamp_micros() + seconds * 1_000_000,
        session_id: session.to_owned(),
        distinct_id: format!("user of {session}"),
        properties: properties.to_owned(),
        ..Event::default()
    }
}

#[tokio::test]
async fn sessions_come_from_events() {
    let posthog = sandbox().await;
    let entry = r#"{"$current_url":"https://a/1","$pathname":"/1","$referring_domain":"$direct","utm_source":"ads"}"#;
    let end = r#"{"$current_url":"https://a/2","$pathname":"/2"}"#;
    posthog.insert(
        1001,
        vec![
            visit("s1", 1, "$pageview", 0, entry),
            visit("s1", 2, "$autocapture", 5, entry),
            visit("s1", 3, "$pageview", 90, end),
            visit("s1", 3, "$pageview", 90, end),
            visit("s2", 4, "$screen", 7, r#"{"broken":NaN}"#),
            visit("", 5, "$pageview", 8, entry),
        ],
    );
    let sql = "SELECT session_id, id, distinct_id, person_id, `$start_timestamp`, $end_timestamp, $urls, $num_uniq_urls, \
        $entry_current_url, $end_current_url, $entry_pathname, $end_pathname, $pageview_count, $autocapture_count, \
        $screen_count, $session_duration, $is_bounce, $channel_type, $entry_referring_domain, $entry_utm_source, \
        $entry_utm_campaign, $entry_utm_medium, $entry_utm_term, $entry_utm_content FROM sessions ORDER BY session_id";
    let nobody = Uuid::nil().to_string();
    let rows = query(&posthog, sql).await.rows();
    assert_eq!(
        rows,
        [
            json!([
                "s1",
                "s1",
                "user of s1",
                nobody,
                "2026-03-01T12:00:00Z",
                "2026-03-01T12:01:30Z",
                ["https://a/1", "https://a/2"],
                2,
                "https://a/1",
                "https://a/2",
                "/1",
                "/2",
                2,
                1,
                0,
                90,
                0,
                "Direct",
                "$direct",
                "ads",
                null,
                null,
                null,
                null
            ]),
            json!([
                "s2",
                "s2",
                "user of s2",
                nobody,
                "2026-03-01T12:00:07Z",
                "2026-03-01T12:00:07Z",
                [],
                0,
                "",
                "",
                "",
                "",
                0,
                0,
                1,
                0,
                1,
                "Direct",
                null,
                null,
                null,
                null,
                null,
                null
            ])
        ]
    );
    let kinds = types(&posthog, "SELECT $urls, $session_duration, $is_bounce, $entry_utm_term FROM sessions").await;
    assert_eq!(kinds, ["Array(String)", "Int64", "UInt8", "Nullable(String)"]);
    posthog.insert(1001, vec![visit("s2", 6, "$pageview", 10, end)]);
    let sql = "SELECT $session_duration FROM sessions WHERE ($start_timestamp, session_id) > \
        (toDateTime64('2026-03-01 12:00:00', 6, 'UTC'), 's1') ORDER BY $start_timestamp, session_id LIMIT 5";
    assert_eq!(query(&posthog, sql).await.rows(), [json!([3])], "new events are seen");
}

#[tokio::test]
async fn generated_events_have_sessions() {
    for dataset in [false, true] {
        let posthog = sandbox().await;
        if dataset {
            posthog.load_dataset(1001, instant()).unwrap();
        } else {
            posthog.generate(1001, 3000, 1, instant());
        }
        let events = posthog.events(1001);
        let sessions: BTreeSet<&str> =
            events.iter().map(|event| event.session_id.as_str()).filter(|id| !id.is_empty()).collect();
        let with = events.iter().filter(|event| !event.session_id.is_empty()).count();
        assert!(with > events.len() / 4 && with < events.len() && sessions.len() < with, "{} {with}", sessions.len());
        assert!(dataset || sessions.iter().all(|id| id.parse::<Uuid>().is_ok_and(|id| id.get_version_num() == 7)));
        assert_eq!(query(&posthog, "SELECT count() FROM sessions").await.rows(), [json!([sessions.len()])]);
    }
}

#[tokio::test]
async fn users_ask_as_they_like() {
    let posthog = sandbox().await;
    let event = |number: u128, name: &str, days: i64, properties: &str| Event {
        uuid: Uuid::from_u128(number),
        event: name.to_owned(),
        timestamp: Utc::now().timestamp_micros() - days * DAY,
        properties: properties.to_owned(),
        ..Event::default()
    };
    posthog.insert(
        1001,
        vec![
            event(1, "a", 1, r#"{"$browser":"Chrome","price":2.5,"deep":{"er":[1, "x"]},"again":1,"again":2}"#),
            event(2, "a", 2, r#"{"$browser":"Sa\"fari ñ","price":4}"#),
            event(3, "b", 9, r#"{"$browser":null,"price":"text"}"#),
            event(4, "b", 10, r#"{"$browser":"","bad":NaN}"#),
        ],
    );
    let ask = |sql: &'static str| {
        let posthog = &posthog;
        async move { query(posthog, sql).await.rows() }
    };
    let sql = "SELECT event, count() AS total FROM events GROUP BY event ORDER BY event";
    assert_eq!(ask(sql).await, [json!(["a", 2]), json!(["b", 2])]);
    let sql = "SELECT properties.$browser AS browser, count() FROM events GROUP BY browser ORDER BY browser DESC";
    assert_eq!(ask(sql).await, [json!(["Sa\\\"fari ñ", 1]), json!(["Chrome", 1]), json!([null, 2])]);
    assert_eq!(types(&posthog, "SELECT properties.$browser FROM events").await, ["Nullable(String)"]);
    let sql = "SELECT properties.deep.er, e.properties.again FROM events AS e WHERE e.properties.$browser = 'Chrome'";
    assert_eq!(ask(sql).await, [json!(["[1, \"x\"]", "1"])]);
    let sql = "SELECT sum(toFloat(properties.price)), avg(toFloat(properties.price)), any(event), max(toInt('7')), \
        count(DISTINCT event), count() / 8, 2 * count() - 1, 1.5 + 1 FROM events";
    assert_eq!(ask(sql).await, [json!([6.5, 3.25, "b", 7, 2, 0.5, 7, 2.5])]);
    assert_eq!(ask("SELECT avg(index), sum(index), max(index) FROM groups").await, [json!([null, 0, 0])]);
    for recent in ["now() - INTERVAL 7 DAY", "now() - toIntervalDay(7)", "toDate(now() - toIntervalHour(168))"] {
        let sql = format!("SELECT count() FROM events WHERE timestamp >= {recent}");
        assert_eq!(query(&posthog, &sql).await.rows(), [json!([2])], "{recent}");
    }
    let sql = "SELECT toDate('2026-03-30') + INTERVAL 1 MONTH, toDate('2026-03-30') - INTERVAL 1 MONTH, \
        toDateTime('2026-03-01 00:00:00') + toIntervalWeek(1) FROM groups";
    assert_eq!(ask(sql).await, Vec::<Value>::new());
    let sql = "SELECT max(toDate('2026-03-30') - INTERVAL 1 MONTH), any(toDateTime('2026-03-01 00:00:00') + \
        toIntervalWeek(1)) FROM events";
    assert_eq!(ask(sql).await, [json!(["2026-02-28", "2026-03-08T00:00:00Z"])]);
    assert_eq!(
        types(&posthog, "SELECT toDate(timestamp), count() / 2 FROM events GROUP BY toDate(timestamp)").await,
        ["Date", "Float64"]
    );
    assert!(refused(&posthog, "SELECT nope FROM sessions").await.contains("Unable to resolve field: nope"));
    assert_eq!(refused(&posthog, "SELECT nope FROM nothing").await, "Unknown table `nothing`.");
}

#[tokio::test]
async fn queries_stand_in_place_of_tables() {
    let zone = Project { timezone: "Europe/Berlin".to_owned(), ..Project::default() };
    let posthog = Sandbox::builder().server(Server::forgiving()).project(zone).start().await.unwrap();
    posthog.generate(1001, 1000, 3, instant());
    let events = posthog.events(1001);
    let inner = "SELECT event, toDate(timestamp) AS day, count() AS total, max(timestamp) AS latest FROM events GROUP BY event, day";
    let all = query(&posthog, &format!("SELECT event, day, total, latest FROM ({inner}) AS q LIMIT 50000")).await;
    let (answer, rows) = (all.json(), all.rows());
    assert!(rows.len() > 100, "not cut: {}", rows.len());
    assert_eq!(rows.iter().map(|row| row[2].as_u64().unwrap()).sum::<u64>(), 1000);
    assert_eq!(answer["types"][1], json!(["day", "Date"]));
    assert_eq!(answer["types"][3][1], "DateTime64(6, 'UTC')");
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let sql =
            format!("SELECT event, day, total, latest FROM ({inner}) AS q {after} ORDER BY q.event, q.day LIMIT 70");
        let page = query(&posthog, &sql).await.rows();
        let Some(last) = page.last() else { break };
        let (event, day) = (last[0].as_str().unwrap(), last[1].as_str().unwrap());
        after = format!("WHERE (q.event, q.day) > ('{event}', '{day}')");
        seen.extend(page);
    }
    seen.sort_by_key(ToString::to_string);
    let mut rows = rows;
    rows.sort_by_key(ToString::to_string);
    assert_eq!(seen, rows);

    let sql = "SELECT q.uuid, q.properties.number FROM (SELECT uuid, properties, timestamp FROM events WHERE event != 'x') \
        AS q WHERE timestamp > toDateTime64('2026-02-20 00:00:00', 6, 'UTC') ORDER BY timestamp DESC, toString(uuid) LIMIT 3";
    let found = query(&posthog, sql).await.rows();
    let newest = events.last().unwrap();
    assert_eq!((found.len(), &found[0][0]), (3, &json!(newest.uuid.to_string())));
    let sql = "SELECT count(), sum(n) FROM (SELECT count() AS n FROM (SELECT event FROM events LIMIT 10) AS a GROUP BY event)";
    assert_eq!(query(&posthog, sql).await.rows()[0][1], 10);
    let sql = "SELECT id FROM (SELECT id FROM persons) AS q";
    assert_eq!(query(&posthog, sql).await.rows().len(), 100, "the outer query has the default limit");

    let body =
        json!({"kind": "HogQLQuery", "query": format!("SELECT latest FROM ({inner}) AS q ORDER BY latest LIMIT 1")});
    let shown = post_query(&posthog, &json!({"query": body})).await.json();
    assert_eq!(shown["types"][0][1], "DateTime64(6, 'Europe/Berlin')");
}

#[tokio::test]
async fn persons_are_as_before() {
    let posthog = sandbox().await;
    let person = Person {
        id: Uuid::from_u128(5),
        created_at: instant().timestamp_micros(),
        properties: r#"{"email":"a@b"}"#.to_owned(),
        is_identified: true,
        last_seen_at: None,
        distinct_ids: vec!["a".to_owned()],
    };
    posthog.insert_person(1001, person);
    let sql = "SELECT id, created_at, properties.email, is_identified, last_seen_at FROM persons";
    let rows = query(&posthog, sql).await.rows();
    assert_eq!(rows, [json!([Uuid::from_u128(5).to_string(), "2026-03-01T12:00:00Z", "a@b", 1, null])]);
}

#[tokio::test]
async fn figures_of_all_days_come_in_one_row() {
    let posthog = sandbox().await;
    posthog.generate(1001, 3000, 1, instant());
    let events = posthog.events(1001);
    let mut days: BTreeMap<i64, (u64, u64)> = BTreeMap::new();
    for event in &events {
        let day = days.entry(event.timestamp.div_euclid(DAY)).or_default();
        *day = (day.0 + 1, day.1 + u64::try_from(event.uuid.as_u128() & 0xffff_ffff).unwrap());
    }
    let days: Vec<Value> = days.into_iter().map(|(day, (rows, sum))| json!([day, 0, rows, sum])).collect();
    assert!(days.len() > 10);
    let sql = "SELECT count() AS cells, sum(row_count) AS stored, \
        groupArray((period, slice, row_count, row_checksum)) AS figures FROM (SELECT \
        intDiv(toUnixTimestamp64Milli(timestamp) + 3155760000000, 86400000) - 36525 AS period, 0 AS slice, \
        count() AS row_count, sum(reinterpretAsUInt32(reverse(unhex(right(toString(uuid), 8))))) AS row_checksum \
        FROM events WHERE 1 = 1 GROUP BY period, slice) LIMIT 1";
    assert_eq!(query(&posthog, sql).await.rows(), [json!([days.len(), events.len(), days])]);
}

#[tokio::test]
async fn events_are_deleted_and_copies_merged() {
    let posthog = sandbox().await;
    let at = instant().timestamp_micros();
    let row = |number: u128, created_at: i64| Event {
        uuid: Uuid::from_u128(number),
        timestamp: at,
        created_at,
        ..Event::default()
    };
    let hidden = Event { visible_at: Some(i64::MAX), ..row(1, at + 9) };
    let (renamed, next_day) = (Event { event: "b".into(), ..row(1, at) }, Event { timestamp: at + DAY, ..row(1, at) });
    let moved = Event { timestamp: at + 1, ..row(3, at + 5) };
    posthog.insert(1001, vec![row(1, at), row(1, at + 5), row(1, at + 5), hidden, renamed, next_day]);
    posthog.insert(1001, vec![row(2, at), row(2, at + 5), row(3, at), moved.clone()]);
    assert_eq!(posthog.delete_events(1001, [Uuid::from_u128(2)]), 2);
    assert_eq!(posthog.merge_duplicates(1001), 3);
    let left: Vec<(u128, i64)> =
        posthog.events(1001).iter().map(|event| (event.uuid.as_u128(), event.created_at - at)).collect();
    assert_eq!(left, [(1, 5), (1, 9), (1, 0), (3, 5), (1, 0)]);
    assert!(posthog.events(1001).contains(&moved));
    assert_eq!((posthog.merge_duplicates(1001), posthog.delete_events(1001, [])), (0, 0));
}
