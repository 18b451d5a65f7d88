//! What the fuzz targets do with arbitrary bytes. Each panics when something is wrong.
//!
//! `make fuzz` feeds them with what libFuzzer makes up, `integration_tests/corpus.rs` with the files
//! of `fuzz/corpus`.

#![allow(unreachable_pub, reason = "a library here, a module of the tests there")]

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::value::RawValue;
use source_posthog::config::{Config, CustomQuery, query_text};
use source_posthog::error::{Error, FailureType};
use source_posthog::posthog::line_reader::LineReader;
use source_posthog::posthog::row_reader::RowReader;
use source_posthog::posthog::{After, Consumed, Malformed, Predicate, Query, Row, RowConsumer, RowKey};
use source_posthog::protocol::StreamDescriptor;
use source_posthog::protocol::state::SavedStates;
use source_posthog::protocol::{ConfiguredCatalog, Lines, Stream};
use source_posthog::records::{ExportWriter, Fingerprint, RowWriter, Written};
use source_posthog::streams::{
    self, EVENTS, KEYSET_STREAMS, LISTS, PERSONS, PropertyColumns, PropertyType, Selection, Source, TABLES, Table,
};
use source_posthog::sync::ledger::{Names, names_condition};
use source_posthog::sync::{KeysetState, ListState, ProjectEntry, ProjectState, StreamState};
use source_posthog::time::Timestamp;
use sqlparser::dialect::ClickHouseDialect;
use sqlparser::parser::Parser;

/// A function that looks at bytes.
pub type Target = fn(&[u8]);

/// All of them, by the name of their folder in `fuzz/corpus`.
pub const ALL: [(&str, Target); 6] =
    [("config", config), ("catalog", catalog), ("state", state), ("answer", answer), ("file", file), ("hogql", hogql)];

/// A configuration is usable, or refused with the name of a field.
pub fn config(bytes: &[u8]) {
    match Config::parse(bytes, None) {
        Err(error) => assert_names_something(&error),
        Ok(config) => {
            assert!(matches!(config.base_url.scheme(), "http" | "https"), "{}", config.base_url);
            assert!(config.base_url.path().ends_with('/') && config.base_url.password().is_none());
            assert!(config.end.is_none_or(|end| end > config.start));
            assert!(config.concurrency > 0 && config.attempts > 0 && config.rate_limit_share > 0.0);
            let key = config.api_key.expose();
            // A short key may be a part of any word.
            assert!(key.len() < 12 || !format!("{:?}", config.api_key).contains(key));
        }
    }
}

/// A configured catalog is usable, or refused; what its schemas say does no harm.
pub fn catalog(bytes: &[u8]) {
    let Ok(catalog) = ConfiguredCatalog::parse(bytes) else { return };
    for configured in &catalog.streams {
        let Stream { name, json_schema, .. } = &configured.stream;
        assert_eq!(&configured.descriptor().name, name);
        if let Some(source) = Source::find(name, &[]) {
            assert!(!source.scope().is_empty());
        }
        let properties: Vec<String> =
            json_schema["properties"].as_object().into_iter().flat_map(|fields| fields.keys().cloned()).collect();
        property_columns(&properties, |field| PropertyType::of_schema(json_schema["properties"].get(field)));
    }
    let text = serde_json::to_vec(&catalog).unwrap();
    let again = ConfiguredCatalog::parse(&text).unwrap();
    assert_eq!(serde_json::to_vec(&again).unwrap(), text);
}

/// A state is usable, or refused with what is wrong; a usable one survives being written and read.
pub fn state(bytes: &[u8]) {
    let file = match SavedStates::parse(bytes) {
        Ok(file) => file,
        Err(error) => return assert_eq!(error.failure_type(), FailureType::Config, "{error}"),
    };
    let of = |name: &str| file.stream(&stream(name));
    for table in TABLES {
        survives::<ProjectState>(of(table.stream), table.cursor_field);
    }
    for keyset in KEYSET_STREAMS {
        survives::<KeysetState>(of(keyset.stream), "");
    }
    for list in LISTS {
        survives::<ListState>(of(list.stream), "");
    }
}

