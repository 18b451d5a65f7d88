//! What `PostHog` means when it refuses a request for good (4xx), as a type.
//!
//! This is the only place that reads the text of a refusal. Statuses, codes and texts are those of
//! PostHog's `exceptions.py`, `permissions.py`, `hogql/errors.py`, `hogql/resolver.py` and
//! `batch_exports/backend/api/file_download.py`. Errors are JSON objects
//! `{"type", "code", "detail", "attr"}`, except when a proxy in front answers with something else.

use reqwest::StatusCode;
use serde_json::Value;

use crate::secret::redact;

/// A request that the server has refused for good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{summary}")]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// What it means.
    pub reason: Reason,
    /// The server's words; empty when they are not those of PostHog's API.
    pub detail: String,
    /// Status, words and code in one line, for the log.
    pub summary: String,
    /// Path of the request.
    pub path: String,
}

/// Why a request has been refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The key is wrong, revoked or from another region (401).
    InvalidKey,
    /// The key lacks this scope.
    MissingScope(String),
    /// The key may not see the project.
    NoProjectAccess,
    /// The key is limited to some projects and cannot list them.
    LimitedToProjects,
    /// Another 403.
    Forbidden,
    /// The plan or a quota does not allow it (402).
    Billing,
    /// `PostHog` does not know what was asked for (404).
    NotFound,
    /// The response does not come from PostHog's API.
    NotPostHog,
    /// A proxy wants credentials (407).
    Proxy,
    /// The table has no column of this name.
    UnknownColumn(String),
    /// There is no table of this name.
    UnknownTable(String),
    /// The server does not know the mode of persons that was asked for.
    UnknownModifier,
    /// Another error in a query's text.
    InvalidQuery,
    /// The interval of an export is too long.
    IntervalTooLong,
    /// The interval of an export ends in the future.
    IntervalInFuture,
    /// As many exports as the project may have are running (429).
    TooManyRuns,
    /// A run has files that are not ready yet, or another request that is incomplete (400).
    InvalidRequest,
    /// Anything else.
    Other,
}

/// Where PostHog and gateways put their words, PostHog's own place first.
const DETAILS: [&str; 8] = ["detail", "message", "error_description", "error", "errors", "title", "reason", "fault"];

/// The most characters of each of the server's words that are kept.
const LONGEST: usize = 1_000;

/// The body of an error, as far as it can be understood.
pub(super) struct Report {
    pub(super) code: String,
    pub(super) detail: String,
    pub(super) is_json: bool,
    /// Whether it has the shape of PostHog's errors. Gateways answer with JSON of their own.
    pub(super) is_posthog: bool,
    excerpt: String,
}

impl Report {
    /// Reads a body of any shape.
    pub(super) fn read(body: &[u8]) -> Self {
        let parsed: Option<Value> = serde_json::from_slice(body).ok().filter(Value::is_object);
        let field = |name: &str| parsed.as_ref().map(|fields| beginning(&text_of(&fields[name]))).unwrap_or_default();
        let has = |name: &str| parsed.as_ref().is_some_and(|fields| fields.get(name).is_some());
        let detail = DETAILS.map(field).into_iter().find(|text| !text.is_empty()).unwrap_or_default();
        Self {
            code: field("code"),
            // Django's own words for an unknown object, where nothing has put them into PostHog's shape.
            is_posthog: has("type") && has("code") || has("detail") && (has("attr") || detail == "Not found."),
            detail,
            is_json: parsed.is_some(),
            excerpt: excerpt(body),
        }
    }

    /// The web page's title, or the beginning of something else.
    pub(super) fn excerpt(&self) -> &str {
        &self.excerpt
    }

    /// Status, words and code in one line.
    pub(super) fn summary(&self, status: StatusCode) -> String {
        let status = status.as_u16();
        match (self.detail.as_str(), self.code.as_str(), self.excerpt.as_str()) {
            ("", "", "") => format!("{status} without an explanation"),
            // Titles of web pages often begin with the status.
            ("", "", excerpt) if excerpt.starts_with(&status.to_string()) => excerpt.to_owned(),
            ("", "", excerpt) => format!("{status} {excerpt}"),
            (detail, "", _) => format!("{status} {detail}"),
            (detail, code, _) => format!("{status} {detail} ({code})"),
        }
    }
}

