//! `write`: records in, requests out, states acknowledged.
//!
//! ```text
//! stdin ─► blocks of lines ─► batch per stream ─► requests (bounded per stream) ─► webhook
//!                        └─► STATE ─► acknowledgements ◄── arrived, dead-lettered ──┘
//!                                            └─► state file, stdout
//! ```

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::acknowledgements::{Acknowledgements, Released};
use super::batch::{Entry, Ordinal, RequestBatch};
use super::cli::WriteArguments;
use super::config::WebhookConfig;
use super::input::{self, Block};
use super::line::{self, Line, Meaning, Notice, SourceLog};
use super::origin::{EVENTS, Epoch, Origin};
use super::payload::Record;
use super::regular_file;
use super::source::SourceReport;
use super::state_file::StateFile;
use super::webhook::{Delivered, Webhook};
use crate::error::Error;
use crate::json_text::without_byte_order_mark;
use crate::progress::Progress;
use crate::protocol::{ConfiguredCatalog, Output, StreamDescriptor};

struct Run {
    config: Arc<WebhookConfig>,
    webhook: Arc<Webhook>,
    streams: Vec<StreamDescriptor>,
    numbers: HashMap<StreamDescriptor, usize>,
    open: Vec<Option<RequestBatch>>,
    in_flight: Vec<usize>,
    deliveries: JoinSet<Result<Delivered, Error>>,
    acknowledgements: Acknowledgements,
    state_file: Option<StateFile>,
    output: Output,
    /// The stream of events.
    events: Option<usize>,
    /// Where its next record stands.
    events_origin: Origin,
    /// What the records of other streams have in common.
    run: Epoch,
    /// How often each name of the allow-list has come.
    matched: HashMap<String, u64>,
    totals: Totals,
    source: SourceReport,
    /// Lines that have been taken.
    lines: u64,
}

#[derive(Default)]
struct Totals {
    received: u64,
    filtered: u64,
    delivered: u64,
    dead_lettered: u64,
    requests: u64,
}

/// Delivers standard input.
pub(super) async fn write(arguments: &WriteArguments, output: &Output) -> Result<(), Error> {
    let config = Arc::new(WebhookConfig::from_file(&arguments.config)?);
    let streams = streams(&arguments.catalog)?;
    keep_apart(&config, arguments)?;
    let state_file = arguments.state_file.as_deref().map(|path| StateFile::open(path, &streams)).transpose()?;
    let webhook = Arc::new(Webhook::new(Arc::clone(&config), output)?);
    let epoch = state_file.as_ref().map_or_else(Epoch::new, StateFile::epoch);
    let numbers = streams.iter().cloned().map(StreamDescriptor::without_empty_namespace).zip(0..).collect();
    let matched = config.allowed.iter().flatten().map(|name| (name.clone(), 0)).collect();
    let mut run = Run {
        events: streams.iter().position(|stream| stream.name == EVENTS),
        events_origin: Origin { epoch, place: 0 },
        run: Epoch::new(),
        open: streams.iter().map(|_| None).collect(),
        in_flight: vec![0; streams.len()],
        config,
        webhook,
        streams,
        numbers,
        deliveries: JoinSet::new(),
        acknowledgements: Acknowledgements::default(),
        state_file,
        output: output.clone(),
        matched,
        totals: Totals::default(),
        source: SourceReport::default(),
        lines: 0,
    };
    output.show(Progress::start("delivered", arguments.quiet));
    let begin = Instant::now();
    let result = run.deliver_all(input::start(io::stdin())).await;
    run.report(begin);
    result
}

/// Refuses a file for rejected records that another file of the run would overwrite.
fn keep_apart(config: &WebhookConfig, arguments: &WriteArguments) -> Result<(), Error> {
    let Some(rejected) = &config.dead_letter_file else { return Ok(()) };
    let others = [
        ("--state-file", arguments.state_file.as_deref()),
        ("--config", Some(arguments.config.as_path())),
        ("--catalog", Some(arguments.catalog.as_path())),
    ];
    match others.iter().find(|(_, other)| other.is_some_and(|other| regular_file::are_one(rejected, other))) {
        Some((name, _)) => Err(Error::config(format!(
            "`dead_letter_file` is the file of `{name}`, so rejected records would be lost; set it to a file of its own"
        ))),
        None => Ok(()),
    }
}

