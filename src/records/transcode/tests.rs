//! The hot path against the plain path.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use fearless_simd::Level;
use proptest::prelude::*;
use serde_json::Value;

use super::scan::levels;
use crate::config::Config;
use crate::posthog::row_reader::RowReader;
use crate::posthog::{Consumed, Malformed, Row, RowConsumer, RowKey};
use crate::protocol::Lines;
use crate::protocol::StreamDescriptor;
use crate::protocol::{has_separators, write_escaped};
use crate::records::Fingerprint;
use crate::records::{RowWriter, Written};
use crate::streams::{EVENTS, Selection};
use crate::time::Timestamp;

/// Reads with the hot path at some level of the processor, or without it.
struct Reading {
    writer: RowWriter,
    lines: Lines,
    records: u64,
    duplicates: u64,
    /// Rows that the hot path took.
    hot: u64,
    level: Option<Level>,
}

impl Reading {
    fn new(level: Option<Level>, selection: &Selection) -> Self {
        let stream = StreamDescriptor { name: EVENTS.stream.into(), namespace: None };
        let columns = EVENTS.selected(true, selection);
        let from = Timestamp::parse("2026-01-01T00:00:30Z").unwrap();
        let writer = RowWriter::new(&EVENTS, &columns, selection, &stream, 7);
        let mut writer = writer.counting_recent_rows(from).counting_days().remembering();
        if let Some(level) = level {
            writer = writer.at_level(level);
        }
        let mut lines = Lines::default();
        lines.append(|lines| lines.extend_from_slice(b"before\n"));
        Self { writer, lines, records: 0, duplicates: 0, hot: 0, level }
    }

    /// Feeds the answer in pieces of `size` bytes and parses after each.
    fn read(mut self, response: &[u8], size: usize) -> (Result<Outcome, Malformed>, u64) {
        let mut reader = RowReader::default();
        let outcome = response
            .chunks(size)
            .try_for_each(|piece| reader.feed_at_once(piece, &mut self))
            .and_then(|()| reader.finish(&mut self))
            .map(|rows| Outcome {
                rows,
                records: self.records,
                duplicates: self.duplicates,
                settling: self.writer.settling(),
                figures: self.writer.take_figures(),
                numbers: self.writer.take_numbers(),
                last: self.writer.last_key(),
                lines: without_time(self.lines.as_bytes()),
            });
        let is_clean = !has_separators(self.lines.as_bytes());
        assert!(is_clean || !self.lines.is_clean(), "the writer would not look for the separators");
        (outcome, self.hot)
    }
}

impl RowConsumer for Reading {
    fn consume(&mut self, row: &Row<'_>) -> Result<(), Malformed> {
        match self.lines.append(|lines| self.writer.write(row, lines))? {
            Written::Record => self.records += 1,
            Written::Copy | Written::Known => self.duplicates += 1,
        }
        Ok(())
    }

    fn consume_bytes(&mut self, bytes: &[u8], first: bool) -> Consumed {
        if self.level.is_none() {
            return Consumed::default();
        }
        let (taken, records) = self.writer.write_bytes(bytes, first, &mut self.lines);
        self.records += records;
        self.duplicates += taken.rows - records;
        self.hot += taken.rows;
        taken
    }
}

#[derive(Debug, PartialEq)]
struct Outcome {
    rows: u64,
    records: u64,
    duplicates: u64,
    settling: Option<u64>,
    figures: Vec<(i64, Fingerprint)>,
    numbers: BTreeSet<u64>,
    last: Result<Option<RowKey>, Malformed>,
    lines: Vec<String>,
}

/// What the plain path makes of an answer that arrives in pieces of `size` bytes.
fn copy_plain(response: &[u8], size: usize) -> Result<Outcome, Malformed> {
    plain_with(&Selection::all(), response, size)
}

fn plain_with(selection: &Selection, response: &[u8], size: usize) -> Result<Outcome, Malformed> {
    Reading::new(None, selection).read(response, size).0
}

/// The hot path's result, which must be the same at every SIMD level; and the number of rows that it took.
fn hot(response: &[u8], size: usize) -> (Result<Outcome, Malformed>, u64) {
    hot_with(&Selection::all(), response, size)
}

