//! What is in the files of exports.

use posthog_sandbox::posthog::{
    Event, Exports, InstantFormat, Offset, Person, Project, Sandbox, Server, SessionFields,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::start;
use crate::{DAY, HOUR, ago, builder, event, exporting, files, recent_rows, request, rows};

fn person(at: i64) -> Person {
    Person {
        id: Uuid::from_u128(7),
        created_at: at,
        properties: "{}".to_owned(),
        is_identified: true,
        last_seen_at: Some(at),
        distinct_ids: vec!["a".to_owned(), "b".to_owned()],
    }
}

#[tokio::test]
async fn exported_persons_have_numbers_for_times() {
    let at = ago(HOUR);
    let mut server = Server::cloud_2026();
    for (format, wanted) in [
        (InstantFormat::Seconds, Some(json!(at / 1_000_000))),
        (InstantFormat::Milliseconds, Some(json!(at / 1000))),
        (InstantFormat::Iso(Offset::MinusFive), None),
    ] {
        server.exports.person_times = format;
        let posthog = exporting(server.clone(), Exports::default()).await;
        posthog.insert_person(1001, person(at));
        let rows = recent_rows(&posthog, "persons").await;
        assert_eq!(rows.len(), 2, "one for each distinct id");
        match wanted {
            Some(number) => assert_eq!((&rows[0]["_inserted_at"], &rows[0]["created_at"]), (&number, &number)),
            None => assert!(rows[0]["created_at"].as_str().unwrap().ends_with("-05:00")),
        }
    }
}

#[tokio::test]
async fn exported_events_have_text_for_times() {
    let at = ago(HOUR);
    let mut server = Server::cloud_2026();
    for (offset, ending) in
        [(Offset::Zero, "+00:00"), (Offset::Zulu, "Z"), (Offset::MinusFive, "-05:00"), (Offset::Basic, "+0000")]
    {
        server.exports.event_times = offset;
        let posthog = exporting(server.clone(), Exports::default()).await;
        posthog.insert(1001, vec![event(1, at, at)]);
        let row = &recent_rows(&posthog, "events").await[0];
        for field in ["timestamp", "created_at", "_inserted_at"] {
            assert!(row[field].as_str().unwrap().ends_with(ending), "{row}");
        }
    }
}

fn visit(number: u128, session: &str, timestamp: i64, created_at: i64) -> Event {
    Event {
        session_id: session.to_owned(),
        properties: r#"{"$current_url":"https://shop.example.com/a","gclid":"g"}"#.to_owned(),
        ..event(number, timestamp, created_at)
    }
}

async fn in_kolkata(server: Server) -> Sandbox {
    let project = Project { timezone: "Asia/Kolkata".to_owned(), ..Project::default() };
    builder(server).project(project).exports(Exports::default()).start().await.unwrap()
}

#[tokio::test]
async fn exported_sessions_are_in_the_zone_of_the_project_without_a_person() {
    let id = "01996b1c-2c00-7000-8000-000000000001";
    let at = ago(HOUR);
    let posthog = in_kolkata(Server::cloud_2026()).await;
    posthog.insert(1001, vec![visit(1, id, at, at)]);
    let row = &recent_rows(&posthog, "sessions").await[0];
    assert!(row["start_timestamp"].as_str().unwrap().ends_with("+05:30"), "{row}");
    assert_eq!((row.get("person_id"), &row["entry_hostname"]), (None, &json!("shop.example.com")));
    assert_eq!((&row["entry_gclid"], row.as_object().unwrap().len()), (&json!("g"), 48));

    let mut server = Server::cloud_2026();
    server.exports.sessions_in_project_zone = false;
    server.exports.session_fields = SessionFields::Few;
    let posthog = in_kolkata(server).await;
    posthog.insert(1001, vec![visit(1, id, at, at)]);
    let row = &recent_rows(&posthog, "sessions").await[0];
    assert!(row["start_timestamp"].as_str().unwrap().ends_with("+00:00") && row.get("person_id").is_some(), "{row}");
}

#[tokio::test]
async fn sessions_whose_events_are_three_days_late_are_left_out() {
    let posthog = exporting(Server::cloud_2026(), Exports::default()).await;
    posthog.insert(
        1001,
        vec![
            visit(1, "prompt", ago(HOUR), ago(HOUR)),
            visit(2, "late", ago(2 * DAY), ago(HOUR)),
            visit(3, "too late", ago(6 * DAY), ago(HOUR)),
            visit(4, "to come", ago(-HOUR), ago(HOUR)),
        ],
    );
    let rows = recent_rows(&posthog, "sessions").await;
    let mut ids: Vec<&str> = rows.iter().map(|row| row["session_id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["late", "prompt"]);
}

#[tokio::test]
async fn only_intervals_long_ago_leave_out_late_events() {
    let posthog = exporting(Server::cloud_2026(), Exports::default()).await;
    for (number, days_ago) in [(1, 1), (10, 20)] {
        let at = ago(days_ago * DAY);
        let late = [0, 6, 8].into_iter().zip(number..).map(|(days, number)| event(number, at - days * DAY, at));
        posthog.insert(1001, late.chain([event(number + 3, at + 3 * DAY, at)]).collect());
    }
    let count = async |days: i64| {
        let body = request("events", ago(days * DAY + HOUR), ago(days * DAY - HOUR));
        rows(&posthog, &body).await.len()
    };
    assert_eq!((count(1).await, count(20).await), (4, 2));
}

#[tokio::test]
async fn each_line_is_a_gzip_member() {
    for (server, members) in [(Server::cloud_2026(), 3), (Server::forgiving(), 1)] {
        let posthog = exporting(server, Exports::default()).await;
        posthog.insert(1001, (0..3).map(|number| event(number, ago(HOUR), ago(HOUR))).collect());
        let run = start(&posthog, &request("events", ago(2 * HOUR), ago(0))).await;
        let body = files(&posthog, &run).await.remove(0);
        let mut rest = body.as_slice();
        let mut found = 0;
        while !rest.is_empty() {
            let mut member = flate2::bufread::GzDecoder::new(rest);
            let text = std::io::read_to_string(&mut member).unwrap();
            assert!(text.ends_with('\n') && serde_json::from_str::<Value>(text.lines().next().unwrap()).is_ok());
            (rest, found) = (member.into_inner(), found + 1);
        }
        assert_eq!(found, members);
    }
}
