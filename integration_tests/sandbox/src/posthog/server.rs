//! The way of a request: log, fault, handler, compression, wire.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, Response, StatusCode, header, request::Parts};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::error::ApiError;
use super::faults::Action;
use super::instance::Server;
use super::limits::Class;
use super::wire::{Cut, Listener, drip, endless, partial};
use super::{Shared, account, capture, deletions, deprecated, exports, lists, lock, nested, query};

/// What PostHog accepts as a body.
const LARGEST_BODY: usize = 20 * 1024 * 1024;
/// Shorter answers aren't worth compressing.
const COMPRESS_FROM: usize = 200;

/// A request that has been read.
pub(crate) struct Call {
    pub(crate) parts: Parts,
    pub(crate) body: Bytes,
    /// Number in the log.
    pub(crate) id: u64,
    /// Fault that the handler itself has to apply.
    pub(crate) fault: Option<Action>,
}

impl Call {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The value of a parameter of the query string.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        let pairs = self.parts.uri.query().unwrap_or_default().split('&');
        let value = pairs.filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name)?.1;
        Some(capture::percent_decode(value))
    }
}

/// An answer that is complete and still whole.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(value: &Value) -> Self {
        Self::raw("application/json", value.to_string())
    }

    pub(crate) fn raw(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self { status: 200, content_type, headers: Vec::new(), body: body.into() }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

impl From<ApiError> for Answer {
    fn from(error: ApiError) -> Self {
        let headers = error.headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        Self { status: error.status, headers, ..Self::json(&error.body()) }
    }
}

pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let service = Router::new().fallback(handle).with_state(shared).into_make_service_with_connect_info::<Cut>();
    if let Err(error) = axum::serve(Listener(listener), service).await {
        say_stopped(&error);
    }
}

/// Nobody waits for a server's task; without the line a test would only see refused connections.
pub(crate) fn say_stopped(error: &std::io::Error) {
    #[expect(clippy::print_stderr, reason = "the only place to say it")]
    {
        eprintln!("posthog-sandbox stopped serving: {error}");
    }
}

/// Counts the request as done even if the client goes away.
struct Active(Arc<Shared>);

impl Drop for Active {
    fn drop(&mut self) {
        lock(&self.0.log).end();
    }
}

async fn handle(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(cut): ConnectInfo<Cut>,
    request: Request,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or_else(String::new, ToString::to_string);
    let body = to_bytes(body, LARGEST_BODY).await.map_err(|_| too_large());
    let text = body.as_ref().map(|body| String::from_utf8_lossy(body).into_owned()).unwrap_or_default();
    let sql = query::sql_of(&path, &text);
    let fault = lock(&shared.faults).pick(parts.method.as_str(), &path, sql.as_deref().unwrap_or(&text));
    drop(text);
    let id = lock(&shared.log).begin(parts.method.as_str(), &path, sql);
    let active = Active(Arc::clone(&shared));
    let accepts = parts.headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    lock(&shared.log).note(id, |entry| {
        entry.fault = fault.as_ref().map(Action::name);
        entry.authorized = parts.headers.contains_key(header::AUTHORIZATION);
        entry.accepts_zstd = accepts.contains("zstd");
    });

    if let Some(Action::Delay { wait } | Action::GatewayTimeout { wait }) = fault {
        tokio::time::sleep(wait).await;
    }
    if fault == Some(Action::Reset) {
        drop(active);
        cut.reset();
        // The connection goes away before this could end.
        return std::future::pending().await;
    }
    let compress = accepts.contains("gzip") && !matches!(fault, Some(Action::BadEncoding | Action::Raw { .. }));
    let answer = match (replaced(fault.as_ref()), body) {
        (Some(answer), _) => answer,
        (None, Ok(body)) => {
            let call = Call { parts, body, id, fault: fault.clone() };
            dispatch(&shared, call).await.unwrap_or_else(Answer::from)
        }
        (None, Err(error)) => error.into(),
    };
    let answer = if compress { gzip(answer).await } else { answer };
    let answer = dated(answer, &shared.server());
    lock(&shared.log).note(id, |entry| {
        entry.status = Some(answer.status);
        entry.bytes_sent = answer.body.len();
    });
    deliver(answer, fault.as_ref(), cut)
}

/// The answer with the time by the server's clock, if that is wrong.
fn dated(answer: Answer, server: &Server) -> Answer {
    if server.clock_ahead == 0 {
        return answer;
    }
    answer.header("date", &server.now().format("%a, %d %b %Y %H:%M:%S GMT").to_string())
}

fn too_large() -> ApiError {
    ApiError::new(413, "invalid_request", "request_too_large", "The request body is too large.")
}

/// Faults that replace the whole answer.
pub(crate) fn replaced(fault: Option<&Action>) -> Option<Answer> {
    match fault? {
        Action::Status { code, body, headers } => {
            let content_type = match body {
                json if json.starts_with('{') => "application/json",
                xml if xml.starts_with("<?xml") => "application/xml",
                _ => "text/html; charset=UTF-8",
            };
            Some(Answer { status: *code, headers: headers.clone(), ..Answer::raw(content_type, body.clone()) })
        }
        Action::Raw { headers, body } => {
            Some(Answer { headers: headers.clone(), ..Answer::raw("application/json", body.clone()) })
        }
        Action::Endless { begin } => Some(Answer::raw("application/json", begin.clone())),
        Action::GatewayTimeout { .. } => replaced(Some(&Action::Html { code: 504 })),
        Action::Html { code } => {
            let page = format!(
                "<!DOCTYPE html>\n<html lang=\"en-US\"><head><title>posthog | {code}: An error occurred</title></head><body>\
                 <div id=\"cf-error-details\"><h1>Error code {code}</h1></div></body></html>"
            );
            Some(
                Answer { status: *code, ..Answer::raw("text/html; charset=UTF-8", page) }
                    .header("server", "cloudflare"),
            )
        }
        _ => None,
    }
}

