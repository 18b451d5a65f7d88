//! The configuration of the destination, checked.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use super::credentials::{bearer_token, parts_of_header, signing_key};
use super::spec::{Compression, RawHeader, RawWebhookConfig, Shape};
use super::webhook_url::WebhookUrl;
use crate::config::form;
use crate::error::Error;
use crate::json_text::kind;
use crate::secret::Secret;

/// Environment variable that supplies the webhook's URL when the file has none.
pub const WEBHOOK_URL_VARIABLE: &str = "PATTERNS_WEBHOOK_URL";
/// Environment variable that supplies the bearer token when the file has none.
pub(super) const BEARER_TOKEN_VARIABLE: &str = "PATTERNS_BEARER_TOKEN";
/// Environment variable that supplies the signing secret when the file has none.
pub(super) const SIGNING_SECRET_VARIABLE: &str = "PATTERNS_SIGNING_SECRET";

/// A configuration that has been checked.
#[derive(Debug)]
pub(super) struct WebhookConfig {
    /// The webhook's URL, which is also its password.
    pub(super) webhook: WebhookUrl,
    /// What a record looks like in the request.
    pub(super) shape: Shape,
    /// Exact names of the events to send; all when absent.
    pub(super) allowed: Option<Vec<String>>,
    /// Most records per request.
    pub(super) max_records: usize,
    /// Most bytes per request, unless a record alone is larger.
    pub(super) max_bytes: usize,
    /// Longest wait of a record for others.
    pub(super) max_age: Duration,
    /// Longest time for one attempt.
    pub(super) request_timeout: Duration,
    /// Longest time for one batch, all attempts together.
    pub(super) max_elapsed: Duration,
    /// Wait before the second attempt.
    pub(super) first_wait: Duration,
    /// Requests in flight per stream.
    pub(super) concurrency: usize,
    /// Whether bodies are compressed with gzip.
    pub(super) gzip: bool,
    /// Headers that the user wants, credentials included.
    pub(super) headers: HeaderMap,
    pub(super) signing_key: Option<SigningKey>,
    /// File for rejected records; without it, the first one ends the sync.
    pub(super) dead_letter_file: Option<PathBuf>,
    /// Most records that may be rejected before the first is accepted.
    pub(super) dead_letter_limit: usize,
}

/// The key of a signature, which cannot be printed.
#[derive(Clone)]
pub(super) struct SigningKey(pub(super) Vec<u8>);

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("[secret]")
    }
}

impl WebhookConfig {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// A config error that names the field and the fix.
    pub(super) fn from_file(path: &Path) -> Result<Self, Error> {
        Self::parse(&form::file(path)?, |variable| std::env::var(variable).ok())
    }

    /// Reads the JSON text of a configuration; `environment` supplies the secrets that it lacks, by
    /// the names of the variables.
    ///
    /// # Errors
    /// A config error that names the field and the fix.
    pub(super) fn parse(text: &[u8], environment: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let raw: RawWebhookConfig = form::read(text)?;
        let secret = |field: &str, configured: Option<Secret>, variable: &str| {
            form::secret(field, configured, variable, environment(variable).as_deref())
        };
        let url = secret("webhook_url", raw.webhook_url, WEBHOOK_URL_VARIABLE)?.ok_or_else(|| {
            Error::config(format!(
                "`webhook_url` is missing; set it, or the environment variable {WEBHOOK_URL_VARIABLE}"
            ))
        })?;
        let bearer = secret("bearer_token", raw.bearer_token, BEARER_TOKEN_VARIABLE)?;
        let signing_secret = secret("signing_secret", raw.signing_secret, SIGNING_SECRET_VARIABLE)?;
        let more = raw.headers.unwrap_or_default();
        let parts: Vec<String> = more.iter().flat_map(|header| parts_of_header(header.value.expose())).collect();
        let batch = raw.batch.unwrap_or_default();
        let retry = raw.retry.unwrap_or_default();
        Ok(Self {
            webhook: WebhookUrl::new(&url, raw.allow_http)?.with_header_parts(&parts),
            shape: raw.record_shape,
            allowed: allowed(raw.allowed_event_types.as_ref())?,
            max_records: batch.max_records.get("batch.max_records")? as usize,
            max_bytes: batch.max_bytes.get("batch.max_bytes")? as usize,
            max_age: batch.max_age_ms.milliseconds("batch.max_age_ms")?,
            request_timeout: raw.request_timeout_seconds.seconds("request_timeout_seconds")?,
            max_elapsed: retry.max_elapsed_seconds.seconds("retry.max_elapsed_seconds")?,
            first_wait: retry.first_wait_ms.milliseconds("retry.first_wait_ms")?,
            concurrency: raw.concurrency.get("concurrency")? as usize,
            gzip: raw.compression == Compression::Gzip,
            headers: headers(bearer.as_ref(), &more)?,
            signing_key: signing_secret.as_ref().map(signing_key).transpose()?.map(SigningKey),
            dead_letter_file: raw.dead_letter_file.map(PathBuf::from),
            dead_letter_limit: raw.dead_letter_limit.get("dead_letter_limit")? as usize,
        })
    }
}