/// A stream's state is refused by name, or the same after it has been written and read.
fn survives<T: ProjectEntry + std::fmt::Debug>(state: Option<&serde_json::Value>, cursor_field: &'static str) {
    match StreamState::<T>::parse(state, cursor_field) {
        Err(error) => assert_names_something(&error),
        Ok(state) => {
            let value = state.to_value();
            assert_eq!(StreamState::parse(Some(&value), cursor_field).unwrap(), state, "{value}");
        }
    }
}

/// A config error that quotes what it is about, or speaks of the whole.
fn assert_names_something(error: &Error) {
    assert_eq!(error.failure_type(), FailureType::Config, "{error}");
    let message = error.message();
    assert!(
        message.contains('`') || message.contains("the configuration") || message.contains("the state"),
        "{message}"
    );
}

fn stream(name: &str) -> StreamDescriptor {
    StreamDescriptor { name: name.to_owned(), namespace: None }
}

/// Fields of these properties: simple names, each once, none that the stream has already.
fn property_columns(properties: &[String], kind: impl Fn(&str) -> PropertyType) -> PropertyColumns {
    let property_columns = PropertyColumns::new(&EVENTS.schema(), properties, |field, _| kind(field));
    let mut schema = EVENTS.schema();
    let before = schema["properties"].as_object().map_or(0, serde_json::Map::len);
    property_columns.add_to(&mut schema);
    let fields = schema["properties"].as_object().unwrap();
    assert_eq!(fields.len(), before + properties.len(), "a field for each of {properties:?}");
    let is_simple = |field: &String| field.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    assert!(fields.keys().all(is_simple), "{properties:?}");
    property_columns
}

/// What the first bytes of an input choose, so that the rest can be JSON.
struct Choice<'b> {
    is_wrapped: bool,
    table: &'static Table,
    has_property_columns: bool,
    first: &'b [u8],
    rest: &'b [u8],
}

