//! Queries for the numbers and checksums of the days, all in one row.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::LazyLock;

use anyhow::{Context, bail};
use chrono::Datelike as _;
use regex::Regex;
use serde_json::{Value, json};

use super::condition::{Span, any_of, instant, times};
use super::question::pattern;
use crate::events::{DAY, calendar_day};

const DAY_NUMBER: &str = "intDiv(toUnixTimestamp64Milli(timestamp) + 3155760000000, 86400000) - 36525";
const CHECKSUM: &str = "reinterpretAsUInt32(reverse(unhex(right(toString(uuid), 8))))";

/// Rows and checksum by the first day of a period and the number of a slice.
pub(super) type Cells = BTreeMap<(i64, usize), (u64, u64)>;

/// What is to be counted, and by what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Figures {
    /// Days that count as a part of their month.
    months: Vec<Span>,
    /// Arrivals at which the next slice begins; none if there are no slices in the answer.
    slices: Option<Vec<i64>>,
    /// Events that happened in any of these,
    pub(super) happened: Vec<Span>,
    /// and arrived then.
    pub(super) arrived: Span,
}

static OBSERVATION: LazyLock<Option<Regex>> = LazyLock::new(|| {
    pattern(&format!(
        "SELECT count() AS cells, sum(row_count) AS stored, \
         groupArray((period, slice, row_count, row_checksum)) AS figures FROM (SELECT ANYTHING AS period, ANYTHING AS slice, \
         count() AS row_count, sum({CHECKSUM}) AS row_checksum FROM events WHERE ANYTHING GROUP BY period, slice) LIMIT 1"
    ))
});

static DISTINCT: LazyLock<Option<Regex>> = LazyLock::new(|| {
    pattern(&format!(
        "SELECT count() AS cells, sum(row_count) AS stored, \
         groupArray((period, row_count, row_checksum, distinct_count, distinct_checksum)) AS figures FROM (SELECT period, \
         sum(duplicates) AS row_count, sum(duplicates * digits) AS row_checksum, count() AS distinct_count, \
         sum(digits) AS distinct_checksum FROM (SELECT ANYTHING AS period, {CHECKSUM} AS digits, count() AS duplicates \
         FROM events WHERE ANYTHING GROUP BY period, digits, timestamp, uuid, event, distinct_id) GROUP BY period) LIMIT 1"
    ))
});

/// Conditions on arrivals, and what follows them.
static ARRIVED_FIRST: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"^((?:created_at [^ ]+ [^)]+\) AND )+)(.+)$").ok());

impl Figures {
    /// Reads a query for figures; `None` if it is another one.
    ///
    /// # Errors
    /// When it is about anything but times.
    pub(super) fn recognize(sql: &str) -> anyhow::Result<Option<Self>> {
        let observation = OBSERVATION.as_ref().context("the pattern of observations")?;
        let distinct = DISTINCT.as_ref().context("the pattern of different rows")?;
        let (months, slices, conditions) = if let Some(found) = observation.captures(sql) {
            (months(&found[1])?, Some(slices(&found[2])?), found[3].to_owned())
        } else if let Some(found) = distinct.captures(sql) {
            (months(&found[1])?, None, found[2].to_owned())
        } else {
            return Ok(None);
        };
        let found = ARRIVED_FIRST.as_ref().context("the pattern of arrivals")?.captures(&conditions);
        let found = found.with_context(|| format!("no condition on arrivals: {conditions}"))?;
        let arrived = times(found[1].trim_end_matches(" AND "))?.arrived;
        // Several spans have parentheses around all of them.
        let happened = found[2].strip_prefix("((").and_then(|rest| rest.strip_suffix("))"));
        let happened = any_of(&happened.map_or_else(|| found[2].to_owned(), |inner| format!("({inner})")))?;
        Ok(Some(Self { months, slices, happened, arrived }))
    }

    /// The period that a day counts for, by its first day.
    ///
    /// # Errors
    /// When no calendar has the day.
    pub(super) fn period(&self, day: i64) -> anyhow::Result<i64> {
        let is_folded = self.months.iter().any(|span| (span.from..span.to).contains(&(day * DAY)));
        if is_folded { first_of_month(day) } else { Ok(day) }
    }

