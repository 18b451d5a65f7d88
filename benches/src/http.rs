//! A small HTTP client for everything that is not measured.

use anyhow::{Context, bail, ensure};
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The API key that the sandbox accepts.
pub const API_KEY: &str = "phx_full";
/// The project with the events.
pub const PROJECT: u64 = 1001;

/// A client with the API key of the sandbox.
#[derive(Debug, Clone)]
pub struct Client(Pool<HttpConnector, Body>);

impl Default for Client {
    fn default() -> Self {
        Self(Pool::builder(TokioExecutor::new()).build_http())
    }
}

/// An answer, whatever its status.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// Its whole body.
    pub body: axum::body::Bytes,
}

impl Client {
    /// Sends a request with the key.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn send(&self, method: Method, url: &str, body: Option<&Value>) -> anyhow::Result<Answer> {
        let request = Request::builder().method(method).uri(url);
        let request = request.header(header::AUTHORIZATION, format!("Bearer {API_KEY}"));
        self.exchange(match body {
            Some(body) => {
                request.header(header::CONTENT_TYPE, "application/json").body(Body::from(body.to_string()))?
            }
            None => request.body(Body::empty())?,
        })
        .await
    }

    /// Downloads from a host that must not see the key.
    ///
    /// # Errors
    /// When there is no answer, or another status than 200.
    pub async fn download(&self, url: &str) -> anyhow::Result<axum::body::Bytes> {
        let answer = self.exchange(Request::get(url).body(Body::empty())?).await?;
        ensure!(answer.status == StatusCode::OK, "{url} answers {}", answer.status);
        Ok(answer.body)
    }

    /// Sends a request and reads its JSON answer.
    ///
    /// # Errors
    /// When the status is no success or the answer has another shape.
    pub async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        url: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<T> {
        let answer = self.send(method, url, body).await?;
        if !answer.status.is_success() {
            bail!("{url} answers {}: {}", answer.status, String::from_utf8_lossy(&answer.body));
        }
        serde_json::from_slice(&answer.body).with_context(|| format!("the answer of {url}"))
    }

    /// Runs a query and returns the whole answer.
    ///
    /// # Errors
    /// When the query fails.
    pub async fn query(&self, root: &str, sql: &str) -> anyhow::Result<axum::body::Bytes> {
        let body = json!({
            "query": {"kind": "HogQLQuery", "query": sql, "modifiers": {"convertToProjectTimezone": false}},
            "refresh": "force_blocking",
        });
        let answer = self.send(Method::POST, &format!("{root}/api/projects/{PROJECT}/query/"), Some(&body)).await?;
        if !answer.status.is_success() {
            bail!("`{sql}` is answered with {}: {}", answer.status, String::from_utf8_lossy(&answer.body));
        }
        Ok(answer.body)
    }

    async fn exchange(&self, request: Request<Body>) -> anyhow::Result<Answer> {
        let url = request.uri().to_string();
        let (parts, body) = self.0.request(request).await.with_context(|| format!("ask {url}"))?.into_parts();
        let body = body.collect().await.with_context(|| format!("read the answer of {url}"))?.to_bytes();
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }
}
