//! A server that sends events as fast as the machine can.
//!
//! It answers what the connector asks when it reads events, by query and by export, with bytes that
//! it keeps in memory; whatever else is asked goes to the sandbox behind it. A query that it does not
//! know is answered with 400.

mod condition;
mod content;
mod counted;
mod figures;
mod fresh;
mod question;
mod stock;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail, ensure};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{Method, Response, StatusCode, header};
use axum::serve::ListenerExt as _;
use chrono::{DateTime, Utc};
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use self::condition::Span;
pub use self::content::Size;
use self::content::{Answer, pack};
use self::fresh::Fresh;
use self::question::{Question, recognize};
use self::stock::Stock;
use crate::drain;
use crate::http::{API_KEY, Client};

/// What PostHog reads of a row for a figure; see docs/DESIGN.md.
pub const FIGURE_BYTES: u64 = 40;
/// What PostHog reads of an event for a page: its properties, and as much of the rest as the sandbox says.
pub const EVENT_BYTES: u64 = 1_320;

const LARGEST_REQUEST: usize = 1 << 20;
/// Every run has the same name, followed by its interval.
const RUN: &str = "run";

/// What a server says when it is ready.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ready {
    /// `http://127.0.0.1:PORT` of PostHog.
    pub url: String,
    /// `http://127.0.0.1:PORT/…` of a webhook that takes everything.
    pub webhook: String,
    /// The first instant with events, in RFC 3339.
    pub start: String,
}

/// What has been asked since the last time, as far as events came with the answers.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Traffic {
    /// The requests, in their order.
    pub requests: Vec<drain::Request>,
    /// Bytes of the bodies.
    pub sent: u64,
    /// Bytes of the bodies before compression.
    pub unpacked: u64,
}

/// Queries since the last time, and what PostHog would have read for them. Its table is ordered by day, so
/// a query for any part of a day reads all of it.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Queries {
    pub number: u64,
    /// Bytes for figures.
    pub figures: u64,
    /// Bytes for everything.
    pub bytes: u64,
}

#[derive(Debug)]
struct Shared {
    stock: Stock,
    /// Events that have come since; its sandbox answers whatever else is asked.
    fresh: Fresh,
    client: Client,
    /// Host and port of the files.
    files: String,
    /// Whether answers of queries are compressed for those who like it, as PostHog does.
    gzip: AtomicBool,
    /// Whether queries for figures are refused, as with a plan that has none.
    refuses_figures: AtomicBool,
    traffic: Mutex<Traffic>,
    queries: Mutex<Queries>,
}

impl Shared {
    /// Answers a query.
    async fn answer(&self, sql: &str, question: Question, gzip: bool) -> anyhow::Result<Answer> {
        match question {
            Question::Figures(figures) => {
                let mut cells = self.stock.cells(&figures)?;
                self.fresh.count(sql, &mut cells).await?;
                pack(figures.answer(&cells).to_string().into(), gzip, false)
            }
            Question::ArrivedPage { times, .. } if self.fresh.has_all(times.arrived, self.stock.end()) => {
                pack(self.fresh.query(sql).await?, gzip, true)
            }
            Question::Columns => pack(self.fresh.query(sql).await?, gzip, false),
            other => self.stock.answer(sql, other, gzip).await,
        }
    }

    /// Notes what a query reads, and returns it.
    fn charge(&self, question: &Question) -> u64 {
        let rows = |happened: Span| self.stock.rows(happened) + self.fresh.rows(happened);
        let mut queries = self.queries.lock().unwrap_or_else(PoisonError::into_inner);
        queries.number += 1;
        let bytes = match question {
            Question::Figures(figures) => {
                let bytes = figures.happened.iter().map(|span| rows(*span)).sum::<u64>() * FIGURE_BYTES;
                queries.figures += bytes;
                bytes
            }
            Question::ArrivedPage { times, .. } => rows(times.happened) * EVENT_BYTES,
            Question::Page { from, to, .. } => rows(Span { from: *from, to: *to }) * EVENT_BYTES,
            Question::Days { from, to } | Question::Count { from, to } => {
                rows(Span { from: *from, to: *to }) * FIGURE_BYTES
            }
            Question::Hours { .. } | Question::Arrived { .. } => rows(Span::ALL) * FIGURE_BYTES,
            Question::Columns => 0,
        };
        queries.bytes += bytes;
        bytes
    }

