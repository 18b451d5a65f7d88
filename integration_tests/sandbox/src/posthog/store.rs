//! What the stand-in knows: events and persons of each project.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use chrono::{DateTime, Months};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::instance::Retention;
use super::lock;
use super::sessions::{self, Session};

/// Microseconds of one day.
pub(crate) const DAY: i64 = 86_400_000_000;

/// One row of the events table; every column is the caller's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Identity of the event. Several rows may share one, as un-merged copies do in PostHog.
    pub uuid: Uuid,
    /// Name of the event.
    pub event: String,
    /// JSON text, stored and returned untouched: it may hold NaN, repeated keys or no JSON at all.
    pub properties: String,
    /// Microseconds since 1970, as the client reported.
    pub timestamp: i64,
    /// Microseconds since 1970, when the server took the event in.
    pub created_at: i64,
    /// Whom the client says did it.
    pub distinct_id: String,
    /// PostHog's text form of the clicked elements.
    pub elements_chain: String,
    /// The person the distinct id belongs to.
    pub person_id: Uuid,
    /// `$session_id`, or nothing.
    pub session_id: String,
    /// `$window_id`, or nothing.
    pub window_id: String,
    /// `$group_0` to `$group_4`.
    pub groups: [String; 5],
    /// `full`, `propertyless` or `force_upgrade`.
    pub person_mode: String,
    /// Queries don't see the row before this instant (microseconds since 1970), as ClickHouse
    /// shows an event some time after `created_at`.
    pub visible_at: Option<i64>,
}

impl Default for Event {
    fn default() -> Self {
        Self {
            uuid: Uuid::nil(),
            event: "$pageview".to_owned(),
            properties: "{}".to_owned(),
            timestamp: 0,
            created_at: 0,
            distinct_id: "user".to_owned(),
            elements_chain: String::new(),
            person_id: Uuid::nil(),
            session_id: String::new(),
            window_id: String::new(),
            groups: Default::default(),
            person_mode: "full".to_owned(),
            visible_at: None,
        }
    }
}

impl Event {
    /// When the row came into the table.
    pub(crate) fn inserted_at(&self) -> i64 {
        self.visible_at.unwrap_or(self.created_at)
    }
}

/// One row of the persons table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Identity.
    pub id: Uuid,
    /// Microseconds since 1970.
    pub created_at: i64,
    /// JSON text of the person's properties.
    pub properties: String,
    /// Whether `$identify` was ever called.
    pub is_identified: bool,
    /// Microseconds since 1970 of the last event, if known.
    pub last_seen_at: Option<i64>,
    /// All ids that lead to this person.
    pub distinct_ids: Vec<String>,
}

/// A row of the table of ingestion warnings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngestionWarning {
    pub source: String,
    /// Its type.
    pub kind: String,
    /// JSON.
    pub details: String,
    /// In microseconds since 1970.
    pub timestamp: i64,
}

/// One version of a person, as `raw_persons` has it.
#[derive(Debug)]
pub(crate) struct RawPerson {
    pub(crate) person: Person,
    pub(crate) is_deleted: bool,
    pub(crate) version: i64,
}

/// One version of a distinct id, as `raw_person_distinct_ids` has it.
#[derive(Debug)]
pub(crate) struct RawDistinctId {
    pub(crate) distinct_id: String,
    pub(crate) person: Uuid,
    pub(crate) is_deleted: bool,
    pub(crate) version: i64,
}

/// A person that is gone.
#[derive(Debug)]
pub(crate) struct Removed {
    pub(crate) person: Person,
    /// Microseconds since 1970.
    pub(crate) at: i64,
    /// Another person has its distinct ids now.
    pub(crate) is_merged: bool,
}

/// A deletion is a row with a version so much greater (`posthog/models/person/util.py`).
pub(crate) const DELETED: i64 = 100;

impl Person {
    /// When it has changed last.
    pub(crate) fn changed(&self) -> i64 {
        self.last_seen_at.unwrap_or(self.created_at)
    }

    /// Never goes down while the person changes.
    pub(crate) fn version(&self) -> i64 {
        self.changed().saturating_sub(self.created_at).max(0)
    }
}

