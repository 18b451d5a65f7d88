//! Lists and objects of responses that cannot fill the memory.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// A list of at most `MOST` entries. One with more is refused while it is read: in memory, an entry takes
/// many times the bytes that it takes on the way, compressed.
#[derive(Debug, Clone, Default)]
pub struct AtMost<const MOST: usize, T>(pub Vec<T>);

impl<const MOST: usize, T> Deref for AtMost<MOST, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<'de, const MOST: usize, T: Deserialize<'de>> Deserialize<'de> for AtMost<MOST, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<const MOST: usize, T>(PhantomData<T>);

        impl<'de, const MOST: usize, T: Deserialize<'de>> Visitor<'de> for Entries<MOST, T> {
            type Value = AtMost<MOST, T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<AtMost<MOST, T>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = list.next_element()? {
                    if entries.len() == MOST {
                        return Err(A::Error::custom(format_args!("a list has more than {MOST} entries")));
                    }
                    entries.push(entry);
                }
                Ok(AtMost(entries))
            }
        }

        deserializer.deserialize_seq(Entries(PhantomData))
    }
}

/// An object of at most `MOST` members, for the same reason.
#[derive(Debug, Clone, Default)]
pub struct AtMostMembers<const MOST: usize, T>(pub BTreeMap<String, T>);

impl<'de, const MOST: usize, T: Deserialize<'de>> Deserialize<'de> for AtMostMembers<MOST, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<const MOST: usize, T>(PhantomData<T>);

        impl<'de, const MOST: usize, T: Deserialize<'de>> Visitor<'de> for Members<MOST, T> {
            type Value = AtMostMembers<MOST, T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<AtMostMembers<MOST, T>, A::Error> {
                let mut members = BTreeMap::new();
                while let Some((name, value)) = object.next_entry()? {
                    members.insert(name, value);
                    if members.len() > MOST {
                        return Err(A::Error::custom(format_args!("an object has more than {MOST} members")));
                    }
                }
                Ok(AtMostMembers(members))
            }
        }

        deserializer.deserialize_map(Members(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn larger_objects_are_refused() {
        let read = |text: &str| serde_json::from_str::<AtMostMembers<2, u8>>(text);
        assert_eq!(read(r#"{"a":1,"b":2,"a":3}"#).unwrap().0, [("a".to_owned(), 3), ("b".to_owned(), 2)].into());
        assert!(
            read(r#"{"a":1,"b":2,"c":3}"#).unwrap_err().to_string().starts_with("an object has more than 2 members")
        );
        assert!(read("[]").is_err());
    }

    #[test]
    fn longer_lists_are_refused() {
        let read = |text: &str| serde_json::from_str::<AtMost<2, u8>>(text);
        assert_eq!(&*read("[1,2]").unwrap(), [1, 2]);
        assert!(read("[1,2,3]").unwrap_err().to_string().starts_with("a list has more than 2 entries"));
        assert!(read("{}").is_err());
    }
}
