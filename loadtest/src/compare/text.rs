//! A comparison's tables as Markdown: medians with (least–greatest), ratios taken round by round.
//!
//! Must never show a number that was not measured: what a run did not yield is `–`.

use std::fmt::Write as _;

use super::report::{HeldRow, Spread, Table};
use crate::run::Measured;

impl Table {
    /// Medians with their spread, a row a peer, as a Markdown table.
    pub(crate) fn text(&self) -> String {
        let mut text = self.title();
        match (self.steps.is_empty(), self.held.is_empty()) {
            (true, true) => self.rows(&mut text),
            (false, _) => self.ramp_rows(&mut text),
            (true, false) => self.held_rows(&mut text),
        }
        for (peer, ms) in &self.started_ms {
            let _ = writeln!(text, "{peer}: start to ready {ms:.0} ms");
        }
        for round in self.rounds.iter().filter(|round| round.measured.outcome.failures() > 0) {
            let _ = writeln!(text, "FAILED round {} {}: {:?}", round.number, round.peer, round.measured.outcome.failed);
        }
        text
    }

    fn title(&self) -> String {
        // A basis is merido's: without merido the table has none.
        let measured = self.peers.iter().any(|peer| peer.starts_with("merido"));
        let bases: Vec<&str> = self.bases.iter().filter(|_| measured).map(|basis| basis.name.as_str()).collect();
        let bases = if bases.is_empty() { "–".to_owned() } else { bases.join(", ") };
        let rounds = self.rounds.iter().map(|round| round.number);
        let rounds =
            rounds.chain(self.steps.iter().map(|step| step.number)).chain(self.held.iter().map(|row| row.number));
        format!(
            "\n{} · upstream {} · basis {} · {} rounds × {} s, {} connections{}\n{}\n\n",
            self.work.name,
            self.upstream,
            bases,
            rounds.max().map_or(0, |last| last + 1),
            self.work.load.seconds,
            self.work.load.connections,
            self.work.load.rate.map(|rate| format!(", {rate}/s")).unwrap_or_default(),
            self.work.about,
        )
    }

    fn rows(&self, text: &mut String) {
        let against = &self.against;
        let large = self.work.body_bytes() >= 50_000.0;
        let redis = self.rounds.iter().any(|round| round.measured.redis.is_some());
        let mut columns = format!(
            "peer | req/s | CPU µs/req | × {against} CPU | p50 µs | p99 µs | added p50 | added p99 | event p99 µs | \
             RSS MiB | before | busiest core"
        );
        for (wanted, name) in [(large, "CPU µs/MB"), (redis, "Redis cmd/req"), (redis, "Redis CPU µs/req")] {
            if wanted {
                let _ = write!(columns, " | {name}");
            }
        }
        columns += " | failed";
        let _ = writeln!(text, "| {columns} |\n|---{}|", "|--:".repeat(columns.matches(" | ").count()));
        let megabytes = self.work.body_bytes() / 1e6;
        for peer in self.peers.iter().map(String::as_str) {
            let own = |get: fn(&Measured) -> Option<f64>| self.spread(peer, get);
            let over = |other: &str, get: fn(&Measured) -> Option<f64>, both: fn(f64, f64) -> f64| {
                (peer != other).then(|| self.against(peer, other, get, both)).flatten()
            };
            // At saturation latency is what the queue makes it; only below it does a difference mean the proxy.
            let saturated = self.work.load.rate.is_none() && self.work.load.connections > 1;
            let added = |get| (!saturated).then(|| over("direct", get, |a, b| a - b)).flatten();
            let mut cells = vec![
                peer.to_owned(),
                Spread::text(
                    own(|run| Some((run.outcome.answered + run.outcome.abandoned) as f64 / run.outcome.seconds)),
                    0,
                ),
                Spread::text(own(cpu), 1),
                Spread::text(if peer == "direct" { None } else { over(against, cpu, |a, b| a / b) }, 2),
                Spread::text(own(p50), 0),
                Spread::text(own(p99), 0),
                Spread::text(added(p50), 0),
                Spread::text(added(p99), 0),
                Spread::text(own(|run| run.outcome.event_delay.map(|delay| delay.p99_us)), 0),
                Spread::text(own(|run| run.process.as_ref().map(|process| process.rss_mib)), 1),
                Spread::text(own(|run| run.process.as_ref().map(|process| process.rss_before_mib)), 1),
                Spread::text(own(busiest), 2),
            ];
            if large {
                let per_mb = own(cpu).map(|spread| spread.scaled(1.0 / megabytes));
                cells.push(Spread::text(per_mb, 0));
            }
            if redis {
                cells.push(Spread::text(own(|run| run.redis.map(|redis| redis.commands_per_request)), 4));
                cells.push(Spread::text(own(|run| run.redis.map(|redis| redis.cpu_us_per_request)), 2));
            }
            cells.push(self.of(peer).map(|run| run.outcome.failures()).sum::<u64>().to_string());
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        }
        self.form_rows(text);
    }

