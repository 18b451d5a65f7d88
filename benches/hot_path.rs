//! The stages of the hot path, each for itself, on events that real SDKs sent.
//!
//! `cargo bench --bench hot_path`. Each figure is for one core; bytes are those that the stage takes
//! in.

#![expect(clippy::expect_used, reason = "a bench has nobody to tell but its reader")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::sync::LazyLock;

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use fearless_simd::{Level, dispatch};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use source_posthog::config::Config;
use source_posthog::posthog::line_reader::LineReader;
use source_posthog::posthog::row_reader::RowReader;
use source_posthog::posthog::{Consumed, Malformed, Row, RowConsumer};
use source_posthog::protocol::Lines;
use source_posthog::protocol::StreamDescriptor;
use source_posthog::records::transcode::{Sink, document};
use source_posthog::records::{ExportWriter, RowWriter};
use source_posthog::streams::{EVENTS, Selection};

const STORED: &[u8] = include_bytes!("../integration_tests/sandbox/data/events.jsonl.gz");
/// Size of the pieces in which an answer arrives.
const PIECE: usize = 64 * 1024;

fn main() {
    divan::main();
}

struct Data {
    /// An answer to a query.
    response: Vec<u8>,
    /// An exported file, and its lines.
    file: Vec<u8>,
    lines: Vec<u8>,
    /// `properties` as JSON strings, without their opening quote, and as documents.
    quoted: Vec<Vec<u8>>,
    documents: Vec<String>,
}

static DATA: LazyLock<Data> = LazyLock::new(|| {
    let stored = BufReader::new(GzDecoder::new(STORED)).lines();
    let events: Vec<Value> = stored.map(|line| serde_json::from_str(&line.expect("a line")).expect("JSON")).collect();
    let documents: Vec<String> = events.iter().map(|event| event["properties"].to_string()).collect();
    let time = "2026-01-01T00:00:00.123000Z";
    let row = |(event, document): (&Value, &String)| {
        let columns = EVENTS.selected(false, &Selection::all());
        let value = |field: &str| match field {
            "uuid" | "event" | "distinct_id" => event[field].clone(),
            "properties" => document.as_str().into(),
            "timestamp" | "created_at" => time.into(),
            "person_id" | "session_id" => "01900000-0000-7000-8000-000000000000".into(),
            _ => "".into(),
        };
        columns.iter().map(|column| value(column.field)).collect::<Vec<_>>()
    };
    let mut rows: Vec<Vec<Value>> = events.iter().zip(&documents).map(row).collect();
    // All of them have the same time, so the server has them in the order of their ids.
    rows.sort_by_key(|row| row[0].to_string());
    let mut lines = Vec::new();
    for event in &events {
        let line = json!({
            "uuid": event["uuid"], "event": event["event"], "properties": event["properties"],
            "distinct_id": event["distinct_id"], "timestamp": time, "created_at": time, "_inserted_at": time,
            "person_id": "01900000-0000-7000-8000-000000000000", "person_properties": {}, "elements_chain": "",
        });
        writeln!(lines, "{line}").expect("memory");
    }
    let mut file = GzEncoder::new(Vec::new(), Compression::default());
    file.write_all(&lines).expect("memory");
    Data {
        response: json!({"results": rows, "columns": []}).to_string().into_bytes(),
        file: file.finish().expect("memory"),
        lines,
        quoted: documents.iter().map(|text| Value::from(text.as_str()).to_string().as_bytes()[1..].to_vec()).collect(),
        documents,
    }
});

fn stream() -> StreamDescriptor {
    StreamDescriptor { name: "events".into(), namespace: None }
}

/// Reads an answer piece by piece.
fn read(taker: &mut dyn RowConsumer) -> u64 {
    let mut reader = RowReader::default();
    for piece in DATA.response.chunks(PIECE) {
        reader.feed(piece, taker).expect("an answer");
    }
    reader.finish(taker).expect("an answer")
}

struct Hot {
    writer: RowWriter,
    lines: Lines,
}

impl RowConsumer for Hot {
    fn consume(&mut self, row: &Row<'_>) -> Result<(), Malformed> {
        self.writer.write(row, self.lines.as_vec()).map(|_| ())
    }

    fn consume_bytes(&mut self, bytes: &[u8], first: bool) -> Consumed {
        self.lines.clear();
        self.writer.write_bytes(bytes, first, &mut self.lines).0
    }
}

fn writer() -> RowWriter {
    let all = Selection::all();
    RowWriter::new(&EVENTS, &EVENTS.selected(false, &all), &all, &stream(), 7)
}

