//! Decides which objects of a list are emitted, and emits them.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::sent::Sent;
use super::state::ListState;
use crate::error::Error;
use crate::protocol::Batch;
use crate::records::{Object, ObjectWriter, key_number};
use crate::sync::state::checkpoint::Checkpoint;
use crate::time::Timestamp;

/// Emits the objects of one list and one project, a page at a time.
pub(super) struct Emitter {
    writer: ObjectWriter,
    /// Field with the time of an object's change.
    change: Option<&'static str>,
    /// Objects that changed before this are left out.
    since: Option<Timestamp>,
    /// Objects that changed after this are left out.
    before: Option<Timestamp>,
    /// What the destination has of objects that later syncs meet again, as of the last page that has been sent.
    sent: Sent,
    /// The time of change from which on later syncs meet objects again; none for a full refresh.
    keep_from: Option<Timestamp>,
    /// The page's objects that `sent` is to have.
    added: Vec<Added>,
    /// Whether the last STATE has objects of the page with other content.
    is_state_wrong: bool,
    /// Checksums of what this sync has emitted, where pages may show it again.
    emitted: Option<HashMap<u64, u64>>,
    /// Objects without a time of change that this sync has met.
    met: HashSet<u64>,
}

struct Added {
    key: u64,
    checksum: u64,
    changed: Option<Timestamp>,
}

impl Emitter {
    /// Leaves out what is in `sent` and has not changed. `keep_from` is the time of change from which on later
    /// syncs meet objects again.
    pub(super) fn new(
        writer: ObjectWriter,
        change: Option<&'static str>,
        sent: Sent,
        keep_from: Option<Timestamp>,
    ) -> Self {
        Self {
            writer,
            change,
            since: None,
            before: None,
            sent,
            keep_from,
            added: Vec::new(),
            is_state_wrong: false,
            emitted: None,
            met: HashSet::new(),
        }
    }

    /// From now on emits only what changed between these times, both included.
    pub(super) fn keep_within(&mut self, since: Option<Timestamp>, before: Option<Timestamp>) {
        (self.since, self.before) = (since, before);
    }

    /// From now on pages may show objects again.
    pub(super) fn expect_repeats(&mut self) {
        self.emitted.get_or_insert_default();
    }

    /// Emits an object, unless its last record has the same content. `labels` are fields that the server does not
    /// send.
    pub(super) fn emit(
        &mut self,
        key: &str,
        object: &Object<'_>,
        labels: &[(&'static str, Value)],
        batch: &mut Batch<'_>,
    ) {
        let changed = self.change.and_then(|field| object.instant(field));
        let key = key_number(key);
        if changed.is_none() {
            self.met.insert(key);
        }
        let is_old = changed.zip(self.since).is_some_and(|(changed, since)| changed < since);
        let is_later = changed.zip(self.before).is_some_and(|(changed, before)| changed > before);
        if is_old || is_later {
            return;
        }
        let data = self.writer.data(object, labels);
        let checksum = data.checksum;
        let last = self.emitted.as_ref().and_then(|emitted| emitted.get(&key).copied());
        if last.or_else(|| self.sent.checksum(key)) == Some(checksum) {
            return;
        }
        self.is_state_wrong |= self.sent.remove(key);
        if let Some(emitted) = &mut self.emitted {
            emitted.insert(key, checksum);
        }
        if self.keep_from.is_some_and(|from| changed.is_none_or(|changed| changed >= from)) {
            self.added.push(Added { key, checksum, changed });
        }
        self.writer.write(&data, batch.lines.as_vec());
        batch.records += 1;
    }

    /// Sends a page's records. If the last STATE has other content of an object among them, one without it goes
    /// ahead: were the sync interrupted behind these records, an object that has changed back would be left out.
    ///
    /// # Errors
    /// When stdout has been closed by its reader.
    pub(super) async fn send(
        &mut self,
        mut batch: Batch<'_>,
        checkpoint: &Checkpoint<ListState>,
        project: u64,
        state: &ListState,
    ) -> Result<(), Error> {
        if std::mem::take(&mut self.is_state_wrong) {
            checkpoint.set(project, self.state(state)).await?;
        }
        batch.send(true).await?;
        for Added { key, checksum, changed } in self.added.drain(..) {
            self.sent.add(key, checksum, changed);
        }
        Ok(())
    }

    /// This state, with what the destination has once all pages that have been sent are there.
    pub(super) fn state(&mut self, state: &ListState) -> ListState {
        self.sent.bound();
        ListState { sent: self.sent.clone(), ..state.clone() }
    }

    /// Ends the sync: logs what was left out, and returns what later ones are to leave out. `all_met` is
    /// true if this sync has met every object that still exists.
    pub(super) fn finish(mut self, all_met: bool) -> Sent {
        self.writer.report();
        if let Some(from) = self.keep_from {
            self.sent.keep(from, all_met.then_some(&self.met));
        }
        self.sent.bound();
        self.sent
    }
}
