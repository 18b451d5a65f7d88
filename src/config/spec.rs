//! The configuration as users write it, and the specification that is generated from it.
//!
//! Doc comments are titles and descriptions: they and the other annotations become the form in
//! Airbyte's user interface and the tables in the documents. The conventions are those of Airbyte's
//! form builder (`order`, `group`, `oneOf` with one `const`, no `$ref`).

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Value, json};

use super::bounded::{Bounded, within};
use super::{base_url, form};
use crate::error::Error;
use crate::secret::Secret;

const DATE_PATTERN: &str = "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$";
const SETTLE: &str =
    "What PostHog has received in the newest minutes is left for the next sync, so that all of it is stored.";
/// The server silently answers with fewer rows when asked for more.
const MAX_PAGE_SIZE: u32 = 50_000;

/// One to one with the JSON file; see [`super::Config`] for what it means.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(
    title = "PostHog source",
    description = "Reads events, persons, sessions and more from PostHog.",
    extend("required" = ["api_key", "start_date"])
)]
pub(super) struct RawConfig {
    /// # Personal API key
    /// A personal API key (it starts with `phx_`) with the scopes `query:read`, `project:read` and, for
    /// file exports, `batch_export:write`. Create one in PostHog under Settings > Personal API keys. A
    /// project token (`phc_…`) does not work. On the command line, the environment variable
    /// POSTHOG_API_KEY can supply it instead.
    #[schemars(extend("order" = 0, "group" = "connection"))]
    pub(super) api_key: Option<Secret>,
    /// # PostHog URL
    /// Where you open PostHog in the browser: PostHog Cloud US, PostHog Cloud EU, or the URL of your own
    /// instance.
    #[serde(deserialize_with = "form::text")]
    #[schemars(extend("order" = 1, "group" = "connection", "always_show" = true, "default" = base_url::DEFAULT,
        "examples" = ["https://us.posthog.com", "https://eu.posthog.com", "https://posthog.example.com"]))]
    pub(super) base_url: Option<String>,
    /// # Start date
    /// Events with an earlier timestamp are not read. UTC.
    #[serde(deserialize_with = "form::text")]
    #[schemars(extend("order" = 2, "group" = "data", "format" = "date-time", "pattern" = DATE_PATTERN,
        "pattern_descriptor" = "YYYY-MM-DDTHH:mm:ssZ", "examples" = ["2026-01-01T00:00:00Z"]))]
    pub(super) start_date: Option<String>,
    /// # End date
    /// Events with this timestamp or a later one are not read. Leave it empty to keep reading new events.
    /// UTC.
    #[serde(deserialize_with = "form::text")]
    #[schemars(extend("order" = 3, "group" = "data", "format" = "date-time", "pattern" = DATE_PATTERN,
        "pattern_descriptor" = "YYYY-MM-DDTHH:mm:ssZ", "examples" = ["2026-07-01T00:00:00Z"]))]
    pub(super) end_date: Option<String>,
    /// # Project IDs
    /// IDs of the projects to read, as shown in PostHog under Settings > Project. Leave it empty to read
    /// every project that the key can access.
    #[serde(deserialize_with = "identifiers")]
    #[schemars(extend("order" = 4, "group" = "data", "examples" = [[12345]]))]
    pub(super) project_ids: Option<Vec<u64>>,
    /// # Only these events
    /// Exact names of the events to read. Leave it empty to read all.
    #[schemars(extend("order" = 5, "group" = "data", "examples" = [["$pageview", "order completed"]]))]
    pub(super) include_events: Option<Vec<String>>,
    /// # Exclude events
    /// Exact names of the events to leave out.
    #[schemars(extend("order" = 6, "group" = "data", "examples" = [["$feature_flag_called"]]))]
    pub(super) exclude_events: Option<Vec<String>>,
    /// # Read these days again
    /// Days of events that are read once more, such as 2026-05-14, or ranges of days, such as
    /// 2026-05-14/2026-05-20, both included. UTC. Each is read again once, by the next sync.
    #[schemars(extend("order" = 25, "group" = "data", "examples" = [["2026-05-14", "2026-05-20/2026-05-31"]]),
        inner(regex(pattern = "^[0-9]{4}-[0-9]{2}-[0-9]{2}(/[0-9]{4}-[0-9]{2}-[0-9]{2})?$")))]
    pub(super) reread_days: Option<Vec<String>>,
    /// # Method
    /// How events, persons and sessions are read.
    #[serde(deserialize_with = "form::or_default")]
    #[schemars(extend("type" = "object", "order" = 7, "group" = "method", "default" = {"type": "auto"}))]
    pub(super) method: RawMethod,
    /// # Share of the rate limits
    /// How much of PostHog's request limits (240 queries a minute, 2,400 an hour) this connector may
    /// use. Leave room for everything else that uses the same key.
    #[serde(deserialize_with = "form::or_default")]
    #[schemars(extend("order" = 8, "group" = "limits"))]
    pub(super) rate_limit_share: Share,
    /// # Parallel queries
    /// How many queries of a project run at a time. PostHog Cloud allows 3. Twice as many other requests run
    /// at a time.
    #[schemars(extend("order" = 9, "group" = "limits"))]
    pub(super) concurrency: Bounded<1, 32, 3>,
    /// # Allow an unencrypted connection
    /// Allow an http:// URL that does not point to this machine. The API key is then sent unencrypted.
    #[serde(deserialize_with = "form::or_default")]
    #[schemars(extend("order" = 10, "group" = "connection"))]
    pub(super) allow_http: bool,
    /// # Event properties as columns
    /// Names of event properties that become typed columns of `events`, called `property_<name>`. They
    /// stay in `properties` as well.
    #[schemars(extend("order" = 18, "group" = "data", "examples" = [["$browser", "plan"]]))]
    pub(super) event_property_columns: Option<Vec<String>>,
    /// # Person properties as columns
    /// Names of person properties that become typed columns of `persons`, called `property_<name>`.
    #[schemars(extend("order" = 19, "group" = "data", "examples" = [["email"]]))]
    pub(super) person_property_columns: Option<Vec<String>>,
    /// # Days per window
    /// Maximum number of days of events in one window. Windows are planned by the number of events; this
    /// setting only exists for configurations of Airbyte's own connector.
    #[schemars(extend("order" = 21, "group" = "limits", "airbyte_hidden" = true))]
    pub(super) events_time_step: Option<Bounded<1, 91>>,
    /// # Custom queries
    /// HogQL queries, each of which becomes a stream. `check` tests them. LIMIT and OFFSET are not
    /// allowed, because the connector does the paging.
    #[schemars(extend("order" = 20, "group" = "data"))]
    pub(super) custom_queries: Option<Vec<CustomQuery>>,
    // PostHog may wait 30 s for a free query slot, and self-hosted instances run queries for up to 60 s.
    /// # Read timeout (seconds)
    /// How long PostHog may send nothing in the middle of a response before the request is repeated.
    #[schemars(extend("order" = 11, "group" = "limits", "airbyte_hidden" = true))]
    pub(super) read_timeout_seconds: Bounded<1, 3_600, 120>,
    // With the waits of the retry policy, about 4 minutes.
    /// # Attempts
    /// Give up after this many failed attempts in a row.
    #[schemars(extend("order" = 12, "group" = "limits", "airbyte_hidden" = true))]
    pub(super) attempts: Bounded<1, 1_000, 10>,
    /// # Deadline of an export run (minutes)
    /// How long one file export may take. A run that takes longer is cancelled and started again in
    /// shorter parts.
    #[schemars(extend("order" = 22, "group" = "limits", "airbyte_hidden" = true))]
    pub(super) export_deadline_minutes: Bounded<1, 1_440, 30>,
    /// # Export above (events)
    /// Events are read by file exports when a sync has more of them to read than this, and by queries
    /// otherwise.
    #[schemars(extend("order" = 23, "group" = "limits", "airbyte_hidden" = true))]
    pub(super) export_above: Bounded<0, 1_000_000_000, 20_000>,
    /// # Parallel export runs
    /// How many file exports of a project run at a time. PostHog Cloud allows 20 in all.
    #[schemars(extend("order" = 24, "group" = "limits", "airbyte_hidden" = true))]
    pub(super) export_runs: Bounded<1, 20, 8>,
    /// # Most exported rows in a sync
    /// A sync ends with an error before it exports more rows than this, because PostHog may bill them. What
    /// has been read is kept, and the next sync goes on from there. Of persons, distinct ids and sessions,
    /// PostHog says only afterwards how many rows a run had, so the last run may pass the limit. Leave it
    /// empty for no limit.
    #[schemars(extend("order" = 26, "group" = "limits", "examples" = [5_000_000]))]
    pub(super) max_exported_rows: Option<Bounded<1, 4_000_000_000>>,
    /// # Event properties
    /// Which properties of events are emitted. Names can end with `*` for all that begin so, such as
    /// `$geoip_*`, and lead into objects with a dot, such as `address.street`.
    #[serde(deserialize_with = "form::or_default")]
    #[schemars(extend("type" = "object", "order" = 30, "group" = "data"))]
    pub(super) event_properties: RawPropertyRules,
    /// # Person properties
    /// Which properties of persons are emitted, also in `$set`, `$set_once` and `person_properties` of
    /// events.
    #[serde(deserialize_with = "form::or_default")]
    #[schemars(extend("type" = "object", "order" = 31, "group" = "data"))]
    pub(super) person_properties: RawPropertyRules,
    /// # Key of hashes
    /// The secret that values are hashed with (HMAC-SHA256), at least 16 characters. Equal values have
    /// equal hashes as long as the key stays the same. On the command line, the environment variable
    /// POSTHOG_HASH_KEY can supply it instead.
    #[schemars(extend("order" = 32, "group" = "data"))]
    pub(super) hash_key: Option<Secret>,
    /// # Include credentials
    /// Emit what somebody could do something with: `api_token` of `projects`, with which anybody can send
    /// events, and encrypted payloads of feature flags, which PostHog decrypts for API keys.
    #[serde(deserialize_with = "form::or_default")]
    #[schemars(extend("order" = 33, "group" = "data"))]
    pub(super) include_credentials: bool,
    /// # Condition on events
    /// A HogQL condition; only events that fulfil it are read. `check` tests it. Events are then read by query,
    /// because it cannot be applied to exported files. If it changes, all events that fulfil the new one are
    /// read.
    #[serde(deserialize_with = "form::text")]
    #[schemars(extend("order" = 34, "group" = "data", "multiline" = true,
        "examples" = ["properties.$host = 'example.com' AND NOT properties.is_test"]))]
    pub(super) event_filter: Option<String>,
}

