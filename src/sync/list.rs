//! Reads one list endpoint of one project, page by page.
//!
//! Offsets shift when objects are made or deleted meanwhile. So the number of different objects is
//! compared with the server's count, and a list that has lost some is read again.

use std::collections::HashSet;
use std::sync::Arc;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::context::ReadContext;
use super::state::checkpoint::Checkpoint;
use super::state::error::warn_if_ahead;
use super::state::stream::{FieldsEntry, is_default};
use crate::error::Error;
use crate::posthog::http::{GiveUp, Refusal};
use crate::posthog::lists::{ListPage, PAGE, Pages};
use crate::records::{Object, ObjectWriter};
use crate::streams::{List, Passes};
use crate::time::Timestamp;

/// How often a list is read before its disagreement with the count is final.
const ATTEMPTS: u32 = 3;

/// How far a list has been read, as the state keeps it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListState {
    /// Everything that changed before this has been read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watermark: Option<Timestamp>,
    /// The watermark when the reading under way is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Number of the pass under way.
    #[serde(skip_serializing_if = "is_default")]
    pub pass: usize,
    /// Query string of the next page; none at the beginning of a pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Whether a full refresh has read this project.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub done: bool,
}

impl FieldsEntry for ListState {}

/// Reads one list of one project.
pub struct ListReader {
    /// Whom to ask, and where records go.
    pub context: ReadContext,
    /// What is read.
    pub list: &'static List,
    /// Where progress is kept.
    pub checkpoint: Arc<Checkpoint<ListState>>,
}

/// One way through the list.
struct Pass {
    parameters: String,
    /// Fields that the server does not send.
    labels: Vec<(&'static str, Value)>,
    /// Whether a server that refuses it has nothing of the kind.
    optional: bool,
}

/// What reading a list has come to.
struct Reading {
    state: ListState,
    /// Where the last sync ended, if this one goes by it.
    since: Option<Timestamp>,
    /// When this sync began, by the server's clock.
    until: Timestamp,
    writer: ObjectWriter,
    /// Objects that have been emitted, by pass and key.
    seen: HashSet<String>,
}

/// The number of objects of a pass, as reported by the server.
enum Counted {
    /// The server has nothing of the kind.
    NoSuchList,
    /// The server does not report it.
    Unknown,
    /// The highest count of any page: an object that is deleted meanwhile moves another one across a page
    /// boundary, where it is skipped.
    Objects(u64),
}

impl ListReader {
    /// Reads what has changed since the state, or everything.
    ///
    /// # Errors
    /// When the list cannot be read to its end.
    pub async fn run(&self) -> Result<(), Error> {
        let (context, change) = (&self.context, self.list.change);
        let mut state = self.checkpoint.project(context.project).await;
        if state.done && !context.incremental {
            return Ok(());
        }
        let until = *state.until.get_or_insert_with(|| context.client.now());
        let since = state.watermark.filter(|_| context.incremental);
        if let Some(watermark) = since {
            let from = with_lookback(watermark, change.map_or(0, |change| change.lookback_hours));
            warn_if_ahead(self.list.stream, watermark, from, context.client.now());
        }
        let writer = ObjectWriter::new(self.list, &context.stream, context.project);
        let mut reading = Reading { state, since, until, writer, seen: HashSet::new() };
        let passes = self.passes().await?;
        for (number, pass) in passes.iter().enumerate().skip(reading.state.pass) {
            reading.state.pass = number;
            self.read_pass(pass, &mut reading).await?;
        }
        reading.writer.report();
        let done = ListState {
            watermark: change.filter(|_| context.incremental).map(|_| until),
            done: !context.incremental,
            ..ListState::default()
        };
        self.checkpoint.set(context.project, done).await
    }

    /// Reads a pass until it is complete.
    async fn read_pass(&self, pass: &Pass, reading: &mut Reading) -> Result<(), Error> {
        for _ in 0..ATTEMPTS {
            let whole = reading.state.next.is_none();
            let mut listed = HashSet::new();
            let counted = self.read_pages(pass, reading, &mut listed).await?;
            reading.state.next = None;
            let count = match counted {
                Counted::NoSuchList | Counted::Unknown => return Ok(()),
                Counted::Objects(count) if whole && listed.len() as u64 >= count => return Ok(()),
                Counted::Objects(count) => count,
            };
            if !whole {
                tracing::debug!("{} are read again, to be counted", self.list.stream);
                continue;
            }
            tracing::warn!("{} {} read but PostHog counts {count}; reading them again", listed.len(), self.list.stream);
        }
        Err(Error::system(format!(
            "{} could not be read completely: fewer objects came than PostHog counts, {ATTEMPTS} times. They may be changing just now; the next sync reads them again",
            self.list.stream
        )))
    }

