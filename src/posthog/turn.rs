//! Turns for what takes much memory: one at a time in the whole program.
//!
//! A turn covers what has been received until its records have been written; what waits for it holds less
//! than half a megabyte.

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::large::LARGE;

static TURNS: Semaphore = Semaphore::const_new(1);

/// The turn of one response or file, while it has one. Its holder only waits for the network and for the
/// reader of stdout, never for another turn, nor for a place among the requests: those who wait for a turn have
/// one.
#[must_use]
#[derive(Debug, Default)]
pub struct Turn(Option<SemaphorePermit<'static>>);

impl Turn {
    /// Waits for a turn when `held` bytes are much, and gives it back when they are not.
    pub async fn take_for(&mut self, held: usize) {
        if held < LARGE {
            self.0 = None;
        } else if self.0.is_none() {
            // The semaphore is never closed.
            self.0 = TURNS.acquire().await.ok();
        }
    }

    pub fn is_taken(&self) -> bool {
        self.0.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_large_response_is_received_at_a_time() {
        let (mut first, mut second) = (Turn::default(), Turn::default());
        first.take_for(LARGE).await;
        second.take_for(LARGE - 1).await;
        let wait = std::time::Duration::from_mins(1);
        assert!(tokio::time::timeout(wait, second.take_for(LARGE)).await.is_err());
        first.take_for(2 * LARGE).await;
        first.take_for(0).await;
        second.take_for(LARGE).await;
    }
}
