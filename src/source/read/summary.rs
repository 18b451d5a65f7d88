//! How a sync has ended, for monitoring: a last line in the log, and a file in the text format of Prometheus.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use chrono::{SecondsFormat, Utc};
use indicatif::HumanCount;

use crate::lock::lock;
use crate::protocol::{Message, Output, StreamDescriptor, StreamStatus};
use crate::time::Timestamp;

/// Name of the time up to which everything has been read.
const READ_UNTIL: &str = "source_posthog_read_until_timestamp_seconds";

/// Why a sync has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Every stream has been read completely.
    Complete,
    /// A stream or the whole sync has failed.
    Failed,
    /// A signal has ended it.
    Interrupted,
}

/// How a stream has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StreamEnd {
    pub(super) complete: bool,
    pub(super) records: u64,
    pub(super) repeats: u64,
}

/// What a sync has come to so far.
pub(super) struct Summary {
    begin: Instant,
    metrics_file: Option<PathBuf>,
    output: Output,
    /// If it completes, everything that PostHog had at this time has been read.
    until: OnceLock<Timestamp>,
    /// Streams that have begun and not ended.
    open: Mutex<BTreeSet<Arc<StreamDescriptor>>>,
    streams: Mutex<BTreeMap<String, StreamEnd>>,
}

impl Summary {
    pub(super) fn begin(metrics_file: Option<PathBuf>, output: Output) -> Self {
        let (until, open, streams) = (OnceLock::new(), Mutex::default(), Mutex::default());
        Self { begin: Instant::now(), metrics_file, output, until, open, streams }
    }

    /// The sync reads what PostHog has at this time.
    pub(super) fn reads_until(&self, until: Timestamp) {
        self.until.get_or_init(|| until);
    }

    /// A stream begins.
    pub(super) fn stream_begins(&self, stream: &Arc<StreamDescriptor>) {
        lock(&self.open).insert(Arc::clone(stream));
    }

    /// A stream has ended.
    pub(super) fn stream_ends(&self, stream: &Arc<StreamDescriptor>, end: StreamEnd) {
        lock(&self.open).remove(stream);
        lock(&self.streams).insert(stream.name.clone(), end);
    }

    /// A signal ends the sync. Where that is no failure, streams that are being read are reported as incomplete.
    pub(super) async fn end_by_signal(&self) {
        self.end(Ending::Interrupted);
        if self.output.ends_well_by_signal() {
            let open = std::mem::take(&mut *lock(&self.open));
            for stream in open {
                let status = Message::status(StreamDescriptor::clone(&stream), StreamStatus::Incomplete);
                // Only fails when stdout has been closed.
                drop(self.output.message(&status).await);
            }
        }
    }

    /// The sync has ended: says so in the log and in the file.
    pub(super) fn end(&self, ending: Ending) {
        let streams = lock(&self.streams);
        let until = self.until.get().copied().filter(|_| ending == Ending::Complete);
        let seconds = self.begin.elapsed().as_secs_f64();
        self.log(ending, &streams, until, seconds);
        let Some(path) = &self.metrics_file else { return };
        let written = Metrics { ending, streams: &streams, until, seconds, now: Timestamp::now() }.write(path);
        if let Err(error) = written {
            tracing::warn!("the metrics file `{}` cannot be written: {error}", path.display());
        }
    }

    fn log(&self, ending: Ending, streams: &BTreeMap<String, StreamEnd>, until: Option<Timestamp>, seconds: f64) {
        let (records, repeats) = (self.output.all_records(), streams.values().map(|end| end.repeats).sum::<u64>());
        let complete = streams.values().filter(|end| end.complete).count();
        let everything = until.map(|until| {
            format!("; everything until {} has been read", until.datetime().to_rfc3339_opts(SecondsFormat::Secs, true))
        });
        tracing::info!(
            records,
            repeats,
            seconds = %format_args!("{seconds:.1}"),
            lag_seconds = until.map(|until| (Utc::now() - until.datetime()).num_seconds()),
            reason = %ending,
            "sync {ending}: {} records, {complete} of {} streams complete in {seconds:.1} s{}",
            HumanCount(records),
            streams.len(),
            everything.unwrap_or_default(),
        );
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        })
    }
}

