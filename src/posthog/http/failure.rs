//! What an unsuccessful request means for the one who made it.
//!
//! The table follows PostHog's `exceptions.py`, `errors.py` and `permissions.py`: errors are JSON
//! objects `{"type", "code", "detail", "attr"}`, except when a proxy in front answers with HTML.

use std::time::Duration;

use chrono::Utc;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde::Deserialize;

use crate::error::Error;
use crate::net::{connection_advice, describe, proxy_refusal, retry_after};
use crate::secret::redact;

/// Why a request has not given what was asked for.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failure {
    /// Neither waiting nor asking for less can help.
    #[error("{0}")]
    Fatal(Error),
    /// The server has refused the request for good (4xx): [`Error`] says what it usually means.
    #[error("{error}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The server's words; empty when they are not those of PostHog's API.
        detail: String,
        /// What to tell the user.
        error: Error,
    },
    /// A limit is used up. All requests wait for `pause`; without one, the caller backs off.
    #[error("{message}")]
    Throttled {
        /// What the server asked for.
        pause: Option<Duration>,
        /// The server's words.
        message: String,
    },
    /// The query takes too long or too much memory: ask for fewer rows or a smaller window.
    #[error("{message}")]
    TooLarge {
        /// The server's words.
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

impl Failure {
    /// A failure that a retry can cure.
    pub fn transient(message: impl Into<String>) -> Self {
        Self::Transient { message: message.into(), perhaps_too_large: false }
    }

    /// A failure on the way: no connection, a cut or stalled body, an undecodable one.
    pub fn from_transport(error: reqwest::Error) -> Self {
        let (is_builder, is_connect) = (error.is_builder(), error.is_connect());
        let known = connection_advice(&error, "the address in `base_url`");
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
            message = format!("no connection to the address in `base_url`: {message}");
        }
        Self::transient(message)
    }

    /// What `status` and the beginning of the body mean.
    pub(super) fn from_response(status: StatusCode, headers: &HeaderMap, body: &[u8], path: &str) -> Self {
        let report = Report::read(body);
        let said = report.describe(status, body);
        let refused = |error| Self::Refused { status: status.as_u16(), detail: report.detail.clone(), error };
        match status.as_u16() {
            401 => refused(
                Error::config(
                    "PostHog does not accept the API key: it is wrong, revoked or from another region; check `api_key`, and that `base_url` is the region (us or eu) or the instance of that key",
                )
                .with_details(said),
            ),
            402 => refused(Error::config(format!("PostHog refuses because of billing or a quota: {said}"))),
            403 => refused(Error::config(forbidden(&report.detail, &said)).with_details(format!("{path}: {said}"))),
            404 if report.is_json => refused(
                Error::config("PostHog does not know the project; check `project_ids` and that `base_url` is the right region")
                    .with_details(format!("{path}: {said}")),
            ),
            404 | 405 => refused(
                Error::config("the answer does not come from PostHog's API; check `base_url`").with_details(format!("{path}: {said}")),
            ),
            407 => refused(Error::config(proxy_refusal())),
            429 => Self::Throttled { pause: retry_after(headers, Utc::now()), message: said },
            400 if report.detail.contains("Unable to resolve field") => refused(
                Error::config(format!(
                    "this version of PostHog lacks something that the stream needs ({}); upgrade PostHog, or leave the stream out",
                    report.detail
                ))
                .with_details(path.to_owned()),
            ),
            400 if report.code == "too_many_bytes" => Self::TooLarge { message: said },
            504 if report.is_json => Self::TooLarge { message: said },
            513 if report.detail.contains("heavy load") => Self::transient(said),
            512 | 513 => Self::TooLarge { message: said },
            502 | 504 | 522 | 524 => Self::Transient { message: said, perhaps_too_large: true },
            408 | 425 | 500..=599 => Self::transient(said),
            _ => refused(Error::system(format!("PostHog rejects the request: {said}")).with_details(path.to_owned())),
        }
    }
}

