//! Numbers of rows by day, as the state keeps them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::sync::ledger::Days;

/// Rows by the number of their UTC day since the epoch. The days lie close together, so the state has the first
/// one, and a number for each day from there on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stretch", into = "Stretch")]
pub struct DayCounts(BTreeMap<i64, u64>);

#[derive(Serialize, Deserialize)]
struct Stretch {
    first: i64,
    rows: Vec<u64>,
}

impl DayCounts {
    /// Adds rows of a day.
    pub(crate) fn add(&mut self, day: i64, rows: u64) {
        let sum = self.0.entry(day).or_default();
        *sum = sum.saturating_add(rows);
    }

    /// Adds the rows of others.
    pub(crate) fn add_all(&mut self, more: &Self) {
        for (day, rows) in &more.0 {
            self.add(*day, *rows);
        }
    }

    /// Days with their rows, in ascending order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (i64, u64)> + '_ {
        self.0.iter().map(|(day, rows)| (*day, *rows))
    }

    /// Rows of a day.
    pub(crate) fn of(&self, day: i64) -> u64 {
        self.0.get(&day).copied().unwrap_or_default()
    }
}

impl From<DayCounts> for Stretch {
    fn from(counts: DayCounts) -> Self {
        let bounds = counts.0.first_key_value().zip(counts.0.last_key_value());
        let Some(((&first, _), (&last, _))) = bounds else { return Self { first: 0, rows: Vec::new() } };
        Self { first, rows: (first..=last).map(|day| counts.of(day)).collect() }
    }
}

impl From<Stretch> for DayCounts {
    fn from(Stretch { first, rows }: Stretch) -> Self {
        let days = (0_i64..).map_while(|number| first.checked_add(number)).zip(rows);
        Self(days.filter(|(day, rows)| *rows > 0 && Days::ALL.contains(*day)).collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn days_without_rows_are_noughts_between_the_others() {
        let mut counts = DayCounts::default();
        assert_eq!(json!(counts), json!({"first": 0, "rows": []}));
        for (day, rows) in [(20_003, 1), (20_000, 5), (20_003, 2)] {
            counts.add(day, rows);
        }
        assert_eq!(json!(counts), json!({"first": 20_000, "rows": [5, 0, 0, 3]}));
        assert_eq!(serde_json::from_value::<DayCounts>(json!(counts)).unwrap(), counts);
        let nonsense = json!({"first": i64::MAX, "rows": [1, 2]});
        assert_eq!(serde_json::from_value::<DayCounts>(nonsense).unwrap(), DayCounts::default());
    }
}
