//! How exports differ between instances of PostHog.

use chrono::{DateTime, FixedOffset, SecondsFormat, Utc};
use chrono_tz::Tz;
use serde_json::{Value, json};

/// How file download exports of an instance answer, and what is in their files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct ExportServer {
    /// Form of `created_at` and `_inserted_at` in lines of persons.
    pub person_times: InstantFormat,
    /// Form of all times in lines of events, and of sessions unless they are in the project's zone.
    pub event_times: Offset,
    /// Whether times of sessions have the offset of the project's zone.
    pub sessions_in_project_zone: bool,
    /// What a line of a session holds.
    pub session_fields: SessionFields,
    /// Leaves out sessions that ended so many days before the interval.
    pub sessions_lookback_days: Option<u32>,
    /// Leaves out events whose timestamp is so many days before the interval, or one day after it.
    pub lookback_days: Option<u32>,
    /// Intervals that begin within so many days have no such bounds.
    pub unbounded_days: Option<u32>,
    /// Whether a completed run tells how many rows it has.
    pub records_completed: RecordsCompleted,
    /// Without a count: whether a run without rows is ever shown as `Completed`.
    pub empty_runs_complete: bool,
    /// Runs at a time per project; one more is refused with 429.
    pub concurrent_runs: Option<usize>,
    /// Refuses intervals that end (or start) in the future, by the server's clock.
    pub future_refused: bool,
    /// Whether each line is a gzip member of its own.
    pub member_per_line: bool,
    /// Texts and shapes of answers as of 2026, instead of shorter ones.
    pub current_answers: bool,
    /// Whether there is a bucket for files. Without it runs stay `Running` for ever.
    pub bucket: bool,
    /// Whether there is a Temporal to start runs. Without it every start fails with 500.
    pub temporal: bool,
}

impl ExportServer {
    /// PostHog Cloud in autumn 2026.
    pub(crate) fn cloud_2026() -> Self {
        Self {
            person_times: InstantFormat::Seconds,
            event_times: Offset::Zero,
            sessions_in_project_zone: true,
            session_fields: SessionFields::All,
            sessions_lookback_days: Some(3),
            lookback_days: Some(7),
            unbounded_days: Some(8),
            records_completed: RecordsCompleted::Reported,
            empty_runs_complete: true,
            concurrent_runs: Some(20),
            future_refused: true,
            member_per_line: true,
            current_answers: true,
            bucket: true,
            temporal: true,
        }
    }

    /// Before row counts and the limit of runs at a time.
    pub(crate) fn before_2026() -> Self {
        Self {
            records_completed: RecordsCompleted::Missing,
            empty_runs_complete: false,
            concurrent_runs: None,
            ..Self::cloud_2026()
        }
    }

    /// Times as text everywhere, and nothing refused or left out.
    pub(crate) fn forgiving() -> Self {
        Self {
            person_times: InstantFormat::Iso(Offset::Zero),
            event_times: Offset::Zero,
            sessions_in_project_zone: false,
            session_fields: SessionFields::Few,
            sessions_lookback_days: None,
            lookback_days: None,
            unbounded_days: None,
            records_completed: RecordsCompleted::Missing,
            empty_runs_complete: true,
            concurrent_runs: None,
            future_refused: false,
            member_per_line: false,
            current_answers: false,
            bucket: true,
            temporal: true,
        }
    }

    /// A time in a line of a session.
    pub(super) fn session_time(&self, micros: i64, zone: Tz) -> String {
        match DateTime::from_timestamp_micros(micros) {
            Some(instant) if self.sessions_in_project_zone => text(instant.with_timezone(&zone).fixed_offset()),
            _ => self.event_times.write(micros),
        }
    }
}

/// What a line of a session holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionFields {
    /// Thirteen fields, with a `person_id` that PostHog doesn't export.
    Few,
    /// All that PostHog exports, and no `person_id`.
    All,
}

/// Whether a completed run tells how many rows it has; PostHog does since September 2026.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordsCompleted {
    /// There is no such field.
    Missing,
    /// The number of rows. A run with rows but without noted files is shown as `Running`.
    Reported,
    /// Null, and a run without noted files is `Completed` with no files.
    Null,
}

/// Form of a time in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstantFormat {
    /// A whole number of seconds since 1970.
    Seconds,
    /// A whole number of milliseconds since 1970.
    Milliseconds,
    /// ISO 8601 text.
    Iso(Offset),
}

impl InstantFormat {
    pub(super) fn write(self, micros: i64) -> Value {
        match self {
            Self::Seconds => json!(micros.div_euclid(1_000_000)),
            Self::Milliseconds => json!(micros.div_euclid(1000)),
            Self::Iso(offset) => json!(offset.write(micros)),
        }
    }
}

/// How an ISO 8601 text says which zone it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offset {
    /// `+00:00`.
    Zero,
    /// `Z`.
    Zulu,
    /// `-05:00`, five hours behind.
    MinusFive,
    /// `+0000`.
    Basic,
    /// Not at all; it is meant in UTC.
    Naive,
}

impl Offset {
    /// The form that looks like this.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "+00:00" => Self::Zero,
            "Z" => Self::Zulu,
            "-05:00" => Self::MinusFive,
            "+0000" => Self::Basic,
            "naive" => Self::Naive,
            _ => return None,
        })
    }

    /// `2026-01-01T12:00:00.000001+00:00`, without the fraction if it is zero.
    pub(super) fn write(self, micros: i64) -> String {
        let Some(instant) = DateTime::<Utc>::from_timestamp_micros(micros) else { return String::new() };
        let utc = text(instant.fixed_offset());
        let bare = utc.trim_end_matches("+00:00");
        match self {
            Self::Zero => utc,
            Self::Zulu => format!("{bare}Z"),
            Self::Basic => format!("{bare}+0000"),
            Self::Naive => bare.to_owned(),
            Self::MinusFive => {
                FixedOffset::west_opt(5 * 3600).map_or(utc, |offset| text(instant.with_timezone(&offset)))
            }
        }
    }
}

fn text(instant: DateTime<FixedOffset>) -> String {
    let whole = instant.timestamp_subsec_micros() == 0;
    instant.to_rfc3339_opts(if whole { SecondsFormat::Secs } else { SecondsFormat::Micros }, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_every_form() {
        assert_eq!(Offset::Zero.write(0), "1970-01-01T00:00:00+00:00");
        assert_eq!(Offset::Zero.write(1_000_001), "1970-01-01T00:00:01.000001+00:00");
        for name in ["+00:00", "Z", "-05:00", "+0000"] {
            assert!(Offset::named(name).unwrap().write(1).ends_with(name), "{name}");
        }
        assert_eq!(Offset::MinusFive.write(0), "1969-12-31T19:00:00-05:00");
        assert_eq!(Offset::Naive.write(0), "1970-01-01T00:00:00");
        assert_eq!(InstantFormat::Seconds.write(1_999_999), 1);
        assert_eq!(InstantFormat::Milliseconds.write(1_999_999), 1999);
    }
}
