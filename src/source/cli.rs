//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::verify::Dialect;
use crate::config::{API_KEY_VARIABLE, HASH_KEY_VARIABLE};
use crate::help;
use crate::protocol::{Audience, LogFormat, SyncMode};

/// The variable that every command with a configuration reads.
const VARIABLES: &[(&str, &str)] = &[
    (API_KEY_VARIABLE, "`api_key`, when the configuration has none"),
    (HASH_KEY_VARIABLE, "`hash_key`, when the configuration has none"),
];

const EXAMPLES: &str = "\
source-posthog init
source-posthog check --config config.json
source-posthog catalog --config config.json --streams events > catalog.json
source-posthog read --config config.json --catalog catalog.json \\
  > messages.jsonl
source-posthog read --quiet --config config.json \\
    --catalog catalog.json --state state.json \\
  | destination-patterns write --config patterns.json \\
    --catalog catalog.json --state-file state.json

The smallest config.json, with the API key in POSTHOG_API_KEY:
  {\"start_date\": \"2026-01-01T00:00:00Z\"}

`source-posthog help COMMAND` has examples for each command.";

const INIT_EXAMPLES: &str = "\
source-posthog init
source-posthog init --config web-shop.json";

const SPEC_EXAMPLES: &str = "\
source-posthog spec
source-posthog spec \\
  | jq '.spec.connectionSpecification.properties | keys'";

const CHECK_EXAMPLES: &str = "\
source-posthog check --config config.json
source-posthog check --config config.json --exit-code";

const DISCOVER_EXAMPLES: &str = "\
source-posthog discover --config config.json
source-posthog discover --config config.json \\
  | jq -r 'select(.type == \"CATALOG\").catalog.streams[].name'";

const READ_EXAMPLES: &str = "\
source-posthog read --config config.json --streams events,persons \\
  > messages.jsonl
source-posthog read --config config.json --catalog catalog.json \\
  > messages.jsonl

Continue from there, with a file of the STATE messages:
  grep '^{\"type\":\"STATE\"' messages.jsonl > states.jsonl
  source-posthog read --config config.json --catalog catalog.json \\
    --state states.jsonl

Read in a job of cron, with a log for people and figures for monitoring:
  source-posthog read --config config.json --catalog catalog.json \\
    --log-format text --metrics-file posthog.prom \\
    > messages.jsonl 2>> sync.log

Deliver to a Patterns webhook, and continue from there next time:
  touch state.json
  source-posthog read --quiet --config config.json \\
      --catalog catalog.json --state state.json \\
    | destination-patterns write --config patterns.json \\
      --catalog catalog.json --state-file state.json

The same without an end: a new event is delivered within a minute or two:
  source-posthog read --follow --quiet --config config.json \\
      --catalog catalog.json --state state.json \\
    | destination-patterns write --config patterns.json \\
      --catalog catalog.json --state-file state.json";

const PLAN_EXAMPLES: &str = "\
source-posthog plan --config config.json --catalog catalog.json
source-posthog plan --config config.json --catalog catalog.json \\
    --state state.json --json \\
  | jq '.reads[] | {stream, rows, billed_rows}'";

const CATALOG_EXAMPLES: &str = "\
source-posthog catalog --config config.json > catalog.json
source-posthog catalog --config config.json --streams events,persons \\
  > catalog.json
source-posthog catalog --config config.json --sync-mode full_refresh \\
  > catalog.json";

const VERIFY_EXAMPLES: &str = "\
Print the query, run it in the warehouse, compare its result:
  source-posthog verify --sql postgres --table events > figures.sql
  psql --csv --file figures.sql > counts.csv
  source-posthog verify --config config.json --counts counts.csv

Compare in the warehouse, with the stream `event_days`:
  source-posthog verify --sql bigquery --table posthog.events \\
    --event-days posthog.event_days > differences.sql";

/// Reads events, persons, sessions and more from PostHog, and never drops an event silently.
///
/// Speaks the Airbyte protocol: one JSON message per line on standard output.
#[derive(Debug, Parser)]
#[command(name = "source-posthog", version, after_help = help::after(EXAMPLES, VARIABLES, help::PROGRAM_DONE), propagate_version = true)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the specification of the configuration
    ///
    /// Prints one SPEC message: every setting with its meaning, type, default and bounds. Works
    /// offline and needs no configuration.
    #[command(after_help = help::after(SPEC_EXAMPLES, &[], help::DONE))]
    Spec,
    /// Test the configuration with real requests, project by project
    ///
    /// Prints one `CONNECTION_STATUS` message. SUCCEEDED comes with the method for each project and the
    /// streams that the API key cannot read; FAILED with the reason and what to do. Writes nothing to
    /// PostHog.
    #[command(after_help = help::after(CHECK_EXAMPLES, VARIABLES, help::CHECK_DONE))]
    Check {
        /// Configuration file (JSON); `-` is standard input
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Exit with 1 when the result is FAILED
        #[arg(long)]
        exit_code: bool,
    },
    /// Print the streams that can be read, with their schemas
    ///
    /// Prints one CATALOG message. Sends requests to PostHog only if the configuration has custom queries
    /// or property columns.
    #[command(after_help = help::after(DISCOVER_EXAMPLES, VARIABLES, help::DONE))]
    Discover {
        /// Configuration file (JSON); `-` is standard input
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Read records and print them, with states to continue from
    ///
    /// Prints RECORD and STATE messages. A STATE covers every record before it; pass the last one of
    /// each stream as `--state` to continue from there, also after an interruption. A stream that fails
    /// ends with a TRACE message and the status INCOMPLETE; the others are read to the end.
    #[command(after_help = help::after(READ_EXAMPLES, VARIABLES, "every stream has been read completely"))]
    Read(ReadArguments),
    /// Print what the next `read` would do, without doing it
    ///
    /// Prints for each stream and project: the method, days, rows, export runs, rows that PostHog may bill, bytes
    /// that PostHog reads, requests and minutes; as a table on a terminal, otherwise as JSON. Sends a few queries
    /// that count, and shows how many. Starts no export run and reads no record.
    #[command(after_help = help::after(PLAN_EXAMPLES, VARIABLES, "everything could be planned"))]
    Plan(PlanArguments),
    /// Print a configured catalog, ready for `read`
    ///
    /// A configured catalog is the file that Airbyte writes for `read`: which streams to read, and how.
    /// `discover` prints the names of the streams.
    #[command(after_help = help::after(CATALOG_EXAMPLES, VARIABLES, help::DONE))]
    Catalog(CatalogArguments),
    /// Compare a warehouse's table of events with PostHog
    ///
    /// `--sql` prints a query for the warehouse: the number of events and a checksum for each day. `--counts`
    /// compares its result with PostHog and prints the days that differ, and the setting `reread_days` that has
    /// them read again: as a table on a terminal, otherwise as JSON.
    #[command(after_help = help::after_with(VERIFY_EXAMPLES, VARIABLES, "nothing differs", "  3  the table differs from PostHog\n"))]
    Verify(VerifyArguments),
    /// Ask for what a configuration needs, and write it
    ///
    /// Asks for the region, the API key and the first day to read. Writes a file that only you can read; one that
    /// exists is never replaced. Without a key, the environment variable is used.
    #[command(after_help = help::after(INIT_EXAMPLES, VARIABLES, "the file has been written"))]
    Init {
        /// Configuration file to write (JSON)
        #[arg(long, value_name = "FILE", default_value = "config.json")]
        config: PathBuf,
    },
    /// Print what a shell needs to complete command lines
    ///
    /// Save it where the shell looks for completions, then start a new shell.
    #[command(after_help = help::after(&help::completions_of("source-posthog"), &[], help::DONE))]
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },
}

