//! Events that come while the server runs. A sandbox answers for them.

use std::sync::{Mutex, PoisonError};

use anyhow::Context;
use axum::body::Bytes;
use chrono::Utc;
use posthog_sandbox::posthog::{Event, Sandbox};
use serde::Deserialize;
use uuid::Uuid;

use super::condition::Span;
use super::figures::Cells;
use crate::events::samples;
use crate::http::{Client, PROJECT};

/// A store of its own beside that of the events that have been there from the beginning.
#[derive(Debug)]
pub(super) struct Fresh {
    sandbox: Sandbox,
    client: Client,
    added: Mutex<Option<Added>>,
}

#[derive(Debug, Clone, Copy)]
struct Added {
    /// When the first of them happened.
    first: i64,
    /// When they arrived.
    at: i64,
    rows: u64,
}

impl Fresh {
    /// Without any event.
    ///
    /// # Errors
    /// When the sandbox does not start.
    pub(super) async fn new() -> anyhow::Result<Self> {
        Ok(Self { sandbox: Sandbox::builder().start().await?, client: Client::default(), added: Mutex::new(None) })
    }

    /// Adds events that happen and arrive now.
    ///
    /// # Errors
    /// When there are no samples.
    pub(super) async fn add(&self, rows: u64) -> anyhow::Result<()> {
        let samples = samples().await?;
        let (at, count) = (Utc::now().timestamp_micros(), i64::try_from(rows)?);
        let events = samples.iter().cycle().zip(0..count).map(|(sample, number)| Event {
            uuid: Uuid::new_v5(&Uuid::NAMESPACE_OID, &[at.to_be_bytes(), number.to_be_bytes()].concat()),
            timestamp: at - count + number,
            created_at: at,
            ..sample.clone()
        });
        self.sandbox.insert(PROJECT, events.collect());
        *self.added.lock().unwrap_or_else(PoisonError::into_inner) = Some(Added { first: at - count, at, rows });
        Ok(())
    }

    fn added(&self) -> Option<Added> {
        *self.added.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many of them are on the days of a span.
    pub(super) fn rows(&self, happened: Span) -> u64 {
        self.added().filter(|added| happened.to > added.first).map_or(0, |added| added.rows)
    }

    /// Whether only these events can have arrived in a span, and not those from the beginning.
    pub(super) fn has_all(&self, arrived: Span, end: i64) -> bool {
        arrived.from >= end && self.added().is_some_and(|added| arrived.to > added.at)
    }

    /// URL of the sandbox.
    pub(super) fn url(&self) -> String {
        self.sandbox.url()
    }

    pub(super) async fn query(&self, sql: &str) -> anyhow::Result<Bytes> {
        self.client.query(&self.sandbox.url(), sql).await
    }

    /// Adds the figures of these events to others; `sql` asks for both.
    ///
    /// # Errors
    /// When the answer has another shape.
    pub(super) async fn count(&self, sql: &str, cells: &mut Cells) -> anyhow::Result<()> {
        #[derive(Deserialize)]
        struct Observed {
            results: Vec<(u64, u64, Vec<Vec<i64>>)>,
        }
        if self.added().is_none() {
            return Ok(());
        }
        let observed: Observed = serde_json::from_slice(&self.query(sql).await?)?;
        for row in observed.results.into_iter().flat_map(|(_, _, rows)| rows) {
            let (key, rows, checksum) = match row[..] {
                [period, slice, rows, checksum] => ((period, usize::try_from(slice)?), rows, checksum),
                [period, rows, checksum, ..] => ((period, 0), rows, checksum),
                _ => anyhow::bail!("a figure has too few numbers"),
            };
            let cell = cells.entry(key).or_default();
            let (rows, checksum) = (u64::try_from(rows)?, u64::try_from(checksum).context("a checksum")?);
            *cell = (cell.0 + rows, cell.1.wrapping_add(checksum));
        }
        Ok(())
    }
}
