//! A stand-in for PostHog: its query, export, account and capture endpoints over events in memory.
//!
//! [`Sandbox::builder`] starts one on a free port of the loopback interface. Events come in through
//! [`Sandbox::insert`], with every column under the caller's control, or through the capture
//! endpoints, as real SDKs send them. What PostHog limits is limited if asked for, and what can go
//! wrong on the way goes wrong by [`faults`]. [`exports`] come as files from a host of their own.
//!
//! ```
//! use posthog_sandbox::posthog::{Action, Event, Fault, Sandbox};
//!
//! # #[tokio::main]
//! # async fn main() -> anyhow::Result<()> {
//! let posthog = Sandbox::builder()
//!     .faults(vec![Fault::query(Action::throttle(2)).sql(r"count\(\)").nth(&[1])])
//!     .start()
//!     .await?;
//! posthog.insert(1001, vec![Event { event: "signed up".to_owned(), ..Event::default() }]);
//! println!("POST {}/api/projects/1001/query/", posthog.url());
//! assert_eq!(posthog.events(1001).len(), 1);
//! assert!(posthog.requests().is_empty());
//! # Ok(())
//! # }
//! ```

mod account;
mod builder;
mod capture;
mod dataset;
mod deletions;
mod deprecated;
mod error;
pub mod exports;
pub mod faults;
mod generate;
mod hogql;
mod instance;
pub mod limits;
mod lists;
pub mod log;
mod metadata;
mod nested;
mod paging;
mod query;
mod replay;
mod server;
mod sessions;
mod store;
mod wire;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use tokio::task::JoinHandle;
use uuid::Uuid;

pub use builder::Builder;
pub use exports::{
    ExportOutcome, ExportRun, ExportServer, Exports, FileRequest, HangingRuns, InstantFormat, Offset, RecordsCompleted,
    SessionFields,
};
pub use faults::{Action, Fault};
pub use hogql::{PersonsOnEvents, Refusals, Schema, SessionsVersion};
pub use instance::{ListServer, RecordingPages, Retention, Server};
pub use limits::{Budget, Limits, Overload};
pub use log::{RequestLog, Stats};
pub use replay::Replay;
pub use store::{Event, Group, IngestionWarning, Person};

use faults::Faults;
use limits::Meter;
use log::Log;
use store::{Cohort, Tables};

/// Rows that PostHog returns at most, whatever the LIMIT.
pub const PAGE_CLAMP: usize = 50_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Its number in paths.
    pub id: u64,
    pub name: String,
    /// IANA name of its time zone.
    pub timezone: String,
    /// What SDKs send as `api_key` or `token`.
    pub token: String,
}

impl Default for Project {
    fn default() -> Self {
        Self { id: 1001, name: "Web shop".into(), timezone: "UTC".into(), token: "phc_sandbox".into() }
    }
}

/// A personal API key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// What comes after `Bearer`.
    pub value: String,
    /// Scopes such as `query:read`; `*` and, as with PostHog's oldest keys, none at all mean everything.
    pub scopes: Vec<String>,
    /// The projects it is restricted to, if it is.
    pub projects: Option<Vec<u64>>,
}

impl Default for Key {
    fn default() -> Self {
        Self { value: "phx_full".into(), scopes: vec!["*".into()], projects: None }
    }
}

/// Everything the handlers share.
#[derive(Debug)]
pub(crate) struct Shared {
    projects: Vec<(Project, Tz)>,
    keys: Vec<Key>,
    page_clamp: usize,
    list_page_cap: Option<usize>,
    uncapped_events: bool,
    tables: RwLock<HashMap<u64, Tables>>,
    server: Mutex<Arc<Server>>,
    limits: Mutex<Limits>,
    meter: Mutex<Meter>,
    faults: Mutex<Faults>,
    log: Mutex<Log>,
    cache: Mutex<HashMap<String, query::Cached>>,
    arrivals: Mutex<query::Arrivals>,
    exports: Mutex<exports::State>,
    replay: Option<Replay>,
}

/// A panic elsewhere must not hide behind a poisoned lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn read_tables(&self) -> RwLockReadGuard<'_, HashMap<u64, Tables>> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_tables(&self) -> RwLockWriteGuard<'_, HashMap<u64, Tables>> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn server(&self) -> Arc<Server> {
        Arc::clone(&lock(&self.server))
    }

    fn project(&self, id: u64) -> Option<&(Project, Tz)> {
        self.projects.iter().find(|(project, _)| project.id == id)
    }
}

/// A running stand-in. It stops listening when it is dropped.
#[derive(Debug)]
pub struct Sandbox {
    shared: Arc<Shared>,
    address: SocketAddr,
    files_address: SocketAddr,
    servers: [JoinHandle<()>; 2],
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.servers.iter().for_each(JoinHandle::abort);
    }
}

impl Sandbox {
    /// Says how it should start.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `http://127.0.0.1:PORT` of the host of exported files.
    pub fn files_url(&self) -> String {
        format!("http://{}", self.files_address)
    }

