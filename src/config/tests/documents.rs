//! Holds the table, `Settings::default()`, `config/default.toml` and `docs/SETTINGS.md` together.
//!
//! The table within `docs/SETTINGS.md` is made from the code: `MERIDO_TEST_BLESS=1 cargo test --lib config` writes it.

use super::*;
use std::collections::BTreeSet;
use std::fmt::Write as _;

const DEFAULT_TOML: &str = include_str!("../../../config/default.toml");
const BEGIN: &str = "<!-- table: made from src/config/table.rs -->\n";
const END: &str = "<!-- end of table -->\n";

/// `key = value` lines of the file, commented ones included: (key, value, set).
fn lines() -> Vec<(String, &'static str, bool)> {
    let (mut found, mut section) = (Vec::new(), String::new());
    for line in DEFAULT_TOML.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = format!("{}.", name.trim_end_matches(']'));
        } else if let Some((key, value)) = line.split_once(" = ").filter(|_| !line.starts_with("# ")) {
            let set = !key.starts_with('#');
            found.push((format!("{section}{}", key.trim_start_matches('#')), value, set));
        }
    }
    found
}

#[test]
fn default_toml_is_exactly_the_defaults() {
    let loaded = from_file(DEFAULT_TOML).unwrap();
    let expected = Settings { data_dir: "/home/ada/.merido".into(), ..Settings::default() };
    assert_eq!(loaded.settings, expected);
    // What stands there commented has no default; everything else is really set.
    let set: BTreeSet<_> = lines().into_iter().filter(|line| line.2).map(|line| line.0).collect();
    assert_eq!(set, loaded.sources.keys().map(|key| (*key).to_owned()).collect::<BTreeSet<_>>());
}

#[test]
fn default_toml_and_the_table_list_the_same_keys_once() {
    let listed: Vec<_> = lines().into_iter().map(|line| line.0).collect();
    let listed_once: BTreeSet<_> = listed.iter().map(String::as_str).collect();
    assert_eq!(listed.len(), listed_once.len(), "a key stands there twice");
    assert_eq!(listed_once, ROWS.iter().map(|row| row.key).collect::<BTreeSet<_>>());
}

#[test]
fn the_examples_of_unset_keys_can_be_used() {
    // A reader uncomments them one by one; placeholders in <> or with … are to be filled in first.
    for (key, value, set) in lines() {
        if set || value.contains('<') || value.contains('…') || key.starts_with("tls_") {
            continue;
        }
        from_file(&format!("{key} = {value}")).unwrap_or_else(|e| panic!("{key} = {value}: {}", in_lines(&e)));
    }
}

#[test]
fn every_block_of_default_toml_gives_its_reason() {
    // One reason may stand for the lines directly below it; a block without any is a number out of the blue.
    for block in DEFAULT_TOML.split("\n\n") {
        let has_key = block.lines().any(|line| line.contains(" = ") && !line.starts_with("# "));
        let has_reason = block.lines().any(|line| line.starts_with("# "));
        assert!(!has_key || has_reason || block.trim_start().starts_with("log = "), "no reason given:\n{block}");
    }
}

#[test]
fn names_in_the_environment_follow_from_the_keys() {
    let mut seen = BTreeSet::new();
    for row in ROWS {
        let expected = row.key.replace("timeouts.", "timeout_").replace('.', "_").to_uppercase();
        assert_eq!(row.env, format!("MERIDO_{expected}"));
        assert!(seen.insert(row.env), "{} twice", row.env);
        assert!(row.meaning.len() > 3 && row.meaning.ends_with('.'), "{}: {}", row.key, row.meaning);
    }
}

fn table() -> String {
    let mut out = String::from("| environment | key in a file | default | meaning |\n|---|---|---|---|\n");
    for row in ROWS {
        let default = lines().into_iter().find(|line| line.0 == row.key && line.2);
        let default = default.map_or("unset".to_owned(), |line| format!("`{}`", line.1.trim_matches('"')));
        let _ = writeln!(out, "| `{}` | `{}` | {default} | {} |", row.env, row.key, row.meaning);
    }
    out
}

#[test]
fn the_documentation_holds_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/SETTINGS.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let from = text.find(BEGIN).expect("the table's begin mark") + BEGIN.len();
    let to = text.find(END).expect("the table's end mark");
    if std::env::var_os("MERIDO_TEST_BLESS").is_some() {
        std::fs::write(&path, format!("{}{}{}", &text[..from], table(), &text[to..])).unwrap();
        return;
    }
    assert_eq!(&text[from..to], table(), "docs/SETTINGS.md is behind: MERIDO_TEST_BLESS=1 cargo test --lib config");
    // Names in the prose are real as well.
    let known: BTreeSet<_> =
        ROWS.iter().map(|row| row.env).chain(super::super::table::NOT_YET.iter().map(|n| n.1)).collect();
    for word in text.split(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')) {
        if word.starts_with("MERIDO_")
            && !word.ends_with('_')
            && !["MERIDO_CONFIG", "MERIDO_SERVICE_HOST"].contains(&word)
        {
            assert!(known.contains(word), "docs/SETTINGS.md speaks of {word}, which is no setting");
        }
    }
}
