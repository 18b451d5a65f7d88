//! The configuration: what users write (`spec`) and what it means ([`Config`]).
//!
//! Everything is checked here, once. Messages name the field and the fix. Unknown keys have no effect but a
//! warning; a configuration of Airbyte's own `source-posthog` works.

mod base_url;
pub mod bounded;
mod fit;
pub mod form;
mod property_rules;
pub mod query_text;
mod spec;

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::{NaiveDate, TimeDelta};
use url::Url;

use crate::error::Error;
use crate::secret::Secret;
use crate::time::Timestamp;
use spec::{RawConfig, RawMethod, RawPropertyRules, RawQuery};

pub use property_rules::{HASH_KEY_VARIABLE, PropertyRules, Treatment};
pub use spec::{CustomQuery, specification};

/// Environment variable that supplies the API key when the file has none.
pub const API_KEY_VARIABLE: &str = "POSTHOG_API_KEY";
/// Shorter keys can be found by trying.
const SHORTEST_HASH_KEY: usize = 16;

/// A configuration that has been checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Personal API key.
    pub api_key: Secret,
    /// Root of the instance, with a trailing slash.
    pub base_url: Url,
    /// Events with an earlier timestamp are not read.
    pub start: Timestamp,
    /// Events with this timestamp or a later one are not read.
    pub end: Option<Timestamp>,
    /// Projects to read; all that the key can see when absent.
    pub project_ids: Option<Vec<u64>>,
    /// Exact event names to read; all when empty.
    pub include_events: Vec<String>,
    /// Exact event names to leave out.
    pub exclude_events: Vec<String>,
    /// Days of events that are read once more; both ends are included.
    pub reread_days: Vec<RangeInclusive<NaiveDate>>,
    /// How events, persons and sessions are read.
    pub method: Method,
    /// Event properties that become columns.
    pub event_property_columns: Vec<String>,
    /// Person properties that become columns.
    pub person_property_columns: Vec<String>,
    /// Most days of events in one window.
    pub window_days: Option<u32>,
    /// Queries that are streams of their own.
    pub custom_queries: Vec<CustomQuery>,
    /// Part of `PostHog`'s request limits that may be used, above 0 up to 1.
    pub rate_limit_share: f64,
    /// Queries of a project at a time, at least 1.
    pub concurrency: usize,
    /// Export runs of a project at a time, at least 1.
    pub export_runs: usize,
    /// Longest silence in the middle of an answer.
    pub read_timeout: Duration,
    /// Attempts in a row without progress before giving up, at least 1.
    pub attempts: usize,
    /// The longest time that one export run may take.
    pub export_deadline: Duration,
    /// Events are exported when so many have to be read; fewer are queried.
    pub export_above: u64,
    /// Most rows that the export runs of a sync may export.
    pub max_exported_rows: Option<u64>,
    /// Which properties of events are emitted.
    pub event_properties: Arc<PropertyRules>,
    /// Which properties of persons are emitted.
    pub person_properties: Arc<PropertyRules>,
    /// Whether credentials are emitted.
    pub include_credentials: bool,
    /// A condition in `HogQL` on the events that are read.
    pub event_filter: Option<String>,
}

/// How events, persons and sessions are read.
#[derive(Debug, Clone)]
pub struct Method {
    /// Which way.
    pub choice: MethodChoice,
    /// Age that data must have to be exported.
    pub ingestion_delay: TimeDelta,
    /// Settings that are there and have no effect any more.
    pub obsolete: Vec<&'static str>,
    /// Options of queries, which other streams and the completion of exports use as well.
    pub query: QueryOptions,
}

/// Which way to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MethodChoice {
    /// Exports where they are possible, otherwise queries; decided per project.
    Auto,
    /// File download exports.
    Export,
    /// The query API.
    Query,
}

/// Options of reading by queries.
#[derive(Debug, Clone)]
pub struct QueryOptions {
    /// Most rows asked for in one request.
    pub page_size: u32,
    /// Whether `person_properties` of events are read.
    pub person_properties: bool,
}