/// The first byte chooses, the next two say where to cut. Digits do, for seeds that can be read: even
/// for what is to be taken as it is, odd for what is to be wrapped.
fn choose<'b>(bytes: &'b [u8], tables: &[&'static Table]) -> Option<Choice<'b>> {
    let (&[choice, high, low], rest) = bytes.split_first_chunk::<3>()?;
    let (first, rest) = rest.split_at(usize::from(u16::from_be_bytes([high, low])) % (rest.len() + 1));
    let table = tables[usize::from(choice >> 1 & 3) % tables.len()];
    Some(Choice { is_wrapped: choice & 1 == 1, table, has_property_columns: choice & 8 == 8, first, rest })
}

/// The hot path and the plain path make the same of an answer, wherever it is cut.
pub fn answer(bytes: &[u8]) {
    let Some(choice) = choose(bytes, TABLES) else { return };
    let (mut first, mut rest) = (choice.first.to_vec(), choice.rest.to_vec());
    if choice.is_wrapped {
        first.splice(..0, *b"{\"results\":[");
        rest.extend_from_slice(b"]}");
    }
    let plain = Reading::new(choice.table, false).read(&[&first, &rest]);
    let hot = Reading::new(choice.table, true).read(&[&first, &rest]);
    match (plain, hot) {
        (Ok(plain), Ok(hot)) => {
            assert_eq!(plain, hot);
            let whole = Reading::new(choice.table, true).read(&[&[first, rest].concat()]);
            assert_eq!(whole, Ok(hot), "the cut makes a difference");
        }
        (plain, hot) => assert!(plain.is_err() && hot.is_err(), "plain {plain:?}, hot {hot:?}"),
    }
}

/// Reads with the hot path, or without it.
struct Reading {
    writer: RowWriter,
    lines: Lines,
    records: u64,
    is_hot: bool,
}

#[derive(Debug, PartialEq)]
struct Outcome {
    rows: u64,
    records: u64,
    settling: Option<u64>,
    figures: Vec<(i64, Fingerprint)>,
    last: Result<Option<RowKey>, Malformed>,
    /// Without the time of emission, which differs from writer to writer.
    lines: Vec<String>,
}

impl Reading {
    fn new(table: &Table, is_hot: bool) -> Self {
        let all = Selection::all();
        let columns = table.selected(true, &all);
        let from = Timestamp::parse("2026-01-01T00:00:30Z").unwrap();
        let writer =
            RowWriter::new(table, &columns, &all, &stream(table.stream), 7).counting_recent_rows(from).counting_days();
        Self { writer, lines: Lines::default(), records: 0, is_hot }
    }

    fn read(mut self, pieces: &[&[u8]]) -> Result<Outcome, Malformed> {
        let mut reader = RowReader::default();
        pieces.iter().try_for_each(|piece| reader.feed(piece, &mut self))?;
        let rows = reader.finish(&mut self)?;
        let lines = std::str::from_utf8(self.lines.as_bytes()).unwrap().split_terminator('\n');
        let lines: Vec<String> = lines
            .map(|line| {
                assert!(serde_json::from_str::<&RawValue>(line).is_ok(), "not JSON: {line}");
                line.rsplit_once(",\"emitted_at\":").unwrap().0.to_owned()
            })
            .collect();
        assert_eq!(lines.len() as u64, self.records);
        let (settling, figures, last) = (self.writer.settling(), self.writer.take_figures(), self.writer.last_key());
        Ok(Outcome { rows, records: self.records, settling, figures, last, lines })
    }
}

impl RowConsumer for Reading {
    fn consume(&mut self, row: &Row<'_>) -> Result<(), Malformed> {
        let written = self.writer.write(row, self.lines.as_vec())?;
        self.records += u64::from(written == Written::Record);
        Ok(())
    }

    fn consume_bytes(&mut self, bytes: &[u8], first: bool) -> Consumed {
        if !self.is_hot {
            return Consumed::default();
        }
        let (taken, records) = self.writer.write_bytes(bytes, first, &mut self.lines);
        self.records += records;
        taken
    }
}

/// Every line of an exported file becomes one line that is JSON, or is refused without a trace.
pub fn file(bytes: &[u8]) {
    let Some(choice) = choose(bytes, &[&EVENTS, &PERSONS]) else { return };
    let text = [choice.first, choice.rest].concat();
    let whole = choice.is_wrapped.then(|| text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count());
    let mut selection = Selection::all();
    if choice.has_property_columns {
        let columns = property_columns(&["a".to_owned(), "$b".to_owned()], |_| PropertyType::Number);
        selection = selection.with_property_columns(columns);
    }
    let mut writer = ExportWriter::new(choice.table, &selection, &stream(choice.table.stream), 7);
    let (mut lines, mut count) = (Vec::new(), 0);
    let mut take = |line: &[u8]| -> Result<(), Malformed> {
        count += 1;
        lines.clear();
        match writer.parse(line).and_then(|_| writer.write(line, &mut lines)) {
            Ok(()) => {
                let record = lines.strip_suffix(b"\n").unwrap();
                assert!(serde_json::from_slice::<&RawValue>(record).is_ok() && !record.contains(&b'\n'));
            }
            Err(_) => assert!(lines.is_empty()),
        }
        Ok(())
    };
    let mut read = |pieces: &[&[u8]]| {
        let mut reader = LineReader::default();
        for piece in pieces {
            let mut rest = *piece;
            while !rest.is_empty() {
                rest = &rest[reader.feed(rest, &mut take)?..];
            }
        }
        reader.finish(&mut take)
    };
    if let Some(whole) = whole {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(&text).unwrap();
        let packed = packed.finish().unwrap();
        let (first, rest) = packed.split_at(choice.first.len().min(packed.len()));
        assert_eq!(read(&[first, rest]), Ok(()));
        assert_eq!(count, whole);
    } else {
        // Whatever is wrong with the file is an error and no panic.
        drop(read(&[choice.first, choice.rest]));
    }
}

/// What users write never changes a query: values are not in its text, names are quoted, and a query
/// of theirs stays inside its parentheses.
///
/// The first three lines are the name of a column, its type and a value; the rest is the query.
pub fn hogql(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut parts = text.splitn(4, '\n');
    let [column, kind, value, query] = std::array::from_fn(|_| parts.next().unwrap_or_default());
    assert_eq!(with_value(value).text, with_value("x").text);
    assert_eq!(with_value(value).body()["query"]["values"]["include_0"], value);
    assert_eq!(with_value(value).body()["query"]["query"], with_value("x").text);
    property_columns(&[column.to_owned(), value.to_owned()], |_| PropertyType::String);
    let Ok(query) = query_text::check_text(query) else { return };
    // The parser takes these for something else than HogQL does; they are tested by themselves.
    let query = query.replace(['$', '#'], "_");
    if query.contains('\\') {
        return;
    }
    let Some((statement, expected)) = wrapped(&query, column, kind).zip(wrapped("SELECT 1", "plain", kind)) else {
        return;
    };
    let Some(parsed) = parsed(&statement) else { return };
    let alone = self::parsed(&query).unwrap_or_else(|| panic!("not a query but for its parentheses: {query}"));
    let expected = self::parsed(&expected).unwrap();
    let (before, after) = expected.split_once("(SELECT 1)").unwrap();
    let quoted = |text: &str| text.replace("`plain`", &format!("`{column}`"));
    assert_eq!(parsed, format!("{}({alone}){}", quoted(before), quoted(after)), "{statement}");
}

/// A query whose values are a user's.
fn with_value(value: &str) -> Query {
    let mut predicate = Predicate::default();
    for (names, prefix) in
        [(Names::new(&[value.to_owned()], &[]), "include"), (Names::new(&[], &[value.to_owned()]), "exclude")]
    {
        let (condition, values) = names_condition(&names, prefix);
        predicate.condition(condition.unwrap(), values);
    }
    let key = RowKey { sort_key: Timestamp::MIN, id: value.to_owned(), identity: vec![value.to_owned(); 2] };
    predicate.after("timestamp", "uuid", &["event", "distinct_id"], &key);
    predicate.after_values(&[("toString(distinct_id)".to_owned(), After::Text(value.to_owned()))]);
    predicate.select("uuid, event", "events", "ORDER BY timestamp ASC LIMIT 5")
}

/// The statement that reads a user's query; none when the column is refused.
fn wrapped(query: &str, column: &str, kind: &str) -> Option<String> {
    let custom = CustomQuery {
        name: "mine".to_owned(),
        query: query.to_owned(),
        primary_key: vec![column.to_owned()],
        cursor_field: None,
    };
    let keyset = streams::custom::stream(&custom, &[(column.to_owned(), kind.to_owned())]).ok()?;
    assert!(keyset.schema()["properties"][column].is_object());
    let (expression, from) = (keyset.expression(column), keyset.parts.first()?.from);
    let mut predicate = Predicate::default();
    predicate.has_value(expression, true);
    predicate.at_least(expression, "5");
    Some(predicate.select(expression, from, &format!("ORDER BY toString({expression}) LIMIT 5")).text)
}

/// The parser's spelling of one statement.
fn parsed(sql: &str) -> Option<String> {
    let statements = Parser::parse_sql(&ClickHouseDialect {}, sql).ok()?;
    assert_eq!(statements.len(), 1, "not one statement: {sql}");
    statements.first().map(ToString::to_string)
}
