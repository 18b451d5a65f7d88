//! `write`: records in, requests out, states acknowledged.
//!
//! ```text
//! stdin ─► blocks of lines ─► batch per stream ─► requests (bounded per stream) ─► webhook
//!                        └─► STATE ─► acknowledgements ◄── arrived, dead-lettered ──┘
//!                                            └─► state file, stdout
//! ```

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::Arc;
use std::time::Instant;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::acknowledgements::{Acknowledgements, Released};
use super::batch::{Entry, RequestBatch};
use super::cli::WriteArguments;
use super::config::WebhookConfig;
use super::input::{self, Block};
use super::payload::Record;
use super::state_file::StateFile;
use super::webhook::{Delivered, Webhook};
use crate::error::Error;
use crate::progress::Progress;
use crate::protocol::{ConfiguredCatalog, Output, StreamDescriptor};

/// A line of the input, as far as it matters.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow, rename = "type", default)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    record: Option<&'a RawValue>,
    #[serde(borrow, default)]
    state: Option<&'a RawValue>,
    #[serde(default)]
    log: Option<Log>,
    #[serde(default)]
    trace: Option<Trace>,
}

/// A log message of the source.
#[derive(Deserialize)]
struct Log {
    #[serde(default)]
    level: String,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct Trace {
    #[serde(default)]
    error: Option<SourceError>,
    #[serde(default)]
    stream_status: Option<SourceStatus>,
}

#[derive(Deserialize)]
struct SourceStatus {
    stream_descriptor: StreamDescriptor,
    #[serde(default)]
    status: String,
}

#[derive(Deserialize)]
struct SourceError {
    #[serde(default)]
    message: String,
    #[serde(default)]
    failure_type: String,
}

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
    /// How often each name of the allow-list has come.
    matched: HashMap<String, u64>,
    totals: Totals,
    /// The first failure that the source has reported.
    source_error: Option<Error>,
    /// Streams that the source has begun, and not yet ended.
    begun: BTreeSet<String>,
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
    let state_file = arguments.state_file.as_deref().map(StateFile::open).transpose()?;
    let webhook = Arc::new(Webhook::new(Arc::clone(&config), output)?);
    let numbers = streams.iter().cloned().zip(0..).collect();
    let matched = config.allowed.iter().flatten().map(|name| (name.clone(), 0)).collect();
    let mut run = Run {
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
        source_error: None,
        begun: BTreeSet::new(),
    };
    output.show(Progress::start("delivered", arguments.quiet));
    let begin = Instant::now();
    let result = run.deliver_all(input::start(io::stdin())).await;
    run.report(begin);
    result
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
        // Everything received has been delivered, but the source did not send everything.
        if let Some(error) = self.source_error.take() {
            return Err(error);
        }
        if self.begun.is_empty() {
            return Ok(());
        }
        let streams: Vec<&str> = self.begun.iter().map(String::as_str).collect();
        Err(Error::system(format!(
            "the source stopped in the middle of {} without an error message: it was killed or ran out of memory. Everything received has been delivered; the next sync continues",
            streams.join(", ")
        )))
    }

    async fn take_block(&mut self, block: &[u8]) -> Result<(), Error> {
        for line in block.split(|byte| *byte == b'\n') {
            // Anything that is not a message is another program's log line.
            let Ok(message) = serde_json::from_slice::<Line<'_>>(line) else {
                let matters = is_truncated_message(line);
                // Only the very last line of the input can lack its line feed.
                if matters && block.ends_with(line) && !block.ends_with(b"\n") {
                    let error = Error::system(
                        "the source was cut off in the middle of a line; the next sync reads what is missing",
                    );
                    self.source_error.get_or_insert(error);
                } else if matters {
                    return Err(Error::system("a RECORD or STATE line is not valid JSON"));
                }
                continue;
            };
            match (message.kind.as_ref(), message.record, message.state) {
                ("RECORD", Some(record), _) => self.take_record(record).await?,
                ("STATE", _, Some(state)) => self.take_state(line, state).await?,
                ("RECORD" | "STATE", ..) => {
                    return Err(Error::system(format!("a {} message has no content", message.kind)));
                }
                _ => self.pass_on(message.log, message.trace),
            }
        }
        Ok(())
    }

    /// In a pipe, the source's log and errors end up here and would otherwise be lost.
    fn pass_on(&mut self, log: Option<Log>, trace: Option<Trace>) {
        if let Some(Log { level, message }) = log.filter(|log| !log.message.is_empty()) {
            match level.as_str() {
                "FATAL" | "ERROR" => tracing::error!("source: {message}"),
                "WARN" => tracing::warn!("source: {message}"),
                "INFO" => tracing::info!("source: {message}"),
                _ => tracing::debug!("source: {message}"),
            }
        }
        let Some(trace) = trace else { return };
        if let Some(SourceStatus { stream_descriptor, status }) = trace.stream_status {
            match status.as_str() {
                "STARTED" | "RUNNING" => self.begun.insert(stream_descriptor.name),
                "COMPLETE" => self.begun.remove(&stream_descriptor.name),
                _ => false,
            };
        }
        if let Some(error) = trace.error {
            let text = format!("the source has failed: {}", error.message);
            let error = match error.failure_type.as_str() {
                "config_error" => Error::config(text),
                "transient_error" => Error::transient(text),
                _ => Error::system(text),
            };
            self.source_error.get_or_insert(error);
        }
    }

    async fn take_record(&mut self, record: &RawValue) -> Result<(), Error> {
        let record: Record<'_> = serde_json::from_str(record.get())
            .map_err(|error| Error::system(format!("a RECORD is not usable: {error}")))?;
        let descriptor = StreamDescriptor { name: record.stream.clone(), namespace: record.namespace.clone() };
        let Some(stream) = self.numbers.get(&descriptor).copied() else {
            return Err(Error::config(format!(
                "received a record of the stream `{}`, which is not in the catalog; use the same catalog for source and destination",
                descriptor.name
            )));
        };
        self.totals.received += 1;
        let ordinal = self.acknowledgements.record(stream);
        if !self.is_allowed(&record) {
            self.totals.filtered += 1;
            return Ok(());
        }
        let entry = Entry { ordinal, element: record.element(self.config.shape) };
        let (most, bytes) = (self.config.max_records, self.config.max_bytes);
        if self.open[stream].as_ref().is_some_and(|batch| !batch.has_room(&entry, most, bytes)) {
            self.send(stream).await?;
        }
        match &mut self.open[stream] {
            Some(batch) => batch.push(entry),
            none => {
                self.acknowledgements.begin(ordinal);
                *none = Some(RequestBatch::new(stream, entry));
            }
        }
        Ok(())
    }

    fn is_allowed(&mut self, record: &Record<'_>) -> bool {
        if self.config.allowed.is_none() {
            return true;
        }
        let Some(name) = record.event_name() else { return true };
        self.matched.get_mut(&name).map(|count| *count += 1).is_some()
    }

    async fn take_state(&mut self, line: &[u8], state: &RawValue) -> Result<(), Error> {
        #[derive(Deserialize)]
        struct State {
            #[serde(default)]
            stream: Option<Stream>,
        }
        #[derive(Deserialize)]
        struct Stream {
            stream_descriptor: StreamDescriptor,
        }
        let parsed: State = serde_json::from_str(state.get())
            .map_err(|error| Error::system(format!("a STATE is not usable: {error}")))?;
        let stream = match parsed.stream {
            None => None,
            Some(stream) => Some(self.numbers.get(&stream.stream_descriptor).copied().ok_or_else(|| {
                Error::config(format!(
                    "received a state of the stream `{}`, which is not in the catalog; use the same catalog for source and destination",
                    stream.stream_descriptor.name
                ))
            })?),
        };
        self.acknowledgements.state(stream, line.to_vec());
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
        if let (Some(file), Some(_)) = (&mut self.state_file, released.last()) {
            for state in &released {
                let message: Value = serde_json::from_slice(&state.line)
                    .map_err(|error| Error::system(format!("a STATE is not usable: {error}")))?;
                file.save(&message["state"])?;
            }
        }
        for state in released {
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

/// Whether a line that is not JSON was meant as a record or a state, however it is spaced.
fn is_truncated_message(line: &[u8]) -> bool {
    let begin: Vec<u8> = line.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).take(16).collect();
    begin.starts_with(br#"{"type":"RECORD""#) || begin.starts_with(br#"{"type":"STATE""#)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_echoed_verbatim_with_its_counts() {
        let line = r#"{"type":"STATE", "state" : {"type":"STREAM","id":7,"stream":{"stream_descriptor":{"name":"a}"},"stream_state":{"c":1.0,"d":"é"}},"sourceStats":{"recordCount":3.0}}, "x":1}"#;
        let state = |line: &str, rejected| Released { line: line.as_bytes().to_vec(), records: 2, rejected };
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
