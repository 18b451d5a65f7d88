//! Cuts the rows out of a query answer while it arrives.
//!
//! # What it does
//! `POST /query/` answers with one JSON object whose `results` is an array of rows, each an array of
//! column values. An answer can be a hundred megabytes, so it is never held: bytes are fed as they
//! arrive and every row is handed over as soon as it is complete.
//!
//! # What it guarantees
//! Rows are handed over in the order of the answer, each once, and only when they are valid JSON.
//! [`RowReader::finish`] fails unless the whole document has been seen, so that a cut answer is
//! never taken for a short page. Keys may come in any order; values other than `results` are
//! skipped, except `error`.
//!
//! # Memory
//! One row and one chunk, whatever the size of the page. A row, or a value beside the rows, that is
//! longer than [`LONGEST`] is refused: an answer that never ends cannot fill the memory.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::at_most::AtMost;
use crate::large::{LARGE, give_back, make_room};

/// Parsing starts once this much has come; after a row that is still incomplete, once twice as much
/// has come, so that a huge row is not looked at over and over.
const WORTH_PARSING: usize = 64 * 1024;

/// A piece this long is read where it is. Of a shorter one, the row that it cuts would be too large a part.
const WORTH_READING_IN_PLACE: usize = if cfg!(test) { 16 } else { 32 * 1024 };
/// So much of a piece is copied behind the row that the piece before it has cut, to complete it.
const COMPLETES_A_ROW: usize = if cfg!(test) { 8 } else { 4 * 1024 };

/// Longest row of an answer or line of a file, in bytes. `PostHog` takes events of a megabyte at most; what it
/// adds to them and its escapes make them several times as long, not dozens of times.
pub const LONGEST: usize = 8 * 1024 * 1024;

/// More columns than this are no row.
const MOST_COLUMNS: usize = 10_000;

/// A row as its columns' JSON texts.
pub type Row<'a> = [&'a RawValue];

/// The bytes of its columns.
pub fn row_size(row: &Row<'_>) -> usize {
    row.iter().map(|column| column.get().len()).sum()
}

/// Who takes the rows of an answer.
pub trait RowConsumer {
    /// Takes a row.
    ///
    /// # Errors
    /// When the row is not what was asked for.
    fn consume(&mut self, row: &Row<'_>) -> Result<(), Malformed>;

    /// Takes rows from the answer's bytes, if it has a faster way than [`RowConsumer::consume`]. The bytes
    /// begin behind a row, or behind the bracket that opens the rows when `first`.
    fn consume_bytes(&mut self, bytes: &[u8], first: bool) -> Consumed {
        let _ = (bytes, first);
        Consumed::default()
    }
}

impl<F: FnMut(&Row<'_>) -> Result<(), Malformed>> RowConsumer for F {
    fn consume(&mut self, row: &Row<'_>) -> Result<(), Malformed> {
        self(row)
    }
}

/// What became of the bytes given to [`RowConsumer::consume_bytes`].
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Consumed {
    /// Whole rows that were taken.
    pub rows: u64,
    /// Their length in bytes, with the commas in front of them.
    pub bytes: usize,
    /// Whether the next row is incomplete. Otherwise the caller has to handle it.
    pub incomplete: bool,
}

/// The answer is not what it should be; its reason is for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed(pub String);

/// Reads one answer.
pub struct RowReader {
    buffer: Vec<u8>,
    place: Place,
    parse_at: usize,
    rows: u64,
    has_rows_array: bool,
    error: Option<String>,
}

/// Where in the document the unread bytes begin.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Start,
    KeyOrEnd { first: bool },
    Value { key: String },
    RowOrEnd { first: bool },
    End,
}

/// Why parsing stopped.
enum ParseError {
    /// The buffer ends inside a token.
    Incomplete,
    Malformed(Malformed),
}

impl Default for RowReader {
    fn default() -> Self {
        Self { buffer: Vec::new(), place: Place::Start, parse_at: 0, rows: 0, has_rows_array: false, error: None }
    }
}