async fn dispatch(shared: &Arc<Shared>, call: Call) -> Result<Answer, ApiError> {
    if let Some(answer) = shared.replay.as_ref().and_then(|replay| replay.answer(&call.parts, &call.body)) {
        return answer.map_err(|error| ApiError::bare(500, format!("{error:#}")));
    }
    let path = call.parts.uri.path().to_owned();
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    if let Some(answer) = exports::back(shared, &call) {
        return Ok(answer);
    }
    if segments.first() != Some(&"api") {
        return Ok(capture::answer(shared, &call, &segments));
    }
    let key = account::authenticate(shared, &call, &segments)?;
    let method = &call.parts.method;
    let class = match segments.as_slice() {
        ["api", "projects" | "environments", _, "query", ..] if *method == Method::POST => Class::Query,
        ["api", "projects" | "environments", _, "session_recordings"] => Class::Recordings,
        _ => Class::Other,
    };
    let latency = lock(&shared.limits).other_latency;
    if class != Class::Query && !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    let admit = || {
        let limits = lock(&shared.limits).clone();
        lock(&shared.meter).admit(&limits, &key.value, class, Instant::now())
    };
    match segments.as_slice() {
        ["api", "projects" | "environments", project, "query", kind @ ..] if kind.len() <= 1 => {
            let project = account::project(shared, key, project, "query:read")?;
            if method != Method::POST {
                return Err(ApiError::unsupported("asynchronous queries"));
            }
            admit()?;
            let kind = kind.first().map(|kind| (*kind).to_owned());
            query::answer(Arc::clone(shared), project, call, kind).await
        }
        ["api", "projects" | "environments", project, "file_download_batch_exports", rest @ ..] => {
            exports::answer(shared, key, &call, project, rest, admit).await
        }
        ["api", "projects" | "environments", project, "persons", "bulk_delete"] if *method == Method::POST => {
            let project = account::project(shared, key, project, "person:write")?;
            admit()?;
            deletions::bulk_delete(shared, &call, project)
        }
        _ if method != Method::GET => Err(ApiError::method_not_allowed(method.as_str())),
        ["api", "projects" | "environments", project, "events", id @ ..] if id.len() <= 1 => {
            let project = account::project(shared, key, project, "query:read")?;
            admit()?;
            match id.first() {
                Some(id) => deprecated::retrieve(shared, project, id),
                None => deprecated::answer(shared, &call, project),
            }
        }
        ["api", "projects" | "environments", project, name] => {
            let scope = lists::scope(name).ok_or_else(ApiError::not_found)?;
            let project = account::project(shared, key, project, &format!("{scope}:read"))?;
            admit()?;
            lists::answer(shared, &call, project, name)
        }
        ["api", "projects" | "environments", project, name, id] if lists::scope(name).is_some() => {
            let scope = lists::scope(name).ok_or_else(ApiError::not_found)?;
            let project = account::project(shared, key, project, &format!("{scope}:read"))?;
            admit()?;
            lists::retrieve(shared, project, name, id)
        }
        ["api", "projects" | "environments", project, name @ ("experiments" | "batch_exports"), id, rest @ ..] => {
            let scope = lists::scope(name).ok_or_else(ApiError::not_found)?;
            let project = account::project(shared, key, project, &format!("{scope}:read"))?;
            admit()?;
            nested::answer(shared, &call, project, name, id, rest)
        }
        rest => {
            let answer = account::answer(shared, key, &call, rest)?;
            admit()?;
            Ok(answer)
        }
    }
}

async fn gzip(answer: Answer) -> Answer {
    if answer.body.len() < COMPRESS_FROM || matches!(answer.status, 204 | 304) {
        return answer;
    }
    let plain = answer.body.clone();
    let squeeze = move || {
        let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::fast());
        encoder.write_all(&plain)?;
        encoder.finish()
    };
    match tokio::task::spawn_blocking(squeeze).await {
        Ok(Ok(body)) => {
            Answer { body: body.into(), ..answer }.header("content-encoding", "gzip").header("vary", "Accept-Encoding")
        }
        _ => answer,
    }
}

/// Puts the answer on the wire, spoiled if the fault concerns its bytes.
pub(crate) fn deliver(answer: Answer, fault: Option<&Action>, cut: Cut) -> Response<Body> {
    let Answer { status, content_type, mut headers, mut body } = answer;
    if fault == Some(&Action::Malformed) {
        headers.retain(|(name, _)| name != "content-encoding");
        body = [body.get(..body.len() / 2).unwrap_or_default(), b",,}\n"].concat().into();
    }
    if fault == Some(&Action::BadEncoding) {
        headers.push(("content-encoding".to_owned(), "gzip".to_owned()));
    }
    let length = body.len();
    let body = match fault {
        Some(Action::Truncate { fraction }) => partial(&body, *fraction, Duration::ZERO, move || cut.close()),
        Some(Action::ResetMidBody { fraction }) => partial(&body, *fraction, Duration::ZERO, move || cut.reset()),
        Some(Action::Stall { wait }) => partial(&body, 0.5, *wait, move || cut.close()),
        Some(Action::Drip { pieces, over }) => drip(body, *pieces, *over),
        Some(Action::Endless { .. }) => endless(body),
        _ => Body::from(body),
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let map = response.headers_mut();
    map.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if !matches!(fault, Some(Action::Endless { .. })) {
        map.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
            map.append(name, value);
        }
    }
    response
}
