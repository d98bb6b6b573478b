//! Holds the house's rules against the code: layers, door plates, file length, one spawner, one clock, pure rooms.
//!
//! Reads source text only; prints every violation at once as `file:line: rule`. The rules' own tests feed them small
//! false snippets, since a rule that cannot fail is worth nothing.

#![expect(clippy::unwrap_used, reason = "a test: a file that cannot be read is a failure")]

#[path = "tidy/lexer.rs"]
mod lexer;
#[path = "tidy/paths.rs"]
mod paths;
#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/self_tests.rs"]
mod self_tests;

use std::path::{Path, PathBuf};

/// A source file: path from the repository's root with `/`, and its text.
struct Source {
    path: String,
    text: String,
}

fn collect(root: &Path, dir: PathBuf, into: &mut Vec<Source>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    let mut entries: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(root, path, into);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            let short = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
            into.push(Source { path: short, text: std::fs::read_to_string(&path).unwrap() });
        }
    }
}

#[test]
fn the_house_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    for dir in ["src", "loadtest/src", "loadtest/tests", "loadtest/benches", "tests", "benches"] {
        collect(root, root.join(dir), &mut sources);
    }
    assert!(sources.len() > 20, "the walk found only {} files", sources.len());
    let violations = rules::check(&sources);
    assert!(violations.is_empty(), "{} violations\n{}", violations.len(), violations.join("\n"));
}

#[test]
fn the_drawing_in_lib_rs_is_the_table_this_test_checks() {
    let lib = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let mut drawn = Vec::new();
    for line in lib.lines().skip_while(|line| !line.contains("```text")).skip(1).take_while(|l| !l.contains("```")) {
        let mut words = line.trim_start_matches("//!").split_whitespace();
        let floor: usize = words.next().unwrap().parse().unwrap();
        // Rooms stand before the explanation, which three spaces set apart.
        let rooms = line.trim_start_matches("//!").trim_start().trim_start_matches(|c: char| c.is_ascii_digit());
        let known = rules::FLOORS.iter().find(|(number, _)| *number == floor).map_or(&[][..], |(_, rooms)| rooms);
        let named: Vec<_> = rooms.split_whitespace().take(known.len()).collect();
        drawn.push((floor, named));
    }
    assert_eq!(drawn.len(), rules::FLOORS.len());
    for (floor, rooms) in rules::FLOORS {
        let named = &drawn.iter().find(|(number, _)| number == floor).unwrap().1;
        for room in *rooms {
            assert!(named.contains(room), "src/lib.rs draws floor {floor} as {named:?}, without {room}");
        }
    }
}
