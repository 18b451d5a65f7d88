//! The only owner of stdout.
//!
//! Tasks hand whole lines to an [`Output`]; a thread of its own, the [`Writer`], writes them in the
//! order in which they were handed over, so a STATE follows every record that its sender sent
//! before it. The queue between the two is bounded: a slow reader of stdout slows the tasks down.
//!
//! The writer also does everything that depends on this order: it counts the records since a stream's
//! last STATE (`sourceStats`), sends RUNNING before the first record, and omits repeated STATEs.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde::Serialize;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::catalog::StreamDescriptor;
use super::lines::Lines;
use super::message::{Message, StreamStatus};
use super::people::{self, Audience};
use super::separators::{has_separators, write_escaped};
use crate::error::Error;
use crate::lock::lock;
use crate::progress::Progress;

/// Messages and batches that may wait for the writer,
const QUEUE: usize = 4;
/// and bytes of the batches among them, which have about 512 KiB each; with a long record, one has more.
const QUEUE_BYTES: u32 = 2 * 1024 * 1024;
/// Log lines that may wait for the writer; the oldest go first, with a note.
const LOG_QUEUE: usize = 1_000;
/// Size of one write, for few system calls; as much as a pipe takes in.
const WRITE_SIZE: usize = 64 * 1024;
/// Used buffers kept for the next batch,
const SPARE_BUFFERS: usize = 4;
/// unless they are larger than this, since a long record leaves one that no other batch needs.
const LARGEST_SPARE: usize = 1024 * 1024;

enum Item {
    Line(Vec<u8>),
    Records { stream: Arc<StreamDescriptor>, lines: Lines, count: u64, room: Option<OwnedSemaphorePermit> },
    State { stream: Arc<StreamDescriptor>, state: Value },
    EndOfRound(oneshot::Sender<LastStates>),
    LogsWaiting,
    Close,
}

/// The last state of each stream that has one.
pub type LastStates = Vec<(StreamDescriptor, Value)>;

/// Where tasks hand over what is to be written. Cheap to clone.
#[derive(Clone)]
pub struct Output {
    queue: mpsc::Sender<Item>,
    /// For the bytes of batches that wait.
    room: Arc<Semaphore>,
    shared: Arc<Shared>,
}

type Cleanup = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Shared {
    audience: Audience,
    cleanup: Mutex<Option<Cleanup>>,
    ends_well_by_signal: AtomicBool,
    logs: Mutex<Logs>,
    spare: Mutex<Vec<Lines>>,
    progress: Mutex<Progress>,
    records: Mutex<HashMap<Arc<StreamDescriptor>, u64>>,
}

#[derive(Default)]
struct Logs {
    lines: VecDeque<Vec<u8>>,
    dropped: u64,
}

impl Output {
    /// Queues a message. For people, it becomes text, unless it is a document; errors are on standard error in any
    /// case.
    ///
    /// # Errors
    /// When stdout has been closed by its reader.
    pub async fn message(&self, message: &Message) -> Result<(), Error> {
        match message {
            Message::Log { .. } | Message::Trace { .. } if self.is_for_people() => {}
            Message::ConnectionStatus { .. } if self.is_for_people() => {
                self.line(people::result(message).unwrap_or_default().into_bytes()).await?;
            }
            _ => self.line(to_line(message)).await?,
        }
        if message.is_error() {
            self.tell(message);
        }
        Ok(())
    }

    /// Whether people read the log, and not another program.
    pub fn has_log_for_people(&self) -> bool {
        self.shared.audience != Audience::Program
    }

    fn is_for_people(&self) -> bool {
        self.shared.audience == Audience::People
    }

    /// Writes a message to standard error, beside the progress line.
    fn tell(&self, message: &Message) {
        self.progress().beside(|| people::tell(message, self.shared.audience));
    }

    /// Queues a line that is complete with its line feed.
    ///
    /// # Errors
    /// When stdout has been closed by its reader.
    pub async fn line(&self, line: Vec<u8>) -> Result<(), Error> {
        self.send(Item::Line(line)).await
    }

