//! The chosen streams, checked before anything is read.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::config::Config;
use crate::error::Error;
use crate::protocol::state::SavedStates;
use crate::protocol::{ConfiguredStream, StreamDescriptor, SyncMode};
use crate::source::custom_queries::CustomStreams;
use crate::source::selected::selection;
use crate::streams::{
    self, AccountStream, EVENTS, KeysetStream, List, NestedList, PERSON_DISTINCT_IDS, PERSONS, Selection, Source, Table,
};
use crate::sync::{EventDaysState, KeysetState, ListState, ProjectEntry, ProjectState, StreamState};

/// A chosen stream whose settings have been checked.
pub(super) struct Job {
    pub(super) stream: Arc<StreamDescriptor>,
    pub(super) incremental: bool,
    /// Fields that its records have.
    pub(super) selection: Selection,
    pub(super) kind: JobKind,
}

pub(super) enum JobKind {
    Table {
        table: &'static Table,
        state: StreamState<ProjectState>,
    },
    Keyset {
        keyset: &'static KeysetStream,
        state: StreamState<KeysetState>,
    },
    List {
        list: &'static List,
        state: StreamState<ListState>,
    },
    Nested {
        nested: &'static NestedList,
        state: StreamState<ListState>,
    },
    Account(&'static AccountStream),
    /// Figures of events.
    EventDays {
        state: StreamState<EventDaysState>,
    },
    /// A custom query that is wrong, or a catalog that selects nothing of the stream.
    Failed(Error),
}

impl Job {
    /// A stream that cannot be read.
    fn failed(stream: Arc<StreamDescriptor>, error: Error) -> Self {
        Self { stream, incremental: false, selection: Selection::all(), kind: JobKind::Failed(error) }
    }
}

impl JobKind {
    /// The projects in its state.
    pub(super) fn projects(&self) -> Vec<u64> {
        match self {
            Self::Table { state, .. } => state.projects.keys().copied().collect(),
            Self::Keyset { state, .. } => state.projects.keys().copied().collect(),
            Self::List { state, .. } | Self::Nested { state, .. } => state.projects.keys().copied().collect(),
            Self::EventDays { state } => state.projects.keys().copied().collect(),
            Self::Account(_) | Self::Failed(_) => Vec::new(),
        }
    }
}

/// Names the projects that earlier syncs have read and the key does not list any more.
pub(super) fn warn_about_missing(jobs: &[Job], ids: &[u64]) {
    let known: BTreeSet<u64> = jobs.iter().flat_map(|job| job.kind.projects()).collect();
    for missing in known.into_iter().filter(|id| !ids.contains(id)) {
        tracing::warn!(
            "project {missing} is in the state, but the API key does not list it any more, so it is not read; give the key access to it, or set `project_ids` to those that are wanted"
        );
    }
}

/// Checks the chosen streams and their states before anything is read.
pub(super) fn jobs(
    config: &Config,
    chosen: &[&ConfiguredStream],
    state: &SavedStates,
    custom: &CustomStreams,
) -> Result<Vec<Job>, Error> {
    let mut jobs: Vec<Job> = Vec::new();
    for &configured in chosen {
        let stream = Arc::new(configured.descriptor());
        let name = &stream.name;
        if jobs.iter().any(|job| job.stream == stream) {
            return Err(Error::config(format!("the catalog has the stream `{name}` twice")));
        }
        if let Some((_, error)) = custom.failed.iter().find(|(failed, _)| failed == name) {
            jobs.push(Job::failed(stream, error.clone()));
            continue;
        }
        let source = Source::find(name, &custom.streams);
        let wanted = configured.sync_mode == SyncMode::Incremental;
        let incremental = wanted && source.is_some_and(Source::is_incremental);
        let Some(source) = source else {
            let names = streams::names().join(", ");
            return Err(Error::config(format!("the catalog has the unknown stream `{name}`; there are {names}")));
        };
        let selection = match selection(config, source, configured) {
            Ok(selection) => selection,
            Err(error) => {
                jobs.push(Job::failed(stream, error));
                continue;
            }
        };
        let kind = match source {
            Source::Account(account) => JobKind::Account(account),
            Source::EventDays => JobKind::EventDays { state: saved_state(state, &stream, "", incremental)? },
            Source::KeysetStream(keyset) => {
                JobKind::Keyset { keyset, state: saved_state(state, &stream, "", incremental)? }
            }
            Source::List(list) => JobKind::List { list, state: saved_state(state, &stream, "", incremental)? },
            Source::NestedList(nested) => {
                JobKind::Nested { nested, state: saved_state(state, &stream, "", incremental)? }
            }
            Source::Table(table) => {
                let state = saved_state(state, &stream, table.watermark_field(), incremental)?;
                JobKind::Table { table, state }
            }
        };
        jobs.push(Job { stream, incremental, selection, kind });
    }
    Ok(jobs)
}

/// Events first: they are given the first places among the requests. Then the other tables, which take longest.
pub(super) fn in_order(mut jobs: Vec<Job>) -> Vec<Job> {
    jobs.sort_by_key(|job| match &job.kind {
        JobKind::Table { table, .. } if table.stream == EVENTS.stream => 0,
        JobKind::Table { .. } => 1,
        _ => 2,
    });
    jobs
}

/// The state from which a stream goes on.
fn saved_state<T: ProjectEntry>(
    saved: &SavedStates,
    stream: &StreamDescriptor,
    cursor_field: &'static str,
    incremental: bool,
) -> Result<StreamState<T>, Error> {
    StreamState::parse(saved.stream(stream), cursor_field)
        .map(|state| state.for_mode(incremental))
        .map_err(|error| error.in_context(format_args!("stream `{}`", stream.name)))
}

/// Streams that are read together.
pub(super) enum Jobs {
    One(Job),
    /// Persons, and which distinct ids are theirs.
    Two(TableJob, TableJob),
    /// Events, and then the figures by which they have been compared.
    EventsAndDays(Job, Job),
}

/// A chosen table.
pub(super) struct TableJob {
    pub(super) stream: Arc<StreamDescriptor>,
    pub(super) incremental: bool,
    pub(super) table: &'static Table,
    pub(super) state: StreamState<ProjectState>,
    pub(super) selection: Selection,
}

/// Joins the streams that can be read from the same export runs, where the first of them stands.
pub(super) fn with_shared_runs(jobs: Vec<Job>) -> Vec<Jobs> {
    let mut joined: Vec<Jobs> = Vec::new();
    for job in jobs {
        let Job { stream, incremental, selection, kind: JobKind::Table { table, state } } = job else {
            joined.push(Jobs::One(job));
            continue;
        };
        let of = |table: &Table| [&PERSONS, &PERSON_DISTINCT_IDS].iter().position(|other| other.stream == table.stream);
        let partner = joined.iter().position(|other| {
            matches!(other, Jobs::One(Job { incremental: same, kind: JobKind::Table { table: other, .. }, .. })
                if *same == incremental && of(table).zip(of(other)).is_some_and(|(own, other)| own != other))
        });
        let job = TableJob { stream, incremental, table, state, selection };
        match partner.map(|place| (place, joined.remove(place))) {
            Some((place, Jobs::One(Job { stream, incremental, selection, kind: JobKind::Table { table, state } }))) => {
                let other = TableJob { stream, incremental, table, state, selection };
                let (persons, ids) = if table.stream == PERSONS.stream { (other, job) } else { (job, other) };
                joined.insert(place, Jobs::Two(persons, ids));
            }
            // Nothing else is a partner.
            Some((place, other)) => {
                joined.insert(place, other);
                joined.push(Jobs::One(job.into()));
            }
            None => joined.push(Jobs::One(job.into())),
        }
    }
    let place =
        |is: fn(&JobKind) -> bool| joined.iter().position(|jobs| matches!(jobs, Jobs::One(job) if is(&job.kind)));
    let events = place(|kind| matches!(kind, JobKind::Table { table, .. } if table.stream == EVENTS.stream));
    // Events come first of all.
    if let Some((events, days)) = events.zip(place(|kind| matches!(kind, JobKind::EventDays { .. })))
        && let (Jobs::One(days), Jobs::One(first)) = (joined.remove(days), joined.remove(events))
    {
        joined.insert(0, Jobs::EventsAndDays(first, days));
    }
    joined
}

impl From<TableJob> for Job {
    fn from(job: TableJob) -> Self {
        let TableJob { stream, incremental, table, state, selection } = job;
        Self { stream, incremental, selection, kind: JobKind::Table { table, state } }
    }
}
