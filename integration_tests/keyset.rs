//! Groups, distinct ids, members of cohorts, and the user's own queries.

use std::collections::BTreeSet;

use posthog_sandbox::posthog::{Action, Event, Fault, Group, Sandbox};
use serde_json::{Value, json};
use source_posthog::time::Timestamp;

use crate::support::messages::Messages;
use crate::support::program::{Source, catalog, run, state_file};
use crate::support::world::{PROJECT, event, events, key, minutes_ago, sandbox, two_hours_ago, two_projects};

const PROJECTS: [u64; 2] = [1001, 1002];

/// Some fields of all records of a stream, as one text each.
fn read(messages: &Messages, stream: &str, fields: &[&str]) -> BTreeSet<String> {
    let records = messages.records(stream).into_iter();
    records.map(|record| fields.iter().map(|field| record[*field].to_string()).collect::<Vec<_>>().join(" ")).collect()
}

fn stored(posthog: &Sandbox, stream: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for project in PROJECTS {
        match stream {
            "groups" => found.extend(
                posthog.groups(project).iter().map(|group| format!("{project} {} {}", group.index, json!(group.key))),
            ),
            "person_distinct_ids" => found.extend(posthog.persons(project).into_iter().flat_map(|person| {
                let id = person.id;
                person.distinct_ids.into_iter().map(move |distinct| format!("{project} {} \"{id}\"", json!(distinct)))
            })),
            _ => found.extend(
                posthog
                    .cohort_people(project)
                    .iter()
                    .map(|(cohort, person)| format!("{project} {cohort} \"{person}\"")),
            ),
        }
    }
    found
}

fn fields(stream: &str) -> &'static [&'static str] {
    match stream {
        "groups" => &["project_id", "group_type_index", "group_key"],
        "person_distinct_ids" => &["project_id", "distinct_id", "person_id"],
        _ => &["project_id", "cohort_id", "person_id"],
    }
}

const STREAMS: [&str; 3] = ["groups", "person_distinct_ids", "cohort_people"];

#[tokio::test]
async fn keyset_streams_are_read_completely_and_resume_from_every_state() {
    let posthog = two_projects().await;
    for project in PROJECTS {
        posthog.generate_lists(project, project);
    }
    let source = Source::new(&posthog.url()).with_page_size(40);
    let schemas = run(source.command("discover")).await.messages.of_type("CATALOG")[0]["catalog"]["streams"].clone();
    let full = STREAMS.map(|stream| (stream, "full_refresh"));
    for (stream, mode) in full.into_iter().chain([("groups", "incremental")]) {
        let catalog = catalog(&[stream], mode);
        let whole = source.read_all(&catalog, None).await;
        let wanted = stored(&posthog, stream);
        assert!(wanted.len() > 100, "{stream}");
        assert_eq!(read(&whole, stream, fields(stream)), wanted, "{stream}");
        assert_eq!(whole.records(stream).len(), wanted.len(), "{stream} came twice");
        let schema = schemas.as_array().unwrap().iter().find(|known| known["name"] == stream).unwrap();
        let known: BTreeSet<&String> = schema["json_schema"]["properties"].as_object().unwrap().keys().collect();
        let record = whole.records(stream)[0].as_object().unwrap();
        assert_eq!(record.keys().collect::<BTreeSet<_>>(), known, "{stream}");
        let states = whole.state_lines();
        assert!(states.len() > 4, "{stream}: {} states", states.len());
        for line in states {
            let part = whole.up_to(line);
            let rest = source.read_all(&catalog, Some(&part.state())).await;
            let seen = read(&part, stream, fields(stream));
            let union: BTreeSet<String> = seen.union(&read(&rest, stream, fields(stream))).cloned().collect();
            assert_eq!(union, wanted, "{stream}, {mode}, state on line {line}");
        }
    }
    let statics = source.read_all(&catalog(&["cohort_people"], "full_refresh"), None).await;
    let kinds = read(&statics, "cohort_people", &["is_static"]);
    assert_eq!(kinds, ["false".to_owned(), "true".to_owned()].into());
}

