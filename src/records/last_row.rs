//! The row before, for noticing copies of it, and rows that are not where they belong.

use super::value::utc;
use crate::posthog::{Malformed, RowKey};
use crate::time::Timestamp;

/// Whether two rows have the same key, and the same values in the columns that tell rows of one key apart.
pub(super) fn is_copy<'l, 'n>(
    last: [&[u8]; 2],
    next: [&[u8]; 2],
    mut identities: impl Iterator<Item = (&'l [u8], &'n [u8])>,
) -> bool {
    last == next && identities.all(|(last, next)| last == next)
}

/// Whether a row with the key `next` cannot follow one with the key `last`, because pages are in ascending order.
///
/// A row that is sent twice, or in place of another, would go unnoticed, because only the number of
/// rows is compared with the count. Keys whose order cannot be derived from their JSON pass.
pub(super) fn is_behind(last: [&[u8]; 2], next: [&[u8]; 2]) -> bool {
    let ([last, last_id], [next, id]) = (last, next);
    if last != next {
        // Texts of the same length in UTC are in the order of their instants.
        if last.len() == next.len() && last < next {
            return false;
        }
        return utc(last).zip(utc(next)).is_some_and(|(last, next)| last > next);
    }
    let is_plain = |text: &[u8]| !text.contains(&b'\\');
    // A closing quote must not be compared with a byte of the longer text.
    let inside = |text: &[u8]| text.len().saturating_sub(1);
    is_plain(last_id) && is_plain(id) && last_id.get(..inside(last_id)) > id.get(..inside(id))
}

/// The key of the row that was read last, as the JSON texts of its columns.
#[derive(Default)]
pub(super) struct LastRow {
    sort_key: Vec<u8>,
    id: Vec<u8>,
    /// Values of the columns that tell rows of one id apart.
    identity: Vec<Vec<u8>>,
}

impl LastRow {
    /// Its sort key and its id.
    pub(super) fn texts(&self) -> [&[u8]; 2] {
        [&self.sort_key, &self.id]
    }

    /// The values of the columns that tell rows of one id apart.
    pub(super) fn identity(&self) -> impl Iterator<Item = &[u8]> {
        self.identity.iter().map(Vec::as_slice)
    }

    /// Remembers a row by its sort key, its id and its identity.
    pub(super) fn set<'v>(&mut self, [sort_key, id]: [&[u8]; 2], identity: impl ExactSizeIterator<Item = &'v [u8]>) {
        let replace = |text: &mut Vec<u8>, next: &[u8]| {
            text.clear();
            text.extend_from_slice(next);
        };
        replace(&mut self.sort_key, sort_key);
        replace(&mut self.id, id);
        self.identity.resize_with(identity.len(), Vec::new);
        for (last, next) in self.identity.iter_mut().zip(identity) {
            replace(last, next);
        }
    }

    /// Its key, for asking for what follows it.
    ///
    /// # Errors
    /// When the server's text of the position is not an instant.
    pub(super) fn key(&self) -> Result<Option<RowKey>, Malformed> {
        if self.id.is_empty() {
            return Ok(None);
        }
        let json = std::str::from_utf8(&self.sort_key).unwrap_or_default();
        let sort_key = Timestamp::parse_json(json).ok_or_else(|| Malformed(format!("`{json}` is not an instant")))?;
        let text = |json: &[u8]| serde_json::from_slice(json).map_err(|error| Malformed(error.to_string()));
        let identity = self.identity.iter().map(|value| text(value)).collect::<Result<_, _>>()?;
        Ok(Some(RowKey { sort_key, id: text(&self.id)?, identity }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_ordered_by_sort_key_and_then_by_id() {
        let key = |sort_key: &'static str, id: &'static str| [sort_key.as_bytes(), id.as_bytes()];
        let mut last = LastRow::default();
        assert!(!is_behind(last.texts(), key("\"2026-01-01T00:00:00Z\"", "\"a\"")), "there is no last row");
        last.set(key("\"2026-01-01T00:00:00.5Z\"", "\"b\""), std::iter::empty());
        for (sort_key, id, behind) in [
            ("\"2026-01-01T00:00:00.5Z\"", "\"b\"", false),
            ("\"2026-01-01T00:00:00.5Z\"", "\"a\"", true),
            ("\"2026-01-01T00:00:00.5Z\"", "\"\"", true),
            ("\"2026-01-01T00:00:00.5Z\"", "\"b!\"", false),
            ("\"2026-01-01T00:00:00.5Z\"", "\"\\u0041\"", false),
            ("\"2026-01-01T00:00:00.500000Z\"", "\"a\"", false),
            ("\"2026-01-01T00:00:00Z\"", "\"c\"", true),
            ("\"2026-01-01T00:00:00.499999Z\"", "\"c\"", true),
            ("\"2026-01-01T00:00:01Z\"", "\"a\"", false),
            ("\"2025-01-01T02:00:00+02:00\"", "\"a\"", false),
        ] {
            assert_eq!(is_behind(last.texts(), key(sort_key, id)), behind, "{sort_key} {id}");
        }
    }
}