impl Config {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// A config error that names the field and the fix.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        Self::from_text(&form::file(path)?)
    }

    /// Reads the JSON text of a configuration; secrets that it lacks come from the environment.
    ///
    /// # Errors
    /// A config error that names the field and the fix.
    pub fn from_text(text: &[u8]) -> Result<Self, Error> {
        let variable = |name: &str| std::env::var(name).ok();
        let (api_key, hash_key) = (variable(API_KEY_VARIABLE), variable(HASH_KEY_VARIABLE));
        Self::parse_with(text, api_key.as_deref(), hash_key.as_deref())
    }

    /// Reads the JSON text of a configuration; `api_key` stands in for a missing key.
    ///
    /// # Errors
    /// A config error that names the field and the fix.
    pub fn parse(text: &[u8], api_key: Option<&str>) -> Result<Self, Error> {
        Self::parse_with(text, api_key, None)
    }

    fn parse_with(text: &[u8], api_key: Option<&str>, hash_key: Option<&str>) -> Result<Self, Error> {
        let raw: RawConfig = form::read_with(text, &spec::OBSOLETE)?;
        Self::validate(raw, api_key, hash_key)
    }

    fn validate(
        raw: RawConfig,
        api_key_variable: Option<&str>,
        hash_key_variable: Option<&str>,
    ) -> Result<Self, Error> {
        let api_key = form::secret("api_key", raw.api_key, API_KEY_VARIABLE, api_key_variable)?.ok_or_else(|| {
            Error::config(format!("`api_key` is missing; set it, or the environment variable {API_KEY_VARIABLE}"))
        })?;
        check_key(&api_key)?;
        let base_url = base_url::normalise(raw.base_url.as_deref().unwrap_or(base_url::DEFAULT), raw.allow_http)
            .map_err(|problem| Error::config(format!("`base_url` {problem}")))?;
        let start = raw.start_date.ok_or_else(|| {
            Error::config(format!("`start_date` is missing; write it like {}", crate::time::days_ago(30)))
        })?;
        let start = date("start_date", &start)?;
        let end = raw.end_date.map(|text| date("end_date", &text)).transpose()?;
        if end.is_some_and(|end| end <= start) {
            return Err(Error::config("`end_date` must be later than `start_date`"));
        }
        let project_ids = raw.project_ids.filter(|ids| !ids.is_empty()).map(|mut ids| {
            ids.sort_unstable();
            ids.dedup();
            ids
        });
        let include_events = names("include_events", raw.include_events)?;
        let exclude_events = names("exclude_events", raw.exclude_events)?;
        if let Some(index) = include_events.iter().position(|name| exclude_events.contains(name)) {
            return Err(Error::config(format!(
                "`include_events[{index}]` is in `exclude_events`, too; remove it from one of them"
            )));
        }
        let event_property_columns = names("event_property_columns", raw.event_property_columns)?;
        let person_property_columns = names("person_property_columns", raw.person_property_columns)?;
        let hash_key = hash_key(raw.hash_key, hash_key_variable)?;
        let event_properties = property_rules(
            "event_properties",
            raw.event_properties,
            hash_key.as_ref(),
            ("event_property_columns", &event_property_columns),
        )?;
        let person_properties = property_rules(
            "person_properties",
            raw.person_properties,
            hash_key.as_ref(),
            ("person_property_columns", &person_property_columns),
        )?;
        Ok(Self {
            api_key,
            base_url,
            start,
            end,
            project_ids,
            include_events,
            exclude_events,
            reread_days: day_ranges("reread_days", raw.reread_days)?,
            method: method(raw.method)?,
            event_property_columns: distinct(event_property_columns),
            person_property_columns: distinct(person_property_columns),
            event_properties,
            person_properties,
            include_credentials: raw.include_credentials,
            event_filter: raw.event_filter.as_deref().map(event_filter).transpose()?,
            window_days: raw.events_time_step.map(|days| days.get("events_time_step")).transpose()?,
            custom_queries: custom_queries(raw.custom_queries.unwrap_or_default())?,
            rate_limit_share: raw.rate_limit_share.get("rate_limit_share")?,
            concurrency: raw.concurrency.get("concurrency")? as usize,
            export_runs: raw.export_runs.get("export_runs")? as usize,
            read_timeout: raw.read_timeout_seconds.seconds("read_timeout_seconds")?,
            attempts: raw.attempts.get("attempts")? as usize,
            export_deadline: raw.export_deadline_minutes.minutes("export_deadline_minutes")?,
            export_above: raw.export_above.get("export_above")?.into(),
            max_exported_rows: raw
                .max_exported_rows
                .map(|rows| rows.get("max_exported_rows"))
                .transpose()?
                .map(u64::from),
        })
    }
}

