//! Which STATEs may be acknowledged.
//!
//! A STATE is released when every record that came before it has been delivered or dead-lettered, and
//! when every earlier STATE has been released. Records of several streams travel at the same time
//! and arrive in any order; only what is still on its way matters.

use std::collections::{BTreeMap, VecDeque};

use super::batch::Ordinal;
use super::origin::Epoch;

/// The STATEs of one run that wait, and the records they wait for.
#[derive(Debug, Default)]
pub(super) struct Acknowledgements {
    next: Ordinal,
    /// First and number of all groups of records that are still on their way.
    pending: BTreeMap<Ordinal, usize>,
    states: VecDeque<Waiting>,
    counts: BTreeMap<usize, u64>,
    rejected: Vec<(Ordinal, usize)>,
}

#[derive(Debug)]
struct Waiting {
    before: Ordinal,
    stream: Option<usize>,
    line: Vec<u8>,
    records: u64,
    epoch: Epoch,
}

/// A STATE that may be acknowledged.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Released {
    /// The line as received.
    pub(super) line: Vec<u8>,
    /// Records since the STATE before it, without dead-lettered ones.
    pub(super) records: u64,
    /// Records that were dead-lettered.
    pub(super) rejected: u64,
    /// What begins with it.
    pub(super) epoch: Epoch,
}

impl Acknowledgements {
    /// Enters a record of a stream and returns its place.
    pub(super) fn record(&mut self, stream: usize) -> Ordinal {
        let ordinal = self.next;
        self.next += 1;
        *self.counts.entry(stream).or_default() += 1;
        ordinal
    }

    /// The batch that begins with this record is on its way.
    pub(super) fn begin(&mut self, first: Ordinal) {
        *self.pending.entry(first).or_default() += 1;
    }

    /// That batch has arrived, except for dead-lettered records.
    pub(super) fn end(&mut self, first: Ordinal, stream: usize, dead_lettered: &[Ordinal]) {
        if let Some(count) = self.pending.get_mut(&first) {
            *count -= 1;
            if *count == 0 {
                self.pending.remove(&first);
            }
        }
        self.rejected.extend(dead_lettered.iter().map(|ordinal| (*ordinal, stream)));
    }

    /// Enters a STATE of a stream, or of all streams, and the epoch that begins with it. Returns how many
    /// records have come since the one before it.
    pub(super) fn state(&mut self, stream: Option<usize>, line: Vec<u8>, epoch: Epoch) -> u64 {
        let records = match stream {
            Some(stream) => self.counts.remove(&stream).unwrap_or(0),
            None => std::mem::take(&mut self.counts).into_values().sum(),
        };
        self.states.push_back(Waiting { before: self.next, stream, line, records, epoch });
        records
    }

    /// The STATEs that may be acknowledged now, in their order.
    pub(super) fn release(&mut self) -> Vec<Released> {
        let reached = self.pending.keys().next().copied().unwrap_or(Ordinal::MAX);
        let mut released = Vec::new();
        while self.states.front().is_some_and(|state| state.before <= reached) {
            let Some(state) = self.states.pop_front() else { break };
            let covers = |(ordinal, stream): &(Ordinal, usize)| {
                *ordinal < state.before && state.stream.is_none_or(|own| own == *stream)
            };
            let rejected = self.rejected.iter().filter(|entry| covers(entry)).count() as u64;
            self.rejected.retain(|entry| !covers(entry));
            let records = state.records.saturating_sub(rejected);
            released.push(Released { line: state.line, records, rejected, epoch: state.epoch });
        }
        released
    }

    /// STATEs that still wait.
    pub(super) fn waiting(&self) -> usize {
        self.states.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Record(usize),
        State(Option<usize>),
        /// The open batch of a stream is sent.
        Send(usize),
        /// One of the sent batches arrives, with or without a dead-lettered record.
        Arrive(usize, bool),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0usize..3).prop_map(Step::Record),
            2 => prop::option::of(0usize..3).prop_map(Step::State),
            2 => (0usize..3).prop_map(Step::Send),
            2 => (0usize..10, any::<bool>()).prop_map(|(which, dead_lettered)| Step::Arrive(which, dead_lettered)),
        ];
        prop::collection::vec(step, 0..120)
    }

    proptest! {
        /// A STATE never leaves while a record before it is on its way; all leave in order in the end,
        /// and their counts add up.
        #[test]
        fn states_never_run_ahead(steps in steps()) {
            let mut acknowledgements = Acknowledgements::default();
            let mut open: BTreeMap<usize, Vec<Ordinal>> = BTreeMap::new();
            let mut sent: Vec<(usize, Vec<Ordinal>)> = Vec::new();
            let mut states: Vec<Ordinal> = Vec::new();
            let (mut records, mut set_aside_total, mut out) = (0u64, 0u64, Vec::new());
            let flush: Vec<Step> = (0..3).map(Step::Send).chain((0..400).map(|_| Step::Arrive(0, false))).collect();
            let last = [Step::State(None)];
            for step in steps.iter().chain(&last).chain(&flush) {
                match step {
                    Step::Record(stream) => {
                        let ordinal = acknowledgements.record(*stream);
                        let batch = open.entry(*stream).or_default();
                        if batch.is_empty() {
                            acknowledgements.begin(ordinal);
                        }
                        batch.push(ordinal);
                        records += 1;
                    }
                    Step::State(stream) => {
                        acknowledgements.state(*stream, states.len().to_string().into_bytes(), Epoch::new());
                        states.push(acknowledgements.next);
                    }
                    Step::Send(stream) => {
                        if let Some(batch) = open.remove(stream).filter(|batch| !batch.is_empty()) {
                            sent.push((*stream, batch));
                        }
                    }
                    Step::Arrive(which, reject) if !sent.is_empty() => {
                        let (stream, batch) = sent.remove(which % sent.len());
                        let dead_lettered = if *reject { vec![*batch.last().unwrap()] } else { Vec::new() };
                        set_aside_total += dead_lettered.len() as u64;
                        acknowledgements.end(batch[0], stream, &dead_lettered);
                    }
                    Step::Arrive(..) => {}
                }
                for state in acknowledgements.release() {
                    let number: usize = String::from_utf8(state.line.clone()).unwrap().parse().unwrap();
                    prop_assert_eq!(number, out.len());
                    let before = states[number];
                    let on_the_way = open.values().chain(sent.iter().map(|(_, batch)| batch)).flatten();
                    prop_assert!(on_the_way.copied().all(|ordinal| ordinal >= before));
                    out.push(state);
                }
            }
            prop_assert_eq!(out.len(), states.len());
            prop_assert_eq!(out.iter().map(|state| state.records + state.rejected).sum::<u64>(), records);
            prop_assert_eq!(out.iter().map(|state| state.rejected).sum::<u64>(), set_aside_total);
        }
    }
}