    /// Arrivals of each slice; a single one if there are none in the answer.
    pub(super) fn slices(&self) -> impl Iterator<Item = Span> {
        let bounds = || self.slices.iter().flatten().copied();
        let begins = std::iter::once(i64::MIN).chain(bounds());
        begins.zip(bounds().chain([i64::MAX])).map(|(from, to)| Span { from, to })
    }

    /// Cells of the days whose events arrived in time; `day_from` tells the first day with all its
    /// events after an instant, and `of_day` number and checksum of the events of a day.
    ///
    /// # Errors
    /// When an instant is in the middle of a day with events.
    pub(super) fn cells(
        &self,
        days: Range<i64>,
        day_from: impl Fn(i64) -> anyhow::Result<i64>,
        of_day: impl Fn(i64) -> anyhow::Result<(u64, u64)>,
    ) -> anyhow::Result<Cells> {
        let whole = |span: &Span| Ok(day_from(span.from)?..day_from(span.to)?);
        let happened = self.happened.iter().map(whole).collect::<anyhow::Result<Vec<_>>>()?;
        let slices = self.slices.iter().flatten().map(|bound| day_from(*bound)).collect::<anyhow::Result<Vec<_>>>()?;
        let contain = |ranges: &[Range<i64>], day| ranges.iter().any(|range| range.contains(&day));
        let mut cells = Cells::new();
        for day in days.filter(|day| contain(&happened, *day)) {
            let (rows, checksum) = of_day(day)?;
            let slice = slices.iter().filter(|bound| **bound <= day).count();
            let cell = cells.entry((self.period(day)?, slice)).or_default();
            *cell = (cell.0 + rows, cell.1.wrapping_add(checksum));
        }
        Ok(cells)
    }

    /// The answer with these cells.
    pub(super) fn answer(&self, cells: &Cells) -> Value {
        let stored: u64 = cells.values().map(|(rows, _)| rows).sum();
        // None has copies.
        let figure = |((period, slice), (rows, sum)): (&(i64, usize), &(u64, u64))| match self.slices {
            Some(_) => json!([period, slice, rows, sum]),
            None => json!([period, rows, sum, rows, sum]),
        };
        let figures: Vec<Value> = cells.iter().map(figure).collect();
        let row = json!([figures.len(), stored, figures]);
        json!({"columns": ["cells", "stored", "figures"], "error": null, "results": [row]})
    }
}

fn first_of_month(day: i64) -> anyhow::Result<i64> {
    Ok(day - i64::from(calendar_day(day).context("a day")?.day0()))
}

/// The days that the expression of a period counts as a part of their month.
fn months(text: &str) -> anyhow::Result<Vec<Span>> {
    let Some(rest) = text.strip_prefix(DAY_NUMBER) else { bail!("the benchmark server does not know `{text}`") };
    if rest.is_empty() {
        return Ok(Vec::new());
    }
    let folded = rest
        .strip_prefix(" - if(")
        .and_then(|rest| rest.strip_suffix(", toDayOfMonth(toTimeZone(timestamp, 'UTC')) - 1, 0)"));
    any_of(folded.with_context(|| format!("the benchmark server does not know `{text}`"))?)
}