fn hot_with(selection: &Selection, response: &[u8], size: usize) -> (Result<Outcome, Malformed>, u64) {
    let mut readings = levels().into_iter().map(|level| Reading::new(Some(level), selection).read(response, size));
    let (outcome, taken) = readings.next().unwrap();
    for (other, other_taken) in readings {
        assert_eq!((outcome.as_ref().ok(), taken), (other.as_ref().ok(), other_taken));
    }
    (outcome, taken)
}

/// The lines as they leave the program, but without the time of emission, which differs from writer to
/// writer.
fn without_time(lines: &[u8]) -> Vec<String> {
    let mut text = String::new();
    write_escaped(lines, |piece| std::str::from_utf8(piece).map(|piece| text.push_str(piece))).unwrap();
    assert!(!text.contains(['\u{85}', '\u{2028}', '\u{2029}']), "{text}");
    text.lines().map(|line| line.rsplit_once(",\"emitted_at\":").map_or(line, |(data, _)| data).to_owned()).collect()
}

/// JSON in one of the spellings that servers use.
#[derive(Debug, Clone, Copy)]
enum Spelling {
    Compact,
    Spaced,
    Ascii,
    Indented,
    Slashes,
}

fn spell(value: &Value, spelling: Spelling) -> String {
    let compact = value.to_string();
    match spelling {
        Spelling::Compact => compact,
        // Python's separators.
        Spelling::Spaced => {
            let mut text = String::new();
            let mut in_string = false;
            let mut escaped = false;
            for character in compact.chars() {
                text.push(character);
                if !in_string && matches!(character, ',' | ':') {
                    text.push(' ');
                }
                in_string ^= character == '"' && !escaped;
                escaped = character == '\\' && !escaped;
            }
            text
        }
        Spelling::Ascii => {
            let mut text = String::new();
            for character in compact.chars() {
                if character.is_ascii() {
                    text.push(character);
                } else {
                    let mut units = [0; 2];
                    for unit in character.encode_utf16(&mut units) {
                        write!(text, "\\u{unit:04x}").unwrap();
                    }
                }
            }
            text
        }
        Spelling::Indented => serde_json::to_string_pretty(value).unwrap(),
        Spelling::Slashes => compact.replace('/', "\\/"),
    }
}

fn spelling() -> impl Strategy<Value = Spelling> {
    prop_oneof![
        4 => Just(Spelling::Compact),
        2 => Just(Spelling::Spaced),
        2 => Just(Spelling::Ascii),
        1 => Just(Spelling::Indented),
        1 => Just(Spelling::Slashes),
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9 $_]{0,20}",
        r#"[a-z"\\/\n\t\x00-\x1f\x7f\u{84}-\u{86}é\u{2026}-\u{202a}🦔]{0,20}"#,
        any::<String>(),
        Just(r#"["a",{"b":"\"c\\"}]"#.to_owned()),
    ]
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::hash_map(text(), inner, 0..5).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// What `properties` may hold: JSON, nearly JSON, or something else.
fn document() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => (json(), spelling()).prop_map(|(value, spelling)| spell(&value, spelling)),
        1 => text(),
        1 => Just(String::new()),
        1 => Just(r#"{"a":NaN,"b":[-Infinity]}"#.to_owned()),
        // A control character that is not escaped, in a string or between tokens.
        1 => (json(), any::<prop::sample::Index>(), 0u8..32).prop_map(|(value, place, control)| {
            let mut text: Vec<char> = value.to_string().chars().collect();
            text.insert(place.index(text.len() + 1), control.into());
            text.into_iter().collect()
        }),
        1 => Just("{\"note\":\"two\nlines\",\"plan\":\"pro\"}".to_owned()),
        1 => (json(), any::<prop::sample::Index>(), any::<char>()).prop_map(|(value, place, other)| {
            let mut text: Vec<char> = value.to_string().chars().collect();
            let place = place.index(text.len());
            text[place] = other;
            text.into_iter().collect()
        }),
        1 => (json(), any::<prop::sample::Index>()).prop_map(|(value, place)| {
            let text = value.to_string();
            text.chars().take(place.index(text.len() + 1)).collect()
        }),
    ]
}

