//! Medians, spreads and ratios of a comparison, as text and as JSON.
//!
//! Must never mix rounds: a ratio is taken between two peers of the same round, and only then is the median taken.
//! Numbers a run did not yield are shown as `–`, not as zero.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::Leg;
use super::scenario::{Basis, Work};
use crate::clock;
use crate::run::Measured;

/// Everything one comparison measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// When it began, seconds since 1970.
    pub(crate) unix_time: u64,
    pub(crate) machine: String,
    pub(crate) command: String,
    pub(crate) nginx: Option<String>,
    pub(crate) merido: Option<String>,
    pub(crate) tables: Vec<Table>,
}

/// One work over one leg: all rounds of all peers.
#[derive(Debug, Serialize)]
pub(crate) struct Table {
    pub(crate) work: Work,
    pub(crate) bases: Vec<Basis>,
    pub(crate) upstream: String,
    /// Seconds measured in each turn.
    pub(crate) seconds: f64,
    /// Process start to first `200` on `/readyz`, by peer.
    pub(crate) started_ms: BTreeMap<String, f64>,
    pub(crate) rounds: Vec<Round>,
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

/// Median, least and greatest of some rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
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

    fn text(spread: Option<Self>, digits: usize) -> String {
        spread.map_or_else(
            || "–".to_owned(),
            |Self { median, least, most }| format!("{median:.digits$} ({least:.digits$}–{most:.digits$})"),
        )
    }
}

impl Report {
    pub(crate) fn new(nginx: Option<String>) -> Self {
        let command = std::env::args().collect::<Vec<_>>().join(" ");
        Self {
            unix_time: clock::wall_us() / 1_000_000,
            machine: machine(),
            command,
            nginx,
            merido: None,
            tables: Vec::new(),
        }
    }

    /// What stands above the tables.
    pub(crate) fn heading(&self) -> String {
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "not measured".to_owned());
        format!(
            "machine  {}\ncommand  {}\nnginx    {}\nmerido   {}\n",
            self.machine,
            self.command,
            or_none(&self.nginx),
            or_none(&self.merido)
        )
    }
}

impl Table {
    pub(crate) fn new(work: &Work, bases: &[Basis], leg: Leg, seconds: f64) -> Self {
        let upstream = match leg {
            Leg::Plain => "plain",
            Leg::Tls => "tls",
        };
        Self {
            work: work.clone(),
            bases: bases.to_vec(),
            upstream: upstream.to_owned(),
            seconds,
            started_ms: BTreeMap::new(),
            rounds: Vec::new(),
        }
    }

    /// Requests that failed, all peers and rounds.
    pub(crate) fn failures(&self) -> u64 {
        self.rounds.iter().map(|round| round.measured.outcome.failures()).sum()
    }

    /// Medians with their spread, a row a peer, as a Markdown table.
    pub(crate) fn text(&self) -> String {
        // A basis is merido's: without merido the table has none.
        let measured = self.rounds.iter().any(|round| round.peer.starts_with("merido"));
        let bases: Vec<&str> = self.bases.iter().filter(|_| measured).map(|basis| basis.name.as_str()).collect();
        let bases = if bases.is_empty() { "–".to_owned() } else { bases.join(", ") };
        let mut text = format!(
            "\n{} · upstream {} · basis {} · {} rounds × {} s, {} connections{}\n{}\n\n",
            self.work.name,
            self.upstream,
            bases,
            self.rounds.iter().map(|round| round.number + 1).max().unwrap_or(0),
            self.seconds,
            self.work.load.connections,
            self.work.load.rate.map(|rate| format!(", {rate}/s")).unwrap_or_default(),
            self.work.about,
        );
        text.push_str(
            "| peer | req/s | CPU µs/req | × nginx CPU | p50 µs | p99 µs | added p50 | added p99 | event p99 µs | RSS MiB | failed |\n\
             |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
        );
        for peer in self.peers() {
            let own = |get: fn(&Measured) -> Option<f64>| self.spread(peer, get);
            let over = |other: &str, get: fn(&Measured) -> Option<f64>, both: fn(f64, f64) -> f64| {
                (peer != other).then(|| self.against(peer, other, get, both)).flatten()
            };
            // At saturation latency is what the queue makes it; only below it does a difference mean the proxy.
            let saturated = self.work.load.rate.is_none() && self.work.load.connections > 1;
            let added = |get| (!saturated).then(|| over("direct", get, |a, b| a - b)).flatten();
            let cells = [
                peer.to_owned(),
                Spread::text(own(|run| Some(run.outcome.per_second)), 0),
                Spread::text(own(cpu), 1),
                Spread::text(if peer == "direct" { None } else { over("nginx", cpu, |a, b| a / b) }, 2),
                Spread::text(own(p50), 0),
                Spread::text(own(p99), 0),
                Spread::text(added(p50), 0),
                Spread::text(added(p99), 0),
                Spread::text(own(|run| run.outcome.event_delay.map(|delay| delay.p99_us)), 0),
                Spread::text(own(|run| run.process.map(|process| process.rss_mib)), 1),
                self.of(peer).map(|run| run.outcome.failures()).sum::<u64>().to_string(),
            ];
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        }
        for (peer, ms) in &self.started_ms {
            let _ = writeln!(text, "{peer}: start to ready {ms:.0} ms");
        }
        for round in self.rounds.iter().filter(|round| round.measured.outcome.failures() > 0) {
            let _ = writeln!(text, "FAILED round {} {}: {:?}", round.number, round.peer, round.measured.outcome.failed);
        }
        text
    }

