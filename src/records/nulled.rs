//! Warns once of values that have become null.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Shared by all writers of one stream. A value of an unexpected type costs its field and is listed in
/// the record's `meta.changes`; the log mentions it once for each stream, not once for each record.
#[derive(Debug, Clone, Default)]
pub struct NulledValues {
    warned: Arc<AtomicBool>,
}

impl NulledValues {
    /// A value of `field` has become null.
    pub(super) fn warn(&self, field: &str) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "a value of `{field}` does not match the schema, so it is null; such values are listed in the records' `meta.changes`"
            );
        }
    }
}