impl RowReader {
    /// Takes the next bytes and hands complete rows to `consumer`.
    ///
    /// # Errors
    /// When the bytes cannot belong to an answer, a row is longer than [`LONGEST`], or `consumer` does not
    /// accept a row.
    pub fn feed(&mut self, bytes: &[u8], consumer: &mut dyn RowConsumer) -> Result<(), Malformed> {
        let in_place = bytes.len() >= WORTH_READING_IN_PLACE && self.buffer.len() < WORTH_PARSING;
        let rest = if in_place { self.read_in_place(bytes, consumer)? } else { bytes };
        make_room(&mut self.buffer, rest.len());
        self.buffer.extend_from_slice(rest);
        if self.buffer.len() >= self.parse_at {
            self.parse(consumer)?;
            if self.buffer.len() > LONGEST {
                let megabytes = LONGEST / (1024 * 1024);
                return Err(Malformed(format!("a row, or a value beside the rows, is longer than {megabytes} MiB")));
            }
            self.parse_at = (2 * self.buffer.len()).clamp(WORTH_PARSING, LONGEST + 1);
        }
        Ok(())
    }

    /// Bytes that it holds: the row that is not complete.
    pub fn held(&self) -> usize {
        self.buffer.len()
    }

    /// Reads bytes where they are, once the row that the buffer holds is complete. Returns those that are
    /// neither read nor in the buffer.
    fn read_in_place<'b>(&mut self, bytes: &'b [u8], consumer: &mut dyn RowConsumer) -> Result<&'b [u8], Malformed> {
        let held = self.buffer.len();
        let mut begin = 0;
        if held > 0 {
            let (beginning, rest) = bytes.split_at(COMPLETES_A_ROW);
            self.buffer.extend_from_slice(beginning);
            let Some(read) = self.parse(consumer)?.checked_sub(held) else { return Ok(rest) };
            self.buffer.clear();
            begin = read;
        }
        let bytes = bytes.get(begin..).unwrap_or_default();
        let read = self.parse_bytes(bytes, consumer)?;
        Ok(bytes.get(read..).unwrap_or_default())
    }

    /// Like [`RowReader::feed`], but looks at the bytes however few they are.
    #[cfg(test)]
    pub(crate) fn feed_at_once(&mut self, bytes: &[u8], consumer: &mut dyn RowConsumer) -> Result<(), Malformed> {
        self.parse_at = 0;
        self.feed(bytes, consumer)
    }

    /// Ends the answer and returns the number of its rows.
    ///
    /// # Errors
    /// When the document is incomplete, has no rows array, or carries an error.
    pub fn finish(mut self, consumer: &mut dyn RowConsumer) -> Result<u64, Malformed> {
        self.parse(consumer)?;
        if let Some(error) = self.error {
            return Err(Malformed(format!("the answer reports an error: {error}")));
        }
        match self.place {
            Place::End if !self.buffer.iter().all(u8::is_ascii_whitespace) => {
                Err(Malformed("the answer goes on after its end".into()))
            }
            // Such as `{"query_status": …}`, or a message of maintenance with the status 200.
            Place::End if !self.has_rows_array => Err(Malformed("the response has no `results`".into())),
            Place::End => Ok(self.rows),
            _ => Err(Malformed(format!("the answer ends early, after {} rows", self.rows))),
        }
    }

    /// Reads what the buffer holds, and keeps what is incomplete. Returns the length of what it has read.
    fn parse(&mut self, consumer: &mut dyn RowConsumer) -> Result<usize, Malformed> {
        let buffer = std::mem::take(&mut self.buffer);
        let read = self.parse_bytes(&buffer, consumer);
        self.buffer = buffer;
        self.buffer.drain(..read.clone().unwrap_or_default());
        give_back(&mut self.buffer);
        read
    }

    /// Reads as many tokens and rows as are complete, and returns their length.
    fn parse_bytes(&mut self, bytes: &[u8], consumer: &mut dyn RowConsumer) -> Result<usize, Malformed> {
        let mut cursor = Cursor { bytes, at: 0 };
        loop {
            let before = cursor.at;
            match self.step(&mut cursor, consumer) {
                Ok(true) => {}
                Ok(false) => return Ok(cursor.at),
                Err(ParseError::Incomplete) => return Ok(before),
                Err(ParseError::Malformed(malformed)) => return Err(malformed),
            }
        }
    }

    /// Reads a token or rows and moves on; false when there is nothing more to read for now. When it
    /// stops short, nothing has changed.
    fn step(&mut self, cursor: &mut Cursor<'_>, consumer: &mut dyn RowConsumer) -> Result<bool, ParseError> {
        match &self.place {
            Place::Start => {
                if cursor.rest().starts_with(b"\xef\xbb\xbf") {
                    cursor.at += 3;
                }
                cursor.expect(b'{')?;
                self.place = Place::KeyOrEnd { first: true };
            }
            Place::KeyOrEnd { first } => {
                if cursor.peek()? == b'}' {
                    cursor.at += 1;
                    self.place = Place::End;
                    return Ok(true);
                }
                if !first {
                    cursor.expect(b',')?;
                    cursor.peek()?;
                }
                let key = cursor.value::<String>()?;
                cursor.expect(b':')?;
                self.place = Place::Value { key };
            }
            Place::Value { key } if key == "results" && cursor.peek()? == b'[' => {
                cursor.at += 1;
                self.has_rows_array = true;
                self.place = Place::RowOrEnd { first: true };
            }
            Place::Value { key } => {
                cursor.peek()?;
                let value = cursor.value::<&RawValue>()?.get();
                // A number is complete only when something follows it.
                cursor.peek()?;
                match key.as_str() {
                    "results" => return Err(ParseError::Malformed(Malformed("`results` is not an array".into()))),
                    "error" if value != "null" => self.error = Some(value.chars().take(500).collect()),
                    _ => {}
                }
                self.place = Place::KeyOrEnd { first: false };
            }
            &Place::RowOrEnd { first } => {
                let rest = cursor.rest();
                // What a faster way writes before the row is complete would take its length once more.
                let taken = if rest.len() < LARGE { consumer.consume_bytes(rest, first) } else { Consumed::default() };
                if taken.rows > 0 {
                    cursor.at += taken.bytes;
                    self.rows += taken.rows;
                    self.place = Place::RowOrEnd { first: false };
                }
                if taken.rows > 0 || taken.incomplete {
                    return Ok(!taken.incomplete);
                }
                if cursor.peek()? == b']' {
                    cursor.at += 1;
                    self.place = Place::KeyOrEnd { first: false };
                    return Ok(true);
                }
                if !first {
                    cursor.expect(b',')?;
                    cursor.peek()?;
                }
                let row = cursor.value::<AtMost<MOST_COLUMNS, &RawValue>>()?;
                consumer.consume(&row).map_err(ParseError::Malformed)?;
                self.rows += 1;
                self.place = Place::RowOrEnd { first: false };
            }
            Place::End => return Ok(false),
        }
        Ok(true)
    }
}

