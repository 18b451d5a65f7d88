//! What a URL says about where a request goes.

use std::net::IpAddr;

use url::{Host, Url};

/// Returns true if the URL points to this machine. Of names, only `localhost` does: the others below it are
/// asked of resolvers.
pub(crate) fn is_loopback(url: &Url) -> bool {
    let is_here = |address: IpAddr| address.to_canonical().is_loopback();
    match url.host() {
        Some(Host::Ipv4(address)) => is_here(address.into()),
        Some(Host::Ipv6(address)) => is_here(address.into()),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        for (url, expected) in [
            ("http://localhost:8000", true),
            ("http://LOCALHOST", true),
            ("http://127.9.9.9", true),
            ("http://[::1]", true),
            ("http://[::ffff:127.0.0.1]", true),
            ("http://posthog.localhost", false),
            ("http://localhost.example.com", false),
            ("http://10.0.0.1", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(url).unwrap()), expected, "{url}");
        }
    }
}
