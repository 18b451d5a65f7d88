//! Rules that say which answers go wrong, and how.

use std::time::Duration;

use anyhow::Context;
use regex::Regex;
use serde_json::{Value, json};

/// One rule. Each rule counts the requests it matches; the first rule that is due wins.
#[derive(Debug, Clone)]
pub struct Fault {
    files: bool,
    path: Option<String>,
    sql: Option<String>,
    method: Option<String>,
    nth: Vec<u64>,
    every: Option<u64>,
    after: u64,
    times: u64,
    action: Action,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// An answer in place of the real one.
    Status {
        /// HTTP status.
        code: u16,
        /// Body, JSON if it starts with `{`, else HTML.
        body: String,
        /// Additional headers.
        headers: Vec<(String, String)>,
    },
    /// A success in place of the real answer, to the byte; compressed if the headers claim it.
    Raw {
        /// Headers such as `content-encoding`.
        headers: Vec<(String, String)>,
        /// What is sent.
        body: Vec<u8>,
    },
    /// An HTML error page of the proxy in front of PostHog.
    Html {
        /// HTTP status.
        code: u16,
    },
    /// A gateway in front answers with a page of its own, after it has waited.
    GatewayTimeout {
        /// How long.
        wait: Duration,
    },
    /// The whole length is promised, then only this part comes and the connection is closed.
    Truncate {
        /// Part of the body that is sent, 0 to 1.
        fraction: f64,
    },
    /// As `Truncate`, but the connection is reset.
    ResetMidBody {
        /// Part of the body that is sent, 0 to 1.
        fraction: f64,
    },
    /// The connection is reset before anything is answered.
    Reset,
    /// Half of the body and then something that isn't JSON, with a correct length.
    Malformed,
    /// Half of the body, then nothing for so long, then the connection is closed.
    Stall {
        /// How long nothing comes.
        wait: Duration,
    },
    /// The body in pieces, spread over some time.
    Drip {
        pieces: usize,
        /// Time for all of them.
        over: Duration,
    },
    /// A success whose body begins like this and goes on with `x` until nobody listens.
    Endless { begin: String },
    /// Claims gzip and sends plain text.
    BadEncoding,
    /// The answer comes late.
    Delay {
        /// How late.
        wait: Duration,
    },
    /// Silent: rows from the middle of a page are missing, and the page is as full as it would be. Of a
    /// file, lines.
    DropRows {
        /// How many.
        rows: usize,
    },
    /// Silent: the first rows of a page, or lines of a file, come twice.
    DuplicateRows {
        /// How many.
        rows: usize,
    },
    /// Silent: the row in the middle of a page is a copy of the first one.
    SwapInCopy,
    /// Silent: every `count()` is off by this much.
    WrongCount {
        /// Added to each count.
        by: i64,
    },
    /// Silent: a page has at most so many rows, whatever its LIMIT.
    Clamp {
        /// How many.
        rows: usize,
    },
    /// The `next` link of a list leads to another host.
    NextElsewhere,
    /// The `next` link of a list is the address of the request itself.
    NextRepeats,
    /// Files only: a file that unpacks to one line of zeros.
    Bomb {
        /// Length of the line.
        megabytes: usize,
    },
    /// Files only: one byte in the middle is another one, with a correct length.
    CorruptByte,
    /// Files only, silent: the second half is missing, and the length is that of the first.
    CutGzip,
    /// Files only, silent: half of the middle line is missing, and the compression is sound.
    BrokenLine,
}

impl Action {
    /// A JSON error as PostHog gives when something broke inside.
    pub fn status(code: u16) -> Self {
        let body = r#"{"type":"server_error","code":"error","detail":"A server error occurred.","attr":null}"#;
        Self::Status { code, body: body.to_owned(), headers: Vec::new() }
    }

    /// An error whose `detail` and `code` may be anything, such as null or a list.
    pub fn error(status: u16, detail: &Value, code: &Value) -> Self {
        let body = json!({"type": "validation_error", "code": code, "detail": detail, "attr": null}).to_string();
        Self::Status { code: status, body, headers: Vec::new() }
    }

    /// The 503 of `event_definitions` and `property_definitions` in huge projects, which PostHog sends
    /// after 25 seconds.
    pub fn definitions_timed_out() -> Self {
        let body = json!({
            "type": "server_error", "code": "definition_list_timed_out",
            "detail": "Listing definitions took too long. Try again, or narrow the search.", "attr": null,
        });
        Self::Status { code: 503, body: body.to_string(), headers: Vec::new() }
    }

    /// A 429 that asks to come back after some seconds.
    pub fn throttle(seconds: u64) -> Self {
        let body = format!(
            r#"{{"type":"throttled_error","code":"throttled","detail":"Request was throttled. Expected available in {seconds} seconds.","attr":null}}"#
        );
        Self::Status { code: 429, body, headers: vec![("retry-after".to_owned(), seconds.to_string())] }
    }

