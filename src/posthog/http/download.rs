//! Downloads from the host that keeps exported files.
//!
//! It is another host than `PostHog`, reached through a signed URL. So this client has no API
//! key at all: nothing that the file host does, further redirects included, can make it see one. Nor does
//! this client let itself be sent where only the inside of this network can go.

use std::sync::Arc;

use reqwest::header::{ACCEPT_ENCODING, CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, IF_RANGE, LOCATION, RANGE};
use reqwest::{ClientBuilder, StatusCode, redirect};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::Url;

use super::client::CONNECT_TIMEOUT;
use super::failure::Failure;
use super::refusal::Refusal;
use crate::config::Config;
use crate::error::Error;
use crate::net::{
    Body, BodyError, OutOfReach, Reach, client_build_error, client_builder, connection_advice, describe,
    goes_through_proxy, is_loopback, out_of_reach, proxy_refusal,
};

/// Files are read in pieces of this size at most; compressed JSON grows tenfold.
const PIECE: usize = 16 * 1024;
/// Files that are downloaded and unpacked at a time, of all streams and projects: the line of each that is not
/// complete, and the records that are not sent yet, take some megabytes.
const MOST_FILES: usize = 4;
/// Redirects of the file host that are followed.
const MOST_REDIRECTS: usize = 5;

/// Downloads files. Cheap to clone.
#[derive(Clone)]
pub struct FileClient {
    /// Connects to file hosts itself, where it may.
    direct: reqwest::Client,
    /// Leaves that to the proxy.
    proxied: reqwest::Client,
    base: Url,
    reach: Reach,
    places: Arc<Semaphore>,
}

/// The place of one file among those that are read at a time, until it is dropped.
pub struct FilePlace {
    _permit: Option<OwnedSemaphorePermit>,
}

impl FileClient {
    /// A client with the configured patience.
    ///
    /// # Errors
    /// When no certificates are installed.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let reach = Reach::new(&config.base_url);
        let build = |builder: ClientBuilder| {
            builder
                .user_agent(concat!("source-posthog/", env!("CARGO_PKG_VERSION")))
                // Followed here, where each target is looked at.
                .redirect(redirect::Policy::none())
                // Files are stored compressed; they are checked and unpacked here.
                .no_gzip()
                .connect_timeout(CONNECT_TIMEOUT)
                .read_timeout(config.read_timeout)
                .build()
                .map_err(client_build_error)
        };
        let direct = build(client_builder()?.no_proxy().dns_resolver(reach.clone()))?;
        let proxied = build(client_builder()?)?;
        let places = Arc::new(Semaphore::new(MOST_FILES));
        Ok(Self { direct, proxied, base: config.base_url.clone(), reach, places })
    }

    /// Waits until one more file may be read.
    pub async fn place(&self) -> FilePlace {
        // The semaphore is never closed.
        FilePlace { _permit: Arc::clone(&self.places).acquire_owned().await.ok() }
    }

    /// Asks for a file, or for the rest of it from byte `from` on if it still is the file with `tag`.
    ///
    /// # Errors
    /// A [`Failure`]; [`Failure::Refused`] when the file host does not accept the URL (any more).
    pub async fn get(&self, url: &Url, from: u64, tag: Option<&HeaderValue>) -> Result<FileResponse, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(tag) = tag.filter(|_| from > 0) {
            let range = HeaderValue::from_str(&format!("bytes={from}-"));
            headers.insert(RANGE, range.map_err(|error| Failure::transient(error.to_string()))?);
            headers.insert(IF_RANGE, tag.clone());
        }
        let response = self.follow(url.clone(), &headers).await?;
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

    /// Sends the request to `url`, and to where that redirects.
    async fn follow(&self, mut url: Url, headers: &HeaderMap) -> Result<reqwest::Response, Failure> {
        // An instance without encryption may keep its files without, too.
        let mut may_be_open = self.base.scheme() == "http" || is_loopback(&url);
        for _ in 0..=MOST_REDIRECTS {
            self.reach.check(&url).await.map_err(|reason| not_sent(&reason))?;
            match url.scheme() {
                "https" => may_be_open = false,
                "http" if may_be_open => {}
                _ => {
                    return Err(Failure::Fatal(Error::config(
                        "PostHog offers the files at an unencrypted URL; set `method` to `query`",
                    )));
                }
            }
            let client = if goes_through_proxy(&url) { &self.proxied } else { &self.direct };
            let response = client.get(url.clone()).headers(headers.clone()).send().await.map_err(broken)?;
            match target(&response, &url) {
                Some(next) => url = next,
                None => return Ok(response),
            }
        }
        Err(Failure::transient("the file host redirects in circles"))
    }
}

/// Where a response redirects to.
fn target(response: &reqwest::Response, url: &Url) -> Option<Url> {
    let is_redirect = matches!(response.status().as_u16(), 301..=303 | 307 | 308);
    let location = response.headers().get(LOCATION).filter(|_| is_redirect)?;
    url.join(location.to_str().ok()?).ok()
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

fn not_sent(reason: &OutOfReach) -> Failure {
    match reason {
        OutOfReach::Zone { .. } => Failure::Fatal(Error::config(format!(
            "PostHog leads downloads to {reason}, where `base_url` is not; set `method` to `query`"
        ))),
        OutOfReach::Lookup(error) => Failure::transient(format!("no address for the file host or `base_url`: {error}")),
    }
}

fn broken(error: reqwest::Error) -> Failure {
    if let Some(reason) = out_of_reach(&error) {
        return not_sent(reason);
    }
    if let Some(known) = connection_advice(&error, "the file host") {
        return Failure::Fatal(known.with_details(describe(error)));
    }
    Failure::transient(format!("the download from the file host broke off: {}", describe(error)))
}

fn starts_at(headers: &HeaderMap, from: u64) -> bool {
    let range = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    range.strip_prefix("bytes ").and_then(|range| range.split('-').next()) == Some(from.to_string().as_str())
}