impl Removed {
    /// The row that marks the person. Deleting a person removes its properties; a merge keeps them.
    pub(crate) fn row(&self) -> RawPerson {
        let properties = if self.is_merged { self.person.properties.clone() } else { "{}".to_owned() };
        let person = Person { properties, ..self.person.clone() };
        RawPerson { person, is_deleted: true, version: self.person.version() + DELETED }
    }
}

/// One row of the groups table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Number of the group's type, 0 to 4.
    pub index: u8,
    /// Its key among the groups of this type.
    pub key: String,
    /// Microseconds since 1970.
    pub created_at: i64,
    /// Microseconds since 1970.
    pub updated_at: i64,
    /// JSON text of the group's properties.
    pub properties: String,
}

/// Who belongs to a cohort.
#[derive(Debug, Default)]
pub(crate) struct Cohort {
    /// Its members were listed by hand, and stand in a table of their own.
    pub(crate) is_static: bool,
    /// In order; a static cohort may have a person more than once.
    pub(crate) people: Vec<Uuid>,
}

/// Sizes of one UTC day, for the estimate of how much a query reads.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DaySize {
    pub(crate) rows: u64,
    pub(crate) property_bytes: u64,
}

/// Events and persons of one project.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    /// Sorted by timestamp; rows of one timestamp in the order they came.
    events: Vec<Arc<Event>>,
    days: BTreeMap<i64, DaySize>,
    persons: HashMap<Uuid, Arc<Person>>,
    distinct_ids: HashMap<String, Uuid>,
    /// Persons of distinct ids that a merge has moved, and that events don't know of.
    overrides: HashMap<String, Uuid>,
    /// Persons that have become part of others.
    merged: HashMap<Uuid, Arc<Person>>,
    /// Persons that have been deleted, or have become part of others.
    removed: BTreeMap<Uuid, Removed>,
    /// Persons that distinct ids have belonged to before.
    earlier_owners: BTreeMap<String, Vec<Uuid>>,
    /// Whether a merge changes the events so far; otherwise only queries know of it.
    pub(crate) merges_rewrite_events: bool,
    /// For how long events can be seen.
    pub(crate) retention: Retention,
    /// Group types in the order they were first seen; PostHog numbers five of them.
    group_types: Vec<String>,
    groups: BTreeMap<(u8, String), Group>,
    /// By the cohort's number.
    pub(crate) cohorts: BTreeMap<i64, Cohort>,
    /// Derived when they are first asked for.
    sessions: Mutex<Option<Arc<Vec<Session>>>>,
    pub(crate) ingestion_warnings: Vec<IngestionWarning>,
    /// Objects of the list endpoints, by the endpoint's name.
    pub(crate) lists: HashMap<String, Vec<Value>>,
}

impl Tables {
    pub(crate) fn insert(&mut self, events: Vec<Event>) {
        for event in events {
            self.push(event);
        }
        self.events.sort_by_key(|event| event.timestamp);
    }

    /// Adds one event where it belongs.
    pub(crate) fn insert_one(&mut self, event: Event) {
        let at = self.events.partition_point(|other| other.timestamp <= event.timestamp);
        self.push(event);
        if let Some(tail) = self.events.get_mut(at..) {
            tail.rotate_right(1);
        }
    }

    fn push(&mut self, event: Event) {
        let day = self.days.entry(event.timestamp.div_euclid(DAY)).or_default();
        day.rows += 1;
        day.property_bytes += event.properties.len() as u64;
        *lock(&self.sessions) = None;
        self.events.push(Arc::new(event));
    }

    /// Keeps the rows that `is_kept`, which sees them in the order of their timestamps. Returns how many are gone.
    fn retain(&mut self, mut is_kept: impl FnMut(&Event) -> bool) -> usize {
        let before = self.events.len();
        let days = &mut self.days;
        self.events.retain(|event| {
            let kept = is_kept(event);
            if let (false, Some(day)) = (kept, days.get_mut(&event.timestamp.div_euclid(DAY))) {
                day.rows -= 1;
                day.property_bytes -= event.properties.len() as u64;
            }
            kept
        });
        *lock(&self.sessions) = None;
        before - self.events.len()
    }

