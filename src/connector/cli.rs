//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::protocol::SyncMode;

const EXAMPLES: &str = "\
Examples:
  source-posthog spec
  source-posthog check --config config.json
  source-posthog catalog --config config.json --streams events > catalog.json
  source-posthog read --config config.json --catalog catalog.json > messages.jsonl
  source-posthog read --quiet --config config.json --catalog catalog.json --state state.json \\
    | destination-patterns write --config patterns.json --catalog catalog.json --state-file state.json

The smallest config.json:
  {\"api_key\": \"phx_...\", \"start_date\": \"2026-01-01T00:00:00Z\"}

Environment variables:
  POSTHOG_API_KEY  the API key, when the configuration has none
  LOG_LEVEL        error, warn, info (default), debug or trace
  HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE, SSL_CERT_DIR as usual

Exit codes:
  0  done; for `check` also when the answer is FAILED
  1  failed; the last TRACE message says why and what to do
  2  the command line is wrong";

/// Reads events, persons, sessions and more from PostHog and never loses an event without saying so.
///
/// Speaks the Airbyte protocol: one JSON message a line on standard output.
#[derive(Debug, Parser)]
#[command(name = "source-posthog", version, after_help = EXAMPLES, propagate_version = true)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the specification of the configuration
    Spec,
    /// Try the configuration with real requests, project by project
    Check {
        /// Configuration file (JSON)
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Print the streams that can be read, with their schemas
    Discover {
        /// Configuration file (JSON)
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Read records and print them, with states to continue from
    Read(ReadArguments),
    /// Print a configured catalog, ready for `read`
    Catalog(CatalogArguments),
}

/// Arguments of `read`.
#[derive(Debug, Args)]
pub struct ReadArguments {
    /// Configuration file (JSON)
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Configured catalog (JSON): which streams to read and how
    #[arg(long, value_name = "FILE")]
    pub catalog: PathBuf,
    /// State to continue from (JSON); leave it out to read everything
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// Show no live line, even when standard error is a terminal
    #[arg(long)]
    pub quiet: bool,
}

/// Arguments of `catalog`.
#[derive(Debug, Args)]
pub struct CatalogArguments {
    /// Configuration file (JSON)
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
    /// What is new since the state
    Incremental,
    /// Everything, every time
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
