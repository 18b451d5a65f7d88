//! `sessions` through the built program: found by when they have changed, by either method.

use std::collections::{BTreeMap, BTreeSet};

use posthog_sandbox::posthog::{
    Action, Budget, Event, ExportOutcome, ExportServer, Exports, Fault, RecordsCompleted, Sandbox, Schema, Server,
    SessionsVersion,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::messages::Messages;
use crate::support::program::{Source, catalog};
use crate::support::world::{EXPORT_KEY, PROJECT, event, minutes_ago, sandbox_without_queries, two_hours_ago};

const DAY: i64 = 24 * 60;

/// A Cloud whose table of sessions has this version.
async fn cloud(sessions: SessionsVersion) -> Sandbox {
    let schema = Schema { sessions, ..Server::cloud_2026().schema };
    let server = Server { schema, ..Server::cloud_2026() };
    Sandbox::builder().server(server).exports(Exports::default()).budget(Budget::default()).start().await.unwrap()
}

fn session_id(number: u128) -> String {
    Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0000 + number).to_string()
}

/// An event of a session, so many minutes ago, and ingested so many minutes ago.
fn visit(number: u128, session: u128, minutes: i64, ingested: i64) -> Event {
    Event {
        session_id: session_id(session),
        created_at: minutes_ago(ingested),
        ..event(1_000_000 + number, minutes_ago(minutes))
    }
}

/// Sessions of the last days, one an hour, each ingested at once.
fn visits(count: u32) -> Vec<Event> {
    (0..count)
        .map(|number| visit(number.into(), number.into(), 180 + 60 * i64::from(number), 179 + 60 * i64::from(number)))
        .collect()
}

fn stored(posthog: &Sandbox) -> BTreeSet<String> {
    posthog.events(PROJECT).into_iter().map(|event| event.session_id).filter(|id| !id.is_empty()).collect()
}

/// How many pageviews each session has by its last record.
fn pageviews<'a>(syncs: impl IntoIterator<Item = &'a Messages>) -> BTreeMap<String, u64> {
    let records = syncs.into_iter().flat_map(|messages| messages.records("sessions"));
    records
        .map(|record| (record["session_id"].as_str().unwrap().to_owned(), record["pageview_count"].as_u64().unwrap()))
        .collect()
}

/// How many pageviews each session has.
fn true_pageviews(posthog: &Sandbox) -> BTreeMap<String, u64> {
    let mut views = BTreeMap::new();
    for event in posthog.events(PROJECT).into_iter().filter(|event| !event.session_id.is_empty()) {
        *views.entry(event.session_id).or_default() += u64::from(event.event == "$pageview");
    }
    views
}

/// Fails unless the last record of every session has all of its pageviews.
fn assert_up_to_date<'a>(syncs: impl IntoIterator<Item = &'a Messages>, posthog: &Sandbox, case: &str) {
    let (read, truth) = (pageviews(syncs), true_pageviews(posthog));
    let wrong: Vec<_> = truth.iter().filter(|(id, views)| read.get(*id) != Some(views)).collect();
    assert!(wrong.is_empty() && read.len() == truth.len(), "{case}: {wrong:?}");
}

fn by_query(posthog: &Sandbox) -> Source {
    Source::new(&posthog.url()).with("method", json!({"type": "query", "settle_minutes": 0}))
}

fn exporting(posthog: &Sandbox, method: &str) -> Source {
    Source::new(&posthog.url())
        .with("method", json!({"type": method, "settle_minutes": 0}))
        .with("export_above", json!(0))
}