/// The streams of the catalog. A webhook can only append.
fn streams(path: &std::path::Path) -> Result<Vec<StreamDescriptor>, Error> {
    let catalog = ConfiguredCatalog::from_file(path)?;
    let mut streams = Vec::new();
    for configured in catalog.streams {
        let stream = configured.descriptor();
        if configured.destination_sync_mode != "append" {
            return Err(Error::config(format!(
                "the stream `{}` has the destination sync mode `{}`, but a webhook can only take more records; set it to `append`",
                stream.name, configured.destination_sync_mode
            )));
        }
        streams.push(stream);
    }
    Ok(streams)
}

/// A STATE, as far as it matters.
#[derive(Deserialize)]
struct State {
    #[serde(default)]
    stream: Option<StateStream>,
    #[serde(default, rename = "sourceStats", alias = "source_stats")]
    source_stats: Option<SourceStats>,
}

#[derive(Deserialize)]
struct StateStream {
    stream_descriptor: StreamDescriptor,
}

#[derive(Deserialize)]
struct SourceStats {
    #[serde(default, rename = "recordCount", alias = "record_count")]
    record_count: Value,
}

impl State {
    /// Compares the number of records that the source has sent since the stream's last STATE with the
    /// number that have come.
    #[allow(clippy::cast_precision_loss, reason = "counts between two states are far below 2^53")]
    fn compare(&self, received: u64) -> Result<(), Error> {
        let sent = match self.source_stats.as_ref().map(|stats| &stats.record_count) {
            None | Some(Value::Null) => return Ok(()),
            Some(Value::String(text)) => text.trim().parse().ok(),
            Some(other) => other.as_f64(),
        };
        let stream = self.stream.as_ref().map_or("all streams", |stream| stream.stream_descriptor.name.as_str());
        let Some(sent) = sent else {
            return Err(Error::system(format!(
                "a STATE of {stream} has a `sourceStats.recordCount` that is no number, so the state is not acknowledged. Connect the two programs directly"
            )));
        };
        if (sent - received as f64).abs() < 1.0 {
            return Ok(());
        }
        Err(Error::system(format!(
            "a STATE of {stream} covers {sent} records, but {received} were received: lines were lost, repeated or removed between the source and this program, so the state is not acknowledged. Connect the two programs directly; to filter events, set `allowed_event_types`"
        )))
    }
}

impl Run {
    async fn deliver_all(&mut self, mut blocks: mpsc::Receiver<Block>) -> Result<(), Error> {
        loop {
            let due = self.open.iter().flatten().map(|batch| batch.since + self.config.max_age).min();
            tokio::select! {
                block = blocks.recv() => match block {
                    None => break,
                    Some(Ok(block)) => self.take_block(&block).await?,
                    Some(Err(error)) => return Err(Error::system(format!("standard input cannot be read: {error}"))),
                },
                Some(delivered) = self.deliveries.join_next() => self.arrived(delivered).await?,
                () = sleep_until(due) => self.send_old().await?,
            }
        }
        for stream in 0..self.open.len() {
            self.send(stream).await?;
        }
        while let Some(delivered) = self.deliveries.join_next().await {
            self.arrived(delivered).await?;
        }
        self.release().await?;
        debug_assert_eq!(self.acknowledgements.waiting(), 0);
        // Everything received has been delivered, but perhaps the source did not send everything.
        std::mem::take(&mut self.source).end(&self.streams)?;
        if let Some(file) = &self.state_file {
            // What the next run sends is no repeat.
            file.note(self.events_origin.epoch.after(b""));
        }
        self.webhook.accepted_something()
    }

    async fn take_block(&mut self, block: &[u8]) -> Result<(), Error> {
        for with_end in block.split_inclusive(|byte| *byte == b'\n') {
            self.lines += 1;
            let line = without_byte_order_mark(with_end.strip_suffix(b"\n").unwrap_or(with_end));
            match line::meaning(line) {
                Meaning::Record(record) => {
                    self.source.content();
                    self.take_record(record).await?;
                }
                Meaning::State(state) => {
                    self.source.content();
                    self.take_state(line, state).await?;
                }
                Meaning::Other(notice) => self.pass_on(notice),
                Meaning::Foreign => {}
                // Only the very last line of the input can lack its line feed.
                Meaning::Cut if !with_end.ends_with(b"\n") => self.source.cut_off(),
                Meaning::Cut => return Err(line::error(self.lines, line, "")),
                Meaning::Unknown(known) => return Err(line::error(self.lines, line, known)),
            }
        }
        Ok(())
    }

