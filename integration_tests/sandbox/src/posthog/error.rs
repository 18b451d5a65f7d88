//! Refusals in the shape PostHog gives them.

use serde_json::{Value, json};

/// An answer that isn't a success: `{"type", "code", "detail", "attr"}` with a status and headers.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    pub(crate) status: u16,
    pub(crate) kind: &'static str,
    pub(crate) code: String,
    pub(crate) detail: String,
    /// The parameter that is wrong.
    pub(crate) attribute: Option<&'static str>,
    pub(crate) headers: Vec<(&'static str, String)>,
    /// Set if HogQL refused the query itself. In a box, since most errors have nothing of it.
    pub(crate) refused: Option<Box<Refused>>,
}

/// What HogQL knows about a query that it refused.
#[derive(Debug, Clone)]
pub(crate) struct Refused {
    /// Names that are similar to the one that it doesn't know.
    pub(crate) suggestions: Vec<String>,
    /// `extra` of the body.
    pub(crate) extra: Option<Value>,
}

impl ApiError {
    pub(crate) fn new(status: u16, kind: &'static str, code: &str, detail: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            code: code.to_owned(),
            detail: detail.into(),
            attribute: None,
            headers: Vec::new(),
            refused: None,
        }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn attribute(mut self, name: &'static str) -> Self {
        self.attribute = Some(name);
        self
    }

    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(400, "validation_error", "invalid_input", detail)
    }

    pub(crate) fn code(code: &str, detail: impl Into<String>) -> Self {
        Self::new(400, "validation_error", code, detail)
    }

    /// An answer of a handler that doesn't raise: `{"detail"}`, and nothing else.
    pub(crate) fn bare(status: u16, detail: impl Into<String>) -> Self {
        Self::new(status, "", "", detail)
    }

    /// A query that HogQL can't resolve, and the names that are similar to what it can't.
    pub(crate) fn refused(detail: impl Into<String>, suggestions: Vec<String>) -> Self {
        Self { refused: Some(Box::new(Refused { suggestions, extra: None })), ..Self::invalid(detail) }
    }

    /// SQL that PostHog may well understand, but this stand-in doesn't: it never guesses.
    pub(crate) fn unsupported(what: impl std::fmt::Display) -> Self {
        Self::invalid(format!("The sandbox does not support {what}"))
    }

    pub(crate) fn not_found() -> Self {
        Self::new(404, "invalid_request", "not_found", "Not found.")
    }

    pub(crate) fn method_not_allowed(method: &str) -> Self {
        Self::new(405, "invalid_request", "method_not_allowed", format!("Method \"{method}\" not allowed."))
    }

    pub(crate) fn denied(detail: impl Into<String>) -> Self {
        Self::new(403, "authentication_error", "permission_denied", detail)
    }

    pub(crate) fn body(&self) -> Value {
        if self.kind.is_empty() {
            return json!({"detail": self.detail});
        }
        let mut body = json!({"type": self.kind, "code": self.code, "detail": self.detail, "attr": self.attribute});
        let extra = self.refused.as_ref().and_then(|refused| refused.extra.as_ref());
        if let (Some(extra), Some(body)) = (extra, body.as_object_mut()) {
            body.insert("extra".to_owned(), extra.clone());
        }
        body
    }
}
