//! Reads a stream whose objects belong to objects of a list, one of these after the other.
//!
//! They are taken in the order of their keys, and the state has the one under way, so an interrupted read goes on
//! there whatever has happened to the list meanwhile.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::context::ReadContext;
use super::state::checkpoint::Checkpoint;
use super::state::error::refuse_ahead;
use super::state::stream::FieldsEntry;
use crate::error::Error;
use crate::posthog::http::{GiveUp, Refusal};
use crate::posthog::lists::{ListPage, PAGE, Pages};
use crate::protocol::Batch;
use crate::records::{Object, ObjectWriter};
use crate::streams::{Children, NestedList};
use crate::time::{Timestamp, days};

/// How often the list of parents is read before its disagreement with the count is final.
const ATTEMPTS: u32 = 3;

/// How far a nested list has been read, as the state keeps it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NestedListState {
    /// Everything that changed before this has been read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watermark: Option<Timestamp>,
    /// The watermark when the reading under way is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// The parent under way; those before it are done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Query string of the next page of its objects; none at their beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Whether a full refresh has read this project.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub done: bool,
}

impl FieldsEntry for NestedListState {}

/// Reads one nested list of one project.
pub struct NestedListReader {
    /// Whom to ask, and where records go.
    pub context: ReadContext,
    /// What is read.
    pub nested: &'static NestedList,
    /// Where progress is kept.
    pub checkpoint: Arc<Checkpoint<NestedListState>>,
}

impl NestedListReader {
    /// Reads what has changed since the state, or everything.
    ///
    /// # Errors
    /// When the list, or what belongs to one of its objects, cannot be read to its end.
    pub async fn run(&self) -> Result<(), Error> {
        let context = &self.context;
        let list = &self.nested.list;
        let mut state = self.checkpoint.project(context.project).await;
        if state.done && !context.incremental {
            return Ok(());
        }
        let until = *state.until.get_or_insert_with(|| context.client.now());
        let lookback = TimeDelta::hours(list.change.map_or(0, |change| change.lookback_hours));
        let watermark = state.watermark.filter(|_| context.incremental);
        let since = watermark.map(|watermark| watermark.minus(lookback));
        if let (Some(watermark), Some(from)) = (watermark, since) {
            refuse_ahead(list.stream, watermark, from, context.client.now())?;
        }
        let mut writer = ObjectWriter::new(list, &context.stream, context.project);
        for parent in self.parents().await? {
            match state.parent.as_ref() {
                Some(under_way) if parent < *under_way => continue,
                Some(under_way) if parent == *under_way => {}
                _ => (state.parent, state.next) = (Some(parent.clone()), None),
            }
            self.read_children(&parent, since, &mut state, &mut writer).await?;
        }
        writer.report();
        let done = NestedListState {
            watermark: list.change.filter(|_| context.incremental).map(|_| until),
            done: !context.incremental,
            ..NestedListState::default()
        };
        self.checkpoint.set(context.project, done).await
    }

    /// The ids of the objects whose own objects are read, in their order as texts.
    async fn parents(&self) -> Result<BTreeSet<String>, Error> {
        for _ in 0..ATTEMPTS {
            let mut parents = BTreeSet::new();
            let mut counted = 0;
            for (number, parameters) in self.nested.parent_queries.iter().enumerate() {
                let mut own = BTreeSet::new();
                match self.read_parents(parameters, &mut own).await {
                    Ok(count) if (own.len() as u64) < count => counted = u64::MAX,
                    Ok(_) => {}
                    Err(GiveUp::Refused(Refusal { status: 400 | 404, .. })) if number > 0 => {}
                    Err(give_up) => return Err(give_up.into()),
                }
                parents.append(&mut own);
            }
            if counted == 0 {
                return Ok(parents);
            }
            tracing::warn!("PostHog sent fewer {} than it counts; reading them again", self.nested.parents);
        }
        Err(Error::system(format!(
            "{} could not be read completely: PostHog sent fewer {} than it counts, in {ATTEMPTS} attempts. They may be changing right now; the next sync reads them again",
            self.nested.list.stream, self.nested.parents
        )))
    }

