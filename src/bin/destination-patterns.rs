//! The command-line entry of `destination-patterns`.

use std::process::ExitCode;

use clap::Parser;
use source_posthog::destination::{self, DestinationArguments};
use source_posthog::program;

fn main() -> ExitCode {
    let arguments = DestinationArguments::parse();
    program::run(arguments.command.audience(), |output| async move {
        let succeeded = destination::run(&arguments.command, &output).await?;
        Ok(if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}
