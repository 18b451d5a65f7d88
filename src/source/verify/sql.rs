//! The queries that a warehouse answers: figures of its table of events, and what they differ in from `event_days`.
//!
//! Texts only. Both count rows that agree in timestamp, id, name and distinct ID once, as PostHog's figures do, and say how
//! often they come.

use super::dialect::Dialect;

/// The figures of a table: `project_id, day, row_count, events, checksum, newest`. Where the table lacks `project_id` and
/// `created_at`, as those of Airbyte's own connector do, `project` is the number of its project.
pub fn figures(dialect: Dialect, table: &str, project: Option<u64>) -> String {
    let timestamp = dialect.timestamp();
    let (number, key, received) = match project {
        None => ("project_id".to_owned(), "project_id, ", dialect.received()),
        Some(project) => (format!("{project} AS project_id"), "", "NULL"),
    };
    format!(
        "SELECT
  project_id,
  day,
  SUM(copies) AS row_count,
  COUNT(*) AS events,
  {} AS checksum,
  MAX(received) AS newest
FROM (
  SELECT
    {number},
    {} AS day,
    {} AS digits,
    COUNT(*) AS copies,
    MAX({received}) AS received
  FROM {table}
  GROUP BY {key}{timestamp}, id, event, distinct_id
) AS each_event
GROUP BY project_id, day
ORDER BY project_id, day
",
        dialect.text("SUM(digits)"),
        dialect.day(),
        dialect.digits(),
    )
}

/// The days in which a table and `event_days` differ: `project_id, day, problem, in_posthog, in_table, duplicates`. Events that
/// PostHog received after it was asked last are left out; those of which the table does not say when they were received count.
pub fn comparison(dialect: Dialect, table: &str, event_days: &str) -> String {
    let timestamp = dialect.timestamp();
    format!(
        "WITH posthog AS (
  SELECT project_id, day, events, checksum, checked_at
  FROM (
    SELECT
      project_id,
      {} AS day,
      events,
      checksum,
      checked_at,
      ROW_NUMBER() OVER (PARTITION BY project_id, day ORDER BY checked_at DESC) AS place
    FROM {event_days}
  ) AS records
  WHERE place = 1
),
checked AS (
  SELECT project_id, MAX(checked_at) AS last_checked
  FROM posthog
  GROUP BY project_id
),
chosen AS (
  SELECT rows_of_table.project_id AS project_id, {timestamp}, id, event, distinct_id
  FROM {table} AS rows_of_table
  JOIN checked ON checked.project_id = rows_of_table.project_id
  WHERE created_at < last_checked OR created_at IS NULL
),
loaded AS (
  SELECT project_id, day, SUM(copies) AS row_count, COUNT(*) AS events, {} AS checksum
  FROM (
    SELECT project_id, {} AS day, {} AS digits, COUNT(*) AS copies
    FROM chosen
    GROUP BY project_id, {timestamp}, id, event, distinct_id
  ) AS each_event
  GROUP BY project_id, day
),
compared AS (
  SELECT
    project_id,
    day,
    SUM(posthog_events) AS in_posthog,
    MAX(posthog_checksum) AS posthog_checksum,
    SUM(table_events) AS in_table,
    MAX(table_checksum) AS table_checksum,
    SUM(table_rows) AS table_rows
  FROM (
    SELECT
      project_id,
      day,
      events AS posthog_events,
      checksum AS posthog_checksum,
      0 AS table_events,
      '0' AS table_checksum,
      0 AS table_rows
    FROM posthog
    UNION ALL
    SELECT project_id, day, 0, '0', events, checksum, row_count
    FROM loaded
  ) AS figures
  GROUP BY project_id, day
)
SELECT
  project_id,
  day,
  CASE
    WHEN in_table < in_posthog THEN 'missing'
    WHEN in_table > in_posthog THEN 'too many'
    WHEN table_checksum <> posthog_checksum THEN 'other events'
    ELSE 'duplicates'
  END AS problem,
  in_posthog,
  in_table,
  table_rows - in_table AS duplicates
FROM compared
WHERE in_table <> in_posthog OR table_checksum <> posthog_checksum OR table_rows > in_table
ORDER BY project_id, day
",
        dialect.stored_day(),
        dialect.text("SUM(digits)"),
        dialect.day(),
        dialect.digits(),
    )
}

#[cfg(test)]
mod tests {
    use sqlparser::dialect::{
        BigQueryDialect, ClickHouseDialect, DatabricksDialect, Dialect as Grammar, DuckDbDialect, PostgreSqlDialect,
        RedshiftSqlDialect, SnowflakeDialect,
    };
    use sqlparser::parser::Parser;

    use super::*;

    #[test]
    fn every_query_is_valid_in_its_language() {
        for dialect in Dialect::ALL {
            let grammar: &dyn Grammar = match dialect {
                Dialect::BigQuery => &BigQueryDialect {},
                Dialect::Snowflake => &SnowflakeDialect {},
                Dialect::Redshift => &RedshiftSqlDialect {},
                Dialect::Databricks => &DatabricksDialect {},
                Dialect::Postgres => &PostgreSqlDialect {},
                Dialect::DuckDb => &DuckDbDialect {},
                Dialect::ClickHouse => &ClickHouseDialect {},
            };
            let queries = [
                figures(dialect, "raw.events", None),
                figures(dialect, "raw.events", Some(1)),
                comparison(dialect, "raw.events", "raw.event_days"),
            ];
            for query in queries {
                let parsed = Parser::parse_sql(grammar, &query);
                assert!(
                    parsed.as_ref().is_ok_and(|statements| statements.len() == 1),
                    "{dialect:?}: {parsed:?}\n{query}"
                );
            }
        }
    }
}