    /// Queues `count` complete RECORD lines of one stream. When there are very many bytes, also waits until they
    /// have been written, so that the caller's turn for much memory covers them.
    ///
    /// # Errors
    /// When stdout has been closed by its reader.
    pub async fn records(&self, stream: &Arc<StreamDescriptor>, lines: Lines, count: u64) -> Result<(), Error> {
        *lock(&self.shared.records).entry(Arc::clone(stream)).or_default() += count;
        let size = u32::try_from(lines.len()).unwrap_or(u32::MAX).min(QUEUE_BYTES);
        // The semaphore is never closed.
        let room = Arc::clone(&self.room).acquire_many_owned(size).await.ok();
        self.send(Item::Records { stream: Arc::clone(stream), lines, count, room }).await?;
        if size == QUEUE_BYTES {
            drop(self.room.acquire_many(QUEUE_BYTES).await);
        }
        Ok(())
    }

    /// Records of a stream that have been queued so far.
    pub fn records_of(&self, stream: &StreamDescriptor) -> u64 {
        lock(&self.shared.records).get(stream).copied().unwrap_or_default()
    }

    /// Records of all streams that have been queued so far.
    pub fn all_records(&self) -> u64 {
        lock(&self.shared.records).values().sum()
    }

    /// Queues the state of a stream; it covers every record queued by the same task before.
    ///
    /// # Errors
    /// When stdout has been closed by its reader.
    pub async fn state(&self, stream: &Arc<StreamDescriptor>, state: Value) -> Result<(), Error> {
        self.send(Item::State { stream: Arc::clone(stream), state }).await
    }

    /// Ends a sync that is followed by another one: records are counted from zero. Returns the last state of each stream
    /// that has been written.
    ///
    /// # Errors
    /// When stdout has been closed by its reader.
    pub async fn end_round(&self) -> Result<LastStates, Error> {
        let (answer, states) = oneshot::channel();
        self.send(Item::EndOfRound(answer)).await?;
        lock(&self.shared.records).clear();
        states.await.map_err(|_| Error::output_closed())
    }

    async fn send(&self, item: Item) -> Result<(), Error> {
        self.queue.send(item).await.map_err(|_| Error::output_closed())
    }

    /// Queues a log line without waiting; it may overtake other messages. When the reader of stdout is far behind, the oldest
    /// waiting log lines give way.
    pub fn log(&self, message: &Message) {
        if self.has_log_for_people() {
            return self.tell(message);
        }
        {
            let mut logs = lock(&self.shared.logs);
            if logs.lines.len() >= LOG_QUEUE {
                logs.lines.pop_front();
                logs.dropped += 1;
            }
            logs.lines.push_back(to_line(message));
        }
        // A full queue means that the writer is at work and will look at the logs anyway.
        drop(self.queue.try_send(Item::LogsWaiting));
    }

    /// Queues a message in its order, or forgets it when the reader of stdout is far behind: for
    /// messages that are out of date by then, such as estimates.
    pub fn hint(&self, message: &Message) {
        if self.is_for_people() {
            return;
        }
        drop(self.queue.try_send(Item::Line(to_line(message))));
    }

    /// What is to be done when a signal ends the program.
    pub fn at_interruption(&self, cleanup: impl Future<Output = ()> + Send + 'static) {
        *lock(&self.shared.cleanup) = Some(Box::pin(cleanup));
    }

    /// From now on, a signal is the way to end the program, and no failure.
    pub fn end_well_by_signal(&self) {
        self.shared.ends_well_by_signal.store(true, Ordering::Relaxed);
    }

    /// Whether a signal that ends the program is no failure.
    pub fn ends_well_by_signal(&self) -> bool {
        self.shared.ends_well_by_signal.load(Ordering::Relaxed)
    }

    /// Does what is to be done when a signal ends the program.
    pub async fn interrupted(&self) {
        let cleanup = lock(&self.shared.cleanup).take();
        if let Some(cleanup) = cleanup {
            cleanup.await;
        }
    }

    /// Shows the records that are written from now on.
    pub fn show(&self, progress: Progress) {
        *lock(&self.shared.progress) = progress;
    }

    pub fn progress(&self) -> impl std::ops::DerefMut<Target = Progress> {
        lock(&self.shared.progress)
    }

    /// An empty buffer for a batch, one that has been used before if there is one.
    pub fn buffer(&self) -> Lines {
        lock(&self.shared.spare).pop().unwrap_or_default()
    }
}

