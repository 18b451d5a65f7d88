//! Finds some keys of a JSON object without building the rest of it.

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Keys to look for and the place that each fills.
#[derive(Debug, Default)]
pub(super) struct FieldNames {
    names: Vec<(String, usize)>,
    /// A bit for each length of a key, modulo 64: most keys of an object are none of these.
    lengths: u64,
}

impl FieldNames {
    pub(super) fn add(&mut self, key: &str, place: usize) {
        self.names.push((key.to_owned(), place));
        self.lengths |= length_bit(key.len());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Whether a key fills this place.
    pub(super) fn fills(&self, place: usize) -> bool {
        self.names.iter().any(|(_, known)| *known == place)
    }

    /// The place of a key, if it is looked for.
    pub(super) fn find(&self, key: &[u8]) -> Option<usize> {
        if self.lengths & length_bit(key.len()) == 0 {
            return None;
        }
        self.names.iter().find(|(name, _)| name.as_bytes() == key).map(|(_, place)| *place)
    }
}

fn length_bit(length: usize) -> u64 {
    1 << (length % 64)
}

/// Finds the values of some keys of one JSON object; of a repeated key, the last one. The whole text
/// is checked.
///
/// # Errors
/// When the text is not one JSON object.
pub(super) fn read_object<'l>(
    text: &'l str,
    names: &FieldNames,
    found: &mut [Option<&'l RawValue>],
) -> Result<(), serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_str(text);
    reader.deserialize_map(Fields { names, found })?;
    reader.end()
}

struct Fields<'n, 'f, 'l> {
    names: &'n FieldNames,
    found: &'f mut [Option<&'l RawValue>],
}

impl<'l> Visitor<'l> for Fields<'_, '_, 'l> {
    type Value = ();

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<M: MapAccess<'l>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(column) = map.next_key_seed(KeySeed(self.names))? {
            match column.and_then(|column| self.found.get_mut(column)) {
                Some(place) => *place = Some(map.next_value()?),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// The column that a key fills, if any.
struct KeySeed<'n>(&'n FieldNames);

impl<'l> DeserializeSeed<'l> for KeySeed<'_> {
    type Value = Option<usize>;

    fn deserialize<D: serde::Deserializer<'l>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Option<usize>;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.find(key.as_bytes()))
    }
}
