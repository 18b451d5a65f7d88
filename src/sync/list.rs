//! Reads one list endpoint of one project, page by page.
//!
//! Offsets shift when objects are made or deleted meanwhile. So the number of different objects is
//! compared with the server's count, and a list that has lost some is read again.

use std::collections::HashSet;
use std::sync::Arc;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Error;
use crate::posthog::http::Client;
use crate::posthog::lists::{ListPage, PAGE, Pages};
use crate::protocol::{Batch, Output, StreamDescriptor};
use crate::records::{Object, ObjectWriter};
use crate::streams::{List, Passes};
use crate::sync::observer::StreamObserver;
use crate::sync::state::error::warn_if_ahead;
use crate::sync::state::journal::Journal;
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
    #[serde(skip_serializing_if = "is_zero")]
    pub pass: usize,
    /// Query string of the next page; none at the beginning of a pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Whether a full refresh has read this project.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub done: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// Reads one list of one project.
pub struct ListReader {
    /// Sends the requests.
    pub client: Client,
    /// What is read.
    pub list: &'static List,
    /// Number of the project.
    pub project: u64,
    /// Whether a later sync continues from this one.
    pub incremental: bool,
    /// The user's start date.
    pub start: Timestamp,
    /// Where records go.
    pub output: Output,
    /// Name under which they go.
    pub stream: Arc<StreamDescriptor>,
    /// Where progress is noted.
    pub journal: Arc<Journal<ListState>>,
    /// Hears of waits.
    pub observer: StreamObserver,
}

/// One way through the list.
struct Pass {
    parameters: String,
    /// Fields that the server does not send.
    labels: Vec<(&'static str, Value)>,
    /// Whether a server that refuses it has nothing of the kind.
    optional: bool,
}

impl ListReader {
    /// Reads what has changed since the state, or everything.
    ///
    /// # Errors
    /// When the list cannot be read to its end.
    pub async fn run(&self) -> Result<(), Error> {
        let mut note = self.journal.note(self.project).await;
        if note.done && !self.incremental {
            return Ok(());
        }
        let until = *note.until.get_or_insert_with(|| self.client.now());
        let since = note.watermark.filter(|_| self.incremental);
        if let Some(watermark) = since {
            let from = with_lookback(watermark, self.list.change.map_or(0, |change| change.lookback_hours));
            warn_if_ahead(self.project, self.list.stream, watermark, from, self.client.now());
        }
        let mut writer = ObjectWriter::new(self.list, &self.stream, self.project);
        let mut seen = HashSet::new();
        let passes = self.passes().await?;
        for (number, pass) in passes.iter().enumerate().skip(note.pass) {
            note.pass = number;
            self.read_pass(pass, since, until, &mut note, &mut writer, &mut seen).await?;
        }
        writer.report();
        let done = ListState {
            watermark: self.list.change.filter(|_| self.incremental).map(|_| until),
            done: !self.incremental,
            ..ListState::default()
        };
        self.journal.write(self.project, done).await
    }

    /// Reads a pass until it is complete.
    async fn read_pass(
        &self,
        pass: &Pass,
        since: Option<Timestamp>,
        until: Timestamp,
        note: &mut ListState,
        writer: &mut ObjectWriter,
        seen: &mut HashSet<String>,
    ) -> Result<(), Error> {
        for _ in 0..ATTEMPTS {
            let whole = note.next.is_none();
            let mut listed = HashSet::new();
            let Some(count) = self.read_pages(pass, since, until, note, writer, seen, &mut listed).await? else {
                return Ok(());
            };
            note.next = None;
            if count.is_none_or(|count| whole && listed.len() as u64 >= count) {
                return Ok(());
            }
            if !whole {
                tracing::debug!("project {}: {} are read again, to be counted", self.project, self.list.stream);
                continue;
            }
            tracing::warn!(
                "project {}: {} {} read but PostHog counts {}; reading them again",
                self.project,
                listed.len(),
                self.list.stream,
                count.unwrap_or_default()
            );
        }
        Err(Error::system(format!(
            "project {}: {} could not be read completely: fewer objects came than PostHog counts, {ATTEMPTS} times. They may be changing just now; the next sync reads them again",
            self.project, self.list.stream
        )))
    }

    /// Reads the pages of a pass. Returns the most that the server has counted; none when it has nothing
    /// of the kind.
    #[expect(clippy::too_many_arguments, reason = "one place that calls it, with what it has")]
    async fn read_pages(
        &self,
        pass: &Pass,
        since: Option<Timestamp>,
        until: Timestamp,
        note: &mut ListState,
        writer: &mut ObjectWriter,
        seen: &mut HashSet<String>,
        listed: &mut HashSet<String>,
    ) -> Result<Option<Option<u64>>, Error> {
        let path = format!("api/projects/{}/{}/", self.project, self.list.path);
        let mut pages = Pages::new(&self.client, path, &self.observer);
        let mut query = note.next.clone().unwrap_or_else(|| self.first_query(pass, since, until));
        // The most that any page tells: an object that is deleted meanwhile hides another one behind the
        // border of two pages.
        let mut most = None;
        loop {
            let ListPage { objects, next, count } = match pages.read(&query).await? {
                Ok(page) => page,
                Err(refusal) if pass.optional && matches!(refusal.status, 400 | 404) => return Ok(None),
                Err(refusal) => return Err(refusal.error),
            };
            most = most.max(count);
            let mut batch = Batch::new(&self.output, &self.stream);
            for text in &objects {
                let object = Object::read(text).map_err(|problem| Error::system(problem.0))?;
                let own =
                    self.list.primary_key.iter().copied().filter(|field| *field != "project_id" && *field != "type");
                let key = object.key(&own.collect::<Vec<_>>());
                listed.insert(key.clone());
                let labelled = format!("{:?} {key}", pass.labels);
                if seen.insert(labelled) && self.is_new(&object, since) {
                    writer.write(&object, &pass.labels, batch.lines.as_vec());
                    batch.records += 1;
                }
            }
            batch.send(true).await?;
            let Some(next) = next else { return Ok(Some(most)) };
            note.next = Some(next.clone());
            self.journal.write(self.project, note.clone()).await?;
            query = next;
        }
    }

    /// Whether an object has changed since; one that does not tell may have.
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
            let from = from.or_else(|| change.from_start_date.then_some(self.start));
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
        let path = format!("api/projects/{}/groups_types/", self.project);
        let response =
            self.client.get_unless_refused::<Vec<GroupType>>(&path, self.client.retry(), &self.observer).await?;
        match response {
            Ok(types) => Ok(types.into_iter().map(|kind| kind.group_type_index).collect()),
            Err(refusal) => {
                tracing::warn!(
                    "project {}: definitions of group properties are not read: {}",
                    self.project,
                    refusal.error
                );
                Ok(Vec::new())
            }
        }
    }
}

fn with_lookback(since: Timestamp, hours: i64) -> Timestamp {
    since.minus(TimeDelta::hours(hours))
}