#[tokio::test]
async fn events_that_are_ingested_late_bring_their_sessions_again() {
    for version in [SessionsVersion::V2, SessionsVersion::V3] {
        let posthog = cloud(version).await;
        posthog.insert(PROJECT, visits(400));
        let source = by_query(&posthog);
        let catalog = catalog(&["sessions"], "incremental");
        let first = source.read_all(&catalog, None).await;
        assert_eq!(first.id_set("sessions"), stored(&posthog));
        // Of three and of sixteen days ago, of half a year ago, and one that goes on.
        let late = [(1, 72, 75 * 60), (2, 380, 383 * 60), (3, 9_000, 180 * DAY), (4, 0, 5)];
        posthog
            .insert(PROJECT, late.map(|(number, session, minutes)| visit(9_000 + number, session, minutes, 0)).into());
        let second = source.read_all(&catalog, Some(&first.state())).await;
        let expected: BTreeSet<String> = late.iter().map(|(_, session, _)| session_id(*session)).collect();
        assert_eq!(second.id_set("sessions"), expected, "{version:?}");
        assert_eq!(second.records("sessions").len(), expected.len(), "{version:?}: once each");
        assert_up_to_date([&first, &second], &posthog, "");
        // Nothing is read for days without a change.
        let pages = posthog
            .requests()
            .into_iter()
            .filter(|request| request.sql.as_deref().is_some_and(|sql| sql.contains("ORDER BY `$start_timestamp`")));
        assert!(pages.count() < 20);
    }
}

/// Where all sessions are too many to look at in every sync, those of long ago are looked at once a day.
#[tokio::test]
async fn old_sessions_are_looked_at_once_a_day_where_that_is_expensive() {
    let posthog = cloud(SessionsVersion::V2).await;
    posthog.insert(PROJECT, visits(400));
    let source = by_query(&posthog);
    let catalog = catalog(&["sessions"], "incremental");
    let first = source.read_all(&catalog, None).await;
    posthog.insert(PROJECT, vec![visit(9_001, 20, 23 * 60, 0), visit(9_002, 380, 383 * 60, 0)]);
    let with = |state: &Value, all: Option<i64>| {
        let mut state = state.clone();
        let changes = &mut state[0]["stream"]["stream_state"]["projects"]["1001"]["changes"];
        assert!(changes["all"].is_string() && changes["bytes"].is_u64(), "{changes}");
        changes["bytes"] = json!(2_000_000_000_u64);
        if let Some(minutes) = all {
            changes["all"] = json!(source_posthog::time::Timestamp::from_micros(minutes_ago(minutes)));
        }
        state
    };
    let second = source.read_all(&catalog, Some(&with(&first.state(), None))).await;
    assert_eq!(second.ids("sessions"), [session_id(20)]);
    // An hour later, and a day later.
    let third = source.read_all(&catalog, Some(&with(&second.state(), Some(60)))).await;
    assert_eq!(third.ids("sessions"), [session_id(20)], "the lookback window of an hour");
    let fourth = source.read_all(&catalog, Some(&with(&third.state(), Some(DAY)))).await;
    assert!(fourth.id_set("sessions").contains(&session_id(380)));
}

#[tokio::test]
async fn sessions_that_do_not_show_their_changes_are_read_for_four_days() {
    let posthog = cloud(SessionsVersion::V1).await;
    posthog.insert(PROJECT, visits(400));
    let source = by_query(&posthog);
    let catalog = catalog(&["sessions"], "incremental");
    let first = source.read_all(&catalog, None).await;
    assert_eq!(first.id_set("sessions"), stored(&posthog));
    assert!(first.records("sessions").iter().all(|record| record["updated_at"].is_null()));
    posthog.insert(PROJECT, vec![visit(9_001, 75, 78 * 60, 0)]);
    let second = source.read_all(&catalog, Some(&first.state())).await;
    assert_up_to_date([&first, &second], &posthog, "");
    assert!(second.id_set("sessions").len() < 100);
}

/// Nothing would show what exports leave out.
#[tokio::test]
async fn sessions_that_do_not_show_their_changes_are_not_exported() {
    let posthog = cloud(SessionsVersion::V1).await;
    posthog.insert(PROJECT, visits(100));
    posthog.insert(PROJECT, vec![visit(20_000, 20_000, 12 * DAY, 60)]);
    let messages = exporting(&posthog, "auto").read_all(&catalog(&["sessions"], "full_refresh"), None).await;
    assert_eq!(messages.id_set("sessions"), stored(&posthog));
    assert!(posthog.export_runs().is_empty());
    assert!(messages.logs("INFO").iter().any(|line| line.contains("all are read by query")));
}

