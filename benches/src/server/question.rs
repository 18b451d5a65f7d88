//! Which of the few queries of the connector it is, and about which time.
//!
//! Queries are recognized by their text as a whole; any other is an error, so that a query that has
//! changed is noticed instead of being measured wrongly.

use std::sync::LazyLock;

use anyhow::{Context, bail};
use chrono::NaiveDateTime;
use regex::Regex;

/// What a query asks for. Instants are microseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Question {
    /// Which columns there are; no rows.
    Columns,
    /// A page of events.
    Page {
        /// The select list.
        columns: String,
        /// First timestamp.
        from: i64,
        /// First timestamp after it.
        to: i64,
        /// The timestamp and the uuid of the event before the page.
        after: Option<(i64, String)>,
        limit: u64,
    },
    /// How many events each day has.
    Days {
        /// First timestamp.
        from: i64,
        /// First timestamp after it.
        to: i64,
    },
    /// How many events have arrived in each hour.
    Hours {
        /// First arrival.
        from: i64,
        /// First arrival after it.
        to: i64,
    },
    /// How many events have arrived.
    Arrived {
        /// First arrival.
        from: i64,
        /// First arrival after it.
        to: i64,
    },
    /// How many events there are, different ones or all: none has copies.
    Count {
        /// First timestamp.
        from: i64,
        /// First timestamp after it.
        to: i64,
    },
}

const INSTANT: &str = r"toDateTime64\('([0-9 :.-]{26})', 6, 'UTC'\)";

fn pattern(text: &str) -> Option<Regex> {
    let escaped = text.replace('(', r"\(").replace(')', r"\)").replace('{', r"\{").replace('}', r"\}");
    Regex::new(&format!(
        "^{}$",
        escaped.replace("COLUMNS", "(.+?)").replace("NUMBER", "([0-9]+)").replace('@', INSTANT)
    ))
    .ok()
}

/// Page, next page, days, hours, arrived, two counts, two questions about columns.
static PATTERNS: LazyLock<Option<[Regex; 9]>> = LazyLock::new(|| {
    Some([
        pattern(
            "SELECT COLUMNS FROM events WHERE timestamp >= @ AND timestamp < @ AND created_at < @ \
             ORDER BY timestamp ASC, toString(uuid) ASC, created_at DESC LIMIT NUMBER",
        )?,
        pattern(
            "SELECT COLUMNS FROM events WHERE timestamp >= @ AND timestamp < @ AND created_at < @ \
             AND (timestamp, toString(uuid)) > (@, {after_id}) \
             ORDER BY timestamp ASC, toString(uuid) ASC, created_at DESC LIMIT NUMBER",
        )?,
        pattern(
            "SELECT intDiv(toUnixTimestamp64Milli(timestamp), 86400000) AS day, count() FROM events \
             WHERE timestamp >= @ AND timestamp < @ AND created_at < @ GROUP BY day ORDER BY day LIMIT NUMBER",
        )?,
        pattern(
            "SELECT intDiv(toUnixTimestamp64Milli(created_at), 3600000) AS hour, count() FROM events \
             WHERE timestamp >= @ AND timestamp < @ AND created_at >= @ AND created_at < @ \
             GROUP BY hour ORDER BY hour LIMIT NUMBER",
        )?,
        pattern(
            "SELECT count() FROM events \
             WHERE timestamp >= @ AND timestamp < @ AND created_at >= @ AND created_at < @ LIMIT NUMBER",
        )?,
        pattern("SELECT count() FROM events WHERE timestamp >= @ AND timestamp < @ AND created_at < @ LIMIT NUMBER")?,
        pattern(
            "SELECT uniqExact(tuple(timestamp, toString(uuid))) FROM events \
             WHERE timestamp >= @ AND timestamp < @ AND created_at < @ LIMIT NUMBER",
        )?,
        Regex::new(r"^SELECT \* FROM events LIMIT 0$").ok()?,
        pattern("SELECT COLUMNS FROM events WHERE timestamp >= @ AND timestamp < @ LIMIT 1")?,
    ])
});