    fn traffic(&self) -> std::sync::MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, parts: &Parts, body: &[u8], answer: &Answer) {
        if !answer.events {
            return;
        }
        let text = |name| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let request = drain::Request {
            host: text(header::HOST).unwrap_or_default(),
            method: parts.method.to_string(),
            path: parts.uri.to_string(),
            authorization: text(header::AUTHORIZATION),
            gzip: answer.gzip,
            body: String::from_utf8_lossy(body).into_owned(),
        };
        let mut traffic = self.traffic();
        traffic.requests.push(request);
        traffic.sent += answer.body.len() as u64;
        traffic.unpacked += answer.unpacked;
    }
}

/// Serves until the process is ended. Calls `ready` as soon as everything is prepared.
///
/// # Errors
/// When the events cannot be made or no port is free.
pub async fn serve(size: Size, ready: impl FnOnce(&Ready) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let stock = Stock::new(size).await?;
    let api = TcpListener::bind(("127.0.0.1", 0)).await?;
    let files = TcpListener::bind(("127.0.0.1", 0)).await?;
    let (root, host) = (format!("http://{}", api.local_addr()?), files.local_addr()?.to_string());
    let [api, files] = [api, files].map(|listener| {
        listener.tap_io(|connection| {
            // Without it, the end of an answer may wait for its beginning to be acknowledged, which
            // is only slower.
            drop(connection.set_nodelay(true));
        })
    });
    ready(&Ready { webhook: format!("{root}/api/app/webhooks/benchmark"), url: root, start: stock.start() })?;
    let shared = Arc::new(Shared {
        stock,
        fresh: Fresh::new().await?,
        client: Client::default(),
        files: host,
        gzip: AtomicBool::new(false),
        refuses_figures: AtomicBool::new(false),
        traffic: Mutex::default(),
        queries: Mutex::default(),
    });
    let api = axum::serve(api, Router::new().fallback(handle).with_state(Arc::clone(&shared)));
    let files = axum::serve(files, Router::new().fallback(download).with_state(shared));
    tokio::try_join!(async { api.await }, async { files.await })?;
    Ok(())
}

async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let outcome = match segments.as_slice() {
        ["api", "app", "webhooks", ..] => take_in(body).await,
        ["benchmark", "traffic"] => {
            let traffic = std::mem::take(&mut *shared.traffic());
            serde_json::to_string(&traffic).map(|text| respond(200, Body::from(text))).map_err(Into::into)
        }
        ["benchmark", "queries"] => {
            let queries = std::mem::take(&mut *shared.queries.lock().unwrap_or_else(PoisonError::into_inner));
            serde_json::to_string(&queries).map(|text| respond(200, Body::from(text))).map_err(Into::into)
        }
        ["benchmark", "add", rows] => match rows.parse() {
            Ok(rows) => shared.fresh.add(rows).await.map(|()| respond(200, Body::empty())),
            Err(error) => Err(error.into()),
        },
        ["benchmark", "gzip", switch] => {
            shared.gzip.store(*switch == "true", Ordering::Relaxed);
            Ok(respond(200, Body::empty()))
        }
        ["benchmark", "figures", switch] => {
            shared.refuses_figures.store(*switch == "refused", Ordering::Relaxed);
            Ok(respond(200, Body::empty()))
        }
        ["api", "projects", _, rest @ ..] if !rest.is_empty() => {
            let authorized =
                parts.headers.get(header::AUTHORIZATION).is_some_and(|key| key == &format!("Bearer {API_KEY}"));
            if authorized { answer(&shared, &parts, body, rest).await } else { Ok(respond(401, Body::empty())) }
        }
        _ => forward(&shared, &parts).await,
    };
    outcome.unwrap_or_else(|error| {
        let detail = format!("{error:#}");
        respond(400, Body::from(json!({"type": "validation_error", "code": "benchmark", "detail": detail}).to_string()))
    })
}

