//! Which properties are kept, dropped or hashed.

use crate::error::Error;
use crate::secret::Secret;

/// Environment variable that supplies the key of hashes when the file has none.
pub const HASH_KEY_VARIABLE: &str = "POSTHOG_HASH_KEY";
/// A name with this at its end means all names that begin with the rest.
const ANY: char = '*';
/// Between the name of a property and those inside of its value.
const INSIDE: char = '.';

/// What becomes of a property. Where several rules apply, the greatest counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Treatment {
    Keep,
    /// Rules apply to what is in its value.
    Descend,
    Hash,
    Drop,
}

/// The rules for the properties of events, or of persons. Without any, all are kept.
#[derive(Debug, Clone, Default)]
pub struct PropertyRules {
    keep: Names,
    drop: Names,
    hash: Names,
    key: Option<Secret>,
}

/// Names of properties, in the notation of the settings.
#[derive(Debug, Clone, Default)]
struct Names {
    exact: Vec<String>,
    prefixes: Vec<String>,
    /// A bit for each length of an exact name, modulo 64: most properties have none of these.
    lengths: u64,
}

impl Names {
    fn new(names: Vec<String>) -> Self {
        let mut result = Self::default();
        for name in names {
            if let Some(prefix) = name.strip_suffix(ANY) {
                result.prefixes.push(prefix.to_owned());
            } else {
                result.lengths |= length_bit(name.len());
                result.exact.push(name);
            }
        }
        result
    }

    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefixes.is_empty()
    }

    fn has(&self, path: &str) -> bool {
        let may_be_exact = self.lengths & length_bit(path.len()) != 0;
        may_be_exact && self.exact.iter().any(|name| name == path)
            || self.prefixes.iter().any(|prefix| path.starts_with(prefix.as_str()))
    }

    /// Whether a name lies inside the value of the property at `path`.
    fn has_inside(&self, path: &str) -> bool {
        let is_inside = |name: &String| name.strip_prefix(path).is_some_and(|rest| rest.starts_with(INSIDE));
        self.exact.iter().any(is_inside) || self.prefixes.iter().any(is_inside)
    }
}

fn length_bit(length: usize) -> u64 {
    1 << (length % 64)
}

impl PropertyRules {
    /// Rules from the settings; `field` is the name of the setting. Hashes are made with `key`.
    ///
    /// # Errors
    /// A config error when a name is in two lists, or nothing can be hashed.
    pub(super) fn new(
        field: &str,
        keep: Vec<String>,
        drop: Vec<String>,
        hash: Vec<String>,
        key: Option<&Secret>,
    ) -> Result<Self, Error> {
        let lists = [("keep", &keep), ("drop", &drop), ("hash", &hash)];
        for (index, (first, names)) in lists.iter().enumerate() {
            let is_misplaced = |name: &String| name.strip_suffix(ANY).unwrap_or(name).contains(ANY);
            if let Some(place) = names.iter().position(is_misplaced) {
                return Err(Error::config(format!(
                    "`{field}.{first}[{place}]` has a `*` that is not at its end; only the end of a name can be left open"
                )));
            }
            for (second, others) in lists.iter().skip(index + 1) {
                if let Some(place) = names.iter().position(|name| others.contains(name)) {
                    return Err(Error::config(format!(
                        "`{field}.{first}[{place}]` is in `{field}.{second}`, too; remove it from one of them"
                    )));
                }
            }
        }
        if !hash.is_empty() && key.is_none() {
            return Err(Error::config(format!(
                "`{field}.hash` needs a key; set `hash_key`, or the environment variable {HASH_KEY_VARIABLE}"
            )));
        }
        let key = key.filter(|_| !hash.is_empty()).cloned();
        Ok(Self { keep: Names::new(keep), drop: Names::new(drop), hash: Names::new(hash), key })
    }

    /// Whether all properties are kept as they are.
    pub fn is_empty(&self) -> bool {
        self.keep.is_empty() && self.drop.is_empty() && self.hash.is_empty()
    }

    /// The key of hashes.
    pub fn key(&self) -> Option<&Secret> {
        self.key.as_ref()
    }

    /// What becomes of the property at `path`: its name, or the names on the way to it with dots between them.
    /// What is kept as a whole has `is_kept`, and only what is in it is dropped or hashed.
    pub fn treatment(&self, path: &str, is_kept: bool) -> Treatment {
        if self.drop.has(path) {
            return Treatment::Drop;
        }
        if self.hash.has(path) {
            return Treatment::Hash;
        }
        let is_kept = is_kept || self.keeps(path);
        let concerns_inside = self.drop.has_inside(path) || self.hash.has_inside(path);
        match is_kept {
            true if concerns_inside => Treatment::Descend,
            true => Treatment::Keep,
            false if concerns_inside || self.keep.has_inside(path) => Treatment::Descend,
            false => Treatment::Drop,
        }
    }

    /// What becomes of a value that is no object, such as one that a column is made from.
    pub fn of_value(&self, path: &str) -> Treatment {
        match self.treatment(path, false) {
            Treatment::Descend if self.keeps(path) => Treatment::Keep,
            Treatment::Descend => Treatment::Drop,
            treatment => treatment,
        }
    }

    /// Whether everything at `path` is kept but what is dropped or hashed by name.
    pub fn keeps(&self, path: &str) -> bool {
        self.keep.is_empty() || self.keep.has(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(keep: &[&str], drop: &[&str], hash: &[&str]) -> PropertyRules {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        PropertyRules::new("event_properties", names(keep), names(drop), names(hash), Some(&Secret::new("a key")))
            .unwrap()
    }

    #[test]
    fn names_are_exact_or_begin_with_something() {
        let rules = rules(&[], &["$ip", "$geoip_*", "a.b"], &["email"]);
        for (path, expected) in [
            ("$ip", Treatment::Drop),
            ("$ip2", Treatment::Keep),
            ("ip", Treatment::Keep),
            ("$geoip_", Treatment::Drop),
            ("$geoip_city_name", Treatment::Drop),
            ("a", Treatment::Descend),
            ("a.b", Treatment::Drop),
            ("a.bc", Treatment::Keep),
            ("ab", Treatment::Keep),
            ("email", Treatment::Hash),
        ] {
            assert_eq!(rules.treatment(path, false), expected, "{path}");
        }
        assert!(PropertyRules::default().is_empty() && !rules.is_empty());
        assert_eq!(PropertyRules::default().treatment("x", false), Treatment::Keep);
    }

    #[test]
    fn what_is_not_kept_is_dropped() {
        let rules = rules(&["plan", "$set.plan", "utm_*", "address"], &["address.street"], &["email"]);
        for (path, is_kept, expected) in [
            ("plan", false, Treatment::Keep),
            ("email", false, Treatment::Hash),
            ("$set", false, Treatment::Descend),
            ("$set.plan", false, Treatment::Keep),
            ("$set.email", false, Treatment::Drop),
            ("utm_source", false, Treatment::Keep),
            ("address", false, Treatment::Descend),
            ("address.city", true, Treatment::Keep),
            ("address.street", true, Treatment::Drop),
            ("other", false, Treatment::Drop),
        ] {
            assert_eq!(rules.treatment(path, is_kept), expected, "{path}");
        }
    }
}
