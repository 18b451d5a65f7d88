//! A client that shows what is really on the wire.

#![allow(dead_code, reason = "not every file of tests needs all of it")]

use std::io::Read as _;

use posthog_sandbox::posthog::Sandbox;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Where export runs of the default project are started.
pub(crate) const PATH: &str = "/api/projects/1001/file_download_batch_exports/";

/// An answer, as far as it came.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// Whether the connection ended without an error.
    pub(crate) clean: bool,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    pub(crate) fn promised(&self) -> usize {
        self.header("content-length").and_then(|length| length.parse().ok()).unwrap_or_default()
    }

    pub(crate) fn json(&self) -> Value {
        if self.header("content-encoding") == Some("gzip") {
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(self.body.as_slice()).read_to_end(&mut plain).unwrap();
            return serde_json::from_slice(&plain).unwrap();
        }
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn detail(&self) -> String {
        self.json()["detail"].as_str().unwrap().to_owned()
    }

    pub(crate) fn rows(&self) -> Vec<Value> {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        self.json()["results"].as_array().unwrap().clone()
    }
}

pub(crate) async fn send(posthog: &Sandbox, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    send_to(&posthog.url().replace("http://", ""), method, path, headers, body).await
}

pub(crate) async fn send_to(host: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    let mut stream = TcpStream::connect(host).await.unwrap();
    let mut head =
        format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut all = Vec::new();
    let clean = stream.read_to_end(&mut all).await.is_ok();
    let end = all.windows(4).position(|window| window == b"\r\n\r\n").map_or(all.len(), |at| at + 4);
    let head = String::from_utf8_lossy(&all[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    Reply { status, head, body: all[end..].to_vec(), clean }
}

pub(crate) const KEY: (&str, &str) = ("authorization", "Bearer phx_full");

pub(crate) async fn get(posthog: &Sandbox, path: &str, key: &str) -> Reply {
    send(posthog, "GET", path, &[("authorization", &format!("Bearer {key}"))], b"").await
}

pub(crate) async fn post_query(posthog: &Sandbox, body: &Value) -> Reply {
    send(posthog, "POST", "/api/projects/1001/query/", &[KEY], body.to_string().as_bytes()).await
}

pub(crate) async fn query(posthog: &Sandbox, sql: &str) -> Reply {
    let query = json!({"kind": "HogQLQuery", "query": sql, "modifiers": {"convertToProjectTimezone": false}});
    post_query(posthog, &json!({"query": query, "refresh": "force_blocking"})).await
}

/// Posts with a key that may do everything.
pub(crate) async fn post(posthog: &Sandbox, path: &str, body: &Value) -> Reply {
    send(posthog, "POST", path, &[KEY], body.to_string().as_bytes()).await
}

/// Starts an export run and returns its id.
pub(crate) async fn start(posthog: &Sandbox, body: &Value) -> String {
    let reply = post(posthog, PATH, body).await;
    assert_eq!(reply.status, 202, "{}", reply.text());
    reply.json()["id"].as_str().unwrap().to_owned()
}

pub(crate) async fn status(posthog: &Sandbox, run: &str) -> Value {
    get(posthog, &format!("{PATH}{run}/"), "phx_full").await.json()
}

pub(crate) async fn download(posthog: &Sandbox, run: &str, file: &str) -> Reply {
    get(posthog, &format!("{PATH}{run}/download/{file}/"), "phx_full").await
}

/// Requests a link without a key.
pub(crate) async fn fetch(link: &str, headers: &[(&str, &str)]) -> Reply {
    let (host, path) = link.strip_prefix("http://").unwrap().split_once('/').unwrap();
    send_to(host, "GET", &format!("/{path}"), headers, b"").await
}