    /// In a pipe, the source's log and errors end up here and would otherwise be lost.
    fn pass_on(&mut self, notice: Notice) {
        self.source.message();
        if let Some(SourceLog { level, message }) = notice.log.filter(|log| !log.message.is_empty()) {
            match level.as_str() {
                "FATAL" | "ERROR" => tracing::error!("source: {message}"),
                "WARN" => tracing::warn!("source: {message}"),
                "INFO" => tracing::info!("source: {message}"),
                _ => tracing::debug!("source: {message}"),
            }
        }
        if let Some(status) = notice.status {
            self.source.status(status);
        }
        if let Some(error) = notice.error {
            self.source.failed(&error);
        }
    }

    async fn take_record(&mut self, record: &RawValue) -> Result<(), Error> {
        let record: Record<'_> =
            serde_json::from_str(record.get()).map_err(|error| line::unusable(self.lines, "RECORD", &error))?;
        let descriptor = StreamDescriptor { name: record.stream.clone(), namespace: record.namespace.clone() };
        let stream = self.number("record", descriptor)?;
        self.totals.received += 1;
        let ordinal = self.acknowledgements.record(stream);
        if !self.is_allowed(&record) {
            self.totals.filtered += 1;
            return Ok(());
        }
        let entry = Entry { ordinal, element: record.element(self.config.shape) };
        let origin = self.origin(stream, ordinal);
        let (most, bytes) = (self.config.max_records, self.config.max_bytes);
        if self.open[stream].as_ref().is_some_and(|batch| !batch.has_room(&entry, most, bytes)) {
            self.send(stream).await?;
        }
        match &mut self.open[stream] {
            Some(batch) => batch.push(entry),
            none => {
                self.acknowledgements.begin(ordinal);
                // Other sources may have streams of this name.
                let is_repeatable = Some(stream) == self.events && record.event_name().is_some();
                let origin = if is_repeatable { origin } else { Origin { epoch: self.run, place: ordinal } };
                *none = Some(RequestBatch::new(stream, entry, origin));
            }
        }
        Ok(())
    }

    /// The number of the stream that a message is about.
    fn number(&self, what: &str, stream: StreamDescriptor) -> Result<usize, Error> {
        let stream = stream.without_empty_namespace();
        self.numbers.get(&stream).copied().ok_or_else(|| {
            Error::config(format!(
                "received a {what} of the stream {stream}, which is not in the catalog; use the same catalog for source and destination"
            ))
        })
    }

    /// Where a record stands that goes into a request.
    fn origin(&mut self, stream: usize, ordinal: Ordinal) -> Origin {
        if Some(stream) != self.events {
            return Origin { epoch: self.run, place: ordinal };
        }
        let origin = self.events_origin;
        self.events_origin = origin.plus(1);
        origin
    }

    fn is_allowed(&mut self, record: &Record<'_>) -> bool {
        if self.config.allowed.is_none() {
            return true;
        }
        let Some(name) = record.event_name() else { return true };
        self.matched.get_mut(&name).map(|count| *count += 1).is_some()
    }

    async fn take_state(&mut self, line: &[u8], state: &RawValue) -> Result<(), Error> {
        let parsed: State =
            serde_json::from_str(state.get()).map_err(|error| line::unusable(self.lines, "STATE", &error))?;
        let stream = parsed.stream.as_ref().map(|stream| self.number("state", stream.stream_descriptor.clone()));
        let stream = stream.transpose()?;
        if stream.is_none() || stream == self.events {
            self.events_origin = Origin { epoch: self.events_origin.epoch.after(state.get().as_bytes()), place: 0 };
        }
        let received = self.acknowledgements.state(stream, line.to_vec(), self.events_origin.epoch);
        parsed.compare(received)?;
        self.release().await
    }

    /// Sends the open batch of a stream, when the stream has room for one more request.
    async fn send(&mut self, stream: usize) -> Result<(), Error> {
        while self.in_flight[stream] >= self.config.concurrency {
            let Some(delivered) = self.deliveries.join_next().await else { break };
            self.arrived(delivered).await?;
        }
        let Some(batch) = self.open[stream].take() else { return Ok(()) };
        self.in_flight[stream] += 1;
        let (webhook, name) = (Arc::clone(&self.webhook), self.streams[stream].name.clone());
        self.deliveries.spawn(async move { webhook.deliver(&name, batch).await });
        Ok(())
    }

    /// Sends the batches that are old enough, as far as their streams have room.
    async fn send_old(&mut self) -> Result<(), Error> {
        let now = tokio::time::Instant::now();
        for stream in 0..self.open.len() {
            let old = self.open[stream].as_ref().is_some_and(|batch| batch.since + self.config.max_age <= now);
            if old {
                self.send(stream).await?;
            }
        }
        Ok(())
    }