    /// Latencies of a mix, form by form.
    fn form_rows(&self, text: &mut String) {
        for form in &self.work.load.mix {
            let _ = write!(text, "{}: p50 / p99 µs", form.name);
            for peer in &self.peers {
                let of = |get: fn(&crate::generate::Quantiles) -> f64| {
                    let values = self.of(peer).filter_map(|run| run.outcome.forms.get(&form.name)).map(get);
                    Spread::text(Spread::of(values.collect()), 0)
                };
                let _ = write!(text, " · {peer} {} / {}", of(|of| of.p50_us), of(|of| of.p99_us));
            }
            text.push('\n');
        }
    }

    fn ramp_rows(&self, text: &mut String) {
        let limit = self.work.load.ramp.as_ref().map_or(0.0, |ramp| ramp.break_p99_ms);
        let _ = writeln!(text, "| peer | highest rate with p99 ≤ {limit} ms | × {} |\n|---|--:|--:|", self.against);
        let best = |peer: &str| -> Vec<f64> {
            let rounds = self.steps.iter().map(|step| step.number + 1).max().unwrap_or(0);
            let held =
                |round| self.steps.iter().filter(move |step| step.peer == peer && step.number == round && step.held);
            (0..rounds).map(|round| held(round).map(|step| step.rate).fold(0.0, f64::max)).collect()
        };
        let against = best(&self.against);
        for peer in self.peers.iter().map(String::as_str) {
            let own = best(peer);
            let ratio = own.iter().zip(&against).filter(|(_, theirs)| **theirs > 0.0).map(|(own, theirs)| own / theirs);
            let ratio = Spread::of(ratio.filter(|_| peer != "direct" && peer != self.against).collect());
            let _ = writeln!(text, "| {peer} | {} | {} |", Spread::text(Spread::of(own), 0), Spread::text(ratio, 2));
        }
        text.push_str("\n| peer | rate | p50 µs | p99 µs | CPU µs/req | held |\n|---|--:|--:|--:|--:|--:|\n");
        for step in self.steps.iter().filter(|step| step.number == 0) {
            let latency = &step.measured.outcome.latency;
            let cpu = cpu(&step.measured).unwrap_or_default();
            let _ = writeln!(
                text,
                "| {} | {:.0} | {:.0} | {:.0} | {cpu:.1} | {} |",
                step.peer, step.rate, latency.p50_us, latency.p99_us, step.held
            );
        }
    }

    fn held_rows(&self, text: &mut String) {
        text.push_str(
            "| peer | streams open | RSS MiB | KiB a stream since the step before | event p99 µs | CPU ms a stream | lost |\n\
             |---|--:|--:|--:|--:|--:|--:|\n",
        );
        for peer in &self.peers {
            let rows: Vec<&HeldRow> = self.held.iter().filter(|row| row.peer == *peer).collect();
            let mut steps: Vec<usize> = rows.iter().map(|row| row.held.wanted).collect();
            steps.sort_unstable();
            steps.dedup();
            let mut before = 0;
            for step in &steps {
                let of = |get: &dyn Fn(&HeldRow) -> f64| {
                    Spread::of(rows.iter().filter(|row| row.held.wanted == *step).map(|row| get(row)).collect())
                };
                let added = (step - before) as f64;
                let _ = writeln!(
                    text,
                    "| {peer} | {} | {} | {} | {} | {} | {} |",
                    Spread::text(of(&|row| row.held.open as f64), 0),
                    Spread::text(of(&|row| row.rss_mib), 1),
                    Spread::text(of(&|row| (row.rss_mib - row.rss_before_mib) * 1024.0 / added), 1),
                    Spread::text(of(&|row| row.held.event_delay.p99_us), 0),
                    Spread::text(of(&|row| row.cpu_seconds * 1000.0 / *step as f64), 2),
                    Spread::text(of(&|row| row.held.lost.values().sum::<u64>() as f64), 0),
                );
                before = *step;
            }
            if let Some(slope) = slope(&rows) {
                let (first, last) = (steps.first().unwrap_or(&0), steps.last().unwrap_or(&0));
                let _ = writeln!(text, "| {peer} | {first} to {last} | | **{slope:.1}** | | | |");
            }
        }
    }
}

