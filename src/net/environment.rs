//! What the environment says about proxies and certificates. A value that the libraries below would ignore
//! in silence is an error here: traffic must not take another way than the user has asked for.

use std::env;
use std::path::Path;

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use reqwest::Proxy;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use url::Url;

use super::address::is_loopback;
use crate::error::Error;

/// Variables of proxies by scheme, in the order in which they are looked at; the first that is set counts.
const HTTPS: [&str; 2] = ["HTTPS_PROXY", "https_proxy"];
const HTTP: [&str; 2] = ["HTTP_PROXY", "http_proxy"];
const ALL: [&str; 2] = ["ALL_PROXY", "all_proxy"];

/// Whether `NO_PROXY` exempts everything. The library applies `*` to host names only, not to IP addresses.
pub(super) fn no_proxy_at_all() -> bool {
    let exempt = ["NO_PROXY", "no_proxy"].iter().find_map(|name| env::var(name).ok());
    exempt.is_some_and(|exempt| exempt.trim() == "*")
}

/// Checks the variables that clients depend on.
///
/// # Errors
/// A config error that names the variable; its value can hold a password and is not shown.
pub(super) fn check() -> Result<(), Error> {
    // A program that is called by a web server heeds no proxy, because its callers could set one.
    if !no_proxy_at_all() && env::var_os("REQUEST_METHOD").is_none() {
        for name in [HTTPS, HTTP, ALL].iter().filter_map(first_set) {
            let value = env::var(name).ok();
            if !value.as_deref().is_some_and(|value| value.is_empty() || is_proxy(value)) {
                return Err(Error::config(format!(
                    "{name} is not the URL of a proxy; write it like http://host:8080 or http://user:password@host:8080, without quotation marks and spaces"
                )));
            }
        }
    }
    if let Some(file) = env::var_os("SSL_CERT_FILE").filter(|file| !file.is_empty()) {
        check_certificates(Path::new(&file)).map_err(|problem| {
            Error::config(format!(
                "cannot prepare encrypted connections: SSL_CERT_FILE is set, and there is no usable certificate (PEM) in it: {problem}"
            ))
        })?;
    }
    if let Some(folders) = env::var_os("SSL_CERT_DIR").filter(|folders| !folders.is_empty()) {
        for folder in env::split_paths(&folders) {
            std::fs::read_dir(&folder).map_err(|problem| {
                Error::config(format!(
                    "cannot prepare encrypted connections: SSL_CERT_DIR is set, and the folder `{}` cannot be read: {problem}",
                    folder.display()
                ))
            })?;
        }
    }
    Ok(())
}

fn first_set(names: &[&'static str; 2]) -> Option<&'static str> {
    names.iter().copied().find(|name| env::var_os(name).is_some())
}

/// What the library below accepts; it takes anything else for no proxy.
fn is_proxy(value: &str) -> bool {
    let Ok(uri) = value.parse::<Uri>() else { return false };
    let known = matches!(uri.scheme_str(), None | Some("http" | "https" | "socks4" | "socks4a" | "socks5" | "socks5h"));
    // Not every character that the parser lets pass stands in a host's name.
    let is_plain = |host: &str| {
        !host.is_empty()
            && host
                .chars()
                .all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_' | '[' | ']' | ':'))
    };
    known
        && uri.authority().is_some_and(|authority| is_plain(authority.host()))
        && Url::parse(&with_scheme(value)).is_ok()
}

/// All of a file's certificates have to be sound: one that is left out would be missed later.
fn check_certificates(file: &Path) -> Result<(), String> {
    let mut count = 0;
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| error.to_string())? {
        certificate.map_err(|error| error.to_string())?;
        count += 1;
    }
    if count == 0 { Err("it has no BEGIN CERTIFICATE section".to_owned()) } else { Ok(()) }
}

/// The proxy for a URL, as its variable has it, and the name of the variable. What is on this machine goes
/// through none: over a network, it would not be encrypted.
pub(super) fn proxy_for(url: &Url) -> Option<(&'static str, String)> {
    if is_loopback(url) { None } else { configured_for(url) }
}

fn configured_for(url: &Url) -> Option<(&'static str, String)> {
    if no_proxy_at_all() {
        return None;
    }
    // Knows what `NO_PROXY` exempts.
    Matcher::from_env().intercept(&url.as_str().parse().ok()?)?;
    let own = if url.scheme() == "https" { HTTPS } else { HTTP };
    let is_used = |name: &&str| env::var(name).is_ok_and(|value| !value.is_empty());
    let variable = first_set(&own).filter(is_used).or_else(|| first_set(&ALL))?;
    Some((variable, with_scheme(&env::var(variable).ok()?)))
}

fn with_scheme(value: &str) -> String {
    if value.contains("://") { value.to_owned() } else { format!("http://{value}") }
}

/// The proxies of the environment for the requests of a client.
pub(super) fn proxies() -> Proxy {
    Proxy::custom(|url| proxy_for(url).map(|(_, proxy)| proxy))
}

/// Names the proxy, if requests to `url` go through one: its address and its variable, without a password.
pub(super) fn proxy_of(url: &Url) -> Option<String> {
    proxy_for(url).and_then(shown)
}

/// Names the proxy that requests to `url` do not go through only because it is on this machine.
pub(crate) fn unused_proxy(url: &Url) -> Option<String> {
    configured_for(url).filter(|_| is_loopback(url)).and_then(shown)
}

fn shown((variable, proxy): (&'static str, String)) -> Option<String> {
    let proxy: Uri = proxy.parse().ok()?;
    let (_, address) = proxy.authority()?.as_str().rsplit_once('@').unwrap_or(("", proxy.authority()?.as_str()));
    let is_socks = proxy.scheme_str().is_some_and(|scheme| scheme.starts_with("socks"));
    let note = if is_socks { ", but SOCKS is not supported" } else { "" };
    Some(format!("the proxy {address} ({variable}{note})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_would_be_ignored_are_no_proxies() {
        for value in
            ["http://proxy:8080", "proxy:8080", "10.0.0.1", "http://me:pass@proxy:3128/", "https://p", "socks5://p:1"]
        {
            assert!(is_proxy(value), "{value}");
        }
        for value in [
            "\"http://proxy:8080\"",
            "'proxy:8080'",
            " http://proxy",
            "http://",
            "ftp://proxy:21",
            "http//proxy",
            "/",
            "http://a b",
        ] {
            assert!(!is_proxy(value), "{value}");
        }
    }
}
