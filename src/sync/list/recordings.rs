//! Reads a list by the time at which its objects begin, which is how recordings of sessions are listed.
//!
//! Recordings expire and are deleted while they are read, the list has no count, and an offset would skip
//! what moves up. So pages go on behind the last recording: by the server's cursor, or else with its start
//! as the new `date_from`.
//!
//! `date_from` leaves out parts of recordings, not recordings (`session_recording_list_from_query.py`
//! filters rows before it groups them). One that was under way at that time is listed as if it had begun
//! there, with what came later. So reading begins a day earlier, which is the longest that a recording can
//! last, and what begins too early is only remembered. `date_to` cuts recordings in the same way; it is
//! always the time at which the sync began.

use std::collections::HashMap;

use chrono::TimeDelta;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::emitter::Emitter;
use super::spans::Span;
use super::state::ListState;
use crate::error::Error;
use crate::posthog::lists::{ListPage, PAGE, Pages};
use crate::records::Object;
use crate::streams::{Change, List};
use crate::sync::context::ReadContext;
use crate::sync::state::checkpoint::Checkpoint;
use crate::time::Timestamp;

/// No recording lasts longer.
const LONGEST: TimeDelta = TimeDelta::hours(24);

/// The server does not list in the order that was asked for.
pub(super) struct Unordered;

/// Reads spans of one list of one project.
pub(super) struct Recordings<'r> {
    pub(super) context: &'r ReadContext,
    pub(super) list: &'r List,
    pub(super) change: Change,
    /// When the sync began.
    pub(super) until: Timestamp,
    pub(super) checkpoint: &'r Checkpoint<ListState>,
}

impl Recordings<'_> {
    /// The first query of a span that is read by offsets.
    pub(super) fn query_by_offset(&self, span: Span) -> String {
        format!("{}&offset=0", self.first_query(span.from))
    }

    /// The first query for what begins at `from` or later.
    pub(super) fn first_query(&self, from: Timestamp) -> String {
        self.query(from.minus(LONGEST))
    }

    fn query(&self, from: Timestamp) -> String {
        let filter = self.change.filter.unwrap_or("date_from");
        format!("limit={PAGE}&{}&{filter}={from}&date_to={}", self.list.parameters, self.until)
    }

    /// Reads a span from where an earlier sync has got to, and keeps in the state where this one has got to.
    ///
    /// # Errors
    /// When the list cannot be read to its end.
    pub(super) async fn read_span(
        &self,
        span: Span,
        state: &mut ListState,
        emitter: &mut Emitter,
    ) -> Result<Result<(), Unordered>, Error> {
        let Self { context, list, change, checkpoint, .. } = *self;
        let path = context.list_path(list.path);
        let mut pages = Pages::new(&context.client, path, &context.observer);
        let begin = state.reached.unwrap_or(span.from);
        emitter.keep_within(Some(begin), Some(span.to));
        let first = self.first_query(begin);
        let (mut request, mut asked_from, mut offset) = (first.clone(), None, 0);
        // Recordings that a later page may show again, and when they begin.
        let mut seen: HashMap<String, Timestamp> = HashMap::new();
        loop {
            let ListPage { objects, next, cursor, turn: _turn, .. } = pages.read(&request).await?;
            let objects = objects.iter().map(|text| Object::read(text)).collect::<Result<Vec<_>, _>>();
            let objects = objects.map_err(|problem| Error::system(problem.0))?;
            let starts = || objects.iter().filter_map(|object| object.instant(change.field));
            if !starts().is_sorted() {
                return Ok(Err(Unordered));
            }
            let mut batch = context.batch();
            for object in &objects {
                let key = object.key(&list.own_key());
                let starts = object.instant(change.field).unwrap_or(begin);
                if seen.insert(key.clone(), starts).is_none() {
                    emitter.emit(&key, object, &[], &mut batch);
                }
            }
            emitter.send(batch, checkpoint, context.project, state).await?;
            let Some(last) = starts().next_back().filter(|_| next.is_some()) else {
                let problem =
                    format!("PostHog announces another page of {}, but the current one is empty", list.stream);
                return if next.is_some() { Err(Error::system(problem)) } else { Ok(Ok(())) };
            };
            if last > span.to {
                return Ok(Ok(()));
            }
            if last > begin {
                state.reached = Some(last);
                checkpoint.set(context.project, emitter.state(state)).await?;
            }
            seen.retain(|_, starts| *starts >= last.minus(LONGEST + LONGEST));
            request = if let Some(cursor) = cursor {
                format!("{first}&after={}", utf8_percent_encode(&cursor, NON_ALPHANUMERIC))
            } else {
                // `seen` has those that are under way at this time, so that no margin is needed.
                offset = if asked_from == Some(last) { offset + objects.len() } else { 0 };
                asked_from = Some(last);
                format!("{}&offset={offset}", self.query(last))
            };
        }
    }
}
