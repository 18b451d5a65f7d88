//! What the programs can say: the texts in their sources.

use std::path::{Path, PathBuf};

use super::program::repository_file;

/// Calls whose first text is an error message.
const CONSTRUCTORS: &[&str] = &["Error::config(", "Error::transient(", "Error::system("];

/// A text in the sources, with `…` for what is put into it.
#[derive(Debug)]
pub(crate) struct Literal {
    /// The text, with `…` for each placeholder.
    pub(crate) text: String,
    /// The file below `src`.
    pub(crate) file: String,
    /// Whether an error is made of it.
    pub(crate) is_error: bool,
}

/// All texts of the programs, without those of unit tests.
pub(crate) fn literals() -> Vec<Literal> {
    let root = repository_file("src");
    let mut found = Vec::new();
    for path in files(&root) {
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let file = path.strip_prefix(&root).unwrap().display().to_string();
        found.extend(read(code).map(|(text, is_error)| Literal { text, file: file.clone(), is_error }));
    }
    assert!(found.iter().filter(|literal| literal.is_error).count() > 50, "the sources were not understood");
    found
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

/// The texts of a file, and whether each is the first one in the making of an error.
fn read(code: &str) -> impl Iterator<Item = (String, bool)> {
    let mut texts = Vec::new();
    let mut rest = code;
    let mut before = String::new();
    while let Some(begin) = rest.find(['"', '\'', '/']) {
        before.push_str(&rest[..begin]);
        let here = &rest[begin..];
        let length = if here.starts_with("//") {
            here.find('\n').unwrap_or(here.len())
        } else if here.starts_with('"') {
            let hashes = before.chars().rev().take_while(|character| *character == '#').count();
            let raw = before.trim_end_matches('#').ends_with('r');
            let length = if raw { raw_length(here, hashes) } else { length(here) };
            let text = if raw { here[1..length - 1 - hashes].to_owned() } else { unescape(&here[1..length - 1]) };
            let code = before.trim_end().trim_end_matches("format!(").trim_end();
            texts.push((placeholders(&text), CONSTRUCTORS.iter().any(|constructor| code.ends_with(constructor))));
            length
        } else if here.starts_with('\'') {
            // A character, or the name of a lifetime.
            let escaped = here[1..].starts_with('\\');
            let end = here.char_indices().skip(if escaped { 3 } else { 2 }).find(|(_, character)| *character == '\'');
            end.filter(|(index, _)| escaped || here[..*index].chars().count() == 2).map_or(1, |(index, _)| index + 1)
        } else {
            1
        };
        before.push_str(&here[..length]);
        rest = &here[length..];
    }
    texts.into_iter()
}

/// Length of a text with its quotes.
fn length(text: &str) -> usize {
    let mut escaped = false;
    let end = text.char_indices().skip(1).find(|(_, character)| {
        let is_end = *character == '"' && !escaped;
        escaped = *character == '\\' && !escaped;
        is_end
    });
    end.map_or(text.len(), |(index, _)| index + 1)
}

fn raw_length(text: &str, hashes: usize) -> usize {
    let end = format!("\"{}", "#".repeat(hashes));
    text[1..].find(&end).map_or(text.len(), |index| 1 + index + end.len())
}

fn unescape(text: &str) -> String {
    let mut result = String::new();
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match (character, characters.peek()) {
            ('\\', Some('\n')) => while characters.next_if(|next| next.is_whitespace()).is_some() {},
            ('\\', Some(next @ ('"' | '\\' | '\''))) => {
                result.push(*next);
                characters.next();
            }
            _ => result.push(character),
        }
    }
    result
}

/// Puts `…` for `{name}`; `{{` is a brace, and so is one that begins no name.
fn placeholders(text: &str) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some(begin) = rest.find(['{', '}']) {
        result.push_str(&rest[..begin]);
        let here = &rest[begin..];
        let name = here[1..].split_once('}').map(|(name, _)| name).filter(|_| here.starts_with('{'));
        let skipped = if here.starts_with("{{") || here.starts_with("}}") {
            result.push_str(&here[..1]);
            2
        } else if let Some(name) =
            name.filter(|name| name.chars().all(|next| next.is_alphanumeric() || "_.:?#".contains(next)))
        {
            result.push('…');
            name.len() + 2
        } else {
            result.push_str(&here[..1]);
            1
        };
        rest = &here[skipped..];
    }
    result + rest
}
