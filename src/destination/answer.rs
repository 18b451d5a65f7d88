//! What an answer of the webhook means.

use std::time::Duration;

use chrono::Utc;
use reqwest::StatusCode;
use reqwest::header::{ALLOW, HeaderMap, LOCATION};
use serde_json::Value;
use url::Url;

use super::config::WebhookConfig;
use crate::error::Error;
use crate::json_text::without_byte_order_mark;
use crate::net::{proxy_refusal, retry_after};

/// What to do after a response of the webhook.
pub(super) enum RetryAction {
    Accepted,
    /// Try again, at the earliest after this time.
    Retry {
        wait: Option<Duration>,
        reason: String,
    },
    /// Fewer records might pass.
    TooLarge {
        status: u16,
        reason: String,
    },
    /// Not now and not later. With 400 and 422, one of the records might be the reason.
    Rejected {
        status: u16,
        reason: String,
    },
    /// The URL, the credentials or the method is wrong.
    Fatal(Error),
}

/// Whether the body of a successful answer says that it is none. Many interfaces answer 200 to everything;
/// only what cannot mean anything else counts.
pub(super) fn says_failed(body: &[u8]) -> bool {
    let Ok(Value::Object(fields)) = serde_json::from_slice(without_byte_order_mark(body)) else { return false };
    fields.iter().any(|(name, value)| match name.to_ascii_lowercase().as_str() {
        "ok" | "success" | "succeeded" => is_false(value),
        "error" | "errors" => is_some_failure(value),
        "status" | "result" => is_failure(value),
        // What a function behind a gateway meant to be the status.
        "statuscode" => value.as_u64().is_some_and(|code| (400..600).contains(&code)),
        // Collections of Amazon and others accept some records and count the rest.
        "failed" | "failures" | "rejected" | "failedputcount" | "failedrecordcount" | "failedentrycount" => {
            !value.is_string() && is_some_failure(value)
        }
        _ => false,
    })
}

fn is_false(value: &Value) -> bool {
    *value == Value::Bool(false) || value.as_str().is_some_and(|text| text.eq_ignore_ascii_case("false"))
}

fn is_failure(value: &Value) -> bool {
    let status = value.as_str().unwrap_or_default().to_ascii_lowercase();
    matches!(status.as_str(), "error" | "fail" | "failed" | "failure")
}

/// Whether there is a failure, or a number of failures that is not zero.
fn is_some_failure(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(failed) => *failed,
        Value::Number(count) => count.as_f64() != Some(0.0),
        Value::String(text) => !text.trim().is_empty(),
        Value::Array(errors) => !errors.is_empty(),
        Value::Object(error) => !error.is_empty(),
    }
}

/// Whether an answer is a page for people: what servers show for an unknown URL.
pub(super) fn is_web_page(body: &[u8]) -> bool {
    let begin: Vec<u8> = body.trim_ascii_start().iter().take(14).map(u8::to_ascii_lowercase).collect();
    begin.starts_with(b"<!doctype html") || begin.starts_with(b"<html")
}

/// The error for a successful answer whose body says that it is none.
pub(super) fn failed_in_body(status: StatusCode, excerpt: &str) -> Error {
    Error::system(format!(
        "the webhook responded with {}, but its body says that it failed: {excerpt}. The batch counts as not delivered; the next sync sends it again. If the webhook has accepted it, correct its response",
        status.as_u16()
    ))
}

/// What a status other than success means.
pub(super) fn retry_action(
    config: &WebhookConfig,
    status: StatusCode,
    headers: &HeaderMap,
    excerpt: &str,
) -> RetryAction {
    let code = status.as_u16();
    let reason = format!("status {code} {excerpt}").trim_end().to_owned();
    let fatal = |text: String| RetryAction::Fatal(Error::config(text).with_details(reason.clone()));
    match code {
        207 => fatal(
            "the webhook responded with 207 (Multi-Status), which does not confirm that every record was accepted; make it accept or reject each request as a whole"
                .to_owned(),
        ),
        304 => fatal(
            "the webhook responded with 304 (Not Modified), which says nothing about the records; check `webhook_url`"
                .to_owned(),
        ),
        300..=399 => fatal(redirect_to(
            config.webhook.expose(),
            headers.get(LOCATION).and_then(|location| location.to_str().ok()),
        )),
        401 | 403 => fatal("the webhook denies access; check `bearer_token`, `headers` and `webhook_url`".to_owned()),
        402 => fatal(
            "the webhook asks for payment (402): a quota is probably used up; see the account of the receiver".to_owned(),
        ),
        404 | 410 => fatal(
            "there is no such webhook (any more); copy the URL of the webhook node to `webhook_url` again".to_owned(),
        ),
        405 => {
            let allowed = headers.get(ALLOW).and_then(|methods| methods.to_str().ok()).unwrap_or_default();
            let allowed = if allowed.is_empty() { String::new() } else { format!(", only {}", config.webhook.redact(allowed)) };
            fatal(format!(
                "`webhook_url` does not accept POST requests{allowed}: it is a web page or another endpoint; copy the URL of the webhook node again"
            ))
        }
        407 => fatal(proxy_refusal()),
        411 => fatal(
            "the webhook reports a missing `Content-Length` (411), although it was sent: a proxy in between removes it; bypass the proxy (`NO_PROXY`)"
                .to_owned(),
        ),
        415 if config.gzip => fatal(
            "the webhook does not accept gzip-compressed JSON; set `compression` to `none`".to_owned(),
        ),
        415 => fatal(
            "the webhook does not accept JSON (`Content-Type: application/json`); check `webhook_url`"
                .to_owned(),
        ),
        413 => RetryAction::TooLarge { status: code, reason },
        // What is locked, misdirected or given up by a proxy is free later.
        408 | 409 | 421 | 423..=425 | 429 | 499 | 500 | 502..=504 | 506..=599 => {
            RetryAction::Retry { wait: retry_after(headers, Utc::now()), reason }
        }
        // 400, 422, other 4xx, 501 and 505.
        _ => RetryAction::Rejected { status: code, reason },
    }
}

