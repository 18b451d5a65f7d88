//! The plainest client that there can be: it sends requests one after the other and throws away what
//! comes. It shows what the server is able to send.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use anyhow::{Context, ensure};
use memchr::memmem;
use serde::{Deserialize, Serialize};

/// A request to be repeated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// `127.0.0.1:PORT`.
    pub host: String,
    /// `GET` or `POST`.
    pub method: String,
    /// Path and query string.
    pub path: String,
    /// The `Authorization` header.
    pub authorization: Option<String>,
    /// Whether gzip is accepted.
    pub gzip: bool,
    /// JSON, or nothing.
    pub body: String,
}

/// Sends all requests and returns the bytes of the bodies.
///
/// # Errors
/// When an answer is no success or ends early.
pub fn drain(requests: &[Request]) -> anyhow::Result<u64> {
    let mut buffer = vec![0_u8; 1 << 20];
    let mut connection: Option<(&str, TcpStream)> = None;
    let mut total = 0;
    for request in requests {
        let mut stream = match connection.take() {
            Some((host, stream)) if host == request.host => stream,
            _ => TcpStream::connect(&request.host)?,
        };
        // At once: the second of two writes would wait for the first to be acknowledged.
        stream.write_all((head(request) + &request.body).as_bytes())?;
        let mut filled = 0;
        let end = loop {
            let space = buffer.get_mut(filled..).filter(|space| !space.is_empty()).context("a head is too long")?;
            let read = stream.read(space)?;
            ensure!(read > 0, "the connection ends in a head");
            filled += read;
            let seen = buffer.get(..filled).unwrap_or_default();
            if let Some(end) = memmem::find(seen, b"\r\n\r\n") {
                break end + 4;
            }
        };
        let head = String::from_utf8_lossy(buffer.get(..end).unwrap_or_default()).to_ascii_lowercase();
        ensure!(head.starts_with("http/1.1 200"), "{} {} is answered with {head}", request.method, request.path);
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse::<u64>().ok());
        let length = length.context("an answer has no length")?;
        let mut left = length.saturating_sub((filled - end) as u64);
        while left > 0 {
            let read = stream.read(&mut buffer)? as u64;
            ensure!(read > 0, "the connection ends in a body");
            left = left.checked_sub(read).context("a body is longer than it says")?;
        }
        total += length;
        connection = Some((&request.host, stream));
    }
    Ok(total)
}

fn head(request: &Request) -> String {
    let Request { host, method, path, authorization, gzip, body } = request;
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n", body.len());
    if let Some(authorization) = authorization {
        head.extend(["Authorization: ", authorization, "\r\n"]);
    }
    if *gzip {
        head.push_str("Accept-Encoding: gzip\r\n");
    }
    head + "Content-Type: application/json\r\n\r\n"
}
