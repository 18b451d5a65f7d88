//! The floors of `src/`: which module may import which, and one name for one public type.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use crate::support::modules::Modules;

static MODULES: LazyLock<Modules> = LazyLock::new(Modules::read);

/// The modules of the library's root from the bottom to the top, and at the top what builds the
/// programs. A module imports only from floors below its own; modules of one floor do not import
/// each other, except on the ground.
const FLOORS: &[&[&str]] = &[
    &[
        "completions",
        "error",
        "help",
        "input_file",
        "json_text",
        "large",
        "lock",
        "net",
        "plain",
        "progress",
        "readings",
        "secret",
        "time",
    ],
    &["config", "protocol"],
    &["posthog"],
    &["streams"],
    &["records"],
    &["sync"],
    &["source", "destination", "program"],
    &["lib", "main", "bin"],
];

/// The floor and the name of the module at the library's root that the file belongs to.
fn place(file: &str) -> (usize, &str) {
    let room = file.split_once('/').map_or_else(|| file.trim_end_matches(".rs"), |(room, _)| room);
    let floor = FLOORS.iter().position(|rooms| rooms.contains(&room));
    (floor.unwrap_or_else(|| panic!("give `{room}` a floor in integration_tests/layout.rs")), room)
}

#[test]
fn modules_import_only_from_floors_below() {
    for (importing, imported) in MODULES.imports() {
        let ((floor, room), (floor_below, room_below)) = (place(&importing), place(&imported));
        let is_allowed = floor_below < floor || room_below == room || floor == 0 && floor_below == 0;
        assert!(is_allowed, "src/{importing} imports from src/{imported}, which is not on a floor below");
    }
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let circles = circles(&MODULES.imports());
    assert!(circles.is_empty(), "files of src/ import each other in circles:\n{}", circles.join("\n"));
}

/// The shortest circle through each import that is part of one, each circle once.
fn circles(imports: &BTreeSet<(String, String)>) -> Vec<String> {
    let mut imported_by: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (importing, imported) in imports {
        imported_by.entry(importing).or_default().push(imported);
    }
    let mut seen = BTreeSet::new();
    let mut circles = Vec::new();
    for (start, next) in imports {
        let Some(path) = shortest_path(&imported_by, next, start) else { continue };
        if seen.insert(path.iter().copied().collect::<BTreeSet<_>>()) {
            circles.push(format!("{start} → {}", path.join(" → ")));
        }
    }
    circles
}

/// The files on the shortest way from one file to the other along imports, both included.
fn shortest_path<'f>(imported_by: &BTreeMap<&'f str, Vec<&'f str>>, from: &'f str, to: &str) -> Option<Vec<&'f str>> {
    let mut paths = vec![vec![from]];
    let mut reached = BTreeSet::from([from]);
    while !paths.is_empty() {
        let mut longer = Vec::new();
        for path in paths {
            let end = path[path.len() - 1];
            if end == to {
                return Some(path);
            }
            for &next in imported_by.get(end).into_iter().flatten() {
                if reached.insert(next) {
                    longer.push([path.as_slice(), &[next]].concat());
                }
            }
        }
        paths = longer;
    }
    None
}

#[test]
fn public_types_have_names_of_their_own() {
    for (name, files) in MODULES.public_types() {
        assert!(files.len() == 1, "`{name}` is the name of several public types: {}", files.join(", "));
    }
}
