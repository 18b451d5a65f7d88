//! Downloads the files of a run and emits their records.

use std::collections::BTreeMap;

use reqwest::header::HeaderValue;

use super::{ExportReader, ExportWindow};
use crate::error::Error;
use crate::posthog::Malformed;
use crate::posthog::exports::FileUrl;
use crate::posthog::http::{Failure, NextAttempt, Refusal};
use crate::posthog::line_reader::{Emitted, LineReader};
use crate::protocol::Batch;
use crate::records::ExportWriter;
use crate::sync::state::export::{HOUR, add, hour_of};
use crate::time::days;

/// What has been read of a file so far, over all attempts.
#[derive(Default)]
struct FileProgress {
    lines: LineReader,
    /// Tells this version of the file from others.
    tag: Option<HeaderValue>,
    emitted: Emitted,
    /// Rows that came for the first time.
    rows: u64,
    /// Records emitted, by hour of their arrival.
    received: BTreeMap<i64, u64>,
    /// Those among them that are about quite another time.
    far: BTreeMap<i64, u64>,
}

impl FileProgress {
    /// The file is read from its beginning again.
    fn restart(&mut self) {
        self.lines = LineReader::default();
        self.emitted.restart();
    }
}

/// How an attempt has ended.
enum Attempt {
    Done,
    /// The run's files are gone.
    Gone,
    /// It broke off; the reader knows where, or begins anew.
    Broken(Failure),
}

impl ExportReader {
    /// Reads the files of a run that have not been read yet. Returns the number of their rows, none
    /// when the files have expired.
    ///
    /// # Errors
    /// When a file cannot be downloaded whole.
    pub(crate) async fn read_files(&self, window: &ExportWindow, files: &[String]) -> Result<Option<u64>, Error> {
        let mut rows = 0;
        for file in files.iter().filter(|file| !window.files.contains(file)) {
            let Some(progress) = self.read_file(&window.run, file).await? else { return Ok(None) };
            rows += progress.rows;
            self.reader
                .checkpoint
                .update(self.reader.context.project, |state| {
                    if let Some(window) = state.export.windows.first_mut() {
                        window.files.push(file.clone());
                        add(&mut window.received, progress.received);
                        add(&mut window.far, progress.far);
                    }
                })
                .await?;
        }
        Ok(Some(rows))
    }

    /// Reads one file, however often that takes; none when it has expired.
    async fn read_file(&self, run: &str, file: &str) -> Result<Option<FileProgress>, Error> {
        let reader = &self.reader;
        let mut writer = ExportWriter::new(reader.table, &reader.context.stream, reader.context.project)
            .with_property_columns(&reader.property_columns);
        let mut progress = FileProgress::default();
        let mut retry = reader.context.client.retry();
        loop {
            let rows = progress.rows;
            writer.stamp();
            let attempt = self.attempt(run, file, &mut writer, &mut progress).await?;
            let failure = match attempt {
                Attempt::Done => return Ok(Some(progress)),
                Attempt::Gone => return Ok(None),
                Attempt::Broken(failure) => failure,
            };
            if progress.rows > rows {
                retry.progress();
            }
            match retry.after(failure, reader.context.client.limiter()).await? {
                NextAttempt::Same | NextAttempt::Smaller => {}
            }
        }
    }

    /// Downloads a file, or the rest of it. The outer error is final.
    async fn attempt(
        &self,
        run: &str,
        file: &str,
        writer: &mut ExportWriter,
        progress: &mut FileProgress,
    ) -> Result<Attempt, Error> {
        let reader = &self.reader;
        let exports = self.exports();
        // A signed address lasts for minutes only, so each attempt asks for its own.
        let url = match exports.file(run, file).await {
            Ok(FileUrl::At(url)) => url,
            Ok(FileUrl::Gone(reason)) => {
                tracing::debug!("file {file} of run {run}: {reason}");
                return Ok(Attempt::Gone);
            }
            Err(failure) => return Ok(Attempt::Broken(failure)),
        };
        let mut response = match self.files.get(&url, progress.lines.taken(), progress.tag.as_ref()).await {
            Ok(response) => response,
            Err(Failure::Refused(Refusal { status: 404 | 410, .. })) => return Ok(Attempt::Gone),
            Err(Failure::Refused(refusal)) => {
                if refusal.status == 416 {
                    progress.restart();
                }
                return Ok(Attempt::Broken(Failure::transient(refusal.summary)));
            }
            Err(failure) => return Ok(Attempt::Broken(failure)),
        };
        if response.from != progress.lines.taken() {
            progress.restart();
        }
        progress.tag = response.tag();
        // Apart from the rest, so that its lines can be taken while they are read.
        let mut lines = std::mem::take(&mut progress.lines);
        let mut batch = reader.context.batch();
        loop {
            let chunk = match response.chunk().await {
                Ok(chunk) => chunk,
                Err(failure) => {
                    batch.send(true).await?;
                    progress.lines = lines;
                    return Ok(Attempt::Broken(failure));
                }
            };
            let mut take = |line: &[u8]| self.take(line, writer, progress, &mut batch);
            let ended = chunk.is_none();
            let outcome = match chunk {
                Some(chunk) => lines.feed(chunk.as_ref(), &mut take),
                None => std::mem::take(&mut lines).finish(&mut take),
            };
            batch.send(ended || outcome.is_err()).await?;
            if let Err(Malformed(reason)) = outcome {
                progress.restart();
                return Ok(Attempt::Broken(Failure::transient(format!("file {file} of export run {run}: {reason}"))));
            }
            if ended {
                return Ok(Attempt::Done);
            }
        }
    }

    /// Emits the record of a line, unless that has been done or it is not wanted.
    fn take(
        &self,
        line: &[u8],
        writer: &mut ExportWriter,
        progress: &mut FileProgress,
        batch: &mut Batch<'_>,
    ) -> Result<(), Malformed> {
        let wanted = self.reader.wanted();
        let times = writer.parse(line)?;
        if !progress.emitted.is_new(line) {
            return Ok(());
        }
        progress.rows += 1;
        let inside = wanted.from <= times.sort_key && times.sort_key < wanted.to;
        if self.reader.table.bounded_by_dates && !inside {
            return Ok(());
        }
        writer.write(line, batch.lines.as_vec())?;
        batch.records += 1;
        // Without a count to compare with, nothing would ever clear these.
        if self.may_query && self.reader.table.ingestion_time.is_some() {
            let hour = hour_of(times.received);
            *progress.received.entry(hour).or_default() += 1;
            let early = times.received.minus(days(1));
            let late = times.received.plus_micros(24 * HOUR);
            if !(early..late).contains(&times.sort_key) {
                *progress.far.entry(hour).or_default() += 1;
            }
        }
        Ok(())
    }
}
