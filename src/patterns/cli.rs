//! The command line of the destination.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  destination-patterns spec
  destination-patterns check --config patterns.json
  source-posthog read --quiet --config config.json --catalog catalog.json --state state.json \\
    | destination-patterns write --config patterns.json --catalog catalog.json --state-file state.json

The smallest patterns.json:
  {\"webhook_url\": \"https://api.patterns.app/api/app/webhooks/...\"}

Every five minutes from cron, never two at a time:
  */5 * * * * cd /srv/posthog && flock -n .lock sh -c 'source-posthog read ... | destination-patterns write ...'

Environment variables:
  PATTERNS_WEBHOOK_URL  the webhook's address, when the configuration has none
  LOG_LEVEL             error, warn, info (default), debug or trace
  HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE, SSL_CERT_DIR as usual

Exit codes:
  0  done; for `check` also when the answer is FAILED
  1  failed; the last TRACE message says why and what to do
  2  the command line is wrong";

/// Delivers records to a Patterns webhook and acknowledges a state only when everything before it has arrived.
///
/// Reads Airbyte messages from standard input and prints acknowledged states on standard output.
#[derive(Debug, Parser)]
#[command(name = "destination-patterns", version, after_help = EXAMPLES, propagate_version = true)]
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
    /// Ask whether the webhook is there
    Check {
        /// Configuration file (JSON)
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Also send one made-up record, named `connection test`
        #[arg(long)]
        send_test_record: bool,
    },
    /// Deliver the records that come in on standard input
    Write(WriteArguments),
}

/// Arguments of `write`.
#[derive(Debug, Args)]
pub struct WriteArguments {
    /// Configuration file (JSON)
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Configured catalog (JSON): the streams that will come
    #[arg(long, value_name = "FILE")]
    pub catalog: PathBuf,
    /// Keep the acknowledged states in this file, for `--state` of the next `source-posthog read`
    #[arg(long, value_name = "FILE")]
    pub state_file: Option<PathBuf>,
    /// Show no live line, even when standard error is a terminal
    #[arg(long)]
    pub quiet: bool,
}
