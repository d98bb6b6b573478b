//! Reads what callgrind and strace wrote.
//!
//! Must never guess: a profile without totals is an error. Text in, numbers out.

use std::collections::BTreeMap;
use std::path::Path;

/// Instructions of each thread, from `DIR/NAME-NN`, one file a thread.
pub(super) fn threads(dir: &Path, name: &str) -> Result<BTreeMap<u32, u64>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", dir.display());
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let Some(thread) = file.strip_prefix(name).and_then(|rest| rest.strip_prefix('-')?.parse().ok()) else {
            continue;
        };
        let text = std::fs::read_to_string(&path).map_err(failed)?;
        found.insert(thread, total(&text).ok_or_else(|| format!("{file}: no totals in it"))?);
    }
    if found.is_empty() { Err(format!("{}: callgrind wrote no profile", dir.display())) } else { Ok(found) }
}

fn total(text: &str) -> Option<u64> {
    text.lines().rev().find_map(|line| line.strip_prefix("totals:"))?.trim().parse().ok()
}

/// Calls by name, from strace's summary.
pub(super) fn calls(text: &str) -> BTreeMap<String, u64> {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        // % time, seconds, usecs/call, calls, [errors,] name
        let (calls, name) = (words.get(3)?.parse().ok()?, *words.last()?);
        (words.len() >= 5 && name != "total").then(|| (name.to_owned(), calls))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_told_apart_by_thread() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("cg-01"), "version: 1\nsummary: 0\n\nfn=(1) f\n0 7\n\ntotals: 71\n").unwrap();
        std::fs::write(dir.path().join("cg-12"), "totals: 5\n").unwrap();
        std::fs::write(dir.path().join("other"), "totals: 9\n").unwrap();
        assert_eq!(threads(dir.path(), "cg"), Ok(BTreeMap::from([(1, 71), (12, 5)])));
        std::fs::write(dir.path().join("cg-02"), "cut").unwrap();
        assert!(threads(dir.path(), "cg").is_err());
    }

    #[test]
    fn a_summary_is_read_with_and_without_errors() {
        let text = "% time     seconds  usecs/call     calls    errors syscall\n\
                    ------ ----------- ----------- --------- --------- ----------------\n \
                    60.00    0.001000          12        80        10 recvfrom\n \
                    40.00    0.000500           7        70           sendto\n\
                    ------ ----------- ----------- --------- --------- ----------------\n\
                    100.00    0.001500          10       150        10 total\n";
        assert_eq!(calls(text), BTreeMap::from([("recvfrom".to_owned(), 80), ("sendto".to_owned(), 70)]));
    }
}
