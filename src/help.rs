//! The end of `--help`, in the same form for every command of both programs: examples, environment
//! variables and exit codes.

/// The environment variables that every command reads.
const COMMON_VARIABLES: &[(&str, &str)] = &[
    ("NO_COLOR", "no colours on a terminal"),
    ("LOG_LEVEL", "error, warn, info (default), debug or trace"),
    ("HTTPS_PROXY", "proxy for every request, except to hosts in NO_PROXY"),
    ("SSL_CERT_FILE", "certificates to trust, in place of the system's"),
];

/// Exit code 0 of a command that either succeeds or fails.
pub(crate) const DONE: &str = "done";

/// Examples of `completions`.
pub(crate) fn completions_of(program: &str) -> String {
    format!(
        "{program} completions bash \\\n  > ~/.local/share/bash-completion/completions/{program}\n{program} completions fish \\\n  > ~/.config/fish/completions/{program}.fish"
    )
}

/// Exit code 0 of `check`.
pub(crate) const CHECK_DONE: &str = "the result has been printed, SUCCEEDED or FAILED; with --exit-code, SUCCEEDED";
/// Exit code 0 of a program, whatever the command.
pub(crate) const PROGRAM_DONE: &str = "done; for `check` without --exit-code also when the result is FAILED";

/// The end of a help text. `examples` are command lines, `variables` are names and meanings of the
/// environment variables that the command reads besides the common ones, `success` is the meaning of
/// exit code 0.
pub(crate) fn after(examples: &str, variables: &[(&str, &str)], success: &str) -> String {
    after_with(examples, variables, success, "")
}

/// The same for a command with another exit code, whose line is `more`.
pub(crate) fn after_with(examples: &str, variables: &[(&str, &str)], success: &str, more: &str) -> String {
    let indent = |line: &str| if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") };
    let indented: Vec<String> = examples.lines().map(indent).collect();
    let width = variables.iter().chain(COMMON_VARIABLES).map(|(name, _)| name.len()).max().unwrap_or_default();
    let listed: Vec<String> = variables
        .iter()
        .chain(COMMON_VARIABLES)
        .map(|(name, meaning)| format!("  {name:width$}  {meaning}\n"))
        .collect();
    format!(
        "Examples:\n{}\nEnvironment variables:\n{}\nExit codes:\n  0  {success}\n  1  failed; standard error shows the reason and what to do\n  2  the command line is wrong\n{more}  SIGINT and SIGTERM end it after the last whole line (130 and 143 in a shell).",
        indented.concat(),
        listed.concat()
    )
}
