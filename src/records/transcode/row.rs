//! Rows of query answers.

use std::ops::Range;

use fearless_simd::Simd;

use super::document;
use super::scan::{Stop, after_spaces, byte, is_ascii_text, is_text, scalar, string};
use super::sink::Sink;
use crate::protocol::has_separators;
use crate::records::frame::{Field, RecordFrame};
use crate::records::property_filter::FilterScratch;
use crate::records::value;
use crate::streams::Kind;

/// What the hot path keeps from row to row, so that nothing is allocated.
#[derive(Default)]
pub(in crate::records) struct Scratch {
    /// Closing brackets of what is open.
    open: Vec<u8>,
    /// Where the columns of the row stand.
    columns: Vec<Range<usize>>,
    /// Where those of the row before stand.
    columns_before: Vec<Range<usize>>,
    /// Properties of which some have been dropped or hashed.
    filtered: FilterScratch,
}

impl Scratch {
    /// The JSON text of a column of the row that was written last, whose bytes these are.
    pub(in crate::records) fn column<'b>(&self, index: usize, bytes: &'b [u8]) -> &'b [u8] {
        text_of(&self.columns, index, bytes)
    }

    /// Makes the row that was written last the one before.
    pub(in crate::records) fn next_row(&mut self) {
        std::mem::swap(&mut self.columns, &mut self.columns_before);
        self.columns.clear();
    }

    /// The same of the row before, if it has been written from the same bytes.
    pub(in crate::records) fn column_before<'b>(&self, index: usize, bytes: &'b [u8]) -> &'b [u8] {
        text_of(&self.columns_before, index, bytes)
    }
}

fn text_of<'b>(columns: &[Range<usize>], index: usize, bytes: &'b [u8]) -> &'b [u8] {
    columns.get(index).and_then(|column| bytes.get(column.clone())).unwrap_or_default()
}

/// The place of the bracket that opens the next row; `at` is behind the row before it.
pub(in crate::records) fn row_begin(bytes: &[u8], at: usize, first: bool) -> Result<usize, Stop> {
    let at = after_spaces(bytes, at);
    match (first, byte(bytes, at)?) {
        (true, _) => Ok(at),
        (false, b',') => Ok(after_spaces(bytes, at + 1)),
        _ => Err(Stop::Unsupported),
    }
}

/// Writes the record of the row whose bracket opens at `at`, and returns the place behind the row.
#[inline(always)]
pub(in crate::records) fn write_row<S: Simd>(
    simd: S,
    frame: &RecordFrame,
    bytes: &[u8],
    at: usize,
    sink: &mut Sink<'_>,
    scratch: &mut Scratch,
) -> Result<usize, Stop> {
    if byte(bytes, at)? != b'[' {
        return Err(Stop::Unsupported);
    }
    sink.put_fixed(&frame.prefix)?;
    let begin = at;
    let mut at = after_spaces(bytes, at + 1);
    if frame.has_id_alias {
        // The id is the first column; see `RowWriter::write_bytes`.
        let end = value_end(simd, bytes, at)?;
        sink.put(bytes.get(at..end).unwrap_or_default())?;
    }
    sink.put_fixed(&frame.project)?;
    for (index, field) in frame.fields.iter().enumerate() {
        if index > 0 {
            if byte(bytes, at)? != b',' {
                return Err(Stop::Unsupported);
            }
            at = after_spaces(bytes, at + 1);
        }
        let end = if field.is_plain {
            sink.put_fixed(&field.key)?;
            column(simd, field.kind, bytes, at, sink, &mut scratch.open)?
        } else {
            special_column(simd, field, bytes, at, sink, scratch)?
        };
        scratch.columns.push(at..end);
        at = after_spaces(bytes, end);
    }
    if byte(bytes, at)? != b']' {
        return Err(Stop::Unsupported);
    }
    at += 1;
    let row = bytes.get(begin..at).unwrap_or_default();
    if !is_ascii_text(row) {
        if !is_text(row) {
            return Err(Stop::Unsupported);
        }
        if has_separators(row) {
            sink.mark_unclean();
        }
    }
    sink.put(&frame.absent)?;
    sink.push(b'}')?;
    sink.put_fixed(&frame.suffix)?;
    Ok(at)
}