/// What becomes of properties, by name.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(description = "")]
pub(super) struct RawPropertyRules {
    /// # Keep only
    /// Names of the properties to emit. Leave it empty to emit all.
    #[schemars(extend("order" = 0, "examples" = [["$current_url", "plan", "utm_*"]]))]
    pub(super) keep: Option<Vec<String>>,
    /// # Drop
    /// Names of the properties to leave out.
    #[schemars(extend("order" = 1, "examples" = [["$ip", "$geoip_*"]]))]
    pub(super) drop: Option<Vec<String>>,
    /// # Hash
    /// Names of the properties whose values are replaced by a hash.
    #[schemars(extend("order" = 2, "examples" = [["email"]]))]
    pub(super) hash: Option<Vec<String>>,
}

/// A part of the request limits, as the user wrote it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
pub(super) struct Share(#[schemars(range(min = Share::LEAST, max = Share::MOST))] f64);

impl Share {
    const LEAST: f64 = 0.05;
    const MOST: u8 = 1;

    /// The part, checked.
    pub(super) fn get(self, field: &str) -> Result<f64, Error> {
        within(field, self.0, Self::LEAST, Self::MOST.into())
    }
}

impl Default for Share {
    fn default() -> Self {
        Self(0.8)
    }
}

/// A query by the user that becomes a stream.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub struct CustomQuery {
    /// # Stream name
    /// Letters, digits and underscores.
    #[schemars(extend("order" = 0, "pattern" = "^[A-Za-z_][A-Za-z0-9_]*$", "examples" = ["pageviews_by_day"]))]
    pub name: String,
    /// # Query
    /// One SELECT without LIMIT and OFFSET.
    #[schemars(extend("order" = 1, "multiline" = true,
        "examples" = ["SELECT toDate(timestamp) AS day, event, count() AS total FROM events GROUP BY day, event"]))]
    pub query: String,
    /// # Primary key
    /// Columns that uniquely identify a row within a project.
    #[schemars(extend("order" = 2, "examples" = [["day", "event"]]))]
    pub primary_key: Vec<String>,
    /// # Cursor field
    /// A column (time, date or whole number) that only grows; incremental syncs read the rows from its
    /// last value on. Leave it empty to read all rows in every sync.
    #[serde(default, deserialize_with = "form::text")]
    #[schemars(extend("order" = 3, "examples" = ["day"]))]
    pub cursor_field: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum RawMethod {
    /// # Automatic
    /// File exports if the key has the scope `batch_export:write` and PostHog supports them, otherwise
    /// queries. `check` and the log show which one was chosen. PostHog may bill exported rows.
    Auto(RawAuto),
    /// # File exports
    /// PostHog's own way to move large amounts of data: it prepares files, which are then downloaded.
    /// Requires the scope `batch_export:write`. PostHog may bill exported rows.
    Export(RawExport),
    /// # Queries
    /// Read through PostHog's query API. Works with PostHog Cloud and self-hosted instances, and requires
    /// only the scope `query:read`.
    Query(RawQuery),
}

