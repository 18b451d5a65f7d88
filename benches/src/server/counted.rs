//! Events that exist only as figures, by a formula: more than any machine could hold.

use chrono::Utc;

use super::condition::Span;
use super::figures::{Cells, Figures};
use crate::events::DAY;

/// How long ago the last event happened: as far as a state of version 1 that was written now says that all
/// has been read.
const AGE: i64 = DAY / 24;
/// The last eight hex digits of every uuid, as a number.
const DIGITS: u64 = 0x5eed_5eed;

/// Events at equal distances, each received when it happened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted {
    events: u64,
    /// The first instant.
    from: i64,
    /// The one after the last.
    to: i64,
}

impl Counted {
    /// Events of so many days up to an hour ago.
    pub(super) fn new(events: u64, days: i64) -> Self {
        let to = Utc::now().timestamp_micros() - AGE;
        Self { events, from: (to.div_euclid(DAY) - days) * DAY, to }
    }

    pub(super) fn first_day(&self) -> i64 {
        self.from.div_euclid(DAY)
    }

    pub(super) fn end(&self) -> i64 {
        self.to
    }

    /// How many events are in a span.
    pub(super) fn rows(&self, span: Span) -> u64 {
        self.before(span.to).saturating_sub(self.before(span.from))
    }

    fn before(&self, instant: i64) -> u64 {
        let passed = i128::from(instant.clamp(self.from, self.to) - self.from);
        let count = passed * i128::from(self.events) / i128::from(self.to - self.from).max(1);
        u64::try_from(count).unwrap_or_default()
    }

    /// The figures that are asked for.
    ///
    /// # Errors
    /// When a day has no month.
    pub(super) fn cells(&self, figures: &Figures) -> anyhow::Result<Cells> {
        let mut cells = Cells::new();
        for day in self.first_day()..=self.to.div_euclid(DAY) {
            let whole = Span { from: day * DAY, to: (day + 1) * DAY };
            let happened = figures.happened.iter().map(|span| whole.and(*span)).find(|span| span.from < span.to);
            let Some(happened) = happened else { continue };
            let period = figures.period(day)?;
            for (slice, arrived) in figures.slices().enumerate() {
                let rows = self.rows(happened.and(arrived).and(figures.arrived));
                if rows > 0 {
                    let cell = cells.entry((period, slice)).or_default();
                    *cell = (cell.0 + rows, cell.1.wrapping_add(rows.wrapping_mul(DIGITS)));
                }
            }
        }
        Ok(cells)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_spread_evenly_and_none_is_counted_twice() {
        let counted = Counted { events: 1_000, from: 0, to: 10 * DAY };
        assert_eq!(counted.rows(Span::ALL), 1_000);
        assert_eq!(counted.rows(Span { from: 3 * DAY, to: 4 * DAY }), 100);
        let halves = [Span { from: DAY, to: DAY + 7 }, Span { from: DAY + 7, to: 9 * DAY }];
        assert_eq!(halves.map(|half| counted.rows(half)).iter().sum::<u64>(), 800);
        assert_eq!(counted.rows(Span { from: 11 * DAY, to: 12 * DAY }), 0);
        assert_eq!(counted.rows(Span { from: 5, to: 4 }), 0);
    }

    #[test]
    fn figures_add_up_to_all_events() {
        let at = |day: i64| format!("toDateTime64('{} 00:00:00.000000', 6, 'UTC')", crate::events::date(day));
        let counted = Counted { events: 1_000, from: 0, to: 10 * DAY };
        let sql = format!(
            "SELECT count() AS cells, sum(row_count) AS stored, groupArray((period, slice, row_count, row_checksum)) AS \
             figures FROM (SELECT intDiv(toUnixTimestamp64Milli(timestamp) + 3155760000000, 86400000) - 36525 AS period, \
             multiIf(created_at < {}, 0, 1) AS slice, count() AS row_count, \
             sum(reinterpretAsUInt32(reverse(unhex(right(toString(uuid), 8))))) AS row_checksum FROM events WHERE \
             created_at < {} AND 1 = 1 GROUP BY period, slice) LIMIT 1",
            at(4),
            at(30)
        );
        let cells = counted.cells(&Figures::recognize(&sql).unwrap().unwrap()).unwrap();
        assert_eq!(cells.len(), 10);
        assert_eq!(cells.values().map(|(rows, _)| rows).sum::<u64>(), 1_000);
        assert_eq!(cells[&(3, 0)], (100, 100 * DIGITS));
        assert_eq!(cells[&(4, 1)], (100, 100 * DIGITS));
    }
}