struct Cursor<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Cursor<'b> {
    fn rest(&self) -> &'b [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// The next byte that is not white space, which stays unread.
    fn peek(&mut self) -> Result<u8, ParseError> {
        let rest = self.rest();
        let skip = rest.iter().position(|byte| !byte.is_ascii_whitespace()).ok_or(ParseError::Incomplete)?;
        self.at += skip;
        rest.get(skip).copied().ok_or(ParseError::Incomplete)
    }

    fn expect(&mut self, byte: u8) -> Result<(), ParseError> {
        let found = self.peek()?;
        if found != byte {
            let (wanted, found) = (char::from(byte), char::from(found));
            return Err(ParseError::Malformed(Malformed(format!("`{wanted}` expected, `{found}` found"))));
        }
        self.at += 1;
        Ok(())
    }

    fn value<T: Deserialize<'b>>(&mut self) -> Result<T, ParseError> {
        let rest = self.rest();
        let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<T>();
        let value = match values.next() {
            None => return Err(ParseError::Incomplete),
            // serde_json calls a number that is cut after `-` or `1.` invalid, not cut.
            Some(Err(error)) if error.is_eof() || rest.last().copied().is_some_and(may_stand_in_a_number) => {
                return Err(ParseError::Incomplete);
            }
            Some(Err(error)) => return Err(ParseError::Malformed(Malformed(format!("not JSON: {error}")))),
            Some(Ok(value)) => value,
        };
        self.at += values.byte_offset();
        Ok(value)
    }
}

