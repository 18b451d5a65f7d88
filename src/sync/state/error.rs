//! What is said of states that cannot be used, or that are ahead of the clock.

use serde_json::Value;

use crate::error::Error;
use crate::time::Timestamp;

/// Refuses a state when what the next sync begins with, `from`, is ahead of the server's clock: what was
/// ingested before that may never have been read, and nothing else would show it.
///
/// # Errors
/// A config error that says how to go on.
pub(crate) fn refuse_ahead(stream: &str, watermark: Timestamp, from: Timestamp, now: Timestamp) -> Result<(), Error> {
    if from <= now {
        return Ok(());
    }
    Err(Error::config(format!(
        "the state says that {stream} have been read up to {watermark}, which PostHog's clock ({now}) has not reached: a clock was wrong when it was written, and what has come in since would never be read. Clear the stream's state to read everything again"
    )))
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
