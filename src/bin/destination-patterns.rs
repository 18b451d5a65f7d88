//! The command-line entry of `destination-patterns`.

use std::process::ExitCode;

use clap::Parser;
use source_posthog::destination::{self, Arguments};
use source_posthog::program;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    program::run(|output| async move { destination::run(&arguments.command, &output).await })
}
