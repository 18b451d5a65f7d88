//! What is said of states that cannot be used, or that are ahead of the clock.

use serde_json::Value;

use crate::error::Error;
use crate::time::Timestamp;

/// Says so when what the next sync begins with, `from`, is ahead of the server's clock: what came in
/// before that has perhaps been read by nobody, and nothing else would tell.
pub(crate) fn warn_if_ahead(stream: &str, watermark: Timestamp, from: Timestamp, now: Timestamp) {
    if from > now {
        tracing::warn!(
            "the state says that {stream} have been read up to {watermark}, which PostHog's clock ({now}) has not reached; what came in since the sync before that state is not read. To read it, clear the stream's state"
        );
    }
}

pub(crate) fn unusable(problem: impl std::fmt::Display) -> Error {
    Error::config(format!("the state is not usable: {problem}. To read everything again, start without a state"))
}

/// An instant of a state.
pub(crate) fn instant(field: &str, value: &Value) -> Result<Timestamp, Error> {
    let parsed = value.as_str().and_then(Timestamp::parse);
    parsed
        .ok_or_else(|| unusable(format_args!("`{field}` is {value}, which is not a time such as 2026-01-31T00:00:00Z")))
}