#[tokio::test]
async fn groups_are_read_incrementally() {
    let posthog = sandbox().await;
    posthog.generate_lists(PROJECT, 1);
    let source = Source::new(&posthog.url()).with_page_size(50);
    let catalog = catalog(&["groups"], "incremental");
    let first = source.read_all(&catalog, None).await;
    assert_eq!(first.records("groups").len(), posthog.groups(PROJECT).len());
    let changed = Group { updated_at: minutes_ago(1), ..posthog.groups(PROJECT)[7].clone() };
    posthog.insert_group(PROJECT, changed.clone());
    let second = source.read_all(&catalog, Some(&first.state())).await;
    let keys: Vec<&Value> = second.records("groups").into_iter().map(|group| &group["group_key"]).collect();
    assert!(keys.contains(&&json!(changed.key)) && keys.len() < 20, "{keys:?}");
}

#[tokio::test]
async fn missing_and_truncated_rows_are_detected() {
    let posthog = sandbox().await;
    posthog.generate_lists(PROJECT, 1);
    posthog.insert(PROJECT, events(100, minutes_ago(200)));
    let source = custom(&posthog.url(), "SELECT uuid, event FROM events", &["uuid"], None).with_page_size(15);
    for stream in ["person_distinct_ids", "cohort_people", "groups", "mine"] {
        let catalog = catalog(&[stream], "full_refresh");
        let keys =
            |messages: &Messages| read(messages, stream, if stream == "mine" { &["uuid"] } else { fields(stream) });
        posthog.set_faults(Vec::new()).unwrap();
        let all = keys(&source.read_all(&catalog, None).await);
        assert!(all.len() > 30, "{stream}: several pages of {}", all.len());
        for action in [Action::Truncate { fraction: 0.5 }, Action::DropRows { rows: 3 }, Action::Clamp { rows: 11 }] {
            posthog.set_faults(vec![Fault::query(action.clone()).sql("ORDER BY").nth(&[2])]).unwrap();
            let messages = source.read_all(&catalog, None).await;
            assert_eq!(keys(&messages), all, "{stream}: {action:?}");
        }
        posthog.set_faults(vec![Fault::query(Action::DropRows { rows: 3 }).sql("ORDER BY .* LIMIT 15")]).unwrap();
        let outcome = source.read(&catalog, None).await;
        assert_eq!(outcome.code, Some(1), "{stream}");
        let error = &outcome.messages.errors()[0];
        assert!(error.contains("do not agree with PostHog's count"), "{stream}: {error}");
    }
}

fn custom(url: &str, query: &str, primary_key: &[&str], cursor: Option<&str>) -> Source {
    let query = json!({"name": "mine", "query": query, "primary_key": primary_key, "cursor_field": cursor});
    Source::new(url).with("custom_queries", json!([query]))
}

#[tokio::test]
async fn custom_query_becomes_a_typed_stream() {
    let posthog = sandbox().await;
    posthog.generate(PROJECT, 600, 3, two_hours_ago());
    let text = "SELECT toDate(timestamp) AS day, event, count() AS total, max(timestamp) AS latest FROM events GROUP BY day, event -- per day";
    let source = custom(&posthog.url(), text, &["day", "event"], None).with_page_size(20);
    let (status, message) = source.check().await;
    assert_eq!(status, "SUCCEEDED", "{message}");
    let discovered = run(source.command("discover")).await;
    let streams = discovered.messages.of_type("CATALOG")[0]["catalog"]["streams"].clone();
    let stream = streams.as_array().unwrap().iter().find(|stream| stream["name"] == "mine").unwrap().clone();
    let properties = &stream["json_schema"]["properties"];
    assert_eq!((&properties["total"]["type"][1], &properties["day"]["format"]), (&json!("integer"), &json!("date")));
    assert_eq!(properties["latest"]["airbyte_type"], "timestamp_with_timezone");
    assert_eq!(stream["source_defined_primary_key"], json!([["project_id"], ["day"], ["event"]]));
    let catalog = catalog(&["mine"], "full_refresh");
    let whole = source.read_all(&catalog, None).await;
    let totals: u64 = whole.records("mine").iter().map(|record| record["total"].as_u64().unwrap()).sum();
    assert_eq!(totals, posthog.events(PROJECT).len() as u64);
    let wanted = read(&whole, "mine", &["day", "event", "total", "latest"]);
    assert!(wanted.len() > 60);
    for line in whole.state_lines() {
        let part = whole.up_to(line);
        let rest = source.read_all(&catalog, Some(&part.state())).await;
        let seen = read(&part, "mine", &["day", "event", "total", "latest"]);
        let union: BTreeSet<String> =
            seen.union(&read(&rest, "mine", &["day", "event", "total", "latest"])).cloned().collect();
        assert_eq!(union, wanted, "state on line {line}");
    }
}

