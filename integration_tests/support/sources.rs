//! What the programs can say: the texts in their sources.

use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};

use super::modules::without_tests;
use super::program::repository_file;

/// Functions of `Error` whose first text is an error message.
const CONSTRUCTORS: &[&str] = &["config", "transient", "system"];

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
        let tokens: TokenStream = text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let tokens = without_tests(tokens);
        let mut texts = Vec::new();
        read(tokens, false, &mut texts);
        let file = path.strip_prefix(&root).unwrap().display().to_string();
        found.extend(texts.into_iter().map(|(text, is_error)| Literal { text, file: file.clone(), is_error }));
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

/// Collects texts, and whether each is the message of an error. `of_error` tells that the tokens are
/// arguments in the making of one.
fn read(tokens: TokenStream, of_error: bool, texts: &mut Vec<(String, bool)>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    for (place, token) in tokens.iter().enumerate() {
        let before = |count: usize| place.checked_sub(count).map(|place| tokens[place].to_string()).unwrap_or_default();
        match token {
            TokenTree::Literal(literal) => {
                if let syn::Lit::Str(text) = syn::Lit::new(literal.clone()) {
                    texts.push((placeholders(&text.value()), of_error && place == 0));
                }
            }
            TokenTree::Group(group) => {
                let constructs = before(4) == "Error" && CONSTRUCTORS.contains(&before(1).as_str());
                let formats = of_error && place == 2 && before(2) == "format";
                read(group.stream(), constructs || formats, texts);
            }
            TokenTree::Ident(_) | TokenTree::Punct(_) => {}
        }
    }
}

/// Puts `…` for `{name}`; `{{` is a brace, and so is one that begins no name.
fn placeholders(text: &str) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        result.push_str(before);
        let name = after.split_once('}').filter(|(name, _)| {
            name.chars().all(|character| character.is_alphanumeric() || "_.:?#".contains(character))
        });
        rest = match (after.strip_prefix('{'), name) {
            (Some(after), _) => {
                result.push('{');
                after
            }
            (None, Some((_, after))) => {
                result.push('…');
                after
            }
            (None, None) => {
                result.push('{');
                after
            }
        };
    }
    (result + rest).replace("}}", "}")
}
