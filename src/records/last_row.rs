//! The row before, for noticing copies of it, and rows that are not where they belong.

use super::value::utc;
use crate::posthog::{Malformed, RowKey};
use crate::time::Timestamp;

/// The key of the row that was read last, as the JSON texts of its columns.
#[derive(Default)]
pub(super) struct LastRow {
    sort_key: Vec<u8>,
    id: Vec<u8>,
    /// Values of the columns that tell rows of one id apart.
    identity: Vec<Vec<u8>>,
}

impl LastRow {
    /// Whether a row with this key and these values is a duplicate of the last one. `identity` are the columns
    /// that tell rows of one id apart, which `column` has the values of.
    pub(super) fn is<'v>(
        &self,
        sort_key: impl AsRef<[u8]>,
        id: impl AsRef<[u8]>,
        identity: &[usize],
        column: impl Fn(usize) -> &'v [u8],
    ) -> bool {
        self.sort_key == sort_key.as_ref()
            && self.id == id.as_ref()
            && identity.iter().zip(&self.identity).all(|(place, last)| last == column(*place))
    }

    /// Whether a row with this key cannot follow the last one, because pages are in ascending order.
    ///
    /// A row that is sent twice, or in place of another, would go unnoticed, because only the number of
    /// rows is compared with the count. Keys whose order cannot be derived from their JSON pass.
    pub(super) fn is_behind(&self, sort_key: impl AsRef<[u8]>, id: impl AsRef<[u8]>) -> bool {
        let (sort_key, id) = (sort_key.as_ref(), id.as_ref());
        if self.sort_key != sort_key {
            // Texts of the same length in UTC are in the order of their instants.
            if self.sort_key.len() == sort_key.len() && self.sort_key.as_slice() < sort_key {
                return false;
            }
            return utc(&self.sort_key).zip(utc(sort_key)).is_some_and(|(last, next)| last > next);
        }
        let is_plain = |text: &[u8]| !text.contains(&b'\\');
        // A closing quote must not be compared with a byte of the longer text.
        let inside = |text: &[u8]| text.len().saturating_sub(1);
        is_plain(&self.id) && is_plain(id) && self.id.get(..inside(&self.id)) > id.get(..inside(id))
    }

    /// Remembers a row; see [`LastRow::is`].
    pub(super) fn set<'v>(
        &mut self,
        sort_key: impl AsRef<[u8]>,
        id: impl AsRef<[u8]>,
        identity: &[usize],
        column: impl Fn(usize) -> &'v [u8],
    ) {
        self.sort_key.clear();
        self.sort_key.extend_from_slice(sort_key.as_ref());
        self.id.clear();
        self.id.extend_from_slice(id.as_ref());
        self.identity.resize_with(identity.len(), Vec::new);
        for (last, place) in self.identity.iter_mut().zip(identity) {
            last.clear();
            last.extend_from_slice(column(*place));
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
        let mut last = LastRow::default();
        assert!(!last.is_behind("\"2026-01-01T00:00:00Z\"", "\"a\""), "there is no last row");
        last.set("\"2026-01-01T00:00:00.5Z\"", "\"b\"", &[], |_| b"");
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
            assert_eq!(last.is_behind(sort_key, id), behind, "{sort_key} {id}");
        }
    }
}
