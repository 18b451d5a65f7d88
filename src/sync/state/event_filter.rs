//! The user's choice of event names, as the state keeps it.

use serde::{Deserialize, Serialize};

/// The user's choice of event names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventFilter {
    /// Only these; all when empty.
    #[serde(default)]
    pub include: Vec<String>,
    /// Not these.
    #[serde(default)]
    pub exclude: Vec<String>,
}

impl EventFilter {
    /// Returns true if every event that `self` chooses is chosen by `other`, too.
    pub fn is_within(&self, other: &Self) -> bool {
        let includes = other.include.is_empty()
            || (!self.include.is_empty() && self.include.iter().all(|name| other.include.contains(name)));
        let chosen = |name: &String| self.include.is_empty() || self.include.contains(name);
        includes && other.exclude.iter().all(|name| self.exclude.contains(name) || !chosen(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_of_names_can_be_wider_or_narrower() {
        let names = |include: &[&str], exclude: &[&str]| EventFilter {
            include: include.iter().map(ToString::to_string).collect(),
            exclude: exclude.iter().map(ToString::to_string).collect(),
        };
        let all = EventFilter::default();
        for (inner, outer, expected) in [
            (names(&["a"], &[]), all.clone(), true),
            (all.clone(), names(&["a"], &[]), false),
            (names(&["a"], &[]), names(&["a", "b"], &[]), true),
            (names(&["a", "b"], &[]), names(&["a"], &[]), false),
            (names(&[], &["x"]), all.clone(), true),
            (all.clone(), names(&[], &["x"]), false),
            (names(&["a"], &[]), names(&[], &["x"]), true),
            (names(&["x"], &[]), names(&[], &["x"]), false),
        ] {
            assert_eq!(inner.is_within(&outer), expected, "{inner:?} within {outer:?}");
        }
    }
}
