//! What is said of days that differ in the end.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::sync::ledger::{Cell, Difference, Part, Period, ROUNDS};

/// The days that differ, each with what has been emitted and what PostHog has.
pub(super) fn differing_days(cells: &BTreeMap<Period, Cell>, differs: &[(Part, Difference)]) -> Vec<String> {
    let mut changes: BTreeMap<Period, (u64, u64)> = BTreeMap::new();
    for (_, Difference { key, held, observed, .. }) in differs {
        let (fewer, more) = changes.entry(key.period).or_default();
        (*fewer, *more) = (*fewer + held.count, *more + observed.count);
    }
    let describe = |(period, (fewer, more)): (&Period, &(u64, u64))| {
        let emitted = cells.get(period).map_or(0, |cell| cell.emitted.count);
        match (emitted + more).saturating_sub(*fewer) {
            same if same == emitted => format!("{period} ({emitted} emitted, PostHog has as many, but others)"),
            shown => format!("{period} ({emitted} emitted, PostHog has {shown})"),
        }
    };
    changes.iter().map(describe).collect()
}

/// The sentence for figures that could not be made to agree.
pub(super) fn disagreement(differs: &[(Part, Difference)]) -> Error {
    const MOST: usize = 5;
    let mut days: Vec<String> = differs.iter().take(MOST).map(|(_, difference)| difference.describe()).collect();
    if differs.len() > MOST {
        days.push(format!("and {} more", differs.len() - MOST));
    }
    Error::system(format!(
        "events do not agree with PostHog's figures after {ROUNDS} attempts: {}. Everything else was read; the next sync tries again",
        days.join("; ")
    ))
}