#[tokio::test]
async fn custom_query_with_a_cursor_is_read_incrementally() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, events(100, minutes_ago(200)));
    let text = "SELECT uuid, timestamp AS at, event FROM events";
    let source = custom(&posthog.url(), text, &["uuid"], Some("at")).with_page_size(30);
    let catalog = catalog(&["mine"], "incremental");
    let first = source.read_all(&catalog, None).await;
    assert_eq!(read(&first, "mine", &["uuid"]).len(), 100);
    posthog.insert(PROJECT, vec![event(5_000, minutes_ago(1)), event(5_001, minutes_ago(1))]);
    let second = source.read_all(&catalog, Some(&first.state())).await;
    let found = read(&second, "mine", &["uuid"]);
    assert_eq!(found.len(), 102, "the overlap of an hour, and what is new");
    let third = source.read_all(&catalog, Some(&second.state())).await;
    assert_eq!(read(&third, "mine", &["uuid"]).len(), 2);
    for line in first.state_lines() {
        let part = first.up_to(line);
        let rest = source.read_all(&catalog, Some(&part.state())).await;
        let union: BTreeSet<String> =
            read(&part, "mine", &["uuid"]).union(&read(&rest, "mine", &["uuid"])).cloned().collect();
        assert_eq!(union.len(), 102, "state on line {line}");
    }
}

#[tokio::test]
async fn late_row_of_the_previous_day_is_read() {
    let posthog = sandbox().await;
    let midnight = Timestamp::from_day(Timestamp::from_micros(minutes_ago(0)).day()).micros();
    posthog.insert(PROJECT, events(10, midnight + 60_000_000));
    let source = custom(&posthog.url(), "SELECT uuid, toDate(timestamp) AS day FROM events", &["uuid"], Some("day"));
    let catalog = catalog(&["mine"], "incremental");
    let first = source.read_all(&catalog, None).await;
    posthog.insert(PROJECT, vec![event(100, midnight - 60_000_000)]);
    let second = source.read_all(&catalog, Some(&first.state())).await;
    assert!(read(&second, "mine", &["uuid"]).contains(&json!(event(100, 0).uuid.to_string()).to_string()));
}

#[tokio::test]
async fn changed_query_ignores_the_saved_cursor() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, events(40, minutes_ago(5_000)));
    let text = |condition: &str| format!("SELECT uuid, timestamp AS at FROM events WHERE {condition}");
    let read_with = async |condition: &str, mode: &str, state: Option<&Value>| {
        let source = custom(&posthog.url(), &text(condition), &["uuid"], Some("at")).with_page_size(7);
        source.read_all(&catalog(&["mine"], mode), state).await
    };
    for mode in ["incremental", "full_refresh"] {
        let few = read_with("toInt(properties.number) >= 20", mode, None).await;
        assert_eq!(read(&few, "mine", &["uuid"]).len(), 20);
        for line in few.state_lines() {
            let part = few.up_to(line);
            if part.stream_state("mine")["complete"] == true {
                continue;
            }
            let all = read_with("1 = 1", mode, Some(&part.state())).await;
            assert_eq!(read(&all, "mine", &["uuid"]).len(), 40, "{mode}: {}", part.state());
            assert!(all.logs("INFO").iter().any(|log| log.contains("another query or sync mode")));
        }
    }
    // An interrupted incremental sync is ordered by the cursor, a full refresh by the key.
    let whole = read_with("1 = 1", "incremental", None).await;
    let part = whole.up_to(whole.state_lines()[2]);
    let full = read_with("1 = 1", "full_refresh", Some(&part.state())).await;
    assert_eq!(read(&full, "mine", &["uuid"]).len(), 40);
}

