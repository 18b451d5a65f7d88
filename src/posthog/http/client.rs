//! Requests to one `PostHog` instance with one key.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Method, StatusCode, redirect};
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use super::clock::{Skew, own_clock};
use super::failure::Failure;
use super::rate_limit::{Class, Observer, Permit, RateLimiter};
use super::redirect::redirect_error;
use super::refusal::Report;
use super::retry::{GiveUp, Retry};
use crate::config::Config;
use crate::error::Error;
use crate::json_text::without_byte_order_mark;
use crate::large::make_room;
use crate::net::{Body, BodyError, ZstdPlace, ZstdPlaces, client_build_error, client_builder};
use crate::posthog::turn::Turn;
use crate::time::Timestamp;

pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Bodies are read in pieces of this size at most.
const PIECE: usize = 64 * 1024;
/// Error bodies are read up to this size; more would not help.
const EXCERPT: usize = 64 * 1024;
/// Account answers are far below this, and a list page can be asked for with fewer objects.
const LARGEST_JSON: usize = 8 * 1024 * 1024;
/// Bytes that a query has read, and what the project's budget has left (`api_queries_budget.py`).
pub(crate) const BYTES_READ: &str = "X-PostHog-Query-Bytes-Read";
const BUDGET_LEFT: &str = "X-PostHog-Query-Budget-Remaining-Bytes";
/// Bytes a second of the smallest plan: 20 GB an hour.
const SMALLEST_BUDGET: u64 = 20_000_000_000 / 3_600;
const SHORTEST_DEBT: Duration = Duration::from_secs(1);
const LONGEST_DEBT: Duration = Duration::from_mins(1);

/// Sends requests through the [`RateLimiter`]. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    http: reqwest::Client,
    base: Url,
    limiter: RateLimiter,
    attempts: usize,
    /// Seconds by which the server's clock is taken to be ahead of ours.
    skew: AtomicI64,
    /// Whether it has been said that one of the clocks is wrong.
    warned_of_clock: AtomicBool,
    /// Queries in a row for which a gateway did not wait.
    gateway_timeouts: AtomicUsize,
    /// Whether a response in zstd could not be unpacked, be it for the window that it wanted.
    avoids_zstd: AtomicBool,
    zstd_places: ZstdPlaces,
}