/// The bounds in the expression of a slice.
fn slices(text: &str) -> anyhow::Result<Vec<i64>> {
    if text == "0" {
        return Ok(Vec::new());
    }
    let unknown = || format!("the benchmark server does not know `{text}`");
    let inner = text.strip_prefix("multiIf(").and_then(|rest| rest.strip_suffix(')')).with_context(unknown)?;
    let mut bounds = Vec::new();
    let mut rest = inner;
    while let Some(bound) = rest.strip_prefix("created_at < toDateTime64('") {
        let (bound, after) = bound.split_once("', 6, 'UTC'), ").with_context(unknown)?;
        rest = after.strip_prefix(&format!("{}, ", bounds.len())).with_context(unknown)?;
        bounds.push(instant(bound)?);
    }
    if rest != bounds.len().to_string() || bounds.is_empty() {
        bail!(unknown());
    }
    Ok(bounds)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-01-01.
    const FIRST: i64 = 20_454;

    fn at(day: i64) -> String {
        format!("toDateTime64('{} 00:00:00.000000', 6, 'UTC')", crate::events::date(day))
    }

    fn within(from: i64, to: i64) -> String {
        format!("(timestamp >= {} AND timestamp < {})", at(from), at(to))
    }

    /// Three rows a day from 30 January to 3 February.
    fn ask(sql: &str) -> anyhow::Result<Value> {
        let figures = Figures::recognize(sql)?.context("another query")?;
        let day_from = |instant: i64| Ok(instant.saturating_sub(1).div_euclid(DAY) + 1);
        let cells = figures.cells(FIRST + 29..FIRST + 34, day_from, |day| Ok((3, u64::try_from(day)?)))?;
        Ok(figures.answer(&cells)["results"][0].clone())
    }

    #[test]
    fn an_observation_is_answered_by_period_and_slice() {
        let observation = |period: &str, slice: &str, conditions: &str| {
            format!(
                "SELECT count() AS cells, sum(row_count) AS stored, \
                 groupArray((period, slice, row_count, row_checksum)) AS figures FROM (SELECT {period} AS period, \
                 {slice} AS slice, count() AS row_count, sum({CHECKSUM}) AS row_checksum FROM events WHERE {conditions} \
                 GROUP BY period, slice) LIMIT 1"
            )
        };
        let until = format!("created_at < {}", at(FIRST + 90));
        let folded = format!(
            "{DAY_NUMBER} - if({} OR {}, toDayOfMonth(toTimeZone(timestamp, 'UTC')) - 1, 0)",
            within(FIRST, FIRST + 31),
            within(FIRST + 59, FIRST + 90)
        );
        let slice = format!("multiIf(created_at < {}, 0, created_at < {}, 1, 2)", at(FIRST + 32), at(FIRST + 33));
        let sum = |days: &[i64]| days.iter().map(|day| FIRST + day).sum::<i64>();
        assert_eq!(
            ask(&observation(&folded, &slice, &format!("{until} AND 1 = 1"))).unwrap(),
            json!([
                4,
                15,
                [
                    [FIRST, 0, 6, sum(&[29, 30])],
                    [FIRST + 31, 0, 3, sum(&[31])],
                    [FIRST + 32, 1, 3, sum(&[32])],
                    [FIRST + 33, 2, 3, sum(&[33])]
                ]
            ])
        );
        let some = format!("{until} AND {}", within(FIRST, FIRST + 30));
        assert_eq!(ask(&observation(DAY_NUMBER, "0", &some)).unwrap(), json!([1, 3, [[FIRST + 29, 0, 3, FIRST + 29]]]));
        let none = format!("{until} AND (timestamp >= {})", at(FIRST + 60));
        assert_eq!(ask(&observation(DAY_NUMBER, "0", &none)).unwrap(), json!([0, 0, []]));
        for sql in [
            observation(DAY_NUMBER, "0", &format!("{some} AND event IN ({{observed_0}})")),
            observation("toDate(timestamp)", "0", &some),
            observation(DAY_NUMBER, &slice.replace(", 1, 2)", ", 2, 3)"), &some),
            observation(DAY_NUMBER, "0", "1 = 1"),
            observation(DAY_NUMBER, "0", &some).replace("LIMIT 1", "LIMIT 2"),
        ] {
            assert!(ask(&sql).is_err(), "{sql}");
        }
    }

    #[test]
    fn different_rows_are_all_rows() {
        let distinct = |conditions: &str| {
            format!(
                "SELECT count() AS cells, sum(row_count) AS stored, \
                 groupArray((period, row_count, row_checksum, distinct_count, distinct_checksum)) AS figures FROM (SELECT \
                 period, sum(duplicates) AS row_count, sum(duplicates * digits) AS row_checksum, count() AS distinct_count, \
                 sum(digits) AS distinct_checksum FROM (SELECT {DAY_NUMBER} AS period, {CHECKSUM} AS digits, \
                 count() AS duplicates FROM events WHERE {conditions} \
                 GROUP BY period, digits, timestamp, uuid, event, distinct_id) GROUP BY period) LIMIT 1"
            )
        };
        let arrived = format!("created_at >= {} AND created_at < {}", at(FIRST), at(FIRST + 90));
        let (one, other) = (within(FIRST + 29, FIRST + 30), within(FIRST + 33, FIRST + 34));
        let first = [FIRST + 29, 3, FIRST + 29, 3, FIRST + 29];
        let last = [FIRST + 33, 3, FIRST + 33, 3, FIRST + 33];
        assert_eq!(ask(&distinct(&format!("{arrived} AND ({one})"))).unwrap(), json!([1, 3, [first]]));
        assert_eq!(ask(&distinct(&format!("{arrived} AND ({one} OR {other})"))).unwrap(), json!([2, 6, [first, last]]));
    }
}
