//! CPU time and memory of a process and all its descendants, from `/proc`.
//!
//! Must never signal or change what it looks at. A process that ends while it is being read counts as absent; its CPU
//! time then lives in its parent's children counters, which are included.

use std::collections::HashMap;
use std::fs;
use std::process::Command;

/// One look at a process tree.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Sample {
    /// User and system time, seconds, dead and waited-for children included.
    pub(crate) cpu_seconds: f64,
    /// Resident memory, MiB. Pages shared between processes of the tree count once for each.
    pub(crate) rss_mib: f64,
    pub(crate) processes: usize,
    /// CPU time of each thread alive, ns, by its number.
    pub(crate) threads: HashMap<u32, u64>,
}

impl Sample {
    /// CPU seconds of the busiest threads since an earlier look, the busiest first.
    pub(crate) fn busiest_since(&self, before: &Self, most: usize) -> Vec<f64> {
        let spent = |(thread, ns): (&u32, &u64)| ns.saturating_sub(before.threads.get(thread).copied().unwrap_or(0));
        let mut all: Vec<f64> = self.threads.iter().map(|one| spent(one) as f64 / 1e9).collect();
        all.sort_by(|a, b| b.total_cmp(a));
        all.truncate(most);
        all
    }
}

/// The last of a chain of processes that each started one: what a tool runs, or the process itself.
pub(crate) fn innermost(pid: u32) -> u32 {
    tree(pid, &all()).last().copied().unwrap_or(pid)
}

/// How many files a process may have open, and how many more it could allow itself.
pub(crate) fn open_files(pid: &str) -> Option<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let mut numbers = line.split_whitespace().map(|word| word.parse().unwrap_or(u64::MAX));
    Some((numbers.next()?, numbers.next()?))
}

/// Clock ticks a second and bytes a page of this machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Units {
    ticks: f64,
    page: f64,
}

impl Units {
    /// Asks `getconf`; without it 100 and 4096, which hold on every Linux the harness is likely to see.
    pub(crate) fn of_this_machine() -> Self {
        Self { ticks: getconf("CLK_TCK", 100.0), page: getconf("PAGESIZE", 4096.0) }
    }

    /// One process and its descendants.
    pub(crate) fn sample(&self, root: u32) -> Result<Sample, String> {
        self.sample_all(&[root])
    }

    /// Adds up some processes and their descendants. An error when one of the former is gone.
    pub(crate) fn sample_all(&self, roots: &[u32]) -> Result<Sample, String> {
        let mut sample = Sample::default();
        if roots.is_empty() {
            return Ok(sample);
        }
        let stats = all();
        for root in roots {
            if !stats.contains_key(root) {
                return Err(format!("process {root} is gone"));
            }
            for pid in tree(*root, &stats) {
                let stat = &stats[&pid];
                sample.cpu_seconds += stat.ticks as f64 / self.ticks;
                sample.rss_mib += stat.pages as f64 * self.page / f64::from(1 << 20);
                sample.processes += 1;
                sample.threads.extend(threads(pid));
            }
        }
        Ok(sample)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Stat {
    pid: u32,
    parent: u32,
    ticks: u64,
    pages: u64,
}

fn getconf(name: &str, otherwise: f64) -> f64 {
    let said = Command::new("getconf").arg(name).output().ok().and_then(|output| String::from_utf8(output.stdout).ok());
    said.and_then(|text| text.trim().parse().ok()).unwrap_or(otherwise)
}

fn all() -> HashMap<u32, Stat> {
    let Ok(entries) = fs::read_dir("/proc") else { return HashMap::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()))
        .filter_map(|entry| parse(&fs::read_to_string(entry.path().join("stat")).ok()?))
        .map(|stat| (stat.pid, stat))
        .collect()
}

/// CPU time of a process's threads, ns. Empty where the kernel does not say.
fn threads(pid: u32) -> Vec<(u32, u64)> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let spent = |path: std::path::PathBuf| {
        let text = fs::read_to_string(path.join("schedstat")).ok()?;
        text.split(' ').next()?.parse().ok()
    };
    entries
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_string_lossy().parse().ok()?, spent(entry.path())?)))
        .collect()
}

/// `root` and everything below it.
fn tree(root: u32, stats: &HashMap<u32, Stat>) -> Vec<u32> {
    let mut found = vec![root];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        found.extend(stats.values().filter(|stat| stat.parent == parent && stat.pid != root).map(|stat| stat.pid));
        at += 1;
    }
    found
}

/// One line of `/proc/PID/stat`. The name in parentheses may hold anything, parentheses and spaces included.
fn parse(line: &str) -> Option<Stat> {
    let (pid, rest) = line.split_once(" (")?;
    let fields: Vec<&str> = rest.rsplit_once(") ")?.1.split_ascii_whitespace().collect();
    // Counted as proc(5) does, the state being field 3.
    let field = |number: usize| fields.get(number - 3)?.parse::<i64>().ok();
    let ticks = field(14)? + field(15)? + field(16)? + field(17)?;
    Some(Stat {
        pid: pid.parse().ok()?,
        parent: u32::try_from(field(4)?).ok()?,
        ticks: ticks.max(0) as u64,
        pages: field(24)?.max(0) as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "4242 (a (odd) name) S 17 4242 4242 0 -1 4194560 1204 55 0 0 310 42 7 3 20 0 3 0 9999 \
        225280000 5120 18446744073709551615 1 1 0 0 0 0 0 4096 0 0 0 0 17 1 0 0 0 0 0";

    #[test]
    fn a_stat_line_is_read_past_its_name() {
        assert_eq!(parse(LINE), Some(Stat { pid: 4242, parent: 17, ticks: 310 + 42 + 7 + 3, pages: 5120 }));
        assert_eq!(parse("4242 (cut"), None);
    }

    #[test]
    fn the_tree_holds_descendants_only() {
        let stat = |pid, parent| (pid, Stat { pid, parent, ticks: 0, pages: 0 });
        let stats = HashMap::from([stat(1, 0), stat(10, 1), stat(11, 10), stat(12, 11), stat(20, 1)]);
        let mut found = tree(10, &stats);
        found.sort_unstable();
        assert_eq!(found, [10, 11, 12]);
    }

    #[test]
    fn this_process_has_used_memory() {
        let units = Units::of_this_machine();
        let sample = units.sample_all(&[std::process::id()]).unwrap();
        assert!(sample.rss_mib > 0.5 && sample.processes >= 1);
        assert!(units.sample_all(&[u32::MAX]).is_err());
        let mut later = sample.clone();
        later.threads = HashMap::from([(1, 3_000_000_000), (2, 1_000_000_000)]);
        assert_eq!(later.busiest_since(&Sample::default(), 1), [3.0]);
        assert!(open_files("self").is_some_and(|(soft, hard)| 0 < soft && soft <= hard));
    }
}