impl Client {
    /// A client for the configured instance and key.
    ///
    /// # Errors
    /// When the key cannot be sent in a header or no certificates are installed.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", config.api_key.expose()))
            .map_err(|_| Error::config("`api_key` contains characters that no key has; copy it again"))?;
        authorization.set_sensitive(true);
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, authorization);
        let http = client_builder()?
            .default_headers(headers)
            .user_agent(concat!("source-posthog/", env!("CARGO_PKG_VERSION")))
            // A redirect to another host would take the key along or lose it; neither is wanted.
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(config.read_timeout)
            .build()
            .map_err(client_build_error)?;
        let limiter = RateLimiter::new(config.concurrency, config.rate_limit_share);
        let (base, attempts) = (config.base_url.clone(), config.attempts);
        let (skew, gateway_timeouts) = (AtomicI64::new(0), AtomicUsize::new(0));
        let (warned_of_clock, avoids_zstd) = (AtomicBool::new(false), AtomicBool::new(false));
        let zstd_places = ZstdPlaces::default();
        let inner =
            Inner { http, base, limiter, attempts, skew, warned_of_clock, gateway_timeouts, avoids_zstd, zstd_places };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Root of the instance.
    pub fn base(&self) -> &Url {
        &self.inner.base
    }

    /// The gate that all requests of this client pass.
    pub fn limiter(&self) -> &RateLimiter {
        &self.inner.limiter
    }

    /// The configured patience, for one piece of progress.
    pub fn retry(&self) -> Retry {
        Retry::with_attempts(self.inner.attempts)
    }

    /// The server's clock, from the `Date` header of its last response, as far as this machine's agrees.
    ///
    /// Ingestion times of events come from the server's clock, so bounds on them must, too.
    pub fn now(&self) -> Timestamp {
        let ahead = self.inner.skew.load(Ordering::Relaxed) * 1_000_000;
        Timestamp::from_micros(own_clock().timestamp_micros()).plus_micros(ahead)
    }

    /// Sends one request and returns its answer when it is a success.
    ///
    /// # Errors
    /// A [`Failure`], which determines how to go on.
    pub async fn send(
        &self,
        class: Class,
        request: &Request<'_>,
        observer: &dyn Observer,
    ) -> Result<Response, Failure> {
        let permit = self.inner.limiter.acquire(class, observer).await;
        let place = self.zstd_place();
        let mut builder = self.inner.http.request(request.method.clone(), self.url(request.path)?);
        builder = builder.header(ACCEPT_ENCODING, place.accepts());
        if let Some(body) = request.body {
            builder = builder.json(body);
        }
        let begin = Instant::now();
        let response = builder.send().await.map_err(Failure::from_transport)?;
        let status = response.status();
        if status.is_success() {
            self.learn_clock(response.headers())?;
            if is_web_page(response.headers()) {
                let body = excerpt(response, place).await.unwrap_or_else(|(body, _)| body);
                return Err(web_page(&body));
            }
            if matches!(class, Class::Query(_)) {
                self.inner.gateway_timeouts.store(0, Ordering::Relaxed);
            }
            self.learn_budget(class, response.headers());
            let body = Body::unpacked(response, PIECE, place);
            return Ok(Response { body, inner: Arc::clone(&self.inner), _permit: permit });
        }
        Err(self.refusal(status, response, place, request.path, class, begin.elapsed()).await)
    }

    /// A place for a response in zstd, as long as those can be unpacked.
    fn zstd_place(&self) -> ZstdPlace {
        if self.inner.avoids_zstd.load(Ordering::Relaxed) {
            ZstdPlace::default()
        } else {
            self.inner.zstd_places.take()
        }
    }

    /// Sends one request and reads its JSON answer.
    ///
    /// # Errors
    /// A [`Failure`], which determines how to go on.
    pub async fn json<T: DeserializeOwned>(
        &self,
        class: Class,
        request: &Request<'_>,
        observer: &dyn Observer,
    ) -> Result<T, Failure> {
        Ok(self.json_in_turn(class, request, observer).await?.0)
    }

    /// The same; the turn is for what is made of a large answer.
    ///
    /// # Errors
    /// A [`Failure`], which determines how to go on.
    pub async fn json_in_turn<T: DeserializeOwned>(
        &self,
        class: Class,
        request: &Request<'_>,
        observer: &dyn Observer,
    ) -> Result<(T, Turn), Failure> {
        let (body, turn) = self.text(class, request, observer).await?;
        let answer = serde_json::from_slice(&body)
            .map_err(|error| Failure::transient(format!("the response is not usable: {error}")))?;
        Ok((answer, turn))
    }

    /// Sends one request and reads its answer, which is JSON to all appearances.
    ///
    /// # Errors
    /// A [`Failure`], which determines how to go on; [`Failure::TooLarge`] when it has more than 8 MiB.
    pub async fn text(
        &self,
        class: Class,
        request: &Request<'_>,
        observer: &dyn Observer,
    ) -> Result<(Vec<u8>, Turn), Failure> {
        let (mut body, turn) = self.send(class, request, observer).await?.whole(LARGEST_JSON).await?;
        body.drain(..body.len() - without_byte_order_mark(&body).len());
        match body.trim_ascii_start().first() {
            Some(b'<') => Err(web_page(&body)),
            Some(_) => Ok((body, turn)),
            None => Err(Failure::transient("the response is empty")),
        }
    }

    /// Reads JSON, trying again as [`Retry`] allows.
    ///
    /// # Errors
    /// When the failure is final or has happened too often.
    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        retry: Retry,
        observer: &dyn Observer,
    ) -> Result<T, GiveUp> {
        Ok(self.get_in_turn(path, retry, observer).await?.0)
    }

    /// The same; the turn is for what is made of a large answer.
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub async fn get_in_turn<T: DeserializeOwned>(
        &self,
        path: &str,
        retry: Retry,
        observer: &dyn Observer,
    ) -> Result<(T, Turn), GiveUp> {
        let request = Request { method: Method::GET, path, body: None };
        retry.run(self.limiter(), || self.json_in_turn(Class::General, &request, observer)).await
    }

    /// Reads the JSON text at a path that may have a limit of its own; the turn is for what is made of it.
    ///
    /// # Errors
    /// As for [`Client::get`]; [`GiveUp::TooLarge`] as for [`Client::text`].
    pub async fn get_text(
        &self,
        class: Class,
        path: &str,
        retry: Retry,
        observer: &dyn Observer,
    ) -> Result<(Vec<u8>, Turn), GiveUp> {
        let request = Request { method: Method::GET, path, body: None };
        retry.run(self.limiter(), || self.text(class, &request, observer)).await
    }

    /// The URL that a path redirects to. Nothing is sent there.
    ///
    /// # Errors
    /// A [`Failure`], which determines how to go on; also when the response is not a redirect.
    pub async fn location(&self, path: &str, observer: &dyn Observer) -> Result<Url, Failure> {
        let _permit = self.inner.limiter.acquire(Class::General, observer).await;
        let url = self.url(path)?;
        let place = ZstdPlace::default();
        let request = self.inner.http.get(url.clone()).header(ACCEPT_ENCODING, place.accepts());
        let response = request.send().await.map_err(Failure::from_transport)?;
        let status = response.status();
        if !status.is_redirection() {
            return Err(self.refusal(status, response, place, path, Class::General, Duration::ZERO).await);
        }
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        url.join(location).map_err(|_| Failure::transient("PostHog redirects to an invalid URL"))
    }

    /// The full URL of a path below the instance's root.
    fn url(&self, path: &str) -> Result<Url, Failure> {
        self.inner.base.join(path.trim_start_matches('/')).map_err(|error| {
            Failure::Fatal(Error::system(format!("`{path}` is not a path below the PostHog URL: {error}")))
        })
    }

    async fn refusal(
        &self,
        status: StatusCode,
        response: reqwest::Response,
        place: ZstdPlace,
        path: &str,
        class: Class,
        elapsed: Duration,
    ) -> Failure {
        let headers = response.headers().clone();
        if status.is_redirection() {
            let location = headers.get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
            return match self.url(path) {
                Ok(asked) => Failure::Fatal(redirect_error(self.base(), &asked, location)),
                Err(failure) => failure,
            };
        }
        let body = match excerpt(response, place).await {
            // What is refused, and why, stands in the JSON that has been cut.
            Err((body, error)) if status.is_client_error() && !Report::read(&body).is_json => {
                return Failure::transient(format!(
                    "the response with status {status} broke off: {}",
                    Failure::from_body(error)
                ));
            }
            Ok(body) | Err((body, _)) => body,
        };
        let mut failure = Failure::from_response(status, &headers, &body, path, class, elapsed);
        if let Failure::Throttled { pause: Some(pause), message, .. } = &failure {
            self.limiter().pause(class, *pause, message);
        }
        // When no query at all comes through any more, none of them is too large.
        if let Failure::Transient { perhaps_too_large: perhaps @ true, .. } = &mut failure {
            *perhaps = self.inner.gateway_timeouts.fetch_add(1, Ordering::Relaxed) < self.inner.attempts;
        }
        failure
    }

    /// When a query has used up its project's byte budget, the next one would be refused. The debt is
    /// at most what the query has read; how fast it is paid off depends on the plan, so after a while
    /// nothing is known any more, and PostHog is asked.
    fn learn_budget(&self, class: Class, headers: &HeaderMap) {
        let number = |name: &str| headers.get(name)?.to_str().ok()?.parse::<u64>().ok();
        if let (Some(0), Some(read)) = (number(BUDGET_LEFT), number(BYTES_READ)) {
            let wait = Duration::from_secs(read / SMALLEST_BUDGET).clamp(SHORTEST_DEBT, LONGEST_DEBT);
            self.limiter().pause(class, wait, "the project's hourly budget of bytes that queries may read is used up");
        }
    }

    fn learn_clock(&self, headers: &HeaderMap) -> Result<(), Failure> {
        let own = own_clock();
        let Some(skew) = Skew::read(headers, own) else { return Ok(()) };
        skew.check(own)?;
        self.inner.skew.store(skew.believed.num_seconds(), Ordering::Relaxed);
        if let Some(notice) = skew.notice().filter(|_| !self.inner.warned_of_clock.swap(true, Ordering::Relaxed)) {
            tracing::warn!("{notice}");
        }
        Ok(())
    }
}

