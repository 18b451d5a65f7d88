//! What is to be reached.

use serde::{Deserialize, Serialize};

use crate::results::{Pace, Results, SyncCosts, Way, float, grouped};

/// Bytes of a MiB.
pub const MEBIBYTE: u64 = 1 << 20;
/// Most that `read` may take in memory, in bytes.
pub const MOST_MEMORY: u64 = 64 * MEBIBYTE;
/// Longest start-up of `spec`, in seconds.
const LONGEST_SPEC: f64 = 0.010;
/// Memory with the most events by that with the next fewer: flat, up to the noise of an allocator.
/// The fewest are no measure, since they are fewer pages than may be read at a time.
const FLAT: f64 = 1.25;

/// Most queries of a sync that finds nothing new.
const MOST_IDLE_QUERIES: u64 = 2;
/// Most bytes that PostHog may read for the figures of a sync that finds nothing new.
const MOST_OBSERVED: u64 = 200_000_000;

/// Wall time of `read` by that of the floor, at most.
pub fn most_ratio(way: Way) -> Option<f64> {
    match way {
        Way::Query | Way::QueryGzip => Some(2.0),
        Way::Export => Some(1.3),
        Way::Write => Some(2.5),
    }
}

/// One line of the list of targets.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Target {
    /// What is to be reached.
    pub aim: String,
    pub reached: String,
    /// Whether that is enough.
    pub met: bool,
}

impl Target {
    fn new(aim: String, reached: String, met: bool) -> Self {
        Self { aim, reached, met }
    }
}

/// Compares a run with all targets.
pub fn judge(results: &Results) -> Vec<Target> {
    let mut targets = Vec::new();
    for comparison in &results.comparisons {
        let (Some(most), Some(ratio)) = (most_ratio(comparison.way), comparison.program.ratio) else { continue };
        let (name, events) = (comparison.way.name(), grouped(comparison.program.volume.events));
        let aim = format!("{name}, {events} events: wall time at most {most:.1} times the floor");
        targets.push(Target::new(aim, format!("{:.2}", ratio.median), ratio.median <= most));
    }
    for way in [Way::Query, Way::QueryGzip, Way::Export] {
        let mut of_way: Vec<_> = results.comparisons.iter().filter(|comparison| comparison.way == way).collect();
        of_way.sort_by_key(|comparison| comparison.program.volume.events);
        let peaks: Vec<u64> = of_way.iter().map(|comparison| comparison.program.peak).collect();
        let [.., few, many] = peaks.as_slice() else { continue };
        let Some(most) = peaks.iter().max() else { continue };
        let name = way.name();
        let [few, many, most] = [few, many, most].map(|bytes| float(*bytes) / float(MEBIBYTE));
        let aim = format!("{name}: peak memory below 64 MiB");
        targets.push(Target::new(aim, format!("{most:.1} MiB"), most < float(MOST_MEMORY) / float(MEBIBYTE)));
        let reached = format!("{few:.1} to {many:.1} MiB");
        targets.push(Target::new(format!("{name}: memory flat as volume grows"), reached, many / few <= FLAT));
    }
    let reached = format!("{:.1} ms", results.spec.median * 1e3);
    targets.push(Target::new("`spec` below 10 ms".to_owned(), reached, results.spec.median < LONGEST_SPEC));
    if let Some(airbyte) = &results.airbyte {
        let times = airbyte.theirs_per_million() / airbyte.ours_per_million();
        let aim = "processor time per event at most a twentieth of Airbyte's Python connector".to_owned();
        targets.push(Target::new(aim, format!("1/{times:.0}"), times >= 20.0));
    }
    let seconds = |requests: usize| results.concurrency.iter().find(|row| row.requests == requests).map(|row| row.wall);
    if let Some((one, three)) = seconds(1).zip(seconds(3)) {
        let times = one.median / three.median;
        let aim = "three requests at a time at least 2.5 times as fast as one".to_owned();
        targets.push(Target::new(aim, format!("{times:.2} times"), times >= 2.5));
    }
    targets.extend(results.costs.iter().flat_map(of_costs));
    targets.extend(results.pace.iter().map(of_pace));
    targets
}

/// The target of a sync at PostHog's pace.
pub fn of_pace(pace: &Pace) -> Target {
    let Pace { name, wall, most, .. } = pace;
    Target::new(format!("{name}: at most {most:.0} s"), format!("{wall:.1} s"), wall <= most)
}

/// The targets of a sync that finds nothing new.
pub fn of_costs(costs: &SyncCosts) -> [Target; 2] {
    let SyncCosts { events, idle, .. } = costs;
    let sync = format!("nothing new among {} events", grouped(events));
    let read = format!("{} MB", grouped(format!("{:.1}", float(idle.bytes) / 1e6)));
    [
        Target::new(
            format!("{sync}: at most {MOST_IDLE_QUERIES} queries"),
            grouped(idle.queries),
            idle.queries <= MOST_IDLE_QUERIES,
        ),
        Target::new(
            format!("{sync}: PostHog reads at most {} MB", MOST_OBSERVED / 1_000_000),
            read,
            idle.bytes <= MOST_OBSERVED,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{Spread, SyncCost};

    #[test]
    fn a_sync_that_finds_nothing_may_ask_twice_and_read_200_megabytes() {
        let met = |queries, bytes| {
            let cost = SyncCost { queries, figures: bytes, bytes, wall: Spread::of([]), planned: false };
            let costs = SyncCosts { events: 5_000, days: 1, page: 1, full: 0, first: cost, idle: cost, added: cost };
            of_costs(&costs).map(|target| target.met)
        };
        assert_eq!(met(2, 200_000_000), [true, true]);
        assert_eq!(met(3, 200_000_001), [false, false]);
    }
}
