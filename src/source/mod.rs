//! The commands of the source: one function each, all of which write through an [`Output`].
//!
//! [`Output`]: crate::protocol::Output

mod account_streams;
mod catalog;
mod check;
mod cli;
mod configuration;
mod custom_queries;
mod discover;
mod event_filter;
mod first_read;
mod init;
mod method;
mod projects;
mod property_types;
mod read;
mod retention;
mod selected;
mod unmatched;
// The queries of a document come from here.
#[doc(hidden)]
pub mod verify;

pub use cli::{Arguments, Command};

use std::process::ExitCode;
use std::time::Duration;

use crate::completions;
use crate::error::Error;
use crate::protocol::Output;

/// The exit code of `verify` when the table differs from PostHog.
const DIFFERS: u8 = 3;

/// Runs one command. Returns the exit code; 1 when it has reported failures by itself.
///
/// # Errors
/// When the command failed and that has not been reported.
pub async fn run(command: &Command, output: &Output) -> Result<ExitCode, Error> {
    match command {
        Command::Spec => discover::spec(output).await?,
        Command::Check { config, exit_code } if !check::check(config, output).await? && *exit_code => {
            return Ok(ExitCode::FAILURE);
        }
        Command::Discover { config } => discover::discover(config, output).await?,
        Command::Read(arguments) => {
            let complete = match arguments.follow {
                Some(seconds) => read::follow::follow(arguments, Duration::from_secs(seconds), output).await?,
                None => read::read(arguments, output).await?,
            };
            return Ok(if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Plan(arguments) if !read::plan::plan(arguments, output).await? => return Ok(ExitCode::FAILURE),
        Command::Catalog(arguments) => catalog::catalog(arguments, output).await?,
        Command::Verify(arguments) if !verify::verify(arguments, output).await? => return Ok(ExitCode::from(DIFFERS)),
        Command::Init { config } => init::init(config, output).await?,
        Command::Completions { shell } => output.line(completions::script::<Arguments>(*shell)).await?,
        Command::Check { .. } | Command::Plan(_) | Command::Verify(_) => {}
    }
    Ok(ExitCode::SUCCESS)
}
