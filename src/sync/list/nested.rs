//! Reads a stream whose objects belong to objects of a list, one of these after the other.
//!
//! They are taken in the order of their keys, and the state has the one under way, so an interrupted read goes on
//! there whatever has happened to the list meanwhile.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::TimeDelta;
use serde_json::value::RawValue;

use super::emitter::Emitter;
use super::offsets::{OffsetList, Offsets};
use super::plan::planned;
use super::spans::{Covered, LookBack, Span};
use super::state::ListState;
use crate::error::Error;
use crate::posthog::http::{GiveUp, Refusal};
use crate::posthog::lists::{ListPage, PAGE, Pages};
use crate::records::{Object, ObjectWriter};
use crate::streams::{Children, NestedList};
use crate::sync::context::ReadContext;
use crate::sync::read_plan::{PlannedMethod, PlannedRead};
use crate::sync::report::Proof;
use crate::sync::state::checkpoint::Checkpoint;
use crate::sync::state::error::refuse_ahead;
use crate::time::{Timestamp, days};

/// Reads one nested list of one project.
pub struct NestedListReader {
    /// Whom to ask, and where records go.
    pub context: ReadContext,
    /// What is read.
    pub nested: &'static NestedList,
    /// Where progress is kept.
    pub checkpoint: Arc<Checkpoint<ListState>>,
}

/// Objects that were made in a span of time, and of these the ones that have changed since some time.
struct Part {
    made: Span,
    changed_since: Option<Timestamp>,
}

impl NestedListReader {
    /// Reads what has changed since the state, or everything.
    ///
    /// # Errors
    /// When the list, or what belongs to one of its objects, cannot be read to its end.
    pub async fn run(&self) -> Result<(), Error> {
        let (context, list, start) = (&self.context, &self.nested.list, self.context.config.start);
        let mut state = self.checkpoint.project(context.project).await;
        if state.done && !context.incremental {
            return Ok(());
        }
        let until = *state.until.get_or_insert_with(|| context.client.now());
        let margin = TimeDelta::hours(list.change.map_or(0, |change| change.lookback_hours));
        let watermark = state.watermark.filter(|_| context.incremental);
        let since = watermark.map(|watermark| watermark.minus(margin));
        if let Some((watermark, since)) = watermark.zip(since) {
            refuse_ahead(list.stream, watermark, since, context.client.now())?;
        }
        let is_resumed = state.parent.is_some();
        if state.start.replace(start).is_some_and(|begun| begun != start) {
            (state.pass, state.parent, state.next) = (0, None, None);
        }
        let (parts, change, from) = match self.nested.children {
            // What has changed is told by the content, so that what comes back is found, too.
            Children::One => (vec![Part { made: Span { from: start, to: until }, changed_since: None }], None, None),
            Children::MadeBetween { days: changeable, .. } => {
                let look_back = LookBack { usual: margin + days(changeable), late: None };
                let covered = watermark.and_then(|_| Covered::of(&state, look_back, until));
                let from = Covered::from_after(covered, start);
                (parts(start, covered, since, until), list.change.map(|change| change.field), Some(from))
            }
        };
        let writer = ObjectWriter::new(list, &context.selection, &context.stream, context.project);
        let keep_from = context.incremental.then(|| until.minus(margin));
        let mut emitter = Emitter::new(writer, change, std::mem::take(&mut state.sent), keep_from);
        if context.plan.is_some() {
            return self.plan(parts.len() as u64).await;
        }
        let parents = self.parents().await?;
        for (number, part) in parts.iter().enumerate().skip(state.pass) {
            state.pass = number;
            emitter.keep_within(part.changed_since, None);
            let mut is_saved = true;
            for parent in &parents {
                match state.parent.as_ref() {
                    Some(under_way) if parent < under_way => continue,
                    Some(under_way) if parent == under_way => {}
                    _ => (state.parent, state.next) = (Some(parent.clone()), None),
                }
                if !is_saved {
                    self.checkpoint.set(context.project, emitter.state(&state)).await?;
                }
                is_saved = match self.nested.children {
                    Children::One => self.read_child(parent, &state, &mut emitter).await?,
                    Children::MadeBetween { after, before, .. } => {
                        let made = format!("{after}={}&{before}={}", part.made.from, part.made.to);
                        self.read_children(parent, &made, &mut state, &mut emitter).await?
                    }
                };
            }
            (state.parent, state.next) = (None, None);
        }
        context.report.proven_by(Proof::ReadToEnd);
        let sent = emitter.finish(!is_resumed);
        let done = if context.incremental {
            ListState { watermark: list.change.map(|_| until), from, sent, ..ListState::default() }
        } else {
            ListState { done: true, ..ListState::default() }
        };
        self.checkpoint.set(context.project, done).await
    }

    /// Enters what would be read, if nothing is to be read: a request at least for each object of the list and each of so
    /// many parts.
    async fn plan(&self, parts: u64) -> Result<(), Error> {
        let (context, mut read) = (&self.context, PlannedRead { rows: Some(0), ..PlannedRead::default() });
        let path = context.list_path(self.nested.parents);
        for (number, parameters) in self.nested.parent_queries.iter().enumerate() {
            read.add(planned(context, &path, &first_query(parameters), number > 0).await?);
        }
        let own = read.rows.unwrap_or_default() * parts;
        let planned = PlannedRead { queries: read.queries + own, ..PlannedRead::default() };
        context.plan_read(PlannedMethod::List, planned);
        Ok(())
    }