    /// Short name, as it appears in the log of requests.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Status { .. } => "status",
            Self::Raw { .. } => "raw",
            Self::Html { .. } => "html",
            Self::GatewayTimeout { .. } => "gateway_timeout",
            Self::Truncate { .. } => "truncate",
            Self::ResetMidBody { .. } => "reset_mid_body",
            Self::Reset => "reset",
            Self::Malformed => "malformed",
            Self::Stall { .. } => "stall",
            Self::Drip { .. } => "drip",
            Self::Endless { .. } => "endless",
            Self::BadEncoding => "bad_encoding",
            Self::Delay { .. } => "delay",
            Self::DropRows { .. } => "drop_rows",
            Self::DuplicateRows { .. } => "duplicate_rows",
            Self::SwapInCopy => "swap_in_copy",
            Self::WrongCount { .. } => "wrong_count",
            Self::Clamp { .. } => "clamp",
            Self::NextElsewhere => "next_elsewhere",
            Self::NextRepeats => "next_repeats",
            Self::Bomb { .. } => "bomb",
            Self::CorruptByte => "corrupt_byte",
            Self::CutGzip => "cut_gzip",
            Self::BrokenLine => "broken_line",
        }
    }
}

impl Fault {
    /// A rule for every request to PostHog itself, every time.
    pub fn new(action: Action) -> Self {
        Self {
            files: false,
            path: None,
            sql: None,
            method: None,
            nth: Vec::new(),
            every: None,
            after: 0,
            times: u64::MAX,
            action,
        }
    }

    /// A rule for requests to the host of exported files, and no others.
    pub fn files(action: Action) -> Self {
        Self { files: true, ..Self::new(action) }
    }

    /// A rule for HogQL queries only.
    pub fn query(action: Action) -> Self {
        Self::new(action).path(r"/query\b")
    }

    /// Only paths (with their query string) in which this regular expression is found.
    #[must_use]
    pub fn path(mut self, pattern: &str) -> Self {
        self.path = Some(pattern.to_owned());
        self
    }

    /// Only queries in whose HogQL (elsewhere: requests in whose body) this regular expression is found.
    #[must_use]
    pub fn sql(mut self, pattern: &str) -> Self {
        self.sql = Some(pattern.to_owned());
        self
    }

    /// Only this HTTP method.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        self.method = Some(method.to_ascii_uppercase());
        self
    }

    /// Only these of the matching requests, counted from 1.
    #[must_use]
    pub fn nth(mut self, numbers: &[u64]) -> Self {
        self.nth = numbers.to_vec();
        self
    }

    /// Only every so many-th of the matching requests.
    #[must_use]
    pub fn every(mut self, number: u64) -> Self {
        self.every = Some(number);
        self
    }

    /// Spares the first matching requests.
    #[must_use]
    pub fn after(mut self, number: u64) -> Self {
        self.after = number;
        self
    }

    /// At most so often.
    #[must_use]
    pub fn times(mut self, number: u64) -> Self {
        self.times = number;
        self
    }
}

#[derive(Debug)]
struct Rule {
    fault: Fault,
    path: Option<Regex>,
    sql: Option<Regex>,
    seen: u64,
    fired: u64,
}

/// The rules in force and how often each was due.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<Rule>);

impl Faults {
    pub(crate) fn new(faults: Vec<Fault>) -> anyhow::Result<Self> {
        let compile = |pattern: &Option<String>| {
            pattern
                .as_deref()
                .map(|text| Regex::new(text).with_context(|| format!("fault pattern {text:?}")))
                .transpose()
        };
        let rule = |fault: Fault| {
            anyhow::Ok(Rule { path: compile(&fault.path)?, sql: compile(&fault.sql)?, fault, seen: 0, fired: 0 })
        };
        Ok(Self(faults.into_iter().map(rule).collect::<anyhow::Result<_>>()?))
    }

    /// Counts the request in every rule that matches it and returns what goes wrong with it.
    pub(crate) fn pick(&mut self, method: &str, path: &str, text: &str) -> Option<Action> {
        self.choose(false, method, path, text)
    }

    /// The same for a request to the file host.
    pub(crate) fn pick_file(&mut self, method: &str, path: &str) -> Option<Action> {
        self.choose(true, method, path, "")
    }

    fn choose(&mut self, files: bool, method: &str, path: &str, text: &str) -> Option<Action> {
        let mut chosen = None;
        for rule in self.0.iter_mut().filter(|rule| rule.fault.files == files) {
            let wanted = rule.fault.method.as_deref().is_none_or(|wanted| wanted == method)
                && rule.path.as_ref().is_none_or(|pattern| pattern.is_match(path))
                && rule.sql.as_ref().is_none_or(|pattern| pattern.is_match(text));
            if !wanted {
                continue;
            }
            rule.seen += 1;
            let due = rule.seen > rule.fault.after
                && rule.fired < rule.fault.times
                && (rule.fault.nth.is_empty() || rule.fault.nth.contains(&rule.seen))
                && rule.fault.every.is_none_or(|every| every > 0 && rule.seen.is_multiple_of(every));
            if due && chosen.is_none() {
                rule.fired += 1;
                chosen = Some(rule.fault.action.clone());
            }
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_rule_counts_its_own_requests() {
        let mut faults = Faults::new(vec![
            Fault::query(Action::status(500)).sql("count").nth(&[2]),
            Fault::query(Action::Reset).method("post").every(3).after(3).times(1),
        ])
        .unwrap();
        let mut fired = Vec::new();
        for number in 1..=12 {
            let body = if number % 2 == 0 { "select count()" } else { "select uuid" };
            if let Some(action) = faults.pick("POST", "/api/projects/1/query/", body) {
                fired.push((number, action.name()));
            }
            assert_eq!(faults.pick("GET", "/api/projects/", ""), None);
        }
        assert_eq!(fired, [(4, "status"), (6, "reset")]);
    }

    #[test]
    fn a_bad_pattern_is_refused() {
        assert!(Faults::new(vec![Fault::new(Action::Reset).path("(")]).is_err());
    }
}
