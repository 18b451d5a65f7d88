//! The streams that are read from list endpoints: one entry each, no code.
//!
//! Paths, parameters, ordering and what the server can filter are those of PostHog's views
//! (`posthog/api/*.py`, `products/*/backend/api/*.py`); the fields are in `schemas/`, from its
//! serializers and `OpenAPI` description. Soft-deleted objects are not listed.

use serde_json::{Map, Value, json};

use super::table::PROJECT_FIELD;

/// The field with the kind of object that a property definition belongs to.
pub(crate) const TYPE_FIELD: &str = "type";

/// A stream that is read from one list endpoint.
#[derive(Debug)]
pub struct List {
    pub stream: &'static str,
    /// Path below `api/projects/:id/`.
    pub path: &'static str,
    /// Scope that the key needs.
    pub scope: &'static str,
    pub primary_key: &'static [&'static str],
    /// Query string of every request, besides `limit` and `offset`: an order that does not change
    /// while pages are read.
    pub parameters: &'static str,
    /// How often the list is read, each time with other parameters.
    pub passes: Passes,
    /// How changes are found, if the server helps with it.
    pub change: Option<Change>,
    /// Fields that change without the object: such a change alone does not make it come again.
    pub incidental: &'static [&'static str],
    /// Fields that hold what a property of events does, and that property.
    pub made_from: &'static [(&'static str, &'static str)],
    /// Fields as a JSON object of schemas.
    pub(super) schema: &'static str,
}

/// The parts of a list that have to be asked for one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passes {
    /// All objects come at once.
    One,
    /// Archived objects are a list of their own; servers without archives send the same again.
    Archived,
    /// Definitions of properties, by what they are properties of.
    PropertyTypes,
}

/// A field with the time of an object's last change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The field, which becomes the cursor.
    pub field: &'static str,
    /// Parameter by which the server leaves out older objects, if it can.
    pub filter: Option<&'static str>,
    /// Hours before the last sync's end that are read again.
    pub lookback_hours: i64,
    /// Hours that are read again once a day, if objects may come later than `lookback_hours`.
    pub late_hours: Option<i64>,
    /// Whether the field is the time at which the object begins, by which the list is read from the start date
    /// on; other lists are read whole.
    pub from_start_date: bool,
}

const fn list(stream: &'static str, scope: &'static str, schema: &'static str) -> List {
    List::new(stream, scope, schema)
}

const fn changed(field: &'static str, filter: Option<&'static str>) -> Change {
    Change { field, filter, lookback_hours: 1, late_hours: None, from_start_date: false }
}

/// All of them.
pub static LISTS: &[List] = &[
    list("annotations", "annotation:read", include_str!("schemas/annotations.json")),
    list("cohorts", "cohort:read", include_str!("schemas/cohorts.json")),
    List {
        passes: Passes::Archived,
        change: Some(changed("updated_at", None)),
        ..list("feature_flags", "feature_flag:read", include_str!("schemas/feature_flags.json"))
    },
    List {
        // The default order is by a column that is nearly always null, so pages overlap and skip.
        parameters: "order=id",
        change: Some(changed("last_modified_at", Some("date_from"))),
        ..list("insights", "insight:read", include_str!("schemas/insights.json"))
    },
    list("actions", "action:read", include_str!("schemas/actions.json")),
    list("dashboards", "dashboard:read", include_str!("schemas/dashboards.json")),
    List {
        parameters: "order=updated_at",
        passes: Passes::Archived,
        change: Some(changed("updated_at", None)),
        ..list("experiments", "experiment:read", include_str!("schemas/experiments.json"))
    },
    list("surveys", "survey:read", include_str!("schemas/surveys.json")),
    List {
        parameters: "order=start_time&order_direction=ASC",
        // Without the filter, only the last three days are listed. A recording grows for a day. PostHog takes
        // what it receives for it until it is seven days old (`MESSAGE_TIMESTAMP_DIFF_THRESHOLD_DAYS` in
        // `nodejs/src/ingestion/pipelines/sessionreplay`).
        change: Some(Change {
            field: "start_time",
            filter: Some("date_from"),
            lookback_hours: 25,
            late_hours: Some(8 * 24 + 1),
            from_start_date: true,
        }),
        // The person changes with every visit, and the days that are left with every day.
        incidental: &["person", "recording_ttl"],
        made_from: &[("start_url", "$current_url"), ("snapshot_library", "$lib")],
        ..list("session_recordings", "session_recording:read", include_str!("schemas/session_recordings.json"))
    },
    List {
        primary_key: &[PROJECT_FIELD, "group_type_index"],
        ..list("groups_types", "group:read", include_str!("schemas/groups_types.json"))
    },
    List {
        // The default order is by the day of the last event, which moves while pages are read.
        parameters: "ordering=name",
        ..list("event_definitions", "event_definition:read", include_str!("schemas/event_definitions.json"))
    },
    List {
        primary_key: &[PROJECT_FIELD, TYPE_FIELD, "id"],
        passes: Passes::PropertyTypes,
        ..list("property_definitions", "property_definition:read", include_str!("schemas/property_definitions.json"))
    },
    List {
        path: "early_access_feature",
        ..list("early_access_features", "early_access_feature:read", include_str!("schemas/early_access_features.json"))
    },
    List {
        change: Some(changed("last_modified_at", Some("date_from"))),
        ..list("notebooks", "notebook:read", include_str!("schemas/notebooks.json"))
    },
];

impl List {
    /// A list that is read whole, from the path that is its name.
    pub(super) const fn new(stream: &'static str, scope: &'static str, schema: &'static str) -> Self {
        Self {
            stream,
            path: stream,
            scope,
            primary_key: &["id"],
            parameters: "",
            passes: Passes::One,
            change: None,
            incidental: &[],
            made_from: &[],
            schema,
        }
    }

    pub fn find(name: &str) -> Option<&'static Self> {
        LISTS.iter().find(|list| list.stream == name)
    }

    /// Fields of the primary key that the server sends itself.
    pub fn own_key(&self) -> Vec<&'static str> {
        let added = [PROJECT_FIELD, TYPE_FIELD];
        self.primary_key.iter().copied().filter(|field| !added.contains(field)).collect()
    }

    /// JSON schemas of the fields, by name.
    pub fn fields(&self) -> Map<String, Value> {
        // The files are part of the program; a test reads them all.
        let mut fields: Map<String, Value> = serde_json::from_str(self.schema).unwrap_or_default();
        fields.insert(
            PROJECT_FIELD.to_owned(),
            json!({"type": ["null", "integer"], "description": "Number of the project in PostHog."}),
        );
        if self.passes == Passes::PropertyTypes {
            let about = "What it is a property of: event, person, session, or group_0 to group_4.";
            fields.insert(TYPE_FIELD.to_owned(), json!({"type": ["null", "string"], "description": about}));
            let about = "Number of the group type, for properties of groups.";
            fields.insert("group_type_index".to_owned(), json!({"type": ["null", "integer"], "description": about}));
        }
        fields
    }

    pub fn schema(&self) -> Value {
        super::table::object_schema(self.fields())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_list_schema_contains_its_primary_key_and_cursor() {
        for list in LISTS {
            let fields = list.fields();
            assert!(fields.len() > 7, "{} could not be read", list.stream);
            assert!(list.primary_key.iter().all(|key| fields.contains_key(*key)), "{}", list.stream);
            if let Some(change) = list.change {
                assert_eq!(fields[change.field]["format"], "date-time", "{}", list.stream);
            }
        }
    }
}
