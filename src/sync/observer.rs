//! What readers report while they read.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::posthog::http::Observer;
use crate::protocol::message::Message;
use crate::protocol::{Output, StreamDescriptor};

/// Is called with the number of rows that a scan is going to read.
pub type OnEstimate<'a> = &'a (dyn Fn(u64) + Send + Sync);

/// Reports to the platform that a stream waits for a limit.
#[derive(Clone)]
pub struct StreamObserver {
    /// Where messages go.
    pub output: Output,
    /// The stream that waits.
    pub stream: Arc<StreamDescriptor>,
}

impl Observer for StreamObserver {
    fn waiting(&self, reason: &str, until: DateTime<Utc>) {
        self.output.progress().waiting(&format!("waiting until {}: {reason}", until.format("%H:%M:%S UTC")));
        self.output.hint(&Message::rate_limited(StreamDescriptor::clone(&self.stream), until));
    }
}
