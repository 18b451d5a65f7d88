//! Connections that no retry can make: certificates, and proxies that want a password.

use std::error::Error as _;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use rustls::CertificateError;
use url::Url;

use super::environment;
use crate::error::Error;
use crate::secret::remember;

/// Variables that name a proxy; the programs and the libraries below them accept both spellings.
const PROXY_VARIABLES: [&str; 6] = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];

/// Bytes that a server may send over HTTP/2 ahead of what has been read, of one response and of all of a connection.
/// They take memory while their reader waits.
const STREAM_WINDOW: u32 = 512 * 1024;
const CONNECTION_WINDOW: u32 = 2 * 1024 * 1024;

/// Longer waits are never asked for on purpose.
const LONGEST_PAUSE: Duration = Duration::from_hours(2);

/// The settings that all clients share: proxies from the environment, except to this machine.
///
/// # Errors
/// When the environment names a proxy or certificates in a form that would be ignored.
pub(crate) fn client_builder() -> Result<reqwest::ClientBuilder, Error> {
    environment::check()?;
    let this_machine = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), SocketAddr::from((Ipv6Addr::LOCALHOST, 0))];
    // Trusted by its name, so it must not depend on what resolvers say.
    let builder = reqwest::Client::builder().resolve_to_addrs("localhost", &this_machine);
    let builder = builder.http2_initial_stream_window_size(STREAM_WINDOW);
    let builder = builder.http2_initial_connection_window_size(CONNECTION_WINDOW);
    Ok(builder.proxy(environment::proxies()))
}

/// Whether requests to `url` go through a proxy, which connects to the server in our place.
pub(crate) fn goes_through_proxy(url: &Url) -> bool {
    environment::proxy_for(url).is_some()
}

/// What the user has to do about a failed request, if waiting cannot help.
///
/// `server` names the other side in the message, as in "the server at `base_url`".
pub(crate) fn connection_advice(error: &reqwest::Error, server: &str) -> Option<Error> {
    let message = match tls_error(error) {
        Some(rustls::Error::InvalidCertificate(problem)) => certificate(problem, server),
        Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) if error.is_connect() => {
            format!("{server} does not answer with TLS; check its port, and whether it should begin with http://")
        }
        _ if is_refused_by_proxy(error) => proxy_refusal(),
        _ => return None,
    };
    Some(Error::config(message))
}

/// The message for status 407, which always comes from a proxy, never from the server behind it.
pub(crate) fn proxy_refusal() -> String {
    "the proxy requires authentication (407); put the credentials in HTTPS_PROXY (for http:// URLs in HTTP_PROXY) as http://user:password@host:port, special characters percent-encoded".to_owned()
}

/// The failure of a client that cannot be built; with rustls, that is for want of certificates.
pub(crate) fn client_build_error(error: reqwest::Error) -> Error {
    let fix = match ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().find(|name| std::env::var_os(name).is_some()) {
        Some(name) => format!("{name} is set, and there is no usable certificate (PEM) in it"),
        None => "install the CA certificates of this system (often a package named ca-certificates), or set SSL_CERT_FILE to a file with them".to_owned(),
    };
    Error::config(format!("cannot prepare encrypted connections: {fix}")).with_details(describe(error))
}

/// Keeps the passwords of proxies out of all output.
pub(crate) fn remember_proxy_passwords() {
    for value in PROXY_VARIABLES.iter().filter_map(|name| std::env::var(name).ok()) {
        // Between the last colon before the last @ of the part in front of the path; no parser, since
        // what cannot be parsed must not be shown either.
        let authority = value.split_once("://").map_or(value.as_str(), |(_, rest)| rest);
        let Some((credentials, _)) = authority.rsplit_once('@') else { continue };
        remember(credentials);
        if let Some((_, password)) = credentials.split_once(':') {
            remember(password);
        }
        if let Ok(url) = Url::parse(&value) {
            let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
            let (user, password) = (decoded(url.username()), decoded(url.password().unwrap_or_default()));
            remember(&password);
            // What a proxy is sent is the base64 of it.
            remember(&format!("{user}:{password}"));
        }
    }
}

fn certificate(problem: &CertificateError, server: &str) -> String {
    match problem {
        // A wrong signature: an authority of the same name is known, but it is another one.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
            "the certificate of {server} is not trusted; for a private certificate authority, set SSL_CERT_FILE to a file with its certificate (PEM)"
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            format!(
                "the certificate of {server} has expired; it must be renewed there, or the clock of this machine is wrong"
            )
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("the certificate of {server} is not valid yet; the clock of this machine may be wrong")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("the certificate of {server} is for another host name; check the host name ({problem})")
        }
        // What `openssl req -x509` makes by itself.
        other if other.to_string().contains("CaUsedAsEndEntity") => format!(
            "the certificate of {server} is a CA certificate (CA:TRUE), which a server must not use as its own; create another one with `openssl req -x509 … -addext basicConstraints=critical,CA:FALSE -addext subjectAltName=DNS:HOST`, install it there, and set SSL_CERT_FILE to it"
        ),
        other => format!("the certificate of {server} is not usable: {other}"),
    }
}

/// The TLS error below a failed request.
fn tls_error(error: &reqwest::Error) -> Option<&rustls::Error> {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(found) = cause.downcast_ref() {
            return Some(found);
        }
        // An I/O error is silent about what it wraps: its source is that of the wrapped one.
        source = match cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => cause.source(),
        };
    }
    None
}

/// The connector's error is private to its crate; its text is all there is.
fn is_refused_by_proxy(error: &reqwest::Error) -> bool {
    let mut source = error.source();
    while let Some(cause) = source {
        if cause.to_string().contains("proxy authorization required") {
            return true;
        }
        source = cause.source();
    }
    false
}

/// Describes a transport error with all its causes: the outermost one alone is too vague. The URL is left
/// out, because it can be a secret. A proxy that could not be used is named.
pub(crate) fn describe(error: reqwest::Error) -> String {
    let proxy = error.url().filter(|_| error.is_connect()).and_then(environment::proxy_of);
    let error = error.without_url();
    let mut message = error.to_string();
    if let Some(proxy) = proxy {
        message = format!("through {proxy}: {message}");
    }
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        let text = cause.to_string();
        if !message.ends_with(&text) {
            message.push_str(": ");
            message.push_str(&text);
        }
        source = cause.source();
    }
    message
}

/// Reads `Retry-After`, a number of seconds or a date.
pub(crate) fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok()?,
        Err(_) => (DateTime::parse_from_rfc2822(text).ok()?.to_utc() - now).to_std().unwrap_or_default(),
    };
    Some(wait.min(LONGEST_PAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_accepts_seconds_and_dates() {
        let now = DateTime::parse_from_rfc2822("Mon, 23 Nov 2026 14:00:00 GMT").unwrap().to_utc();
        for (text, expected) in [
            ("7", Some(7)),
            ("0", Some(0)),
            ("Mon, 23 Nov 2026 14:00:30 GMT", Some(30)),
            ("Mon, 23 Nov 2026 13:00:00 GMT", Some(0)),
            ("9999999", Some(7_200)),
            ("soon", None),
            ("-1", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            assert_eq!(retry_after(&headers, now), expected.map(Duration::from_secs), "{text}");
        }
    }
}
