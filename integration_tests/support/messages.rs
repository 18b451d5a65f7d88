//! What a program has printed, checked against the shape of the protocol.
//!
//! Every message of every test passes through here: unknown fields, lines that are not JSON, counts
//! of STATEs that are off and statuses out of order fail whichever test produced them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::Value;
use source_posthog::streams;

/// The fields of every stream's schema.
static FIELDS: LazyLock<BTreeMap<String, BTreeSet<String>>> = LazyLock::new(|| {
    let fields = |schema: &Value| schema["properties"].as_object().unwrap().keys().cloned().collect();
    let streams = streams::catalog(&[], |_| streams::PropertyColumns::default()).streams.into_iter();
    streams.map(|stream| (stream.name, fields(&stream.json_schema))).collect()
});

/// The lines of standard output.
#[derive(Debug, Clone)]
pub(crate) struct Messages {
    lines: Vec<String>,
    parsed: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE", deny_unknown_fields)]
enum Shape {
    Record {
        record: RecordShape,
    },
    State {
        state: StateShape,
    },
    Log {
        log: LogShape,
    },
    Trace {
        trace: TraceShape,
    },
    Spec {
        #[expect(dead_code)]
        spec: Value,
    },
    Catalog {
        #[expect(dead_code)]
        catalog: Value,
    },
    ConnectionStatus {
        #[expect(dead_code)]
        #[serde(rename = "connectionStatus")]
        connection_status: Value,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordShape {
    stream: String,
    #[serde(default)]
    namespace: Option<String>,
    data: serde_json::Map<String, Value>,
    emitted_at: i64,
    #[serde(default)]
    #[expect(dead_code)]
    meta: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StateShape {
    #[serde(rename = "type")]
    kind: String,
    stream: StreamStateShape,
    #[serde(rename = "sourceStats")]
    source_stats: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamStateShape {
    stream_descriptor: Descriptor,
    stream_state: serde_json::Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(deny_unknown_fields)]
struct Descriptor {
    name: String,
    #[serde(default)]
    namespace: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogShape {
    level: String,
    #[expect(dead_code)]
    message: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TraceShape {
    #[serde(rename = "type")]
    kind: String,
    #[expect(dead_code)]
    emitted_at: i64,
    #[serde(default)]
    stream_status: Option<Value>,
    #[serde(default)]
    error: Option<Value>,
    #[serde(default)]
    estimate: Option<Value>,
}

impl Messages {
    /// Reads and checks the output of a program.
    pub(crate) fn parse(stdout: &[u8]) -> Self {
        Self::read(stdout, false)
    }

    /// The same for a program that reads its streams again and again.
    pub(crate) fn of_rounds(stdout: &[u8]) -> Self {
        Self::read(stdout, true)
    }

    fn read(stdout: &[u8], again: bool) -> Self {
        let text = std::str::from_utf8(stdout).expect("stdout is not UTF-8");
        assert!(text.is_empty() || text.ends_with('\n'), "the last line is not whole");
        assert!(!text.contains(['\u{85}', '\u{2028}', '\u{2029}']), "a reader could take a line for two");
        let lines: Vec<String> = text.split_terminator('\n').map(str::to_owned).collect();
        // `catalog` prints a document, not messages.
        if lines.first().is_some_and(|line| line == "{") {
            return Self { parsed: vec![serde_json::from_str(text).expect("not JSON")], lines };
        }
        let parsed: Vec<Value> = lines
            .iter()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}")))
            .collect();
        let messages = Self { lines, parsed };
        messages.check(again);
        messages
    }

    /// These messages, followed by those of a later run.
    pub(crate) fn and(mut self, later: Self) -> Self {
        self.lines.extend(later.lines);
        self.parsed.extend(later.parsed);
        self
    }

    /// A prefix that ends with line number `last`, as if the reader had seen no more.
    pub(crate) fn up_to(&self, last: usize) -> Self {
        Self { lines: self.lines[..=last].to_vec(), parsed: self.parsed[..=last].to_vec() }
    }

    fn check(&self, again: bool) {
        let mut since_state: BTreeMap<Descriptor, u64> = BTreeMap::new();
        let mut last_state: BTreeMap<Descriptor, serde_json::Map<String, Value>> = BTreeMap::new();
        let mut status: BTreeMap<String, String> = BTreeMap::new();
        for line in &self.lines {
            let shape: Shape = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:.300}"));
            match shape {
                Shape::Record { record } => {
                    assert!(!record.data.is_empty(), "empty data: {line}");
                    assert!(record.emitted_at > 1_600_000_000_000, "emitted_at in milliseconds: {line:.300}");
                    assert_eq!(
                        status.get(&record.stream).map(String::as_str),
                        Some("RUNNING"),
                        "a record before RUNNING"
                    );
                    // Properties and queries of the user's have fields of their own.
                    let is_property_column = |field: &str| field.starts_with("property_");
                    let unknown = FIELDS.get(&record.stream).and_then(|known| {
                        record.data.keys().find(|field| !known.contains(*field) && !is_property_column(field))
                    });
                    assert_eq!(unknown, None, "a field that the schema lacks: {line:.300}");
                    let stream = Descriptor { name: record.stream, namespace: record.namespace };
                    *since_state.entry(stream).or_default() += 1;
                }
                Shape::State { state } => {
                    assert_eq!(state.kind, "STREAM");
                    let stream = state.stream.stream_descriptor;
                    let count = since_state.remove(&stream).unwrap_or(0);
                    let counted = format!("\"sourceStats\":{{\"recordCount\":{count}.0}}");
                    assert!(line.contains(&counted), "{count} records counted: {line:.500}");
                    assert!(state.source_stats.is_object());
                    let before = last_state.insert(stream, state.stream.stream_state.clone());
                    assert!(
                        count > 0 || before.as_ref() != Some(&state.stream.stream_state),
                        "the same state twice: {line}"
                    );
                }
                Shape::Log { log } => {
                    assert!(
                        ["FATAL", "ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(&log.level.as_str()),
                        "{line}"
                    );
                }
                Shape::Trace { trace } => match trace.kind.as_str() {
                    "STREAM_STATUS" => {
                        let body = trace.stream_status.expect("a status without its body");
                        let stream = body["stream_descriptor"]["name"].as_str().unwrap().to_owned();
                        let next = body["status"].as_str().unwrap().to_owned();
                        let before = status.insert(stream, next.clone());
                        let allowed = match next.as_str() {
                            "STARTED" => before
                                .as_deref()
                                .is_none_or(|before| again && matches!(before, "COMPLETE" | "INCOMPLETE")),
                            "RUNNING" | "COMPLETE" | "INCOMPLETE" => {
                                matches!(before.as_deref(), Some("STARTED" | "RUNNING"))
                            }
                            _ => false,
                        };
                        assert!(allowed, "{next} after {before:?}");
                    }
                    "ERROR" => {
                        let error = trace.error.expect("an error without its body");
                        assert!(!error["message"].as_str().unwrap().is_empty());
                        let kind = error["failure_type"].as_str().unwrap();
                        assert!(["config_error", "system_error", "transient_error"].contains(&kind), "{kind}");
                    }
                    "ESTIMATE" => assert_eq!(trace.estimate.expect("an estimate without its body")["type"], "STREAM"),
                    other => panic!("unknown trace {other}"),
                },
                Shape::Spec { .. } | Shape::Catalog { .. } | Shape::ConnectionStatus { .. } => {}
            }
        }
    }

    /// All lines.
    pub(crate) fn text(&self) -> String {
        self.lines.join("\n")
    }

    /// All lines but records, for failure messages.
    pub(crate) fn without_records(&self) -> String {
        let others = self.lines.iter().filter(|line| !line.starts_with("{\"type\":\"RECORD\""));
        others.map(String::as_str).collect::<Vec<_>>().join("\n")
    }

    /// The parsed lines of one type.
    pub(crate) fn of_type(&self, kind: &str) -> Vec<&Value> {
        self.parsed.iter().filter(|message| message["type"] == kind).collect()
    }

    /// The document that `catalog` has printed.
    pub(crate) fn document(&self) -> &Value {
        &self.parsed[0]
    }

    /// The data of a stream's records.
    pub(crate) fn records(&self, stream: &str) -> Vec<&Value> {
        let records = self.of_type("RECORD").into_iter().filter(|message| message["record"]["stream"] == stream);
        records.map(|message| &message["record"]["data"]).collect()
    }

    /// The ids of a stream's records, in their order.
    pub(crate) fn ids(&self, stream: &str) -> Vec<String> {
        self.records(stream).iter().map(|data| data["id"].as_str().expect("an id").to_owned()).collect()
    }

    /// The ids of a stream's records, each once.
    pub(crate) fn id_set(&self, stream: &str) -> BTreeSet<String> {
        self.ids(stream).into_iter().collect()
    }

    /// Verdict and message of `check`.
    pub(crate) fn connection_status(&self) -> (String, String) {
        let found = self.of_type("CONNECTION_STATUS");
        assert_eq!(found.len(), 1, "one CONNECTION_STATUS, not {}", found.len());
        let status = &found[0]["connectionStatus"];
        let text = |field: &str| status[field].as_str().unwrap_or_default().to_owned();
        (text("status"), text("message"))
    }

    /// Line numbers of the states.
    pub(crate) fn state_lines(&self) -> Vec<usize> {
        (0..self.parsed.len()).filter(|line| self.parsed[*line]["type"] == "STATE").collect()
    }

    /// The content of the state file after these messages: the last state of every stream.
    pub(crate) fn state(&self) -> Value {
        let mut streams: Vec<Value> = Vec::new();
        for message in self.of_type("STATE") {
            let state = serde_json::json!({"type": "STREAM", "stream": message["state"]["stream"]});
            let descriptor = &state["stream"]["stream_descriptor"];
            streams.retain(|known| known["stream"]["stream_descriptor"] != *descriptor);
            streams.push(state);
        }
        Value::Array(streams)
    }

    /// The state of one stream.
    pub(crate) fn stream_state(&self, stream: &str) -> Value {
        let states = self.state();
        let found =
            states.as_array().unwrap().iter().find(|state| state["stream"]["stream_descriptor"]["name"] == stream);
        found.map(|state| state["stream"]["stream_state"].clone()).unwrap_or_default()
    }

    /// Statuses of a stream, `RATE_LIMITED` ones included.
    pub(crate) fn statuses(&self, stream: &str) -> Vec<String> {
        let statuses = self.of_type("TRACE").into_iter().map(|message| &message["trace"]["stream_status"]);
        let of_stream = statuses.filter(|status| status["stream_descriptor"]["name"] == stream);
        of_stream
            .map(|status| {
                let limited = status["reasons"].is_array();
                if limited { "RATE_LIMITED" } else { status["status"].as_str().unwrap() }.to_owned()
            })
            .collect()
    }

    /// Errors as `failure_type: message`.
    pub(crate) fn errors(&self) -> Vec<String> {
        let errors = self.of_type("TRACE").into_iter().filter(|message| message["trace"]["type"] == "ERROR");
        errors
            .map(|message| {
                let error = &message["trace"]["error"];
                format!("{}: {}", error["failure_type"].as_str().unwrap(), error["message"].as_str().unwrap())
            })
            .collect()
    }

    /// How many times a stream has been read to its end, or as far as that went.
    pub(crate) fn ends_of(&self, stream: &str) -> usize {
        let statuses = self.statuses(stream);
        statuses.iter().filter(|status| ["COMPLETE", "INCOMPLETE"].contains(&status.as_str())).count()
    }

    /// Log lines of a level.
    pub(crate) fn logs(&self, level: &str) -> Vec<String> {
        let logs = self.of_type("LOG").into_iter().filter(|message| message["log"]["level"] == level);
        logs.map(|message| message["log"]["message"].as_str().unwrap().to_owned()).collect()
    }
}
