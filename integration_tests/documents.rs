//! The documents agree with the programs: links, examples, settings and error messages.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};
use serde_json::{Value, json};

use crate::support::program::repository_file;
use crate::support::shell::{assert_understood, calls};
use crate::support::sources::{self, Literal};

/// What a reader finds in a Markdown file.
#[derive(Default)]
struct Page {
    /// Targets of links and pictures.
    links: Vec<String>,
    /// What links can point to.
    anchors: BTreeSet<String>,
    /// Language and text of the code blocks.
    blocks: Vec<(String, String)>,
}

impl Page {
    fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        let mut page = Self::default();
        let (mut heading, mut block) = (None::<String>, None::<(String, String)>);
        for event in Parser::new_ext(&text, Options::ENABLE_TABLES) {
            match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links.push(dest_url.to_string());
                }
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => page.heading(&heading.take().unwrap_or_default()),
                Event::Start(Tag::CodeBlock(kind)) => {
                    let language =
                        if let CodeBlockKind::Fenced(name) = kind { name.to_string() } else { String::new() };
                    block = Some((language, String::new()));
                }
                Event::End(TagEnd::CodeBlock) => page.blocks.extend(block.take()),
                Event::Text(text) | Event::Code(text) => {
                    if let Some((_, content)) = &mut block {
                        content.push_str(&text);
                    }
                    if let Some(heading) = &mut heading {
                        heading.push_str(&text);
                    }
                }
                _ => {}
            }
        }
        page
    }

    /// Adds the anchor that GitHub gives to a heading.
    fn heading(&mut self, title: &str) {
        let kept = title.to_lowercase();
        let kept = kept.chars().filter(|character| character.is_alphanumeric() || " -_".contains(*character));
        let anchor: String = kept.map(|character| if character == ' ' { '-' } else { character }).collect();
        let numbered = (1..).map(|number| format!("{anchor}-{number}"));
        let free = std::iter::once(anchor.clone()).chain(numbered).find(|anchor| !self.anchors.contains(anchor));
        self.anchors.extend(free);
    }
}

/// All Markdown files of the project, by their paths.
fn pages() -> BTreeMap<PathBuf, Page> {
    let mut found = BTreeMap::new();
    let mut open = vec![repository_file("")];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !name.starts_with('.') && name != "target" && name != "node_modules" {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.insert(path.canonicalize().unwrap(), Page::read(&path));
            }
        }
    }
    assert!(found.len() > 10, "where are the documents? {:?}", found.keys());
    found
}