/// Names the missing scope or the project, which the server's text contains.
fn forbidden(detail: &str, said: &str) -> String {
    if let Some(scope) = detail.split("required scope '").nth(1).and_then(|rest| rest.split('\'').next()) {
        return format!("the API key lacks the scope `{scope}`; add it in PostHog under Settings > Personal API keys");
    }
    if detail.contains("access to the requested project") || detail.contains("don't have access to the project") {
        return "the API key has no access to the project; check `project_ids`, or give the key access to it"
            .to_owned();
    }
    if detail.contains("scoped projects are only supported") {
        return "the API key is limited to some projects and cannot list them; set `project_ids`".to_owned();
    }
    format!("PostHog forbids it: {said}")
}

/// The error object of PostHog's API.
#[derive(Default, Deserialize)]
struct Report {
    #[serde(default)]
    code: String,
    #[serde(default)]
    detail: String,
    #[serde(skip)]
    is_json: bool,
}

impl Report {
    fn read(body: &[u8]) -> Self {
        serde_json::from_slice(body).map_or_else(|_| Self::default(), |report| Self { is_json: true, ..report })
    }

    fn describe(&self, status: StatusCode, body: &[u8]) -> String {
        if self.is_json {
            return format!("{} {} ({})", status.as_u16(), self.detail, self.code);
        }
        // It may quote the request; cut in half, a secret would not be recognised any more.
        let text = String::from_utf8_lossy(body);
        let text = redact(&text);
        let title = text.split("<title>").nth(1).and_then(|rest| rest.split("</title>").next());
        let excerpt: String =
            title.unwrap_or(&text).split_whitespace().collect::<Vec<_>>().join(" ").chars().take(200).collect();
        match excerpt.as_str() {
            "" => format!("{} without an explanation", status.as_u16()),
            _ => format!("{} {excerpt}", status.as_u16()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(code: &str, detail: &str) -> String {
        serde_json::json!({"type": "x", "code": code, "detail": detail, "attr": null}).to_string()
    }

    fn kind(status: u16, body: &str) -> &'static str {
        let status = StatusCode::from_u16(status).unwrap();
        match Failure::from_response(status, &HeaderMap::new(), body.as_bytes(), "/api/projects/1/query/") {
            Failure::Fatal(error) | Failure::Refused { error, .. } => match error.failure_type() {
                crate::error::FailureType::Config => "config",
                _ => "fatal",
            },
            Failure::Throttled { .. } => "throttled",
            Failure::TooLarge { .. } => "too large",
            Failure::Transient { perhaps_too_large: true, .. } => "gateway",
            Failure::Transient { .. } => "transient",
        }
    }

    #[test]
    fn statuses_are_told_apart() {
        let html = "<html><title>502 Bad Gateway</title></html>";
        for (status, body, expected) in [
            (400, json("invalid_input", "Syntax error"), "fatal"),
            (400, json("invalid_input", "Unable to resolve field: last_seen_at"), "config"),
            (400, json("too_many_bytes", "…"), "too large"),
            (401, json("authentication_failed", "invalid"), "config"),
            (402, json("quota_limit_exceeded", "…"), "config"),
            (403, json("permission_denied", "API key missing required scope 'query:read'"), "config"),
            (404, json("not_found", "Not found."), "config"),
            (404, html.to_owned(), "config"),
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
            assert_eq!(kind(status, &body), expected, "{status} {body}");
        }
    }

    #[test]
    fn messages_name_the_scope_and_the_title_of_html_pages() {
        let scope = Failure::from_response(
            StatusCode::FORBIDDEN,
            &HeaderMap::new(),
            json("permission_denied", "API key missing required scope 'query:read'").as_bytes(),
            "/",
        );
        assert!(scope.to_string().contains("scope `query:read`"), "{scope}");
        let page = b"<html><title>posthog | 524: A timeout\n occurred</title></html>";
        let page = Failure::from_response(StatusCode::BAD_GATEWAY, &HeaderMap::new(), page, "/");
        assert_eq!(page.to_string(), "502 posthog | 524: A timeout occurred");
    }
}
