//! `POST /query/`: from the body of the request to the rows of the answer.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use chrono_tz::Tz;
use serde_json::{Map, Value as Json, json};
use tokio::time::Instant;

use super::error::ApiError;
use super::faults::Action;
use super::hogql::{self, Column, Select, Setting, Source, Table, Value, iso};
use super::server::{Answer, Call};
use super::store::{DAY, Event, Tables};
use super::{Shared, limits, lock};

/// Rows of a query without LIMIT.
const DEFAULT_LIMIT: usize = 100;
/// How long PostHog may answer the same query from its cache, unless told to `force_blocking`.
const FRESH: Duration = Duration::from_mins(1);
/// Estimate of the columns of one row without `properties`.
const ROW_BYTES: u64 = 120;

const REQUEST_KEYS: [&str; 7] =
    ["query", "client_query_id", "refresh", "name", "async", "filters_override", "variables_override"];
const QUERY_KEYS: [&str; 11] =
    ["kind", "query", "values", "variables", "filters", "modifiers", "explain", "name", "tags", "version", "response"];
/// What PostHog knows; the time zone, persons and sessions make a difference here.
const MODIFIERS: [&str; 12] = [
    "convertToProjectTimezone",
    "personsOnEventsMode",
    "debug",
    "timings",
    "useMaterializedViews",
    "inCohortVia",
    "materializationMode",
    "optimizeJoinedFilters",
    "personsArgMaxVersion",
    "personsJoinMode",
    "sessionTableVersion",
    "propertyGroupsMode",
];
const REFRESH: [&str; 7] =
    ["blocking", "async", "lazy_async", "async_except_on_cache_miss", "force_blocking", "force_async", "force_cache"];

/// An answer that may be given again.
#[derive(Debug)]
pub(crate) struct Cached {
    at: Instant,
    body: Bytes,
}

/// Rows that are inserted when their project is asked so many queries more.
#[derive(Debug, Default)]
pub(crate) struct Arrivals(Vec<(u64, usize, Event)>);

impl Arrivals {
    pub(crate) fn plan(&mut self, project: u64, events: impl IntoIterator<Item = (usize, Event)>) {
        self.0.extend(events.into_iter().map(|(queries, event)| (project, queries, event)));
    }

    /// Takes out all of them.
    pub(crate) fn take(&mut self) -> Vec<(u64, Event)> {
        std::mem::take(&mut self.0).into_iter().map(|(project, _, event)| (project, event)).collect()
    }

    /// Counts a query. Takes out the rows that come with it.
    fn count(&mut self, project: u64) -> Vec<Event> {
        for (_, queries, _) in self.0.iter_mut().filter(|(of, ..)| *of == project) {
            *queries = queries.saturating_sub(1);
        }
        self.0.extract_if(.., |(of, queries, _)| *of == project && *queries == 0).map(|(.., event)| event).collect()
    }
}

/// The HogQL in the body of a request to the query endpoint.
pub(crate) fn sql_of(path: &str, body: &str) -> Option<String> {
    if !path.contains("/query") {
        return None;
    }
    let body: Json = serde_json::from_str(body).ok()?;
    body.get("query")?.get("query")?.as_str().map(str::to_owned)
}

/// A request that has passed validation.
struct Asked {
    sql: String,
    values: Map<String, Json>,
    modifiers: Map<String, Json>,
    cached: bool,
}

