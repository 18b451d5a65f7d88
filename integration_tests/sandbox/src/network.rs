//! What may stand between a client and a server: TLS with a private certificate authority, and a
//! proxy that wants a password.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// The longest request head that the proxy reads.
const LONGEST_HEAD: usize = 16 * 1024;

/// Speaks TLS and passes everything on to a server that does not.
#[derive(Debug)]
pub struct TlsFront {
    address: SocketAddr,
    authority: String,
}

impl TlsFront {
    /// Listens on loopback in front of `upstream`, with a certificate for `names` by an authority of
    /// its own, valid in this many days from now and for 30 days.
    ///
    /// # Errors
    /// When there is no free port or the names cannot be in a certificate.
    pub async fn start(upstream: &str, names: &[&str], valid_in_days: i64) -> anyhow::Result<Self> {
        let (acceptor, authority) = certified(names, valid_in_days)?;
        let upstream = authority_of(upstream)?;
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listen")?;
        let address = listener.local_addr().context("listen")?;
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (acceptor, upstream) = (acceptor.clone(), upstream.clone());
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(upstream).await?;
                    let mut client = acceptor.accept(client).await?;
                    copy_bidirectional(&mut client, &mut server).await
                });
            }
        });
        Ok(Self { address, authority })
    }

    /// Address with `localhost`.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// Certificate of the authority, as PEM.
    pub fn authority(&self) -> &str {
        &self.authority
    }
}

fn certified(names: &[&str], valid_in_days: i64) -> anyhow::Result<(TlsAcceptor, String)> {
    let key = KeyPair::generate().context("make a key")?;
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "Sandbox Authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let certificate = authority.self_signed(&key).context("sign the authority")?;
    let issuer = Issuer::new(authority, key);

    let server_key = KeyPair::generate().context("make a key")?;
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut server = CertificateParams::new(names).context("name the server")?;
    let begin = time::OffsetDateTime::now_utc();
    let day = std::time::Duration::from_hours(24);
    let shift = |days: i64| {
        let by = day * u32::try_from(days.unsigned_abs()).unwrap_or(u32::MAX);
        if days < 0 { begin - by } else { begin + by }
    };
    (server.not_before, server.not_after) = (shift(valid_in_days - 1), shift(valid_in_days + 30));
    let signed = server.signed_by(&server_key, &issuer).context("sign the server")?;
    let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(server_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(signed)], private)?;
    Ok((TlsAcceptor::from(Arc::new(config)), certificate.pem()))
}

fn authority_of(url: &str) -> anyhow::Result<String> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().map(str::to_owned).context("an address without a host")
}

/// An HTTP proxy, for plain requests and for tunnels.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    targets: Mutex<Vec<String>>,
    refused: AtomicUsize,
}

impl Proxy {
    /// Listens on loopback and wants these credentials.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn start(user: &str, password: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listen")?;
        let (address, seen) = (listener.local_addr().context("listen")?, Arc::new(Seen::default()));
        let wanted = format!("basic {}", STANDARD.encode(format!("{user}:{password}")));
        let shared = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (seen, wanted) = (Arc::clone(&shared), wanted.clone());
                tokio::spawn(async move { forward(client, &seen, &wanted).await });
            }
        });
        Ok(Self { address, seen })
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// The hosts that connections went to, in order.
    pub fn targets(&self) -> Vec<String> {
        self.seen.targets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many connections lacked the credentials.
    pub fn refused(&self) -> usize {
        self.seen.refused.load(Ordering::Relaxed)
    }
}

async fn forward(mut client: TcpStream, seen: &Seen, wanted: &str) -> anyhow::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        anyhow::ensure!(head.len() < LONGEST_HEAD && client.read_buf(&mut head).await? > 0, "no request");
    }
    let text = String::from_utf8_lossy(&head);
    let mut lines = text.lines();
    let mut request = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (request.next().unwrap_or_default(), request.next().unwrap_or_default());
    let credentials = lines
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("proxy-authorization"));
    let is_right = |value: &str| {
        value.split_once(' ').is_some_and(|(scheme, rest)| format!("{} {rest}", scheme.to_lowercase()) == wanted)
    };
    if !credentials.is_some_and(|(_, value)| is_right(value)) {
        seen.refused.fetch_add(1, Ordering::Relaxed);
        let answer = "HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: Basic\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        return Ok(client.write_all(answer.as_bytes()).await?);
    }
    let host = authority_of(target)?;
    seen.targets.lock().unwrap_or_else(PoisonError::into_inner).push(host.clone());
    let mut server = TcpStream::connect(host).await?;
    if method == "CONNECT" {
        client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await?;
    } else {
        // Servers understand requests with the whole address.
        server.write_all(&head).await?;
    }
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