fn instant() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => (0u32..60, 0u32..1_000_000).prop_map(|(second, micros)| format!("2026-01-01T00:00:{second:02}.{micros:06}Z")),
        1 => (0u32..60).prop_map(|second| format!("2026-01-01T00:00:{second:02}+00:00")),
        1 => (0u32..60).prop_map(|second| format!("2026-01-01T02:00:{second:02}.5+02:00")),
    ]
}

#[derive(Debug, Clone)]
struct RandomRow {
    /// Few different ones, so that copies follow each other.
    id: u8,
    times: (String, String),
    documents: (String, String),
    texts: Vec<String>,
    /// A value of the wrong kind in some column.
    odd: Option<(prop::sample::Index, Value)>,
}

fn random_row() -> impl Strategy<Value = RandomRow> {
    let odd = prop_oneof![9 => Just(None), 1 => (any::<prop::sample::Index>(), json()).prop_map(Some)];
    let texts = prop::collection::vec(text(), 16);
    (0u8..3, (instant(), instant()), (document(), document()), texts, odd)
        .prop_map(|(id, times, documents, texts, odd)| RandomRow { id, times, documents, texts, odd })
}

impl RandomRow {
    fn values(&self, selection: &Selection) -> Vec<Value> {
        let mut texts = self.texts.iter();
        let mut values: Vec<Value> = EVENTS
            .selected(true, &Selection::all())
            .iter()
            .map(|column| match column.field {
                "uuid" => format!("0190-{}", self.id).into(),
                "timestamp" => self.times.0.as_str().into(),
                "created_at" => self.times.1.as_str().into(),
                "properties" => self.documents.0.as_str().into(),
                "person_properties" => self.documents.1.as_str().into(),
                _ => texts.next().map_or(Value::Null, |text| text.as_str().into()),
            })
            .collect();
        let is_read = EVENTS
            .selected(true, &Selection::all())
            .into_iter()
            .map(|column| EVENTS.selected(true, selection).iter().any(|read| read.field == column.field));
        let mut is_read = is_read.collect::<Vec<_>>().into_iter();
        values.retain(|_| is_read.next() == Some(true));
        if let Some((place, odd)) = &self.odd {
            let place = place.index(values.len() + 2);
            match values.get_mut(place) {
                Some(value) => *value = odd.clone(),
                None => values.truncate(values.len() - 1),
            }
        }
        values
    }
}

fn response(rows: &[RandomRow], spelling: Spelling) -> String {
    response_with(&Selection::all(), rows, spelling)
}

fn response_with(selection: &Selection, rows: &[RandomRow], spelling: Spelling) -> String {
    let rows: Vec<Vec<Value>> = rows.iter().map(|row| row.values(selection)).collect();
    spell(&serde_json::json!({"cache_key": "[[\"a\"", "results": rows, "types": [["a", "b"]]}), spelling)
}

/// Rows in the order in which a server has them, or else in any.
fn random_rows() -> impl Strategy<Value = Vec<RandomRow>> {
    let rows = prop::collection::vec(random_row(), 0..6);
    (rows, prop::bool::weighted(0.9)).prop_map(|(mut rows, in_order)| {
        if in_order {
            rows.sort_by_key(|row| (Timestamp::parse(&row.times.0), row.id));
        }
        rows
    })
}

/// Some fields of the stream, at least one.
fn selection() -> impl Strategy<Value = Selection> {
    let fields: Vec<String> = EVENTS.schema()["properties"].as_object().unwrap().keys().cloned().collect();
    let count = fields.len();
    prop::sample::subsequence(fields, 1..=count).prop_map(|fields| {
        let properties: serde_json::Map<String, Value> = fields.into_iter().map(|field| (field, Value::Null)).collect();
        Selection::of_schema(&serde_json::json!({"properties": properties}))
    })
}

/// Some fields, and rules for the names that documents have.
fn selection_with_rules() -> impl Strategy<Value = Selection> {
    let names = || prop::sample::subsequence(vec!["a*", "b", "c", "$session_id", "$window_id", "", "\"*"], 0..3);
    (selection(), names(), names()).prop_map(|(selection, drop, hash)| {
        let lists = serde_json::json!({"drop": drop, "hash": hash});
        let config = serde_json::json!({
            "api_key": "phx_1", "start_date": "2026-01-01", "hash_key": "0123456789abcdef", "event_properties": lists,
        });
        match Config::parse(config.to_string().as_bytes(), None) {
            Ok(config) => selection.with_rules(&config.event_properties, &config.person_properties),
            Err(_) => selection,
        }
    })
}