async fn answer(shared: &Arc<Shared>, parts: &Parts, body: Body, rest: &[&str]) -> anyhow::Result<Response<Body>> {
    let body = to_bytes(body, LARGEST_REQUEST).await?;
    match (&parts.method, rest) {
        (&Method::POST, ["query"]) => {
            let asked: Value = serde_json::from_slice(&body)?;
            let query = &asked["query"];
            let sql = query["query"].as_str().unwrap_or_default();
            let question = recognize(sql, &query["values"])?;
            if matches!(question, Question::Figures(_)) && shared.refuses_figures.load(Ordering::Relaxed) {
                let refusal =
                    json!({"type": "authentication_error", "code": "permission_denied", "detail": "No figures."});
                return Ok(respond(403, Body::from(refusal.to_string())));
            }
            let accepted = parts.headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
            let gzip =
                shared.gzip.load(Ordering::Relaxed) && accepted.is_some_and(|accepted| accepted.contains("gzip"));
            let read = shared.charge(&question);
            let answer = shared.answer(sql, question, gzip).await?;
            shared.note(parts, &body, &answer);
            let mut response = respond(200, Body::from(answer.body));
            response.headers_mut().insert("x-posthog-query-bytes-read", read.into());
            if answer.gzip {
                response.headers_mut().insert(header::CONTENT_ENCODING, header::HeaderValue::from_static("gzip"));
            }
            Ok(response)
        }
        (&Method::POST, ["file_download_batch_exports"]) => {
            let asked: Value = serde_json::from_slice(&body)?;
            let (from, to) = (interval(&asked, "data_interval_start")?, interval(&asked, "data_interval_end")?);
            let file = &asked["file"];
            ensure!(asked["model"] == "events", "only events are exported");
            ensure!(
                file["format"] == "JSONLines" && file["compression"] == "gzip",
                "only JSON Lines with gzip are known"
            );
            let id = format!("{RUN}-{}-{}", from.timestamp_micros(), to.timestamp_micros());
            Ok(respond(202, Body::from(json!({"id": id}).to_string())))
        }
        (&Method::GET, ["file_download_batch_exports", run]) => {
            let bounds: Vec<Option<DateTime<Utc>>> = run
                .split('-')
                .skip(1)
                .map(|micros| micros.parse().ok().and_then(DateTime::from_timestamp_micros))
                .collect();
            let [Some(from), Some(to)] = bounds[..] else { bail!("there is no run {run}") };
            let content = shared.stock.content()?;
            let files = content.files(from, to)?;
            let rows = content.rows_of(&files);
            let status = json!({"status": "Completed", "files": files, "records_completed": rows});
            Ok(respond(200, Body::from(status.to_string())))
        }
        (&Method::GET, ["file_download_batch_exports", run, "download", file]) => {
            let mut response = respond(302, Body::empty());
            let location = format!("http://{}/{run}/{file}.jsonl.gz?signature=benchmark", shared.files);
            response.headers_mut().insert(header::LOCATION, location.parse()?);
            Ok(response)
        }
        _ => bail!("the benchmark server does not know {} {}", parts.method, parts.uri),
    }
}

fn interval(asked: &Value, name: &str) -> anyhow::Result<DateTime<Utc>> {
    let text = asked[name].as_str().with_context(|| format!("`{name}` is missing"))?;
    Ok(DateTime::parse_from_rfc3339(text)?.to_utc())
}

async fn download(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let (parts, _) = request.into_parts();
    if parts.headers.contains_key(header::AUTHORIZATION) {
        return respond(400, Body::from("the key has been shown to the host of the files"));
    }
    let Ok(content) = shared.stock.content() else { return respond(404, Body::empty()) };
    let file = content.file();
    shared.note(&parts, b"", &file);
    let mut response = respond(200, Body::from(file.body));
    response.headers_mut().insert(header::ETAG, header::HeaderValue::from_static("\"benchmark\""));
    response
}

/// Reads a body and throws it away.
async fn take_in(body: Body) -> anyhow::Result<Response<Body>> {
    let mut body = body.into_data_stream();
    while let Some(piece) = body.next().await {
        piece?;
    }
    Ok(respond(200, Body::from(r#"{"status":"ok"}"#)))
}

/// Lets the sandbox answer.
async fn forward(shared: &Shared, parts: &Parts) -> anyhow::Result<Response<Body>> {
    let url = format!("{}{}", shared.fresh.url(), parts.uri);
    let answer = shared.client.send(parts.method.clone(), &url, None).await?;
    Ok(respond(answer.status.as_u16(), Body::from(answer.body)))
}

fn respond(status: u16, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests;
