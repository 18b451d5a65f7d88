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
mod first_read;
mod method;
mod projects;
mod property_types;
mod read;
mod retention;
mod unmatched;

pub use cli::{Arguments, Command};

use crate::error::Error;
use crate::protocol::Output;

/// Runs one command. Returns false when it has reported failures by itself.
///
/// # Errors
/// When the command failed and that has not been reported.
pub async fn run(command: &Command, output: &Output) -> Result<bool, Error> {
    match command {
        Command::Spec => discover::spec(output).await,
        Command::Check { config } => check::check(config, output).await,
        Command::Discover { config } => discover::discover(config, output).await,
        Command::Read(arguments) => return read::read(arguments, output).await,
        Command::Catalog(arguments) => catalog::catalog(arguments, output).await,
    }?;
    Ok(true)
}