/// Recognises what is pasted instead of a key, before a request is sent with it.
fn check_key(key: &Secret) -> Result<(), Error> {
    const MAKE_ONE: &str = "create a personal API key (`phx_…`) in PostHog under Settings > Personal API keys";
    let text = key.expose();
    let lower = text.to_ascii_lowercase();
    let problem = if text.starts_with("phc_") {
        format!("is a project token (`phc_…`), which can only send events; {MAKE_ONE}")
    } else if text.starts_with("phs_") {
        format!("is a project secret key (`phs_…`), which can neither query nor export; {MAKE_ONE}")
    } else if lower.starts_with("bearer") || lower.starts_with("authorization") {
        "begins with `Bearer`, which is added by itself; write the key alone".to_owned()
    } else if text.starts_with(['"', '\'', '`', '“', '‘', '<'])
        || text.ends_with(['"', '\'', '`', '”', '’', '>', ',', ';'])
    {
        "has quotation marks or other punctuation around it; write the key alone".to_owned()
    } else if text.contains('=') || lower.starts_with("http") {
        "is an assignment or a URL, not a key; write the key alone, which begins with `phx_`".to_owned()
    } else if text.ends_with("...") || text.ends_with('…') || text.contains("***") {
        "is shortened or masked, as PostHog shows old keys; a key can only be copied when it is created".to_owned()
    } else if text.chars().any(|character| !character.is_ascii_graphic()) {
        "contains white space or other characters that no key has; copy it again".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::config(format!("`api_key` {problem}")))
}

fn date(field: &str, text: &str) -> Result<Timestamp, Error> {
    let instant = Timestamp::parse(text.trim())
        .ok_or_else(|| Error::config(format!("`{field}` is not a date; write it like 2026-01-31T00:00:00Z")))?;
    if !(Timestamp::MIN..Timestamp::MAX).contains(&instant) {
        return Err(Error::config(format!("`{field}` must lie between 1900 and 2299")));
    }
    Ok(instant)
}

fn names(field: &str, list: Option<Vec<String>>) -> Result<Vec<String>, Error> {
    let list = list.unwrap_or_default();
    if list.iter().any(|name| name.trim().is_empty()) {
        return Err(Error::config(format!("`{field}` contains an empty name; remove it")));
    }
    Ok(list)
}

fn day_ranges(field: &str, ranges: Option<Vec<String>>) -> Result<Vec<RangeInclusive<NaiveDate>>, Error> {
    let parse = |(index, text): (usize, String)| {
        let problem = |problem: &str| Error::config(format!("`{field}[{index}]` {problem}"));
        let day = |text: &str| {
            let day = NaiveDate::parse_from_str(text.trim(), "%Y-%m-%d").ok();
            day.ok_or_else(|| problem("is not a day; write 2026-05-14, or 2026-05-14/2026-05-20 for several"))
        };
        let (begin, end) = text.split_once('/').unwrap_or((&text, &text));
        let days = day(begin)?..=day(end)?;
        if days.is_empty() { Err(problem("ends before it begins; write the earlier day first")) } else { Ok(days) }
    };
    ranges.unwrap_or_default().into_iter().enumerate().map(parse).collect()
}

fn event_filter(condition: &str) -> Result<String, Error> {
    match query_text::check_condition(condition) {
        Ok(()) => Ok(condition.trim().to_owned()),
        Err(problem) => Err(Error::config(format!("`event_filter` {problem}"))),
    }
}

fn hash_key(configured: Option<Secret>, from_environment: Option<&str>) -> Result<Option<Secret>, Error> {
    let key = form::secret("hash_key", configured, HASH_KEY_VARIABLE, from_environment)?;
    if key.as_ref().is_some_and(|key| key.expose().len() < SHORTEST_HASH_KEY) {
        return Err(Error::config(format!(
            "`hash_key` is too short to be a secret; make one of at least {SHORTEST_HASH_KEY} characters"
        )));
    }
    Ok(key)
}

