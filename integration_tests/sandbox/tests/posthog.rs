//! The stand-in for PostHog, seen through its sockets.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::collections::HashSet;
use std::io::Write as _;
use std::time::Duration;

use base64::Engine as _;
use chrono::{DateTime, Utc};
use flate2::Compression;
use flate2::write::GzEncoder;
use posthog_sandbox::posthog::{Action, Budget, Event, Fault, Key, Limits, Overload, Project, Sandbox, Server};
use serde_json::{Value, json};
use support::{KEY, get, post_query, query, send};

const PAGE: &str =
    "SELECT uuid, timestamp, properties FROM events ORDER BY timestamp, toString(uuid), created_at LIMIT 50000";

fn instant() -> DateTime<Utc> {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

async fn sandbox() -> Sandbox {
    Sandbox::builder().start().await.unwrap()
}

async fn with_events(count: usize) -> Sandbox {
    let posthog = sandbox().await;
    posthog.generate(1001, count, 1, instant());
    posthog
}

#[tokio::test]
async fn a_page_holds_what_is_stored() {
    let posthog = with_events(500).await;
    let reply = query(&posthog, PAGE).await;
    let answer = reply.json();
    let uuids: Vec<&str> = answer["results"].as_array().unwrap().iter().map(|row| row[0].as_str().unwrap()).collect();
    assert_eq!(uuids.len(), 500);
    let truth = posthog.events(1001);
    let truth: HashSet<String> = truth.iter().map(|event| event.uuid.to_string()).collect();
    assert_eq!(uuids.iter().map(|uuid| (*uuid).to_owned()).collect::<HashSet<_>>(), truth);
    assert!(truth.len() < 500, "there are un-merged copies");
    assert_eq!((answer["hasMore"].clone(), answer["limit"].clone()), (Value::Null, Value::Null));
    assert_eq!(answer["types"][1], json!(["timestamp", "DateTime64(6, 'UTC')"]));
    assert!(reply.header("date").is_some());
    let text = String::from_utf8(reply.body.clone()).unwrap();
    let keys = ["\"cache_key\"", "\"columns\"", "\"error\"", "\"hasMore\"", "\"results\"", "\"timings\"", "\"types\""];
    let at: Vec<usize> = keys.iter().map(|key| text.find(key).unwrap()).collect();
    assert!(at.is_sorted());
    let log = posthog.requests();
    assert_eq!((log[0].status, log[0].rows, log[0].sql.as_deref()), (Some(200), Some(500), Some(PAGE)));
    assert_eq!((posthog.stats().requests, posthog.stats().peak_queries), (1, 1));
    posthog.clear_requests();
    assert!(posthog.requests().is_empty());
}

#[tokio::test]
async fn without_limit_there_are_a_hundred_rows_and_a_hint() {
    let posthog = with_events(101).await;
    let answer = query(&posthog, "SELECT uuid FROM events").await.json();
    assert_eq!((answer["results"].as_array().unwrap().len(), &answer["hasMore"]), (100, &json!(true)));
    let posthog = with_events(100).await;
    let answer = query(&posthog, "SELECT uuid FROM events").await.json();
    assert_eq!((answer["results"].as_array().unwrap().len(), &answer["hasMore"]), (100, &json!(false)));
}

#[tokio::test]
async fn pages_are_clamped_silently_and_compressed() {
    let posthog = Sandbox::builder().page_clamp(30).start().await.unwrap();
    posthog.generate(1001, 100, 1, instant());
    let body = json!({"query": {"kind": "HogQLQuery", "query": PAGE}}).to_string();
    let headers = [KEY, ("accept-encoding", "gzip, zstd")];
    let reply = send(&posthog, "POST", "/api/environments/@current/query/HogQLQuery/", &headers, body.as_bytes()).await;
    assert_eq!((reply.status, reply.header("content-encoding")), (200, Some("gzip")));
    assert_eq!(reply.json()["results"].as_array().unwrap().len(), 30);
}

#[tokio::test]
async fn bodies_are_validated() {
    let posthog = sandbox().await;
    let query = |more: Value| {
        let mut query = json!({"kind": "HogQLQuery", "query": "SELECT uuid FROM events"});
        query.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        query
    };
    for (body, wanted) in [
        (json!({}), "Field required"),
        (json!({"query": query(json!({})), "limit": 5}), "limit\n  Extra inputs are not permitted"),
        (json!({"query": query(json!({"sql": 1}))}), "query.HogQLQuery.sql\n  Extra inputs are not permitted"),
        (
            json!({"query": query(json!({"modifiers": {"timezone": "UTC"}}))}),
            "query.HogQLQuery.modifiers.timezone\n  Extra",
        ),
        (json!({"query": {"kind": "EventsQuery"}}), "EventsQuery"),
        (json!({"query": {"query": "x"}}), "discriminator"),
        (json!({"query": query(json!({})), "refresh": "now"}), "refresh"),
        (json!({"query": query(json!({})), "refresh": "async"}), "asynchronous"),
        (json!({"query": query(json!({})), "name": "x".repeat(129)}), "128"),
    ] {
        let reply = post_query(&posthog, &body).await;
        let answer = reply.json();
        assert_eq!((reply.status, &answer["type"]), (400, &json!("validation_error")));
        assert!(answer["detail"].as_str().unwrap().contains(wanted), "{answer}");
    }
}

#[tokio::test]
async fn only_force_blocking_sees_what_is_new() {
    let posthog = with_events(10).await;
    let count = |refresh: Value| {
        let body = json!({"query": {"kind": "HogQLQuery", "query": "SELECT count() FROM events"}, "refresh": refresh});
        let posthog = &posthog;
        async move {
            let answer = post_query(posthog, &body).await.json();
            (answer["results"][0][0].as_u64().unwrap(), answer["is_cached"].as_bool().unwrap())
        }
    };
    assert_eq!(count(json!("blocking")).await, (10, false));
    posthog.generate(1001, 5, 2, instant());
    assert_eq!(count(json!("blocking")).await, (10, true));
    assert_eq!(count(json!("force_blocking")).await, (15, false));
}

#[tokio::test]
async fn keys_open_what_their_scopes_say() {
    let key = |value: &str, scopes: &[&str], projects: Option<Vec<u64>>| Key {
        value: value.to_owned(),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        projects,
    };
    let other = Project { id: 2002, name: "Other".to_owned(), ..Project::default() };
    let posthog = Sandbox::builder()
        .project(Project::default())
        .project(other)
        .key(key("phx_full", &["*"], None))
        .key(key("phx_team", &["project:read", "query:read", "annotation:write"], Some(vec![2002])))
        .key(key("phx_query", &["query:read"], None))
        .start()
        .await
        .unwrap();
    posthog.set_list(2002, "annotations", vec![json!({"id": 1}), json!({"id": 2})]);
    let detail = |path: &'static str, key: &'static str| {
        let posthog = &posthog;
        async move {
            let reply = get(posthog, path, key).await;
            (reply.status, reply.json()["detail"].as_str().unwrap_or_default().to_owned())
        }
    };
    let invalid = "Personal API key found in request Authorization header is invalid.";
    assert_eq!(detail("/api/projects/", "phc_sandbox").await, (401, invalid.to_owned()));
    let missing = send(&posthog, "GET", "/api/projects/", &[], b"").await;
    assert_eq!((missing.status, missing.json()["code"].clone()), (401, json!("not_authenticated")));
    assert!(missing.header("www-authenticate").unwrap().contains("/.well-known/oauth-protected-resource"));
    let scoped = "API keys with scoped projects are only supported on project-based endpoints.";
    assert_eq!(detail("/api/projects/", "phx_team").await, (403, scoped.to_owned()));
    let scope = "API key missing required scope 'project:read'";
    assert_eq!(detail("/api/projects/", "phx_query").await, (403, scope.to_owned()));
    let foreign = "API key does not have access to the requested project: ID 1001.";
    assert_eq!(detail("/api/projects/1001/", "phx_team").await, (403, foreign.to_owned()));
    assert_eq!(detail("/api/projects/7/", "phx_full").await, (404, "Not found.".to_owned()));
    assert_eq!(detail("/api/projects/1001/unknown/", "phx_full").await.0, 404);
    assert_eq!(get(&posthog, "/api/projects/2002/annotations/", "phx_query").await.status, 403);

    let key = get(&posthog, "/api/personal_api_keys/@current/", "phx_team").await.json();
    assert_eq!(key["scoped_teams"], json!([2002]));
    let page = get(&posthog, "/api/projects/?limit=1", "phx_full").await.json();
    assert_eq!((page["count"].clone(), page["results"][0]["id"].clone()), (json!(2), json!(1001)));
    let next = page["next"].as_str().unwrap().strip_prefix(&posthog.url()).unwrap().to_owned();
    let page = get(&posthog, &next, "phx_full").await.json();
    assert_eq!((page["next"].clone(), page["results"][0]["name"].clone()), (Value::Null, json!("Other")));
    let annotations = get(&posthog, "/api/projects/2002/annotations/?limit=1&offset=1", "phx_team").await.json();
    assert_eq!(annotations["results"], json!([{"id": 2}]));
}

#[tokio::test]
async fn limits_are_enforced() {
    let posthog = with_events(50).await;
    posthog.set_limits(Limits { query: vec![(2, Duration::from_mins(1))], ..Limits::default() });
    assert_eq!(query(&posthog, PAGE).await.status, 200);
    assert_eq!(query(&posthog, PAGE).await.status, 200);
    let refused = query(&posthog, PAGE).await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("60")));
    assert_eq!(get(&posthog, "/api/projects/", "phx_full").await.status, 200);

    let budget = Budget { bytes_per_hour: 1e6, capacity: 1e6, start: 1000.0 };
    posthog.set_limits(Limits { budget: Some(budget), ..Limits::default() });
    let paid = query(&posthog, PAGE).await;
    assert!(paid.header("x-posthog-query-bytes-read").unwrap().parse::<u64>().unwrap() > 50_000);
    assert_eq!(paid.header("x-posthog-query-budget-remaining-bytes"), Some("0"));
    let refused = query(&posthog, PAGE).await;
    assert_eq!((refused.status, refused.json()["code"].clone()), (429, json!("api_queries_budget_exceeded")));
    assert!(refused.header("retry-after").is_some());

    for (overload, status) in [(Overload::Timeout, 504), (Overload::TooSlow, 512), (Overload::Memory, 513)] {
        posthog.set_limits(Limits { rows_returned: Some(49), overload, ..Limits::default() });
        assert_eq!(query(&posthog, PAGE).await.status, status);
        assert_eq!(query(&posthog, "SELECT uuid FROM events LIMIT 49").await.status, 200);
    }
}

