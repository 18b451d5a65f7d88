//! From which day on a project has events.
//!
//! A project may keep events for some months only: older ones are first hidden from queries, later
//! deleted (`event_retention_months` and `events_retention_enforced` of the project).

use chrono::{Months, TimeDelta};
use serde::Deserialize;

use crate::posthog::account::Project;
use crate::time::{DAY, Timestamp};

/// A day of the configured range that falls out so soon is worth a warning.
const NOTICE: TimeDelta = TimeDelta::days(30);

#[derive(Deserialize)]
struct Fields {
    #[serde(default)]
    event_retention_months: Option<u32>,
    #[serde(default)]
    events_retention_enforced: Option<bool>,
}

/// A notice about a project's retention for a user who wants events from `start` on; none when nothing
/// is hidden and nothing will be soon.
pub(super) fn notice(project: &Project, start: Timestamp, now: Timestamp) -> Option<String> {
    let fields: Fields = serde_json::from_str(project.json.get()).ok()?;
    let months = fields.event_retention_months.filter(|_| fields.events_retention_enforced == Some(true))?;
    let first = now.datetime().checked_sub_months(Months::new(months))?;
    let first = Timestamp::from_micros(first.timestamp_micros());
    if start < first {
        return Some(format!(
            "PostHog keeps events for {months} months and hides older ones, so there are none from before {}; `start_date` asks for events from {} on. Events that fall out of the retention stay in the destination",
            first.date(),
            start.date()
        ));
    }
    let soon = Timestamp::from_micros((first.datetime() + NOTICE).timestamp_micros());
    (start < soon).then(|| {
        let left = (start.micros() - first.micros()) / DAY + 1;
        format!(
            "PostHog keeps events for {months} months; those of {} will be hidden in {left} days. Read what you need before",
            start.date()
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    fn notice_of(json: &str, start: &str) -> Option<String> {
        let json = RawValue::from_string(json.to_owned()).unwrap();
        let project = Project { id: 1, name: String::new(), created_at: None, json };
        let at = |text: &str| Timestamp::parse(text).unwrap();
        notice(&project, at(start), at("2026-11-26T12:00:00Z"))
    }

    #[test]
    fn hidden_days_are_named_and_coming_ones_announced() {
        let enforced = r#"{"event_retention_months":12,"events_retention_enforced":true}"#;
        assert!(notice_of(enforced, "2025-01-01").unwrap().contains("none from before 2025-11-26"));
        assert!(notice_of(enforced, "2025-12-06").unwrap().contains("those of 2025-12-06 will be hidden in 10 days"));
        assert_eq!(notice_of(enforced, "2026-01-01"), None);
        for json in [
            r#"{"event_retention_months":12,"events_retention_enforced":false}"#,
            r#"{"event_retention_months":null,"events_retention_enforced":true}"#,
            "{}",
        ] {
            assert_eq!(notice_of(json, "2020-01-01"), None, "{json}");
        }
    }
}
