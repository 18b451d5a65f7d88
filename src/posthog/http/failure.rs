//! What a failed request means for its caller: ask again, ask for less, or give up.

use std::time::Duration;

use chrono::Utc;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;

use super::rate_limit::Class;
use super::refusal::{Reason, Refusal, Report};
use crate::error::Error;
use crate::net::{BodyError, connection_advice, describe, retry_after};

/// A gateway that waits for a query gives up later than this; one without a server behind it, much earlier.
const TOOK_TIME: Duration = Duration::from_secs(5);

/// Why a request has not given what was asked for.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failure {
    /// Neither waiting nor asking for less can help, and it is not `PostHog` that refuses: no usable
    /// connection, or stdout has been closed.
    #[error("{0}")]
    Fatal(Error),
    /// The server has refused the request for good (4xx).
    #[error("{0}")]
    Refused(Refusal),
    /// A limit is used up. All requests of its class wait for `pause`; without one, the caller backs off.
    #[error("{message}")]
    Throttled {
        /// Whose limit it is.
        class: Class,
        /// What the server asked for.
        pause: Option<Duration>,
        /// The server's message.
        message: String,
    },
    /// The query takes too long or too much memory: ask for fewer rows or a smaller window.
    #[error("{message}")]
    TooLarge {
        /// The server's message.
        message: String,
    },
    /// A later attempt can succeed.
    #[error("{message}")]
    Transient {
        /// What happened.
        message: String,
        /// Whether a gateway gave up waiting: when it does so again, the query is too large.
        perhaps_too_large: bool,
    },
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Fatal(error)
    }
}

impl Failure {
    /// A failure that a retry can cure.
    pub fn transient(message: impl Into<String>) -> Self {
        Self::Transient { message: message.into(), perhaps_too_large: false }
    }

    /// A failure on the way: no connection, a cut or stalled body, an undecodable one.
    pub fn from_transport(error: reqwest::Error) -> Self {
        let (is_builder, is_connect) = (error.is_builder(), error.is_connect());
        let known = connection_advice(&error, "the server at `base_url`");
        let mut message = describe(error);
        if let Some(known) = known {
            return Self::Fatal(known.with_details(message));
        }
        if is_builder {
            return Self::Fatal(
                Error::config("the request could not be built; check `base_url` and `api_key`").with_details(message),
            );
        }
        if is_connect {
            message = format!("no connection to `base_url`: {message}");
        }
        Self::transient(message)
    }

    /// A body that broke off.
    pub(super) fn from_body(error: BodyError) -> Self {
        match error {
            BodyError::Transport(error) => Self::from_transport(error),
            BodyError::TooSlow => Self::transient("the response comes too slowly"),
            BodyError::Packed(error) => Self::transient(format!("the response cannot be unpacked: {error}")),
        }
    }

    /// What `status` and the beginning of the body mean; `elapsed` is how long the response took to begin.
    pub(super) fn from_response(
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
        path: &str,
        class: Class,
        elapsed: Duration,
    ) -> Self {
        let report = Report::read(body);
        let message = report.summary(status);
        match status.as_u16() {
            429 => match Refusal::new(status, &report, path) {
                refusal if refusal.reason == Reason::TooManyRuns => Self::Refused(refusal),
                _ => Self::Throttled { class, pause: retry_after(headers, Utc::now()), message },
            },
            400 if report.code == "too_many_bytes" => Self::TooLarge { message },
            504 if report.is_posthog => Self::TooLarge { message },
            513 if report.detail.contains("heavy load") => Self::transient(message),
            512 | 513 => Self::TooLarge { message },
            // A gateway's own. Only what can be asked for less of, and took long, may have been too large.
            502..=504 | 520..=526 if !report.is_posthog => {
                Self::Transient { message, perhaps_too_large: matches!(class, Class::Query(_)) && elapsed >= TOOK_TIME }
            }
            408 | 425 | 500..=599 => Self::transient(message),
            _ => Self::Refused(Refusal::new(status, &report, path)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(code: &str, detail: &str) -> String {
        serde_json::json!({"type": "x", "code": code, "detail": detail, "attr": null}).to_string()
    }

    fn kind(status: u16, body: &str, class: Class, elapsed: Duration) -> &'static str {
        let status = StatusCode::from_u16(status).unwrap();
        match Failure::from_response(status, &HeaderMap::new(), body.as_bytes(), "/", class, elapsed) {
            Failure::Fatal(_) => "fatal",
            Failure::Refused(_) => "refused",
            Failure::Throttled { .. } => "throttled",
            Failure::TooLarge { .. } => "too large",
            Failure::Transient { perhaps_too_large: true, .. } => "gateway",
            Failure::Transient { .. } => "transient",
        }
    }

    #[test]
    fn statuses_are_classified() {
        let html = "<html><title>502 Bad Gateway</title></html>";
        for (status, body, expected) in [
            (400, json("invalid_input", "Syntax error"), "refused"),
            (400, json("invalid_input", "Unable to resolve field: last_seen_at"), "refused"),
            (400, json("too_many_bytes", "…"), "too large"),
            (401, json("authentication_failed", "invalid"), "refused"),
            (402, json("quota_limit_exceeded", "…"), "refused"),
            (403, json("permission_denied", "API key missing required scope 'query:read'"), "refused"),
            (404, json("not_found", "Not found."), "refused"),
            (404, html.to_owned(), "refused"),
            (408, String::new(), "transient"),
            (429, json("throttled", "…"), "throttled"),
            (500, html.to_owned(), "transient"),
            (502, html.to_owned(), "gateway"),
            (503, json("error", "Queries are a little too busy right now"), "transient"),
            (504, json("error", "Query has hit the max execution time"), "too large"),
            (504, html.to_owned(), "gateway"),
            (512, json("estimated", "too long"), "too large"),
            (513, json("clickhouse_memory_limit_exceeded", "This query ran out of memory."), "too large"),
            (513, json("clickhouse_memory_limit_exceeded", "We're under heavy load right now."), "transient"),
            (524, html.to_owned(), "gateway"),
        ] {
            assert_eq!(kind(status, &body, Class::Query(1), TOOK_TIME), expected, "{status} {body}");
        }
    }

    #[test]
    fn gateways_are_waited_out_alike_and_only_slow_queries_are_perhaps_too_large() {
        let (html, json) = ("<html><title>x</title></html>", r#"{"message":"Endpoint request timed out"}"#);
        for status in [502, 503, 504, 520, 521, 522, 523, 524, 525, 526] {
            for body in [html, json, ""] {
                assert_eq!(kind(status, body, Class::Query(1), TOOK_TIME), "gateway", "{status} {body}");
                assert_eq!(kind(status, body, Class::Query(1), Duration::from_secs(1)), "transient", "{status} {body}");
                assert_eq!(kind(status, body, Class::General, TOOK_TIME), "transient", "{status} {body}");
            }
        }
    }

    #[test]
    fn web_pages_are_named_by_their_title() {
        let page = b"<html><title>posthog | 524: A timeout\n occurred</title></html>";
        let page = Failure::from_response(
            StatusCode::BAD_GATEWAY,
            &HeaderMap::new(),
            page,
            "/",
            Class::General,
            Duration::ZERO,
        );
        assert_eq!(page.to_string(), "502 posthog | 524: A timeout occurred");
    }
}