#[tokio::test]
async fn the_fourth_query_at_once_is_refused() {
    let posthog = with_events(1).await;
    let limits = Limits { concurrency: Some(3), latency: Duration::from_millis(500), ..Limits::default() };
    posthog.set_limits(limits);
    let sql = "SELECT count() FROM events";
    let replies = futures_util::future::join_all((0..4).map(|_| query(&posthog, sql))).await;
    let refused: Vec<_> = replies.iter().filter(|reply| reply.status == 429).collect();
    assert_eq!((refused.len(), refused[0].header("retry-after")), (1, None));
    assert_eq!(posthog.stats().peak_queries, 4, "the one that was refused counts as well");
}

#[tokio::test]
async fn answers_break_as_told() {
    let posthog = with_events(300).await;
    let whole = query(&posthog, PAGE).await.body.len();
    let broken = |action: Action| {
        posthog.set_faults(vec![Fault::query(action).times(1)]).unwrap();
        query(&posthog, PAGE)
    };
    let reply = broken(Action::status(503)).await;
    assert_eq!((reply.status, reply.json()["type"].clone()), (503, json!("server_error")));
    let reply = broken(Action::throttle(7)).await;
    assert_eq!((reply.status, reply.header("retry-after")), (429, Some("7")));
    let reply = broken(Action::Html { code: 524 }).await;
    assert!(reply.status == 524 && reply.header("content-type").unwrap().starts_with("text/html"));

    let reply = broken(Action::Truncate { fraction: 0.9 }).await;
    assert!(reply.clean && reply.status == 200 && reply.promised().abs_diff(whole) < 100);
    assert!(reply.body.len().abs_diff(whole * 9 / 10) < 100, "{} of {whole}", reply.body.len());
    let reply = broken(Action::ResetMidBody { fraction: 0.5 }).await;
    assert!(!reply.clean && reply.body.len() < reply.promised());
    let reply = broken(Action::Reset).await;
    assert!(!reply.clean && reply.head.is_empty());
    let reply = broken(Action::Stall { wait: Duration::from_millis(50) }).await;
    assert!(reply.clean && reply.body.len() < reply.promised());
    let reply = broken(Action::Malformed).await;
    assert!(reply.clean && reply.body.len() == reply.promised());
    assert!(serde_json::from_slice::<Value>(&reply.body).is_err());
    let reply = broken(Action::Drip { pieces: 5, over: Duration::from_millis(50) }).await;
    assert_eq!(reply.rows().len(), 300);
    let reply = broken(Action::BadEncoding).await;
    assert!(reply.header("content-encoding") == Some("gzip") && reply.body.starts_with(b"{"));
    assert_eq!(query(&posthog, PAGE).await.rows().len(), 300, "and then all is well again");
    let names: Vec<_> = posthog.requests().iter().filter_map(|request| request.fault).collect();
    assert_eq!(names[3..6], ["truncate", "reset_mid_body", "reset"]);
    assert_eq!(posthog.stats().requests, 12);
}