#[tokio::test]
async fn what_exports_leave_out_is_read_by_query() {
    for (mode, method) in [("incremental", "export"), ("full_refresh", "auto")] {
        let posthog = cloud(SessionsVersion::V2).await;
        let late =
            |number: u128, days: i64, ingested: i64| visit(20_000 + number, 30_000 + number, days * DAY, ingested);
        posthog.insert(PROJECT, visits(400));
        posthog.insert(PROJECT, (0..20).map(|number| late(number, 12, 60)).collect());
        // Its last event is of tomorrow.
        posthog.insert(PROJECT, vec![visit(50_000, 50_000, -DAY, 60)]);
        let source = exporting(&posthog, method);
        let catalog = catalog(&["sessions"], mode);
        let first = source.read_all(&catalog, None).await;
        assert!(posthog.export_runs().iter().any(|run| run.model == "sessions" && run.files > 0));
        assert_eq!(first.id_set("sessions"), stored(&posthog), "{mode}");
        assert_eq!(first.logs("WARN"), Vec::<&str>::new());
        if mode == "incremental" {
            let before = posthog.export_runs().len();
            posthog.insert(
                PROJECT,
                vec![visit(40_000, 30_001, 11 * DAY, 10), late(100, 20, 10), visit(60_000, 60_000, 12, 10)],
            );
            let second = source.read_all(&catalog, Some(&first.state())).await;
            assert!(posthog.export_runs().len() > before);
            assert_up_to_date([&first, &second], &posthog, "");
        }
    }
}

#[tokio::test]
async fn export_syncs_of_sessions_resume_from_every_state_without_loss() {
    let posthog = cloud(SessionsVersion::V2).await;
    posthog.set_exports(Exports { rows_per_file: Some(100), ..Exports::default() });
    posthog.insert(PROJECT, visits(300));
    posthog.insert(PROJECT, (0..20).map(|number| visit(20_000 + number, 30_000 + number, 12 * DAY, 60)).collect());
    for mode in ["incremental", "full_refresh"] {
        let source = exporting(&posthog, "export");
        let catalog = catalog(&["sessions"], mode);
        let whole = source.read_all(&catalog, None).await;
        assert!(!posthog.export_runs().is_empty());
        let states = whole.state_lines();
        assert!(states.len() > 6);
        for line in &states[..states.len() - 1] {
            let part = whole.up_to(*line);
            let rest = source.read_all(&catalog, Some(&part.state())).await;
            assert_eq!(rest.logs("WARN"), Vec::<String>::new(), "{mode}, state on line {line}: nothing is missing");
            let union: BTreeSet<String> = part.id_set("sessions").union(&rest.id_set("sessions")).cloned().collect();
            assert_eq!(union, stored(&posthog), "{mode}, state on line {line}");
        }
    }
}

/// A session whose start moves back slips past the pages, and a full refresh has no next sync.
#[tokio::test]
async fn full_refresh_reads_sessions_that_change_while_they_are_read() {
    for method in ["query", "export"] {
        let posthog = cloud(SessionsVersion::V2).await;
        posthog.set_exports(Exports { rows_per_file: Some(10), ..Exports::default() });
        posthog.insert(PROJECT, visits(60));
        let source = exporting(&posthog, method);
        let source = if method == "query" { by_query(&posthog).with_page_size(10) } else { source };
        let catalog = catalog(&["sessions"], "full_refresh");
        let whole = source.read_all(&catalog, None).await;
        assert_eq!(posthog.export_runs().is_empty(), method == "query");
        let states = whole.state_lines();
        for (number, line) in (0..).zip(&states[..states.len() - 1]) {
            let part = whole.up_to(*line);
            posthog.insert(PROJECT, vec![visit(9_000 + number, number % 40, 100 * 60, 0)]);
            let rest = source.read_all(&catalog, Some(&part.state())).await;
            let truth = &true_pageviews(&posthog)[&session_id(number % 40)];
            let read = pageviews([&part, &rest]);
            assert_eq!(read.get(&session_id(number % 40)), Some(truth), "{method}, state on line {line}");
            assert_eq!(read.len(), stored(&posthog).len());
        }
    }
}

