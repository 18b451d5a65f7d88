//! Where requests may go that a server has sent us on.
//!
//! A server on the Internet must not make this machine ask its own network, and see from the answers what is
//! there. What counts is the address that is connected to: a name can lead anywhere, and elsewhere the next
//! time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::net::lookup_host;
use tokio::sync::OnceCell;
use url::Url;

use super::address::{Zone, zone};
use super::environment::proxy_for;

/// Knows where the server is that sends us on, and looks at each address.
#[derive(Clone)]
pub(crate) struct Reach {
    inner: Arc<Inner>,
}

struct Inner {
    base: Url,
    zones: OnceCell<Vec<Zone>>,
}

/// Why a request is not sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutOfReach {
    /// The server may not send us there.
    #[error("{zone} (`{host}`)")]
    Zone {
        /// What it is.
        zone: Zone,
        /// Its name.
        host: String,
    },
    /// It is not known where the server itself is.
    #[error("{0}")]
    Lookup(#[from] io::Error),
}

impl Reach {
    /// Of what is at `base`.
    pub(crate) fn new(base: &Url) -> Self {
        Self { inner: Arc::new(Inner { base: base.clone(), zones: OnceCell::new() }) }
    }

    /// Checks the address in a URL, if there is one instead of a name.
    ///
    /// # Errors
    /// [`OutOfReach`].
    pub(crate) async fn check(&self, url: &Url) -> Result<(), OutOfReach> {
        match zone(url) {
            Some(Zone::Public) | None => Ok(()),
            Some(zone) => self.check_zone(zone, url.host_str().unwrap_or_default()).await,
        }
    }

    async fn check_zone(&self, to: Zone, host: &str) -> Result<(), OutOfReach> {
        let zones = self.inner.zones().await?;
        if zones.iter().any(|zone| zone.may_lead_to(to)) {
            return Ok(());
        }
        Err(OutOfReach::Zone { zone: to, host: host.to_owned() })
    }

    /// The addresses of a name that may be connected to.
    async fn addresses(&self, name: &str) -> Result<Vec<SocketAddr>, OutOfReach> {
        let (mut allowed, mut refused) = (Vec::new(), None);
        for address in lookup_host((name, 0)).await? {
            match self.check_zone(Zone::of(address.ip()), name).await {
                Ok(()) => allowed.push(address),
                Err(error) => refused = Some(error),
            }
        }
        match refused {
            Some(error) if allowed.is_empty() => Err(error),
            _ => Ok(allowed),
        }
    }
}

impl Inner {
    /// Where the server is; found out once.
    async fn zones(&self) -> io::Result<&[Zone]> {
        let zones = self.zones.get_or_try_init(|| async {
            if let Some(zone) = zone(&self.base) {
                return Ok(vec![zone]);
            }
            match lookup_host((self.base.host_str().unwrap_or_default(), 0)).await {
                Ok(addresses) => Ok(addresses.map(|address| Zone::of(address.ip())).collect()),
                // The proxy alone knows where.
                Err(_) if proxy_for(&self.base).is_some() => Ok(vec![Zone::Public]),
                Err(error) => Err(error),
            }
        });
        zones.await.map(Vec::as_slice)
    }
}

/// For a client that connects to servers itself: to a proxy, which may be anywhere, it would not connect.
impl Resolve for Reach {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.clone();
        Box::pin(async move {
            let addresses = reach.addresses(name.as_str()).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// The reason why a request was not sent, if it is this one.
pub(crate) fn out_of_reach(error: &reqwest::Error) -> Option<&OutOfReach> {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(found) = cause.downcast_ref() {
            return Some(found);
        }
        source = cause.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(base: &str) -> Reach {
        Reach::new(&Url::parse(base).unwrap())
    }

    async fn is_allowed(base: &str, url: &str) -> bool {
        reach(base).check(&Url::parse(url).unwrap()).await.is_ok()
    }

    #[tokio::test]
    async fn addresses_in_urls_are_looked_at() {
        for (base, url, allowed) in [
            ("https://1.1.1.1", "https://1.0.0.1", true),
            ("https://1.1.1.1", "https://files.example", true),
            ("https://1.1.1.1", "http://127.0.0.1:8080", false),
            ("https://1.1.1.1", "http://2130706433", false),
            ("https://1.1.1.1", "http://localhost", false),
            ("https://1.1.1.1", "https://10.0.0.1", false),
            ("https://1.1.1.1", "https://169.254.169.254", false),
            ("https://10.0.0.1", "https://192.168.0.1", true),
            ("https://10.0.0.1", "http://169.254.169.254", false),
            ("http://127.0.0.1:8000", "http://[::1]:9000", true),
            ("http://localhost:8000", "http://127.0.0.1:9000", true),
            ("http://localhost:8000", "http://169.254.169.254", false),
        ] {
            assert_eq!(is_allowed(base, url).await, allowed, "{base} {url}");
        }
    }

    #[tokio::test]
    async fn names_are_looked_at_where_they_lead() {
        let names = reach("https://1.1.1.1");
        let error = names.addresses("localhost").await.unwrap_err();
        assert_eq!(error.to_string(), "this machine (`localhost`)");
        assert!(!reach("http://127.0.0.1").addresses("localhost").await.unwrap().is_empty());
        // Where a request would be sent, the client is told the same.
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = reqwest::Client::builder().no_proxy().dns_resolver(names).build().unwrap();
        let error = client.get("http://localhost:9/").send().await.unwrap_err();
        assert!(matches!(out_of_reach(&error), Some(OutOfReach::Zone { .. })), "{error:?}");
    }
}