/// The fields of a record that are wanted, in their order.
fn wanted(line: &str, selection: &Selection) -> Vec<(String, Value)> {
    let record: Value = serde_json::from_str(&format!("{line}}}}}")).unwrap();
    let data = record["record"]["data"].as_object().unwrap().clone();
    data.into_iter().filter(|(field, _)| selection.has(field)).collect()
}

proptest! {
    #[test]
    fn both_paths_write_the_selected_fields_and_no_others(
        rows in random_rows(), spelling in spelling(), selection in selection(), size in 1usize..=30,
    ) {
        let response = response_with(&selection, &rows, spelling);
        let plain = plain_with(&selection, response.as_bytes(), size);
        let (hot, _) = hot_with(&selection, response.as_bytes(), size);
        prop_assert_eq!(plain.is_ok(), hot.is_ok());
        let (Ok(plain), Ok(hot)) = (plain, hot) else { return Ok(()) };
        prop_assert_eq!(&plain, &hot);
        if rows.iter().all(|row| row.odd.is_none()) {
            let all = copy_plain(self::response(&rows, spelling).as_bytes(), size).unwrap();
            prop_assert_eq!((all.records, all.figures, all.last), (hot.records, hot.figures, hot.last));
            for (whole, selected) in all.lines.iter().zip(&hot.lines).filter(|(whole, _)| *whole != "before") {
                prop_assert_eq!(wanted(whole, &selection), wanted(selected, &Selection::all()));
            }
        }
    }

    #[test]
    fn both_paths_apply_the_same_rules(
        rows in random_rows(), spelling in spelling(), selection in selection_with_rules(), size in 1usize..=30,
    ) {
        let response = response_with(&selection, &rows, spelling);
        let plain = plain_with(&selection, response.as_bytes(), size);
        let (hot, _) = hot_with(&selection, response.as_bytes(), size);
        prop_assert_eq!(plain.is_ok(), hot.is_ok());
        if let (Ok(plain), Ok(hot)) = (plain, hot) {
            prop_assert_eq!(plain, hot);
        }
    }

    #[test]
    fn both_paths_write_the_same_records(
        rows in random_rows(), spelling in spelling(), size in 1usize..=30,
    ) {
        let response = response(&rows, spelling);
        let copy_plain = copy_plain(response.as_bytes(), size);
        let (hot, _) = hot(response.as_bytes(), size);
        prop_assert_eq!(copy_plain.is_ok(), hot.is_ok());
        if let (Ok(copy_plain), Ok(hot)) = (copy_plain, hot) {
            prop_assert_eq!(copy_plain, hot);
        }
    }

    #[test]
    fn both_paths_reject_the_same_input(
        rows in prop::collection::vec(random_row(), 1..3), spelling in spelling(),
        place in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut response = response(&rows, spelling).into_bytes();
        let place = place.index(response.len());
        response[place] = byte;
        let copy_plain = copy_plain(&response, 1000);
        let (hot, _) = hot(&response, 1000);
        prop_assert_eq!(copy_plain.is_ok(), hot.is_ok());
        if let (Ok(copy_plain), Ok(hot)) = (copy_plain, hot) {
            prop_assert_eq!(copy_plain, hot);
        }
    }
}

/// A row as `PostHog` answers it, whose `properties` are this text.
fn usual(properties: &str, id: u8) -> RandomRow {
    RandomRow {
        id,
        times: ("2026-01-01T00:00:00.000001Z".to_owned(), "2026-01-01T00:00:59Z".to_owned()),
        documents: (properties.to_owned(), "{}".to_owned()),
        texts: vec!["a/b \"é\" \\".to_owned(); 16],
        odd: None,
    }
}

