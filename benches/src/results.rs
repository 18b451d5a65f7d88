//! Everything that one run of the benchmark has found out.

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::measure::Used;
use crate::targets::Target;

/// Several measurements of the same thing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Half of them are below.
    pub median: f64,
    /// The lowest.
    pub least: f64,
    /// The highest.
    pub most: f64,
}

impl Spread {
    /// Of at least one measurement; zero without any.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or_default();
        let last = values.len().saturating_sub(1);
        let median = f64::midpoint(at(last / 2), at(last.div_ceil(2)));
        Self { median, least: at(0), most: at(last) }
    }
}

/// What a subject moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    pub events: u64,
    /// Bytes before compression.
    pub unpacked: u64,
    /// Bytes on the wire.
    pub sent: u64,
}

/// One program that moves a volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    /// What it is.
    pub subject: String,
    /// What it moves.
    pub volume: Volume,
    /// Seconds from start to end.
    pub wall: Spread,
    /// Seconds of processor time.
    pub cpu: Spread,
    /// Peak resident memory in bytes, the highest of all runs.
    pub peak: u64,
    /// Wall time by that of the floor in the same round; none for the floor itself.
    pub ratio: Option<Spread>,
}

impl Row {
    /// From the rounds of a subject and those of its floor.
    pub fn new(subject: &str, volume: Volume, rounds: &[Used], floor: Option<&[Used]>) -> Self {
        Self {
            subject: subject.to_owned(),
            volume,
            wall: Spread::of(rounds.iter().map(|used| used.wall)),
            cpu: Spread::of(rounds.iter().map(|used| used.cpu)),
            peak: rounds.iter().map(|used| used.peak).max().unwrap_or_default(),
            ratio: floor.map(|floor| Spread::of(rounds.iter().zip(floor).map(|(used, floor)| used.wall / floor.wall))),
        }
    }

    /// Seconds of processor time for a million events.
    pub fn cpu_per_million(&self) -> f64 {
        self.cpu.median / float(self.volume.events) * 1e6
    }
}

/// A way to move events, side by side with its floor.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Comparison {
    /// Name of the way.
    pub way: Way,
    /// The plainest program that moves the same bytes.
    pub floor: Row,
    /// What the server is able to send; none where it only takes in.
    pub ceiling: Option<Row>,
    /// The measured program.
    pub program: Row,
}

/// How events are moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// `read` by query, answers not compressed.
    Query,
    /// `read` by query, answers compressed with gzip.
    QueryGzip,
    /// `read` by export.
    Export,
    /// `destination-patterns write`.
    Write,
}

impl Way {
    /// As it is called in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Query => "read by query",
            Self::QueryGzip => "read by query, gzip",
            Self::Export => "read by export",
            Self::Write => "destination-patterns write",
        }
    }
}

/// Processor time next to Airbyte's connector.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Airbyte {
    pub version: String,
    /// Events of the small and of the large run.
    pub events: [u64; 2],
    /// Seconds of processor time of its runs.
    pub theirs: [Spread; 2],
    /// Seconds of processor time of this connector's runs.
    pub ours: [Spread; 2],
}

impl Airbyte {
    /// Their seconds for a million events, without their start-up.
    pub fn theirs_per_million(&self) -> f64 {
        let [few, many] = self.events;
        let [before, after] = self.theirs;
        (after.median - before.median) / float(many - few) * 1e6
    }

    /// Our seconds for a million events, start-up included.
    pub fn ours_per_million(&self) -> f64 {
        self.ours[1].median / float(self.events[1]) * 1e6
    }
}

/// Wall time with so many requests at a time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Concurrency {
    /// Requests at a time.
    pub requests: usize,
    /// Queries that were in work at the same time, at most, as the server saw it.
    pub peak: usize,
    /// Seconds.
    pub wall: Spread,
}

/// What reading a year costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Requests to the query endpoint.
    pub requests: u64,
    /// Events that came.
    pub rows: u64,
    /// Bytes that the queries read on the server, by the sandbox's estimate.
    pub read: u64,
}

/// Planned windows next to a request and a count for every day.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Planning {
    /// Days from the first to the last.
    pub days: u64,
    pub days_with_events: u64,
    /// Events of the heaviest day.
    pub heaviest: u64,
    /// The connector.
    pub planned: Cost,
    /// A request and a count for every day.
    pub naive: Cost,
}

/// What one sync costs.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct SyncCost {
    pub queries: u64,
    /// Bytes that PostHog reads for figures.
    pub figures: u64,
    /// Bytes that PostHog reads for everything.
    pub bytes: u64,
    /// Seconds.
    pub wall: Spread,
    /// Whether it was calculated and not run.
    pub planned: bool,
}

/// What syncs cost with so many events.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SyncCosts {
    pub events: u64,
    /// Days that they are spread over.
    pub days: u64,
    /// Rows of a page.
    pub page: u64,
    /// Bytes that PostHog reads for the figures of all days.
    pub full: u64,
    /// Reads everything.
    pub first: SyncCost,
    /// Finds nothing new.
    pub idle: SyncCost,
    /// Finds some new events.
    pub added: SyncCost,
}

/// How long one sync takes when PostHog takes its time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pace {
    /// What is synced.
    pub name: String,
    /// Seconds that it took.
    pub wall: f64,
    /// Seconds that it may take.
    pub most: f64,
    pub queries: usize,
    /// Requests other than queries and downloads.
    pub others: usize,
    /// Export runs.
    pub runs: usize,
    /// Seconds that these queries and runs take at least, within PostHog's limits.
    pub bound: f64,
}

/// One run of the benchmark.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Results {
    /// What it ran on.
    pub machine: Machine,
    /// Rows of a page.
    pub page: u64,
    /// All ways and volumes.
    pub comparisons: Vec<Comparison>,
    /// Seconds from start to end of `spec`.
    pub spec: Spread,
    pub spec_runs: usize,
    /// None without Python.
    pub airbyte: Option<Airbyte>,
    /// Time that the server takes for every query here, in seconds.
    pub latency: f64,
    /// Windows of the read with that latency.
    pub windows: u64,
    /// Wall time by requests at a time.
    pub concurrency: Vec<Concurrency>,
    /// Requests of a year.
    pub planning: Planning,
    /// Events that are new in [`SyncCosts::added`].
    pub added: u64,
    /// What syncs cost.
    pub costs: Vec<SyncCosts>,
    /// Syncs at PostHog's pace.
    pub pace: Vec<Pace>,
    /// What was to be reached, and what was.
    #[serde(default)]
    pub targets: Vec<Target>,
}

/// A count as a number to divide by.
#[expect(clippy::cast_precision_loss, reason = "counts and bytes of a benchmark")]
pub fn float(count: u64) -> f64 {
    count as f64
}

/// A number with commas between its thousands.
#[expect(clippy::needless_pass_by_value, reason = "numbers, and texts of numbers")]
pub fn grouped(number: impl ToString) -> String {
    let text = number.to_string();
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        let left = whole.len() - index;
        if left.is_multiple_of(3) && grouped.ends_with(|before: char| before.is_ascii_digit()) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_separated() {
        for (number, text) in
            [("0", "0"), ("999", "999"), ("-1000.5", "-1,000.5"), ("-999", "-999"), ("1234567", "1,234,567")]
        {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn median_is_the_middle_value() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Spread { median: 2.0, least: 1.0, most: 3.0 });
        assert!((Spread::of([4.0, 1.0]).median - 2.5).abs() < 1e-9);
        assert_eq!(Spread::of([]).median.to_bits(), 0);
    }
}
