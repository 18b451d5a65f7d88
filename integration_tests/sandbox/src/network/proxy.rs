//! A forward proxy that wants a password.
//!
//! It knows `CONNECT` and requests with absolute addresses. Every host name leads to 127.0.0.1, so
//! a request for a name that does not exist shows that it came through here.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Longer heads are a mistake of the test.
const LONGEST_HEAD: usize = 64 * 1024;

/// A request that the proxy has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxied {
    /// HTTP method; `CONNECT` for an encrypted connection.
    pub method: String,
    /// `host:port` that it was for.
    pub target: String,
    /// Whether it came with the right user name and password.
    pub let_in: bool,
}

/// A running proxy. It stops listening when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Proxied>>>,
    server: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Proxy {
    /// Starts a proxy on a free port that lets this user in.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start(user: &str, password: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("bind a port of 127.0.0.1")?;
        let address = listener.local_addr()?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let expected = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        let book = Arc::clone(&seen);
        let server = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (book, expected) = (Arc::clone(&book), expected.clone());
                // A connection that breaks is the client's concern.
                tokio::spawn(async move { drop(forward(client, &book, &expected).await) });
            }
        });
        Ok(Self { address, seen, server })
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Proxied> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn forward(mut client: TcpStream, book: &Mutex<Vec<Proxied>>, expected: &str) -> anyhow::Result<()> {
    let (head, rest) = head(&mut client).await?;
    let mut lines = head.lines();
    let line = lines.next().unwrap_or_default();
    let (method, target) = line.split_once(' ').context("a request line")?;
    let target = target.rsplit_once(' ').context("a version")?.0;
    let headers: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    let value = |name: &str| {
        let (_, value) = headers
            .iter()
            .filter_map(|line| line.split_once(": "))
            .find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(value)
    };
    let let_in = value("proxy-authorization") == Some(expected);
    let address = target.strip_prefix("http://").unwrap_or(target);
    let (authority, path) = address.find('/').map_or((address, ""), |slash| address.split_at(slash));
    book.lock().unwrap_or_else(PoisonError::into_inner).push(Proxied {
        method: method.to_owned(),
        target: authority.to_owned(),
        let_in,
    });
    if !let_in {
        let answer = "HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: Basic realm=\"sandbox\"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        client.write_all(answer.as_bytes()).await?;
        return Ok(());
    }
    let port: u16 = authority.rsplit_once(':').map_or(Ok(80), |(_, port)| port.parse())?;
    let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
    if method == "CONNECT" {
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    } else {
        let kept = headers.iter().copied().filter(|line| {
            let name = line.split(':').next().unwrap_or_default();
            !name.eq_ignore_ascii_case("proxy-authorization") && !name.eq_ignore_ascii_case("connection")
        });
        let request = format!("{method} {path} HTTP/1.1");
        // The next request may be for another host, so it needs another connection.
        let lines: Vec<&str> =
            [request.as_str()].into_iter().chain(kept).chain(["connection: close", "\r\n"]).collect();
        let head = lines.join("\r\n");
        server.write_all(head.as_bytes()).await?;
        server.write_all(&rest).await?;
    }
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

/// The head of a request, and what has come after it.
async fn head(client: &mut TcpStream) -> anyhow::Result<(String, Vec<u8>)> {
    let mut read = Vec::new();
    loop {
        if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = read.split_off(end + 4);
            return Ok((String::from_utf8(read)?, rest));
        }
        anyhow::ensure!(read.len() < LONGEST_HEAD, "the head is too long");
        anyhow::ensure!(client.read_buf(&mut read).await? > 0, "the client went away");
    }
}
