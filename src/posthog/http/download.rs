//! Downloads from the host that keeps exported files.
//!
//! It is another host than `PostHog`, reached through a signed URL. So this client has no API
//! key at all: nothing that the file host does, further redirects included, can make it see one.

use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, IF_RANGE, RANGE};
use reqwest::{StatusCode, redirect};
use url::Url;

use super::client::CONNECT_TIMEOUT;
use super::failure::Failure;
use super::refusal::Refusal;
use crate::config::Config;
use crate::error::Error;
use crate::net::{
    Body, BodyError, client_build_error, client_builder, connection_advice, describe, is_loopback, proxy_refusal,
};

/// Files are read in pieces of this size at most; compressed JSON grows tenfold.
const PIECE: usize = 16 * 1024;
/// Redirects of the file host that are followed.
const MOST_REDIRECTS: usize = 5;

/// Downloads files. Cheap to clone.
#[derive(Clone)]
pub struct FileClient {
    http: reqwest::Client,
    allow_http: bool,
}

impl FileClient {
    /// A client with the configured patience.
    ///
    /// # Errors
    /// When no certificates are installed.
    pub fn new(config: &Config) -> Result<Self, Error> {
        // An instance without encryption may keep its files without, too.
        let allow_http = config.base_url.scheme() == "http";
        let policy = redirect::Policy::custom(move |attempt| {
            if attempt.previous().len() > MOST_REDIRECTS {
                return attempt.error("the file host redirects in circles");
            }
            if is_safe(attempt.url(), allow_http) { attempt.follow() } else { attempt.stop() }
        });
        let http = Self::build(policy, config.read_timeout)?;
        Ok(Self { http, allow_http })
    }

    fn build(policy: redirect::Policy, read_timeout: Duration) -> Result<reqwest::Client, Error> {
        client_builder()?
            .user_agent(concat!("source-posthog/", env!("CARGO_PKG_VERSION")))
            .redirect(policy)
            // A signed URL is a secret; the next host must not learn it.
            .referer(false)
            // Files are stored compressed; they are checked and unpacked here.
            .no_gzip()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(read_timeout)
            .build()
            .map_err(client_build_error)
    }

    /// Asks for a file, or for the rest of it from byte `from` on if it still is the file with `tag`.
    ///
    /// # Errors
    /// A [`Failure`]; [`Failure::Refused`] when the file host does not accept the URL (any more).
    pub async fn get(&self, url: &Url, from: u64, tag: Option<&HeaderValue>) -> Result<FileResponse, Failure> {
        if !is_safe(url, self.allow_http) {
            return Err(Failure::Fatal(Error::config(
                "PostHog offers the files at an unencrypted URL; set `method` to `query`",
            )));
        }
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(tag) = tag.filter(|_| from > 0) {
            let range = HeaderValue::from_str(&format!("bytes={from}-"));
            headers.insert(RANGE, range.map_err(|error| Failure::transient(error.to_string()))?);
            headers.insert(IF_RANGE, tag.clone());
        }
        let response = self.http.get(url.clone()).headers(headers).send().await.map_err(broken)?;
        let status = response.status();
        match status {
            StatusCode::PARTIAL_CONTENT if starts_at(response.headers(), from) => Ok(FileResponse::new(response, from)),
            StatusCode::OK => Ok(FileResponse::new(response, 0)),
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => Err(Failure::Fatal(Error::config(proxy_refusal()))),
            _ if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => {
                Err(Failure::Refused(Refusal::of_other_host(status, format!("the file host answers {status}"))))
            }
            _ => Err(Failure::transient(format!("the file host answers {status}"))),
        }
    }
}

/// A file, or the rest of it, on its way.
pub struct FileResponse {
    body: Body,
    /// Place in the file of the first byte that comes.
    pub from: u64,
}

impl FileResponse {
    fn new(response: reqwest::Response, from: u64) -> Self {
        Self { body: Body::new(response, PIECE), from }
    }

    /// The next bytes; none at the end.
    ///
    /// # Errors
    /// When the body is cut or stalls.
    pub async fn chunk(&mut self) -> Result<Option<impl AsRef<[u8]> + use<>>, Failure> {
        self.body.next().await.map_err(|error| match error {
            BodyError::Transport(error) => broken(error),
            BodyError::TooSlow => Failure::transient("the download from the file host is too slow"),
            BodyError::Packed(error) => Failure::transient(format!("the file cannot be unpacked: {error}")),
        })
    }

    /// Identifies this version of the file; without it, a download cannot be resumed.
    pub fn tag(&self) -> Option<HeaderValue> {
        let tag = self.body.response().headers().get(ETAG)?;
        // A weak tag does not promise the same bytes.
        (!tag.as_bytes().starts_with(b"W/")).then(|| tag.clone())
    }
}

fn broken(error: reqwest::Error) -> Failure {
    if let Some(known) = connection_advice(&error, "the file host") {
        return Failure::Fatal(known.with_details(describe(error)));
    }
    Failure::transient(format!("the download from the file host broke off: {}", describe(error)))
}

fn is_safe(url: &Url, allow_http: bool) -> bool {
    url.scheme() == "https" || (url.scheme() == "http" && (allow_http || is_loopback(url)))
}

fn starts_at(headers: &HeaderMap, from: u64) -> bool {
    let range = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    range.strip_prefix("bytes ").and_then(|range| range.split('-').next()) == Some(from.to_string().as_str())
}