/// The rules of one setting. `columns` are the properties that become columns, which need their values.
fn property_rules(
    field: &str,
    raw: RawPropertyRules,
    hash_key: Option<&Secret>,
    (setting, columns): (&str, &[String]),
) -> Result<Arc<PropertyRules>, Error> {
    let RawPropertyRules { keep, drop, hash } = raw;
    let list = |name: &str, list| names(&format!("{field}.{name}"), list);
    let rules = PropertyRules::new(field, list("keep", keep)?, list("drop", drop)?, list("hash", hash)?, hash_key)?;
    match columns.iter().position(|property| rules.of_value(property) == Treatment::Drop) {
        None => Ok(Arc::new(rules)),
        Some(place) => {
            Err(Error::config(format!("`{setting}[{place}]` is not kept by `{field}`; remove it from `{setting}`")))
        }
    }
}

fn distinct(list: Vec<String>) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    list.into_iter().filter(|name| seen.insert(name.clone())).collect()
}

fn custom_queries(list: Vec<CustomQuery>) -> Result<Vec<CustomQuery>, Error> {
    let mut queries: Vec<CustomQuery> = Vec::with_capacity(list.len());
    for (index, custom) in list.into_iter().enumerate() {
        let field = |name: &str| format!("`custom_queries[{index}].{name}`");
        let name = custom.name.trim().to_owned();
        let first = name.chars().next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_');
        if !first || !name.chars().all(|character| character.is_ascii_alphanumeric() || character == '_') {
            return Err(Error::config(format!(
                "{} must consist of letters, digits and underscores, and not begin with a digit",
                field("name")
            )));
        }
        if queries.iter().any(|query| query.name == name) {
            return Err(Error::config(format!(
                "{} is the name of another query, too; rename one of them",
                field("name")
            )));
        }
        let query = custom.query.trim().to_owned();
        let primary_key = names(&format!("custom_queries[{index}].primary_key"), Some(custom.primary_key))?;
        if primary_key.is_empty() {
            return Err(Error::config(format!(
                "{} is empty; name columns that uniquely identify a row",
                field("primary_key")
            )));
        }
        queries.push(CustomQuery { name, query, primary_key, cursor_field: custom.cursor_field });
    }
    Ok(queries)
}

fn method(raw: RawMethod) -> Result<Method, Error> {
    let obsolete = match &raw {
        RawMethod::Auto(auto) => auto.obsolete.names(),
        RawMethod::Query(query) => query.obsolete.names(),
        RawMethod::Export(_) => Vec::new(),
    };
    let (choice, ingestion_delay, query) = match raw {
        RawMethod::Auto(auto) => (MethodChoice::Auto, auto.settle_minutes, RawQuery::default()),
        RawMethod::Export(export) => (MethodChoice::Export, export.settle_minutes, RawQuery::default()),
        RawMethod::Query(query) => (MethodChoice::Query, query.settle_minutes, query),
    };
    Ok(Method {
        choice,
        obsolete,
        ingestion_delay: minutes(ingestion_delay.get("method.settle_minutes")?),
        query: QueryOptions {
            page_size: query.page_size.get("method.page_size")?,
            person_properties: query.person_properties,
        },
    })
}

