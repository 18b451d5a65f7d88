//! What `packaging` writes agrees with what the programs accept.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::Command;

use clap::CommandFactory;
use source_posthog::{destination, source};
use tempfile::TempDir;

fn write() -> TempDir {
    let directory = TempDir::new().unwrap();
    let written = Command::new(env!("CARGO_BIN_EXE_packaging")).arg(directory.path()).output().unwrap();
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    directory
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Names of all long options of a command.
fn options(command: &clap::Command) -> Vec<&str> {
    command.get_arguments().filter_map(clap::Arg::get_long).collect()
}

#[test]
fn every_shell_completes_every_command_and_option() {
    let directory = write();
    for program in [source::Arguments::command(), destination::DestinationArguments::command()] {
        let name = program.get_name();
        for (file, prefix) in
            [(format!("{name}.bash"), "--"), (format!("_{name}"), "--"), (format!("{name}.fish"), "-l ")]
        {
            let completion = read(&directory.path().join("completions").join(&file));
            for command in program.get_subcommands() {
                assert!(completion.contains(command.get_name()), "{file} lacks {}", command.get_name());
                for option in options(command) {
                    assert!(completion.contains(&format!("{prefix}{option}")), "{file} lacks --{option}");
                }
            }
        }
    }
}

#[test]
fn every_command_has_a_man_page_with_its_options() {
    let directory = write();
    let mut expected = Vec::new();
    for program in [source::Arguments::command(), destination::DestinationArguments::command()] {
        let name = program.get_name();
        let overview = read(&directory.path().join("man").join(format!("{name}.1")));
        assert!(overview.contains(env!("CARGO_PKG_VERSION")) && overview.contains("Exit codes"), "{overview}");
        expected.push(format!("{name}.1"));
        for command in program.get_subcommands() {
            let file = format!("{name}-{}.1", command.get_name());
            let page = read(&directory.path().join("man").join(&file));
            // A minus is escaped, or it would be set as a hyphen.
            for option in options(command) {
                let escaped = format!("\\-\\-{}", option.replace('-', "\\-"));
                assert!(page.contains(&escaped), "{file} lacks {escaped}: {page}");
            }
            expected.push(file);
        }
    }
    let mut written: Vec<String> = fs::read_dir(directory.path().join("man"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    expected.sort();
    written.sort();
    assert_eq!(written, expected);
}

#[test]
fn error_names_the_directory_that_cannot_be_created() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let written = Command::new(env!("CARGO_BIN_EXE_packaging")).arg(&file).output().unwrap();
    assert!(!written.status.success());
    assert!(String::from_utf8_lossy(&written.stderr).contains("completions"));
}