/// One wrong clock must not hide what comes in until then.
#[tokio::test]
async fn future_cursor_value_does_not_advance_watermark() {
    const DAY: i64 = 24 * 60;
    let ago = |minutes| Timestamp::from_micros(minutes_ago(minutes)).to_string();
    for cursor in ["timestamp", "toDate(timestamp)", "toStartOfDay(timestamp)"] {
        let posthog = sandbox().await;
        posthog.insert(PROJECT, events(19, minutes_ago(10 * DAY)));
        posthog.insert(PROJECT, vec![event(100, minutes_ago(-100 * DAY))]);
        let text = format!("SELECT uuid, {cursor} AS at FROM events");
        let source = custom(&posthog.url(), &text, &["uuid"], Some("at")).with_page_size(5);
        let catalog = catalog(&["mine"], "incremental");
        let first = source.read_all(&catalog, None).await;
        assert_eq!(read(&first, "mine", &["uuid"]).len(), 20);
        posthog.insert(PROJECT, vec![event(101, minutes_ago(0)), event(102, minutes_ago(2 * DAY))]);
        let has = |messages: &Messages, number| {
            read(messages, "mine", &["uuid"]).contains(&json!(event(number, 0).uuid.to_string()).to_string())
        };
        let second = source.read_all(&catalog, Some(&first.state())).await;
        assert!(has(&second, 101), "{cursor}");
        // A sync that was interrupted behind that row, days ago, cannot have seen what came since.
        let line = first.state_lines().into_iter().rev().nth(1).unwrap();
        let mut state = first.up_to(line).state();
        let note = &mut state[0]["stream"]["stream_state"]["projects"][PROJECT.to_string()];
        assert!(note["after"][0].as_str().unwrap() > ago(0).as_str(), "{note}");
        note["begun"] = json!(ago(3 * DAY));
        let rest = source.read_all(&catalog, Some(&state)).await;
        let next = source.read_all(&catalog, Some(&rest.state())).await;
        assert!(has(&next, 101) && has(&next, 102), "{cursor}");
    }
}

#[tokio::test]
async fn rows_without_a_cursor_are_logged_and_read_only_by_full_refreshes() {
    let posthog = sandbox().await;
    let without = |number| Event { properties: "{}".to_owned(), ..event(number, minutes_ago(300)) };
    posthog.insert(PROJECT, (100..110).map(without).chain(events(50, minutes_ago(200))).collect());
    let text = "SELECT uuid, toInt(properties.number) AS number FROM events";
    let source = custom(&posthog.url(), text, &["uuid"], Some("number")).with_page_size(20);
    let first = source.read_all(&catalog(&["mine"], "incremental"), None).await;
    assert_eq!(read(&first, "mine", &["uuid"]).len(), 50);
    let logs = first.logs("WARN");
    assert!(
        logs.iter().any(|log| log.contains("10 rows of mine have no value in the cursor field `number`")),
        "{logs:?}"
    );
    let second = source.read_all(&catalog(&["mine"], "incremental"), Some(&first.state())).await;
    assert_eq!(read(&second, "mine", &["uuid"]).len(), 1, "the last number again");
    let whole = source.read_all(&catalog(&["mine"], "full_refresh"), None).await;
    assert_eq!(read(&whole, "mine", &["uuid"]).len(), 60);
}

/// A state of a clock that was ahead, or a restored backup of PostHog.
#[tokio::test]
async fn state_ahead_of_the_clock_hides_no_rows() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, events(30, minutes_ago(200)));
    for cursor in ["timestamp", "toDate(timestamp)"] {
        let text = format!("SELECT uuid, {cursor} AS at FROM events");
        let source = custom(&posthog.url(), &text, &["uuid"], Some("at")).with_page_size(7);
        let catalog = catalog(&["mine"], "incremental");
        let first = source.read_all(&catalog, None).await;
        for line in first.state_lines() {
            let ahead = if cursor == "timestamp" { "2200-01-01T00:00:00.000000Z" } else { "2200-01-01" };
            for (field, ahead) in [("watermark", ahead), ("begun", "2200-01-01T00:00:00Z")] {
                let mut state = first.up_to(line).state();
                state[0]["stream"]["stream_state"]["projects"][PROJECT.to_string()][field] = json!(ahead);
                let second = source.read_all(&catalog, Some(&state)).await;
                assert_eq!(read(&second, "mine", &["uuid"]).len(), 30, "{state}");
                assert!(second.logs("WARN").iter().any(|log| log.contains("ahead of PostHog's clock")), "{state}");
            }
        }
    }
}

#[tokio::test]
async fn response_without_rows_is_never_taken_for_no_rows() {
    let posthog = sandbox().await;
    posthog.generate_lists(PROJECT, 1);
    posthog.insert(PROJECT, events(100, minutes_ago(200)));
    let no_rows = [
        (200, json!({"detail": "down for maintenance", "code": "maintenance"})),
        (202, json!({"query_status": {"id": "q", "complete": false, "results": null, "query_async": true}})),
        (200, json!({"columns": [], "results": []})),
    ];
    for (stream, what) in [("person_distinct_ids", "ORDER BY"), ("cohort_people", "ORDER BY"), ("mine", "ORDER BY")]
        .into_iter()
        .flat_map(|(stream, page)| [(stream, page), (stream, "uniqExact")])
    {
        for (code, body) in &no_rows {
            let source = custom(&posthog.url(), "SELECT uuid, event FROM events", &["uuid"], None);
            let source = source.with_page_size(30).with("attempts", json!(2));
            let action = Action::Status { code: *code, body: body.to_string(), headers: Vec::new() };
            posthog.set_faults(vec![Fault::query(action).sql(what)]).unwrap();
            let outcome = source.read(&catalog(&[stream], "full_refresh"), None).await;
            let is_complete = outcome.messages.statuses(stream).last().map(String::as_str) == Some("COMPLETE");
            assert!(!is_complete && outcome.code == Some(1), "{stream}: {what} answered {body}");
        }
    }
}

