//! The modules of `src/`, and which file uses an item of which other file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proc_macro2::{Delimiter, Group, Spacing, TokenStream, TokenTree};
use syn::{Item, ItemUse, UseTree, Visibility};

use super::program::repository_file;

/// The name of the library in the two programs.
const LIBRARY: &str = "source_posthog";

/// Every module of the library and of the programs, without unit tests.
pub(crate) struct Modules {
    /// By path, such as `protocol::message`. The library's root is the empty path, and a program has
    /// its file as its path.
    modules: BTreeMap<String, Module>,
}

/// One file of `src/`.
struct Module {
    /// The file below `src`.
    file: String,
    /// What the file defines.
    items: BTreeSet<String>,
    /// The types among that which other files may use.
    public_types: Vec<String>,
    /// What the file imports, by the name that it has here.
    imports: BTreeMap<String, Vec<String>>,
    /// The paths that the file uses, in `use` items and elsewhere.
    paths: Vec<Vec<String>>,
}

/// What a path leads to.
enum Target {
    /// An item that this file defines.
    Item(String),
    /// A module, which is no use of an item.
    Module,
    /// Another crate, or a local name.
    Elsewhere,
}

impl Modules {
    /// Reads `src/`, from the roots of the library and of the programs downwards.
    pub(crate) fn read() -> Self {
        let root = repository_file("src");
        let mut modules = BTreeMap::new();
        read_module(&root, "lib.rs", "", &mut modules);
        read_module(&root, "main.rs", "main.rs", &mut modules);
        for entry in std::fs::read_dir(root.join("bin")).unwrap() {
            let file = format!("bin/{}", entry.unwrap().file_name().display());
            read_module(&root, &file, &file, &mut modules);
        }
        assert!(modules.len() > 50, "the sources were not understood");
        Self { modules }
    }

    /// All pairs of files of which the first one uses an item that the second one defines. What a
    /// module re-exports counts as used from where it is defined, and never by the re-export itself.
    pub(crate) fn imports(&self) -> BTreeSet<(String, String)> {
        let mut imports = BTreeSet::new();
        for (path, module) in &self.modules {
            for used in &module.paths {
                if let Target::Item(file) = self.resolve(path, used)
                    && file != module.file
                {
                    imports.insert((module.file.clone(), file));
                }
            }
        }
        imports
    }

    /// The files that define each public type, by the type's name.
    pub(crate) fn public_types(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut types: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for module in self.modules.values() {
            for name in &module.public_types {
                types.entry(name.as_str()).or_default().push(module.file.as_str());
            }
        }
        types
    }

    /// Follows a path that the module `from` uses.
    fn resolve(&self, from: &str, path: &[String]) -> Target {
        let (first, rest) = path.split_first().expect("paths have a beginning");
        match first.as_str() {
            "crate" | LIBRARY => self.descend("", rest),
            "self" => self.descend(from, rest),
            "super" => {
                let parent = from.rsplit_once("::").map_or("", |(parent, _)| parent);
                match rest.first() {
                    Some(next) if next == "super" => self.resolve(parent, rest),
                    _ => self.descend(parent, rest),
                }
            }
            name if self.modules.contains_key(&join(from, name)) || self.modules[from].imports.contains_key(name) => {
                self.descend(from, path)
            }
            _ => Target::Elsewhere,
        }
    }

    /// Follows a path that begins in the module `module`.
    fn descend(&self, module: &str, path: &[String]) -> Target {
        let Module { file, items, imports, .. } = &self.modules[module];
        let Some((name, rest)) = path.split_first() else { return Target::Module };
        let child = join(module, name);
        if items.contains(name) && (rest.is_empty() || !self.modules.contains_key(&child)) {
            Target::Item(file.clone())
        } else if self.modules.contains_key(&child) {
            self.descend(&child, rest)
        } else if let Some(import) = imports.get(name) {
            self.resolve(module, &[import, rest].concat())
        } else {
            panic!("{file} has no `{name}`, of which another file uses `{}`", path.join("::"))
        }
    }
}

fn join(module: &str, name: &str) -> String {
    if module.is_empty() { name.to_owned() } else { format!("{module}::{name}") }
}

fn read_module(root: &Path, file: &str, path: &str, modules: &mut BTreeMap<String, Module>) {
    let text = std::fs::read_to_string(root.join(file)).unwrap();
    let tokens = without_tests(text.parse().unwrap_or_else(|error| panic!("{file}: {error}")));
    let code: syn::File = syn::parse2(tokens.clone()).unwrap_or_else(|error| panic!("{file}: {error}"));
    let mut module = Module {
        file: file.to_owned(),
        items: BTreeSet::new(),
        public_types: Vec::new(),
        imports: BTreeMap::new(),
        paths: Vec::new(),
    };
    let mut children = Vec::new();
    for item in &code.items {
        let (name, visibility) = match item {
            Item::Mod(child) => {
                assert!(child.content.is_none(), "{file}: a module has a file of its own");
                children.push(child.ident.to_string());
                continue;
            }
            Item::Struct(item) => (&item.ident, Some(&item.vis)),
            Item::Enum(item) => (&item.ident, Some(&item.vis)),
            Item::Trait(item) => (&item.ident, Some(&item.vis)),
            Item::Type(item) => (&item.ident, Some(&item.vis)),
            Item::Union(item) => (&item.ident, Some(&item.vis)),
            Item::Const(item) => (&item.ident, None),
            Item::Static(item) => (&item.ident, None),
            Item::Fn(item) => (&item.sig.ident, None),
            _ => continue,
        };
        module.items.insert(name.to_string());
        if visibility.is_some_and(|visibility| !matches!(visibility, Visibility::Inherited)) {
            module.public_types.push(name.to_string());
        }
    }
    read_paths(tokens, &children, &mut module);
    modules.insert(path.to_owned(), module);

    let directory = match file.rsplit_once('/') {
        _ if path.is_empty() => String::new(),
        Some((directory, "mod.rs")) => format!("{directory}/"),
        _ => format!("{}/", file.trim_end_matches(".rs")),
    };
    for child in children {
        let candidates = [format!("{directory}{child}.rs"), format!("{directory}{child}/mod.rs")];
        let file = candidates.iter().find(|file| root.join(file).exists()).expect("a module has a file");
        read_module(root, file, &join(path, &child), modules);
    }
}

