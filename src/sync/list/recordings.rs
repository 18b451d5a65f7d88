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
use crate::error::Error;
use crate::posthog::lists::{ListPage, PAGE, Pages};
use crate::records::Object;
use crate::streams::{Change, List};
use crate::sync::context::ReadContext;
use crate::time::Timestamp;

/// No recording lasts longer.
const LONGEST: TimeDelta = TimeDelta::hours(24);

/// The objects that begin in a span of time, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
}

/// The server does not list in the order that was asked for.
pub(super) struct Unordered;

/// What has to be read: everything from `start` on, or what an earlier start date adds, and what has begun since
/// the last sync. `covered` is the start date and the watermark of what has been read; what begins `lookback` before
/// the watermark may have grown.
pub(super) fn spans(
    start: Timestamp,
    covered: Option<(Timestamp, Timestamp)>,
    lookback: TimeDelta,
    until: Timestamp,
) -> Vec<Span> {
    let Some((from, watermark)) = covered else { return vec![Span { from: start, to: until }] };
    let mut spans = Vec::new();
    if start < from {
        spans.push(Span { from: start, to: from });
    }
    spans.push(Span { from: start.max(watermark.minus(lookback)), to: until });
    // A watermark can be ahead of the clock.
    spans.retain(|span| span.from <= span.to);
    spans
}

/// Reads spans of one list of one project.
pub(super) struct Recordings<'r> {
    pub(super) context: &'r ReadContext,
    pub(super) list: &'r List,
    pub(super) change: Change,
    /// When the sync began.
    pub(super) until: Timestamp,
}

impl Recordings<'_> {
    /// The first query of a span that is read by offsets.
    pub(super) fn query_by_offset(&self, span: Span) -> String {
        format!("{}&offset=0", self.query(span.from.minus(LONGEST)))
    }

    fn query(&self, from: Timestamp) -> String {
        let filter = self.change.filter.unwrap_or("date_from");
        format!("limit={PAGE}&{}&{filter}={from}&date_to={}", self.list.parameters, self.until)
    }

    /// Reads a span from where an earlier sync has `reached`. After each page, `checkpoint` gets the time that has
    /// been reached.
    ///
    /// # Errors
    /// When the list cannot be read to its end.
    pub(super) async fn read_span(
        &self,
        span: Span,
        reached: Option<Timestamp>,
        emitter: &mut Emitter,
        checkpoint: impl AsyncFn(Timestamp) -> Result<(), Error>,
    ) -> Result<Result<(), Unordered>, Error> {
        let Self { context, list, change, .. } = *self;
        let path = format!("api/projects/{}/{}/", context.project, list.path);
        let mut pages = Pages::new(&context.client, path, &context.observer);
        let begin = reached.unwrap_or(span.from);
        let first = self.query(begin.minus(LONGEST));
        let (mut request, mut asked_from, mut offset) = (first.clone(), None, 0);
        // Recordings that a later page may show again, and when they begin.
        let mut seen: HashMap<String, Timestamp> = HashMap::new();
        loop {
            let ListPage { objects, next, cursor, .. } = pages.read(&request).await?;
            let mut batch = context.batch();
            let mut latest = None;
            for text in &objects {
                let object = Object::read(text).map_err(|problem| Error::system(problem.0))?;
                let starts = object.instant(change.field);
                if starts.zip(latest).is_some_and(|(starts, latest)| starts < latest) {
                    return Ok(Err(Unordered));
                }
                latest = starts.or(latest);
                let is_wanted = starts.is_none_or(|starts| (begin..=span.to).contains(&starts));
                if seen.insert(object.key(&list.own_key()), starts.unwrap_or(begin)).is_none() && is_wanted {
                    emitter.emit(&object, &mut batch);
                }
            }
            batch.send(true).await?;
            let Some(last) = latest.filter(|_| next.is_some()) else {
                let problem =
                    format!("PostHog announces another page of {}, but the current one is empty", list.stream);
                return if next.is_some() { Err(Error::system(problem)) } else { Ok(Ok(())) };
            };
            if last > span.to {
                return Ok(Ok(()));
            }
            if last > begin {
                checkpoint(last).await?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earlier_start_date_is_a_span_of_its_own() {
        let at = |day: i64| Timestamp::from_day(20_000 + day);
        let lookback = TimeDelta::days(1);
        let spans = |start: i64, covered: Option<(i64, i64)>| {
            let covered = covered.map(|(from, watermark)| (at(from), at(watermark)));
            let spans = spans(at(start), covered, lookback, at(100)).into_iter();
            spans.map(|span| (span.from.day() - 20_000, span.to.day() - 20_000)).collect::<Vec<_>>()
        };
        assert_eq!(spans(10, None), [(10, 100)]);
        assert_eq!(spans(10, Some((10, 90))), [(89, 100)]);
        assert_eq!(spans(3, Some((10, 90))), [(3, 10), (89, 100)]);
        assert_eq!(spans(95, Some((10, 90))), [(95, 100)]);
        assert_eq!(spans(10, Some((10, 900))), []);
    }
}