#[tokio::test]
async fn row_in_place_of_another_is_noticed() {
    let posthog = sandbox().await;
    posthog.generate_lists(PROJECT, 1);
    posthog.insert(PROJECT, events(150, minutes_ago(200)));
    let text = "SELECT uuid, timestamp AS at FROM events";
    let source = custom(&posthog.url(), text, &["uuid"], Some("at")).with_page_size(40);
    let pages = || Fault::query(Action::SwapInCopy).sql("ORDER BY .* LIMIT 40$");
    for (stream, mode, field) in [
        ("person_distinct_ids", "full_refresh", "distinct_id"),
        ("cohort_people", "full_refresh", "person_id"),
        ("mine", "full_refresh", "uuid"),
        ("mine", "incremental", "uuid"),
    ] {
        posthog.set_faults(Vec::new()).unwrap();
        let catalog = catalog(&[stream], mode);
        let whole = read(&source.read_all(&catalog, None).await, stream, &[field]);
        posthog.set_faults(vec![pages().times(3)]).unwrap();
        let messages = source.read_all(&catalog, None).await;
        assert!(posthog.requests().iter().any(|request| request.fault.is_some()), "nothing was swapped");
        assert_eq!(read(&messages, stream, &[field]), whole, "{stream}");
    }
}

/// Static cohorts keep duplicates, and members after they have been deleted.
#[tokio::test]
async fn cohorts_are_read_in_windows_without_deleted_ones() {
    let queries_only = key("phx_query", &["query:read", "project:read"], None);
    let posthog = Sandbox::builder().key(key("phx_full", &["*"], None)).key(queries_only).start().await.unwrap();
    posthog.generate_lists(PROJECT, 1);
    let people: Vec<_> = posthog.persons(PROJECT).iter().map(|person| person.id).collect();
    let twice = [&people[..30], &people[..30]].concat();
    // Duplicates, a big one, one that the list shows as deleted, and one that it does not know.
    for (cohort, is_static, members) in [
        (7, true, twice),
        (8, false, people.clone()),
        (9, true, people[..5].to_vec()),
        (10, true, people[..5].to_vec()),
    ] {
        posthog.set_cohort_people(PROJECT, cohort, is_static, members);
    }
    let mut cohorts = posthog.list(PROJECT, "cohorts");
    for (id, deleted) in [(7, false), (8, false), (9, true)] {
        let mut cohort = cohorts[0].clone();
        (cohort["id"], cohort["deleted"]) = (json!(id), json!(deleted));
        cohorts.push(cohort);
    }
    posthog.set_list(PROJECT, "cohorts", cohorts);
    let source = Source::new(&posthog.url()).with_page_size(40);
    let catalog = catalog(&["cohort_people"], "full_refresh");
    let messages = source.read_all(&catalog, None).await;
    let count =
        |cohort: u64| messages.records("cohort_people").iter().filter(|record| record["cohort_id"] == cohort).count();
    assert_eq!([7, 8, 9, 10].map(count), [30, people.len(), 0, 0]);
    let pages: Vec<String> = posthog.requests().into_iter().filter_map(|request| request.sql).collect();
    let pages = pages.iter().filter(|sql| sql.contains("LIMIT 40") && sql.contains("cohort_people"));
    let unbounded: Vec<_> = pages.filter(|sql| !sql.contains("WHERE cohort_id ")).collect();
    assert!(unbounded.is_empty(), "{unbounded:?}");
    // A key that may not read cohorts reads the members of all of them.
    let messages = source.with("api_key", json!("phx_query")).read_all(&catalog, None).await;
    assert!(messages.logs("WARN").iter().any(|log| log.contains("may contain rows of deleted")));
    assert_eq!(messages.records("cohort_people").iter().filter(|record| record["cohort_id"] == 9).count(), 5);
}