/// Recognizes a query; `after` is the value of its placeholder, if it has one.
///
/// # Errors
/// When it is none of those that are known.
pub(super) fn recognize(sql: &str, after: Option<&str>) -> anyhow::Result<Question> {
    let [page, next, days, hours, arrived, all, different, listed, probe] =
        PATTERNS.as_ref().context("the patterns of queries")?;
    let of_no_rows = probe.captures(sql).is_some_and(|found| found[2] == found[3]);
    if listed.is_match(sql) || of_no_rows {
        return Ok(Question::Columns);
    }
    if let Some(found) = days.captures(sql) {
        return Ok(Question::Days { from: instant(&found[1])?, to: instant(&found[2])? });
    }
    if let Some(found) = hours.captures(sql) {
        return Ok(Question::Hours { from: instant(&found[3])?, to: instant(&found[4])? });
    }
    if let Some(found) = arrived.captures(sql) {
        return Ok(Question::Arrived { from: instant(&found[3])?, to: instant(&found[4])? });
    }
    if let Some(found) = all.captures(sql).or_else(|| different.captures(sql)) {
        return Ok(Question::Count { from: instant(&found[1])?, to: instant(&found[2])? });
    }
    if let Some(found) = next.captures(sql) {
        let id = after.context("the value of `after_id` is missing")?;
        let after = Some((instant(&found[5])?, id.to_owned()));
        let (from, to) = (instant(&found[2])?, instant(&found[3])?);
        return Ok(Question::Page { columns: found[1].to_owned(), from, to, after, limit: found[6].parse()? });
    }
    if let Some(found) = page.captures(sql) {
        let (from, to) = (instant(&found[2])?, instant(&found[3])?);
        return Ok(Question::Page { columns: found[1].to_owned(), from, to, after: None, limit: found[5].parse()? });
    }
    bail!("the benchmark server does not know this query: {sql}")
}

fn instant(text: &str) -> anyhow::Result<i64> {
    Ok(NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f")?.and_utc().timestamp_micros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_classified_by_their_sql() {
        let at = |day: u32| format!("toDateTime64('2026-01-{day:02} 00:00:00.000000', 6, 'UTC')");
        let [first, second, third] = [at(1), at(2), at(3)];
        let range = format!("timestamp >= {first} AND timestamp < {second} AND created_at < {third}");
        let order = "ORDER BY timestamp ASC, toString(uuid) ASC, created_at DESC LIMIT 50000";
        let from = 1_767_225_600_000_000;
        let to = from + 86_400_000_000;
        let page = format!("SELECT uuid, `$session_id` FROM events WHERE {range} {order}");
        let columns = "uuid, `$session_id`".to_owned();
        assert_eq!(
            recognize(&page, None).unwrap(),
            Question::Page { columns: columns.clone(), from, to, after: None, limit: 50_000 }
        );
        let key = format!("AND (timestamp, toString(uuid)) > ({first}, {{after_id}}) {order}");
        let next = format!("SELECT uuid, `$session_id` FROM events WHERE {range} {key}");
        assert_eq!(
            recognize(&next, Some("x")).unwrap(),
            Question::Page { columns, from, to, after: Some((from, "x".to_owned())), limit: 50_000 }
        );
        assert!(recognize(&next, None).is_err());
        let count = format!("SELECT uniqExact(tuple(timestamp, toString(uuid))) FROM events WHERE {range} LIMIT 1");
        assert_eq!(recognize(&count, None).unwrap(), Question::Count { from, to });
        let all = count.replace("uniqExact(tuple(timestamp, toString(uuid)))", "count()");
        assert_eq!(recognize(&all, None).unwrap(), Question::Count { from, to });
        let arrived = all.replace("AND created_at", &format!("AND created_at >= {first} AND created_at"));
        assert_eq!(recognize(&arrived, None).unwrap(), Question::Arrived { from, to: to + 86_400_000_000 });
        assert!(recognize(&page.replace("created_at <", "created_at <="), None).is_err());
        assert!(recognize("SELECT 1", None).is_err());
        assert_eq!(recognize("SELECT * FROM events LIMIT 0", None).unwrap(), Question::Columns);
        let probe = format!("SELECT uuid FROM events WHERE timestamp >= {first} AND timestamp < {first} LIMIT 1");
        assert_eq!(recognize(&probe, None).unwrap(), Question::Columns);
        assert!(recognize(&probe.replacen(&first, &second, 1), None).is_err());
    }
}