fn validate(body: &[u8], kind: Option<&str>) -> Result<Asked, ApiError> {
    let body: Json = serde_json::from_slice(body)
        .map_err(|error| ApiError::code("parse_error", format!("JSON parse error - {error}")))?;
    let missing = |path: &str| {
        ApiError::invalid(format!("1 validation error for QueryRequest\n{path}\n  Field required [type=missing]"))
    };
    let body = body.as_object().ok_or_else(|| missing("query"))?;
    known(body, &REQUEST_KEYS, "")?;
    let query = body.get("query").and_then(Json::as_object).ok_or_else(|| missing("query"))?;
    match query.get("kind").and_then(Json::as_str) {
        Some(own) if kind.is_some_and(|kind| kind != own) => {
            let kind = kind.unwrap_or_default();
            let detail = format!("Query kind in path ('{kind}') does not match the kind in the body ('{own}').");
            return Err(ApiError::invalid(detail));
        }
        Some("HogQLQuery") => {}
        Some(other) => return Err(ApiError::unsupported(format_args!("queries of the kind {other}"))),
        None => {
            return Err(ApiError::invalid(
                "1 validation error for QueryRequest\nquery\n  Unable to extract tag using discriminator 'kind' \
                 [type=union_tag_not_found]",
            ));
        }
    }
    known(query, &QUERY_KEYS, "query.HogQLQuery.")?;
    let sql = query.get("query").and_then(Json::as_str).ok_or_else(|| missing("query.HogQLQuery.query"))?;
    let name = body.get("name").and_then(Json::as_str).unwrap_or_default();
    if name.chars().count() > 128 {
        return Err(ApiError::invalid(
            "1 validation error for QueryRequest\nname\n  String should have at most 128 characters \
             [type=string_too_long]",
        ));
    }
    let refresh = body.get("refresh").and_then(Json::as_str).unwrap_or("blocking");
    if !REFRESH.contains(&refresh) {
        return Err(ApiError::invalid(
            "1 validation error for QueryRequest\nrefresh\n  Input should be a valid refresh type [type=enum]",
        ));
    }
    if refresh.contains("async") || body.get("async") == Some(&Json::Bool(true)) {
        return Err(ApiError::unsupported("asynchronous queries"));
    }
    for unused in ["variables", "filters", "explain"] {
        if query.get(unused).is_some_and(|value| !value.is_null() && *value != Json::Bool(false)) {
            return Err(ApiError::unsupported(format_args!("`{unused}` of a query")));
        }
    }
    let object = |name: &str| query.get(name).and_then(Json::as_object).cloned().unwrap_or_default();
    known(&object("modifiers"), &MODIFIERS, "query.HogQLQuery.modifiers.")?;
    Ok(Asked {
        sql: sql.to_owned(),
        values: object("values"),
        modifiers: object("modifiers"),
        cached: refresh != "force_blocking",
    })
}

fn known(object: &Map<String, Json>, keys: &[&str], prefix: &str) -> Result<(), ApiError> {
    let unknown: Vec<_> = object.iter().filter(|(key, _)| !keys.contains(&key.as_str())).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let plural = if unknown.len() == 1 { "" } else { "s" };
    let mut detail = format!("{} validation error{plural} for QueryRequest", unknown.len());
    for (key, value) in unknown {
        let line =
            format!("\n{prefix}{key}\n  Extra inputs are not permitted [type=extra_forbidden, input_value={value}]");
        detail.push_str(&line);
    }
    Err(ApiError::invalid(detail))
}

/// Counts a query as done even if the client goes away.
struct Running(Arc<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        lock(&self.0.log).query_ends();
    }
}

pub(crate) async fn answer(
    shared: Arc<Shared>,
    project: u64,
    call: Call,
    kind: Option<String>,
) -> Result<Answer, ApiError> {
    let asked = validate(&call.body, kind.as_deref())?;
    let cache_key = format!("{project} {} {:?} {:?}", asked.sql, asked.values, asked.modifiers);
    if asked.cached
        && let Some(hit) = lock(&shared.cache).get(&cache_key).filter(|hit| hit.at.elapsed() < FRESH)
    {
        return Ok(Answer::raw("application/json", marked(&hit.body)));
    }
    let zone = shared.project(project).map_or(Tz::UTC, |(_, zone)| *zone);
    let convert = asked.modifiers.get("convertToProjectTimezone") != Some(&Json::Bool(false));
    let server = shared.server();
    let now = server.now().timestamp_micros();
    let schema = server.schema.modified(&asked.modifiers)?;
    let setting = Setting { shown: if convert { zone } else { Tz::UTC }, literals: zone, schema, now };
    let compiled = hogql::compile(&asked.sql, &asked.values, setting);
    let select = compiled.map_err(|error| server.refusals.word(error, &asked.sql))?;

    let limits = lock(&shared.limits).clone();
    if let Some(budget) = limits.budget {
        lock(&shared.meter).check_budget(budget, project, Instant::now())?;
    }
    // Those that wait for their turn count as well, or nobody would see that there are too many.
    lock(&shared.log).query_begins();
    let _running = Running(Arc::clone(&shared));
    let turns = lock(&shared.meter).turns(&limits, project);
    let _turn = match turns {
        Some(turns) => Some(limits::take_turn(turns, limits.concurrency_wait).await?),
        None => None,
    };
    if !limits.latency.is_zero() {
        tokio::time::sleep(limits.latency).await;
    }

    let arriving = lock(&shared.arrivals).count(project);
    if !arriving.is_empty() {
        shared.write_tables().entry(project).or_default().insert(arriving);
    }

    let (worker, fault, cached) = (Arc::clone(&shared), call.fault.clone(), asked.cached);
    let work = move || {
        let tables = worker.read_tables();
        let empty = Tables::default();
        let tables = tables.get(&project).unwrap_or(&empty);
        let clamp = worker.page_clamp;
        page(&Page { asked: &asked, select: &select, tables, fault: fault.as_ref(), zone, now, clamp, project })
    };
    let failed = |_| ApiError::new(500, "server_error", "error", "A server error occurred.");
    let page = tokio::task::spawn_blocking(work).await.map_err(failed)?;

    lock(&shared.log).note(call.id, |entry| {
        entry.rows = Some(page.rows);
        entry.bytes_read = Some(page.bytes_read);
    });
    let left = limits.budget.map(|budget| lock(&shared.meter).debit(budget, project, page.bytes_read, Instant::now()));
    {
        let stats = &mut lock(&shared.log).stats;
        stats.rows += page.rows;
        stats.bytes_read += page.bytes_read;
    }
    if limits.rows_returned.is_some_and(|most| page.rows > most)
        || limits.rows_read.is_some_and(|most| page.rows_read > most)
    {
        return Err(limits.overload.error());
    }
    let body = Bytes::from(page.body);
    if cached {
        lock(&shared.cache).insert(cache_key, Cached { at: Instant::now(), body: body.clone() });
    }
    let mut answer = Answer::raw("application/json", body);
    if let Some(left) = left {
        answer = answer
            .header("x-posthog-query-bytes-read", &page.bytes_read.to_string())
            .header("x-posthog-query-budget-remaining-bytes", &left.to_string());
    }
    Ok(answer)
}

