//! Command lines in documents and help texts: found, split as a shell does, and held against the
//! programs' own parsers.

use clap::Parser;
use source_posthog::{destination, source};

/// Words that end one command and begin another.
const OPERATORS: &[&str] = &["|", "||", "&&", "&", ";", "(", ")", "then", "do", "if", "!", "exec", "echo"];
/// Words that send output or input elsewhere.
const REDIRECTIONS: &[&str] = &[">", ">>", "<", "2>", "2>>", "&>"];

/// Commands that name a program or an image without running it.
const OTHERS: &[&str] = &[
    "cp",
    "docker build",
    "docker buildx",
    "docker push",
    "docker tag",
    "grep",
    "install",
    "kind",
    "kubectl",
    "which",
];

/// One call of a program, words as the program sees them; the first one is its name.
pub(crate) type Call = Vec<String>;

/// The calls of both programs in a script, those in quotes (`sh -c '…'`), by `docker run` and by
/// `cargo run` included. Calls with `…` in place of something are left out.
pub(crate) fn calls(script: &str) -> Vec<Call> {
    let joined = script.replace("\\\n", " ");
    let mut calls = Vec::new();
    for line in joined.lines() {
        let Some(words) = shlex::split(line) else { continue };
        for word in words.iter().filter(|word| word.contains(' ') && program(word).is_some()) {
            calls.extend(self::calls(word));
        }
        for command in words.split(|word| OPERATORS.contains(&word.as_str())) {
            calls.extend(call(command).filter(|call| !call.iter().any(|word| word.contains('…') || word == "...")));
        }
    }
    calls
}

/// Fails with the parser's own words unless the program understands the call.
pub(crate) fn assert_understood(call: &Call, place: &str) {
    let refusal = match call[0].as_str() {
        "source-posthog" => source::Arguments::try_parse_from(call).err(),
        _ => destination::DestinationArguments::try_parse_from(call).err(),
    };
    // `--help` and `--version` end parsing, too.
    if let Some(error) = refusal.filter(clap::Error::use_stderr) {
        panic!("{place}: `{}` is not understood: {error}", call.join(" "));
    }
}

fn call(command: &[String]) -> Option<Call> {
    let command = command.strip_prefix(&["sudo".to_owned()]).unwrap_or(command);
    let start = command.iter().take(2).map(String::as_str).collect::<Vec<_>>().join(" ");
    if OTHERS.iter().any(|other| start == *other || start.starts_with(&format!("{other} "))) {
        return None;
    }
    let begin = command.iter().position(|word| !word.contains(' ') && program(word).is_some());
    let (name, arguments) = if let Some(begin) = begin {
        (program(&command[begin])?, &command[begin + 1..])
    } else {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let ["cargo", "run", options @ ..] = words.as_slice() else { return None };
        let dashes = options.iter().position(|word| *word == "--")?;
        if options[..dashes].iter().any(|word| ["-p", "--package", "--bin", "--example"].contains(word)) {
            return None;
        }
        ("source-posthog", &command[2 + dashes + 1..])
    };
    let mut call = vec![name.to_owned()];
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        if REDIRECTIONS.contains(&word.as_str()) {
            words.next();
        } else if word != "2>&1" {
            call.push(word.clone());
        }
    }
    // A bare name is an argument of something else, such as `which`.
    (call.len() > 1).then_some(call)
}

/// The program that a word calls: by name, by path or as an image with a tag.
fn program(word: &str) -> Option<&'static str> {
    ["source-posthog", "destination-patterns"].into_iter().find(|name| {
        if word.contains(' ') {
            return word.contains(&format!("{name} "));
        }
        let last = word.rsplit('/').next().unwrap_or(word);
        last == *name || last.split(':').next() == Some(*name)
    })
}
