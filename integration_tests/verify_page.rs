//! `docs/verify.md`, whose queries are those that `verify --sql` prints.

use std::fmt::Write;

use clap::ValueEnum;
use source_posthog::source::verify::{Dialect, sql};

use crate::support::program::assert_committed;

const PAGE: &str = "docs/verify.md";

const HEAD: &str = "# Is everything in the warehouse?

<!-- Written from the program by `make spec`; do not edit. -->

Each sync of `events` ends by comparing what it has emitted with PostHog: number and checksum of every day. This page \
carries that proof on into your warehouse, where a load may have failed, a table may have been changed by hand, or another connector \
may have lost events.

The figures of a day are the number of events and a checksum: the sum, modulo 2^64, of the last eight hex digits of the events' \
uuids, each read as an unsigned integer. PostHog, this connector and the warehouse compute the same. One event in the \
place of another goes unnoticed with a chance of 1 in 4 billion.

Two events that share a `uuid` and differ in name, distinct ID or time are two events in PostHog. A table that is deduplicated by `id` has \
one of them, and these days show up as `missing`.

## From outside: `source-posthog verify`

1. `--sql` prints a query for your warehouse: BigQuery (`bigquery`), Snowflake (`snowflake`), Redshift (`redshift`), Databricks \
(`databricks`), Postgres (`postgres`), DuckDB (`duckdb`) or ClickHouse (`clickhouse`).
2. Run it, and save its result as CSV.
3. `--counts` compares the file with PostHog. It asks one query for each project, and further ones for days that differ. The file needs the columns `project_id`, `day`, `row_count`, `events` and `checksum`; a day without a checksum counts as `other events`.

```sh
source-posthog verify --sql postgres --table events > figures.sql
psql --csv --file figures.sql > counts.csv
source-posthog verify --config config.json --counts counts.csv
```

Only the days between `start_date` and `end_date` are compared, and only events that PostHog had received when the newest row of the table came: what \
came later is up to the next sync. Days that have ended since are compared as a whole; events that the table lacks of them are `missing`, whether they \
were lost or the syncs have stopped; a comparison with `event_days`, below, tells these apart. If `start_date` or `end_date` lies in the middle of a \
day, a table that another tool has filled may have more of that day than is asked for: such a day is not judged, and named as `not_compared`. The exit \
code is 0 if nothing differs, 3 if something \
does, also if a project has events and is not in the file (`missing_projects`): one of `project_ids` or, without this setting, \
any that the key can access. On a terminal the result is a table, otherwise JSON:

```json
{\"agrees\": false, \"days\": 90, \"received_before\": {\"1001\": \"2026-11-27T09:57:00.000001Z\"}, \"not_compared\": [], \"missing_projects\": [],
 \"differences\": [{\"project_id\": 1001, \"day\": \"2026-11-09\", \"problem\": \"missing\", \"in_posthog\": 1200, \"in_table\": 1000, \"duplicates\": 0}],
 \"reread_days\": [\"2026-11-09\"]}
```

| problem | means | what to do |
|---|---|---|
| `missing` | the table has fewer events | read the day again: `reread_days` |
| `other events` | as many, but not the same | read the day again |
| `too many` | the table has more events | they were deleted in PostHog, have expired there, or the settings (`include_events`, `exclude_events`, `event_filter`) leave them out |
| `duplicates` | the same events, some of them repeatedly | deduplicate the table by `id`; tables that are only appended to have repeats |

A table of Airbyte's own connector has no `project_id` and no `created_at`. Name its project; its last day and today are not compared, because nothing \
says up to when it was read:

```sh
source-posthog verify --sql snowflake --table airbyte.events --project 1001 > figures.sql
```

## In the warehouse: `event_days`

The stream [`event_days`](streams.md#event_days) has the figures of each project and day. Sync it in the same connection as `events`: it has \
what the comparison of that sync has shown, and costs no further query. A query then compares both tables, without PostHog and without this \
program. It returns the days that differ, and no row if there are none:

```sh
source-posthog verify --sql bigquery --table posthog.events --event-days posthog.event_days
```

Events that PostHog received after the last check are left out; rows without `created_at` count. The queries were run on DuckDB, Postgres and ClickHouse, with tables damaged \
on purpose; those for BigQuery, Snowflake, Redshift and Databricks were only parsed. They expect the columns as Airbyte's destinations create \
them. If you read only some events (`include_events`, `exclude_events`, `event_filter`), `event_days` counts only these.

### dbt

A singular test fails if its query returns rows. Print it with the names of your sources:

```sh
source-posthog verify --sql snowflake \\
  --table \"{{ source('posthog', 'events') }}\" \\
  --event-days \"{{ source('posthog', 'event_days') }}\" \\
  > tests/events_agree_with_posthog.sql
```

";

#[test]
fn verify_page_has_the_queries_of_the_program() {
    let mut page = HEAD.to_owned();
    page.push_str("### The queries\n\n");
    for dialect in Dialect::ALL {
        let query = sql::comparison(dialect, "events", "event_days");
        write!(page, "#### {}\n\n```sql\n{query}```\n\n", dialect.title()).unwrap();
        let name = dialect.to_possible_value().unwrap();
        assert!(page.contains(&format!("(`{}`)", name.get_name())), "{} is not named", dialect.title());
    }
    assert_committed(PAGE, &format!("{}\n", page.trim_end()));
}