/// What the runs before have exported is not all, so everything is read again.
#[tokio::test]
async fn full_refresh_whose_exports_end_in_the_middle_is_read_whole() {
    let outcomes = vec![ExportOutcome { nth: (3..99).collect(), status: "FailedBilling".into(), error: "no".into() }];
    let posthog = cloud(SessionsVersion::V2).await;
    posthog.set_exports(Exports { outcomes, ..Exports::default() });
    posthog.insert(PROJECT, visits(1_000));
    let messages = exporting(&posthog, "auto").read_all(&catalog(&["sessions"], "full_refresh"), None).await;
    assert!(posthog.export_runs().iter().any(|run| run.model == "sessions" && run.files > 0));
    assert_eq!(messages.id_set("sessions"), stored(&posthog));
}

/// A state from before changes were looked for has lost what exports had left out.
#[tokio::test]
async fn states_without_changes_are_repaired() {
    let posthog = cloud(SessionsVersion::V2).await;
    posthog.insert(PROJECT, visits(300));
    posthog.insert(PROJECT, (0..20).map(|number| visit(20_000 + number, 30_000 + number, 12 * DAY, 120)).collect());
    let source = exporting(&posthog, "export");
    let catalog = catalog(&["sessions"], "incremental");
    let first = source.read_all(&catalog, None).await;
    let mut state = first.state();
    let project = &mut state[0]["stream"]["stream_state"]["projects"]["1001"];
    assert_eq!(project["method"], "export");
    project.as_object_mut().unwrap().remove("changes").unwrap();
    for method in ["export", "query"] {
        let source = exporting(&posthog, method);
        let next = source.read_all(&catalog, Some(&state)).await;
        assert_eq!(next.id_set("sessions").len(), 20, "{method}");
    }
}

#[tokio::test]
async fn few_changes_are_read_by_query_without_a_run() {
    let posthog = cloud(SessionsVersion::V2).await;
    posthog.insert(PROJECT, visits(300));
    let source = exporting(&posthog, "auto");
    let catalog = catalog(&["sessions"], "incremental");
    let first = source.read_all(&catalog, None).await;
    let runs = posthog.export_runs().len();
    assert!(runs > 0);
    posthog.insert(PROJECT, vec![visit(60_000, 60_000, 2, 1), visit(60_001, 100, 103 * 60, 1)]);
    let source = source.with("export_above", json!(100));
    let second = source.read_all(&catalog, Some(&first.state())).await;
    assert_eq!(posthog.export_runs().len(), runs);
    assert_up_to_date([&first, &second], &posthog, "");
}

#[tokio::test]
async fn sessions_have_the_same_time_of_change_by_both_methods() {
    let posthog = cloud(SessionsVersion::V2).await;
    posthog.generate(PROJECT, 400, 3, two_hours_ago());
    let catalog = catalog(&["sessions"], "full_refresh");
    let changes = |messages: &Messages| -> BTreeMap<String, String> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        messages.records("sessions").iter().map(|record| (text(&record["id"]), text(&record["updated_at"]))).collect()
    };
    let exported = exporting(&posthog, "export").read_all(&catalog, None).await;
    let queried = by_query(&posthog).read_all(&catalog, None).await;
    assert_eq!(changes(&exported), changes(&queried));
}

/// Rows that are swapped, repeated or lost on the way are noticed in a scan for changes, too.
#[tokio::test]
async fn faulty_responses_lose_no_changed_session() {
    let posthog = cloud(SessionsVersion::V2).await;
    posthog.insert(PROJECT, visits(200));
    let source = by_query(&posthog).with_page_size(7);
    let catalog = catalog(&["sessions"], "incremental");
    let first = source.read_all(&catalog, None).await;
    posthog.insert(
        PROJECT,
        (0..60).map(|number| visit(9_000 + number, number, 180 + 60 * i64::try_from(number).unwrap(), 0)).collect(),
    );
    for action in [
        Action::DropRows { rows: 1 },
        Action::DropRows { rows: 7 },
        Action::DuplicateRows { rows: 2 },
        Action::SwapInCopy,
        Action::Clamp { rows: 0 },
        Action::WrongCount { by: -1 },
    ] {
        posthog.set_faults(vec![Fault::query(action.clone()).sql("FROM sessions").every(5).times(2)]).unwrap();
        let faulty = source.read(&catalog, Some(&first.state())).await.messages;
        posthog.set_faults(Vec::new()).unwrap();
        let state = if faulty.state_lines().is_empty() { first.state() } else { faulty.state() };
        let next = source.read_all(&catalog, Some(&state)).await;
        assert_up_to_date([&first, &faulty, &next], &posthog, &format!("{action:?}"));
    }
}