/// What differs between the webhook's URL and where it redirects to. Paths are secrets.
fn redirect_to(from: &Url, location: Option<&str>) -> String {
    let Some(to) = location.and_then(|location| from.join(location).ok()) else {
        return "the webhook redirects without a valid target; check `webhook_url`".to_owned();
    };
    let same_place = |url: &Url| (url.host_str().map(str::to_owned), url.port_or_known_default());
    if to.host_str() == from.host_str() && to.scheme() != from.scheme() {
        return format!("the webhook redirects to {}://; begin `webhook_url` with it", to.scheme());
    }
    if to.origin().is_tuple() && same_place(&to) != same_place(from) {
        return format!(
            "the webhook redirects to {}; set `webhook_url` to the final URL",
            to.origin().ascii_serialization()
        );
    }
    let (known, new) = (from.path(), to.path());
    if known != new && known.trim_end_matches('/') == new.trim_end_matches('/') {
        let with = if new.ends_with('/') { "with" } else { "without" };
        return format!("the webhook redirects to the same URL {with} a trailing slash; change `webhook_url` to match");
    }
    let what = match (known == new, from.query() == to.query()) {
        (false, _) => "another path",
        (true, false) => "other parameters",
        (true, true) => return "the webhook redirects to itself; check `webhook_url`".to_owned(),
    };
    format!("the webhook redirects to {what}; set `webhook_url` to the final URL")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_told_apart() {
        let config = WebhookConfig::parse(br#"{"webhook_url":"https://example.com/x"}"#, |_| None).unwrap();
        let kind = |code: u16| match retry_action(&config, StatusCode::from_u16(code).unwrap(), &HeaderMap::new(), "") {
            RetryAction::Accepted => "accepted",
            RetryAction::Retry { .. } => "again",
            RetryAction::TooLarge { .. } => "too large",
            RetryAction::Rejected { .. } => "rejected",
            RetryAction::Fatal(_) => "wrong",
        };
        for (codes, expected) in [
            (&[408u16, 409, 421, 423, 424, 425, 429, 499, 500, 502, 503, 504, 507, 520, 599][..], "again"),
            (&[413], "too large"),
            (&[400, 406, 422, 451, 501, 505], "rejected"),
            (&[207, 300, 301, 302, 304, 307, 308, 401, 402, 403, 404, 405, 410, 411, 415], "wrong"),
        ] {
            for code in codes {
                assert_eq!(kind(*code), expected, "{code}");
            }
        }
    }

    #[test]
    fn a_body_says_that_it_failed_in_clear_shapes_only() {
        for failed in [
            r#"{"ok":false}"#,
            r#"{"success":false,"message":"no"}"#,
            r#"{"error":"rate_limited"}"#,
            r#"{"error":{"code":5}}"#,
            r#"{"errors":true,"items":[]}"#,
            r#"{"success":true,"errors":[{"index":3}]}"#,
            r#"{"Success":false}"#,
            r#"{"success":"false"}"#,
            r#"{"result":"error"}"#,
            r#"{"errors":2}"#,
            r#"{"statusCode":500,"body":"x"}"#,
            r#"{"FailedPutCount":1,"RequestResponses":[]}"#,
            r#"{"accepted":3,"rejected":2}"#,
            "\u{feff}{\"status\":\"Error\"}",
        ] {
            assert!(says_failed(failed.as_bytes()), "{failed}");
        }
        for accepted in [
            "",
            "ok",
            "false",
            "<html>error</html>",
            "[]",
            r#"{"status":"ok"}"#,
            r#"{"ok":true,"error":null,"errors":[]}"#,
            r#"{"error":"","errors":false}"#,
            r#"{"error":0,"status":1}"#,
            r#"{"result":{"error":1},"code":500,"statusCode":200}"#,
            r#"{"failed":0,"rejected":[],"failures":"none"}"#,
            r#"{"records":[{"ok":false}],"message":"error"}"#,
            r#"{"ok":false"#,
        ] {
            assert!(!says_failed(accepted.as_bytes()), "{accepted}");
        }
    }

    #[test]
    fn a_redirect_says_what_differs() {
        let from = Url::parse("http://a.example/hooks/s3cret").unwrap();
        for (to, expected) in [
            ("/hooks/s3cret/", "a trailing slash"),
            ("http://a.example/hooks/s3cret/", "a trailing slash"),
            ("https://a.example/hooks/s3cret", "https://"),
            ("https://b.example/hooks/s3cret", "https://b.example"),
            ("/login", "another path"),
            ("?x=1", "other parameters"),
            ("s3cret", "itself"),
        ] {
            let message = redirect_to(&from, Some(to));
            assert!(message.contains(expected) && !message.contains("s3cret"), "{to}: {message}");
        }
        let message = redirect_to(&Url::parse("http://a.example/hooks/s3cret/").unwrap(), Some("/hooks/s3cret"));
        assert!(message.contains("without a trailing slash"), "{message}");
        assert!(redirect_to(&from, None).contains("without a valid target"));
    }
}
