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
use crate::posthog::http::GiveUp;
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
    spans
}

/// The first query of a span that is read by offsets.
pub(super) fn query_by_offset(list: &List, filter: &str, from: Timestamp, until: Timestamp) -> String {
    format!("{}&offset=0", query(list, filter, from, until))
}

fn query(list: &List, filter: &str, from: Timestamp, to: Timestamp) -> String {
    format!("limit={PAGE}&{}&{filter}={}&date_to={to}", list.parameters, from.minus(LONGEST))
}

/// Reads a span from where an earlier sync has `reached`. After each page, `checkpoint` gets the time that has
/// been reached.
///
/// # Errors
/// When the list cannot be read to its end.
pub(super) async fn read_span(
    context: &ReadContext,
    list: &List,
    change: Change,
    span: Span,
    until: Timestamp,
    reached: Option<Timestamp>,
    emitter: &mut Emitter,
    checkpoint: impl AsyncFn(Timestamp) -> Result<(), Error>,
) -> Result<Result<(), Unordered>, Error> {
    let path = format!("api/projects/{}/{}/", context.project, list.path);
    let mut pages = Pages::new(&context.client, path, &context.observer);
    let begin = reached.unwrap_or(span.from);
    let filter = change.filter.unwrap_or("date_from");
    let first = query(list, filter, begin, until);
    let (mut request, mut asked_from, mut offset) = (first.clone(), None, 0);
    // Recordings that a later page may show again, and when they begin.
    let mut seen: HashMap<String, Timestamp> = HashMap::new();
    loop {
        let ListPage { objects, next, cursor, .. } = pages.read(&request).await?;
        let mut batch = context.batch();
        let mut last = None;
        for text in &objects {
            let object = Object::read(text).map_err(|problem| Error::system(problem.0))?;
            let starts = object.instant(change.field);
            if starts.zip(last).is_some_and(|(starts, last)| starts < last) {
                return Ok(Err(Unordered));
            }
            last = starts.or(last);
            let is_wanted = starts.is_none_or(|starts| (begin..=span.to).contains(&starts));
            if seen.insert(object.key(&list.own_key()), starts.unwrap_or(begin)).is_none() && is_wanted {
                emitter.emit(&object, &mut batch);
            }
        }
        batch.send(true).await?;
        let Some(last) = last.filter(|_| next.is_some()) else {
            return match next {
                Some(_) => Err(GiveUp::Unusable(format!(
                    "PostHog announces another page of {}, but the current one is empty",
                    list.stream
                ))
                .into()),
                None => Ok(Ok(())),
            };
        };
        if last > span.to {
            return Ok(Ok(()));
        }
        if last > begin {
            checkpoint(last).await?;
        }
        seen.retain(|_, starts| *starts >= last.minus(LONGEST + LONGEST));
        request = match cursor {
            Some(cursor) => format!("{first}&after={}", utf8_percent_encode(&cursor, NON_ALPHANUMERIC)),
            // `seen` has those that are under way at this time, so that no margin is needed.
            None => {
                offset = if asked_from == Some(last) { offset + objects.len() } else { 0 };
                asked_from = Some(last);
                format!("{}&offset={offset}", query(list, filter, last.minus(-LONGEST), until))
            }
        };
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
    }
}
