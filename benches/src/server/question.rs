//! Which of the few queries of the connector it is, and about which time.
//!
//! Queries are recognized by their text as a whole; any other is an error, so that a query that has
//! changed is noticed instead of being measured wrongly.

use std::sync::LazyLock;

use anyhow::{Context, bail};
use regex::Regex;
use serde_json::Value;

use super::condition::{INSTANT, Times, instant, times};
use super::figures::Figures;

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
    /// A page of events that arrived at certain times.
    ArrivedPage {
        /// The select list.
        columns: String,
        times: Times,
        /// The key of the event before the page.
        after: Option<Key>,
        limit: u64,
    },
    /// Number and checksum of the events of each day.
    Figures(Figures),
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

/// What identifies an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) timestamp: i64,
    pub(super) uuid: String,
    pub(super) event: String,
    pub(super) distinct_id: String,
}

/// The pattern of a query: a text with `@` for instants, NUMBER for numbers, and COLUMNS or ANYTHING for
/// whatever is there.
pub(super) fn pattern(text: &str) -> Option<Regex> {
    let escaped = regex::escape(text).replace("COLUMNS", "(.+?)").replace("ANYTHING", "(.+?)");
    Regex::new(&format!("^{}$", escaped.replace("NUMBER", "([0-9]+)").replace('@', INSTANT))).ok()
}