#[test]
fn every_link_in_documents_has_a_target() {
    let pages = pages();
    let mut broken = Vec::new();
    for (path, page) in &pages {
        for link in page.links.iter().filter(|link| !link.contains("://") && !link.starts_with("mailto:")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target =
                if file.is_empty() { Ok(path.clone()) } else { path.parent().unwrap().join(file).canonicalize() };
            let found = target.is_ok_and(|target| {
                anchor.is_empty() || pages.get(&target).is_some_and(|page| page.anchors.contains(anchor))
            });
            if !found {
                broken.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
}

/// The JSON documents of a code block; a member alone, such as `"method": …`, is put into an object.
fn documents(text: &str) -> Result<Vec<Value>, serde_json::Error> {
    let text = if text.trim_start().starts_with('"') { format!("{{{text}}}") } else { text.to_owned() };
    serde_json::Deserializer::from_str(&text).into_iter().collect()
}

#[test]
fn every_json_block_in_documents_is_valid_json() {
    let mut count = 0;
    for (path, page) in pages() {
        for (_, text) in page.blocks.iter().filter(|(language, _)| language == "json") {
            let parsed = documents(text);
            assert!(parsed.is_ok(), "{}: {parsed:?}\n{text}", path.display());
            count += 1;
        }
    }
    assert!(count > 5, "only {count} blocks");
}

/// Configurations in JSON blocks, in JSON files of the examples and in `echo '…' > config.json`.
fn configurations() -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for (path, page) in pages() {
        for (language, text) in &page.blocks {
            let place = path.display().to_string();
            if language == "json" {
                let values = documents(text).unwrap_or_default();
                // Airbyte's API takes the configuration within the description of a source.
                let inner: Vec<Value> = values.iter().filter_map(|value| value.get("configuration").cloned()).collect();
                found.extend(values.into_iter().chain(inner).map(|value| (place.clone(), value)));
            } else {
                let words = text.lines().filter_map(shlex::split).flatten();
                let objects = words.filter_map(|word| serde_json::from_str::<Value>(&word).ok());
                found.extend(objects.map(|value| (place.clone(), value)));
            }
        }
    }
    found
}

#[test]
fn configurations_in_documents_match_the_specifications() {
    let form = |file: &str| -> Value {
        serde_json::from_str(&std::fs::read_to_string(repository_file(file)).unwrap()).unwrap()
    };
    let source = form("spec.json")["connectionSpecification"].clone();
    let destination = form("destination-patterns-spec.json")["connectionSpecification"].clone();
    let mut count = 0;
    for (place, mut config) in configurations() {
        let Some(fields) = config.as_object_mut() else { continue };
        let form = if fields.contains_key("start_date") {
            fields.entry("api_key").or_insert(json!("phx_1"));
            &source
        } else if fields.contains_key("webhook_url") {
            &destination
        } else {
            continue;
        };
        let problems: Vec<String> =
            jsonschema::validator_for(form).unwrap().iter_errors(&config).map(|error| error.to_string()).collect();
        assert!(problems.is_empty(), "{place}: {problems:?} in {config}");
        let unknown: Vec<&String> =
            config.as_object().unwrap().keys().filter(|name| form["properties"].get(name.as_str()).is_none()).collect();
        assert!(unknown.is_empty(), "{place}: no such settings: {unknown:?}");
        count += 1;
    }
    assert!(count > 5, "only {count} configurations");
}

#[test]
fn every_command_line_in_documents_is_accepted() {
    let mut count = 0;
    for (path, page) in pages() {
        for (_, text) in page.blocks.iter().filter(|(language, _)| language != "json" && language != "text") {
            for call in calls(text) {
                assert_understood(&call, &path.display().to_string());
                count += 1;
            }
        }
    }
    assert!(count > 20, "only {count} command lines");
}

/// The messages of docs/troubleshooting.md: the lines of its `text` blocks, `…` for what varies.
fn quoted_messages() -> BTreeSet<String> {
    let page = Page::read(&repository_file("docs/troubleshooting.md"));
    let blocks = page.blocks.iter().filter(|(language, _)| language == "text");
    blocks.flat_map(|(_, text)| text.lines().map(str::to_owned)).collect()
}

#[test]
fn messages_quoted_in_documents_exist_in_the_sources() {
    let literals: BTreeSet<String> = sources::literals().into_iter().map(|literal| literal.text).collect();
    let quoted = quoted_messages();
    assert!(quoted.len() > 50, "only {} messages", quoted.len());
    let gone: Vec<&String> = quoted.difference(&literals).collect();
    assert!(gone.is_empty(), "docs/troubleshooting.md quotes messages that are not in the sources:\n{gone:#?}");
}

#[test]
fn error_messages_of_the_sources_are_explained_in_documents() {
    let quoted = quoted_messages();
    let unexplained: BTreeSet<String> = sources::literals()
        .into_iter()
        .filter(|literal| {
            literal.is_error && literal.text.chars().any(char::is_alphabetic) && !quoted.contains(&literal.text)
        })
        .map(|Literal { text, file, .. }| format!("{file}: {text}"))
        .collect();
    assert!(
        unexplained.is_empty(),
        "add to docs/troubleshooting.md, in a `text` block with cause and fix:\n{unexplained:#?}"
    );
}

#[test]
fn every_promise_of_security_md_has_its_test() {
    let page = std::fs::read_to_string(repository_file("SECURITY.md")).unwrap();
    let (_, promises) = page.split_once("## What is promised").unwrap();
    let (promises, _) = promises.split_once("\n## ").unwrap();
    let mut count = 0;
    for row in promises.lines().filter(|line| line.starts_with("| ")).skip(1) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [_, test] = cells[..] else { panic!("{row}") };
        let (file, name) = test.split_once(' ').unwrap_or_else(|| panic!("{row}"));
        let source =
            std::fs::read_to_string(repository_file("integration_tests").join(file.trim_matches('`'))).unwrap();
        let attribute = format!("#[tokio::test]\nasync fn {name}() {{");
        assert!(source.contains(&attribute), "{file} has no test `{name}`");
        count += 1;
    }
    assert!(count > 15, "only {count} promises");
}
