//! `--help` of both programs and of every command is complete, and its examples work.

use clap::CommandFactory;
use source_posthog::{destination, source};

use crate::support::child::Command;
use crate::support::shell::{assert_understood, calls};

/// Name, path and commands of a program.
type Program = (&'static str, &'static str, Vec<String>);

fn programs() -> [Program; 2] {
    let names = |command: clap::Command| command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    [
        ("source-posthog", env!("CARGO_BIN_EXE_source-posthog"), names(source::Arguments::command())),
        (
            "destination-patterns",
            env!("CARGO_BIN_EXE_destination-patterns"),
            names(destination::DestinationArguments::command()),
        ),
    ]
}

/// What a program prints for a reader whose terminal has the usual 80 columns.
async fn help(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).env("COLUMNS", "80").output().await;
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The text from a heading to the next one.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let (_, body) = text.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no `{heading}` in:\n{text}"));
    ["\nEnvironment variables:\n", "\nExit codes:\n"]
        .iter()
        .fold(body, |body, next| body.split_once(next).map_or(body, |(body, _)| body))
}

#[tokio::test]
async fn help_of_every_command_shows_examples_variables_and_exit_codes() {
    for (name, path, commands) in programs() {
        let mut pages = vec![(name.to_owned(), help(path, &["--help"]).await)];
        for command in &commands {
            let page = help(path, &[command, "--help"]).await;
            let own = format!("{name} {command}");
            assert!(section(&page, "Examples:").contains(&own), "no example of `{own}`:\n{page}");
            assert_eq!(page, help(path, &["help", command]).await, "`help {command}` and `{command} --help` differ");
            pages.push((own, page));
        }
        for (page, text) in &pages {
            let examples = calls(section(text, "Examples:"));
            assert!(!examples.is_empty(), "no example in the help of `{page}`");
            for call in &examples {
                assert_understood(call, &format!("help of `{page}`"));
            }
            let variables = section(text, "Environment variables:");
            let secrets: &[&str] = match name {
                _ if page.ends_with(" spec") || page.ends_with(" completions") => &[],
                "source-posthog" => &["POSTHOG_API_KEY", "POSTHOG_HASH_KEY"],
                _ => &["PATTERNS_WEBHOOK_URL", "PATTERNS_BEARER_TOKEN", "PATTERNS_SIGNING_SECRET"],
            };
            for variable in secrets.iter().chain(&["LOG_LEVEL", "HTTPS_PROXY", "SSL_CERT_FILE"]) {
                assert!(
                    variables.contains(&format!("\n  {variable} ")) || variables.starts_with(&format!("  {variable} ")),
                    "{variable} is not in the help of `{page}`:\n{text}"
                );
            }
            let codes = section(text, "Exit codes:");
            for code in ["  0  ", "  1  ", "  2  "] {
                assert!(codes.contains(code), "no exit code{code}in the help of `{page}`:\n{text}");
            }
        }
    }
}

#[tokio::test]
async fn every_option_has_a_description() {
    for program in [source::Arguments::command(), destination::DestinationArguments::command()] {
        for command in program.get_subcommands() {
            assert!(command.get_long_about().is_some(), "`{}` has no long description", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "`{}` of `{}`", argument.get_id(), command.get_name());
            }
        }
    }
}

#[tokio::test]
async fn exit_codes_match_the_help() {
    let directory = tempfile::TempDir::new().unwrap();
    for (_, path, _) in programs() {
        let run = |arguments: &'static [&'static str]| {
            let mut command = Command::new(path);
            command.args(arguments).current_dir(directory.path());
            async move { command.output().await.status.code() }
        };
        assert_eq!(run(&["spec"]).await, Some(0));
        assert_eq!(run(&["check", "--config", "absent.json"]).await, Some(0), "a FAILED check is an answer");
        assert_eq!(run(&["check", "--config", "absent.json", "--exit-code"]).await, Some(1));
        assert_eq!(run(&["check", "--nonsense"]).await, Some(2));
        assert_eq!(run(&[]).await, Some(2));
    }
    let missing: &[&str] = &["read", "--config", "absent.json", "--catalog", "absent.json"];
    let status = Command::new(programs()[0].1).args(missing).current_dir(directory.path()).output().await;
    assert_eq!(status.status.code(), Some(1));
}
