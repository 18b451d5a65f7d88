//! The streams whose objects belong to objects of a list, and are asked for one by one.
//!
//! The fields are in `schemas/`, from PostHog's serializers.

use super::lists::{Change, List};
use super::table::PROJECT_FIELD;

/// A stream that is read from the objects of another list.
#[derive(Debug)]
pub struct NestedList {
    /// What is read. Its path is below that of an object of the other list.
    pub list: List,
    /// Path of the other list below `api/projects/:id/`.
    pub parents: &'static str,
    /// Query strings by which the whole other list is read, one after the other. Servers may refuse all but
    /// the first.
    pub parent_queries: &'static [&'static str],
    pub children: Children,
}

/// How the objects that belong to an object are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Children {
    /// There is one, or none.
    One,
    /// A list, in which objects are looked for by the time when they were made.
    MadeBetween {
        after: &'static str,
        before: &'static str,
        /// So many days after it was made, an object may still change.
        days: u32,
    },
}

const fn list(stream: &'static str, path: &'static str, scope: &'static str, schema: &'static str) -> List {
    List { path, ..List::new(stream, scope, schema) }
}

const fn changed(field: &'static str) -> Change {
    Change { field, filter: None, lookback_hours: 1, late_hours: None, from_start_date: false }
}

/// All of them.
pub static NESTED_LISTS: &[NestedList] = &[
    NestedList {
        list: List {
            // What is made of daily results before the first run has no id of its own.
            primary_key: &[PROJECT_FIELD, "experiment_id", "id"],
            change: Some(changed("completed_at")),
            ..list(
                "experiment_results",
                "metrics_recalculation/latest",
                "experiment:read",
                include_str!("schemas/experiment_results.json"),
            )
        },
        parents: "experiments",
        parent_queries: &["order=updated_at", "order=updated_at&archived=true"],
        children: Children::One,
    },
    NestedList {
        list: List {
            primary_key: &[PROJECT_FIELD, "id"],
            // The default order is the other way round, in which new runs would shift pages.
            parameters: "ordering=created_at",
            change: Some(changed("last_updated_at")),
            ..list("batch_export_runs", "runs", "batch_export:read", include_str!("schemas/batch_export_runs.json"))
        },
        parents: "batch_exports",
        parent_queries: &[""],
        // Without bounds, only the runs of the last seven days are listed.
        children: Children::MadeBetween { after: "after", before: "before", days: 30 },
    },
];

impl NestedList {
    pub fn find(name: &str) -> Option<&'static Self> {
        NESTED_LISTS.iter().find(|nested| nested.list.stream == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schema_contains_the_primary_key_and_the_cursor() {
        for NestedList { list, .. } in NESTED_LISTS {
            let fields = list.fields();
            assert!(fields.len() > 7, "{} could not be read", list.stream);
            assert!(list.primary_key.iter().all(|key| fields.contains_key(*key)), "{}", list.stream);
            assert_eq!(fields[list.change.unwrap().field]["format"], "date-time", "{}", list.stream);
        }
    }
}