    /// Lets links to files begin like this, such as `http://files.test:1234`, instead of with
    /// [`Sandbox::files_url`].
    pub fn set_files_root(&self, root: &str) {
        lock(&self.shared.exports).root = Some(root.to_owned());
    }

    /// Adds rows to the events table of a project, exactly as they are.
    pub fn insert(&self, project: u64, events: Vec<Event>) {
        self.shared.write_tables().entry(project).or_default().insert(events);
    }

    /// Adds rows to the events table of a project, each as soon as so many queries more have come, before that
    /// query is answered. So they become visible at the same step of a sync, however fast that is.
    pub fn insert_at_queries(&self, project: u64, events: impl IntoIterator<Item = (usize, Event)>) {
        lock(&self.shared.arrivals).plan(project, events);
    }

    /// Adds the rows at once that wait for a query.
    pub fn insert_waiting(&self) {
        let waiting = lock(&self.shared.arrivals).take();
        for (project, event) in waiting {
            self.insert(project, vec![event]);
        }
    }

    /// Removes all rows of these events. Returns how many there were.
    pub fn delete_events(&self, project: u64, uuids: impl IntoIterator<Item = Uuid>) -> usize {
        let uuids = uuids.into_iter().collect();
        self.shared.write_tables().entry(project).or_default().delete(&uuids)
    }

    /// Merges what `ReplacingMergeTree` takes for duplicates of a row: of rows that can be seen and share day,
    /// name, distinct id and uuid the one that came last stays. Returns how many are gone.
    pub fn merge_duplicates(&self, project: u64) -> usize {
        let now = self.shared.server().now().timestamp_micros();
        self.shared.write_tables().entry(project).or_default().merge_duplicates(now)
    }

    /// Adds or replaces a row of the persons table.
    pub fn insert_person(&self, project: u64, person: Person) {
        self.shared.write_tables().entry(project).or_default().put_person(person);
    }

    /// Adds or replaces a row of the groups table.
    pub fn insert_group(&self, project: u64, group: Group) {
        self.shared.write_tables().entry(project).or_default().put_group(group);
    }

    /// Merges the person of one distinct id into that of another, as `$identify` does. If the instance
    /// doesn't rewrite events, only queries know of it, as far as their `personsOnEventsMode` goes; exports
    /// have the persons at ingestion, and no line of a person that has become part of another.
    pub fn merge(&self, project: u64, into: &str, from: &str) {
        let now = Utc::now().timestamp_millis() * 1000;
        self.shared.write_tables().entry(project).or_default().identify(project, into, from, now);
    }

    /// Deletes a person and its distinct ids, as somebody does in PostHog.
    pub fn delete_person(&self, project: u64, id: Uuid) {
        let now = Utc::now().timestamp_millis() * 1000;
        self.shared.write_tables().entry(project).or_default().delete_person(id, now);
    }

    /// Hides old events of a project from now on, or tells that it will.
    pub fn set_retention(&self, project: u64, retention: Retention) {
        self.shared.write_tables().entry(project).or_default().retention = retention;
    }

    /// Stands for another instance of PostHog from now on, as after an upgrade.
    pub fn set_server(&self, server: Server) {
        for tables in self.shared.write_tables().values_mut() {
            tables.merges_rewrite_events = server.merges_rewrite_events;
        }
        *lock(&self.shared.server) = Arc::new(server);
    }

    /// Adds rows of the table of ingestion warnings.
    pub fn insert_ingestion_warnings(&self, project: u64, warnings: Vec<IngestionWarning>) {
        self.shared.write_tables().entry(project).or_default().ingestion_warnings.extend(warnings);
    }

    /// All groups, by their types and keys.
    pub fn groups(&self, project: u64) -> Vec<Group> {
        self.shared.read_tables().get(&project).into_iter().flat_map(Tables::groups).cloned().collect()
    }

    /// Says who belongs to a cohort; static ones have a table of their own, which is raw and keeps duplicates.
    pub fn set_cohort_people(&self, project: u64, cohort_id: i64, is_static: bool, person_ids: Vec<Uuid>) {
        let mut people = person_ids;
        people.sort_unstable();
        if !is_static {
            people.dedup();
        }
        let cohort = Cohort { is_static, people };
        self.shared.write_tables().entry(project).or_default().cohorts.insert(cohort_id, cohort);
    }

    /// Who belongs to which cohort, of either sort, by cohort and person.
    pub fn cohort_people(&self, project: u64) -> Vec<(i64, Uuid)> {
        let tables = self.shared.read_tables();
        let cohorts = tables.get(&project).into_iter().flat_map(|tables| &tables.cohorts);
        cohorts.flat_map(|(id, cohort)| cohort.people.iter().map(|person| (*id, *person))).collect()
    }

