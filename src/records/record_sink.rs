//! Turns the rows of a response into RECORD lines, and counts them.

use super::query_row::{RowWriter, Written};
use crate::posthog::{Consumed, Malformed, Row, RowConsumer, row_size};
use crate::protocol::Lines;

/// What has been taken from a response.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RowCounts {
    /// Rows, duplicates included.
    pub rows: u64,
    /// Records that they have become.
    pub records: u64,
}

/// Consumes rows: writes their records behind the lines that there are.
pub struct RecordSink<'s> {
    writer: &'s mut RowWriter,
    lines: &'s mut Lines,
    written: RowCounts,
}

impl<'s> RecordSink<'s> {
    /// A sink that writes with `writer` to `lines`.
    pub fn new(writer: &'s mut RowWriter, lines: &'s mut Lines) -> Self {
        Self { writer, lines, written: RowCounts::default() }
    }

    /// What has been taken so far.
    pub fn written(&self) -> RowCounts {
        self.written
    }
}

impl RowConsumer for RecordSink<'_> {
    fn consume(&mut self, row: &Row<'_>) -> Result<(), Malformed> {
        self.lines.make_room(row_size(row));
        let written = self.lines.append(|lines| self.writer.write(row, lines))?;
        self.written.rows += 1;
        self.written.records += u64::from(written == Written::Record);
        Ok(())
    }

    fn consume_bytes(&mut self, bytes: &[u8], first: bool) -> Consumed {
        let (consumed, records) = self.writer.write_bytes(bytes, first, self.lines);
        self.written.rows += consumed.rows;
        self.written.records += records;
        consumed
    }
}
