//! The command-line entry of `source-posthog`.

use std::process::ExitCode;

use clap::Parser;
use source_posthog::connector::{self, Arguments};
use source_posthog::program;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    program::run(|output| async move { connector::run(&arguments.command, &output).await })
}