    fn peers(&self) -> Vec<&str> {
        // The first round's order is the order of starting, the mock last; it reads better first.
        let mut peers: Vec<&str> =
            self.rounds.iter().filter(|round| round.number == 0).map(|round| round.peer.as_str()).collect();
        if peers.last() == Some(&"direct") {
            peers.rotate_right(1);
        }
        peers
    }

    fn of<'a>(&'a self, peer: &'a str) -> impl Iterator<Item = &'a Measured> {
        self.rounds.iter().filter(move |round| round.peer == peer).map(|round| &round.measured)
    }

    fn spread(&self, peer: &str, get: fn(&Measured) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.of(peer).filter_map(get).collect())
    }

    /// `peer` against `other`, round by round.
    fn against(
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

fn cpu(run: &Measured) -> Option<f64> {
    run.process.map(|process| process.cpu_us_per_request)
}

fn p50(run: &Measured) -> Option<f64> {
    let latency = &run.outcome.latency;
    (latency.count > 0).then_some(latency.p50_us)
}

fn p99(run: &Measured) -> Option<f64> {
    let latency = &run.outcome.latency;
    (latency.count > 0).then_some(latency.p99_us)
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
    use crate::compare::scenario;
    use crate::generate::{Outcome, Tally};
    use crate::run::Usage;
    use std::time::Duration;

    fn measured(cpu_us_per_request: f64) -> Measured {
        let mut tally = Tally::default();
        tally.answered(Duration::from_micros(100), Duration::from_micros(100), 1);
        let process = Some(Usage { cpu_us_per_request, cpu_seconds: 1.0, rss_mib: 18.0 });
        Measured { outcome: Outcome::new(vec![tally], Duration::from_secs(1)), process }
    }

    fn table() -> Table {
        let work = scenario::work("unary").unwrap();
        let mut table = Table::new(&work, &[scenario::basis("bare").unwrap()], Leg::Plain, 4.0);
        // Round 2 ran on a machine twice as slow: the ratio must not notice.
        for (round, nginx, merido) in [(0, 10.0, 11.0), (1, 20.0, 22.0), (2, 10.0, 13.0)] {
            for (peer, cpu) in [("nginx", nginx), ("merido", merido), ("direct", 5.0)] {
                table.rounds.push(Round { number: round, peer: peer.to_owned(), measured: measured(cpu) });
            }
        }
        table
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let ratio = table().against("merido", "nginx", cpu, |a, b| a / b).unwrap();
        assert!((ratio.median - 1.1).abs() < 1e-9 && (ratio.most - 1.3).abs() < 1e-9, "{ratio:?}");
    }

    #[test]
    fn the_table_has_a_row_a_peer_and_no_invented_numbers() {
        let text = table().text();
        assert!(text.contains("| merido | 1 (1–1) | 13.0 (11.0–22.0) | 1.10 (1.10–1.30) |"), "{text}");
        let direct = text.lines().find(|line| line.starts_with("| direct")).unwrap();
        assert!(direct.contains("| 5.0 (5.0–5.0) | – |"), "{direct}");
        assert!(text.find("| direct") < text.find("| nginx"), "{text}");
    }

    #[test]
    fn the_median_of_an_even_count_lies_between() {
        let spread = Spread::of(vec![4.0, 1.0, 2.0, 3.0]).unwrap();
        assert!((spread.median - 2.5).abs() < 1e-9);
        assert_eq!(Spread::of(Vec::new()), None);
    }
}
