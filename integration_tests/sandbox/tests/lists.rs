//! The list endpoints, the deprecated list of events among them.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::collections::BTreeSet;

use chrono::{DateTime, Duration, Utc};
use posthog_sandbox::posthog::{Action, Event, Fault, Key, Person, Sandbox};
use serde_json::{Value, json};
use support::{get, query};
use uuid::Uuid;

const LISTS: [(&str, usize); 16] = [
    ("annotations", 30),
    ("cohorts", 25),
    ("feature_flags", 230),
    ("insights", 250),
    ("actions", 40),
    ("dashboards", 12),
    ("experiments", 15),
    ("surveys", 8),
    ("session_recordings", 120),
    ("session_recording_playlists", 4),
    ("event_definitions", 210),
    ("property_definitions", 250),
    ("early_access_feature", 3),
    ("notebooks", 7),
    ("hog_functions", 5),
    ("groups_types", 2),
];

async fn filled() -> Sandbox {
    let posthog = Sandbox::builder().start().await.unwrap();
    posthog.generate_lists(1001, 1);
    posthog
}

async fn list(posthog: &Sandbox, path: &str) -> Value {
    let reply = get(posthog, &format!("/api/projects/1001/{path}"), "phx_full").await;
    assert_eq!(reply.status, 200, "{path}: {}", String::from_utf8_lossy(&reply.body));
    reply.json()
}

/// All objects by following the links, and how many pages there were.
async fn follow(posthog: &Sandbox, path: &str) -> (Vec<Value>, usize) {
    let mut answer = list(posthog, path).await;
    let (mut objects, mut pages) = (Vec::new(), 1);
    loop {
        objects.extend(answer["results"].as_array().unwrap().clone());
        let Some(next) = answer["next"].as_str() else { return (objects, pages) };
        let next = next.strip_prefix(&posthog.url()).unwrap().to_owned();
        answer = get(posthog, &next, "phx_full").await.json();
        pages += 1;
    }
}

#[tokio::test]
async fn lists_are_filled_the_same_every_time() {
    let (one, two) = (filled().await, filled().await);
    for (name, count) in LISTS {
        let objects = one.list(1001, name);
        assert_eq!((objects.len(), &objects), (count, &two.list(1001, name)), "{name}");
    }
    assert_eq!((one.groups(1001).len(), one.list(1001, "groups").len()), (150, 150));
    assert_eq!(one.persons(1001), two.persons(1001));
    assert!(one.persons(1001).iter().any(|person| person.distinct_ids.len() == 3));
    let cohorts: BTreeSet<i64> = one.cohort_people(1001).into_iter().map(|(cohort, _)| cohort).collect();
    assert_eq!(cohorts.len(), 3);
    for table in ["cohort_people", "static_cohort_people", "person_distinct_ids", "groups"] {
        let rows = query(&one, &format!("SELECT count() FROM {table}")).await.rows();
        assert!(rows[0][0].as_u64().unwrap() >= 20, "{table}");
    }
    one.generate_lists(1001, 2);
    assert_ne!(one.list(1001, "insights"), two.list(1001, "insights"));
}

