//! Writes shell completions and manual pages of both programs into a directory.
//!
//! They come from the same definitions that read the command line, so they cannot disagree with it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Command, CommandFactory, Parser};
use clap_complete::Shell;
use source_posthog::{destination, source};

/// Writes `completions/` and `man/` of both programs.
#[derive(Debug, Parser)]
struct Arguments {
    /// Directory to write to; it is made when it does not exist.
    directory: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    for program in [source::Arguments::command(), destination::DestinationArguments::command()] {
        write_completions(&program, &arguments.directory.join("completions"))?;
        write_manual(&program, &arguments.directory.join("man"))?;
    }
    Ok(())
}

/// One file per shell, by the name under which that shell looks for it.
fn write_completions(program: &Command, directory: &Path) -> anyhow::Result<()> {
    create(directory)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let (mut program, name) = (program.clone(), program.get_name().to_owned());
        clap_complete::generate_to(shell, &mut program, name, directory)
            .with_context(|| format!("cannot write the completion for {shell} to {}", directory.display()))?;
    }
    Ok(())
}

/// `PROGRAM.1` and a page per command, `PROGRAM-COMMAND.1`.
fn write_manual(program: &Command, directory: &Path) -> anyhow::Result<()> {
    create(directory)?;
    // `help` has nothing that the pages do not have.
    let program = program.clone().disable_help_subcommand(true);
    clap_mangen::generate_to(program, directory)
        .with_context(|| format!("cannot write manual pages to {}", directory.display()))
}

fn create(directory: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))
}