/// As much of a text as helps. Cut in half, a secret would not be recognised any more.
fn beginning(text: &str) -> String {
    redact(text).chars().take(LONGEST).collect()
}

/// Texts are taken as they are; lists and objects of texts, as Django sends them, are joined.
fn text_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(values) => {
            values.iter().map(text_of).filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; ")
        }
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| format!("{name}: {}", text_of(value))).collect::<Vec<_>>().join("; ")
        }
        other => other.to_string(),
    }
}

/// The title of a web page, or its beginning.
fn excerpt(body: &[u8]) -> String {
    // It may quote the request; cut in half, a secret would not be recognised any more.
    let text = String::from_utf8_lossy(body);
    let text = redact(&text);
    let title = text.split("<title>").nth(1).and_then(|rest| rest.split("</title>").next());
    title.unwrap_or(&text).split_whitespace().collect::<Vec<_>>().join(" ").chars().take(200).collect()
}

impl Refusal {
    pub(super) fn new(status: StatusCode, report: &Report, path: &str) -> Self {
        Self {
            status: status.as_u16(),
            reason: Reason::of(status.as_u16(), report),
            detail: report.detail.clone(),
            summary: report.summary(status),
            path: path.to_owned(),
        }
    }

    /// A refusal by a host that is not `PostHog`.
    pub(super) fn of_other_host(status: StatusCode, summary: String) -> Self {
        Self { status: status.as_u16(), reason: Reason::Other, detail: String::new(), summary, path: String::new() }
    }
}

impl Reason {
    fn of(status: u16, report: &Report) -> Self {
        let detail = report.detail.as_str();
        match status {
            401 => Self::InvalidKey,
            402 => Self::Billing,
            403 => Self::of_forbidden(detail),
            404 if report.is_posthog => Self::NotFound,
            404 | 405 => Self::NotPostHog,
            407 => Self::Proxy,
            429 if report.code == "too_many_concurrent_file_downloads" => Self::TooManyRuns,
            400 => Self::of_bad_request(report),
            _ => Self::Other,
        }
    }

    /// Names the missing scope or the project, which the server's text contains.
    fn of_forbidden(detail: &str) -> Self {
        if let Some(scope) = detail.split("required scope '").nth(1).and_then(|rest| rest.split('\'').next()) {
            return Self::MissingScope(scope.to_owned());
        }
        if detail.contains("access to the requested project") || detail.contains("don't have access to the project") {
            return Self::NoProjectAccess;
        }
        if detail.contains("scoped projects are only supported") {
            return Self::LimitedToProjects;
        }
        Self::Forbidden
    }

    /// Since April 2026 the name is followed by `. Did you mean: …?`, and lines with hints and the
    /// tables of the query come after the first one. `extra` is no help: it is made by a second look at
    /// the query without its values.
    fn of_bad_request(report: &Report) -> Self {
        let first = report.detail.lines().next().unwrap_or_default();
        if let Some(name) = name_after(first, "Unable to resolve field: ") {
            return Self::UnknownColumn(name);
        }
        if let Some(name) = name_after(first, "Unknown table ") {
            return Self::UnknownTable(name);
        }
        if report.detail.contains("personsOnEventsMode") || report.detail.contains("persons_on_events") {
            return Self::UnknownModifier;
        }
        if first.contains("range too big") {
            return Self::IntervalTooLong;
        }
        if first.contains("in the future") {
            return Self::IntervalInFuture;
        }
        match report.code.as_str() {
            "hogql_query_error" | "hogql_syntax_error" => Self::InvalidQuery,
            _ => Self::InvalidRequest,
        }
    }
}