#[tokio::test]
async fn limit_and_offset_page_with_a_count() {
    let posthog = filled().await;
    for (name, count) in LISTS {
        if matches!(name, "session_recordings" | "property_definitions" | "groups_types") {
            continue;
        }
        let first = list(&posthog, &format!("{name}/")).await;
        assert_eq!((&first["count"], &first["previous"]), (&json!(count), &Value::Null), "{name}");
        let (objects, pages) = follow(&posthog, &format!("{name}/")).await;
        assert_eq!((objects, pages), (posthog.list(1001, name), count.div_ceil(100)), "{name}");
    }
    let page = list(&posthog, "insights/?limit=60&offset=60&basic=true").await;
    let base = format!("{}/api/projects/1001/insights/", posthog.url());
    assert_eq!(page["next"], format!("{base}?basic=true&limit=60&offset=120"));
    assert_eq!(page["previous"], format!("{base}?basic=true&limit=60"));
    assert_eq!(list(&posthog, "cohorts/?limit=0").await["results"].as_array().unwrap().len(), 25);
    assert_eq!(list(&posthog, "cohorts/?search=cohort%202").await["count"], 6);
    assert_eq!(list(&posthog, "groups_types/").await, Value::Array(posthog.list(1001, "groups_types")));
    let flags = list(&posthog, "feature_flags/?order=-updated_at&limit=500").await;
    let updated: Vec<&str> = flags["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|flag| flag["updated_at"].as_str().unwrap_or_default())
        .collect();
    assert!(updated.len() == 230 && updated.is_sorted_by(|left, right| left >= right));
}

#[tokio::test]
async fn property_definitions_are_of_a_type() {
    let posthog = filled().await;
    let mut all = Vec::new();
    for (kind, count) in [("event", 200), ("person", 30), ("group", 12), ("session", 8)] {
        let (objects, _) = follow(&posthog, &format!("property_definitions/?type={kind}&limit=50")).await;
        assert_eq!(objects.len(), count);
        assert!(objects.iter().all(|object| object.get("_type").is_none()));
        all.extend(objects);
    }
    assert_eq!(all.len(), 250);
    assert_eq!(list(&posthog, "property_definitions/").await["count"], 200);
    let refused = get(&posthog, "/api/projects/1001/property_definitions/?type=other", "phx_full").await;
    assert_eq!((refused.status, &refused.json()["attr"]), (400, &json!("type")));
}

#[tokio::test]
async fn recordings_are_recent_unless_asked() {
    let posthog = filled().await;
    let truth = posthog.list(1001, "session_recordings");
    let since = |days: i64| {
        let from = Utc::now() - Duration::days(days);
        let start = |object: &&Value| object["start_time"].as_str().unwrap().parse::<DateTime<Utc>>().unwrap() >= from;
        truth.iter().filter(start).count()
    };
    let recent = list(&posthog, "session_recordings/?limit=100").await;
    assert_eq!(recent["results"].as_array().unwrap().len(), since(3));
    assert!((20..40).contains(&since(3)));
    let mut all = Vec::new();
    loop {
        let page = list(&posthog, &format!("session_recordings/?date_from=-30d&offset={}", all.len())).await;
        all.extend(page["results"].as_array().unwrap().clone());
        if page["has_next"] == false {
            assert_eq!(page["version"], 4);
            break;
        }
        assert!(all.len().is_multiple_of(50));
    }
    assert_eq!(all, truth);
    let count = async |filter: &str| {
        let page = list(&posthog, &format!("session_recordings/?limit=500&{filter}")).await;
        page["results"].as_array().unwrap().len()
    };
    assert_eq!((count("date_from=all").await, count("date_from=-1w").await), (120, since(7)));
    let middle = truth[60]["start_time"].as_str().unwrap();
    assert_eq!(count(&format!("date_from={middle}")).await, 61);
    assert_eq!(count(&format!("date_from=all&date_to={middle}")).await, 60);
    let refused = get(&posthog, "/api/projects/1001/session_recordings/?date_from=soon", "phx_full").await;
    assert_eq!(refused.status, 400);
}

#[tokio::test]
async fn groups_have_a_cursor_and_a_type() {
    let posthog = filled().await;
    let refused = get(&posthog, "/api/projects/1001/groups/", "phx_full").await;
    assert_eq!((refused.status, &refused.json()["attr"]), (400, &json!("group_type_index")));
    let refused = get(&posthog, "/api/projects/1001/groups/?group_type_index=0&cursor=x", "phx_full").await;
    assert_eq!((refused.status, &refused.json()["detail"]), (404, &json!("Invalid cursor")));
    let first = list(&posthog, "groups/?group_type_index=0&limit=5").await;
    assert_eq!((first["results"].as_array().unwrap().len(), first.get("count")), (100, None));
    assert!(first["next"].as_str().unwrap().contains("cursor=") && first["previous"].is_null());
    let mut found = 0;
    for (index, pages) in [(0, 2), (1, 1)] {
        let (objects, seen) = follow(&posthog, &format!("groups/?group_type_index={index}")).await;
        assert!(seen == pages && objects.iter().all(|group| group["group_type_index"] == index));
        found += objects.len();
    }
    assert_eq!(found, 150);
    assert_eq!(list(&posthog, "groups/?group_type_index=4").await["results"], json!([]));
}

#[tokio::test]
async fn persons_have_no_count() {
    let posthog = filled().await;
    let (objects, pages) = follow(&posthog, "persons/?limit=65").await;
    assert_eq!((objects.len(), pages), (130, 3), "a full page is followed by another, even an empty one");
    assert_eq!(objects, posthog.list(1001, "persons"));
    let mut by_creation = posthog.persons(1001);
    by_creation.sort_by_key(|person: &Person| std::cmp::Reverse(person.created_at));
    for (object, person) in objects.iter().zip(&by_creation) {
        assert_eq!(
            (&object["uuid"], &object["distinct_ids"]),
            (&json!(person.id.to_string()), &json!(person.distinct_ids))
        );
        assert!(object["id"].is_u64() && object["properties"]["email"] == object["name"]);
        assert_eq!(object["last_seen_at"].is_null(), person.last_seen_at.is_none());
    }
    assert_eq!(list(&posthog, "persons/").await.get("count"), None);
    assert_eq!(list(&posthog, "persons/?include_total=1").await["count"], 130);
    let id = &by_creation[5].distinct_ids[0];
    let one = list(&posthog, &format!("persons/?distinct_id={}", id.replace('ä', "%C3%A4"))).await;
    assert_eq!(one["results"], json!([objects[5]]));
    let path = format!("persons/{}/", by_creation[5].id);
    assert_eq!(list(&posthog, &path).await, objects[5]);
}

#[tokio::test]
async fn single_objects_and_scopes() {
    let key = |scope: &str| Key { value: scope.to_owned(), scopes: vec![scope.to_owned()], projects: None };
    let posthog =
        Sandbox::builder().key(Key::default()).key(key("cohort:read")).key(key("query:read")).start().await.unwrap();
    posthog.generate_lists(1001, 1);
    for (name, _) in LISTS {
        if name == "groups_types" {
            continue;
        }
        let object = posthog.list(1001, name).pop().unwrap();
        let id = object["id"].as_str().map_or_else(|| object["id"].to_string(), str::to_owned);
        assert_eq!(list(&posthog, &format!("{name}/{id}/")).await["id"], object["id"], "{name}");
    }
    let status = async |path: &str, key: &str| get(&posthog, &format!("/api/projects/1001/{path}"), key).await.status;
    assert_eq!(status("cohorts/216003/", "cohort:read").await, 200);
    assert_eq!(status("cohorts/", "query:read").await, 403);
    assert_eq!(status("cohorts/216003/", "query:read").await, 403);
    assert_eq!(status("cohorts/1/", "phx_full").await, 404);
    assert_eq!(status("unknown/1/", "phx_full").await, 404);
    assert_eq!((status("events/", "query:read").await, status("events/", "cohort:read").await), (200, 403));
}

#[tokio::test]
async fn pages_can_be_shorter_than_asked() {
    let posthog = Sandbox::builder().list_page_cap(40).start().await.unwrap();
    posthog.generate_lists(1001, 1);
    let page = list(&posthog, "insights/?limit=100").await;
    assert_eq!(page["results"].as_array().unwrap().len(), 40);
    assert!(page["next"].as_str().unwrap().ends_with("?limit=100&offset=40"));
    for path in ["insights/?limit=100", "persons/", "feature_flags/"] {
        let (objects, _) = follow(&posthog, path).await;
        assert_eq!(objects, posthog.list(1001, path.split('/').next().unwrap()), "{path}");
    }
    let (groups, pages) = follow(&posthog, "groups/?group_type_index=0").await;
    assert_eq!((groups.len(), pages), (112, 3));
    let page = list(&posthog, "session_recordings/?date_from=all&offset=100").await;
    assert_eq!((page["results"].as_array().unwrap().len(), &page["has_next"]), (20, &json!(false)));
}

#[tokio::test]
async fn links_can_mislead() {
    let posthog = filled().await;
    let path = "/api/projects/1001/insights/?limit=10&offset=20";
    let next = async |action: Action, path: &str| {
        posthog.set_faults(vec![Fault::new(action)]).unwrap();
        get(&posthog, path, "phx_full").await.json()["next"].clone()
    };
    let elsewhere = next(Action::NextElsewhere, path).await;
    assert_eq!(elsewhere, "http://evil.example/api/projects/1001/insights/?limit=10&offset=30");
    assert_eq!(next(Action::NextRepeats, path).await, format!("{}{path}", posthog.url()));
    let cursor = next(Action::NextElsewhere, "/api/projects/1001/groups/?group_type_index=0").await;
    assert!(cursor.as_str().unwrap().starts_with("http://evil.example/api/projects/1001/groups/?cursor="));
    let persons = next(Action::NextRepeats, "/api/projects/1001/persons/").await;
    assert_eq!(persons, format!("{}/api/projects/1001/persons/", posthog.url()));
    let names: Vec<_> = posthog.requests().iter().filter_map(|request| request.fault).collect();
    assert_eq!(names, ["next_elsewhere", "next_repeats", "next_elsewhere", "next_repeats"]);
}

fn past(number: u64, seconds: i64) -> Event {
    Event {
        uuid: Uuid::from_u64_pair(number, number),
        event: if number.is_multiple_of(2) { "even" } else { "odd" }.to_owned(),
        timestamp: noon() + seconds * 1_000_000,
        properties: format!(r#"{{"number":{number},"nan":NaN,"quoted":"\"q\"","text":"NaN"}}"#),
        ..Event::default()
    }
}

fn noon() -> i64 {
    "2026-03-01T12:00:00Z".parse::<DateTime<Utc>>().unwrap().timestamp_micros()
}

const BOUNDS: &str = "after=2026-03-01T11:00:00Z&before=2026-03-01T13:00:00Z";

#[tokio::test]
async fn the_list_of_events_has_traps() {
    let posthog = Sandbox::builder().start().await.unwrap();
    // 700 in the last minute, twenty at a time, and 1300 before it, three at a time.
    let late = (0..700).map(|number| past(number, 3598 - i64::try_from(number / 20).unwrap()));
    let early = (700..2000).map(|number| past(number, 3500 - i64::try_from(number / 3).unwrap()));
    posthog.insert(1001, late.chain(early).collect());
    let reply = get(&posthog, &format!("/api/projects/1001/events/?limit=5000&{BOUNDS}"), "phx_full").await;
    assert!(reply.header("x-posthog-warn").is_some());
    let page = reply.json();
    let results = page["results"].as_array().unwrap();
    assert_eq!((results.len(), &page["next"]), (700, &Value::Null), "half a page is taken for all there is");
    assert_eq!(results[0]["timestamp"], "2026-03-01T12:59:58+00:00");
    let number = &results[0]["properties"]["number"];
    assert_eq!(results[0]["properties"], json!({"number": number, "nan": null, "quoted": "q", "text": "NaN"}));
    assert!(results[0]["person"].is_null() && results[0]["elements"] == json!([]));

    let order = "orderBy=%5B%22timestamp%22%5D";
    let (ascending, pages) = follow(&posthog, &format!("events/?limit=1000&{order}&{BOUNDS}")).await;
    let different: BTreeSet<&str> = ascending.iter().map(|event| event["id"].as_str().unwrap()).collect();
    assert_eq!(pages, 2);
    assert!((1990..2000).contains(&different.len()), "ties at the end of a page are lost: {}", different.len());
    let first = &ascending[0]["timestamp"].as_str().unwrap().replace("+00:00", "Z");
    let exclusive = list(&posthog, &format!("events/?limit=1&{order}&after={first}&before=2026-03-01T13:00:00Z")).await;
    assert_ne!(exclusive["results"][0]["timestamp"], ascending[0]["timestamp"]);
    assert_eq!(list(&posthog, "events/").await["results"], json!([]), "only the last 24 hours by default");

    let keyset = "(timestamp, toString(uuid)) > (toDateTime64('2026-03-01 12:59:57', 6, 'UTC'), '') AND event = 'even'";
    let filters = json!([{"type": "hogql", "key": keyset}]).to_string();
    let filters = filters.bytes().map(|byte| format!("%{byte:02X}")).collect::<Vec<_>>().concat();
    let page = list(&posthog, &format!("events/?properties={filters}&{BOUNDS}")).await;
    assert_eq!(page["results"].as_array().unwrap().len(), 20);
    let filters = "%5B%7B%22key%22:%22text%22,%22value%22:%5B%22NaN%22%5D%7D%5D";
    let page = list(&posthog, &format!("events/?properties={filters}&event=odd&limit=3&{BOUNDS}")).await;
    assert_eq!(page["results"], json!([]), "no property can be read from what isn't JSON");

    let id = results[0]["id"].as_str().unwrap();
    assert_eq!(list(&posthog, &format!("events/{id}/")).await, results[0]);
    for (path, status) in [
        ("events/?offset=50001", 400),
        ("events/?after=2024-01-01&before=2026-01-01", 500),
        ("events/?after=2026-03-01T00:00:00.000000%2B0000&before=2026-03-02T00:00:00%2B0000", 200),
        ("events/?limit=x", 400),
        ("events/?after=soon", 400),
        ("events/?properties=%7B", 400),
        ("events/nothing/", 400),
        ("events/00000000-0000-0000-0000-00000000ffff/", 404),
    ] {
        let reply = get(&posthog, &format!("/api/projects/1001/{path}"), "phx_full").await;
        assert_eq!(reply.status, status, "{path}");
    }
}

#[tokio::test]
async fn the_list_of_events_can_be_complete() {
    let posthog = Sandbox::builder().uncapped_events(true).start().await.unwrap();
    posthog.insert(1001, (0..3000).map(|number| past(number, i64::try_from(number / 700).unwrap())).collect());
    for order in ["", "orderBy=%5B%22timestamp%22%5D&"] {
        let (events, pages) = follow(&posthog, &format!("events/?limit=1100&{order}{BOUNDS}")).await;
        let different: BTreeSet<&str> = events.iter().map(|event| event["id"].as_str().unwrap()).collect();
        assert_eq!((pages, events.len(), different.len()), (3, 3000, 3000));
    }
}

#[tokio::test]
async fn elements_are_taken_apart() {
    let posthog = Sandbox::builder().start().await.unwrap();
    let chain = r#"span.btn:attr__class="btn big"nth-child="1"nth-of-type="2"text="a; \"b\"";a:href="/x"attr_id="i""#;
    posthog.insert(1001, vec![Event { elements_chain: chain.to_owned(), ..past(1, 0) }]);
    let event = &list(&posthog, &format!("events/?{BOUNDS}")).await["results"][0];
    let elements = event["elements"].as_array().unwrap();
    assert_eq!((elements.len(), &event["elements_chain"]), (2, &json!(chain)));
    assert_eq!((&elements[0]["tag_name"], &elements[0]["attr_class"]), (&json!("span"), &json!(["btn", "big"])));
    assert_eq!((&elements[0]["nth_child"], &elements[0]["nth_of_type"]), (&json!(1), &json!(2)));
    assert_eq!(
        (&elements[1]["href"], &elements[1]["attr_id"], &elements[1]["order"]),
        (&json!("/x"), &json!("i"), &json!(1))
    );
}