    /// Reads the pages of a pass. `listed` gets the keys of all its objects.
    async fn read_pages(
        &self,
        pass: &Pass,
        reading: &mut Reading,
        listed: &mut HashSet<String>,
    ) -> Result<Counted, Error> {
        let context = &self.context;
        let path = format!("api/projects/{}/{}/", context.project, self.list.path);
        let mut pages = Pages::new(&context.client, path, &context.observer);
        let first = || self.first_query(pass, reading.since, reading.until);
        let mut query = reading.state.next.clone().unwrap_or_else(first);
        let mut most = None;
        loop {
            let ListPage { objects, next, count } = match pages.read(&query).await {
                Ok(page) => page,
                Err(GiveUp::Refused(Refusal { status: 400 | 404, .. })) if pass.optional => {
                    return Ok(Counted::NoSuchList);
                }
                Err(give_up) => return Err(give_up.into()),
            };
            most = most.max(count);
            let mut batch = context.batch();
            for text in &objects {
                let object = Object::read(text).map_err(|problem| Error::system(problem.0))?;
                let key = object.key(&self.list.own_key());
                listed.insert(key.clone());
                let labelled = format!("{:?} {key}", pass.labels);
                if reading.seen.insert(labelled) && self.is_new(&object, reading.since) {
                    reading.writer.write(&object, &pass.labels, batch.lines.as_vec());
                    batch.records += 1;
                }
            }
            batch.send(true).await?;
            let Some(next) = next else { return Ok(most.map_or(Counted::Unknown, Counted::Objects)) };
            reading.state.next = Some(next.clone());
            self.checkpoint.set(context.project, reading.state.clone()).await?;
            query = next;
        }
    }

    /// Whether an object has changed since; true if it has no time of change.
    fn is_new(&self, object: &Object<'_>, since: Option<Timestamp>) -> bool {
        let (Some(change), Some(since)) = (self.list.change, since) else { return true };
        object.instant(change.field).is_none_or(|changed| changed >= with_lookback(since, change.lookback_hours))
    }

    fn first_query(&self, pass: &Pass, since: Option<Timestamp>, until: Timestamp) -> String {
        let mut query = format!("limit={PAGE}&offset=0");
        let mut add = |text: &str| {
            if !text.is_empty() {
                query.push('&');
                query.push_str(text);
            }
        };
        add(self.list.parameters);
        add(&pass.parameters);
        if let Some(change) = self.list.change {
            let from = since.map(|since| with_lookback(since, change.lookback_hours));
            let from = from.or_else(|| change.from_start_date.then_some(self.context.config.start));
            if let Some((parameter, from)) = change.filter.zip(from) {
                add(&format!("{parameter}={from}"));
                if change.from_start_date {
                    // New objects at the end must not shift pages.
                    add(&format!("date_to={until}"));
                }
            }
        }
        query
    }

    async fn passes(&self) -> Result<Vec<Pass>, Error> {
        let plain =
            |parameters: &str, optional| Pass { parameters: parameters.to_owned(), labels: Vec::new(), optional };
        Ok(match self.list.passes {
            Passes::One => vec![plain("", false)],
            Passes::Archived => vec![plain("", false), plain("archived=true", true)],
            Passes::PropertyTypes => {
                let mut passes: Vec<Pass> = ["event", "person", "session"]
                    .iter()
                    .map(|kind| Pass {
                        parameters: format!("type={kind}"),
                        labels: vec![("type", Value::from(*kind)), ("group_type_index", Value::Null)],
                        optional: *kind == "session",
                    })
                    .collect();
                passes.extend(self.group_types().await?.into_iter().map(|index| Pass {
                    parameters: format!("type=group&group_type_index={index}"),
                    labels: vec![
                        ("type", Value::from(format!("group_{index}"))),
                        ("group_type_index", Value::from(index)),
                    ],
                    optional: false,
                }));
                passes
            }
        })
    }

    /// Numbers of the project's group types.
    async fn group_types(&self) -> Result<Vec<u64>, Error> {
        #[derive(Deserialize)]
        struct GroupType {
            group_type_index: u64,
        }
        let (client, project) = (&self.context.client, self.context.project);
        let path = format!("api/projects/{project}/groups_types/");
        match client.get::<Vec<GroupType>>(&path, client.retry(), &self.context.observer).await {
            Ok(types) => Ok(types.into_iter().map(|kind| kind.group_type_index).collect()),
            Err(GiveUp::Refused(refusal)) => {
                let error = Error::from(GiveUp::Refused(refusal));
                tracing::warn!("definitions of group properties are not read: {error}");
                Ok(Vec::new())
            }
            Err(give_up) => Err(give_up.into()),
        }
    }
}

fn with_lookback(since: Timestamp, hours: i64) -> Timestamp {
    since.minus(TimeDelta::hours(hours))
}
