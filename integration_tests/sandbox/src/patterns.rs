//! A stand-in for a Patterns webhook node.
//!
//! `POST /api/app/webhooks/<id>` takes one JSON object or an array of them and keeps each element in
//! the order of arrival. What the hosted service refuses or breaks, it refuses or breaks on request,
//! by the number of the request.

use std::io::Read;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Request, Response, StatusCode};
use axum::routing::any;
use axum::{Router, serve};
use flate2::read::GzDecoder;
use futures_util::stream;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// Larger bodies are a mistake of the test.
const LARGEST_BODY: usize = 512 * 1024 * 1024;

/// What happens to a request instead of being taken in.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Answered with this status, some headers and a body; nothing is stored.
    Status {
        /// HTTP status.
        code: u16,
        /// Headers of the answer.
        headers: Vec<(String, String)>,
    },
    /// Answered with 200 and this body; nothing is stored.
    Body(&'static str),
    /// The connection breaks before an answer; nothing is stored.
    Break,
    /// Everything is stored, but the connection breaks before the answer.
    StoreThenBreak,
    /// Everything is stored, and the answer comes only after this time.
    StoreThenStall(Duration),
    /// Nothing is stored and nothing is answered until [`Webhook::open_gate`] is called.
    Gate,
}

impl Outcome {
    /// Answered with this status alone.
    pub fn status(code: u16) -> Self {
        Self::Status { code, headers: Vec::new() }
    }

    /// Answered with this status and `Retry-After`.
    pub fn retry_after(code: u16, value: &str) -> Self {
        Self::Status { code, headers: vec![("retry-after".to_owned(), value.to_owned())] }
    }
}

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Received {
    /// HTTP method.
    pub method: String,
    pub path: String,
    /// Headers, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, decompressed.
    pub body: String,
    pub records: usize,
    /// Status of the answer; none when the connection was broken.
    pub status: Option<u16>,
}

impl Received {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// How the webhook behaves.
#[derive(Debug, Clone, Default)]
pub struct Behaviour {
    /// Required bearer token.
    pub bearer: Option<String>,
    /// Larger bodies get 413.
    pub max_body_bytes: Option<usize>,
    /// Requests with more records get 413.
    pub max_records: Option<usize>,
    /// A request with a record that contains this text gets this status, and nothing is stored.
    pub poison: Option<(String, u16)>,
    /// What happens to the requests with these numbers, from 1 on.
    pub outcomes: Vec<(u64, Outcome)>,
    /// What happens to every request without an outcome of its own.
    pub always: Option<Outcome>,
}

#[derive(Debug, Default)]
struct Shared {
    behaviour: Mutex<Behaviour>,
    received: Mutex<Vec<Received>>,
    records: Mutex<Vec<String>>,
    numbers: Mutex<Counters>,
    gate: watch::Sender<bool>,
    arrivals: Notify,
}

#[derive(Debug, Default, Clone, Copy)]
struct Counters {
    requests: u64,
    active: usize,
    peak: usize,
}

/// A running webhook. It stops listening when it is dropped.
#[derive(Debug)]
pub struct Webhook {
    shared: Arc<Shared>,
    address: SocketAddr,
    server: JoinHandle<()>,
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Webhook {
    /// Starts a webhook that takes everything, on a free port.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(Behaviour::default()).await
    }

    /// Starts a webhook that behaves like this.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start_with(behaviour: Behaviour) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared { behaviour: Mutex::new(behaviour), ..Shared::default() });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("bind a port of 127.0.0.1")?;
        let address = listener.local_addr()?;
        let router = Router::new().fallback(any(handle)).with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move {
            // Ends only when the task is aborted.
            drop(serve(listener, router).await);
        });
        Ok(Self { shared, address, server })
    }

    /// The address of the webhook, which ends in its secret.
    pub fn url(&self) -> String {
        format!("http://{}/api/app/webhooks/wh-sandbox-secret", self.address)
    }

    /// Changes how it behaves from now on; requests are counted from 1 again.
    pub fn behave(&self, behaviour: Behaviour) {
        *lock(&self.shared.behaviour) = behaviour;
        lock(&self.shared.numbers).requests = 0;
    }

    /// Lets the requests go on that [`Outcome::Gate`] holds.
    pub fn open_gate(&self) {
        self.shared.gate.send_replace(true);
    }

    /// Waits until so many requests have come.
    pub async fn wait_for_requests(&self, count: usize) {
        loop {
            let arrival = self.shared.arrivals.notified();
            if lock(&self.shared.numbers).requests >= count as u64 {
                return;
            }
            arrival.await;
        }
    }

    /// All records, in the order of their arrival.
    pub fn records(&self) -> Vec<Value> {
        self.texts().iter().filter_map(|text| serde_json::from_str(text).ok()).collect()
    }

    /// The JSON texts of all records, exactly as they came.
    pub fn texts(&self) -> Vec<String> {
        lock(&self.shared.records).clone()
    }

    /// All requests.
    pub fn received(&self) -> Vec<Received> {
        lock(&self.shared.received).clone()
    }

    /// Most requests that were in work at the same time.
    pub fn peak(&self) -> usize {
        lock(&self.shared.numbers).peak
    }
}