fn may_stand_in_a_number(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds `json` in pieces of `size` bytes and returns the rows as texts.
    fn read(json: &[u8], size: usize) -> Result<Vec<Vec<String>>, Malformed> {
        let mut rows = Vec::new();
        let mut consumer = |row: &Row<'_>| {
            rows.push(row.iter().map(|column| column.get().to_owned()).collect());
            Ok(())
        };
        let mut reader = RowReader::default();
        for piece in json.chunks(size) {
            reader.feed_at_once(piece, &mut consumer)?;
        }
        let count = reader.finish(&mut consumer)?;
        assert_eq!(count, rows.len() as u64);
        Ok(rows)
    }

    #[test]
    fn results_are_found_anywhere_in_the_response() {
        let expected = vec![vec!["1".to_owned(), "\"a\"".to_owned()], vec!["null".to_owned(), "[2]".to_owned()]];
        for json in [
            r#"{"results":[[1,"a"],[null,[2]]]}"#,
            r#" { "hogql" : "\"results\":[[9]]" , "limit": 100, "results" : [ [1, "a"] , [null,[2]] ] , "types":[["a","b"]], "error": null } "#,
            r#"{"columns":["results"],"timings":[{"results":[[3]]}],"results":[[1,"a"],[null,[2]]],"x":1.5}"#,
        ] {
            for size in 1..40 {
                assert_eq!(read(json.as_bytes(), size).unwrap(), expected, "{json} by {size}");
            }
        }
        assert_eq!(read(br#"{"results":[]}"#, 3).unwrap(), Vec::<Vec<String>>::new());
    }

    #[test]
    fn truncated_responses_are_detected_at_every_length() {
        let json = br#"{"columns":["a"],"results":[["x{}]"],["y"],["z"]],"limit":100}"#;
        for end in 0..json.len() {
            assert!(read(&json[..end], 7).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn bodies_that_are_no_query_response_are_rejected() {
        for json in [
            "<html></html>",
            "[]",
            r#"{"results":{}}"#,
            r#"{"results":[1]}"#,
            r#"{"results":[[1],,[2]]}"#,
            r#"{"results":[[1],]}"#,
            r#"{"results":[[1]]} trailing"#,
            r#"{"results":[[1]],,}"#,
            r#"{"results":[],"error":"it broke"}"#,
            "{\"results\":[[\"\u{1}\"]]}",
        ] {
            assert!(read(json.as_bytes(), 5).is_err(), "{json}");
        }
        assert!(read(b"{\"results\":[[\"\xff\"]]}", 5).is_err());
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(3, 12, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::hash_map(any::<String>(), inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn rows_do_not_depend_on_chunk_borders(
            rows in prop::collection::vec(prop::collection::vec(json(), 0..4), 0..8),
            before in json(), size in 1usize..30,
        ) {
            let json = serde_json::json!({"a": before, "results": rows, "z": 1}).to_string();
            let expected: Vec<Vec<String>> =
                rows.iter().map(|row| row.iter().map(ToString::to_string).collect()).collect();
            prop_assert_eq!(read(json.as_bytes(), size).unwrap(), expected);
        }
    }
}