fn to_line<T: Serialize>(message: &T) -> Vec<u8> {
    // Serialising our own types into memory cannot fail: no maps with odd keys, no I/O.
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}

/// The thread that writes to stdout.
pub struct Writer {
    thread: JoinHandle<io::Result<()>>,
}

impl Writer {
    /// Starts a writer on standard output.
    ///
    /// It writes to a descriptor of its own, since [`io::Stdout`] cuts what it is given at the last
    /// line feed and would turn every write into two.
    pub fn stdout(audience: Audience) -> (Output, Self) {
        match io::stdout().as_fd().try_clone_to_owned() {
            Ok(descriptor) => Self::start(File::from(descriptor), audience),
            // Out of descriptors: slower, but all the same.
            Err(_) => Self::start(io::stdout(), audience),
        }
    }

    /// Starts a writer on `sink`.
    pub fn start(sink: impl Write + Send + 'static, audience: Audience) -> (Output, Self) {
        let (queue, items) = mpsc::channel(QUEUE);
        let room = Arc::new(Semaphore::new(QUEUE_BYTES as usize));
        let (logs, spare, progress) = (Mutex::default(), Mutex::default(), Mutex::new(Progress::hidden()));
        let (cleanup, records, ends_well_by_signal) = (Mutex::default(), Mutex::default(), AtomicBool::new(false));
        let shared = Arc::new(Shared { audience, cleanup, ends_well_by_signal, logs, spare, progress, records });
        let sink = LineSink(BufWriter::with_capacity(WRITE_SIZE, sink));
        let stdout = StdoutWriter { sink, audience, streams: HashMap::new() };
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || run(items, &shared, stdout)
        });
        (Output { queue, room, shared }, Self { thread })
    }

    /// Writes what is queued and ends the thread.
    ///
    /// # Errors
    /// When stdout has been closed by its reader or could not be written.
    pub async fn close(self, output: &Output) -> Result<(), Error> {
        output.progress().finish();
        // If the thread has ended already, its result contains the reason.
        drop(output.queue.send(Item::Close).await);
        let joined = tokio::task::spawn_blocking(move || self.thread.join()).await;
        match joined {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) if error.kind() == io::ErrorKind::BrokenPipe => Err(Error::output_closed()),
            Ok(Ok(Err(error))) => Err(Error::system(format!("cannot write to stdout: {error}"))),
            Ok(Err(_)) | Err(_) => Err(Error::system("the thread that writes to stdout has failed")),
        }
    }
}

fn run(mut items: mpsc::Receiver<Item>, shared: &Shared, mut stdout: StdoutWriter<impl Write>) -> io::Result<()> {
    while let Some(first) = items.blocking_recv() {
        let mut next = Some(first);
        while let Some(item) = next {
            stdout.write_logs(shared)?;
            match item {
                Item::Line(line) => stdout.sink.write_lines(&line)?,
                Item::Records { stream, lines, count, room } => {
                    stdout.records(&stream, &lines, count)?;
                    lock(&shared.progress).add(count, lines.len());
                    recycle(shared, lines);
                    drop(room);
                }
                Item::State { stream, state } => stdout.state(&stream, state)?,
                // The task that asked may be gone.
                Item::EndOfRound(answer) => drop(answer.send(stdout.end_round())),
                Item::LogsWaiting => {}
                Item::Close => return stdout.sink.0.flush(),
            }
            next = items.try_recv().ok();
        }
        // Nothing else waits: let the reader have it now.
        stdout.sink.0.flush()?;
    }
    Ok(())
}

fn recycle(shared: &Shared, mut buffer: Lines) {
    buffer.clear();
    if buffer.capacity() > LARGEST_SPARE {
        return;
    }
    let mut spare = lock(&shared.spare);
    if spare.len() < SPARE_BUFFERS {
        spare.push(buffer);
    }
}

