//! Downloads the files of a run and emits their records.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderValue;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::Instrument;

use super::reader::ExportReader;
use super::run::Running;
use super::shared::needs;
use crate::error::Error;
use crate::posthog::Malformed;
use crate::posthog::exports::{FileUrl, RunStatus};
use crate::posthog::http::{Failure, NextAttempt, Refusal};
use crate::posthog::line_reader::{Emitted, LineReader, Novelty};
use crate::posthog::turn::Turn;
use crate::protocol::Batch;
use crate::records::ExportWriter;
use crate::sync::context::ReadContext;
use crate::sync::ledger::CellFigures;
use crate::sync::query::reader::ProjectReader;
use crate::sync::report::{Counts, Proof};
use crate::sync::state::day_counts::DayCounts;
use crate::sync::state::export::{ExportWindow, add};

/// When no more files have been noted for so long, no more will be.
const LISTED_AFTER: Duration = Duration::from_secs(5);
/// Pause before files are listed again.
const LIST_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Files of a run that are downloaded and decoded at a time.
const FILES_AT_A_TIME: usize = 4;

/// What has been read of a file so far, over all attempts.
#[derive(Default)]
struct FileProgress {
    lines: LineReader,
    /// Identifies this version of the file.
    tag: Option<HeaderValue>,
    emitted: Emitted,
    /// Whether what has been emitted may have been wrong.
    is_restarted: bool,
    /// Lines of the file, in the attempt under way.
    lines_read: u64,
    /// The most that an attempt has read of them.
    furthest: u64,
    /// What has been emitted of the lines that are remembered,
    remembered: Tally,
    /// and of those behind them, which come again when the file is read from its beginning again.
    unremembered: Tally,
}

/// What has been emitted.
#[derive(Default)]
struct Tally {
    /// Rows that came for the first time.
    rows: u64,
    /// What has been emitted of each cell, if cells are read.
    cells: CellFigures,
    /// The same of each day, if days are counted afterwards.
    days: DayCounts,
}

impl FileProgress {
    /// The file is read from its beginning again.
    fn restart(&mut self) {
        self.furthest = self.furthest();
        self.lines = LineReader::default();
        self.lines_read = 0;
        self.is_restarted = true;
        self.emitted.restart();
        let Tally { rows, .. } = std::mem::take(&mut self.unremembered);
        if rows > 0 {
            tracing::info!("a long file is read again from its beginning; {rows} of its records come again");
        }
    }

    /// The most lines that an attempt has read.
    fn furthest(&self) -> u64 {
        self.furthest.max(self.lines_read)
    }
}

/// How an attempt has ended.
enum Attempt {
    Done,
    /// The run's files are gone.
    Gone,
    /// It broke off; the reader knows where, or starts from scratch.
    Broken(Failure),
}

/// How reading the files of a run has ended.
pub(super) enum FilesRead {
    /// All rows have been read; so many had not been read by an earlier sync.
    Complete(u64),
    /// The files have expired.
    Expired,
    /// The number of rows differs from what `PostHog` reports as exported.
    RowsDiffer {
        /// Rows of all files.
        read: u64,
        /// Rows that `PostHog` has exported.
        completed: u64,
    },
}

