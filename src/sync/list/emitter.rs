//! Decides which objects of a list are emitted, and emits them.

use std::collections::HashMap;

use serde_json::Value;

use super::checksums::{Checksums, checksum};
use crate::protocol::Batch;
use crate::records::{Object, ObjectWriter};
use crate::streams::{Change, List};
use crate::time::Timestamp;

/// Emits the objects of one list and one project.
pub(super) struct Emitter {
    writer: ObjectWriter,
    change: Option<Change>,
    /// Objects that changed before this are left out.
    since: Option<Timestamp>,
    /// Objects that changed after this are left out.
    before: Option<Timestamp>,
    /// What earlier syncs have emitted.
    sent: Checksums,
    /// What the next sync is to leave out if it has not changed, and the time of change from which on it meets
    /// objects again; none for a full refresh.
    meets_again: Option<(Checksums, Timestamp)>,
    /// Checksums of what this sync has emitted, by key.
    emitted: HashMap<String, u64>,
}

impl Emitter {
    /// Leaves out what changed before `since`, and what is in `sent` and has not changed. `meets_from` is where
    /// the next sync begins.
    pub(super) fn new(
        writer: ObjectWriter,
        list: &List,
        since: Option<Timestamp>,
        sent: Checksums,
        meets_from: Option<Timestamp>,
    ) -> Self {
        let meets_again = meets_from.map(|from| (Checksums::default(), from));
        Self { writer, change: list.change, since, before: None, sent, meets_again, emitted: HashMap::new() }
    }

    /// Emits an object unless this sync has done so, and it has not changed since.
    pub(super) fn emit_once(
        &mut self,
        key: String,
        object: &Object<'_>,
        labels: &[(&'static str, Value)],
        batch: &mut Batch<'_>,
    ) {
        let data = self.writer.data(object, labels);
        let checksum = checksum(&data);
        if self.emitted.insert(key, checksum) != Some(checksum) {
            self.write(object, &data, checksum, batch);
        }
    }

    /// Emits an object that this sync has not met before.
    pub(super) fn emit(&mut self, object: &Object<'_>, batch: &mut Batch<'_>) {
        let data = self.writer.data(object, &[]);
        self.write(object, &data, checksum(&data), batch);
    }

    fn write(&mut self, object: &Object<'_>, data: &[u8], checksum: u64, batch: &mut Batch<'_>) {
        let changed = self.change.and_then(|change| object.instant(change.field));
        if let Some((checksums, from)) = &mut self.meets_again
            && changed.is_none_or(|changed| changed >= *from)
        {
            checksums.add(checksum);
        }
        let is_old = changed.zip(self.since).is_some_and(|(changed, since)| changed < since);
        let is_later = changed.zip(self.before).is_some_and(|(changed, before)| changed > before);
        if !is_old && !is_later && !self.sent.has(checksum) {
            self.writer.write(data, batch.lines.as_vec());
            batch.records += 1;
        }
    }

    /// Emits only what changed in a span of time, both ends included.
    pub(super) fn keep_within(&mut self, since: Timestamp, before: Timestamp) {
        (self.since, self.before) = (Some(since), Some(before));
    }

    /// Ends the sync: logs what was left out, and returns what the next one is to leave out.
    pub(super) fn finish(self) -> Checksums {
        self.writer.report();
        self.meets_again.map(|(checksums, _)| checksums).unwrap_or_default()
    }
}
