//! `init`: asks for what a configuration needs, and writes it to a file that only its owner can read.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use serde_json::{Map, Value};

use crate::config::Config;
use crate::error::Error;
use crate::protocol::Output;
use crate::time::days_ago;

/// Asks on standard error, reads the answers from standard input and writes the file, which must not exist yet.
pub(super) async fn init(path: &Path, output: &Output) -> Result<(), Error> {
    let shown = path.display();
    let exists = || {
        Error::config(format!(
            "`{shown}` exists already; change it with an editor, or choose another file with `--config`"
        ))
    };
    if path.symlink_metadata().is_ok() {
        return Err(exists());
    }
    let region = ask("Region: us, eu, or the URL of your own PostHog [us]: ").await?;
    let key = ask_secret("Personal API key, which is not shown while you type: ", output).await?;
    let month = days_ago(30);
    let month = month.split_once('T').map_or(month.as_str(), |(date, _)| date);
    let start = ask(&format!("Read events from this day on [{month}]: ")).await?;
    let text = configuration(&region, &key, if start.is_empty() { month } else { &start });
    // What is wrong shall show now.
    Config::from_text(text.as_bytes())?;
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    written.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => exists(),
        _ => Error::config(format!("cannot write the configuration file `{shown}`: {error}")),
    })?;
    let done = format!("`{shown}` has been written. Try it: source-posthog check --config {shown}\n");
    output.line(done.into_bytes()).await
}

/// The text of the file. Without a key, the environment variable is used.
fn configuration(region: &str, key: &str, start: &str) -> String {
    let base_url = match region.to_ascii_lowercase().as_str() {
        "" | "us" => "https://us.posthog.com",
        "eu" => "https://eu.posthog.com",
        _ => region,
    };
    let start = if start.contains('T') { start.to_owned() } else { format!("{start}T00:00:00Z") };
    let mut fields =
        Map::from_iter([("base_url".to_owned(), Value::from(base_url)), ("start_date".to_owned(), Value::from(start))]);
    if !key.is_empty() {
        fields.insert("api_key".to_owned(), Value::from(key));
    }
    format!("{:#}\n", Value::from(fields))
}

/// The answer to a question, trimmed.
async fn ask(question: &str) -> Result<String, Error> {
    let mut terminal = io::stderr();
    drop(terminal.write_all(question.as_bytes()).and_then(|()| terminal.flush()));
    let read = || {
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).map(|length| (length, answer))
    };
    let answer = tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| Err(error.into()));
    match answer {
        Ok((0, _)) => Err(Error::config("standard input ended before every question was answered")),
        Ok((_, answer)) => Ok(answer.trim().to_owned()),
        Err(error) => Err(Error::config(format!("cannot read the answer from standard input: {error}"))),
    }
}

/// The answer to a question that a terminal does not show, also when a signal ends the program meanwhile.
async fn ask_secret(question: &str, output: &Output) -> Result<String, Error> {
    let Some(before) = hide() else { return ask(question).await };
    let shown = before.clone();
    output.at_interruption(async move { show(&shown) });
    let answer = ask(question).await;
    show(&before);
    // The line feed has not been shown, either.
    drop(io::stderr().write_all(b"\n"));
    answer
}

/// Stops the terminal from showing what is typed. Returns how it was before; none if there is no terminal.
fn hide() -> Option<Termios> {
    let before = tcgetattr(io::stdin()).ok()?;
    let mut hidden = before.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    tcsetattr(io::stdin(), OptionalActions::Flush, &hidden).ok()?;
    Some(before)
}

/// A terminal that has gone needs nothing.
fn show(before: &Termios) {
    tcsetattr(io::stdin(), OptionalActions::Now, before).ok();
}