    async fn arrived(
        &mut self,
        delivered: Result<Result<Delivered, Error>, tokio::task::JoinError>,
    ) -> Result<(), Error> {
        let delivered = delivered
            .map_err(|error| Error::system("a task of this connector has failed").with_details(error.to_string()))??;
        self.in_flight[delivered.stream] -= 1;
        self.totals.requests += 1;
        self.totals.delivered += delivered.records;
        self.totals.dead_lettered += delivered.dead_lettered.len() as u64;
        self.output.progress().add(delivered.records, delivered.bytes);
        self.acknowledgements.end(delivered.first, delivered.stream, &delivered.dead_lettered);
        self.release().await
    }

    /// Acknowledges what may be acknowledged: first in the file, then on standard output.
    async fn release(&mut self) -> Result<(), Error> {
        let released = self.acknowledgements.release();
        if let (Some(file), Some(last)) = (&mut self.state_file, released.last()) {
            let states = released.iter().map(|state| {
                let mut message: Value = serde_json::from_slice(&state.line)
                    .map_err(|error| Error::system(format!("a STATE is not usable: {error}")))?;
                Ok(message["state"].take())
            });
            file.save(states.collect::<Result<Vec<Value>, Error>>()?.into_iter())?;
            file.note(last.epoch);
        }
        // In a log for people, states that are kept elsewhere would bury the rest.
        let is_kept = self.state_file.is_some() && self.output.has_log_for_people();
        for state in released.into_iter().filter(|_| !is_kept) {
            self.output.line(acknowledged(&state)?).await?;
        }
        Ok(())
    }

    fn report(&self, begin: Instant) {
        let totals = &self.totals;
        tracing::info!(
            "delivered {} of {} records in {} batches to {}, {} not selected by `allowed_event_types`, {} dead-lettered, in {:.1} s",
            totals.delivered,
            totals.received,
            totals.requests,
            self.config.webhook,
            totals.filtered,
            totals.dead_lettered,
            begin.elapsed().as_secs_f64()
        );
        for (name, _) in self.matched.iter().filter(|(_, count)| **count == 0) {
            tracing::warn!(
                "`allowed_event_types` has `{name}`, but no such event was received; names are compared exactly, case included"
            );
        }
    }
}

/// A STATE line as received, with `destinationStats` added at the end of its state.
fn acknowledged(state: &Released) -> Result<Vec<u8>, Error> {
    let unusable = || Error::system("a STATE is not an object");
    let text = std::str::from_utf8(&state.line).map_err(|_| unusable())?.trim_end();
    let message: Line<'_> = serde_json::from_str(text).map_err(|_| unusable())?;
    let raw = message.state.ok_or_else(unusable)?.get();
    // The state is a piece of the line; its last character is the brace before which the counts go.
    let begin = (raw.as_ptr() as usize).checked_sub(text.as_ptr() as usize).ok_or_else(unusable)?;
    let brace = begin + raw.rfind('}').ok_or_else(unusable)?;
    let (before, after) = text.split_at_checked(brace).ok_or_else(unusable)?;
    let comma = if before.trim_end().ends_with('{') { "" } else { "," };
    let rejected = match state.rejected {
        0 => String::new(),
        rejected => format!(",\"rejectedRecordCount\":{rejected}.0"),
    };
    let line =
        format!("{before}{comma}\"destinationStats\":{{\"recordCount\":{}.0{rejected}}}{after}\n", state.records);
    Ok(line.into_bytes())
}

async fn sleep_until(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_echoed_verbatim_with_its_counts() {
        let line = r#"{"type":"STATE", "state" : {"type":"STREAM","id":7,"stream":{"stream_descriptor":{"name":"a}"},"stream_state":{"c":1.0,"d":"é"}},"sourceStats":{"recordCount":3.0}}, "x":1}"#;
        let state = |line: &str, rejected| Released {
            line: line.as_bytes().to_vec(),
            records: 2,
            rejected,
            epoch: Epoch::new(),
        };
        let echoed = String::from_utf8(acknowledged(&state(line, 1)).unwrap()).unwrap();
        let expected = line.replace(
            r#""recordCount":3.0}}, "x""#,
            r#""recordCount":3.0},"destinationStats":{"recordCount":2.0,"rejectedRecordCount":1.0}}, "x""#,
        );
        assert_eq!(echoed, expected + "\n");
        let empty = acknowledged(&state(r#"{"type":"STATE","state":{}}"#, 0)).unwrap();
        assert_eq!(empty, b"{\"type\":\"STATE\",\"state\":{\"destinationStats\":{\"recordCount\":2.0}}}\n");
    }
}
