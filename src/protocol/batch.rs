//! Record lines of one stream that are handed to the writer together.

use std::sync::Arc;

use super::catalog::StreamDescriptor;
use super::lines::Lines;
use super::output::Output;
use crate::error::Error;

/// Batches are handed over once they are about this large: each costs two threads a wake-up.
const SIZE: usize = 512 * 1024;

/// Collects record lines and hands them over in good portions.
pub struct Batch<'o> {
    output: &'o Output,
    stream: &'o Arc<StreamDescriptor>,
    /// Complete RECORD lines.
    pub lines: Lines,
    pub records: u64,
}

impl<'o> Batch<'o> {
    pub fn new(output: &'o Output, stream: &'o Arc<StreamDescriptor>) -> Self {
        Self { output, stream, lines: output.buffer(), records: 0 }
    }

    /// Hands over what there is if it is much, or if there will be no more. Returns the number of
    /// records that were handed over.
    ///
    /// # Errors
    /// When stdout has been closed by its reader.
    pub async fn send(&mut self, ended: bool) -> Result<u64, Error> {
        if self.records == 0 || !(ended || self.lines.len() >= SIZE) {
            return Ok(0);
        }
        let lines = std::mem::replace(&mut self.lines, self.output.buffer());
        let records = std::mem::take(&mut self.records);
        self.output.records(self.stream, lines, records).await?;
        Ok(records)
    }
}
