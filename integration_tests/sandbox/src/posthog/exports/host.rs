//! The host of the files, an object store that only knows signed links.
//!
//! It refuses whoever shows credentials besides the signature, as S3 does, and keeps count of it: a
//! client that follows the redirect of the API has to leave its key behind. Files are sent as they
//! are; nothing says that they are compressed.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Request, State as Extension};
use axum::http::{Method, Response, header, request::Parts};
use chrono::Utc;
use tokio::net::TcpListener;
use tokio::time::Instant;
use uuid::Uuid;

use super::files::{File, spoil};
use super::{FileRequest, Run, State};
use crate::posthog::faults::Action;
use crate::posthog::server::{Answer, Call, deliver, replaced, say_stopped};
use crate::posthog::wire::{Cut, Listener};
use crate::posthog::{Shared, lock};

/// Links without an end claim the longest that S3 allows.
const LONGEST: Duration = Duration::from_hours(7 * 24);
/// The number of redirects that are left comes after this.
const HOPS: &str = "/hops/";
/// On the file host, leads to the same path of the API's host; there, back to the file host.
const DETOUR: &str = "/detour";

/// A link that was given out.
#[derive(Debug)]
pub(crate) struct Signed {
    /// The path and the query string that were signed.
    target: String,
    until: Option<Instant>,
}

impl State {
    /// A link to a file; its signature is good for nothing else.
    pub(super) fn sign(&mut self, file: &File) -> String {
        let signature = format!("{}{}", Uuid::now_v7().simple(), Uuid::now_v7().simple());
        let lifetime = self.config.url_lifetime;
        let target = format!(
            "{}?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=SANDBOX%2F20260101%2Fus-east-1%2Fs3%2Faws4_request\
             &X-Amz-Date={}&X-Amz-Expires={}&X-Amz-SignedHeaders=host&X-Amz-Signature={signature}",
            file.path,
            Utc::now().format("%Y%m%dT%H%M%SZ"),
            lifetime.unwrap_or(LONGEST).as_secs(),
        );
        let hops = if self.config.redirects > 0 { format!("{HOPS}{}", self.config.redirects) } else { String::new() };
        let detour = if self.config.redirect_back { DETOUR } else { "" };
        let root = self.root.clone().unwrap_or_else(|| format!("http://{}", self.host));
        let location = format!("{root}{detour}{hops}{target}");
        let until = lifetime.and_then(|lifetime| Instant::now().checked_add(lifetime));
        self.signed.insert(signature, Signed { target, until });
        location
    }

    fn begin(&mut self, parts: &Parts, fault: Option<&Action>) -> u64 {
        self.next_request += 1;
        let authorized = parts.headers.contains_key(header::AUTHORIZATION);
        self.leaks += usize::from(authorized);
        self.requests.push(FileRequest {
            id: self.next_request,
            path: target_of(parts),
            range: text(parts, header::RANGE).map(str::to_owned),
            status: None,
            authorized,
            fault: fault.map(Action::name),
        });
        self.next_request
    }

    fn note(&mut self, id: u64, status: u16) {
        if let Some(request) = self.requests.iter_mut().rev().find(|request| request.id == id) {
            request.status = Some(status);
        }
    }

    /// The file that a signed path leads to.
    fn resolve(&self, target: &str) -> Result<File, Answer> {
        let signature = target.split_once("X-Amz-Signature=").map(|(_, signature)| signature);
        let Some(signature) = signature else { return Err(refusal(403, "AccessDenied", "Access Denied")) };
        let signed = self.signed.get(signature).filter(|signed| signed.target == target).ok_or_else(|| {
            let message = "The request signature we calculated does not match the signature you provided.";
            refusal(403, "SignatureDoesNotMatch", message)
        })?;
        let path = target.split('?').next().unwrap_or_default();
        let mut files = self.runs.iter().flat_map(Run::files);
        let file = files.find(|file| file.path == path);
        let file = file.ok_or_else(|| refusal(404, "NoSuchKey", "The specified key does not exist."))?;
        if file.is_expired() || signed.until.is_some_and(|until| until <= Instant::now()) {
            return Err(refusal(403, "AccessDenied", "Request has expired"));
        }
        Ok(file.clone())
    }
}

fn target_of(parts: &Parts) -> String {
    parts.uri.path_and_query().map_or_else(String::new, ToString::to_string)
}

fn text(parts: &Parts, name: header::HeaderName) -> Option<&str> {
    parts.headers.get(name).and_then(|value| value.to_str().ok())
}

pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let service = Router::new().fallback(handle).with_state(shared).into_make_service_with_connect_info::<Cut>();
    if let Err(error) = axum::serve(Listener(listener), service).await {
        say_stopped(&error);
    }
}

