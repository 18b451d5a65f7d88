//! The configuration of the destination as users write it, and the specification that is generated
//! from it. Doc comments are titles and descriptions, in the form and in the tables of the documents.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::bounded::Bounded;
use crate::config::form;
use crate::secret::Secret;

/// One to one with the JSON file; see [`super::config::WebhookConfig`] for what it means.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(
    title = "Patterns destination",
    description = "Delivers records to a Patterns webhook, or to any webhook that takes a JSON array.",
    extend("required" = ["webhook_url"])
)]
pub(super) struct RawWebhookConfig {
    /// # Webhook URL
    /// In Patterns, add a webhook node to a graph and copy its URL. Anyone who knows it can send to it.
    /// On the command line, the environment variable PATTERNS_WEBHOOK_URL can supply it instead.
    #[schemars(extend("order" = 0, "group" = "webhook",
        "examples" = ["https://api.patterns.app/api/app/webhooks/wh1234"]))]
    pub(super) webhook_url: Option<Secret>,
    /// # Shape of records
    /// `data`: the record unchanged. `posthog_app`: the fields that PostHog's own app for Patterns sent.
    /// `airbyte`: the record wrapped with its stream, namespace and time.
    #[serde(deserialize_with = "form::or_default")]
    #[schemars(extend("order" = 1, "group" = "records"))]
    pub(super) record_shape: Shape,
    /// # Only these events
    /// Exact names of the events to send, separated by commas. Leave it empty to send all. Records
    /// other than events are not filtered.
    #[schemars(with = "String", extend("order" = 2, "group" = "records", "examples" = ["$pageview, order completed"]))]
    pub(super) allowed_event_types: Option<Value>,
    /// # Batches
    /// How records are grouped into requests.
    #[schemars(extend("order" = 3, "group" = "delivery"))]
    pub(super) batch: Option<RawBatch>,
    /// # Retries
    /// How failed requests are retried.
    #[schemars(extend("order" = 4, "group" = "delivery"))]
    pub(super) retry: Option<RawRetry>,
    /// # Request timeout (seconds)
    /// How long the webhook may take to respond.
    #[schemars(extend("order" = 5, "group" = "delivery"))]
    pub(super) request_timeout_seconds: Bounded<1, 3_600, 30>,
    /// # Parallel requests per stream
    /// With more than one, records of a stream may arrive out of order.
    #[schemars(extend("order" = 6, "group" = "delivery"))]
    pub(super) concurrency: Bounded<1, 32, 1>,
    /// # Compression
    /// Whether requests are compressed. Not every webhook supports it.
    #[serde(deserialize_with = "form::or_default")]
    #[schemars(extend("order" = 7, "group" = "delivery"))]
    pub(super) compression: Compression,
    /// # Bearer token
    /// Sent as `Authorization: Bearer …`.
    #[schemars(extend("order" = 8, "group" = "webhook"))]
    pub(super) bearer_token: Option<Secret>,
    /// # Additional headers
    /// Headers to send with every request.
    #[schemars(extend("order" = 9, "group" = "webhook"))]
    pub(super) headers: Option<Vec<RawHeader>>,
    /// # Signing secret
    /// Requests are signed according to Standard Webhooks (headers webhook-id, webhook-timestamp and
    /// webhook-signature). A secret that starts with `whsec_` is base64.
    #[schemars(extend("order" = 10, "group" = "webhook"))]
    pub(super) signing_secret: Option<Secret>,
    /// # Dead-letter file
    /// Records that the webhook permanently rejects are appended to this file, and the sync continues.
    /// Without it, the first rejected record ends the sync.
    #[serde(deserialize_with = "form::text")]
    #[schemars(extend("order" = 11, "group" = "delivery", "examples" = ["rejected.jsonl"]))]
    pub(super) dead_letter_file: Option<String>,
    /// # Dead letters before the first accepted record
    /// Maximum number of records that go to the dead-letter file while the webhook has not accepted any record
    /// in this sync. One more ends the sync: a wrong URL or secret is more likely then than so many bad records.
    #[schemars(extend("order" = 13, "group" = "delivery"))]
    pub(super) dead_letter_limit: Bounded<1, 1_000_000, 20>,
    /// # Allow an unencrypted connection
    /// Allow an http:// URL that does not point to this machine.
    #[serde(deserialize_with = "form::or_default")]
    #[schemars(extend("order" = 12, "group" = "webhook"))]
    pub(super) allow_http: bool,
}

/// What a record looks like in the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Shape {
    /// The record's data unchanged.
    #[default]
    Data,
    /// The fields that PostHog's own app for Patterns sent.
    PosthogApp,
    /// The data wrapped with stream, namespace and time.
    Airbyte,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct RawBatch {
    // Each request may start a run of the nodes behind the webhook, so many small ones are expensive.
    /// # Records
    /// Maximum number of records per request.
    #[schemars(extend("order" = 0))]
    pub(super) max_records: Bounded<1, 100_000, 500>,
    // What PostHog used to send to Patterns in one request: 900 KiB.
    /// # Bytes
    /// Maximum size of a request, before compression. A larger record is sent on its own.
    #[schemars(extend("order" = 1))]
    pub(super) max_bytes: Bounded<1_024, 104_857_600, 921_600>,
    /// # Maximum age (milliseconds)
    /// How long a record waits for the batch to fill.
    #[schemars(extend("order" = 2))]
    pub(super) max_age_ms: Bounded<0, 600_000, 1_000>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct RawRetry {
    /// # Maximum time (seconds)
    /// A batch that cannot be delivered in this time ends the sync.
    #[schemars(extend("order" = 0))]
    pub(super) max_elapsed_seconds: Bounded<0, 86_400, 600>,
    /// # Initial wait (milliseconds)
    /// The wait before the second attempt; it doubles with each further attempt, up to a minute.
    #[schemars(extend("order" = 1))]
    pub(super) first_wait_ms: Bounded<1, 60_000, 1_000>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct RawHeader {
    /// # Name
    /// Name of the header.
    #[schemars(extend("order" = 0))]
    pub(super) name: String,
    /// # Value
    /// Value of the header.
    #[schemars(extend("order" = 1))]
    pub(super) value: Secret,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
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
        "connectionSpecification": form::schema::<RawWebhookConfig>(&[
            ("webhook", "Webhook"),
            ("records", "What to send"),
            ("delivery", "How to deliver it"),
        ]),
    })
}