#[tokio::test]
async fn wrong_custom_query_fails_only_its_own_stream() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, events(10, minutes_ago(200)));
    let query = |name: &str, text: &str| json!({"name": name, "query": text, "primary_key": ["uuid"]});
    for (wrong, expected) in [
        ("SELECT uuid, nonsense FROM events", "Unable to resolve field: nonsense"),
        ("SELECT uuid FROM events LIMIT 5", "contains LIMIT"),
        ("SELECT event FROM events", "no column `uuid`"),
    ] {
        let queries = json!([query("wrong", wrong), query("good", "SELECT uuid FROM events;")]);
        let source = Source::new(&posthog.url()).with("custom_queries", queries);
        let outcome = source.read(&catalog(&["wrong", "good", "events"], "full_refresh"), None).await;
        assert_eq!(outcome.code, Some(1));
        let errors = outcome.messages.errors();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].starts_with("config_error: project 1001: the custom query `wrong`"), "{errors:?}");
        assert!(errors[0].contains(expected), "{errors:?}");
        for (stream, records, status) in
            [("wrong", 0, "INCOMPLETE"), ("good", 10, "COMPLETE"), ("events", 10, "COMPLETE")]
        {
            assert_eq!(outcome.messages.records(stream).len(), records, "{stream}");
            assert_eq!(outcome.messages.statuses(stream).last().map(String::as_str), Some(status), "{stream}");
        }
        // A wrong query that is not in the catalog does no harm.
        source.read_all(&catalog(&["good"], "full_refresh"), None).await;
        let discovered = run(source.command("discover")).await.messages;
        let streams = discovered.of_type("CATALOG")[0]["catalog"]["streams"].to_string();
        assert!(streams.contains("\"good\"") && !streams.contains("\"wrong\""));
        assert!(
            discovered.logs("ERROR").iter().any(|log| log.contains("`wrong` is left out") && log.contains(expected))
        );
        let (status, message) = source.check().await;
        assert!(status == "FAILED" && message.contains(expected), "{message}");
    }
}

#[tokio::test]
async fn invalid_custom_queries_are_explained() {
    let posthog = sandbox().await;
    posthog.insert(PROJECT, events(10, minutes_ago(200)));
    for (text, key, cursor, expected) in [
        ("SELECT event FROM events LIMIT 10", "event", None, "contains LIMIT"),
        ("SELECT event FROM events OFFSET 10", "event", None, "contains OFFSET"),
        ("SELECT nonsense FROM events", "nonsense", None, "Unable to resolve field: nonsense"),
        ("SELECT event FROM events", "uuid", None, "no column `uuid`, which `primary_key` names; it has event"),
        ("SELECT event, uuid FROM events", "uuid", Some("event"), "cannot use `event` as `cursor_field`"),
        ("SELECT event, event FROM events", "event", None, "two columns `event`"),
    ] {
        let (status, message) = custom(&posthog.url(), text, &[key], cursor).check().await;
        assert_eq!(status, "FAILED", "{text}");
        assert!(message.contains(expected), "{text}: {message}");
    }
    let source = custom(&posthog.url(), "SELECT event, uuid FROM events", &["event"], None);
    let outcome = source.read(&catalog(&["mine"], "full_refresh"), None).await;
    let errors = outcome.messages.errors().join("\n");
    assert!(
        errors.contains("config_error") && errors.contains("is not unique: 10 rows have 1 different keys"),
        "{errors}"
    );
    assert!(outcome.messages.records("mine").is_empty());
}

#[tokio::test]
async fn full_refresh_does_not_continue_an_incremental_sync() {
    let posthog = two_projects().await;
    for project in PROJECTS {
        posthog.generate_lists(project, project);
    }
    let source = Source::new(&posthog.url()).with_page_size(40);
    for stream in ["person_distinct_ids", "cohort_people"] {
        let mut state = source.read_all(&catalog(&[stream], "full_refresh"), None).await.stream_state(stream);
        assert_eq!(state["complete"], true);
        state = if stream == "cohort_people" {
            // What an incremental sync that was interrupted in the last part would leave behind.
            json!({"version": 1, "projects": {"1001": {"part": 9, "rows": 100}, "1002": {"part": 9, "done": true}}})
        } else {
            source.read_all(&catalog(&[stream], "incremental"), None).await.stream_state(stream)
        };
        let file = state_file(stream, &state);
        let messages = source.read_all(&catalog(&[stream], "full_refresh"), Some(&file)).await;
        assert_eq!(read(&messages, stream, fields(stream)), stored(&posthog, stream), "{stream}");
    }
}