/// KiB of memory each stream costs between the first and the last step of the first round: later rounds find what the
/// first one left to the allocator.
fn slope(rows: &[&HeldRow]) -> Option<f64> {
    let mut own = rows.iter().filter(|row| row.number == 0);
    let (first, last) = (own.next()?, own.next_back()?);
    let streams = last.held.open as f64 - first.held.open as f64;
    (streams > 0.0).then(|| (last.rss_mib - first.rss_mib) * 1024.0 / streams)
}

fn cpu(run: &Measured) -> Option<f64> {
    run.process.as_ref().map(|process| process.cpu_us_per_request)
}

/// Share of the busiest of as many threads as there are cores: 1 / cores is even, 1 is all on one.
fn busiest(run: &Measured) -> Option<f64> {
    let cores = crate::run::threads(0);
    let threads = run.process.as_ref().map(|process| &process.threads[..process.threads.len().min(cores)])?;
    let sum: f64 = threads.iter().sum();
    (sum > 0.0).then(|| threads[0] / sum)
}

fn p50(run: &Measured) -> Option<f64> {
    let latency = &run.outcome.latency;
    (latency.count > 0).then_some(latency.p50_us)
}

fn p99(run: &Measured) -> Option<f64> {
    let latency = &run.outcome.latency;
    (latency.count > 0).then_some(latency.p99_us)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::report::{Round, Step};
    use crate::generate::{Held, Outcome, Quantiles, Tally};
    use crate::run::Usage;
    use crate::scenario;
    use std::time::Duration;

    fn measured(cpu_us_per_request: f64) -> Measured {
        let mut tally = Tally::default();
        tally.answered(0, Duration::from_micros(100), Duration::from_micros(100), 1);
        let process = Some(Usage {
            cpu_us_per_request,
            cpu_seconds: 1.0,
            rss_mib: 18.0,
            rss_before_mib: 17.0,
            threads: vec![3.0, 1.0],
        });
        Measured { outcome: Outcome::new(vec![tally], Duration::from_secs(1), Vec::new()), process, redis: None }
    }

    fn empty(work: &str) -> Table {
        let work = scenario::work(work).unwrap();
        let mut table = Table::new(&work, &[scenario::basis("bare").unwrap()], "plain", &[], "nginx");
        table.peers = ["direct", "nginx", "merido"].map(str::to_owned).to_vec();
        "nginx".clone_into(&mut table.against);
        table
    }

    fn table() -> Table {
        let mut table = empty("unary");
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
        let rows: Vec<usize> =
            text.lines().filter(|line| line.starts_with('|')).map(|line| line.matches('|').count()).collect();
        assert!(rows.windows(2).all(|two| two[0] == two[1]), "{text}");
    }

    #[test]
    fn a_ramp_names_the_last_rate_that_held() {
        let mut table = empty("ramp");
        for (peer, rate, held) in [
            ("nginx", 1000.0, true),
            ("nginx", 2000.0, false),
            ("merido", 1000.0, true),
            ("merido", 2000.0, true),
            ("merido", 4000.0, false),
        ] {
            table.steps.push(Step { number: 0, peer: peer.to_owned(), rate, held, measured: measured(9.0) });
        }
        let text = table.text();
        assert!(text.contains("| merido | 2000 (2000–2000) | 2.00 (2.00–2.00) |"), "{text}");
    }

    #[test]
    fn streams_held_open_have_a_slope() {
        let mut table = empty("open-streams");
        for (wanted, rss_before_mib, rss_mib) in [(1000, 14.0, 24.0), (8000, 24.0, 94.0)] {
            let held = Held {
                wanted,
                open: wanted,
                lost: [("connection reset".to_owned(), 1)].into(),
                events: 1,
                event_delay: Quantiles::default(),
            };
            let peer = "merido".to_owned();
            table.held.push(HeldRow { number: 0, peer, rss_mib, rss_before_mib, cpu_seconds: 1.0, held });
        }
        let text = table.text();
        assert!(text.contains("| merido | 1000 to 8000 | | **10.2** |"), "{text}");
        assert_eq!(table.failures(), 1, "a lost stream counts once, however many steps see it");
    }
}