/// Leaves out what is marked with `#[cfg(test)]`, with its other attributes and its documentation.
pub(super) fn without_tests(tokens: TokenStream) -> TokenStream {
    let mut tokens = tokens.into_iter().peekable();
    let mut kept = Vec::new();
    while let Some(token) = tokens.next() {
        let is_mark = matches!(&token, TokenTree::Punct(punct) if punct.as_char() == '#')
            && tokens.peek().is_some_and(|next| next.to_string().replace(' ', "") == "[cfg(test)]");
        if is_mark {
            while let [.., TokenTree::Punct(mark), TokenTree::Group(_)] = kept.as_slice()
                && mark.as_char() == '#'
            {
                kept.truncate(kept.len() - 2);
            }
            let is_use = tokens.nth(1).is_some_and(|token| token.to_string() == "use");
            tokens.by_ref().find(|token| match token {
                TokenTree::Group(group) => group.delimiter() == Delimiter::Brace && !is_use,
                token => token.to_string() == ";",
            });
        } else if let TokenTree::Group(group) = token {
            let mut inner = Group::new(group.delimiter(), without_tests(group.stream()));
            inner.set_span(group.span());
            kept.push(TokenTree::Group(inner));
        } else {
            kept.push(token);
        }
    }
    kept.into_iter().collect()
}

/// Collects the paths of `use` items and all other paths, those in macros, too.
fn read_paths(tokens: TokenStream, children: &[String], module: &mut Module) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let ident = |place: usize| match tokens.get(place) {
        Some(TokenTree::Ident(ident)) => Some(ident.to_string()),
        _ => None,
    };
    let separator = |place: usize| match (tokens.get(place), tokens.get(place + 1)) {
        (Some(TokenTree::Punct(first)), Some(TokenTree::Punct(second))) => {
            first.as_char() == ':' && first.spacing() == Spacing::Joint && second.as_char() == ':'
        }
        _ => false,
    };
    let mut place = 0;
    while place < tokens.len() {
        if let TokenTree::Group(group) = &tokens[place] {
            read_paths(group.stream(), children, module);
        }
        let Some(first) = ident(place) else {
            place += 1;
            continue;
        };
        if first == "use" {
            let end = place + tokens[place..].iter().position(|token| token.to_string() == ";").unwrap_or_default();
            if let Ok(import) = syn::parse2::<ItemUse>(tokens[place..=end].iter().cloned().collect()) {
                let is_public = place > 0 && matches!(&tokens[place - 1], TokenTree::Ident(word) if word == "pub")
                    || place > 1 && matches!(&tokens[place - 2], TokenTree::Ident(word) if word == "pub");
                read_import(&import.tree, &mut Vec::new(), is_public, children, module);
                place = end + 1;
                continue;
            }
        }
        let continues = place >= 2 && separator(place - 2);
        let mut path = vec![first];
        place += 1;
        while let Some(next) = ident(place + 2).filter(|_| separator(place)) {
            path.push(next);
            place += 3;
        }
        if path.len() > 1 && !continues {
            module.paths.push(path);
        }
    }
}

fn read_import(tree: &UseTree, path: &mut Vec<String>, is_public: bool, children: &[String], module: &mut Module) {
    let depth = path.len();
    let name = match tree {
        UseTree::Path(inner) => {
            path.push(inner.ident.to_string());
            read_import(&inner.tree, path, is_public, children, module);
            path.truncate(depth);
            return;
        }
        UseTree::Group(group) => {
            group.items.iter().for_each(|tree| read_import(tree, path, is_public, children, module));
            return;
        }
        UseTree::Glob(_) => {
            let ours = ["crate", "super", "self", LIBRARY].contains(&path[0].as_str()) || children.contains(&path[0]);
            assert!(!ours, "{}: imports name what they import", module.file);
            return;
        }
        UseTree::Name(name) if name.ident == "self" => path.last().expect("`self` follows a module").clone(),
        UseTree::Name(name) => {
            path.push(name.ident.to_string());
            name.ident.to_string()
        }
        UseTree::Rename(rename) => {
            if rename.ident != "self" {
                path.push(rename.ident.to_string());
            }
            rename.rename.to_string()
        }
    };
    let is_re_export = is_public && (children.contains(&path[0]) || path[0] == "self");
    if !is_re_export && path.len() > 1 {
        module.paths.push(path.clone());
    }
    if path.len() > 1 {
        module.imports.insert(name, path.clone());
    }
    path.truncate(depth);
}
