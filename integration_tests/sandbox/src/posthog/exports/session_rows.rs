//! Lines of exported sessions.

use chrono_tz::Tz;
use serde_json::{Map, Value, json, to_vec};
use uuid::Uuid;

use super::behaviour::{ExportServer, SessionFields};
use super::request::Asked;
use super::rows::present;
use crate::posthog::sessions::{ATTRIBUTION, Session, derive, host};
use crate::posthog::store::{DAY, Tables};

/// What PostHog exports sessions by: `greatest(max_inserted_at, $end_timestamp)`.
fn arrival(session: &Session) -> i64 {
    session.max_inserted_at.max(session.end)
}

/// One line per session that has got an event within the interval.
pub(super) fn lines(
    tables: &Tables,
    now: i64,
    project: u64,
    zone: Tz,
    asked: &Asked,
    server: ExportServer,
) -> serde_json::Result<Vec<Vec<u8>>> {
    let sessions = derive(present(tables, now));
    let due = |session: &&Session| {
        (asked.start..asked.end).contains(&arrival(session))
            && server
                .sessions_lookback_days
                .is_none_or(|days| session.end >= asked.start.saturating_sub(i64::from(days).saturating_mul(DAY)))
    };
    let line = |session: &Session| {
        let object = match server.session_fields {
            SessionFields::Few => few(session, project, |micros| server.session_time(micros, zone)),
            SessionFields::All => all(session, project, |micros| server.session_time(micros, zone)),
        };
        to_vec(&object)
    };
    sessions.iter().filter(due).map(line).collect()
}

fn address(url: &str) -> Option<&str> {
    Some(url).filter(|url| !url.is_empty())
}

fn few(session: &Session, project: u64, time: impl Fn(i64) -> String) -> Value {
    json!({
        "team_id": project, "session_id": session.id, "distinct_id": session.distinct_id,
        "person_id": session.person_id.to_string(), "start_timestamp": time(session.start),
        "end_timestamp": time(session.end), "pageview_count": session.pageviews,
        "autocapture_count": session.autocaptures, "screen_count": session.screens,
        "session_duration": session.duration(), "entry_current_url": address(&session.entry_url),
        "end_current_url": address(&session.end_url), "_inserted_at": time(arrival(session)),
    })
}

/// The columns of version 2 of the table, without the dollar signs.
fn all(session: &Session, project: u64, time: impl Fn(i64) -> String) -> Value {
    // A URL without a scheme has no host at all; one with a scheme may have an empty one.
    let hostname = |url: &'_ str| url.contains("://").then(|| host(url).to_owned());
    let (entry, end) = (address(&session.entry_url), address(&session.end_url));
    let mut object = json!({
        "team_id": project, "session_id": session.id, "session_id_v7": number(&session.id),
        "distinct_id": session.distinct_id, "start_timestamp": time(session.start), "end_timestamp": time(session.end),
        "urls": session.urls, "num_uniq_urls": session.urls.len(), "entry_current_url": entry,
        "entry_pathname": address(&session.entry_path), "entry_hostname": hostname(&session.entry_url),
        "end_current_url": end, "end_pathname": address(&session.end_path), "end_hostname": hostname(&session.end_url),
        "exit_current_url": end, "exit_pathname": address(&session.end_path), "pageview_count": session.pageviews,
        "autocapture_count": session.autocaptures, "screen_count": session.screens, "channel_type": "Direct",
        "session_duration": session.duration(), "duration": session.duration(), "is_bounce": session.is_bounce(),
        "last_external_click_url": address(&session.last_external_click),
        "page_screen_autocapture_count_up_to": session.count_up_to_two(), "vitals_lcp": session.largest_paint,
        "_inserted_at": time(arrival(session)),
    });
    let attribution = ATTRIBUTION.iter().zip(&session.attribution);
    let attribution: Map<String, Value> =
        attribution.map(|((column, _), value)| (column.trim_start_matches('$').to_owned(), json!(value))).collect();
    if let Some(object) = object.as_object_mut() {
        object.extend(attribution);
    }
    object
}

/// PostHog counts sessions by the number that their id is.
fn number(id: &str) -> String {
    id.parse::<Uuid>().map_or_else(|_| "0".to_owned(), |id| id.as_u128().to_string())
}