/// What the file says.
struct Metrics<'s> {
    ending: Ending,
    streams: &'s BTreeMap<String, StreamEnd>,
    until: Option<Timestamp>,
    seconds: f64,
    now: Timestamp,
}

impl Metrics<'_> {
    /// Replaces the file as a whole, since it may be read at any time.
    fn write(&self, path: &Path) -> std::io::Result<()> {
        // How far the last complete sync came stays true when a later one fails.
        let before = std::fs::read_to_string(path).unwrap_or_default();
        let until = before.lines().find_map(|line| line.strip_prefix(READ_UNTIL)?.trim().parse().ok());
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        std::fs::write(&beside, self.text(until))?;
        std::fs::rename(&beside, path)
    }

    fn text(&self, until_before: Option<i64>) -> String {
        let seconds = |instant: Timestamp| instant.datetime().timestamp();
        let mut text = String::new();
        let mut gauge = |name: &str, help: &str, samples: Vec<(String, String)>| {
            let samples: Vec<String> =
                samples.iter().map(|(labels, value)| format!("{name}{labels} {value}\n")).collect();
            let written = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{}", samples.concat().trim_end());
            debug_assert!(written.is_ok());
        };
        let one = |value: String| vec![(String::new(), value)];
        let success = u8::from(self.ending == Ending::Complete);
        gauge(
            "source_posthog_success",
            "Whether the last sync has read every stream completely.",
            one(success.to_string()),
        );
        gauge("source_posthog_end_timestamp_seconds", "When the last sync ended.", one(seconds(self.now).to_string()));
        gauge("source_posthog_duration_seconds", "How long the last sync took.", one(format!("{:.1}", self.seconds)));
        if let Some(until) = self.until.map(seconds).or(until_before) {
            gauge(READ_UNTIL, "Everything that PostHog had at this time has been read.", one(until.to_string()));
        }
        let each = |value: fn(&StreamEnd) -> u64| {
            self.streams
                .iter()
                .map(|(name, end)| (format!("{{stream=\"{}\"}}", escaped(name)), value(end).to_string()))
                .collect::<Vec<_>>()
        };
        if !self.streams.is_empty() {
            gauge(
                "source_posthog_stream_complete",
                "Whether the last sync has read the stream completely.",
                each(|end| u64::from(end.complete)),
            );
            gauge("source_posthog_stream_records", "Records of the stream in the last sync.", each(|end| end.records));
            gauge(
                "source_posthog_stream_repeats",
                "Those of them that an earlier sync had read, too.",
                each(|end| end.repeats),
            );
        }
        text
    }
}

/// The value of a label.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(ending: Ending, until: Option<i64>, before: Option<i64>) -> String {
        let end = StreamEnd { complete: true, records: 5, repeats: 2 };
        let streams = BTreeMap::from([("my \"own\" \\".to_owned(), end)]);
        let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000);
        Metrics { ending, streams: &streams, until: until.map(at), seconds: 1.25, now: at(1_000) }.text(before)
    }

    #[test]
    fn metrics_are_what_prometheus_reads() {
        let text = text(Ending::Complete, Some(900), Some(800));
        for line in text.lines() {
            let comment = line.starts_with("# HELP source_posthog_") || line.starts_with("# TYPE source_posthog_");
            let value = line.rsplit_once(' ').and_then(|(_, value)| value.parse::<f64>().ok());
            assert!(comment || line.starts_with("source_posthog_") && value.is_some(), "{line}");
        }
        assert!(text.contains("\nsource_posthog_stream_records{stream=\"my \\\"own\\\" \\\\\"} 5\n"), "{text}");
        assert!(text.contains("\nsource_posthog_read_until_timestamp_seconds 900\n"), "{text}");
    }

    #[test]
    fn a_failure_leaves_the_time_up_to_which_everything_is_there() {
        let failed = text(Ending::Failed, None, Some(800));
        assert!(failed.contains("\nsource_posthog_read_until_timestamp_seconds 800\n"), "{failed}");
        assert!(failed.contains("\nsource_posthog_success 0\n"), "{failed}");
        assert!(!text(Ending::Failed, None, None).contains("read_until"));
    }
}