#[tokio::test]
async fn answers_lie_as_told() {
    let posthog = with_events(300).await;
    let sql = "SELECT uuid FROM events ORDER BY timestamp, toString(uuid), created_at LIMIT 100";
    let truth = query(&posthog, sql).await.rows();
    let lie = |action: Action, sql: &'static str| {
        posthog.set_faults(vec![Fault::query(action)]).unwrap();
        let posthog = &posthog;
        async move { query(posthog, sql).await.rows() }
    };
    let dropped = lie(Action::DropRows { rows: 3 }, sql).await;
    assert_eq!((dropped.len(), dropped[0] == truth[0]), (100, true), "as full as before");
    assert_eq!(truth.iter().filter(|row| !dropped.contains(row)).count(), 3);
    let doubled = lie(Action::DuplicateRows { rows: 2 }, sql).await;
    assert_eq!(doubled.len(), 100);
    assert!(doubled[0] == doubled[1] && doubled[2] == doubled[3] && doubled[4] == truth[2]);
    assert_eq!(lie(Action::Clamp { rows: 20 }, sql).await, truth[..20]);
    let count = "SELECT count(), min(timestamp) FROM events";
    assert_eq!(lie(Action::WrongCount { by: -1 }, count).await[0][0], 299);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn every_form_of_capture_arrives() {
    let posthog = sandbox().await;
    let event = |name: &str| json!({"event": name, "distinct_id": "u1", "properties": {"token": "phc_sandbox"}});
    let encoded = base64::engine::general_purpose::STANDARD.encode(event("form").to_string());
    let form = format!("data={}", encoded.replace('+', "%2B").replace('=', "%3D"));
    let batch = json!({"api_key": "phc_sandbox", "historical_migration": false, "batch": [
        {"event": "batch", "distinct_id": 7, "uuid": "0190a000-0000-7000-8000-000000000001",
         "timestamp": "2026-01-01T00:00:00.123456Z", "properties": {"$groups": {"company": "acme"}, "$session_id": "s"}}]});
    let single = json!({"event": "single", "api_key": "phc_sandbox", "distinct_id": "u1"});
    let array = json!([event("array"), event("array")]);
    for (path, headers, body) in [
        ("/batch/", vec![], batch.to_string().into_bytes()),
        ("/capture", vec![], single.to_string().into_bytes()),
        ("/i/v0/e/?compression=gzip-js&ip=1", vec![], gzip(array.to_string().as_bytes())),
        ("/e/", vec![("content-encoding", "gzip")], gzip(event("gzip").to_string().as_bytes())),
        ("/track/", vec![("content-type", "application/x-www-form-urlencoded")], form.into_bytes()),
    ] {
        let reply = send(&posthog, "POST", path, &headers, &body).await;
        assert_eq!((reply.status, reply.json()), (200, json!({"status": "Ok"})), "{path}");
        assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
    }
    let events = posthog.events(1001);
    let mut names: Vec<&str> = events.iter().map(|event| event.event.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["array", "array", "batch", "form", "gzip", "single"]);
    let batch = &events[0];
    assert_eq!(batch.uuid.to_string(), "0190a000-0000-7000-8000-000000000001");
    assert_eq!((batch.timestamp, batch.created_at % 1000), (1_767_225_600_123_000, 0), "in milliseconds");
    assert_eq!((batch.distinct_id.as_str(), batch.groups[0].as_str(), batch.session_id.as_str()), ("7", "acme", "s"));
    assert!(events.iter().all(|event| event.person_mode == "full" && !event.uuid.is_nil()));

    let unknown = json!({"event": "x", "api_key": "phc_wrong", "distinct_id": "u"}).to_string();
    assert_eq!(send(&posthog, "POST", "/capture/", &[], unknown.as_bytes()).await.status, 401);
    assert_eq!(send(&posthog, "POST", "/capture/", &[], b"junk").await.status, 400);
    let preflight = [("origin", "http://shop"), ("access-control-request-headers", "content-type,x-custom")];
    let reply = send(&posthog, "OPTIONS", "/i/v0/e/", &preflight, b"").await;
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (200, Some("http://shop")));
    assert_eq!(reply.header("access-control-allow-headers"), Some("content-type,x-custom"));
    assert_eq!(send(&posthog, "POST", "/flags/?v=2", &[], b"{}").await.json()["featureFlags"], json!({}));
    assert_eq!(send(&posthog, "GET", "/array/phc_sandbox/config", &[], b"").await.status, 200);
    let script = send(&posthog, "GET", "/array/phc_sandbox/config.js", &[], b"").await;
    assert!(script.header("content-type").unwrap().contains("javascript"));
}

