//! How list endpoints of PostHog page: by limit and offset, or by a cursor.

use serde_json::{Value, json};

use super::faults::Action;
use super::server::Call;

/// Which part of a list a request asks for, and how much of it is served.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    /// As asked for; links repeat it.
    pub(crate) limit: usize,
    pub(crate) offset: usize,
    /// At most so many objects.
    pub(crate) served: usize,
}

impl Window {
    /// What the request asks for; the server serves at most `cap` objects, without a word.
    pub(crate) fn of(call: &Call, default: usize, cap: Option<usize>) -> Self {
        let number = |name| call.parameter(name).and_then(|text| text.parse::<usize>().ok());
        let limit = number("limit").filter(|limit| *limit > 0).unwrap_or(default);
        let served = cap.map_or(limit, |cap| limit.min(cap.max(1)));
        Self { limit, offset: number("offset").unwrap_or_default(), served }
    }

    pub(crate) fn cut(self, objects: Vec<Value>) -> Vec<Value> {
        objects.into_iter().skip(self.offset).take(self.served).collect()
    }

    /// Where the next page begins.
    pub(crate) fn end(self) -> usize {
        self.offset.saturating_add(self.served)
    }

    /// The link to the page that begins there.
    pub(crate) fn next(self, call: &Call) -> String {
        let (limit, offset) = (self.limit.to_string(), self.end().to_string());
        link(call, &[("limit", Some(&limit)), ("offset", Some(&offset))])
    }

    /// The link to the page before this one.
    pub(crate) fn previous(self, call: &Call) -> Option<String> {
        let (limit, offset) = (self.limit.to_string(), self.offset.saturating_sub(self.served));
        let offset = (offset > 0).then(|| offset.to_string());
        (self.offset > 0).then(|| link(call, &[("limit", Some(&limit)), ("offset", offset.as_deref())]))
    }
}

/// One page with absolute links to its neighbours.
pub(crate) fn page(call: &Call, objects: Vec<Value>, cap: Option<usize>) -> Value {
    let window = Window::of(call, 100, cap);
    let count = objects.len();
    let next = (window.end() < count).then(|| window.next(call));
    json!({"count": count, "next": next, "previous": window.previous(call), "results": window.cut(objects)})
}

/// The address of the request with some of its parameters changed or, without a value, left out.
pub(crate) fn link(call: &Call, changes: &[(&str, Option<&str>)]) -> String {
    let uri = &call.parts.uri;
    let kept = uri.query().unwrap_or_default().split('&').filter(|pair| {
        let name = pair.split_once('=').map_or(*pair, |(name, _)| name);
        !pair.is_empty() && changes.iter().all(|(other, _)| *other != name)
    });
    let added = changes.iter().filter_map(|(name, value)| Some(format!("{name}={}", percent_encode((*value)?))));
    let mut pairs: Vec<String> = kept.map(str::to_owned).chain(added).collect();
    // The framework behind the API sorts them.
    pairs.sort();
    let query = if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) };
    format!("http://{}{}{query}", call.header("host"), uri.path())
}

fn percent_encode(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

/// Makes the link to the next page wrong, if the request's fault is that.
pub(crate) fn mislead(call: &Call, answer: &mut Value) {
    let wrong = match call.fault {
        Some(Action::NextRepeats) => link(call, &[]),
        Some(Action::NextElsewhere) => {
            // The last page has no link.
            let Some(next) = answer.get("next").and_then(Value::as_str) else { return };
            next.replacen(call.header("host"), "evil.example", 1)
        }
        _ => return,
    };
    if let Some(next) = answer.get_mut("next") {
        *next = Value::from(wrong);
    }
}