impl ExportReader {
    /// Reads the files of a run that have not been read yet. `rows` is the number of rows that
    /// `PostHog` reports for the run; while files have fewer, the list is asked for again, since files are noted one by one.
    ///
    /// # Errors
    /// When a file cannot be downloaded whole.
    pub(super) async fn read_files(
        &self,
        running: &Running,
        files: &[String],
        rows: Option<u64>,
    ) -> Result<FilesRead, Error> {
        let window = &running.window;
        let streams = self.streams_of(window).await;
        let (mut read, mut total) = (0, window.rows);
        let mut done: Vec<String> = window.files.clone();
        let mut files = files.to_vec();
        let mut last_new = Instant::now();
        let mut reading = JoinSet::new();
        loop {
            let mut next: VecDeque<String> = files.iter().filter(|file| !done.contains(file)).cloned().collect();
            loop {
                while reading.len() < FILES_AT_A_TIME
                    && let Some(file) = next.pop_front()
                {
                    let (reader, run, streams) = (self.clone(), window.run.clone(), streams.clone());
                    let read = async move { (reader.read_file(&run, &file, &streams).await, file) };
                    reading.spawn(read.in_current_span());
                }
                let Some(ended) = reading.join_next().await else { break };
                let (progress, file) = ended.map_err(|error| {
                    Error::system("a task of this connector has failed").with_details(error.to_string())
                })?;
                let Some(progress) = progress? else { return Ok(FilesRead::Expired) };
                let FileProgress { remembered, unremembered, lines_read, .. } = progress;
                read += remembered.rows + unremembered.rows;
                total += lines_read;
                done.push(file.clone());
                last_new = Instant::now();
                self.update(|state| {
                    if let Some(window) = state.export.windows.first_mut() {
                        window.files.push(file.clone());
                        window.rows += lines_read;
                        for tally in [&remembered, &unremembered] {
                            add(&mut window.emitted, tally.cells.clone());
                            window.days.add_all(&tally.days);
                        }
                    }
                })
                .await?;
            }
            let completed = match rows {
                None => {
                    self.report(&streams, Proof::FilesListed, Counts::default());
                    return Ok(FilesRead::Complete(read));
                }
                Some(completed) if completed == total => {
                    self.report(&streams, Proof::Exported, Counts::of(total, completed));
                    return Ok(FilesRead::Complete(read));
                }
                Some(completed) => completed,
            };
            if total > completed || last_new.elapsed() > LISTED_AFTER {
                return Ok(FilesRead::RowsDiffer { read: total, completed });
            }
            tokio::time::sleep(LIST_AGAIN_AFTER).await;
            files = self.files_now(&window.run).await?;
        }
    }

    /// Reports a run that has been read. What is read of cells is compared afterwards.
    fn report(&self, streams: &[Arc<ProjectReader>], proof: Proof, counts: Counts) {
        for reader in streams.iter().filter(|_| self.cells.is_none()) {
            reader.context.report.counted(proof, counts);
        }
    }

    /// The files that are listed now.
    async fn files_now(&self, run: &str) -> Result<Vec<String>, Error> {
        let (client, exports) = (&self.reader.context.client, self.exports());
        match client.retry().run(client.limiter(), || exports.status(run)).await? {
            RunStatus::Ready { files, .. } => Ok(files),
            _ => Ok(Vec::new()),
        }
    }

    /// The streams that take the lines of a window: those whose own state does not cover it.
    async fn streams_of(&self, window: &ExportWindow) -> Vec<Arc<ProjectReader>> {
        let mut streams = Vec::new();
        for reader in self.streams() {
            let watermark = reader.checkpoint.project(reader.context.project).await.watermark;
            if self.companion.is_none() || needs(watermark, window.interval) {
                streams.push(Arc::clone(reader));
            }
        }
        streams
    }

