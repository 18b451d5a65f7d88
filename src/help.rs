//! What `--help` says at its end, the same way for every command of both programs: examples,
//! environment variables and exit codes.

/// What the environment can say to every command.
const COMMON_VARIABLES: &[(&str, &str)] = &[
    ("LOG_LEVEL", "error, warn, info (default), debug or trace"),
    ("HTTPS_PROXY", "proxy for every request, except to hosts in NO_PROXY"),
    ("SSL_CERT_FILE", "certificates to trust, in place of the system's"),
];

/// The end of a help text. `examples` are command lines, `variables` are names and meanings of what
/// the command reads from the environment besides the common ones, `success` says what exit code 0
/// means.
pub(crate) fn after(examples: &str, variables: &[(&str, &str)], success: &str) -> String {
    let indent = |line: &str| if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") };
    let indented: Vec<String> = examples.lines().map(indent).collect();
    let width = variables.iter().chain(COMMON_VARIABLES).map(|(name, _)| name.len()).max().unwrap_or_default();
    let listed: Vec<String> = variables
        .iter()
        .chain(COMMON_VARIABLES)
        .map(|(name, meaning)| format!("  {name:width$}  {meaning}\n"))
        .collect();
    format!(
        "Examples:\n{}\nEnvironment variables:\n{}\nExit codes:\n  0  {success}\n  1  failed; the last TRACE message says why and what to do\n  2  the command line is wrong\n  Ended by SIGINT or SIGTERM, it has written whole lines.",
        indented.concat(),
        listed.concat()
    )
}