/// Two pages and their next pages, days, hours, arrived, two counts, two questions about columns.
static PATTERNS: LazyLock<Option<[Regex; 11]>> = LazyLock::new(|| {
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
            "SELECT COLUMNS FROM events WHERE ANYTHING ORDER BY timestamp ASC, toString(uuid) ASC, event ASC, \
             distinct_id ASC, created_at DESC LIMIT NUMBER",
        )?,
        pattern(
            "SELECT COLUMNS FROM events WHERE ANYTHING AND (timestamp, toString(uuid), event, distinct_id) > \
             (@, {after_id}, {after_event}, {after_distinct_id}) ORDER BY timestamp ASC, toString(uuid) ASC, event ASC, \
             distinct_id ASC, created_at DESC LIMIT NUMBER",
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

/// Recognizes a query; `values` are those of its placeholders.
///
/// # Errors
/// When it is none of those that are known.
pub(super) fn recognize(sql: &str, values: &Value) -> anyhow::Result<Question> {
    let value = |name: &str| {
        let value = values[name].as_str().with_context(|| format!("the value of `{name}` is missing"));
        value.map(str::to_owned)
    };
    let [page, next, arrived_page, arrived_next, days, hours, arrived, all, different, listed, probe] =
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
    if let Some(figures) = Figures::recognize(sql)? {
        return Ok(Question::Figures(figures));
    }
    // The pattern of a first page fits every page.
    if let Some(found) = arrived_next.captures(sql) {
        let after = Some(Key {
            timestamp: instant(&found[3])?,
            uuid: value("after_id")?,
            event: value("after_event")?,
            distinct_id: value("after_distinct_id")?,
        });
        let (columns, times) = (found[1].to_owned(), times(&found[2])?);
        return Ok(Question::ArrivedPage { columns, times, after, limit: found[4].parse()? });
    }
    if let Some(found) = arrived_page.captures(sql) {
        let (columns, times) = (found[1].to_owned(), times(&found[2])?);
        return Ok(Question::ArrivedPage { columns, times, after: None, limit: found[3].parse()? });
    }
    if let Some(found) = next.captures(sql) {
        let after = Some((instant(&found[5])?, value("after_id")?));
        let (from, to) = (instant(&found[2])?, instant(&found[3])?);
        return Ok(Question::Page { columns: found[1].to_owned(), from, to, after, limit: found[6].parse()? });
    }
    if let Some(found) = page.captures(sql) {
        let (from, to) = (instant(&found[2])?, instant(&found[3])?);
        return Ok(Question::Page { columns: found[1].to_owned(), from, to, after: None, limit: found[5].parse()? });
    }
    bail!("the benchmark server does not know this query: {sql}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::condition::Span;
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
            recognize(&page, &Value::Null).unwrap(),
            Question::Page { columns: columns.clone(), from, to, after: None, limit: 50_000 }
        );
        let key = format!("AND (timestamp, toString(uuid)) > ({first}, {{after_id}}) {order}");
        let next = format!("SELECT uuid, `$session_id` FROM events WHERE {range} {key}");
        assert_eq!(
            recognize(&next, &json!({"after_id": "x"})).unwrap(),
            Question::Page { columns, from, to, after: Some((from, "x".to_owned())), limit: 50_000 }
        );
        assert!(recognize(&next, &Value::Null).is_err());
        let count = format!("SELECT uniqExact(tuple(timestamp, toString(uuid))) FROM events WHERE {range} LIMIT 1");
        assert_eq!(recognize(&count, &Value::Null).unwrap(), Question::Count { from, to });
        let all = count.replace("uniqExact(tuple(timestamp, toString(uuid)))", "count()");
        assert_eq!(recognize(&all, &Value::Null).unwrap(), Question::Count { from, to });
        let arrived = all.replace("AND created_at", &format!("AND created_at >= {first} AND created_at"));
        assert_eq!(recognize(&arrived, &Value::Null).unwrap(), Question::Arrived { from, to: to + 86_400_000_000 });
        assert!(recognize(&page.replace("created_at <", "created_at <="), &Value::Null).is_err());
        assert!(recognize("SELECT 1", &Value::Null).is_err());
        assert_eq!(recognize("SELECT * FROM events LIMIT 0", &Value::Null).unwrap(), Question::Columns);
        let probe = format!("SELECT uuid FROM events WHERE timestamp >= {first} AND timestamp < {first} LIMIT 1");
        assert_eq!(recognize(&probe, &Value::Null).unwrap(), Question::Columns);
        assert!(recognize(&probe.replacen(&first, &second, 1), &Value::Null).is_err());
    }

    #[test]
    fn pages_by_arrival_have_a_key_of_four() {
        let at = |day: u32| format!("toDateTime64('2026-01-{day:02} 00:00:00.000000', 6, 'UTC')");
        let day = |number: i64| 1_767_225_600_000_000 + (number - 1) * 86_400_000_000;
        let range = format!("created_at < {} AND (timestamp >= {} AND timestamp < {})", at(9), at(2), at(5));
        let order = "ORDER BY timestamp ASC, toString(uuid) ASC, event ASC, distinct_id ASC, created_at DESC LIMIT 500";
        let page = format!("SELECT uuid, event FROM events WHERE {range} {order}");
        let mut times =
            Times { happened: Span { from: day(2), to: day(5) }, arrived: Span { to: day(9), ..Span::ALL } };
        let columns = "uuid, event".to_owned();
        let asked = Question::ArrivedPage { columns: columns.clone(), times, after: None, limit: 500 };
        assert_eq!(recognize(&page, &Value::Null).unwrap(), asked);
        let next = format!(
            "SELECT uuid, event FROM events WHERE {range} AND timestamp >= {} AND (timestamp, toString(uuid), event, \
             distinct_id) > ({}, {{after_id}}, {{after_event}}, {{after_distinct_id}}) {order}",
            at(3),
            at(3)
        );
        times.happened.from = day(3);
        let values = json!({"after_id": "u", "after_event": "e", "after_distinct_id": "d"});
        let [uuid, event, distinct_id] = ["u", "e", "d"].map(str::to_owned);
        let after = Some(Key { timestamp: day(3), uuid, event, distinct_id });
        assert_eq!(recognize(&next, &values).unwrap(), Question::ArrivedPage { columns, times, after, limit: 500 });
        assert!(recognize(&next, &json!({"after_id": "u"})).is_err());
        assert!(recognize(&page.replace("created_at <", "event <"), &Value::Null).is_err());
    }
}
