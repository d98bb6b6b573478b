//! The budget file: what a request of each work may cost, and why it is so much.
//!
//! Must never hold a number without a reason: `why` is mandatory. Unknown keys are refused.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Budget {
    /// Share by which a measurement may exceed its number.
    pub(super) tolerance: f64,
    pub(super) works: BTreeMap<String, Allowed>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Allowed {
    /// On the core that serves it.
    instructions: f64,
    /// Of all threads.
    syscalls: f64,
    /// In all threads; held by `tests/allocations.rs`.
    #[expect(dead_code, reason = "read by the test of allocations; here it is only known")]
    allocations: f64,
    /// What each change of a number was worth, the latest last.
    why: Vec<String>,
}

/// What one request was seen to cost.
#[derive(Debug)]
pub(super) enum Cost {
    Instructions { core: f64, elsewhere: f64 },
    Syscalls(BTreeMap<String, f64>),
}

impl Budget {
    pub(super) fn read(file: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        let budget: Self = toml::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))?;
        match budget.works.iter().find(|(_, allowed)| allowed.why.is_empty()) {
            Some((name, _)) => Err(format!("{}: {name} does not say why", file.display())),
            None => Ok(budget),
        }
    }
}

/// Calls of the threads that write rows: they go by time, four times a second, so a machine that takes longer over a request
/// has more of them for each. Shown, and not held against the budget.
const BY_TIME: [&str; 6] = ["pwrite64", "pread64", "fsync", "fdatasync", "fcntl", "sched_yield"];

impl Allowed {
    /// A line about a cost, and whether it is too much.
    pub(super) fn judge(&self, work: &str, cost: &Cost, tolerance: f64) -> (String, bool) {
        let (what, seen, most) = match cost {
            Cost::Instructions { core, .. } => ("instructions", *core, self.instructions),
            Cost::Syscalls(calls) => {
                let own = calls.iter().filter(|(name, _)| !BY_TIME.contains(&name.as_str()));
                ("syscalls", own.map(|(_, count)| count).sum(), self.syscalls)
            }
        };
        let digits = usize::from(most < 1000.0) * 2;
        let share = (seen / most - 1.0) * 100.0;
        let mut line = format!("{work:<10} {what:<12} {seen:>10.digits$} of {most:.digits$} ({share:+.1} %)");
        match cost {
            Cost::Instructions { elsewhere, .. } => {
                let _ = write!(line, "; other threads {elsewhere:.0}");
            }
            Cost::Syscalls(calls) => {
                let mut calls: Vec<_> = calls.iter().collect();
                calls.sort_by(|a, b| b.1.total_cmp(a.1));
                for (name, count) in calls.iter().take(8) {
                    let _ = write!(line, "; {name} {count:.2}");
                }
            }
        }
        let over = seen > most * (1.0 + tolerance);
        if over {
            line.push_str("  OVER");
        } else if seen < most * (1.0 - 2.0 * tolerance) {
            line.push_str("  the budget can go down");
        }
        line.push('\n');
        (line, over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed() -> Allowed {
        Allowed { instructions: 50_000.0, syscalls: 6.0, allocations: 20.0, why: vec!["first".to_owned()] }
    }

    #[test]
    fn a_cost_over_budget_is_told_from_chance() {
        let judged = |core| allowed().judge("unary", &Cost::Instructions { core, elsewhere: 900.0 }, 0.03);
        assert!(!judged(51_000.0).1);
        let (line, over) = judged(52_000.0);
        assert!(over && line.contains("52000 of 50000 (+4.0 %); other threads 900  OVER"), "{line}");
        assert!(judged(40_000.0).0.contains("can go down"));
        let calls = Cost::Syscalls([("sendto".to_owned(), 2.0), ("recvfrom".to_owned(), 4.5)].into());
        let (line, over) = allowed().judge("unary", &calls, 0.03);
        assert!(over && line.contains("6.50 of 6.00") && line.contains("; recvfrom 4.50; sendto 2.00"), "{line}");
        let calls = Cost::Syscalls([("sendto".to_owned(), 6.0), ("pwrite64".to_owned(), 0.5)].into());
        let (line, over) = allowed().judge("unary", &calls, 0.03);
        assert!(!over && line.contains("6.00 of 6.00") && line.contains("; pwrite64 0.50"), "{line}");
    }

    #[test]
    fn a_number_without_a_reason_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = |why: &str| {
            format!("tolerance = 0.03\n[works.unary]\ninstructions = 1\nsyscalls = 1\nallocations = 1\nwhy = [{why}]\n")
        };
        std::fs::write(file.path(), text("")).unwrap();
        assert!(Budget::read(file.path()).unwrap_err().contains("does not say why"));
        std::fs::write(file.path(), text("\"measured\"")).unwrap();
        assert!(Budget::read(file.path()).is_ok());
    }
}
