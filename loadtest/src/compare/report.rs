//! What a comparison measured: everything, as JSON; medians, spreads and ratios of it for `text`.
//!
//! Must never mix rounds: a ratio is taken between two peers of the same round, and only then is the median taken.
//! Numbers a run did not yield are shown as `–`, not as zero.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::clock;
use crate::generate::Held;
use crate::peers::Peer;
use crate::run::Measured;
use crate::scenario::{Basis, Work};

/// Everything one comparison measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// When it began, seconds since 1970.
    pub(crate) unix_time: u64,
    pub(crate) machine: String,
    /// The machine's load average before anything began: above a few tenths, trust ratios only.
    pub(crate) loadavg: String,
    pub(crate) command: String,
    /// What each peer says of itself.
    pub(crate) versions: BTreeMap<String, String>,
    /// Peers that were asked for and are not here.
    pub(crate) skipped: Vec<String>,
    pub(crate) tables: Vec<Table>,
}

/// One work over one leg: all rounds of all peers.
#[derive(Debug, Serialize)]
pub(crate) struct Table {
    pub(crate) work: Work,
    pub(crate) bases: Vec<Basis>,
    pub(crate) upstream: String,
    /// Whom ratios are taken against.
    pub(crate) against: String,
    /// Names of the rows, in their order.
    pub(crate) peers: Vec<String>,
    /// Process start to first answer, by peer.
    pub(crate) started_ms: BTreeMap<String, f64>,
    pub(crate) rounds: Vec<Round>,
    /// Of a ramp: every step of every turn.
    pub(crate) steps: Vec<Step>,
    /// Of a hold, likewise.
    pub(crate) held: Vec<HeldRow>,
}

/// One peer's turn.
#[derive(Debug, Serialize)]
pub(crate) struct Round {
    #[serde(rename = "round")]
    pub(crate) number: usize,
    pub(crate) peer: String,
    #[serde(flatten)]
    pub(crate) measured: Measured,
}

/// One rate of a ramp.
#[derive(Debug, Serialize)]
pub(crate) struct Step {
    #[serde(rename = "round")]
    pub(crate) number: usize,
    pub(crate) peer: String,
    /// Requests a second that were due.
    pub(crate) rate: f64,
    /// Answered in time, all of them.
    pub(crate) held: bool,
    #[serde(flatten)]
    pub(crate) measured: Measured,
}

/// One step of streams held open.
#[derive(Debug, Serialize)]
pub(crate) struct HeldRow {
    #[serde(rename = "round")]
    pub(crate) number: usize,
    pub(crate) peer: String,
    /// The proxy's, with these streams open.
    pub(crate) rss_mib: f64,
    /// The same one step before.
    pub(crate) rss_before_mib: f64,
    /// What it used since then.
    pub(crate) cpu_seconds: f64,
    #[serde(flatten)]
    pub(crate) held: Held,
}

/// Median, least and greatest of some rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) most: f64,
}

impl Spread {
    pub(super) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], values[middle])
        } else {
            values[middle]
        };
        Some(Self { median, least, most })
    }

    pub(super) fn scaled(self, by: f64) -> Self {
        Self { median: self.median * by, least: self.least * by, most: self.most * by }
    }

    pub(super) fn text(spread: Option<Self>, digits: usize) -> String {
        spread.map_or_else(
            || "–".to_owned(),
            |Self { median, least, most }| format!("{median:.digits$} ({least:.digits$}–{most:.digits$})"),
        )
    }
}

impl Report {
    pub(crate) fn new() -> Self {
        let command = std::env::args().collect::<Vec<_>>().join(" ");
        Self {
            unix_time: clock::wall_us() / 1_000_000,
            machine: machine(),
            loadavg: std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned(),
            command,
            versions: BTreeMap::new(),
            skipped: Vec::new(),
            tables: Vec::new(),
        }
    }

    /// What stands above the tables.
    pub(crate) fn heading(&self) -> String {
        format!("machine  {}\nload     {}\ncommand  {}\n", self.machine, self.loadavg, self.command)
    }

    /// Says once that a peer is left out.
    pub(super) fn skip(&mut self, peer: &str, text: &str) -> Result<(), String> {
        if !self.skipped.iter().any(|known| known == peer) {
            self.skipped.push(peer.to_owned());
            super::say(&format!("{text}\n"))?;
        }
        Ok(())
    }
}

impl Table {
    pub(super) fn new(work: &Work, bases: &[Basis], upstream: &str, peers: &[Peer], against: &str) -> Self {
        // The mock comes last in starting; it reads better first.
        let mut names: Vec<String> = peers.iter().map(|peer| peer.name.clone()).collect();
        let last = names.len().min(1);
        names.rotate_right(last);
        let found = names.iter().find(|name| *name == against).or_else(|| names.iter().find(|name| *name != "direct"));
        let started =
            peers.iter().filter_map(|peer| Some((peer.name.clone(), peer.started_in?.as_secs_f64() * 1000.0)));
        Self {
            work: work.clone(),
            bases: bases.to_vec(),
            upstream: upstream.to_owned(),
            against: found.cloned().unwrap_or_default(),
            started_ms: started.collect(),
            peers: names,
            rounds: Vec::new(),
            steps: Vec::new(),
            held: Vec::new(),
        }
    }

    /// Requests that failed, all peers and rounds.
    pub(crate) fn failures(&self) -> u64 {
        let lost = |row: &HeldRow| row.held.lost.values().sum::<u64>();
        let last = self.held.iter().filter(|row| self.is_last_step(row));
        self.rounds.iter().map(|round| round.measured.outcome.failures()).sum::<u64>() + last.map(lost).sum::<u64>()
    }

    /// The last step of its turn: counts of lost streams go up from step to step.
    fn is_last_step(&self, row: &HeldRow) -> bool {
        let same = |other: &&HeldRow| other.peer == row.peer && other.number == row.number;
        self.held.iter().filter(same).map(|other| other.held.wanted).max() == Some(row.held.wanted)
    }

    pub(super) fn of<'a>(&'a self, peer: &'a str) -> impl Iterator<Item = &'a Measured> {
        self.rounds.iter().filter(move |round| round.peer == peer).map(|round| &round.measured)
    }

    pub(super) fn spread(&self, peer: &str, get: fn(&Measured) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.of(peer).filter_map(get).collect())
    }

    /// `peer` against `other`, round by round.
    pub(super) fn against(
        &self,
        peer: &str,
        other: &str,
        get: fn(&Measured) -> Option<f64>,
        both: fn(f64, f64) -> f64,
    ) -> Option<Spread> {
        // Each peer has one turn a round, so the nth of one belongs to the nth of the other.
        let pairs = self.of(peer).zip(self.of(other));
        Spread::of(pairs.filter_map(|(own, theirs)| Some(both(get(own)?, get(theirs)?))).collect())
    }
}

/// Processor, cores and kernel, in a line.
fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name));
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{}, {} cores, Linux {}", model.unwrap_or("unknown processor"), crate::run::threads(0), kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_count_lies_between() {
        let spread = Spread::of(vec![4.0, 1.0, 2.0, 3.0]).unwrap();
        assert!((spread.median - 2.5).abs() < 1e-9);
        assert_eq!(Spread::of(Vec::new()), None);
    }
}