/// The allow-list of PostHog's app was a text with commas; an array is accepted as well.
fn allowed(value: Option<&Value>) -> Result<Option<Vec<String>>, Error> {
    let names: Vec<&str> = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) if text.is_empty() => return Ok(None),
        Some(Value::String(text)) => text.split(',').collect(),
        Some(Value::Array(list)) if list.is_empty() => return Ok(None),
        Some(Value::Array(list)) => list
            .iter()
            .enumerate()
            .map(|(index, name)| {
                name.as_str().ok_or_else(|| {
                    Error::config(format!("`allowed_event_types[{index}]` is {}, not a name", kind(name)))
                })
            })
            .collect::<Result<_, _>>()?,
        Some(other) => {
            return Err(Error::config(format!(
                "`allowed_event_types` is {}; write names separated by commas",
                kind(other)
            )));
        }
    };
    let names: Vec<String> =
        names.into_iter().map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    if names.is_empty() {
        return Err(Error::config(
            "`allowed_event_types` names no event, so nothing would be sent; remove it to send all, or name some",
        ));
    }
    Ok(Some(names))
}

fn headers(bearer: Option<&Secret>, more: &[RawHeader]) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    let mut set = |field: &str, name: &str, value: &str| -> Result<(), Error> {
        let wrong = || {
            Error::config(format!(
                "`{field}` cannot be sent as a header; its name must be one word, and its value must have no line breaks"
            ))
        };
        let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| wrong())?;
        let mut value = HeaderValue::from_str(value).map_err(|_| wrong())?;
        value.set_sensitive(true);
        headers.insert(name, value);
        Ok(())
    };
    if let Some(token) = bearer {
        set("bearer_token", "authorization", &format!("Bearer {}", bearer_token(token)?.expose()))?;
    }
    for (index, header) in more.iter().enumerate() {
        set(&format!("headers[{index}]"), &header.name, header.value.expose())?;
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<WebhookConfig, Error> {
        WebhookConfig::parse(text.as_bytes(), |_| None)
    }

    #[test]
    fn defaults_and_bounds_are_those_of_the_specification() {
        let base = serde_json::json!({"webhook_url": "https://example.com/x"});
        form::tests::assert_kept(&crate::destination::specification(), &base, |text| {
            WebhookConfig::parse(text, |_| None).map(|config| format!("{config:?}"))
        });
    }

    #[test]
    fn secrets_are_not_shown() {
        let config = parse(
            r#"{"webhook_url":"https://api.example.com/hooks/s3cret","bearer_token":"t0ken","signing_secret":"whsec_c2VjcmV0","headers":[{"name":"X-Key","value":"hidden"}]}"#,
        )
        .unwrap();
        let shown = format!("{config:?}");
        for secret in ["s3cret", "t0ken", "hidden", "c2VjcmV0", "115, 101"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert_eq!(config.webhook.to_string(), "https://api.example.com/…");
        assert_eq!(config.signing_key.unwrap().0, b"secret");
    }

    #[test]
    fn the_allow_list_is_a_text_or_an_array() {
        let allowed = |list: &str| {
            parse(&format!(r#"{{"webhook_url":"https://example.com/x","allowed_event_types":{list}}}"#))
                .map(|config| config.allowed)
        };
        let both = Some(vec!["$pageview".to_owned(), "Sign Up".to_owned()]);
        assert_eq!(allowed(r#"" $pageview, Sign Up ,""#).unwrap(), both);
        assert_eq!(allowed(r#"["$pageview","Sign Up"]"#).unwrap(), both);
        assert_eq!(allowed("\"\"").unwrap(), None);
        assert_eq!(allowed("null").unwrap(), None);
        for blank in ["\" \"", "\",\"", "\" , ,\"", "[\" \"]", "5", "[5]"] {
            assert!(allowed(blank).is_err(), "{blank}");
        }
    }

    #[test]
    fn config_errors_name_the_field_and_never_the_address() {
        for (text, expected) in [
            ("{}", "`webhook_url` is missing"),
            (r#"{"webhook_url":"s3cret"}"#, "`webhook_url` is not a valid URL"),
            (r#"{"webhook_url":"http://example.com/s3cret"}"#, "allow_http"),
            (r#"{"webhook_url":"ftp://example.com/s3cret"}"#, "`webhook_url`"),
            (r#"{"webhook_url":"https://e.com/x","batch":{"max_records":0}}"#, "`batch.max_records`"),
            (r#"{"webhook_url":"https://e.com/x","record_shape":"xml"}"#, "`record_shape`"),
            (r#"{"webhook_url":"https://e.com/x","headers":[{"name":"a: s3cret","value":"s3cret"}]}"#, "`headers[0]`"),
            (r#"{"webhook_url":"https://e.com/x","allowed_event_types":[{"s3cret":1}]}"#, "`allowed_event_types[0]`"),
            (r#"{"webhook_url":"https://e.com/x","allowed_event_types":{"s3cret":1}}"#, "`allowed_event_types`"),
            (r#"{"webhook_url":"https://e.com/x","concurrency":"s3cret"}"#, "`concurrency`"),
            (r#"{"webhook_url":"https://e.com/x","compression":"s3cret"}"#, "`compression`"),
            (r#""https://e.com/s3cret""#, "the configuration is a string"),
            (r#"{"webhook_url":"https://e.com/x","signing_secret":"whsec_!s3cret"}"#, "`signing_secret`"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.message().contains(expected), "{text}: {error}");
            assert!(!error.message().contains("s3cret"), "{error}");
        }
    }
}