async fn handle(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Response<Body> {
    let number = {
        let mut numbers = lock(&shared.numbers);
        numbers.requests += 1;
        numbers.active += 1;
        numbers.peak = numbers.peak.max(numbers.active);
        numbers.requests
    };
    shared.arrivals.notify_waiters();
    let response = answer(&shared, number, request).await;
    lock(&shared.numbers).active -= 1;
    response
}

async fn answer(shared: &Shared, number: u64, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, LARGEST_BODY).await.unwrap_or_default();
    let behaviour = lock(&shared.behaviour).clone();
    let mut received = Received {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        headers: plain(&parts.headers),
        body: String::new(),
        records: 0,
        status: None,
    };
    let (outcome, texts) = judge(&behaviour, number, &mut received, &body);
    if matches!(outcome, None | Some(Outcome::StoreThenBreak | Outcome::StoreThenStall(_))) {
        lock(&shared.records).extend(texts);
    }
    let mut response = respond(200, &[], r#"{"status":"ok"}"#);
    match outcome {
        None => {}
        Some(Outcome::Status { code, headers }) => {
            response = respond(code, &headers, r#"{"detail":"refused on request"}"#);
        }
        Some(Outcome::Body(body)) => response = respond(200, &[], body),
        Some(Outcome::Break | Outcome::StoreThenBreak) => {
            lock(&shared.received).push(received);
            return broken();
        }
        Some(Outcome::StoreThenStall(wait)) => tokio::time::sleep(wait).await,
        Some(Outcome::Gate) => {
            // The sender lives as long as the webhook, so this ends only when the gate is open.
            drop(shared.gate.subscribe().wait_for(|open| *open).await.map(|_| ()));
            response = respond(503, &[], r#"{"detail":"the gate was opened"}"#);
        }
    }
    received.status = Some(response.status().as_u16());
    lock(&shared.received).push(received);
    response
}

/// Decides what happens to a request, and takes its records apart.
fn judge(behaviour: &Behaviour, number: u64, received: &mut Received, body: &[u8]) -> (Option<Outcome>, Vec<String>) {
    let refuse = |code| (Some(Outcome::status(code)), Vec::new());
    if !received.path.starts_with("/api/app/webhooks/") {
        return refuse(404);
    }
    let scripted = behaviour.outcomes.iter().find(|(nth, _)| *nth == number).map(|(_, outcome)| outcome.clone());
    let scripted = scripted.or_else(|| behaviour.always.clone());
    let token = behaviour.bearer.as_ref().map(|token| format!("Bearer {token}"));
    if token.is_some() && received.header("authorization") != token.as_deref() {
        return refuse(401);
    }
    if received.method != "POST" {
        return refuse(405);
    }
    if behaviour.max_body_bytes.is_some_and(|most| body.len() > most) {
        return refuse(413);
    }
    let Some(text) = decompressed(received, body) else { return refuse(400) };
    received.body = text;
    let texts: Vec<String> = match serde_json::from_str::<Vec<&RawValue>>(&received.body) {
        Ok(elements) => elements.iter().map(|element| element.get().to_owned()).collect(),
        Err(_) if serde_json::from_str::<Value>(&received.body).is_ok_and(|value| value.is_object()) => {
            vec![received.body.clone()]
        }
        Err(_) => return refuse(400),
    };
    received.records = texts.len();
    if texts.is_empty() {
        return refuse(400);
    }
    if behaviour.max_records.is_some_and(|most| texts.len() > most) {
        return refuse(413);
    }
    if let Some((_, code)) = behaviour.poison.as_ref().filter(|(poison, _)| received.body.contains(poison)) {
        return refuse(*code);
    }
    (scripted, texts)
}

fn decompressed(received: &Received, body: &[u8]) -> Option<String> {
    if received.header("content-encoding") != Some("gzip") {
        return String::from_utf8(body.to_vec()).ok();
    }
    let mut text = String::new();
    GzDecoder::new(body).read_to_string(&mut text).ok()?;
    Some(text)
}

fn plain(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &axum::http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

fn respond(code: u16, headers: &[(String, String)], body: &'static str) -> Response<Body> {
    let mut builder = Response::builder().status(code).header("content-type", "application/json");
    for (name, value) in headers {
        builder = builder.header(name, value);
    }
    builder.body(Body::from(body)).unwrap_or_else(|_| {
        let mut response = Response::new(Body::from("a header of the script cannot be sent"));
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    })
}

/// An answer whose head never arrives: the body fails before anything has been flushed.
fn broken() -> Response<Body> {
    let failure = stream::iter([Err::<Vec<u8>, _>(std::io::Error::other("broken on request"))]);
    Response::new(Body::from_stream(failure))
}
