//! `completions`: what a shell needs to complete a command line, made of the definitions that read it.

use clap::CommandFactory;
use clap_complete::{Shell, generate};

/// The script that a shell loads.
pub(crate) fn script<Arguments: CommandFactory>(shell: Shell) -> Vec<u8> {
    let mut command = Arguments::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    generate(shell, &mut command, name, &mut script);
    script
}