/// The answer with its `is_cached` set. No other text in front of it can hold the same bytes, since
/// quotes in texts are escaped.
fn marked(body: &Bytes) -> Bytes {
    let (fresh, cached) = (b"\"is_cached\":false", b"\"is_cached\":true");
    let Some(at) = body.windows(fresh.len()).position(|window| window == fresh) else { return body.clone() };
    let (head, tail) = body.split_at(at);
    [head, cached, tail.get(fresh.len()..).unwrap_or_default()].concat().into()
}

struct Page<'a> {
    asked: &'a Asked,
    select: &'a Select,
    tables: &'a Tables,
    fault: Option<&'a Action>,
    zone: Tz,
    now: i64,
    clamp: usize,
    project: u64,
}

struct Done {
    body: Vec<u8>,
    rows: usize,
    rows_read: usize,
    bytes_read: u64,
}

fn page(page: &Page<'_>) -> Done {
    let started = Instant::now();
    let select = page.select;
    // Without LIMIT the server asks for one row more to know whether there are more.
    let mut limit = select.limit.map_or(DEFAULT_LIMIT + 1, |limit| limit.min(page.clamp));
    if let Some(Action::Clamp { rows }) = page.fault {
        limit = limit.min(*rows);
    }
    let spare = if let Some(Action::DropRows { rows }) = page.fault { *rows } else { 0 };
    let hogql::Answer { mut rows, rows_read } = hogql::run(select, page.tables, page.now, limit.saturating_add(spare));
    match page.fault {
        Some(Action::DropRows { rows: count }) => {
            let start = rows.len().saturating_sub(*count) / 2;
            rows.drain(start..rows.len().min(start + count));
        }
        Some(Action::DuplicateRows { rows: count }) => {
            let copies: Vec<_> = rows.iter().take(*count).cloned().collect();
            for (index, copy) in copies.into_iter().enumerate() {
                rows.insert(2 * index, copy);
            }
        }
        Some(Action::SwapInCopy) if rows.len() > 1 => {
            let (first, middle) = (rows.first().cloned().unwrap_or_default(), rows.len() / 2);
            rows.splice(middle..=middle, [first]);
        }
        Some(Action::WrongCount { by }) => {
            for index in select.counts() {
                for row in &mut rows {
                    if let Some(Value::Integer(count)) = row.get_mut(index) {
                        *count += i128::from(*by);
                    }
                }
            }
        }
        _ => {}
    }
    rows.truncate(limit);
    let has_more = select.limit.is_none().then_some(rows.len() > DEFAULT_LIMIT);
    if select.limit.is_none() {
        rows.truncate(DEFAULT_LIMIT);
    }
    let bytes_read = bytes_read(select, page.tables);
    let body = render(page, &rows, has_more, started);
    Done { body, rows: rows.len(), rows_read, bytes_read }
}