#[tokio::test]
async fn clocks_are_corrected_and_persons_kept() {
    let posthog = sandbox().await;
    let now = Utc::now();
    let off = |seconds: i64| (now + chrono::Duration::seconds(seconds)).to_rfc3339();
    let body = json!({"api_key": "phc_sandbox", "sent_at": off(-3600), "batch": [
        {"event": "skewed", "distinct_id": "anon", "timestamp": off(-3610), "properties": {"$set": {"plan": "pro"}}},
        {"event": "$identify", "distinct_id": "ana@example.com", "timestamp": off(-3600),
         "properties": {"$anon_distinct_id": "anon", "$set_once": {"plan": "free", "first": 1}}},
        {"event": "quiet", "distinct_id": "ghost", "timestamp": off(-3600),
         "properties": {"$process_person_profile": false}}]});
    assert_eq!(send(&posthog, "POST", "/batch", &[], body.to_string().as_bytes()).await.status, 200);
    let events = posthog.events(1001);
    let skew = (events[0].timestamp - (now.timestamp_micros() - 10_000_000)).abs();
    assert!(events[0].event == "skewed" && skew < 5_000_000, "{skew}");
    let persons = posthog.persons(1001);
    assert_eq!(persons.len(), 1);
    assert_eq!(persons[0].properties, r#"{"first":1,"plan":"pro"}"#);
    assert!(persons[0].is_identified && persons[0].distinct_ids.len() == 2);
    assert_eq!(posthog.person_id(1001, "ana@example.com"), posthog.person_id(1001, "anon"));
    let quiet = events.iter().find(|event| event.event == "quiet").unwrap();
    assert_eq!(quiet.person_mode, "propertyless");
    let rows = query(&posthog, "SELECT id, is_identified FROM persons").await.rows();
    assert_eq!(rows, [json!([persons[0].id.to_string(), 1])]);
}

#[tokio::test]
async fn events_follow_a_merged_person() {
    // An instance that rewrites the events of a merged person at once.
    let posthog = Sandbox::builder().server(Server::forgiving()).start().await.unwrap();
    let set = |plan: &str| json!({"$set": {"plan": plan}});
    let identify = json!({"$anon_distinct_id": "anon"});
    let body = json!({"api_key": "phc_sandbox", "batch": [
        {"event": "known", "distinct_id": "ana", "properties": set("pro")},
        {"event": "unknown", "distinct_id": "anon", "properties": set("free")},
        {"event": "$identify", "distinct_id": "ana", "properties": identify}]});
    assert_eq!(send(&posthog, "POST", "/batch", &[], body.to_string().as_bytes()).await.status, 200);
    let ana = posthog.person_id(1001, "ana");
    assert!(posthog.events(1001).iter().all(|event| event.person_id == ana));
    let persons = posthog.persons(1001);
    assert_eq!((persons.len(), persons[0].properties.as_str()), (1, r#"{"plan":"pro"}"#));
    let rows = query(&posthog, "SELECT event, person.properties FROM events WHERE event = 'unknown'").await.rows();
    assert_eq!(rows, [json!(["unknown", r#"{"plan":"pro"}"#])]);
}

#[tokio::test]
async fn the_data_set_moves_in_time() {
    let posthog = sandbox().await;
    let count = posthog.load_dataset(1001, instant()).unwrap();
    let events = posthog.events(1001);
    assert_eq!((events.len(), events.last().unwrap().timestamp), (count, instant().timestamp_micros()));
    assert!(
        events.iter().all(|event| event.created_at > event.timestamp && event.created_at < event.timestamp + 3_000_000)
    );
    assert!(!posthog.persons(1001).is_empty());
}

#[tokio::test]
async fn generated_events_repeat() {
    let (one, two) = (with_events(2000).await, with_events(2000).await);
    let events = one.events(1001);
    assert_eq!(events, two.events(1001));
    let different: HashSet<_> = events.iter().map(|event| event.uuid).collect();
    assert!(different.len() < 2000 && different.len() > 1900);
    let newest = instant().timestamp_micros();
    assert!(events.iter().any(|event| event.timestamp > newest && event.created_at < newest + 10_000_000));
    assert!(events.iter().any(|event| event.timestamp < newest - 40 * 86_400_000_000));
    assert!(events.iter().any(|event| event.properties.contains("NaN")));
    let average = events.iter().map(|event| event.properties.len()).sum::<usize>() / 2000;
    assert!((1000..1500).contains(&average), "{average}");
}

#[tokio::test]
async fn rows_can_stay_hidden_for_a_while() {
    let posthog = sandbox().await;
    let later = Utc::now().timestamp_micros() + 3_600_000_000;
    posthog.insert(1001, vec![Event { visible_at: Some(later), ..Event::default() }, Event::default()]);
    assert_eq!(query(&posthog, "SELECT count() FROM events").await.rows(), [json!([1])]);
    assert_eq!(posthog.events(1001).len(), 2);
}
