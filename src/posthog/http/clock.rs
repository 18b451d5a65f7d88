//! What the clocks of `PostHog` and of this machine say about each other.
//!
//! Ingestion times come from PostHog's clock, so bounds on them must, too. But what a state says to have
//! been read is never read again, so a clock that runs ahead would hide what comes until it is right:
//! PostHog's clock is believed only while this machine's agrees with it, give or take some minutes.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use reqwest::header::{AGE, DATE, HeaderMap};

use crate::error::Error;

/// Smaller differences are the time that the response took.
const NOTABLE: TimeDelta = TimeDelta::seconds(5);
/// So far apart are two clocks of which neither is wrong.
const TOLERANCE: TimeDelta = TimeDelta::minutes(5);
/// Clocks that are further apart say nothing at all.
const ABSURD: TimeDelta = TimeDelta::days(1);

/// This machine's clock. Debug builds can be told another time, since tests cannot turn the machine's.
pub(super) fn own_clock() -> DateTime<Utc> {
    #[cfg(debug_assertions)]
    if let Some(ahead) = std::env::var("DEBUG_CLOCK_AHEAD").ok().and_then(|seconds| seconds.parse().ok()) {
        return Utc::now() + TimeDelta::seconds(ahead);
    }
    Utc::now()
}

/// What a response tells about PostHog's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Skew {
    /// How far it is taken to be ahead of this machine's.
    pub(super) believed: TimeDelta,
    /// How far it says to be ahead.
    told: TimeDelta,
}

impl Skew {
    /// The skew that a clock shows, `own` being the time here.
    fn between(server: DateTime<Utc>, own: DateTime<Utc>) -> Self {
        let told = server - own;
        let believed = if told.abs() < NOTABLE { TimeDelta::zero() } else { told.min(TOLERANCE) };
        Self { believed, told }
    }

    /// The skew that the headers of a response show, if they have a date.
    pub(super) fn read(headers: &HeaderMap, own: DateTime<Utc>) -> Option<Self> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let date = DateTime::parse_from_rfc2822(text(DATE)?).ok()?.to_utc();
        // A response that a cache has kept for a while.
        let age = text(AGE).and_then(|age| age.parse::<u32>().ok()).unwrap_or_default();
        Some(Self::between(date + TimeDelta::seconds(age.into()), own))
    }

    /// What the user should know about it.
    pub(super) fn notice(self) -> Option<String> {
        let minutes = self.told.num_minutes().abs();
        let direction = if self.told > TimeDelta::zero() { "ahead of" } else { "behind" };
        (self.told.abs() > TOLERANCE).then(|| {
            format!(
                "PostHog's clock is {minutes} minutes {direction} this machine's; one of them is wrong. What is newer than the earlier of both, give or take {} minutes, is left to a later sync",
                TOLERANCE.num_minutes()
            )
        })
    }

    /// Refuses to go on when nothing can be made of the two clocks.
    ///
    /// # Errors
    /// A config error that shows both.
    pub(super) fn check(self, own: DateTime<Utc>) -> Result<(), Error> {
        if self.told.abs() <= ABSURD {
            return Ok(());
        }
        let shown = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
        Err(Error::config(format!(
            "PostHog's clock says {}, this machine's {}; correct the one that is wrong. With such a time, later events could be taken for read",
            shown(own + self.told),
            shown(own)
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        DateTime::parse_from_rfc3339(text).unwrap().to_utc()
    }

    #[test]
    fn no_clock_is_believed_far_beyond_this_machines() {
        let own = at("2026-11-27T12:00:00Z");
        for (server, believed, is_noted, is_refused) in [
            ("2026-11-27T12:00:04Z", 0, false, false),
            ("2026-11-27T11:59:56Z", 0, false, false),
            ("2026-11-27T12:00:08Z", 8, false, false),
            ("2026-11-27T12:05:00Z", 300, false, false),
            ("2026-11-27T12:06:00Z", 300, true, false),
            ("2026-11-28T12:00:00Z", 300, true, false),
            ("2026-11-28T12:00:01Z", 300, true, true),
            ("9999-12-31T23:59:59Z", 300, true, true),
            // A bound may be too early, never too late.
            ("2026-11-27T10:00:00Z", -7_200, true, false),
            ("0001-01-01T00:00:00Z", -63_931_377_600, true, true),
        ] {
            let skew = Skew::between(at(server), own);
            assert_eq!(skew.believed.num_seconds(), believed, "{server}");
            assert_eq!((skew.notice().is_some(), skew.check(own).is_err()), (is_noted, is_refused), "{server}");
        }
    }

    #[test]
    fn the_age_of_a_kept_response_counts() {
        let mut headers = HeaderMap::new();
        assert_eq!(Skew::read(&headers, Utc::now()), None);
        headers.insert(DATE, "Fri, 27 Nov 2026 10:00:00 GMT".parse().unwrap());
        headers.insert(AGE, "7200".parse().unwrap());
        assert_eq!(Skew::read(&headers, at("2026-11-27T12:00:00Z")).unwrap().told, TimeDelta::zero());
    }
}