    /// The ids of the objects whose own objects are read, in their order as texts.
    async fn parents(&self) -> Result<BTreeSet<String>, Error> {
        let (context, name) = (&self.context, self.nested.parents);
        let path = context.list_path(name);
        let mut parents = BTreeSet::new();
        for (number, parameters) in self.nested.parent_queries.iter().enumerate() {
            let first = first_query(parameters);
            let list = OffsetList { name, path: path.clone(), key: vec!["id"], first, is_optional: number > 0 };
            let mut pages = Offsets::new(context, list);
            while let Some(objects) = pages.next().await? {
                for object in objects {
                    parents.insert(in_path(&object.key)?);
                }
            }
        }
        Ok(parents)
    }

    /// Reads the one object that belongs to another. Returns whether a STATE covers it.
    async fn read_child(&self, parent: &str, state: &ListState, emitter: &mut Emitter) -> Result<bool, Error> {
        let context = &self.context;
        let (path, retry) = (self.path(parent), context.client.retry());
        match context.client.get_in_turn::<Box<RawValue>>(&path, retry, &context.observer).await {
            Ok((object, _turn)) => self.emit(&[object], state, emitter).await,
            // There is none, or the parent has been deleted meanwhile.
            Err(GiveUp::Refused(Refusal { status: 404, .. })) => Ok(true),
            Err(give_up) => Err(give_up.into()),
        }
    }

    /// Reads the objects that belong to another and were `made` in a span of time. Returns whether a STATE covers
    /// them.
    async fn read_children(
        &self,
        parent: &str,
        made: &str,
        state: &mut ListState,
        emitter: &mut Emitter,
    ) -> Result<bool, Error> {
        let context = &self.context;
        let pages = || Pages::new(&context.client, self.path(parent), &context.observer);
        let (mut own, mut may_begin_again) = (pages(), true);
        loop {
            let first = || format!("limit={PAGE}&{}&{made}", self.nested.list.parameters);
            let query = state.next.clone().unwrap_or_else(first);
            let ListPage { objects, next, turn: _turn, .. } = match own.read(&query).await {
                Ok(page) => page,
                Err(GiveUp::Refused(Refusal { status: 404, .. })) if state.next.is_none() => {
                    // The parent has been deleted meanwhile.
                    return Ok(true);
                }
                Err(GiveUp::Refused(Refusal { status: 404, .. })) if may_begin_again => {
                    // Or the server does not know this cursor any more.
                    (state.next, own, may_begin_again) = (None, pages(), false);
                    continue;
                }
                Err(give_up) => return Err(give_up.into()),
            };
            let is_saved = self.emit(&objects, state, emitter).await?;
            state.next = next;
            if state.next.is_none() {
                return Ok(is_saved);
            }
            self.checkpoint.set(context.project, emitter.state(state)).await?;
        }
    }

    /// Emits objects. Returns whether there was nothing to emit.
    async fn emit(&self, texts: &[Box<RawValue>], state: &ListState, emitter: &mut Emitter) -> Result<bool, Error> {
        let mut batch = self.context.batch();
        for text in texts {
            let object = Object::read(text).map_err(|problem| Error::system(problem.0))?;
            emitter.emit(&object.key(&self.nested.list.own_key()), &object, &[], &mut batch);
        }
        let is_empty = batch.records == 0;
        emitter.send(batch, &self.checkpoint, self.context.project, state).await?;
        Ok(is_empty)
    }

    fn path(&self, parent: &str) -> String {
        let NestedList { parents, list, .. } = self.nested;
        format!("api/projects/{}/{parents}/{parent}/{}/", self.context.project, list.path)
    }
}

/// What has to be read of objects that are looked for by the time when they were made: all from `start` on, or all
/// that an earlier start date adds, and what has changed since the last sync.
fn parts(start: Timestamp, covered: Option<Covered>, since: Option<Timestamp>, until: Timestamp) -> Vec<Part> {
    let part = |from, to, changed_since| Part { made: Span { from, to }, changed_since };
    let mut parts = match covered {
        None => vec![part(start, until, None)],
        Some(Covered { from, settled }) => {
            let earlier = (start < from).then(|| part(start, from, None));
            earlier.into_iter().chain([part(settled.max(from).max(start), until, since)]).collect()
        }
    };
    // A watermark can be ahead of the clock.
    parts.retain(|part| part.made.from <= part.made.to);
    parts
}

fn first_query(parameters: &str) -> String {
    let separator = if parameters.is_empty() { "" } else { "&" };
    format!("limit={PAGE}&offset=0{separator}{parameters}")
}

/// The id of an object as it stands in paths: a number, or a text of letters, digits and dashes.
fn in_path(key: &str) -> Result<String, Error> {
    let id = key.trim_matches('"');
    let is_plain = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if is_plain {
        Ok(id.to_owned())
    } else {
        Err(GiveUp::Unusable(format!("PostHog sends an object with the unusable id `{id}`")).into())
    }
}
