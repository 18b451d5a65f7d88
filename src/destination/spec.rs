//! The configuration of the destination as users write it, and the specification that is generated
//! from it.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::form;
use crate::secret::Secret;

/// One to one with the JSON file; see [`super::config::Config`] for what it means.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(
    title = "Patterns destination",
    description = "Delivers records to a Patterns webhook, or to any webhook that takes a JSON array."
)]
pub(super) struct RawConfig {
    #[schemars(
        with = "String",
        required,
        title = "Webhook address",
        description = "In Patterns, add a webhook node to a graph and copy its address. Whoever knows it can send to it. On the command line, the environment variable PATTERNS_WEBHOOK_URL can supply it instead.",
        extend("airbyte_secret" = true, "order" = 0, "group" = "webhook", "examples" = ["https://api.patterns.app/api/app/webhooks/wh1234"])
    )]
    pub(super) webhook_url: Option<Secret>,
    #[serde(default)]
    #[schemars(
        with = "Shape",
        title = "Shape of records",
        description = "`data`: the record as it is. `posthog_app`: the keys that PostHog's own app for Patterns sent. `airbyte`: the record wrapped with its stream, namespace and time.",
        extend("order" = 1, "group" = "records", "default" = "data", "type" = "string")
    )]
    pub(super) record_shape: Option<Shape>,
    #[serde(default)]
    #[schemars(
        with = "String",
        title = "Only these events",
        description = "Exact names of the events to send, separated by commas. Leave it empty to send all. Other records than events are not filtered.",
        extend("order" = 2, "group" = "records", "examples" = ["$pageview, order completed"])
    )]
    pub(super) allowed_event_types: Option<Value>,
    #[serde(default)]
    #[schemars(
        title = "Batches",
        with = "RawBatch",
        extend("order" = 3, "group" = "delivery", "description" = "How many records go into one request.")
    )]
    pub(super) batch: Option<RawBatch>,
    #[serde(default)]
    #[schemars(
        title = "Retries",
        with = "RawRetry",
        extend("order" = 4, "group" = "delivery", "description" = "How long a request that fails is tried again.")
    )]
    pub(super) retry: Option<RawRetry>,
    #[serde(default)]
    #[schemars(
        with = "u32",
        title = "Request timeout (seconds)",
        description = "How long the webhook may take to answer.",
        extend("order" = 5, "group" = "delivery", "default" = 30, "minimum" = 1, "maximum" = 3600)
    )]
    pub(super) request_timeout_seconds: Option<u32>,
    #[serde(default)]
    #[schemars(
        with = "u32",
        title = "Requests at a time per stream",
        description = "With more than one, records of a stream may arrive in another order than they were read.",
        extend("order" = 6, "group" = "delivery", "default" = 1, "minimum" = 1, "maximum" = 32)
    )]
    pub(super) concurrency: Option<u32>,
    #[serde(default)]
    #[schemars(
        with = "Compression",
        title = "Compression",
        description = "Whether requests are compressed. Not every webhook understands it.",
        extend("order" = 7, "group" = "delivery", "default" = "none", "type" = "string")
    )]
    pub(super) compression: Option<Compression>,
    #[serde(default)]
    #[schemars(
        with = "String",
        title = "Bearer token",
        description = "Sent as `Authorization: Bearer …`.",
        extend("airbyte_secret" = true, "order" = 8, "group" = "webhook")
    )]
    pub(super) bearer_token: Option<Secret>,
    #[serde(default)]
    #[schemars(
        with = "Vec<RawHeader>",
        title = "More headers",
        description = "Headers to send with every request.",
        extend("order" = 9, "group" = "webhook")
    )]
    pub(super) headers: Option<Vec<RawHeader>>,
    #[serde(default)]
    #[schemars(
        with = "String",
        title = "Signing secret",
        description = "Requests are signed as Standard Webhooks describes (headers webhook-id, webhook-timestamp and webhook-signature). A secret that starts with `whsec_` is base64.",
        extend("airbyte_secret" = true, "order" = 10, "group" = "webhook")
    )]
    pub(super) signing_secret: Option<Secret>,
    #[serde(default)]
    #[schemars(
        with = "String",
        title = "File for refused records",
        description = "Records that the webhook refuses for good are appended to this file, and the sync goes on. Without it, the first refused record ends the sync.",
        extend("order" = 11, "group" = "delivery", "examples" = ["refused.jsonl"])
    )]
    pub(super) dead_letter_file: Option<String>,
    #[serde(default)]
    #[schemars(
        with = "bool",
        title = "Allow an unencrypted connection",
        description = "Allow an address with http:// that is not this machine.",
        extend("order" = 12, "group" = "webhook", "default" = false)
    )]
    pub(super) allow_http: Option<bool>,
}

/// What a record looks like in the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Shape {
    /// The record's data as it is.
    #[default]
    Data,
    /// The keys that PostHog's own app for Patterns sent.
    PosthogApp,
    /// The data wrapped with stream, namespace and time.
    Airbyte,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(super) struct RawBatch {
    #[serde(default)]
    #[schemars(
        with = "u32",
        title = "Records",
        description = "Most records per request.",
        extend("order" = 0, "default" = 500, "minimum" = 1, "maximum" = 100_000)
    )]
    pub(super) max_records: Option<u32>,
    #[serde(default)]
    #[schemars(
        with = "u32",
        title = "Bytes",
        description = "Most bytes per request, before compression. A larger record goes alone.",
        extend("order" = 1, "default" = 921_600, "minimum" = 1024, "maximum" = 104_857_600)
    )]
    pub(super) max_bytes: Option<u32>,
    #[serde(default)]
    #[schemars(
        with = "u32",
        title = "Age (milliseconds)",
        description = "How long a record waits for others.",
        extend("order" = 2, "default" = 1000, "minimum" = 0, "maximum" = 600_000)
    )]
    pub(super) max_age_ms: Option<u32>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(super) struct RawRetry {
    #[serde(default)]
    #[schemars(
        with = "u32",
        title = "Longest time (seconds)",
        description = "A batch that cannot be delivered in this time ends the sync.",
        extend("order" = 0, "default" = 600, "minimum" = 0, "maximum" = 86_400)
    )]
    pub(super) max_elapsed_seconds: Option<u32>,
    #[serde(default)]
    #[schemars(
        with = "u32",
        title = "First wait (milliseconds)",
        description = "The wait before the second attempt; it doubles from there, up to a minute.",
        extend("order" = 1, "default" = 1000, "minimum" = 1, "maximum" = 60_000)
    )]
    pub(super) first_wait_ms: Option<u32>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct RawHeader {
    #[schemars(title = "Name", description = "Name of the header.", extend("order" = 0))]
    pub(super) name: String,
    #[schemars(
        with = "String",
        title = "Value",
        description = "Value of the header.",
        extend("airbyte_secret" = true, "order" = 1)
    )]
    pub(super) value: Secret,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Compression {
    #[default]
    None,
    Gzip,
}

/// The connector specification (`destination-patterns-spec.json`), generated from the types above.
pub fn specification() -> Value {
    json!({
        "protocol_version": "0.2.0",
        "documentationUrl": "https://docs.airbyte.com/platform/understanding-airbyte/airbyte-protocol",
        "supportsIncremental": true,
        "supported_destination_sync_modes": ["append"],
        "connectionSpecification": form::schema::<RawConfig>(&[
            ("webhook", "Webhook"),
            ("records", "What to send"),
            ("delivery", "How to deliver it"),
        ]),
    })
}
