//! The configuration as users write it, and the specification that is generated from it.
//!
//! Titles, descriptions and the other annotations become the form in Airbyte's user interface; the
//! conventions are those of its form builder (`order`, `group`, `oneOf` with one `const`, no `$ref`).

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};
use serde_json::{Value, json};

use super::form;
use crate::secret::Secret;

const DATE_PATTERN: &str = "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$";

const OVERLAP: &str = "Each sync reads again what arrived in the last minutes before the previous one, because PostHog shows some events late. Duplicates have the same primary key.";
const LATE_WINDOW: &str = "How far back a sync always looks for events that arrived late with an old timestamp. Older ones are found by a check that runs at least once a day.";

const SETTLE: &str = "The newest minutes are left for the next sync, so that PostHog has stored them all.";

/// One to one with the JSON file; see [`super::Config`] for what it means.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(title = "PostHog source", description = "Reads events, persons, sessions and more from PostHog.")]
pub(super) struct RawConfig {
    #[schemars(
        with = "String",
        required,
        title = "Personal API key",
        description = "A personal API key (it starts with `phx_`) with the scopes `query:read`, `project:read` and, for file exports, `batch_export:write`. Make one in PostHog under Settings > Personal API keys. A project token (`phc_…`) does not work. On the command line, the environment variable POSTHOG_API_KEY can supply it instead.",
        extend("airbyte_secret" = true, "order" = 0, "group" = "connection")
    )]
    pub(super) api_key: Option<Secret>,
    #[serde(default)]
    #[schemars(
        with = "String",
        title = "PostHog address",
        description = "Where you open PostHog in the browser: PostHog Cloud US, PostHog Cloud EU, or the address of your own instance.",
        extend("order" = 1, "group" = "connection", "always_show" = true, "default" = "https://us.posthog.com",
            "examples" = ["https://us.posthog.com", "https://eu.posthog.com", "https://posthog.example.com"])
    )]
    pub(super) base_url: Option<String>,
    #[schemars(
        with = "String",
        required,
        title = "Start date",
        description = "Events with an earlier timestamp are not read. UTC.",
        extend("order" = 2, "group" = "data", "format" = "date-time", "pattern" = DATE_PATTERN,
            "pattern_descriptor" = "YYYY-MM-DDTHH:mm:ssZ", "examples" = ["2026-01-01T00:00:00Z"])
    )]
    pub(super) start_date: Option<String>,
    #[serde(default)]
    #[schemars(
        with = "String",
        title = "End date",
        description = "Events with this timestamp or a later one are not read. Leave it empty to keep reading what is new. UTC.",
        extend("order" = 3, "group" = "data", "format" = "date-time", "pattern" = DATE_PATTERN,
            "pattern_descriptor" = "YYYY-MM-DDTHH:mm:ssZ", "examples" = ["2026-07-01T00:00:00Z"])
    )]
    pub(super) end_date: Option<String>,
    #[serde(default, deserialize_with = "identifiers")]
    #[schemars(
        with = "Vec<u64>",
        title = "Project IDs",
        description = "The projects to read, by the number that PostHog shows under Settings > Project. Leave it empty to read every project that the key can see.",
        extend("order" = 4, "group" = "data", "examples" = [[12345]])
    )]
    pub(super) project_ids: Option<Vec<u64>>,
    #[serde(default)]
    #[schemars(
        with = "Vec<String>",
        title = "Only these events",
        description = "Exact names of the events to read. Leave it empty to read all.",
        extend("order" = 5, "group" = "data", "examples" = [["$pageview", "order completed"]])
    )]
    pub(super) include_events: Option<Vec<String>>,
    #[serde(default)]
    #[schemars(
        with = "Vec<String>",
        title = "Not these events",
        description = "Exact names of events to leave out.",
        extend("order" = 6, "group" = "data", "examples" = [["$feature_flag_called"]])
    )]
    pub(super) exclude_events: Option<Vec<String>>,
    #[serde(default)]
    #[schemars(
        with = "RawMethod",
        title = "Method",
        description = "How events, persons and sessions are read.",
        extend("type" = "object", "order" = 7, "group" = "method", "default" = {"type": "auto"})
    )]
    pub(super) method: Option<RawMethod>,
    #[serde(default)]
    #[schemars(
        with = "f64",
        title = "Share of the rate limits",
        description = "How much of PostHog's request limits (240 queries a minute, 2,400 an hour) this connector may use. Leave room for other users of the same key.",
        extend("order" = 8, "group" = "limits", "default" = 0.8, "minimum" = 0.05, "maximum" = 1)
    )]
    pub(super) rate_limit_share: Option<f64>,
    #[serde(default)]
    #[schemars(
        with = "u32",
        title = "Requests at a time",
        description = "PostHog Cloud runs at most 3 queries of a project at a time.",
        extend("order" = 9, "group" = "limits", "default" = 3, "minimum" = 1, "maximum" = 32)
    )]
    pub(super) concurrency: Option<u32>,
    #[serde(default)]
    #[schemars(
        with = "bool",
        title = "Allow an unencrypted connection",
        description = "Allow an address with http:// that is not this machine. The API key is then sent in the clear.",
        extend("order" = 10, "group" = "connection", "default" = false)
    )]
    pub(super) allow_http: Option<bool>,
    #[serde(default)]
    #[schemars(
        with = "Vec<String>",
        title = "Event properties as columns",
        description = "Names of event properties that become typed columns of `events`, called `property_<name>`. They stay in `properties` as well.",
        extend("order" = 18, "group" = "data", "examples" = [["$browser", "plan"]])
    )]
    pub(super) event_property_columns: Option<Vec<String>>,
    #[serde(default)]
    #[schemars(
        with = "Vec<String>",
        title = "Person properties as columns",
        description = "Names of person properties that become typed columns of `persons`, called `property_<name>`.",
        extend("order" = 19, "group" = "data", "examples" = [["email"]])
    )]
    pub(super) person_property_columns: Option<Vec<String>>,
    #[serde(default)]
    #[schemars(
        with = "u32",
        title = "Days per window",
        description = "Most days of events that are read as one window. Windows are planned by the number of events; this is for configurations of Airbyte's own connector.",
        extend("order" = 21, "group" = "limits", "airbyte_hidden" = true, "minimum" = 1, "maximum" = 91)
    )]
    pub(super) events_time_step: Option<u32>,
    #[serde(default)]
    #[schemars(
        with = "Vec<RawCustomQuery>",
        title = "Your own queries",
        description = "HogQL queries that become streams of their own. `check` tries them; LIMIT and OFFSET are not allowed, since the connector reads page by page itself.",
        extend("order" = 20, "group" = "data")
    )]
    pub(super) custom_queries: Option<Vec<RawCustomQuery>>,
    #[serde(default)]
    #[schemars(
        with = "u32",
        title = "Longest silence (seconds)",
        description = "How long PostHog may be silent in the middle of an answer before it is asked again.",
        extend("order" = 11, "group" = "limits", "airbyte_hidden" = true, "default" = 120, "minimum" = 1, "maximum" = 3600)
    )]
    pub(super) read_timeout_seconds: Option<u32>,
    #[serde(default)]
    #[schemars(
        with = "u32",
        title = "Attempts",
        description = "How often in a row, without any progress, something is tried before the sync fails.",
        extend("order" = 12, "group" = "limits", "airbyte_hidden" = true, "default" = 10, "minimum" = 1, "maximum" = 1000)
    )]
    pub(super) attempts: Option<u32>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct RawCustomQuery {
    #[schemars(
        title = "Stream name",
        description = "Letters, digits and underscores.",
        extend("order" = 0, "pattern" = "^[A-Za-z_][A-Za-z0-9_]*$", "examples" = ["pageviews_by_day"])
    )]
    pub(super) name: String,
    #[schemars(
        title = "Query",
        description = "One SELECT without LIMIT and OFFSET.",
        extend("order" = 1, "multiline" = true,
            "examples" = ["SELECT toDate(timestamp) AS day, event, count() AS total FROM events GROUP BY day, event"])
    )]
    pub(super) query: String,
    #[schemars(
        title = "Primary key",
        description = "Columns that tell all rows of a project apart.",
        extend("order" = 2, "examples" = [["day", "event"]])
    )]
    pub(super) primary_key: Vec<String>,
    #[serde(default)]
    #[schemars(
        with = "String",
        title = "Cursor field",
        description = "A column (time, date or whole number) that only grows; incremental syncs read the rows from its last value on. Leave it empty to read everything every time.",
        extend("order" = 3, "examples" = ["day"])
    )]
    pub(super) cursor_field: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum RawMethod {
    #[schemars(
        title = "Automatic",
        description = "File exports where the key has the scope `batch_export:write` and PostHog offers them, otherwise queries. `check` and the log say which it is. Exported rows may be billed by PostHog."
    )]
    Auto(RawAuto),
    #[schemars(
        title = "File exports",
        description = "PostHog's own way to move much data: it prepares files, which are then downloaded. Needs the scope `batch_export:write`. Exported rows may be billed by PostHog."
    )]
    Export(RawExport),
    #[schemars(
        title = "Queries",
        description = "Read through PostHog's query API. Works with PostHog Cloud and with your own instance, and needs only the scope `query:read`."
    )]
    Query(RawQuery),
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(super) struct RawAuto {
    #[serde(default)]
    #[schemars(
        with = "u32",
        title = "Overlap (minutes)",
        description = OVERLAP,
        extend("order" = 1, "default" = 60, "minimum" = 1, "maximum" = 10080)
    )]
    pub(super) overlap_minutes: Option<u32>,
    #[serde(default)]
    #[schemars(
        with = "u32",
        title = "Late window (days)",
        description = LATE_WINDOW,
        extend("order" = 2, "default" = 30, "minimum" = 1, "maximum" = 3650)
    )]
    pub(super) late_window_days: Option<u32>,
    #[serde(default)]
    #[schemars(
        with = "u32",
        title = "Settle time of exports (minutes)",
        description = SETTLE,
        extend("order" = 3, "default" = 5, "minimum" = 0, "maximum" = 1440)
    )]
    pub(super) settle_minutes: Option<u32>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct RawExport {
    #[serde(default)]
    #[schemars(
        with = "u32",
        title = "Settle time (minutes)",
        description = SETTLE,
        extend("order" = 1, "default" = 5, "minimum" = 0, "maximum" = 1440)
    )]
    pub(super) settle_minutes: Option<u32>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct RawQuery {
    #[serde(default)]
    #[schemars(
        with = "u32",
        title = "Overlap (minutes)",
        description = OVERLAP,
        extend("order" = 1, "default" = 60, "minimum" = 1, "maximum" = 10080)
    )]
    pub(super) overlap_minutes: Option<u32>,
    #[serde(default)]
    #[schemars(
        with = "u32",
        title = "Late window (days)",
        description = LATE_WINDOW,
        extend("order" = 2, "default" = 30, "minimum" = 1, "maximum" = 3650)
    )]
    pub(super) late_window_days: Option<u32>,
    #[serde(default)]
    #[schemars(
        with = "u32",
        title = "Rows per page",
        description = "The most rows asked for in one request. The connector asks for fewer by itself when PostHog finds a page too large.",
        extend("order" = 3, "default" = 50000, "minimum" = 1, "maximum" = 50000)
    )]
    pub(super) page_size: Option<u32>,
    #[serde(default)]
    #[schemars(
        with = "bool",
        title = "Read person properties",
        description = "Fill `person_properties` of events. It makes every query slower, because PostHog joins persons to events.",
        extend("order" = 4, "default" = false)
    )]
    pub(super) person_properties: Option<bool>,
}

/// Numbers, or texts that are numbers, since forms and Terraform like to send texts.
fn identifiers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u64>>, D::Error> {
    let Some(values) = Option::<Vec<Value>>::deserialize(deserializer)? else { return Ok(None) };
    let number = |value: &Value| match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    let wrong =
        |value| de::Error::custom(format!("`{value}` is not a project ID; it is the number in the project's address"));
    values.iter().map(|value| number(value).ok_or_else(|| wrong(value))).collect::<Result<_, _>>().map(Some)
}

/// The connector specification (`spec.json`), generated from the types above.
pub fn specification() -> Value {
    json!({
        "protocol_version": "0.2.0",
        "documentationUrl": "https://posthog.com/docs/api",
        "supportsIncremental": true,
        "connectionSpecification": form::schema::<RawConfig>(&[
            ("connection", "Connection"),
            ("data", "What to read"),
            ("method", "How to read it"),
            ("limits", "Limits"),
        ]),
    })
}
