//! Recorded responses: what `make try-posthog` has written, served again.
//!
//! A request is served from a recording if its method, its path (whatever the number of the project) and
//! its body (whatever the instants in it) are those of a fixture. Fixtures of one request are served in
//! the order they were recorded, the last one for ever, so that a run that was polled goes on as it did.
//! Every other request is none of this module's business.

use std::collections::HashSet;
use std::io::Write as _;
use std::path::Path;
use std::sync::{LazyLock, Mutex};

use anyhow::{Context, bail};
use axum::body::Bytes;
use axum::http::{header, request::Parts};
use flate2::Compression;
use flate2::write::GzEncoder;
use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

use super::lock;
use super::server::Answer;

/// Hosts in fixtures that stand for PostHog and for the host of its files.
const HOSTS: [&str; 2] = ["https://posthog.example.com", "https://files.example.com"];

/// The part of a path that names the project.
static PROJECT: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"^/api/(projects|environments)/(?:\d+|:project)(/|$)").ok());
/// An instant in a body. A request of today is for another hour than the recorded one.
static INSTANT: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?").ok());

/// One recorded exchange; `integration_tests/python/try_posthog/recorder.py` writes them.
#[derive(Debug, Deserialize)]
struct Fixture {
    number: u64,
    /// Number of the fixture that has to be served before this one: a run that is cancelled stays
    /// `Running` until then.
    after: Option<u64>,
    request: Asked,
    response: Recorded,
}

#[derive(Debug, Deserialize)]
struct Asked {
    method: String,
    path: String,
    body: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Recorded {
    status: u16,
    headers: Vec<(String, String)>,
    body: Option<Value>,
    /// Lines of an exported file, in place of a body.
    lines: Option<Vec<Value>>,
    /// Gzip members of the file; 0 if it was not compressed.
    members: Option<usize>,
}

/// The fixtures of a folder, and which of them have been served.
#[derive(Debug)]
pub struct Replay {
    fixtures: Vec<Fixture>,
    served: Mutex<HashSet<u64>>,
}

impl Replay {
    /// Reads all files `fixture-*.json` of a folder.
    ///
    /// # Errors
    ///
    /// If there is none, or one of them is no fixture.
    pub fn load(directory: &Path) -> anyhow::Result<Self> {
        let mut fixtures = Vec::new();
        let entries = std::fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))?;
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if name.starts_with("fixture-") && path.extension().is_some_and(|extension| extension == "json") {
                let text = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
                let mut fixture: Fixture =
                    serde_json::from_slice(&text).with_context(|| format!("{} is no fixture", path.display()))?;
                fixture.request.path = normal_path(&fixture.request.path);
                fixture.request.body = fixture.request.body.map(normal_body);
                fixtures.push(fixture);
            }
        }
        if fixtures.is_empty() {
            bail!("{} has no file fixture-*.json", directory.display());
        }
        fixtures.sort_by_key(|fixture| fixture.number);
        Ok(Self { fixtures, served: Mutex::default() })
    }

    /// The recorded response to a request, if there is one.
    pub(crate) fn answer(&self, parts: &Parts, body: &Bytes) -> Option<anyhow::Result<Answer>> {
        let path = normal_path(parts.uri.path_and_query()?.as_str());
        let body = if body.is_empty() { None } else { Some(normal_body(serde_json::from_slice(body).ok()?)) };
        let recorded = {
            let mut served = lock(&self.served);
            let ready = |fixture: &&Fixture| {
                fixture.request.method == parts.method.as_str()
                    && fixture.request.path == path
                    && fixture.request.body == body
                    && fixture.after.is_none_or(|number| served.contains(&number))
            };
            let next = self.fixtures.iter().filter(ready).find(|fixture| !served.contains(&fixture.number));
            let fixture = next.or_else(|| self.fixtures.iter().rfind(ready))?;
            served.insert(fixture.number);
            &fixture.response
        };
        let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        Some(recorded.answer(host))
    }
}

impl Recorded {
    fn answer(&self, host: &str) -> anyhow::Result<Answer> {
        let here =
            |text: &str| HOSTS.iter().fold(text.to_owned(), |text, old| text.replace(old, &format!("http://{host}")));
        let (content_type, body) = match (&self.lines, &self.body) {
            (Some(lines), _) => ("application/octet-stream", pack(lines, self.members.unwrap_or_default())?),
            (None, Some(Value::String(text))) => ("text/html; charset=utf-8", here(text).into_bytes()),
            (None, Some(body)) => ("application/json", here(&body.to_string()).into_bytes()),
            (None, None) => ("text/html; charset=utf-8", Vec::new()),
        };
        let mut answer = Answer { status: self.status, ..Answer::raw(content_type, body) };
        for (name, value) in &self.headers {
            if !name.eq_ignore_ascii_case("content-type") {
                answer = answer.header(name, &here(value));
            }
        }
        Ok(answer)
    }
}

/// The lines of a file in so many gzip members, as evenly as it goes.
fn pack(lines: &[Value], members: usize) -> anyhow::Result<Vec<u8>> {
    let text = |lines: &[Value]| lines.iter().fold(String::new(), |text, line| text + &line.to_string() + "\n");
    if members == 0 {
        return Ok(text(lines).into_bytes());
    }
    let mut bytes = Vec::new();
    let (each, longer) = (lines.len() / members, lines.len() % members);
    let mut rest = lines;
    for number in 0..members {
        let (part, after) = rest.split_at(each + usize::from(number < longer));
        rest = after;
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text(part).as_bytes())?;
        bytes.extend(encoder.finish()?);
    }
    Ok(bytes)
}

fn normal_path(path: &str) -> String {
    let normal = PROJECT.as_ref().map(|project| project.replace(path, "/api/$1/:project$2").into_owned());
    normal.unwrap_or_else(|| path.to_owned())
}

fn normal_body(body: Value) -> Value {
    match body {
        Value::String(text) => {
            let normal = INSTANT.as_ref().map(|instant| instant.replace_all(&text, ":instant").into_owned());
            Value::String(normal.unwrap_or(text))
        }
        Value::Array(items) => items.into_iter().map(normal_body).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, normal_body(value))).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn requests_are_the_same_in_another_project_and_hour() {
        assert_eq!(normal_path("/api/projects/17/query/"), normal_path("/api/projects/:project/query/"));
        assert_eq!(normal_path("/api/environments/17"), "/api/environments/:project");
        assert_eq!(normal_path("/api/projects/@current/"), "/api/projects/@current/");
        let body = |instant: &str| normal_body(json!({"a": [format!("after '{instant}' only")], "b": 1}));
        assert_eq!(body("2026-11-26T10:00:00Z"), body("2026-12-01 11:30:00.123456"));
        assert_ne!(body("2026-11-26T10:00:00Z"), body("yesterday"));
    }

    #[test]
    fn files_have_the_recorded_members() {
        let lines = [json!({"a": 1}), json!({"a": 2}), json!({"a": 3})];
        let magic = |bytes: &[u8]| bytes.windows(3).filter(|window| *window == [0x1f, 0x8b, 8]).count();
        assert_eq!(magic(&pack(&lines, 2).unwrap()), 2);
        assert_eq!(pack(&lines[..1], 0).unwrap(), b"{\"a\":1}\n");
    }
}
