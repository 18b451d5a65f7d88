//! Conditions on the times of events.

use std::sync::LazyLock;

use anyhow::{Context, bail};
use chrono::NaiveDateTime;
use regex::Regex;

/// A literal; its time is the pattern's only group.
pub(super) const INSTANT: &str = r"toDateTime64\('([0-9 :.-]{26})', 6, 'UTC'\)";

/// Instants from the first to the one after the last, in microseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) from: i64,
    pub(super) to: i64,
}

impl Span {
    pub(super) const ALL: Self = Self { from: i64::MIN, to: i64::MAX };

    /// What lies in both.
    pub(super) fn and(self, other: Self) -> Self {
        Self { from: self.from.max(other.from), to: self.to.min(other.to) }
    }
}

/// When events happened and when they arrived, all in one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) happened: Span,
    pub(super) arrived: Span,
}

/// One comparison, or none.
static CONDITION: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(&format!(r"^\(?(timestamp|created_at) (>=|<) {INSTANT}\)?$")).ok());

/// Reads comparisons of times that are joined by AND; parentheses around some of them change nothing.
///
/// # Errors
/// When there is anything else among them.
pub(super) fn times(text: &str) -> anyhow::Result<Times> {
    let condition = CONDITION.as_ref().context("the pattern of conditions")?;
    let mut times = Times { happened: Span::ALL, arrived: Span::ALL };
    for each in text.split(" AND ").filter(|each| *each != "1 = 1") {
        let Some(found) = condition.captures(each) else { bail!("the benchmark server does not know `{each}`") };
        let bound = instant(&found[3])?;
        let span = if &found[2] == "<" { Span { to: bound, ..Span::ALL } } else { Span { from: bound, ..Span::ALL } };
        let part = if &found[1] == "timestamp" { &mut times.happened } else { &mut times.arrived };
        *part = part.and(span);
    }
    Ok(times)
}

/// Reads spans of event time that are joined by OR.
///
/// # Errors
/// When there is anything else among them.
pub(super) fn any_of(text: &str) -> anyhow::Result<Vec<Span>> {
    let spans = text.split(" OR ").map(|each| {
        let Times { happened, arrived: Span::ALL } = times(each)? else { bail!("`{each}` is about arrivals") };
        Ok(happened)
    });
    spans.collect()
}

pub(super) fn instant(text: &str) -> anyhow::Result<i64> {
    Ok(NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f")?.and_utc().timestamp_micros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_joined() {
        let at = |day: u32| format!("toDateTime64('2026-01-{day:02} 00:00:00.000000', 6, 'UTC')");
        let day = |number: i64| 1_767_225_600_000_000 + (number - 1) * 86_400_000_000;
        let text = format!(
            "created_at >= {} AND created_at < {} AND (timestamp >= {} AND timestamp < {}) AND timestamp >= {}",
            at(1),
            at(9),
            at(2),
            at(5),
            at(3)
        );
        let expected =
            Times { happened: Span { from: day(3), to: day(5) }, arrived: Span { from: day(1), to: day(9) } };
        assert_eq!(times(&text).unwrap(), expected);
        assert_eq!(times("1 = 1").unwrap(), Times { happened: Span::ALL, arrived: Span::ALL });
        let either = format!("(timestamp < {}) OR (timestamp >= {})", at(2), at(4));
        let expected = [Span { to: day(2), ..Span::ALL }, Span { from: day(4), ..Span::ALL }];
        assert_eq!(any_of(&either).unwrap(), expected);
        assert!(times(&format!("{text} AND event IN ({{chosen_0}})")).is_err());
        assert!(times(&text.replace(">=", ">")).is_err());
        assert!(any_of(&either.replacen("timestamp", "created_at", 1)).is_err());
    }
}
