//! The command line of the destination.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use super::config::{BEARER_TOKEN_VARIABLE, SIGNING_SECRET_VARIABLE, WEBHOOK_URL_VARIABLE};
use crate::help;
use crate::protocol::{Audience, LogFormat};

/// The variables that every command with a configuration reads.
const VARIABLES: &[(&str, &str)] = &[
    (WEBHOOK_URL_VARIABLE, "`webhook_url`, when the configuration has none"),
    (BEARER_TOKEN_VARIABLE, "`bearer_token`, when the configuration has none"),
    (SIGNING_SECRET_VARIABLE, "`signing_secret`, when the configuration has none"),
];

const EXAMPLES: &str = "\
destination-patterns spec
destination-patterns check --config patterns.json
source-posthog read --quiet --config config.json \\
    --catalog catalog.json --state state.json \\
  | destination-patterns write --config patterns.json \\
    --catalog catalog.json --state-file state.json

The smallest patterns.json, with the URL in PATTERNS_WEBHOOK_URL:
  {}

`destination-patterns help COMMAND` has examples for each command.";

const SPEC_EXAMPLES: &str = "\
destination-patterns spec
destination-patterns spec \\
  | jq '.spec.connectionSpecification.properties | keys'";

const CHECK_EXAMPLES: &str = "\
destination-patterns check --config patterns.json
destination-patterns check --config patterns.json --send-test-record
destination-patterns check --config patterns.json --exit-code";

const WRITE_EXAMPLES: &str = "\
source-posthog read --quiet --config config.json \\
    --catalog catalog.json --state state.json \\
  | destination-patterns write --config patterns.json \\
    --catalog catalog.json --state-file state.json

Deliver records from a file:
  destination-patterns write --config patterns.json \\
    --catalog catalog.json < messages.jsonl";

/// Delivers records to a Patterns webhook and acknowledges a state only when everything before it has arrived.
///
/// Reads Airbyte messages from standard input and prints acknowledged states on standard output.
#[derive(Debug, Parser)]
#[command(name = "destination-patterns", version, after_help = help::after(EXAMPLES, VARIABLES, help::PROGRAM_DONE), propagate_version = true)]
pub struct DestinationArguments {
    /// What to do.
    #[command(subcommand)]
    pub command: DestinationCommand,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum DestinationCommand {
    /// Print the specification of the configuration
    ///
    /// Prints one SPEC message: every setting with its meaning, type, default and bounds. Works
    /// offline and needs no configuration.
    #[command(after_help = help::after(SPEC_EXAMPLES, &[], help::DONE))]
    Spec,
    /// Test the connection to the webhook
    ///
    /// Prints one `CONNECTION_STATUS` message: SUCCEEDED, or FAILED with the reason and what to do. Sends
    /// a HEAD request and no record, unless `--send-test-record` is given.
    #[command(after_help = help::after(CHECK_EXAMPLES, VARIABLES, help::CHECK_DONE))]
    Check {
        /// Configuration file (JSON)
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Also send one made-up record, named `connection test`
        #[arg(long)]
        send_test_record: bool,
        /// Exit with 1 when the result is FAILED
        #[arg(long)]
        exit_code: bool,
    },
    /// Deliver the records read from standard input
    ///
    /// Reads Airbyte messages, one per line. Prints a STATE once every record before it has been
    /// accepted by the webhook or written to `dead_letter_file`. If the source fails, this command
    /// delivers everything it received and fails as well, so the exit code of the pipe covers both.
    #[command(after_help = help::after(WRITE_EXAMPLES, VARIABLES, "every record has been delivered or dead-lettered, and the source has not failed"))]
    Write(WriteArguments),
    /// Print what a shell needs to complete command lines
    ///
    /// Save it where the shell looks for completions, then start a new shell.
    #[command(after_help = help::after(&help::completions_of("destination-patterns"), &[], help::DONE))]
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },
}

impl DestinationCommand {
    /// Who reads what the command writes; `completions` writes no messages.
    pub fn audience(&self) -> Audience {
        match self {
            Self::Spec | Self::Check { .. } => Audience::of_messages(None),
            Self::Write(arguments) => Audience::of_messages(arguments.log_format),
            Self::Completions { .. } => Audience::People,
        }
    }
}

/// Arguments of `write`.
#[derive(Debug, Args)]
pub struct WriteArguments {
    /// Configuration file (JSON)
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Configured catalog (JSON): the same as the source's
    #[arg(long, value_name = "FILE")]
    pub catalog: PathBuf,
    /// Keep the acknowledged states in this file, for `--state` of the next `source-posthog read`
    #[arg(long, value_name = "FILE")]
    pub state_file: Option<PathBuf>,
    /// Hide the progress line
    #[arg(long)]
    pub quiet: bool,
    /// How to write the log [default: text on a terminal, otherwise json]; with text, states that `--state-file`
    /// keeps are not printed
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}