    /// Removes all rows of these events.
    pub(crate) fn delete(&mut self, uuids: &BTreeSet<Uuid>) -> usize {
        self.retain(|event| !uuids.contains(&event.uuid))
    }

    /// Removes all rows with these distinct ids. Returns how many there were.
    pub(crate) fn delete_of(&mut self, distinct_ids: &BTreeSet<String>) -> usize {
        self.retain(|event| !distinct_ids.contains(&event.distinct_id))
    }

    /// Of rows that are one to `ReplacingMergeTree` (day, name, distinct id and uuid) keeps the one that came
    /// last. Rows that are not visible by `now` stay.
    pub(crate) fn merge_duplicates(&mut self, now: i64) -> usize {
        let key = |event: &Event| {
            let day = event.timestamp.div_euclid(DAY);
            (day, event.event.clone(), event.distinct_id.clone(), event.uuid)
        };
        let there = |event: &Event| event.visible_at.is_none_or(|at| at <= now);
        let version = |event: &Event| (event.inserted_at(), event.created_at, event.timestamp);
        let mut last = HashMap::new();
        for event in self.events.iter().filter(|event| there(event)) {
            let newest = last.entry(key(event)).or_insert_with(|| version(event));
            *newest = version(event).max(*newest);
        }
        let mut kept = BTreeSet::new();
        self.retain(|event| {
            let own = version(event);
            // Of equal rows one stays.
            !there(event) || last.get(&key(event)) == Some(&own) && kept.insert((key(event), own))
        })
    }

    pub(crate) fn events(&self) -> &[Arc<Event>] {
        &self.events
    }

    /// Rows with `from <= timestamp <= to`.
    pub(crate) fn between(&self, from: i64, to: i64) -> &[Arc<Event>] {
        let start = self.events.partition_point(|event| event.timestamp < from);
        let end = self.events.partition_point(|event| event.timestamp <= to).max(start);
        self.events.get(start..end).unwrap_or_default()
    }

    /// The sessions of the events that can be seen by now, by their ids.
    pub(crate) fn sessions(&self, now: i64) -> Arc<Vec<Session>> {
        let mut known = lock(&self.sessions);
        if let Some(known) = known.as_ref() {
            return Arc::clone(known);
        }
        let hidden = |event: &Arc<Event>| event.visible_at.is_some_and(|at| at > now);
        let sessions = Arc::new(sessions::derive(self.events.iter().filter(|event| !hidden(event))));
        if !self.events.iter().any(hidden) {
            *known = Some(Arc::clone(&sessions));
        }
        sessions
    }

