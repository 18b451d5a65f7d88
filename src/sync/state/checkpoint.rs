//! Emits the state of a stream as its projects make progress.

use std::sync::Arc;

use tokio::sync::Mutex;

use super::stream::{ProjectEntry, StreamState};
use crate::error::Error;
use crate::protocol::{Output, StreamDescriptor};

/// Keeps and emits the state of one stream.
pub struct Checkpoint<T> {
    output: Output,
    stream: Arc<StreamDescriptor>,
    state: Mutex<StreamState<T>>,
}

impl<T: ProjectEntry> Checkpoint<T> {
    /// Starts from `state`, without emitting it.
    pub fn new(output: Output, stream: Arc<StreamDescriptor>, state: StreamState<T>) -> Self {
        Self { output, stream, state: Mutex::new(state) }
    }

    /// A copy of what the state keeps for a project.
    pub async fn project(&self, id: u64) -> T {
        self.state.lock().await.project(id)
    }

    /// Changes what the state keeps for a project, and emits the stream's state.
    ///
    /// The caller has queued every record that the change covers. The lock is held while the state
    /// is queued, so that states leave in the order in which they were made.
    ///
    /// # Errors
    /// When stdout has been closed by its reader.
    pub async fn update(&self, id: u64, change: impl FnOnce(&mut T)) -> Result<(), Error> {
        let mut state = self.state.lock().await;
        change(state.projects.entry(id).or_default());
        self.output.state(&self.stream, state.to_value()).await
    }

    /// Changes what the state keeps for a project, for the next state that is emitted.
    pub async fn note(&self, id: u64, change: impl FnOnce(&mut T)) {
        change(self.state.lock().await.projects.entry(id).or_default());
    }

    /// Replaces what the state keeps for a project; see [`Checkpoint::update`].
    ///
    /// # Errors
    /// When stdout has been closed by its reader.
    pub async fn set(&self, id: u64, entry: T) -> Result<(), Error> {
        self.update(id, |known| *known = entry).await
    }

    /// Emits the final state of a stream; `complete` for a full refresh that has read everything.
    ///
    /// # Errors
    /// When stdout has been closed by its reader.
    pub async fn finish(&self, complete: bool) -> Result<(), Error> {
        let mut state = self.state.lock().await;
        if complete {
            state.complete();
        }
        self.output.state(&self.stream, state.to_value()).await
    }
}