/// The name behind `label`, without quotes, suggestions and what a table's alias adds.
fn name_after(line: &str, label: &str) -> Option<String> {
    let rest = line.split(label).nth(1)?;
    let rest = rest.split(". Did you mean").next().unwrap_or(rest);
    let rest = rest.trim().trim_end_matches(['.', '?']);
    let rest = rest.trim_matches(['`', '"', '\'']);
    let name = rest.split_whitespace().next().unwrap_or_default().trim_matches(['`', '"', '\'', ',']);
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, body: &str) -> Refusal {
        Refusal::new(StatusCode::from_u16(status).unwrap(), &Report::read(body.as_bytes()), "/api/projects/1/query/")
    }

    fn json(code: &str, detail: &str) -> String {
        serde_json::json!({"type": "x", "code": code, "detail": detail, "attr": null}).to_string()
    }

    #[test]
    fn unknown_columns_and_tables_are_named_in_old_and_new_wording() {
        for (detail, expected) in [
            ("Unable to resolve field: person_id", Reason::UnknownColumn("person_id".into())),
            ("Unable to resolve field: `$urls`", Reason::UnknownColumn("$urls".into())),
            ("Unable to resolve field: person_id.", Reason::UnknownColumn("person_id".into())),
            (
                "Unable to resolve field: person_id. Did you mean: session_id, $end_timestamp?\nTables referenced: sessions",
                Reason::UnknownColumn("person_id".into()),
            ),
            (
                "Unable to resolve field: t.nosuch. Did you mean: such?\nHint: t\nTables referenced: t",
                Reason::UnknownColumn("t.nosuch".into()),
            ),
            ("Unable to resolve field: x\nTables referenced: events", Reason::UnknownColumn("x".into())),
            ("Unknown table `static_cohort_people`.", Reason::UnknownTable("static_cohort_people".into())),
            (
                "Unknown table \"static_cohort_people\". Did you mean: cohort_people?",
                Reason::UnknownTable("static_cohort_people".into()),
            ),
            ("mismatched input 'FROM'", Reason::InvalidQuery),
        ] {
            assert_eq!(refusal(400, &json("hogql_query_error", detail)).reason, expected, "{detail}");
        }
        assert_eq!(
            refusal(400, &json("invalid_input", "Unable to resolve field: last_seen_at")).reason,
            Reason::UnknownColumn("last_seen_at".into())
        );
    }

    #[test]
    fn error_bodies_of_any_shape_keep_their_status_and_text() {
        for (body, expected) in [
            (r#"{"detail":null,"code":null}"#, "400 {\"detail\":null,\"code\":null}"),
            (r#"{"detail":["a","b"],"code":["c"]}"#, "400 a; b (c)"),
            (r#"{"detail":{"start":["wrong"]},"code":7}"#, "400 start: wrong (7)"),
            (r#"{"message":"no Route matched with those values"}"#, "400 no Route matched with those values"),
            (r#"{"error":{"code":"E1","message":"upstream"}}"#, "400 code: E1; message: upstream"),
            (r#"{"errors":[{"message":"blocked"}]}"#, "400 message: blocked"),
            ("<title>400 Bad Request</title>", "400 Bad Request"),
            (r#"["something"]"#, "400 [\"something\"]"),
            ("", "400 without an explanation"),
        ] {
            assert_eq!(refusal(400, body).summary, expected, "{body}");
        }
    }

    #[test]
    fn an_unknown_path_of_a_gateway_is_not_an_unknown_project() {
        for (body, expected) in [
            (json("not_found", "Not found."), Reason::NotFound),
            (r#"{"detail":"Not found."}"#.to_owned(), Reason::NotFound),
            (r#"{"message":"no Route matched with those values"}"#.to_owned(), Reason::NotPostHog),
            (r#"{"detail":"Not Found"}"#.to_owned(), Reason::NotPostHog),
            (r#"{"statusCode":404,"message":"Resource not found"}"#.to_owned(), Reason::NotPostHog),
            ("<html></html>".to_owned(), Reason::NotPostHog),
        ] {
            assert_eq!(refusal(404, &body).reason, expected, "{body}");
        }
    }

    #[test]
    fn export_refusals_are_told_apart() {
        for (status, code, detail, expected) in [
            (400, "invalid_input", "Data interval range too big, 7 days is the most", Reason::IntervalTooLong),
            (400, "invalid_input", "data_interval_end 2026 is in the future", Reason::IntervalInFuture),
            (400, "required", "This field is required.", Reason::InvalidRequest),
            (429, "too_many_concurrent_file_downloads", "Too many", Reason::TooManyRuns),
            (
                403,
                "permission_denied",
                "API key missing required scope 'batch_export:write'",
                Reason::MissingScope("batch_export:write".into()),
            ),
        ] {
            assert_eq!(refusal(status, &json(code, detail)).reason, expected, "{detail}");
        }
    }
}
