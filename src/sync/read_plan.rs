//! What a sync would read. Readers decide as always; where reading would begin, they enter it here instead.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use crate::lock::lock;

/// Which way rows would be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PlannedMethod {
    /// Queries.
    Query,
    /// File exports.
    Export,
    /// Lists.
    List,
}

/// What would be read of one stream of one project by one method. Numbers are those that have been counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlannedRead {
    /// Days of event time, where a table is read by days.
    pub days: BTreeSet<i64>,
    /// Rows, if they have been counted.
    pub rows: Option<u64>,
    /// Export runs that would be started.
    pub runs: u64,
    /// Rows that these would export, if they have been counted. They can be more than those that are wanted.
    pub exported_rows: Option<u64>,
    /// Queries, or requests for parts of lists.
    pub queries: u64,
    /// Rows that the server would look at to answer with pages of rows.
    pub scanned_rows: u64,
    /// Bytes that it would read for comparisons and counts.
    pub bytes: u64,
}

/// Stream, project and method of what would be read.
pub(crate) type PlannedKey = (String, u64, PlannedMethod);

/// Collects what would be read. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct ReadPlan(Arc<Mutex<BTreeMap<PlannedKey, PlannedRead>>>);

impl ReadPlan {
    /// Adds to what a stream of a project would read.
    pub(crate) fn add(&self, stream: &str, project: u64, method: PlannedMethod, read: PlannedRead) {
        let mut reads = lock(&self.0);
        reads.entry((stream.to_owned(), project, method)).or_default().add(read);
    }

    /// What has been entered.
    pub(crate) fn reads(&self) -> BTreeMap<PlannedKey, PlannedRead> {
        lock(&self.0).clone()
    }
}

impl PlannedRead {
    /// Pages of so many rows, where the server looks at `scanned` rows for each.
    pub(crate) fn pages(rows: u64, page_size: u32, scanned: u64) -> Self {
        let pages = rows.div_ceil(u64::from(page_size).max(1)).max(1);
        Self { rows: Some(rows), queries: pages, scanned_rows: scanned.saturating_mul(pages), ..Self::default() }
    }

    pub(crate) fn add(&mut self, more: Self) {
        let sum = |known: Option<u64>, more: Option<u64>| known.into_iter().chain(more).reduce(|sum, more| sum + more);
        self.days.extend(more.days);
        self.rows = sum(self.rows, more.rows);
        self.runs += more.runs;
        self.exported_rows = sum(self.exported_rows, more.exported_rows);
        self.queries += more.queries;
        self.scanned_rows = self.scanned_rows.saturating_add(more.scanned_rows);
        self.bytes = self.bytes.saturating_add(more.bytes);
    }
}