/// The beginning of a body; what has come of it when it breaks off.
async fn excerpt(response: reqwest::Response, place: ZstdPlace) -> Result<Vec<u8>, (Vec<u8>, BodyError)> {
    let (mut body, mut excerpt) = (Body::unpacked(response, PIECE, place), Vec::new());
    while excerpt.len() <= EXCERPT {
        match body.next().await {
            Ok(Some(piece)) => excerpt.extend_from_slice(&piece),
            Ok(None) => break,
            Err(error) => return Err((excerpt, error)),
        }
    }
    Ok(excerpt)
}

fn is_web_page(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.trim_start().to_ascii_lowercase().starts_with("text/html")
}

/// A success that PostHog's API never sends. It may be a page of maintenance, so it is asked again.
fn web_page(body: &[u8]) -> Failure {
    Failure::transient(format!(
        "the response is a web page (`{}`), not a response from PostHog's API; check that `base_url` is the URL of PostHog itself and that no login or maintenance page is in front of it",
        Report::read(body).excerpt()
    ))
}

/// A request below the instance's root.
pub struct Request<'a> {
    /// HTTP method.
    pub method: Method,
    /// Path, such as `api/projects/1/query/`.
    pub path: &'a str,
    /// JSON body.
    pub body: Option<&'a Value>,
}

