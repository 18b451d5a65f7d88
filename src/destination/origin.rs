//! Where a record stands behind the last acknowledged state, so that the next run can tell a repeat.
//!
//! A run that is interrupted is followed by one that begins at the same state and sends the same events
//! again. Their requests get the same keys, because these are made of the *epoch*, the place behind it
//! and the body. The epoch changes with every acknowledged state, when a run ends well, and when somebody
//! else has changed the state file; so what is sent again on purpose has other keys.
//!
//! This is for events alone, which never change. Anything else may have changed and changed back between
//! two runs; a receiver that takes the last request for a repeat of the first would keep the value in
//! between.

use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

/// The name of the stream whose records never change.
pub(super) const EVENTS: &str = "events";

/// What all records since an acknowledged state have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Epoch(u128);

impl Epoch {
    /// One that no other run has.
    pub(super) fn new() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self((since_epoch.as_nanos() << 32) | u128::from(std::process::id()))
    }

    /// The epoch that begins with this state.
    #[must_use]
    pub(super) fn after(self, state: &[u8]) -> Self {
        let mut bytes = [0; 16];
        let digest = Sha256::new().chain_update(self.0.to_be_bytes()).chain_update(state).finalize();
        for (byte, digit) in bytes.iter_mut().zip(digest) {
            *byte = digit;
        }
        Self(u128::from_be_bytes(bytes))
    }

    /// Reads a text of [`Epoch::mark`], if it is about these states.
    pub(super) fn parse(mark: &str, states: &str) -> Option<Self> {
        let (epoch, rest) = mark.split_once(' ')?;
        let epoch = Self(u128::from_str_radix(epoch, 16).ok()?);
        (rest.trim_end() == epoch.checksum(states)).then_some(epoch)
    }

    /// The epoch, and the states that it belongs to.
    pub(super) fn mark(self, states: &str) -> String {
        format!("{:032x} {}\n", self.0, self.checksum(states))
    }

    fn checksum(self, states: &str) -> String {
        format!("{:032x}", self.after(states.as_bytes()).0)
    }
}

/// The place of a record: in which epoch, and how many records of its stream are before it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) epoch: Epoch,
    pub(super) place: u64,
}

impl Origin {
    /// The place so many records further.
    pub(super) fn plus(self, records: usize) -> Self {
        Self { place: self.place + records as u64, ..self }
    }

    /// The same for every attempt at a request, and for no other request: of the same run, or of runs that
    /// do not begin at the same state.
    pub(super) fn key(self, stream: &str, body: &[u8]) -> String {
        let mut digest = Sha256::new();
        digest.update(self.epoch.0.to_be_bytes());
        digest.update(self.place.to_be_bytes());
        digest.update(stream.as_bytes());
        digest.update([0]);
        digest.update(body);
        let hexadecimal: Vec<String> = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("msg_{}", hexadecimal.concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_requests_have_the_same_key() {
        let origin = Origin { epoch: Epoch(1), place: 0 };
        let key = origin.key("events", b"[1]");
        assert_eq!(key, origin.key("events", b"[1]"));
        for other in [
            origin.key("persons", b"[1]"),
            origin.key("events", b"[2]"),
            origin.plus(1).key("events", b"[1]"),
            Origin { epoch: Epoch(1).after(b"state"), place: 0 }.key("events", b"[1]"),
        ] {
            assert_ne!(key, other);
        }
    }

    #[test]
    fn an_epoch_belongs_to_its_states() {
        let epoch = Epoch::new();
        let mark = epoch.mark("[1]");
        assert_eq!(Epoch::parse(&mark, "[1]"), Some(epoch));
        for (mark, states) in [(&*mark, "[2]"), ("", "[1]"), ("5", "[1]"), (mark.split_at(20).0, "[1]")] {
            assert_eq!(Epoch::parse(mark, states), None, "{mark}");
        }
        assert_ne!(epoch.after(b"complete"), epoch.after(b"complete").after(b"complete"));
    }
}
