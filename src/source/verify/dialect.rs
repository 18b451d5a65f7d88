//! How warehouses spell what the queries of `verify` need.

use clap::ValueEnum;

/// A warehouse's SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dialect {
    #[value(name = "bigquery")]
    BigQuery,
    Snowflake,
    Redshift,
    Databricks,
    Postgres,
    #[value(name = "duckdb")]
    DuckDb,
    #[value(name = "clickhouse")]
    ClickHouse,
}

impl Dialect {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::BigQuery,
        Self::Snowflake,
        Self::Redshift,
        Self::Databricks,
        Self::Postgres,
        Self::DuckDb,
        Self::ClickHouse,
    ];

    /// Its name, for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::BigQuery => "BigQuery",
            Self::Snowflake => "Snowflake",
            Self::Redshift => "Redshift",
            Self::Databricks => "Databricks",
            Self::Postgres => "Postgres",
            Self::DuckDb => "DuckDB",
            Self::ClickHouse => "ClickHouse",
        }
    }

    /// The column `timestamp`, whose name is a word of the language in some.
    pub(super) fn timestamp(self) -> &'static str {
        match self {
            // Loaders create upper-case columns there, which quotes would miss.
            Self::Snowflake => "timestamp",
            Self::Redshift | Self::Postgres | Self::DuckDb => "\"timestamp\"",
            Self::BigQuery | Self::Databricks | Self::ClickHouse => "`timestamp`",
        }
    }

    /// The UTC day of the column `timestamp`.
    pub(super) fn day(self) -> String {
        let column = self.timestamp();
        match self {
            Self::BigQuery => format!("DATE({column}, 'UTC')"),
            Self::Snowflake => format!("CAST(CONVERT_TIMEZONE('UTC', {column}) AS DATE)"),
            Self::Redshift | Self::Postgres => format!("CAST({column} AT TIME ZONE 'UTC' AS DATE)"),
            // Time zones are an extension there.
            Self::DuckDb => format!("CAST(MAKE_TIMESTAMP(EPOCH_US({column})) AS DATE)"),
            Self::Databricks => format!("TO_DATE(TO_UTC_TIMESTAMP({column}, CURRENT_TIMEZONE()))"),
            Self::ClickHouse => format!("toDate32(toTimeZone({column}, 'UTC'))"),
        }
    }

    /// A day that a loader has stored, as the same type.
    pub(super) fn stored_day(self) -> &'static str {
        match self {
            Self::ClickHouse => "toDate32(day)",
            _ => "CAST(day AS DATE)",
        }
    }

    /// What an event adds to the checksum: the last eight hex digits of `id` as an unsigned integer.
    pub(super) fn digits(self) -> &'static str {
        match self {
            Self::BigQuery => "CAST(CONCAT('0x', RIGHT(id, 8)) AS INT64)",
            Self::Snowflake => "TO_NUMBER(RIGHT(id, 8), 'XXXXXXXX')",
            Self::Redshift => "STRTOL(RIGHT(id, 8), 16)",
            Self::Databricks => "CAST(CONV(RIGHT(id, 8), 16, 10) AS BIGINT)",
            Self::Postgres => "CAST(CAST('x' || LPAD(RIGHT(CAST(id AS TEXT), 8), 16, '0') AS BIT(64)) AS BIGINT)",
            Self::DuckDb => "CAST('0x' || RIGHT(CAST(id AS VARCHAR), 8) AS BIGINT)",
            Self::ClickHouse => "reinterpretAsUInt32(reverse(unhex(right(toString(id), 8))))",
        }
    }

    /// A sum as a string of decimal digits.
    pub(super) fn text(self, sum: &str) -> String {
        match self {
            Self::BigQuery | Self::Databricks => format!("CAST({sum} AS STRING)"),
            Self::Snowflake | Self::Redshift | Self::DuckDb => format!("CAST({sum} AS VARCHAR)"),
            Self::Postgres => format!("CAST({sum} AS TEXT)"),
            Self::ClickHouse => format!("toString({sum})"),
        }
    }

    /// The column `created_at` in microseconds since the epoch.
    pub(super) fn received(self) -> &'static str {
        match self {
            Self::BigQuery | Self::Databricks => "UNIX_MICROS(created_at)",
            Self::Snowflake => "DATE_PART(EPOCH_MICROSECOND, created_at)",
            Self::Redshift => "DATEDIFF(MICROSECOND, '1970-01-01 00:00:00+00', created_at)",
            Self::Postgres => "CAST(EXTRACT(EPOCH FROM created_at) * 1000000 AS BIGINT)",
            Self::DuckDb => "EPOCH_US(created_at)",
            Self::ClickHouse => "toUnixTimestamp64Micro(toDateTime64(created_at, 6))",
        }
    }
}