    /// Adds the ids of one way through the list, and returns how many the server counts.
    async fn read_parents(&self, parameters: &str, parents: &mut BTreeSet<String>) -> Result<u64, GiveUp> {
        let context = &self.context;
        let path = format!("api/projects/{}/{}/", context.project, self.nested.parents);
        let mut pages = Pages::new(&context.client, path, &context.observer);
        let separator = if parameters.is_empty() { "" } else { "&" };
        let take = |object: &RawValue| {
            parents.insert(id(object)?);
            Ok(())
        };
        Ok(pages.each(format!("limit={PAGE}&offset=0{separator}{parameters}"), take).await?.unwrap_or(0))
    }

    /// Reads what belongs to one object.
    async fn read_children(
        &self,
        parent: &str,
        since: Option<Timestamp>,
        state: &mut NestedListState,
        writer: &mut ObjectWriter,
    ) -> Result<(), Error> {
        let (context, nested) = (&self.context, self.nested);
        let path = format!("api/projects/{}/{}/{parent}/{}/", context.project, nested.parents, nested.list.path);
        let Children::MadeBetween { after, before, days: changeable } = nested.children else {
            let found = context.client.get::<Box<RawValue>>(&path, context.client.retry(), &context.observer).await;
            let mut batch = context.batch();
            match found {
                Ok(object) => self.write(&object, since, writer, &mut batch)?,
                // There is none, or the parent has been deleted meanwhile.
                Err(GiveUp::Refused(Refusal { status: 404, .. })) => return Ok(()),
                Err(give_up) => return Err(give_up.into()),
            }
            batch.send(true).await?;
            return self.checkpoint.set(context.project, state.clone()).await;
        };
        let from = since.map_or(context.config.start, |since| since.minus(days(changeable)).max(context.config.start));
        let until = state.until.unwrap_or_else(|| context.client.now());
        let mut pages = Pages::new(&context.client, path, &context.observer);
        loop {
            let first = || format!("limit={PAGE}&{}&{after}={from}&{before}={until}", nested.list.parameters);
            let query = state.next.clone().unwrap_or_else(first);
            let ListPage { objects, next, .. } = match pages.read(&query).await {
                Ok(page) => page,
                // The parent has been deleted meanwhile.
                Err(GiveUp::Refused(Refusal { status: 404, .. })) => return Ok(()),
                Err(give_up) => return Err(give_up.into()),
            };
            let mut batch = context.batch();
            for object in &objects {
                self.write(object, since, writer, &mut batch)?;
            }
            batch.send(true).await?;
            state.next = next;
            if state.next.is_none() {
                return Ok(());
            }
            self.checkpoint.set(context.project, state.clone()).await?;
        }
    }

    /// Writes the record of an object if it is new.
    fn write(
        &self,
        text: &RawValue,
        since: Option<Timestamp>,
        writer: &mut ObjectWriter,
        batch: &mut Batch<'_>,
    ) -> Result<(), Error> {
        let object = Object::read(text).map_err(|problem| Error::system(problem.0))?;
        let changed = self.nested.list.change.and_then(|change| object.instant(change.field));
        let is_old = since.zip(changed).is_some_and(|(since, changed)| changed < since);
        if !is_old {
            let data = writer.data(&object, &[]);
            writer.write(&data, batch.lines.as_vec());
            batch.records += 1;
        }
        Ok(())
    }
}

/// The id of an object as it stands in paths: a number, or a text of letters, digits and dashes.
fn id(object: &RawValue) -> Result<String, GiveUp> {
    let object = Object::read(object).map_err(|problem| Error::system(problem.0))?;
    let id = object.key(&["id"]).trim_matches('"').to_owned();
    let is_plain = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if is_plain {
        Ok(id)
    } else {
        Err(GiveUp::Unusable(format!("PostHog sends an object with the unusable id `{id}`")))
    }
}