async fn handle(
    Extension(shared): Extension<Arc<Shared>>,
    ConnectInfo(cut): ConnectInfo<Cut>,
    request: Request,
) -> Response<Body> {
    let (parts, _) = request.into_parts();
    let fault = lock(&shared.faults).pick_file(parts.method.as_str(), &target_of(&parts));
    let id = lock(&shared.exports).begin(&parts, fault.as_ref());
    if let Some(Action::Delay { wait }) = fault {
        tokio::time::sleep(wait).await;
    }
    if fault == Some(Action::Reset) {
        cut.reset();
        // The connection goes away before this could end.
        return std::future::pending().await;
    }
    let answer = replaced(fault.as_ref()).unwrap_or_else(|| answer(&shared, &parts, fault.as_ref()));
    lock(&shared.exports).note(id, answer.status);
    deliver(answer, fault.as_ref(), cut)
}

/// An error in the shape of S3.
fn refusal(status: u16, code: &str, message: &str) -> Answer {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message>\
         <RequestId>SANDBOX</RequestId></Error>"
    );
    Answer { status, ..Answer::raw("application/xml", body) }.header("server", "AmazonS3")
}

fn redirect(location: &str) -> Answer {
    Answer { status: 307, ..Answer::raw("application/xml", "") }.header("location", location)
}

fn answer(shared: &Shared, parts: &Parts, fault: Option<&Action>) -> Answer {
    if parts.method != Method::GET {
        return refusal(405, "MethodNotAllowed", "The specified method is not allowed against this resource.");
    }
    if parts.headers.contains_key(header::AUTHORIZATION) {
        return refusal(
            400,
            "InvalidArgument",
            "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string \
             parameter or the Authorization header should be specified",
        );
    }
    let target = target_of(parts);
    let state = lock(&shared.exports);
    if target.starts_with(DETOUR) {
        return redirect(&format!("http://{}{target}", state.api));
    }
    if let Some((hops, rest)) = target.strip_prefix(HOPS).and_then(|rest| rest.split_once('/')) {
        return match hops.parse::<u32>() {
            Ok(0 | 1) => redirect(&format!("/{rest}")),
            Ok(hops) => redirect(&format!("{HOPS}{}/{rest}", hops - 1)),
            Err(_) => refusal(404, "NoSuchKey", "The specified key does not exist."),
        };
    }
    let ranges = state.config.ranges;
    let file = match state.resolve(&target) {
        Ok(file) => file,
        Err(answer) => return answer,
    };
    drop(state);
    match spoil(file.body, fault) {
        Ok(body) => object(parts, body, &file.entity_tag, ranges),
        Err(error) => refusal(500, "InternalError", &error.to_string()),
    }
}

/// The file, or the part of it that was asked for.
fn object(parts: &Parts, body: Bytes, entity_tag: &str, ranges: bool) -> Answer {
    if text(parts, header::IF_MATCH).is_some_and(|wanted| wanted != "*" && wanted != entity_tag) {
        let message = "At least one of the pre-conditions you specified did not hold";
        return refusal(412, "PreconditionFailed", message);
    }
    let describe = |answer: Answer| {
        let answer = answer.header("etag", entity_tag).header("server", "AmazonS3");
        if ranges { answer.header("accept-ranges", "bytes") } else { answer }
    };
    let is_same = text(parts, header::IF_RANGE).is_none_or(|wanted| wanted == entity_tag);
    let asked = text(parts, header::RANGE).filter(|_| ranges && is_same);
    let length = body.len();
    match asked.and_then(|asked| bounds(asked, length)) {
        None => describe(Answer::raw("binary/octet-stream", body)),
        Some((first, last)) if first <= last => {
            let part = body.slice(first..=last);
            let content_range = format!("bytes {first}-{last}/{length}");
            let answer = Answer { status: 206, ..Answer::raw("binary/octet-stream", part) };
            describe(answer.header("content-range", &content_range))
        }
        Some(_) => refusal(416, "InvalidRange", "The requested range is not satisfiable")
            .header("content-range", &format!("bytes */{length}")),
    }
}

/// First and last byte of a range, the last before the first if there are none; nothing if it is no
/// range that is understood.
fn bounds(range: &str, length: usize) -> Option<(usize, usize)> {
    let end = length.saturating_sub(1);
    match range.strip_prefix("bytes=")?.split_once('-')? {
        ("", count) => Some((length.saturating_sub(count.parse().ok()?), end)),
        (first, "") => first.parse().ok().map(|first| (first, end)),
        (first, last) => Some((first.parse().ok()?, last.parse::<usize>().ok()?.min(end))),
    }
}

/// A detour at the host of the API: back to the file host, and no place for a key either.
pub(crate) fn back(shared: &Shared, call: &Call) -> Option<Answer> {
    let target = target_of(&call.parts);
    let rest = target.strip_prefix(DETOUR).filter(|rest| rest.starts_with('/'))?;
    let mut state = lock(&shared.exports);
    state.leaks += usize::from(call.parts.headers.contains_key(header::AUTHORIZATION));
    Some(redirect(&format!("http://{}{rest}", state.host)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        for (range, wanted) in [
            ("bytes=0-3", Some((0, 3))),
            ("bytes=4-", Some((4, 9))),
            ("bytes=4-100", Some((4, 9))),
            ("bytes=-3", Some((7, 9))),
            ("bytes=10-", Some((10, 9))),
            ("bytes=1-2,4-5", None),
            ("lines=1-2", None),
        ] {
            assert_eq!(bounds(range, 10), wanted, "{range}");
        }
    }
}