    /// Reads one file, however often that takes; none when it has expired.
    async fn read_file(
        &self,
        run: &str,
        file: &str,
        streams: &[Arc<ProjectReader>],
    ) -> Result<Option<FileProgress>, Error> {
        let reader = &self.reader;
        let writer = |reader: &ProjectReader| {
            let ReadContext { selection, stream, project, nulled, .. } = &reader.context;
            ExportWriter::new(reader.table, selection, stream, *project).warning(nulled)
        };
        let mut writers: Vec<ExportWriter> = streams.iter().map(|reader| writer(reader)).collect();
        let mut progress = FileProgress::default();
        let mut retry = reader.context.client.retry();
        // For all attempts, since each leaves something in memory to the next.
        let _place = self.files.place().await;
        loop {
            let before = progress.furthest();
            writers.iter_mut().for_each(ExportWriter::stamp);
            let attempt = self.attempt(run, file, streams, &mut writers, &mut progress).await?;
            let failure = match attempt {
                Attempt::Done => return Ok(Some(progress)),
                Attempt::Gone => return Ok(None),
                Attempt::Broken(failure) => failure,
            };
            if progress.furthest() > before {
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
        streams: &[Arc<ProjectReader>],
        writers: &mut [ExportWriter],
        progress: &mut FileProgress,
    ) -> Result<Attempt, Error> {
        let exports = self.exports();
        // A signed URL is valid for minutes only, so each attempt asks for its own.
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
        let (mut lines, mut turn) = (std::mem::take(&mut progress.lines), Turn::default());
        let mut outputs: Vec<Output<'_>> = streams
            .iter()
            .zip(writers)
            .map(|(reader, writer)| Output { reader, writer, batch: reader.context.batch() })
            .collect();
        loop {
            let chunk = match response.chunk().await {
                Ok(chunk) => chunk,
                Err(failure) => {
                    send(&mut outputs, true).await?;
                    // The half of a long line does not stay in memory while others have their turn.
                    if turn.is_taken() {
                        progress.restart();
                    } else {
                        progress.lines = lines;
                    }
                    return Ok(Attempt::Broken(failure));
                }
            };
            let ended = chunk.is_none();
            let outcome = if let Some(chunk) = chunk {
                let reading = Reading { lines: &mut lines, turn: &mut turn, progress };
                self.take_chunk(chunk.as_ref(), reading, &mut outputs).await?
            } else {
                let mut take = |line: &[u8]| self.take(line, &mut outputs, progress);
                std::mem::take(&mut lines).finish(&mut take)
            };
            if ended || outcome.is_err() {
                send(&mut outputs, true).await?;
            }
            if let Err(Malformed(reason)) = outcome {
                progress.restart();
                return Ok(Attempt::Broken(Failure::transient(format!("file {file} of export run {run}: {reason}"))));
            }
            if ended {
                return Ok(Attempt::Done);
            }
        }
    }

    /// Emits the records of the lines in a piece of a file. However much it unpacks to, they are sent before there
    /// are many. The outer error is final.
    async fn take_chunk(
        &self,
        mut chunk: &[u8],
        Reading { lines, turn, progress }: Reading<'_>,
        outputs: &mut [Output<'_>],
    ) -> Result<Result<(), Malformed>, Error> {
        while !chunk.is_empty() {
            let mut take = |line: &[u8]| self.take(line, outputs, progress);
            match lines.feed(chunk, &mut take) {
                Ok(taken) => chunk = chunk.get(taken..).unwrap_or_default(),
                Err(malformed) => return Ok(Err(malformed)),
            }
            send(outputs, false).await?;
            turn.take_for(lines.held()).await;
        }
        Ok(Ok(()))
    }

    /// Emits the records of a line, unless that has been done or they are not wanted.
    fn take(&self, line: &[u8], outputs: &mut [Output<'_>], progress: &mut FileProgress) -> Result<(), Malformed> {
        let mut times = None;
        for output in outputs.iter_mut() {
            times = Some(output.writer.parse(line)?);
        }
        progress.lines_read += 1;
        let tally = match progress.emitted.meet(line) {
            Novelty::Known => return Ok(()),
            Novelty::New => &mut progress.remembered,
            Novelty::Unremembered => &mut progress.unremembered,
        };
        tally.rows += 1;
        let Some(times) = times else { return Ok(()) };
        let cell = self.cells.as_ref().map(|cells| cells.cell_of(&times));
        let wanted = self.reader.wanted();
        let is_wanted = match &cell {
            Some(cell) => cell.is_some(),
            None if self.reader.table.bounded_by_dates => wanted.from <= times.sort_key && times.sort_key < wanted.to,
            None => true,
        };
        if !is_wanted {
            return Ok(());
        }
        let changed = outputs.first().and_then(|output| output.writer.changed(line));
        if let Some(day) = self.counted_day(times.sort_key, changed) {
            tally.days.add(day, 1);
        }
        let may_be_wrong = progress.is_restarted;
        for Output { reader, writer, batch } in outputs {
            // A line that was damaged when it came first has to come again.
            if self.is_new_row(reader.table, writer.id(line), writer.version(line)) || may_be_wrong {
                batch.lines.make_room(line.len());
                writer.write(line, batch.lines.as_vec())?;
                batch.records += 1;
            }
            if let Some((slice, period)) = cell.flatten() {
                let figure = tally.cells.entry(slice).or_default().entry(period).or_default();
                figure.add_uuid(writer.id(line));
            }
        }
        Ok(())
    }
}

/// A file that is being read.
struct Reading<'a> {
    lines: &'a mut LineReader,
    turn: &'a mut Turn,
    progress: &'a mut FileProgress,
}

/// One of the streams that take the lines of a file.
struct Output<'a> {
    reader: &'a ProjectReader,
    writer: &'a mut ExportWriter,
    batch: Batch<'a>,
}

async fn send(outputs: &mut [Output<'_>], ended: bool) -> Result<(), Error> {
    for output in outputs {
        output.batch.send(ended).await?;
    }
    Ok(())
}
