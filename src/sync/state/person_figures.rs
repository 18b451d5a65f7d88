//! Whether persons or their distinct ids have changed since they were read, by figures that queries show.
//!
//! A run takes three quarters of a minute, also if it exports nothing, and each repeats what has changed in the last
//! hour. No column of these tables says when a row has changed. But every change of a person or a distinct id, merges
//! and deletions included, is a row with a higher version, and the newest versions of all add up to a figure.
//!
//! An export ends some minutes before the figures were asked for. So what they show counts as read only when an export,
//! or a first read by query, reaches the time at which they were seen first. What they cannot show: a row that is
//! stored again in the same version, and what a replica that is behind does not have yet. The next figures show the
//! latter, and a run is made once a day in any case. As the watermark stays while nothing is exported, the next run
//! begins where the last one ended.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use crate::records::Fingerprint;
use crate::sync::ledger::CHEAP_BYTES;
use crate::time::Timestamp;

/// A run is made once in so much time, and figures that cost much are asked for again.
const RUN_EVERY: TimeDelta = TimeDelta::hours(24);

/// All persons and all distinct ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonFigures {
    pub persons: Fingerprint,
    pub distinct_ids: Fingerprint,
}

/// The figures that syncs have seen last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenFigures {
    /// None where they cannot be asked for.
    #[serde(flatten)]
    pub figures: Option<PersonFigures>,
    /// When they were seen first, by the server's clock.
    pub since: Timestamp,
    /// Bytes that they make the server read.
    pub bytes: u64,
}

impl SeenFigures {
    /// Whether asking again would cost too much.
    pub(crate) fn is_too_expensive(&self, now: Timestamp) -> bool {
        self.bytes > CHEAP_BYTES && self.since > now.minus(RUN_EVERY)
    }

    /// Whether everything that the figures show has been read, if all was read up to `until`; and not too long ago.
    pub(crate) fn are_read(&self, until: Timestamp, now: Timestamp) -> bool {
        self.figures.is_some() && until >= self.since && until > now.minus(RUN_EVERY)
    }

    /// What is known after the figures have been asked for: those that are the same keep their time.
    pub(crate) fn after(known: Option<Self>, asked: Self) -> Self {
        known.filter(|known| known.figures == asked.figures && known.figures.is_some()).unwrap_or(asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(rows: u64, minute: i64) -> SeenFigures {
        let figure = Fingerprint::new(rows, rows);
        let figures = Some(PersonFigures { persons: figure, distinct_ids: figure });
        SeenFigures { figures, since: at(minute), bytes: 1 }
    }

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_micros(minute * 60_000_000)
    }

    #[test]
    fn figures_are_read_when_an_export_reaches_the_time_at_which_they_were_seen_first() {
        let first = SeenFigures::after(None, seen(5, 10));
        assert!(!first.are_read(at(7), at(10)), "the export ends before what the figures show");
        let second = SeenFigures::after(Some(first), seen(5, 15));
        assert_eq!(second.since, at(10));
        assert!(!second.are_read(at(7), at(15)) && second.are_read(at(12), at(15)));
        let changed = SeenFigures::after(Some(second), seen(6, 20));
        assert!(!changed.are_read(at(12), at(20)));
        assert!(!second.are_read(at(12), at(12 + 24 * 60)), "once a day in any case");
    }

    #[test]
    fn what_cannot_be_asked_for_is_never_taken_for_read() {
        let nothing = SeenFigures { figures: None, since: at(10), bytes: CHEAP_BYTES + 1 };
        let again = SeenFigures::after(Some(nothing), SeenFigures { since: at(20), ..nothing });
        assert!(!again.are_read(at(30), at(31)) && again.is_too_expensive(at(31)));
        assert!(!again.is_too_expensive(at(20 + 24 * 60)), "perhaps it can be asked for now");
    }

    #[test]
    fn a_state_keeps_them() {
        for seen in [seen(5, 10), SeenFigures { figures: None, ..seen(5, 10) }] {
            let text = serde_json::to_string(&seen).unwrap();
            assert_eq!(serde_json::from_str::<SeenFigures>(&text).unwrap(), seen, "{text}");
        }
    }
}
