//! Figures of emitted records by day of event time, from the texts of their keys.

use super::fingerprint::Fingerprint;
use super::value::canonical;
use crate::posthog::Malformed;
use crate::time::Timestamp;

/// `PostHog` numbers days from milliseconds, which it rounds towards 1970.
const DAY_IN_MILLISECONDS: i64 = 86_400_000;

/// Number of the UTC day since the epoch in which `PostHog` counts a row with this event time.
pub fn day_of(event_time: Timestamp) -> i64 {
    (event_time.micros() / 1000).div_euclid(DAY_IN_MILLISECONDS)
}

/// Counts records by day of event time. Rows come in the order of their event times.
#[derive(Debug, Default)]
pub(super) struct DayFigures {
    days: Vec<(i64, Fingerprint)>,
    /// The date in the text of the last row, if rows with the same one are of the same day.
    date: Option<[u8; 10]>,
}

impl DayFigures {
    /// Adds a record by the JSON texts of its event time and its uuid.
    pub(super) fn add(&mut self, event_time: &[u8], uuid: &[u8]) -> Result<(), Malformed> {
        let date = canonical(event_time).and_then(|text| text.get(1..11)?.try_into().ok());
        let same = date.is_some() && date == self.date;
        if !same || self.days.is_empty() {
            let text = std::str::from_utf8(event_time).unwrap_or_default();
            let instant = Timestamp::parse_json(text)
                .ok_or_else(|| Malformed(format!("a row has the unusable event time {text}")))?;
            let day = day_of(instant);
            if self.days.last().is_none_or(|(last, _)| *last != day) {
                self.days.push((day, Fingerprint::EMPTY));
            }
            // Before 1970 the last fraction of a millisecond belongs to the next day.
            self.date = date.filter(|_| day > 0);
        }
        if let Some((_, figure)) = self.days.last_mut() {
            // The closing quote is not part of the uuid.
            figure.add_uuid(uuid.strip_suffix(b"\"").unwrap_or(uuid));
        }
        Ok(())
    }

    /// What has been counted since the last call.
    pub(super) fn take(&mut self) -> Vec<(i64, Fingerprint)> {
        self.date = None;
        std::mem::take(&mut self.days)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_counted_by_the_day_that_posthog_would_count_them_in() {
        let mut figures = DayFigures::default();
        for (time, uuid) in [
            ("\"1969-12-31T23:59:59.998999Z\"", "\"00000001\""),
            ("\"1969-12-31T23:59:59.999500Z\"", "\"00000002\""),
            ("\"1970-01-01T00:00:00.000000Z\"", "\"00000003\""),
            ("\"2026-01-01T00:00:00.000000Z\"", "\"00000004\""),
            ("\"2026-01-01T23:59:59.999999Z\"", "\"00000005\""),
            ("\"2026-01-02T01:00:00+01:00\"", "\"00000006\""),
        ] {
            figures.add(time.as_bytes(), uuid.as_bytes()).unwrap();
        }
        let expected = [
            (-1, Fingerprint::new(1, 1)),
            (0, Fingerprint::new(2, 5)),
            (20_454, Fingerprint::new(2, 9)),
            (20_455, Fingerprint::new(1, 6)),
        ];
        assert_eq!(figures.take(), expected);
        assert_eq!(figures.take(), []);
        assert!(figures.add(b"null", b"\"u\"").is_err());
    }
}