/// A Cloud whose export runs do not say how many rows they have: nothing but a count shows that some are missing.
async fn cloud_without_numbers_of_rows() -> Sandbox {
    let posthog = cloud(SessionsVersion::V2).await;
    let server = Server::cloud_2026();
    let exports = ExportServer { records_completed: RecordsCompleted::Missing, ..server.exports };
    posthog.set_server(Server { exports, ..server });
    posthog
}

/// The first file lacks lines, which only its own number of lines could tell.
fn lines_are_missing() -> Fault {
    Fault::files(Action::DropRows { rows: 3 }).nth(&[1])
}

/// The line at the end of the stream.
fn end(messages: &Messages) -> String {
    let lines = messages.logs("INFO");
    lines.into_iter().find(|line| line.contains(" stream=sessions ") && line.contains(" proof=")).unwrap()
}

/// The queries that count exported sessions by day.
fn comparisons(posthog: &Sandbox) -> usize {
    let requests = posthog.requests();
    let is_one = |sql: &String| sql.contains("groupArray((day, row_count))") && sql.contains("FROM sessions");
    requests.iter().filter(|request| request.sql.as_ref().is_some_and(is_one)).count()
}

#[tokio::test]
async fn exported_sessions_are_counted_by_day_once_a_sync() {
    let posthog = cloud(SessionsVersion::V2).await;
    posthog.insert(PROJECT, visits(300));
    let source = exporting(&posthog, "export");
    for mode in ["incremental", "full_refresh"] {
        posthog.clear_requests();
        let catalog = catalog(&["sessions"], mode);
        let first = source.read_all(&catalog, None).await;
        assert_eq!((comparisons(&posthog), first.logs("WARN")), (1, Vec::<String>::new()));
        let line = end(&first);
        let all = stored(&posthog).len();
        let expected = format!("PostHog counts {all} that it must have exported, and {all} of them came");
        assert!(line.contains(&expected), "{line}");
        assert!(line.contains("agrees=true proof=counted_by_day,counted,exported"), "{line}");
        assert!(line.contains(&format!("posthog={all} ")), "what is counted by day is not counted twice: {line}");
        assert!(!first.state().to_string().contains("\"days\""), "{}", first.state());
        // Sessions that go on are exported again, and one that is new.
        posthog.insert(PROJECT, vec![visit(70_000, 0, 30, 25), visit(70_001, 70_001, 20, 15)]);
        if mode == "incremental" {
            let second = source.read_all(&catalog, Some(&first.state())).await;
            assert_eq!((comparisons(&posthog), second.logs("WARN")), (2, Vec::<String>::new()));
            assert_up_to_date([&first, &second], &posthog, mode);
        }
    }
}

#[tokio::test]
async fn days_that_lack_exported_sessions_are_read_by_query() {
    for mode in ["incremental", "full_refresh"] {
        let posthog = cloud_without_numbers_of_rows().await;
        posthog.insert(PROJECT, visits(100));
        posthog.set_faults(vec![lines_are_missing()]).unwrap();
        let source = exporting(&posthog, "export");
        let catalog = catalog(&["sessions"], mode);
        let first = source.read_all(&catalog, None).await;
        assert_up_to_date([&first], &posthog, mode);
        let warnings = first.logs("WARN").join("\n");
        assert!(
            warnings.contains("exports lack sessions that PostHog counts") && warnings.contains(" of "),
            "{warnings}"
        );
        assert!(end(&first).contains("100 of them came: their numbers of every day agree"), "{}", end(&first));
        // Only the days that lack some came again.
        assert!(first.records("sessions").len() < 170, "{}", first.records("sessions").len());
        if mode == "incremental" {
            let second = source.read_all(&catalog, Some(&first.state())).await;
            assert_eq!((second.logs("WARN"), second.records("sessions").len()), (Vec::new(), 0));
        }
    }
}