/// Query answer to RECORD lines, as `read` does it.
#[divan::bench]
fn query_to_lines(bencher: Bencher) {
    let mut hot = Hot { writer: writer(), lines: Lines::default() };
    bencher.counter(BytesCount::new(DATA.response.len())).bench_local(|| {
        hot.writer.restart();
        read(&mut hot)
    });
}

/// The same with rules for properties: two are dropped, one is hashed.
#[divan::bench]
fn query_to_lines_with_rules(bencher: Bencher) {
    let config = json!({
        "api_key": "phx_1", "start_date": "2026-01-01", "hash_key": "0123456789abcdef",
        "event_properties": {"drop": ["$ip", "$geoip_*"], "hash": ["$device_id"]},
    });
    let config = Config::parse(config.to_string().as_bytes(), None).expect("a configuration");
    let selection = Selection::all().with_rules(&config.event_properties, &config.person_properties);
    let writer = RowWriter::new(&EVENTS, &EVENTS.selected(false, &selection), &selection, &stream(), 7);
    let mut hot = Hot { writer, lines: Lines::default() };
    bencher.counter(BytesCount::new(DATA.response.len())).bench_local(|| {
        hot.writer.restart();
        read(&mut hot)
    });
}

/// The same by the plain path, which the hot path is compared with.
#[divan::bench]
fn query_to_lines_plainly(bencher: Bencher) {
    let (mut writer, mut lines) = (writer(), Vec::new());
    bencher.counter(BytesCount::new(DATA.response.len())).bench_local(|| {
        writer.restart();
        read(&mut |row: &Row<'_>| -> Result<(), Malformed> {
            lines.clear();
            writer.write(row, &mut lines).map(|_| ())
        })
    });
}

/// Finding the rows only.
#[divan::bench]
fn cut_rows(bencher: Bencher) {
    bencher.counter(BytesCount::new(DATA.response.len())).bench_local(|| {
        read(&mut |row: &Row<'_>| -> Result<(), Malformed> {
            black_box(row);
            Ok(())
        })
    });
}

/// Documents in strings to documents: unescaped and checked.
#[divan::bench]
fn embed_documents(bencher: Bencher) {
    let size: usize = DATA.quoted.iter().map(Vec::len).sum();
    let (mut room, mut open, level) = (vec![0; PIECE], Vec::new(), Level::new());
    bencher.counter(BytesCount::new(size)).bench_local(|| {
        for text in &DATA.quoted {
            let mut sink = Sink::new(&mut room);
            dispatch!(level, simd => document::embed(simd, text, 0, &mut sink, &mut open)).expect("a document");
        }
    });
}

/// What unescaping and checking cost when serde does them.
#[divan::bench]
fn unescape_plainly(bencher: Bencher) {
    let size: usize = DATA.quoted.iter().map(Vec::len).sum();
    let quoted: Vec<Vec<u8>> = DATA.quoted.iter().map(|text| [b"\"", text.as_slice()].concat()).collect();
    bencher.counter(BytesCount::new(size)).bench_local(|| {
        for text in &quoted {
            black_box(serde_json::from_slice::<String>(text).expect("a text"));
        }
    });
}

/// See [`unescape_plainly`].
#[divan::bench]
fn validate_plainly(bencher: Bencher) {
    let size: usize = DATA.documents.iter().map(String::len).sum();
    bencher.counter(BytesCount::new(size)).bench_local(|| {
        for text in &DATA.documents {
            black_box(serde_json::from_str::<IgnoredAny>(text).expect("a document"));
        }
    });
}

/// An exported file to its lines; bytes are those of the lines.
#[divan::bench]
fn gunzip(bencher: Bencher) {
    bencher.counter(BytesCount::new(DATA.lines.len())).bench_local(|| {
        let mut reader = LineReader::default();
        let mut take = |line: &[u8]| {
            black_box(line);
            Ok(())
        };
        for mut piece in DATA.file.chunks(PIECE) {
            while !piece.is_empty() {
                piece = &piece[reader.feed(piece, &mut take).expect("a file")..];
            }
        }
        reader.finish(&mut take).expect("a file");
    });
}

/// Lines of an exported file to RECORD lines.
#[divan::bench]
fn export_to_lines(bencher: Bencher) {
    let (mut writer, mut lines) = (ExportWriter::new(&EVENTS, &Selection::all(), &stream(), 7), Vec::new());
    bencher.counter(BytesCount::new(DATA.lines.len())).bench_local(|| {
        for line in DATA.lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            lines.clear();
            writer.parse(line).expect("a line");
            writer.write(line, &mut lines).expect("a line");
        }
    });
}
