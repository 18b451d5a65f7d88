//! Records are written without allocating for each of them.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use source_posthog::config::Config;
use source_posthog::posthog::line_reader::LineReader;
use source_posthog::posthog::row_reader::RowReader;
use source_posthog::posthog::{Consumed, Malformed, Row, RowConsumer};
use source_posthog::protocol::Lines;
use source_posthog::protocol::StreamDescriptor;
use source_posthog::records::{ExportWriter, RowWriter};
use source_posthog::streams::{EVENTS, Selection};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const PROPERTIES: &str = r#"{"$current_url":"https://a.example/?q=\"é\"","$set":{"deep":[[{"a":[]}]]},"$screen_width":1512,"$session_id":"s"}"#;
const TIME: &str = "2026-01-01T00:00:00.123000Z";

/// Number of allocations that `work` makes.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = dhat::HeapStats::get().total_blocks;
    work();
    dhat::HeapStats::get().total_blocks - before
}

struct Taker {
    writer: RowWriter,
    lines: Lines,
    records: u64,
}

impl RowConsumer for Taker {
    fn consume(&mut self, row: &Row<'_>) -> Result<(), Malformed> {
        panic!("{} columns went the slow way", row.len())
    }

    fn consume_bytes(&mut self, bytes: &[u8], first: bool) -> Consumed {
        self.lines.clear();
        let (taken, records) = self.writer.write_bytes(bytes, first, &mut self.lines);
        self.records += records;
        taken
    }
}

/// Events without their properties and without what identifies them.
fn few_fields() -> Selection {
    Selection::of_schema(&json!({"properties": {"event": {}, "session_id": {}}}))
}

/// Rules for properties that events have, and for what they set of their person.
fn with_rules() -> Selection {
    let config = json!({
        "api_key": "phx_1", "start_date": "2026-01-01", "hash_key": "0123456789abcdef",
        "event_properties": {"drop": ["$screen_width", "$ip"], "hash": ["$session_id"]},
        "person_properties": {"drop": ["deep", "email"]},
    });
    let config = Config::parse(config.to_string().as_bytes(), None).unwrap();
    Selection::all().with_rules(&config.event_properties, &config.person_properties)
}

fn allocations_of_a_response(selection: &Selection, rows: usize) -> u64 {
    let columns = EVENTS.selected(false, selection);
    let row = |number: usize| -> Vec<Value> {
        let value = |field: &str| match field {
            "uuid" => format!("u-{number:08}"),
            "properties" => PROPERTIES.to_owned(),
            "timestamp" | "created_at" => TIME.to_owned(),
            _ => "text".to_owned(),
        };
        columns.iter().map(|column| value(column.field).into()).collect()
    };
    let response = json!({"results": (0..rows).map(row).collect::<Vec<_>>()}).to_string();
    let stream = StreamDescriptor { name: "events".into(), namespace: None };
    let writer = RowWriter::new(&EVENTS, &columns, selection, &stream, 7);
    let mut taker = Taker { writer, lines: Lines::default(), records: 0 };
    let count = allocations(|| {
        let mut reader = RowReader::default();
        for piece in response.as_bytes().chunks(16 * 1024) {
            reader.feed(piece, &mut taker).unwrap();
        }
        // The bracket behind the last row goes the slow way, but is no row.
        reader.finish(&mut taker).unwrap();
    });
    assert_eq!(taker.records, rows as u64);
    count
}

fn allocations_of_a_file(selection: &Selection, lines: usize) -> u64 {
    let mut file = GzEncoder::new(Vec::new(), Compression::fast());
    for number in 0..lines {
        writeln!(
            file,
            r#"{{"uuid":"u-{number}","event":"e","properties":{PROPERTIES},"timestamp":"{TIME}","created_at":"{TIME}"}}"#
        )
        .unwrap();
    }
    let file = file.finish().unwrap();
    let stream = StreamDescriptor { name: "events".into(), namespace: None };
    let mut writer = ExportWriter::new(&EVENTS, selection, &stream, 7);
    let (mut batch, mut records) = (Vec::new(), 0);
    let count = allocations(|| {
        let mut take = |line: &[u8]| {
            batch.clear();
            writer.parse(line)?;
            writer.write(line, &mut batch)?;
            records += 1;
            Ok(())
        };
        let mut reader = LineReader::default();
        for mut piece in file.chunks(16 * 1024) {
            while !piece.is_empty() {
                piece = &piece[reader.feed(piece, &mut take).unwrap()..];
            }
        }
        reader.finish(&mut take).unwrap();
    });
    assert_eq!(records, lines);
    count
}

#[test]
fn ten_times_as_many_records_need_hardly_more_allocations() {
    let _profiler = dhat::Profiler::builder().testing().build();
    for (name, count) in
        [("response", allocations_of_a_response as fn(&Selection, usize) -> u64), ("file", allocations_of_a_file)]
    {
        for selection in [Selection::all(), few_fields(), with_rules()] {
            let (few, many) = (count(&selection, 1_000), count(&selection, 10_000));
            // Buffers grow to their size a few times; nothing else may.
            assert!(few < 50 && many < few + 20, "{name}: {few} for 1,000 records, {many} for 10,000");
        }
    }
}
