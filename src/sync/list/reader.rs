//! Reads one list endpoint of one project.

use std::sync::Arc;

use chrono::TimeDelta;
use serde::Deserialize;
use serde_json::Value;

use super::emitter::Emitter;
use super::offsets::{Listed, OffsetList, Offsets};
use super::plan::planned;
use super::recordings::{Recordings, Unordered};
use super::sent::MOST;
use super::spans::{Covered, LookBack, Span, spans};
use super::state::ListState;
use crate::error::Error;
use crate::posthog::AtMost;
use crate::posthog::http::GiveUp;
use crate::posthog::lists::PAGE;
use crate::records::{Object, ObjectWriter};
use crate::streams::{Change, List, Passes};
use crate::sync::context::ReadContext;
use crate::sync::read_plan::PlannedMethod;
use crate::sync::report::Proof;
use crate::sync::state::checkpoint::Checkpoint;
use crate::sync::state::error::refuse_ahead;
use crate::time::Timestamp;

/// Reads one list of one project.
pub struct ListReader {
    /// Whom to ask, and where records go.
    pub context: ReadContext,
    /// What is read.
    pub list: &'static List,
    /// Where progress is kept.
    pub checkpoint: Arc<Checkpoint<ListState>>,
}

/// One way through a list.
struct Pass {
    /// Query string of the first page.
    query: String,
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
        let (context, change, start) = (&self.context, self.list.change, self.context.config.start);
        let mut state = self.checkpoint.project(context.project).await;
        if state.done && !context.incremental {
            return Ok(());
        }
        let until = *state.until.get_or_insert_with(|| context.client.now());
        let look_back = LookBack {
            usual: TimeDelta::hours(change.map_or(0, |change| change.lookback_hours)),
            late: change.and_then(|change| change.late_hours).map(TimeDelta::hours),
        };
        let watermark = state.watermark.filter(|_| context.incremental);
        if let Some(watermark) = watermark {
            refuse_ahead(self.list.stream, watermark, watermark.minus(look_back.usual), context.client.now())?;
        }
        let by_time = change.filter(|change| change.from_start_date);
        let covered = watermark.filter(|_| by_time.is_some());
        let covered = covered.and_then(|_| Covered::of(&state, look_back, until));
        if let Some((covered, from)) = covered.zip(look_back.late_from(&state, until))
            && covered.settled > from
        {
            tracing::info!(
                "{stream} that came late are only looked for from {settled} on, not from {from} on: the state keeps the latest {MOST}, and earlier ones would all come again",
                stream = self.list.stream,
                settled = covered.settled
            );
        }
        if context.plan.is_some() {
            let by_time = by_time.map(|change| (change, spans(start, covered, until)));
            return self.plan(until, by_time, watermark.map(|watermark| watermark.minus(look_back.usual))).await;
        }
        let mut done = if context.incremental {
            let from = by_time.map(|_| Covered::from_after(covered, start));
            let late_look = look_back.late_look_after(&state, until);
            ListState { watermark: Some(until), from, late_look, ..ListState::default() }
        } else {
            ListState { done: true, ..ListState::default() }
        };
        let writer = ObjectWriter::new(self.list, &context.selection, &context.stream, context.project);
        let keep_from = context.incremental.then(|| look_back.furthest(&done, until));
        let sent = std::mem::take(&mut state.sent);
        let mut emitter = Emitter::new(writer, change.map(|change| change.field), sent, keep_from);
        if let Some(change) = by_time {
            self.read_by_time(change, &mut state, &spans(start, covered, until), until, &mut emitter).await?;
        } else {
            emitter.expect_repeats();
            let since = watermark.map(|watermark| watermark.minus(look_back.usual));
            emitter.keep_within(since, None);
            for (number, pass) in self.passes(since).await?.iter().enumerate().skip(state.pass) {
                self.read_pass(pass, &state, &mut emitter).await?;
                // An incremental sync has to meet all objects, to know which of them are still there.
                if !context.incremental {
                    state.pass = number + 1;
                    self.checkpoint.set(context.project, state.clone()).await?;
                }
            }
        }
        done.sent = emitter.finish(by_time.is_none());
        self.checkpoint.set(context.project, done).await
    }

    /// Enters what would be read, if nothing is to be read.
    async fn plan(
        &self,
        until: Timestamp,
        by_time: Option<(Change, Vec<Span>)>,
        since: Option<Timestamp>,
    ) -> Result<(), Error> {
        let Self { context, list, checkpoint } = self;
        let path = context.list_path(list.path);
        let queries: Vec<(String, bool)> = match by_time {
            Some((change, spans)) => {
                let recordings = Recordings { context, list, change, until, checkpoint };
                spans.into_iter().map(|span| (recordings.first_query(span.from), false)).collect()
            }
            None => self.passes(since).await?.into_iter().map(|pass| (pass.query, pass.optional)).collect(),
        };
        for (query, is_optional) in queries {
            let planned = planned(context, &path, &query, is_optional).await?;
            context.plan_read(PlannedMethod::List, planned);
        }
        Ok(())
    }

    /// Reads spans of a list by the time at which its objects begin.
    async fn read_by_time(
        &self,
        change: Change,
        state: &mut ListState,
        spans: &[Span],
        until: Timestamp,
        emitter: &mut Emitter,
    ) -> Result<(), Error> {
        let (context, start) = (&self.context, self.context.config.start);
        if state.start.replace(start).is_some_and(|begun| begun != start) {
            // What has been reached was reached from another start.
            (state.pass, state.reached) = (0, None);
        }
        let recordings = Recordings { context, list: self.list, change, until, checkpoint: &self.checkpoint };
        for (number, span) in spans.iter().enumerate().skip(state.pass) {
            state.pass = number;
            if let Err(Unordered) = recordings.read_span(*span, state, emitter).await? {
                tracing::warn!(
                    "this PostHog does not sort {} as requested, so they are read until two listings agree",
                    self.list.stream
                );
                if state.reached.take().is_some() {
                    self.checkpoint.set(context.project, emitter.state(state)).await?;
                }
                emitter.expect_repeats();
                emitter.keep_within(Some(span.from), Some(span.to));
                let query = recordings.query_by_offset(*span);
                let pass = Pass { query, labels: Vec::new(), optional: false };
                self.read_pass(&pass, state, emitter).await?;
            } else {
                context.report.proven_by(Proof::ReadToEnd);
            }
            state.reached = None;
        }
        Ok(())
    }

    /// Reads one way through the list until it is complete.
    async fn read_pass(&self, pass: &Pass, state: &ListState, emitter: &mut Emitter) -> Result<(), Error> {
        let Self { context, list, checkpoint } = self;
        let path = context.list_path(list.path);
        let (key, first) = (list.own_key(), pass.query.clone());
        let way = OffsetList { name: list.stream, path, key, first, is_optional: pass.optional };
        let mut pages = Offsets::new(context, way);
        while let Some(objects) = pages.next().await? {
            let mut batch = context.batch();
            for Listed { key, text } in &objects {
                let object = Object::read(text).map_err(|problem| Error::system(problem.0))?;
                emitter.emit(&format!("{:?} {key}", pass.labels), &object, &pass.labels, &mut batch);
            }
            emitter.send(batch, checkpoint, context.project, state).await?;
        }
        Ok(())
    }

    fn first_query(&self, parameters: &str, since: Option<Timestamp>) -> String {
        let filter = self.list.change.and_then(|change| change.filter).zip(since);
        let filter = filter.map(|(parameter, since)| format!("{parameter}={since}")).unwrap_or_default();
        let parts = ["limit=", &PAGE.to_string(), "&offset=0"].concat();
        let parts = [parts.as_str(), self.list.parameters, parameters, &filter];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("&")
    }

    async fn passes(&self, since: Option<Timestamp>) -> Result<Vec<Pass>, Error> {
        let labelled =
            |parameters: &str, labels, optional| Pass { query: self.first_query(parameters, since), labels, optional };
        let plain = |parameters, optional| labelled(parameters, Vec::new(), optional);
        Ok(match self.list.passes {
            Passes::One => vec![plain("", false)],
            Passes::Archived => vec![plain("", false), plain("archived=true", true)],
            Passes::PropertyTypes => {
                let mut passes: Vec<Pass> = ["event", "person", "session"]
                    .iter()
                    .map(|kind| {
                        let labels = vec![("type", Value::from(*kind)), ("group_type_index", Value::Null)];
                        labelled(&format!("type={kind}"), labels, *kind == "session")
                    })
                    .collect();
                passes.extend(self.group_types().await?.into_iter().map(|index| {
                    let labels =
                        vec![("type", Value::from(format!("group_{index}"))), ("group_type_index", Value::from(index))];
                    labelled(&format!("type=group&group_type_index={index}"), labels, false)
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
        match client.get::<AtMost<1_000, GroupType>>(&path, client.retry(), &self.context.observer).await {
            Ok(types) => Ok(types.iter().map(|kind| kind.group_type_index).collect()),
            Err(GiveUp::Refused(refusal)) => {
                let error = Error::from(GiveUp::Refused(refusal));
                tracing::warn!("definitions of group properties are not read: {error}");
                Ok(Vec::new())
            }
            Err(give_up) => Err(give_up.into()),
        }
    }
}