#[test]
fn usual_rows_take_the_fast_path() {
    let documents = [
        r#"{"$os":"Mac OS X","$lib_version":"1.2.3","$screen_width":1512,"$geoip_latitude":-1.5e-7,"$is":true,"no":null}"#,
        r#"{"nested":{"a":[1,{"b":[]},{}],"c":"\"quoted\" \\ \/ \b\f\n\r\t \u00e9 🦔"},"url":"https://a/?b=\u0026"}"#,
        "{}",
        "",
    ];
    for spelling in [Spelling::Compact, Spelling::Spaced, Spelling::Ascii] {
        for (id, document) in (0..).zip(documents) {
            let response = response(&[usual(document, id)], spelling);
            let (outcome, hot) = hot(response.as_bytes(), response.len());
            assert_eq!(hot, 1, "{spelling:?} {document}: {outcome:?}");
            assert_eq!(outcome, copy_plain(response.as_bytes(), 100));
        }
    }
    // Only an object fits the schema; the plain path knows what becomes of anything else.
    for document in ["[]", "\"text\"", "12", " {}"] {
        let response = response(&[usual(document, 1)], Spelling::Compact);
        let (outcome, hot) = hot(response.as_bytes(), response.len());
        assert_eq!(hot, 0, "{document}");
        assert_eq!(outcome, copy_plain(response.as_bytes(), 100), "{document}");
    }
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let response = response(&[usual(&deep, 1)], Spelling::Compact);
    assert_eq!(hot(response.as_bytes(), 4096).1, 1);
}

#[test]
fn rows_beside_unusual_ones_take_the_fast_path() {
    let rows = [usual("{}", 1), usual("{broken", 2), usual("{\n}", 3), usual("{}", 4)];
    let response = response(&rows, Spelling::Compact);
    let (outcome, hot) = hot(response.as_bytes(), response.len());
    assert_eq!((outcome.unwrap().records, hot), (4, 2));
}

/// Members as [`super::document`] reads them in one look, with `member` among them.
fn members(member: &str) -> String {
    let behind = "b".repeat(100);
    format!(r#"{{"a":1,{member},"text":"value","number":-1.5,"no":null,"long":"{behind}","end":"{behind}"}}"#)
}

#[test]
fn members_of_all_lengths_take_the_fast_path() {
    let scalars = ["null", "true", "false", "0", "-0", "7", "1512", "1790000000000", "-1.25e+10", "0.000001"];
    let mut documents = Vec::new();
    for key in (0..70).map(|length| "k".repeat(length)) {
        documents.extend(scalars.map(|scalar| members(&format!(r#""{key}":{scalar}"#))));
        let values = (0..70).map(|length| "v".repeat(length)).chain(["\\\"".to_owned(), "é".to_owned()]);
        documents.extend(values.map(|value| members(&format!(r#""{key}":"{value}""#))));
        documents.push(members(&format!(r#""{key}":{{}},"list":[{{"{key}":[]}}]"#)));
    }
    let rows: Vec<_> = documents.iter().map(|document| usual(document, 1)).collect();
    for rows in rows.chunks(100) {
        let mut answer_rows = rows.to_vec();
        for (id, row) in (100..).zip(&mut answer_rows) {
            row.id = id;
        }
        let response = response(&answer_rows, Spelling::Compact);
        let copy_plain = copy_plain(response.as_bytes(), response.len());
        let (hot, taken) = hot(response.as_bytes(), response.len());
        assert_eq!(taken, rows.len() as u64);
        let (hot, copy_plain) = (hot.unwrap(), copy_plain.unwrap());
        for (hot, copy_plain) in hot.lines.iter().zip(&copy_plain.lines) {
            assert_eq!(hot, copy_plain);
        }
        assert!(hot == copy_plain);
    }
}

#[test]
fn every_changed_byte_of_a_member_is_handled_as_on_the_slow_path() {
    let members =
        ["null", "true", "false", "15", "-1.5", r#""text""#].map(|value| members(&format!(r#""key":{value}"#)));
    for document in members {
        let response = response(&[usual(&document, 1)], Spelling::Compact).into_bytes();
        let begin = response.windows(4).position(|bytes| bytes == br#"{\"a"#).unwrap();
        for place in begin..begin + 80 {
            for byte in *b"\"\\,:{}[ 05ntf-.\x00\x1f\x7f\x80\xff" {
                let mut response = response.clone();
                response[place] = byte;
                let copy_plain = copy_plain(&response, response.len());
                let (hot, _) = hot(&response, response.len());
                assert_eq!(copy_plain.is_ok(), hot.is_ok(), "{}", String::from_utf8_lossy(&response));
                assert!(copy_plain.is_err() || copy_plain == hot, "{}", String::from_utf8_lossy(&response));
            }
        }
    }
}