impl Command {
    /// Who reads what the command writes; the rest write no messages, but results of their own.
    pub fn audience(&self) -> Audience {
        match self {
            Self::Spec | Self::Check { .. } | Self::Discover { .. } => Audience::of_messages(None),
            Self::Read(arguments) => Audience::of_messages(arguments.log_format),
            Self::Catalog(_) | Self::Plan(_) | Self::Verify(_) | Self::Init { .. } | Self::Completions { .. } => {
                Audience::People
            }
        }
    }
}

#[derive(Debug, Args)]
pub struct VerifyArguments {
    /// Print the query for this warehouse
    #[arg(long, value_enum, value_name = "WAREHOUSE", requires = "table", conflicts_with = "counts")]
    pub sql: Option<Dialect>,
    /// The table of events in the warehouse
    #[arg(long, value_name = "NAME", requires = "sql")]
    pub table: Option<String>,
    /// The table of the stream `event_days` in the warehouse: the query compares both there
    #[arg(long, value_name = "NAME", requires = "sql")]
    pub event_days: Option<String>,
    /// The project, for tables without `project_id` and `created_at`, such as those of Airbyte's own connector
    #[arg(long, value_name = "ID", requires = "sql", conflicts_with = "event_days")]
    pub project: Option<u64>,
    /// Compare with PostHog: the result of the query (CSV)
    #[arg(long, value_name = "FILE", requires = "config", required_unless_present = "sql")]
    pub counts: Option<PathBuf>,
    /// Configuration file (JSON); `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// What is read, and from where on.
#[derive(Debug, Args)]
pub struct SyncArguments {
    /// Configuration file (JSON); `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Configured catalog (JSON): which streams to read and how
    #[arg(long, value_name = "FILE", required_unless_present = "streams")]
    pub catalog: Option<PathBuf>,
    /// Streams to read without a catalog, separated by commas: incrementally, if they can be
    #[arg(long, value_name = "NAMES", value_delimiter = ',', conflicts_with = "catalog")]
    pub streams: Vec<String>,
    /// State to continue from: a JSON array of states, as Airbyte keeps it, or STATE messages, one per
    /// line; without it, or with an empty file, everything is read
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ReadArguments {
    #[command(flatten)]
    pub sync: SyncArguments,
    /// Hide the progress line
    #[arg(long)]
    pub quiet: bool,
    /// How to write the log [default: text on a terminal, otherwise json]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// Go on: read what is new every so many seconds [default: 60]. Lists, persons that are exported, and what is
    /// read in full come every hour. SIGINT and SIGTERM end it with exit code 0
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "60",
        value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub follow: Option<u64>,
    /// Write how the sync has ended to this file, in the text format of Prometheus
    #[arg(long, value_name = "FILE")]
    pub metrics_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct PlanArguments {
    #[command(flatten)]
    pub sync: SyncArguments,
    /// Print JSON on a terminal, too
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct CatalogArguments {
    /// Configuration file (JSON); `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Streams to read, separated by commas [default: all]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub streams: Vec<String>,
    /// How to read them; a stream that cannot be read incrementally is refreshed fully
    #[arg(long, value_enum, default_value_t = Mode::Incremental)]
    pub sync_mode: Mode,
}

/// A sync mode as it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Mode {
    /// New data since the state
    Incremental,
    /// All data, every time
    FullRefresh,
}

impl From<Mode> for SyncMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Incremental => Self::Incremental,
            Mode::FullRefresh => Self::FullRefresh,
        }
    }
}
