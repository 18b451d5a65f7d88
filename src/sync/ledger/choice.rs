//! Which events a ledger's figures are about.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// A set of event names, closed under intersection and difference, so that what other settings add or
/// remove is a set of the same kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Names {
    /// Only these; none when empty.
    Only(BTreeSet<String>),
    /// All but these; all when empty.
    AllBut(BTreeSet<String>),
}

impl Names {
    /// From the settings, in which an empty list of included names stands for all.
    pub fn new(include: &[String], exclude: &[String]) -> Self {
        let exclude: BTreeSet<String> = exclude.iter().cloned().collect();
        if include.is_empty() {
            return Self::AllBut(exclude);
        }
        Self::Only(include.iter().filter(|name| !exclude.contains(*name)).cloned().collect())
    }

    /// Returns true if the name is in the set.
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Self::Only(names) => names.contains(name),
            Self::AllBut(names) => !names.contains(name),
        }
    }

    /// Names that are in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Only(a), Self::Only(b)) => Self::Only(a & b),
            (Self::Only(only), Self::AllBut(but)) | (Self::AllBut(but), Self::Only(only)) => Self::Only(only - but),
            (Self::AllBut(a), Self::AllBut(b)) => Self::AllBut(a | b),
        }
    }

    /// Names that are in `self` and not in `other`.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        match other {
            Self::Only(names) => self.intersection(&Self::AllBut(names.clone())),
            Self::AllBut(names) => self.intersection(&Self::Only(names.clone())),
        }
    }

    /// Names that are in either, if they have none in common.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Only(a), Self::Only(b)) => Self::Only(a | b),
            (Self::Only(only), Self::AllBut(but)) | (Self::AllBut(but), Self::Only(only)) => Self::AllBut(but - only),
            (Self::AllBut(a), Self::AllBut(b)) => Self::AllBut(a & b),
        }
    }

    /// Returns true if no name is in the set.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Only(names) if names.is_empty())
    }
}

/// Which events a ledger's figures are about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// Event names.
    pub names: Names,
    /// A further condition, such as a filter of the user's. Conditions cannot be compared with each
    /// other, only be the same or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
}

impl Choice {
    /// All events.
    pub fn all() -> Self {
        Self { names: Names::AllBut(BTreeSet::new()), filter: None }
    }
}

/// What has to be done before a ledger can be about other events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChoiceChange {
    /// It is about these events.
    None,
    /// Some of its names are no longer wanted: finish what differs, then take over the figures of these
    /// names ([`Ledger::narrow`](super::Ledger::narrow)).
    Narrow(Names),
    /// These names are wanted too: a second ledger for them begins.
    Add(Names),
    /// Nothing that has been emitted can be told apart from what is wanted: a new ledger begins, and
    /// everything that is wanted is read.
    Restart,
}

impl ChoiceChange {
    /// What leads from one choice to the other. A choice that has both more and fewer names is narrowed
    /// first; afterwards this function says what to add.
    pub fn between(held: &Choice, wanted: &Choice) -> Self {
        if held == wanted {
            return Self::None;
        }
        let common = held.names.intersection(&wanted.names);
        if held.filter != wanted.filter || common.is_empty() {
            return Self::Restart;
        }
        if common == held.names { Self::Add(wanted.names.minus(&held.names)) } else { Self::Narrow(common) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names() -> impl Strategy<Value = Names> {
        let set = || prop::collection::btree_set("[a-d]", 0..4);
        prop_oneof![set().prop_map(Names::Only), set().prop_map(Names::AllBut)]
    }

    proptest! {
        #[test]
        fn sets_of_names_obey_set_algebra(a in names(), b in names(), name in "[a-e]") {
            let (in_a, in_b) = (a.contains(&name), b.contains(&name));
            prop_assert_eq!(a.intersection(&b).contains(&name), in_a && in_b);
            prop_assert_eq!(a.minus(&b).contains(&name), in_a && !in_b);
            prop_assert_eq!(a.plus(&b.minus(&a)).contains(&name), in_a || in_b);
        }

        #[test]
        fn a_narrowed_and_then_widened_choice_is_the_one_wanted(a in names(), b in names()) {
            let mut held = Choice { names: a, filter: None };
            let wanted = Choice { names: b, filter: None };
            for _ in 0..3 {
                match ChoiceChange::between(&held, &wanted) {
                    ChoiceChange::None => break,
                    ChoiceChange::Narrow(names) => held.names = names,
                    ChoiceChange::Add(names) => held.names = held.names.plus(&names),
                    ChoiceChange::Restart => held = wanted.clone(),
                }
            }
            prop_assert_eq!(held, wanted);
        }
    }

    #[test]
    fn another_filter_begins_from_scratch() {
        let filtered = Choice { filter: Some("properties.x = 1".into()), ..Choice::all() };
        assert_eq!(ChoiceChange::between(&Choice::all(), &filtered), ChoiceChange::Restart);
        assert_eq!(ChoiceChange::between(&filtered, &filtered), ChoiceChange::None);
    }
}
