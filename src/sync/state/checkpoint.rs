//! Emits the state of a table stream as projects make progress.

use std::sync::Arc;

use tokio::sync::Mutex;

use super::interval::Interval;
use super::table::{ProjectState, TableState};
use crate::error::Error;
use crate::protocol::{Output, StreamDescriptor};

/// Keeps and emits the state of one stream.
pub struct Checkpoint {
    output: Output,
    stream: Arc<StreamDescriptor>,
    cursor_field: &'static str,
    state: Mutex<TableState>,
}

impl Checkpoint {
    /// Starts from `state`, without emitting it.
    pub fn new(output: Output, stream: Arc<StreamDescriptor>, cursor_field: &'static str, state: TableState) -> Self {
        Self { output, stream, cursor_field, state: Mutex::new(state) }
    }

    /// A copy of a project's state.
    pub async fn project(&self, id: u64) -> ProjectState {
        self.state.lock().await.project(id)
    }

    /// Changes a project's state and emits the stream's.
    ///
    /// The caller has queued every record that the change covers. The lock is held while the state
    /// is queued, so that states leave in the order in which they were made.
    ///
    /// # Errors
    /// When stdout has been closed by its reader.
    pub async fn update(&self, id: u64, change: impl FnOnce(&mut ProjectState)) -> Result<(), Error> {
        let mut state = self.state.lock().await;
        let mut project = state.project(id);
        change(&mut project);
        state.projects.insert(id, project);
        self.output.state(&self.stream, state.to_value(self.cursor_field)).await
    }

    /// Marks a window of a project's scan as read and agreed upon.
    ///
    /// # Errors
    /// When stdout has been closed by its reader.
    pub async fn close(&self, id: u64, interval: Interval) -> Result<(), Error> {
        self.update(id, |project| {
            if let Some(scan) = &mut project.scan {
                scan.close(interval);
            }
        })
        .await
    }

    /// Emits the final state of a stream; `complete` for a full refresh that has read everything.
    ///
    /// # Errors
    /// When stdout has been closed by its reader.
    pub async fn finish(&self, complete: bool) -> Result<(), Error> {
        let mut state = self.state.lock().await;
        if complete {
            *state = TableState { complete: true, ..TableState::default() };
        }
        self.output.state(&self.stream, state.to_value(self.cursor_field)).await
    }
}