/// Writes an error past the queue, for a program that is about to die.
///
/// The line feed in front ends a line that the writer may have begun; readers of the protocol skip
/// lines that are not JSON.
pub fn write_unqueued(message: &Message, audience: Audience) {
    people::tell(message, audience);
    if audience == Audience::People {
        return;
    }
    let line = [b"\n".to_vec(), to_line(message)].concat();
    let mut stdout = io::stdout().lock();
    // A failure here cannot be reported anywhere.
    drop(write_escaped(&line, |piece| stdout.write_all(piece)).and_then(|()| stdout.flush()));
}

/// Stdout; every line passes through here. Records that are known to be clean are not searched again.
struct LineSink<W: Write>(BufWriter<W>);

impl<W: Write> LineSink<W> {
    fn write_lines(&mut self, lines: &[u8]) -> io::Result<()> {
        write_escaped(lines, |piece| self.write(piece))
    }

    fn write_records(&mut self, lines: &Lines) -> io::Result<()> {
        if lines.is_clean() {
            debug_assert!(!has_separators(lines.as_bytes()), "a character that needs an escape");
            return self.write(lines.as_bytes());
        }
        self.write_lines(lines.as_bytes())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        bytes.chunks(WRITE_SIZE).try_for_each(|piece| self.0.write_all(piece))
    }
}

struct StdoutWriter<W: Write> {
    sink: LineSink<W>,
    audience: Audience,
    streams: HashMap<Arc<StreamDescriptor>, StreamCounts>,
}

#[derive(Default)]
struct StreamCounts {
    running: bool,
    records_since_state: u64,
    last_state: Option<Value>,
}

impl<W: Write> StdoutWriter<W> {
    fn write_logs(&mut self, shared: &Shared) -> io::Result<()> {
        let logs = std::mem::take(&mut *lock(&shared.logs));
        if logs.dropped > 0 {
            let note = format!("{} log lines were left out because stdout was not read in time", logs.dropped);
            self.sink.write_lines(&to_line(&Message::log(super::message::LogLevel::Warn, note)))?;
        }
        logs.lines.iter().try_for_each(|line| self.sink.write_lines(line))
    }

    fn records(&mut self, stream: &Arc<StreamDescriptor>, lines: &Lines, count: u64) -> io::Result<()> {
        let counts = self.streams.entry(Arc::clone(stream)).or_default();
        if count > 0 && !counts.running && self.audience != Audience::People {
            counts.running = true;
            let running = Message::status(StreamDescriptor::clone(stream), StreamStatus::Running);
            self.sink.write_lines(&to_line(&running))?;
        }
        counts.records_since_state += count;
        self.sink.write_records(lines)
    }

    /// The next sync says again that its streams are running.
    fn end_round(&mut self) -> LastStates {
        let streams = self.streams.iter_mut().filter_map(|(stream, counts)| {
            counts.running = false;
            Some((StreamDescriptor::clone(stream), counts.last_state.clone()?))
        });
        streams.collect()
    }

    fn state(&mut self, stream: &Arc<StreamDescriptor>, state: Value) -> io::Result<()> {
        let counts = self.streams.entry(Arc::clone(stream)).or_default();
        if counts.records_since_state == 0 && counts.last_state.as_ref() == Some(&state) {
            return Ok(());
        }
        let message = StateMessage {
            kind: "STATE",
            state: StateBody {
                kind: "STREAM",
                stream: StreamState { stream_descriptor: stream, stream_state: &state },
                source_stats: SourceStats { record_count: decimal(counts.records_since_state) },
            },
        };
        self.sink.write_lines(&to_line(&message))?;
        counts.records_since_state = 0;
        counts.last_state = Some(state);
        Ok(())
    }
}

/// The platform reads counts as a Java double and wants the decimal point; serde writes it.
#[allow(clippy::cast_precision_loss, reason = "counts between two states are far below 2^53")]
fn decimal(count: u64) -> f64 {
    count as f64
}

#[derive(Serialize)]
struct StateMessage<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    state: StateBody<'a>,
}

#[derive(Serialize)]
struct StateBody<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    stream: StreamState<'a>,
    #[serde(rename = "sourceStats")]
    source_stats: SourceStats,
}

#[derive(Serialize)]
struct StreamState<'a> {
    stream_descriptor: &'a StreamDescriptor,
    stream_state: &'a Value,
}

#[derive(Serialize)]
struct SourceStats {
    #[serde(rename = "recordCount")]
    record_count: f64,
}