fn minutes(count: u32) -> TimeDelta {
    TimeDelta::minutes(count.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, Error> {
        Config::parse(text.as_bytes(), None)
    }

    #[test]
    fn defaults_and_bounds_are_those_of_the_specification() {
        let base = serde_json::json!({"api_key": "phx_1", "start_date": "2021-01-01T00:00:00Z"});
        form::tests::assert_kept(&specification(), &base, |text| {
            Config::parse(text, None).map(|config| format!("{config:?}"))
        });
    }

    #[test]
    fn configurations_of_the_official_connector_are_accepted() {
        let config = parse(
            r#"{"api_key":"phx_1","start_date":"2021-01-01T00:00:00Z","base_url":"https://app.posthog.com","events_time_step":30}"#,
        )
        .unwrap();
        assert_eq!(config.base_url.as_str(), "https://us.posthog.com/");
        assert_eq!(config.method.choice, MethodChoice::Auto);
    }

    #[test]
    fn nulls_and_empty_texts_count_as_absent() {
        let config = parse(
            r#"{"api_key":" phx_1 ","start_date":"2021-01-01T00:00:00Z","base_url":"","end_date":null,"project_ids":["7",7, 3],"method":null}"#,
        )
        .unwrap();
        assert_eq!(config.api_key.expose(), "phx_1");
        assert_eq!(config.project_ids, Some(vec![3, 7]));
    }

    #[test]
    fn config_errors_name_the_field_and_never_the_key() {
        for (text, expected) in [
            (r#"{"start_date":"2021-01-01T00:00:00Z"}"#, "`api_key` is missing"),
            (
                r#"{"api_key":"${POSTHOG_API_KEY}","start_date":"2021-01-01T00:00:00Z"}"#,
                "environment variable POSTHOG_API_KEY",
            ),
            (r#"{"api_key":"phs_x","start_date":"2021-01-01T00:00:00Z"}"#, "project secret key"),
            (r#"{"api_key":"Bearer phx_1","start_date":"2021-01-01T00:00:00Z"}"#, "begins with `Bearer`"),
            (
                r#"{"api_key":"Authorization: Bearer phx_1","start_date":"2021-01-01T00:00:00Z"}"#,
                "begins with `Bearer`",
            ),
            (r#"{"api_key":"'phx_1'","start_date":"2021-01-01T00:00:00Z"}"#, "quotation marks"),
            (r#"{"api_key":"“phx_1”","start_date":"2021-01-01T00:00:00Z"}"#, "quotation marks"),
            (r#"{"api_key":"<phx_1>","start_date":"2021-01-01T00:00:00Z"}"#, "quotation marks"),
            (r#"{"api_key":"POSTHOG_API_KEY=phx_1","start_date":"2021-01-01T00:00:00Z"}"#, "an assignment"),
            (r#"{"api_key":"phx_abc...","start_date":"2021-01-01T00:00:00Z"}"#, "shortened"),
            (r#"{"api_key":"phc_x","start_date":"2021-01-01T00:00:00Z"}"#, "project token"),
            (r#"{"api_key":5555555,"start_date":"2021-01-01T00:00:00Z"}"#, "`api_key` in the configuration"),
            (r#"{"api_key":"phx_1"}"#, "`start_date` is missing"),
            (r#"{"api_key":"phx_1","start_date":"soon"}"#, "`start_date` is not a date"),
            (
                r#"{"api_key":"phx_1","start_date":"2021-01-02T00:00:00Z","end_date":"2021-01-01T00:00:00Z"}"#,
                "`end_date`",
            ),
            (
                r#"{"api_key":"phx_1","start_date":"2021-01-01T00:00:00Z","concurrency":0}"#,
                "`concurrency` must be between",
            ),
            (r#"{"api_key":"phx_1","start_date":"2021-01-01T00:00:00Z","project_ids":["x"]}"#, "`project_ids[0]`"),
            (r#"{"api_key":"phx_1","start_date":"2021-01-01T00:00:00Z","method":{"type":"magic"}}"#, "`method.type`"),
            (
                r#"{"api_key":"phx_1","start_date":"2021-01-01T00:00:00Z","method":{"type":"query","page_size":0}}"#,
                "`method.page_size`",
            ),
            (
                r#"{"api_key":"phx_1","start_date":"2021-01-01T00:00:00Z","include_events":["a"],"exclude_events":["a"]}"#,
                "`include_events[0]` is in `exclude_events`, too",
            ),
            (
                r#"{"api_key":"phx_1","start_date":"2021-01-01T00:00:00Z","reread_days":["2026-05-14","14 May"]}"#,
                "`reread_days[1]` is not a day; write 2026-05-14",
            ),
            (
                r#"{"api_key":"phx_1","start_date":"2021-01-01T00:00:00Z","reread_days":["2026-05-14/2026-05-01"]}"#,
                "`reread_days[0]` ends before it begins",
            ),
            ("[1]", "the configuration"),
            ("{", "the configuration"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.message().contains(expected), "{text}: {error}");
            assert!(!error.message().contains("5555555"), "{error}");
        }
        let config = parse(r#"{"api_key":"phx_secret","start_date":"2021-01-01T00:00:00Z"}"#).unwrap();
        assert!(!format!("{config:?}").contains("phx_secret"));
    }
}
