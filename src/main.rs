//! The command-line entry of `source-posthog`.

use std::process::ExitCode;

use clap::Parser;
use source_posthog::program;
use source_posthog::source::{self, Arguments};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    program::run(arguments.command.audience(), |output| async move { source::run(&arguments.command, &output).await })
}