/// Rows of a day are stored by event and hash, so that any part of a day costs nearly all of it.
fn bytes_read(select: &Select, tables: &Tables) -> u64 {
    match &select.source {
        Source::Table(Table::Events) => {
            let (from, to) = select.range();
            let size = tables.size_of_days(from.max(i64::MIN + DAY), to);
            let properties = if select.reads(Column::Properties) { size.property_bytes } else { 0 };
            size.rows * ROW_BYTES + properties
        }
        Source::Table(Table::Sessions) => tables.size_of_days(i64::MIN + DAY, i64::MAX).rows * ROW_BYTES,
        Source::Table(Table::Persons) => {
            tables.persons().map(|person| ROW_BYTES + person.properties.len() as u64).sum()
        }
        Source::Table(Table::RawPersons) => {
            tables.raw_persons().iter().map(|row| ROW_BYTES + row.person.properties.len() as u64).sum()
        }
        Source::Table(Table::RawPersonDistinctIds) => ROW_BYTES * tables.raw_distinct_ids().len() as u64,
        Source::Table(Table::PersonDistinctIds) => {
            tables.persons().map(|person| ROW_BYTES * person.distinct_ids.len() as u64).sum()
        }
        Source::Table(Table::IngestionWarnings) => ROW_BYTES * tables.ingestion_warnings.len() as u64,
        Source::Table(Table::Groups) => tables.groups().map(|group| ROW_BYTES + group.properties.len() as u64).sum(),
        Source::Table(Table::CohortPeople | Table::RawCohortPeople | Table::StaticCohortPeople) => {
            tables.cohorts.values().map(|cohort| ROW_BYTES * cohort.people.len() as u64).sum()
        }
        Source::Query(inner) => bytes_read(inner, tables),
    }
}

/// Writes the answer with its keys in the alphabetical order that PostHog has them in.
fn render(page: &Page<'_>, rows: &[Vec<Value<'_>>], has_more: Option<bool>, started: Instant) -> Vec<u8> {
    let Page { asked, select, zone, now, project, .. } = page;
    let columns: Vec<&str> = select.outputs.iter().map(|output| output.name.as_str()).collect();
    let types: Vec<Json> = select
        .outputs
        .iter()
        .map(|output| {
            let kind = output.expression.kind.name();
            json!([output.name, if output.expression.nullable { format!("Nullable({kind})") } else { kind }])
        })
        .collect();
    let paged = select.limit.is_none();
    let last = iso(*now, Tz::UTC);
    let mut out = Vec::with_capacity(1024 + rows.len() * 256);
    let mut put = |key: &str, value: Json| {
        out.push(if out.is_empty() { b'{' } else { b',' });
        out.extend_from_slice(format!("\"{key}\":{value}").as_bytes());
    };
    put("cache_key", json!(format!("cache_{project}_{now:x}")));
    put("cache_target_age", Json::Null);
    put("calculation_trigger", Json::Null);
    put("clickhouse", json!(asked.sql));
    put("columns", json!(columns));
    put("error", Json::Null);
    put("explain", Json::Null);
    put("hasMore", json!(has_more));
    put("hogql", json!(asked.sql));
    put("is_cached", json!(false));
    put("last_refresh", json!(last));
    put("limit", json!(paged.then_some(DEFAULT_LIMIT)));
    put("metadata", Json::Null);
    put("modifiers", Json::Object(asked.modifiers.clone()));
    put("next_allowed_client_refresh", json!(last));
    put("offset", json!(paged.then_some(0)));
    put("query", json!(asked.sql));
    put("query_status", Json::Null);
    put("resolved_date_range", Json::Null);
    out.extend_from_slice(b",\"results\":[");
    for (number, row) in rows.iter().enumerate() {
        out.extend_from_slice(if number == 0 { b"[" } else { b",[" });
        for (index, (value, output)) in row.iter().zip(&select.outputs).enumerate() {
            if index > 0 {
                out.push(b',');
            }
            value.write_json(&output.expression.kind, &mut out);
        }
        out.push(b']');
    }
    out.push(b']');
    let took = started.elapsed().as_secs_f64();
    let rest = json!({
        "timezone": zone.name(),
        "timings": [{"k": "./clickhouse_execute", "t": took}, {"k": ".", "t": took}],
        "types": types,
    });
    // An object's own opening brace becomes the comma before its first key.
    out.push(b',');
    out.extend_from_slice(rest.to_string().trim_start_matches('{').as_bytes());
    out
}
