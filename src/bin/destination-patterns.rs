//! The command-line entry of `destination-patterns`.

use std::process::ExitCode;

use clap::Parser;
use source_posthog::destination::{self, DestinationArguments};
use source_posthog::program::{self, Audience};

fn main() -> ExitCode {
    let arguments = DestinationArguments::parse();
    program::run(Audience::of_messages(), |output| async move {
        let succeeded = destination::run(&arguments.command, &output).await?;
        Ok(if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}