    /// Sets what a list endpoint such as `annotations` or `feature_flags` returns.
    pub fn set_list(&self, project: u64, name: &str, objects: Vec<serde_json::Value>) {
        self.shared.write_tables().entry(project).or_default().lists.insert(name.to_owned(), objects);
    }

    /// What a list endpoint returns, all of it.
    pub fn list(&self, project: u64, name: &str) -> Vec<serde_json::Value> {
        self.shared.read_tables().get(&project).map(|tables| lists::objects(tables, name)).unwrap_or_default()
    }

    /// Fills every list with objects that only depend on the arguments and on the current day, and adds
    /// groups of two types, persons with several distinct ids, and the people of three cohorts.
    pub fn generate_lists(&self, project: u64, seed: u64) {
        let mut tables = self.shared.write_tables();
        metadata::generate(project, seed, tables.entry(project).or_default());
    }

    /// Takes in the stored data set, events of real SDKs, as if captured now, moved in time so that
    /// the newest event is at `newest`. Returns how many there are.
    pub fn load_dataset(&self, project: u64, newest: DateTime<Utc>) -> anyhow::Result<usize> {
        let mut tables = self.shared.write_tables();
        dataset::load(project, tables.entry(project).or_default(), newest)
    }

    /// Makes events that only depend on the arguments, ordinary ones and all kinds of awkward ones, and
    /// the persons behind them. The first has the timestamp `newest`, a few lie in its future; each is
    /// taken in within five seconds, except for those that come forty days late. Returns how many
    /// rows were added, which is `count`.
    pub fn generate(&self, project: u64, count: usize, seed: u64, newest: DateTime<Utc>) -> usize {
        let events = generate::events(project, count, seed, newest.timestamp_micros());
        let added = events.len();
        let mut tables = self.shared.write_tables();
        let tables = tables.entry(project).or_default();
        for person in generate::persons(&events) {
            tables.put_person(person);
        }
        tables.insert(events);
        added
    }

    /// All rows of the events table in the order of their timestamps, hidden ones too: the truth.
    pub fn events(&self, project: u64) -> Vec<Event> {
        let tables = self.shared.read_tables();
        let events = tables.get(&project).map(Tables::events).unwrap_or_default();
        events.iter().map(|event| Event::clone(event)).collect()
    }

    /// All persons, by id.
    pub fn persons(&self, project: u64) -> Vec<Person> {
        let tables = self.shared.read_tables();
        let mut persons: Vec<Person> =
            tables.get(&project).into_iter().flat_map(Tables::persons).map(|person| Person::clone(person)).collect();
        persons.sort_by_key(|person| person.id);
        persons
    }

    /// The person that a distinct id leads to, whether or not there is a row for it.
    pub fn person_id(&self, project: u64, distinct_id: &str) -> Uuid {
        let tables = self.shared.read_tables();
        tables
            .get(&project)
            .map_or_else(|| store::person_uuid(project, distinct_id), |tables| tables.person_id(project, distinct_id))
    }

    /// Every request since the last [`Sandbox::clear_requests`], in the order they came.
    pub fn requests(&self) -> Vec<RequestLog> {
        lock(&self.shared.log).requests.clone()
    }

    /// Sums over the same requests.
    pub fn stats(&self) -> Stats {
        lock(&self.shared.log).stats.clone()
    }

    /// Forgets the requests so far, those to the file host too, but no leaks.
    pub fn clear_requests(&self) {
        lock(&self.shared.log).clear();
        lock(&self.shared.exports).requests.clear();
    }

    /// Replaces how exports behave from now on; runs go on as they were started.
    pub fn set_exports(&self, exports: Exports) {
        lock(&self.shared.exports).config = exports;
    }

    /// Every run of an export, in the order they were started.
    pub fn export_runs(&self) -> Vec<ExportRun> {
        lock(&self.shared.exports).runs()
    }

    /// Runs of a project that were under way at the same time, at most.
    pub fn most_runs_at_a_time(&self) -> usize {
        lock(&self.shared.exports).most_active
    }

    /// Lets all exported files that there are expire, and with them their links.
    pub fn expire_export_files(&self) {
        lock(&self.shared.exports).expire_files();
    }

    /// Every request to the file host since the last [`Sandbox::clear_requests`], in the order they came.
    pub fn file_requests(&self) -> Vec<FileRequest> {
        lock(&self.shared.exports).requests.clone()
    }

    /// How often a client showed its key where it came by a redirect, to the file host or by way of it.
    pub fn authorization_leaks(&self) -> usize {
        lock(&self.shared.exports).leaks
    }

    /// Replaces the rules by which answers go wrong; their counters start over.
    pub fn set_faults(&self, faults: Vec<Fault>) -> anyhow::Result<()> {
        *lock(&self.shared.faults) = Faults::new(faults)?;
        Ok(())
    }

    /// Replaces the limits; their counters start over.
    pub fn set_limits(&self, limits: Limits) {
        *lock(&self.shared.limits) = limits;
        *lock(&self.shared.meter) = Meter::default();
    }
}