/// A successful answer. It keeps its place at the gate until it has been read.
pub struct Response {
    body: Body,
    inner: Arc<Inner>,
    _permit: Permit,
}

impl Response {
    /// The next piece of the decoded body; none at its end.
    ///
    /// # Errors
    /// When the body is cut, stalls or cannot be decoded.
    pub async fn chunk(&mut self) -> Result<Option<impl AsRef<[u8]> + use<>>, Failure> {
        self.body.next().await.map_err(|error| {
            if matches!(error, BodyError::Packed(_)) {
                self.inner.avoids_zstd.store(true, Ordering::Relaxed);
            }
            Failure::from_body(error)
        })
    }

    /// A header as a number.
    pub fn number(&self, header: &str) -> Option<u64> {
        self.body.response().headers().get(header)?.to_str().ok()?.parse().ok()
    }

    /// The whole body, at most `most` bytes, with the turn that it has taken.
    async fn whole(mut self, most: usize) -> Result<(Vec<u8>, Turn), Failure> {
        let (mut body, mut turn) = (Vec::new(), Turn::default());
        while let Some(chunk) = self.chunk().await? {
            make_room(&mut body, chunk.as_ref().len());
            body.extend_from_slice(chunk.as_ref());
            turn.take_for(body.len()).await;
            if body.len() > most {
                let megabytes = most / (1024 * 1024);
                return Err(Failure::TooLarge { message: format!("a response is larger than {megabytes} MiB") });
            }
        }
        Ok((body, turn))
    }
}
