//! Which tables and columns an instance has, and which person an event belongs to.

use serde_json::{Map, Value as Json};

use crate::posthog::error::ApiError;

/// What differs between instances, as far as queries can see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schema {
    /// Version of the table `sessions`. A query may ask for another one by its modifier
    /// `sessionTableVersion`.
    pub sessions: SessionsVersion,
    /// Whether `persons` has `last_seen_at`, which is there since February 2026.
    pub person_last_seen_at: bool,
    pub event_person_mode: bool,
    /// What the team's events say about persons. A query may ask for something else by its modifier
    /// `personsOnEventsMode`.
    pub persons_on_events: PersonsOnEvents,
}

/// Version of the table `sessions`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionsVersion {
    /// No version that exists: `person_id`, but neither hosts nor ids of advertisements, so that a client
    /// has something to do without.
    Minimal,
    /// The first one, without hosts and `$screen_count`.
    V1,
    /// The usual one: `max_inserted_at`, but no `person_id`.
    V2,
    /// Teams have to ask for it: `person_id` as well.
    V3,
}

impl SessionsVersion {
    /// The version that a modifier or the command line asks for.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "minimal" => Self::Minimal,
            "v1" => Self::V1,
            "v2" | "auto" => Self::V2,
            "v3" => Self::V3,
            _ => return None,
        })
    }
}

/// Which person an event belongs to, and whose properties `person.properties` shows; PostHog's
/// `personsOnEventsMode`.
///
/// # The person as ingested
///
/// Merging two persons leaves the `person_id` that is stored with events as it was, until a background
/// job rewrites them; exports deliver that stored id. To get it from a query as well, whatever the
/// team's own mode, send the modifier
/// `"personsOnEventsMode": "person_id_no_override_properties_on_events"` and select `person_id`.
///
/// No expression does that in every mode. In PostHog's `posthog/hogql/database/database.py`
/// (`Database._build_from_sources` and `_use_person_id_from_person_overrides`):
///
/// | mode | `person_id` | `event_person_id` | `poe.id` |
/// |---|---|---|---|
/// | `disabled` | `pdi.person_id`, today's person | unknown field | as ingested |
/// | `person_id_no_override_properties_on_events` | **as ingested** | unknown field | as ingested |
/// | `person_id_override_properties_on_events` | override, else as ingested | as ingested | overridden |
/// | `person_id_override_properties_joined` | override, else as ingested | as ingested | as ingested |
///
/// (`poe` is "not to be used directly", says `posthog/hogql/database/schema/events.py`.) With that
/// modifier `person.properties` are those of the event at ingestion too, which is what exports have in
/// `person_properties`. Besides, `SELECT *` shows `person_id` in all modes but `disabled`, and
/// `event_person_id` only in those with overrides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PersonsOnEvents {
    /// `disabled`: the person that the distinct id leads to today.
    Joined,
    /// `person_id_no_override_properties_on_events`: the person at ingestion.
    AsIngested,
    /// `person_id_override_properties_on_events`: the merged person, with properties of the event.
    OverriddenIdOwnProperties,
    /// `person_id_override_properties_joined`: the merged person, with today's properties.
    OverriddenIdJoinedProperties,
}

impl PersonsOnEvents {
    const NAMES: [(&str, Self); 4] = [
        ("disabled", Self::Joined),
        ("person_id_no_override_properties_on_events", Self::AsIngested),
        ("person_id_override_properties_on_events", Self::OverriddenIdOwnProperties),
        ("person_id_override_properties_joined", Self::OverriddenIdJoinedProperties),
    ];

    /// The mode by PostHog's name for it.
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(own, _)| *own == name).map(|(_, mode)| *mode)
    }

    /// Whether `event_person_id` exists.
    pub(crate) fn overrides(self) -> bool {
        matches!(self, Self::OverriddenIdOwnProperties | Self::OverriddenIdJoinedProperties)
    }
}

impl Schema {
    /// The schema with what the modifiers of one query change about it.
    pub(crate) fn modified(self, modifiers: &Map<String, Json>) -> Result<Self, ApiError> {
        let name = |key: &str| modifiers.get(key).filter(|value| !value.is_null());
        let refused = |key: &str, value: &Json| {
            ApiError::invalid(format!(
                "1 validation error for QueryRequest\nquery.HogQLQuery.modifiers.{key}\n  Input should be a valid choice \
                 [type=enum, input_value={value}]"
            ))
        };
        let mut schema = self;
        if let Some(value) = name("personsOnEventsMode") {
            let mode = value.as_str().and_then(PersonsOnEvents::named);
            schema.persons_on_events = mode.ok_or_else(|| refused("personsOnEventsMode", value))?;
        }
        match name("sessionTableVersion") {
            None => {}
            Some(value) if value == "auto" => {}
            Some(value) => {
                let version = value.as_str().and_then(SessionsVersion::named);
                schema.sessions = version.ok_or_else(|| refused("sessionTableVersion", value))?;
            }
        }
        Ok(schema)
    }
}