/// Writes one value as far as it is part of the record, and returns its end.
fn special_column<S: Simd>(
    simd: S,
    field: &Field,
    bytes: &[u8],
    at: usize,
    sink: &mut Sink<'_>,
    scratch: &mut Scratch,
) -> Result<usize, Stop> {
    simd.vectorize(
        #[inline(always)]
        || {
            if !field.is_emitted {
                return value_end(simd, bytes, at);
            }
            sink.put_fixed(&field.key)?;
            let written = sink.len();
            let end = column(simd, field.kind, bytes, at, sink, &mut scratch.open)?;
            if let Some(filter) = &field.filter {
                filter.apply(sink.behind(written), &mut scratch.filtered);
                sink.truncate(written);
                sink.put(&scratch.filtered.text)?;
                if !scratch.filtered.text.is_ascii() {
                    sink.mark_unclean();
                }
            }
            Ok(end)
        },
    )
}

/// Writes one value and returns its end.
#[inline(always)]
fn column<S: Simd>(
    simd: S,
    kind: Kind,
    bytes: &[u8],
    at: usize,
    sink: &mut Sink<'_>,
    open: &mut Vec<u8>,
) -> Result<usize, Stop> {
    let first = byte(bytes, at)?;
    if first == b'"' {
        let is_empty = byte(bytes, at + 1)? == b'"';
        match kind {
            Kind::Json if is_empty => {
                sink.put(b"null")?;
                return Ok(at + 2);
            }
            // Only an object fits the schema; the plain path knows what becomes of anything else.
            Kind::Json if byte(bytes, at + 1)? == b'{' => return document::embed(simd, bytes, at + 1, sink, open),
            Kind::String | Kind::OptionalString | Kind::Text if !is_empty => return text(simd, bytes, at, sink),
            Kind::String | Kind::OptionalString | Kind::Text | Kind::Timestamp => {}
            _ => return Err(Stop::Unsupported),
        }
    }
    let end = value_end(simd, bytes, at)?;
    let text = bytes.get(at..end).unwrap_or_default();
    match kind {
        _ if text == b"null" => sink.put(text)?,
        Kind::OptionalString if text == b"\"\"" => sink.put(b"null")?,
        Kind::String | Kind::Text if first == b'"' => sink.put(text)?,
        Kind::Boolean if matches!(text, b"0" | b"false") => sink.put(b"false")?,
        Kind::Boolean if matches!(text, b"1" | b"true") => sink.put(b"true")?,
        Kind::Timestamp if first == b'"' => sink.put(&value::utc(text).ok_or(Stop::Unsupported)?)?,
        Kind::Integer if text.iter().all(u8::is_ascii_digit) => sink.put(text)?,
        Kind::Number if first.is_ascii_digit() || first == b'-' => sink.put(text)?,
        _ => return Err(Stop::Unsupported),
    }
    Ok(end)
}

/// Writes a string and returns its end.
#[inline(always)]
fn text<S: Simd>(simd: S, bytes: &[u8], at: usize, sink: &mut Sink<'_>) -> Result<usize, Stop> {
    let written = sink.len();
    sink.push(b'"')?;
    let (end, special) = sink.copy_plain(simd, bytes, at + 1)?;
    if special == b'"' {
        sink.push(b'"')?;
        return Ok(end + 1);
    }
    sink.truncate(written);
    let end = string(simd, bytes, at + 1)?;
    sink.put(bytes.get(at..end).unwrap_or_default())?;
    Ok(end)
}

#[inline(always)]
fn value_end<S: Simd>(simd: S, bytes: &[u8], at: usize) -> Result<usize, Stop> {
    match byte(bytes, at)? {
        b'"' => string(simd, bytes, at + 1),
        _ => scalar(bytes, at),
    }
}