impl Default for RawMethod {
    fn default() -> Self {
        Self::Auto(RawAuto::default())
    }
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct RawAuto {
    #[serde(flatten)]
    #[schemars(skip)]
    pub(super) obsolete: Obsolete,
    /// # Ingestion delay (minutes)
    #[schemars(description = SETTLE, extend("order" = 1))]
    pub(super) settle_minutes: SettleMinutes,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct RawExport {
    /// # Ingestion delay (minutes)
    #[schemars(description = SETTLE, extend("order" = 1))]
    pub(super) settle_minutes: SettleMinutes,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct RawQuery {
    #[serde(flatten)]
    #[schemars(skip)]
    pub(super) obsolete: Obsolete,
    /// # Ingestion delay (minutes)
    #[schemars(description = SETTLE, extend("order" = 1))]
    pub(super) settle_minutes: SettleMinutes,
    /// # Rows per page
    /// Maximum number of rows per request. The connector requests fewer when PostHog rejects a page as
    /// too large.
    #[schemars(extend("order" = 3))]
    pub(super) page_size: Bounded<1, MAX_PAGE_SIZE, MAX_PAGE_SIZE>,
    /// # Read person properties
    /// Fill `person_properties` of events. This makes every query slower, because PostHog joins persons
    /// to events.
    #[serde(deserialize_with = "form::or_default")]
    #[schemars(extend("order" = 4))]
    pub(super) person_properties: bool,
}

pub(super) type SettleMinutes = Bounded<0, 1_440, 3>;

/// Settings of version 1 that have no effect any more: events are compared, and no lookback window is needed.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Obsolete {
    overlap_minutes: Option<Value>,
    late_window_days: Option<Value>,
}

/// Their names.
pub(super) const OBSOLETE: [&str; 2] = ["method.overlap_minutes", "method.late_window_days"];

impl Obsolete {
    /// The settings that are there.
    pub(super) fn names(&self) -> Vec<&'static str> {
        OBSOLETE
            .into_iter()
            .zip([&self.overlap_minutes, &self.late_window_days])
            .filter(|(_, value)| value.is_some())
            .map(|(name, _)| name)
            .collect()
    }
}

/// Numbers, or strings that contain numbers, because forms and Terraform often send strings.
fn identifiers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u64>>, D::Error> {
    let Some(values) = Option::<Vec<Value>>::deserialize(deserializer)? else { return Ok(None) };
    let number = |value: &Value| match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    let wrong = || de::Error::custom("a project ID is the number in the project's URL");
    values.iter().map(|value| number(value).ok_or_else(wrong)).collect::<Result<_, _>>().map(Some)
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