/// What is missing by query as well ends the stream, and the next sync finds it.
#[tokio::test]
async fn days_that_lack_sessions_in_the_end_are_named() {
    let posthog = cloud_without_numbers_of_rows().await;
    posthog.insert(PROJECT, visits(100));
    let page = Fault::query(Action::DropRows { rows: 1 }).sql("ORDER BY `\\$start_timestamp`").times(u64::MAX);
    posthog.set_faults(vec![lines_are_missing(), page]).unwrap();
    let source = exporting(&posthog, "export");
    let catalog = catalog(&["sessions"], "incremental");
    let first = source.read(&catalog, None).await;
    assert_eq!(
        (first.code, first.messages.statuses("sessions").last().map(String::as_str)),
        (Some(1), Some("INCOMPLETE"))
    );
    let error = first.messages.errors().join("\n");
    assert!(error.contains("do not agree with PostHog's count") && error.contains(" stored"), "{error}");
    let line = end(&first.messages);
    assert!(line.contains("differ") && line.contains("agrees=false"), "{line}");
    posthog.set_faults(Vec::new()).unwrap();
    let second = source.read_all(&catalog, Some(&first.messages.state())).await;
    assert_up_to_date([&first.messages, &second], &posthog, "");
}

/// A sync that ends between its files, their comparison and the reading of what is missing leaves a state from which
/// the next one finds it, also when sessions have gone on meanwhile.
#[tokio::test]
async fn missing_sessions_are_found_from_every_state() {
    let posthog = cloud_without_numbers_of_rows().await;
    posthog.insert(PROJECT, visits(100));
    posthog.set_exports(Exports { rows_per_file: Some(40), ..Exports::default() });
    let source = exporting(&posthog, "export");
    let catalog = catalog(&["sessions"], "incremental");
    posthog.set_faults(vec![lines_are_missing(), Fault::query(Action::Clamp { rows: 10 }).times(u64::MAX)]).unwrap();
    let whole = source.read_all(&catalog, None).await;
    posthog.set_faults(Vec::new()).unwrap();
    posthog.set_server(Server::cloud_2026());
    assert_up_to_date([&whole], &posthog, "");
    let states = whole.state_lines();
    let repairs = states.iter().filter(|line| whole.up_to(**line).state().to_string().contains("\"exported\":true"));
    assert!(repairs.count() > 1, "none of {} states is in the middle of the repair", states.len());
    for (number, line) in (0..).zip(&states[..states.len() - 1]) {
        let part = whole.up_to(*line);
        posthog.insert(PROJECT, vec![visit(9_000 + number, number % 100, 170, 0)]);
        // A pass has a fixed end; what has gone on since is left to the next sync.
        let rest = source.read_all(&catalog, Some(&part.state())).await;
        let next = source.read_all(&catalog, Some(&rest.state())).await;
        assert_up_to_date([&part, &rest, &next], &posthog, &format!("state on line {line}"));
    }
}

/// Nothing is counted that could not be compared, and the warning names what gives the better proof.
#[tokio::test]
async fn keys_that_may_not_query_have_the_proof_of_exports_alone() {
    let posthog = sandbox_without_queries(Exports::default()).await;
    posthog.insert(PROJECT, visits(50));
    let start = json!(source_posthog::time::Timestamp::from_micros(minutes_ago(5 * DAY)));
    let source = exporting(&posthog, "export").with("api_key", json!(EXPORT_KEY)).with("start_date", start);
    for (records_completed, proof) in
        [(RecordsCompleted::Reported, "proof=exported"), (RecordsCompleted::Missing, "proof=files_listed")]
    {
        let server = Server::cloud_2026();
        let exports = ExportServer { records_completed, ..server.exports };
        posthog.set_server(Server { exports, ..server });
        let messages = source.read_all(&catalog(&["sessions"], "incremental"), None).await;
        assert!(end(&messages).contains(proof), "{}", end(&messages));
        assert!(messages.logs("WARN").iter().any(|line| line.contains("`query:read`")));
        assert!(!messages.state().to_string().contains("\"days\""), "{}", messages.state());
    }
}
