//! Reads one list endpoint of one project.

use std::sync::Arc;

use chrono::TimeDelta;
use serde::Deserialize;
use serde_json::Value;

use super::emitter::Emitter;
use super::offsets::{Pass, read_pass};
use super::recordings::{Recordings, Unordered, spans};
use super::state::ListState;
use crate::error::Error;
use crate::posthog::AtMost;
use crate::posthog::http::GiveUp;
use crate::posthog::lists::PAGE;
use crate::records::ObjectWriter;
use crate::streams::{Change, List, Passes};
use crate::sync::context::ReadContext;
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
        let lookback = TimeDelta::hours(change.map_or(0, |change| change.lookback_hours));
        let watermark = state.watermark.filter(|_| context.incremental);
        if let Some(watermark) = watermark {
            refuse_ahead(self.list.stream, watermark, watermark.minus(lookback), context.client.now())?;
        }
        let by_time = change.filter(|change| change.from_start_date);
        // Spans of time bound what is read by themselves.
        let since = watermark.filter(|_| by_time.is_none()).map(|watermark| watermark.minus(lookback));
        let writer = ObjectWriter::new(self.list, &context.stream, context.project);
        let meets_from = context.incremental.then(|| until.minus(lookback));
        let mut emitter = Emitter::new(writer, self.list, since, state.sent.clone(), meets_from);
        if let Some(change) = by_time {
            self.read_by_time(change, &mut state, until, &mut emitter).await?;
        } else {
            for (number, pass) in self.passes(since).await?.iter().enumerate().skip(state.pass) {
                read_pass(context, self.list, pass, &mut emitter).await?;
                state.pass = number + 1;
                // Without the passes before, the checksums would not be complete.
                if !context.incremental {
                    self.checkpoint.set(context.project, state.clone()).await?;
                }
            }
        }
        let sent = emitter.finish();
        let done = if context.incremental {
            let from = by_time.map(|_| state.from.map_or(context.config.start, |from| from.min(context.config.start)));
            ListState { watermark: Some(until), from, sent, ..ListState::default() }
        } else {
            ListState { done: true, ..ListState::default() }
        };
        self.checkpoint.set(context.project, done).await
    }

    /// Reads the list by the time at which its objects begin.
    async fn read_by_time(
        &self,
        change: Change,
        state: &mut ListState,
        until: Timestamp,
        emitter: &mut Emitter,
    ) -> Result<(), Error> {
        let (context, start) = (&self.context, self.context.config.start);
        if state.start.replace(start).is_some_and(|begun| begun != start) {
            // What has been reached was reached from another start.
            (state.pass, state.reached) = (0, None);
        }
        // A state without `from` does not know its start date, so everything is read again.
        let from = state.from.or_else(|| state.watermark.filter(|watermark| *watermark > until).map(|_| start));
        let covered = from.zip(state.watermark).filter(|_| context.incremental);
        let spans = spans(start, covered, TimeDelta::hours(change.lookback_hours), until);
        let recordings = Recordings { context, list: self.list, change, until };
        for (number, span) in spans.into_iter().enumerate().skip(state.pass) {
            state.pass = number;
            let at = async |reached| {
                let entry = ListState { reached: Some(reached), ..state.clone() };
                self.checkpoint.set(context.project, entry).await
            };
            let read = recordings.read_span(span, state.reached, emitter, at).await?;
            if let Err(Unordered) = read {
                tracing::warn!(
                    "this PostHog does not sort {} as requested, so they are read until two listings agree",
                    self.list.stream
                );
                let query = recordings.query_by_offset(span);
                emitter.keep_within(span.from, span.to);
                let pass = Pass { query, labels: Vec::new(), optional: false };
                read_pass(context, self.list, &pass, emitter).await?;
            }
            state.reached = None;
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