    /// All groups, by their types and keys.
    pub(crate) fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.values()
    }

    pub(crate) fn put_group(&mut self, group: Group) {
        self.groups.insert((group.index, group.key.clone()), group);
    }

    /// Distinct ids in the order of the alphabet, with the persons that have them.
    pub(crate) fn distinct_ids(&self) -> BTreeMap<&str, Uuid> {
        let mut ids = BTreeMap::new();
        for person in self.persons.values() {
            for distinct_id in &person.distinct_ids {
                let owner = self.distinct_ids.get(distinct_id).copied().unwrap_or(person.id);
                ids.insert(distinct_id.as_str(), owner);
            }
        }
        ids
    }

    /// Persons that are gone.
    pub(crate) fn removed(&self) -> impl Iterator<Item = &Removed> {
        self.removed.values()
    }

    /// How often a distinct id has moved.
    pub(crate) fn moves(&self, distinct_id: &str) -> i64 {
        self.earlier_owners.get(distinct_id).map_or(0, |owners| i64::try_from(owners.len()).unwrap_or(i64::MAX))
    }

    /// All versions of all persons that `ClickHouse` still has.
    pub(crate) fn raw_persons(&self) -> Vec<RawPerson> {
        let row = |person: &Person| RawPerson { person: person.clone(), is_deleted: false, version: person.version() };
        let mut rows: Vec<RawPerson> = self.persons.values().map(|person| row(person)).collect();
        for removed in self.removed.values() {
            rows.extend([row(&removed.person), removed.row()]);
        }
        rows.sort_by_key(|row| (row.person.id, row.version));
        rows
    }

    /// All versions of all distinct ids that `ClickHouse` still has, by distinct id. The newest of an id is
    /// not the last one.
    pub(crate) fn raw_distinct_ids(&self) -> Vec<RawDistinctId> {
        let mut rows = Vec::new();
        let mut push = |distinct_id: &str, person: Uuid, is_deleted: bool, version: i64| {
            rows.push(RawDistinctId { distinct_id: distinct_id.to_owned(), person, is_deleted, version });
        };
        for (distinct_id, owner) in self.distinct_ids() {
            push(distinct_id, owner, false, self.moves(distinct_id));
        }
        for removed in self.removed.values().filter(|removed| !removed.is_merged) {
            for distinct_id in &removed.person.distinct_ids {
                push(distinct_id, removed.person.id, true, self.moves(distinct_id) + DELETED);
                push(distinct_id, removed.person.id, false, self.moves(distinct_id));
            }
        }
        for (distinct_id, owners) in &self.earlier_owners {
            for (version, owner) in (0..).zip(owners) {
                push(distinct_id, *owner, false, version);
            }
        }
        rows.sort_by(|one, other| one.distinct_id.cmp(&other.distinct_id));
        rows
    }

    /// Deletes a person, and its distinct ids.
    pub(crate) fn delete_person(&mut self, id: Uuid, at: i64) {
        let Some(person) = self.persons.remove(&id) else { return };
        for distinct_id in &person.distinct_ids {
            self.distinct_ids.remove(distinct_id);
        }
        self.removed.insert(id, Removed { person: Person::clone(&person), at, is_merged: false });
    }

    /// What lies in the UTC days that a range of timestamps touches.
    pub(crate) fn size_of_days(&self, from: i64, to: i64) -> DaySize {
        let (first, last) = (from.div_euclid(DAY), to.div_euclid(DAY));
        let mut total = DaySize::default();
        if first <= last {
            for day in self.days.range(first..=last).map(|(_, day)| day) {
                total.rows += day.rows;
                total.property_bytes += day.property_bytes;
            }
        }
        total
    }

    pub(crate) fn persons(&self) -> impl Iterator<Item = &Arc<Person>> {
        self.persons.values()
    }

    pub(crate) fn person(&self, id: Uuid) -> Option<&Arc<Person>> {
        self.persons.get(&id)
    }

    /// The person as it was when an event came in, merged into another since or not.
    pub(crate) fn person_at_ingestion(&self, id: Uuid) -> Option<&Arc<Person>> {
        self.persons.get(&id).or_else(|| self.merged.get(&id))
    }

    /// The person a distinct id leads to, if it is known.
    pub(crate) fn owner(&self, distinct_id: &str) -> Option<Uuid> {
        self.distinct_ids.get(distinct_id).copied()
    }

    /// The person that events of a distinct id belong to, if that isn't the one they were stored with.
    pub(crate) fn person_override(&self, distinct_id: &str) -> Option<Uuid> {
        self.overrides.get(distinct_id).copied()
    }

    /// Queries don't see events before this instant.
    pub(crate) fn hidden_before(&self, now: i64) -> i64 {
        let oldest = || {
            let now = DateTime::from_timestamp_micros(now)?;
            Some(now.checked_sub_months(Months::new(self.retention.months))?.timestamp_micros())
        };
        if self.retention.enforced { oldest().unwrap_or(i64::MIN) } else { i64::MIN }
    }

    pub(crate) fn put_person(&mut self, person: Person) {
        for distinct_id in &person.distinct_ids {
            self.distinct_ids.insert(distinct_id.clone(), person.id);
        }
        self.persons.insert(person.id, Arc::new(person));
    }

    /// The person a distinct id leads to now, whether or not there is a profile.
    pub(crate) fn person_id(&self, project: u64, distinct_id: &str) -> Uuid {
        self.distinct_ids.get(distinct_id).copied().unwrap_or_else(|| person_uuid(project, distinct_id))
    }

    /// The number of a group type, unless there are five others already.
    pub(crate) fn group_index(&mut self, kind: &str) -> Option<usize> {
        let known = self.group_types.iter().position(|known| known == kind);
        if known.is_none() && self.group_types.len() < 5 {
            self.group_types.push(kind.to_owned());
            return Some(self.group_types.len() - 1);
        }
        known
    }

    /// Creates or updates the profile behind `distinct_id` and returns its id.
    pub(crate) fn touch_person(
        &mut self,
        project: u64,
        distinct_id: &str,
        at: i64,
        set: &Map<String, Value>,
        set_once: &Map<String, Value>,
    ) -> Uuid {
        let id = self.person_id(project, distinct_id);
        let mut person = self.persons.get(&id).map_or_else(
            || Person {
                id,
                created_at: at,
                properties: "{}".to_owned(),
                is_identified: false,
                last_seen_at: None,
                distinct_ids: vec![distinct_id.to_owned()],
            },
            |person| Person::clone(person),
        );
        if !(set.is_empty() && set_once.is_empty()) {
            let mut properties: Map<String, Value> = serde_json::from_str(&person.properties).unwrap_or_default();
            for (key, value) in set_once {
                properties.entry(key.clone()).or_insert_with(|| value.clone());
            }
            properties.extend(set.clone());
            person.properties = Value::Object(properties).to_string();
        }
        person.last_seen_at = person.last_seen_at.max(Some(at));
        self.put_person(person);
        id
    }

    /// `$identify`: what the anonymous id did belongs to the person of `distinct_id` from now on.
    pub(crate) fn identify(&mut self, project: u64, distinct_id: &str, anonymous: &str, at: i64) {
        let nothing = Map::new();
        let known = self.distinct_ids.contains_key(distinct_id);
        let anonymous_id = self.person_id(project, anonymous);
        if !known && self.persons.contains_key(&anonymous_id) {
            self.distinct_ids.insert(distinct_id.to_owned(), anonymous_id);
        }
        let id = self.touch_person(project, distinct_id, at, &nothing, &nothing);
        let Some(mut person) = self.persons.get(&id).map(|person| Person::clone(person)) else { return };
        person.is_identified = true;
        let mut ids = vec![distinct_id.to_owned(), anonymous.to_owned()];
        if anonymous_id != id {
            if let Some(merged) = self.persons.remove(&anonymous_id) {
                let mut properties: Map<String, Value> = serde_json::from_str(&merged.properties).unwrap_or_default();
                properties.extend(serde_json::from_str::<Map<String, Value>>(&person.properties).unwrap_or_default());
                person.properties = Value::Object(properties).to_string();
                person.created_at = person.created_at.min(merged.created_at);
                ids.extend(merged.distinct_ids.iter().cloned());
                for moved in &merged.distinct_ids {
                    self.earlier_owners.entry(moved.clone()).or_default().push(anonymous_id);
                }
                let removed = Removed { person: Person::clone(&merged), at, is_merged: true };
                self.removed.insert(anonymous_id, removed);
                self.merged.insert(anonymous_id, merged);
            }
            if self.merges_rewrite_events {
                for event in self.events.iter_mut().filter(|event| event.person_id == anonymous_id) {
                    Arc::make_mut(event).person_id = id;
                }
                *lock(&self.sessions) = None;
            } else {
                let moved = ids.iter().filter(|each| each.as_str() != distinct_id);
                self.overrides.extend(moved.map(|each| (each.clone(), id)));
                // Those that an earlier merge has moved to the one that is gone.
                self.overrides.values_mut().filter(|owner| **owner == anonymous_id).for_each(|owner| *owner = id);
            }
        }
        for each in ids {
            if !person.distinct_ids.contains(&each) {
                person.distinct_ids.push(each);
            }
        }
        self.put_person(person);
    }
}

/// PostHog derives the id of a person from the project and the distinct id that was seen first.
pub(crate) fn person_uuid(project: u64, distinct_id: &str) -> Uuid {
    let namespace = Uuid::from_u128(0x9329_79b4_65c3_4424_8467_0b66_ec27_bc22);
    Uuid::new_v5(&namespace, format!("{project}:{distinct_id}").as_bytes())
}
