//! One peer's turn: warm up, then measure a load, a ramp of open loops, or streams held open.
//!
//! Must never measure two peers at once. A load without a single answer is an error with the peer's last lines; failed
//! requests are counted, and judged at the end of the comparison.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::report::{HeldRow, Round, Step, Table};
use super::say;
use crate::generate::{Hold, Load, Outcome, Requests, Stop};
use crate::live;
use crate::peers::Peer;
use crate::procfs::{Units, open_files};
use crate::run::{Measured, RedisUsage, measure, seconds};
use crate::scenario::{HoldTable, RampTable, Work};

/// What all turns of a table have in common.
pub(super) struct Turns<'a> {
    pub(super) work: &'a Work,
    pub(super) cores: usize,
    pub(super) units: Units,
    pub(super) stop: &'a Stop,
}

impl Turns<'_> {
    /// Takes one turn and writes what it yields into the table.
    pub(super) fn take(&self, peer: &Peer, round: usize, title: &str, table: &mut Table) -> Result<(), String> {
        let title = format!("{title} · {}", peer.name);
        let told = |error: String| format!("{}: {error}\n{}", peer.name, peer.tail());
        let key = peer.keys.first().map(String::as_str);
        let requests = self.work.requests(&peer.model, key, &peer.headers)?.under(&peer.keys)?;
        let load = self.load(peer, requests)?;
        if let Some(hold) = &self.work.load.hold {
            return self.hold(peer, round, hold, &load, &title, table).map_err(told);
        }
        self.warm_up(&load, &title).map_err(told)?;
        if let Some(ramp) = &self.work.load.ramp {
            return self.ramp(peer, round, ramp, &load, &title, table).map_err(told);
        }
        let measured = self.measure(peer, &load, &title).map_err(told)?;
        table.rounds.push(Round { number: round, peer: peer.name.clone(), measured });
        Ok(())
    }

    fn load(&self, peer: &Peer, requests: Requests) -> Result<Load, String> {
        let load = &self.work.load;
        Ok(Load {
            targets: peer.ports.iter().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, *port))).collect(),
            requests: Arc::new(requests),
            connections: load.connections,
            threads: self.cores,
            spread: Duration::from_millis(load.spread_ms),
            rate: load.rate,
            duration: seconds(load.seconds)?,
            most: u64::MAX,
            abort: load.abort,
            stop: self.stop.clone(),
            begun: Arc::default(),
        })
    }

    fn warm_up(&self, load: &Load, title: &str) -> Result<(), String> {
        if self.work.load.warmup <= 0.0 {
            return Ok(());
        }
        // A ramp warms up at its first rate.
        let rate = load.rate.or(self.work.load.ramp.as_ref().map(|ramp| ramp.from));
        let warm = Load { duration: Duration::from_secs_f64(self.work.load.warmup), rate, ..load.clone() };
        let outcome = live::watch(&|| warm.run(), &format!("{title} · warm-up"), &warm)?;
        if outcome.answered + outcome.abandoned == 0 && !self.stop.is_set() {
            return Err(format!("no request was answered in the warm-up: {:?}", outcome.failed));
        }
        Ok(())
    }

    fn measure(&self, peer: &Peer, load: &Load, title: &str) -> Result<Measured, String> {
        let redis = || match &peer.redis {
            Some(redis) => Ok(Some((redis.commands()?, self.units.sample(redis.pid())?.cpu_seconds))),
            None => Ok::<_, String>(None),
        };
        let before = redis()?;
        let mut measured = measure(load, &peer.pids(), self.units, |work| live::watch(work, title, load))?;
        let requests = measured.outcome.requests().max(1) as f64;
        measured.redis = before.zip(redis()?).map(|(before, after)| {
            let commands = after.0.saturating_sub(before.0 + 1);
            RedisUsage {
                commands_per_request: commands as f64 / requests,
                cpu_us_per_request: (after.1 - before.1) * 1e6 / requests,
                commands,
            }
        });
        Ok(measured)
    }

    fn ramp(
        &self,
        peer: &Peer,
        round: usize,
        ramp: &RampTable,
        load: &Load,
        title: &str,
        table: &mut Table,
    ) -> Result<(), String> {
        let mut rate = ramp.from;
        while rate <= ramp.most && !self.stop.is_set() {
            let load = Load { rate: Some(rate), ..load.clone() };
            let title = format!("{title} · {rate:.0}/s");
            let mut measured = self.measure(peer, &load, &title)?;
            // Once more if it was only slow: a stall of the machine is no limit of the peer's.
            let failed = measured.outcome.failures() > 0;
            if !failed && !held(&measured.outcome, rate, ramp) && !self.stop.is_set() {
                measured = self.measure(peer, &load, &title)?;
            }
            let held = held(&measured.outcome, rate, ramp);
            table.steps.push(Step { number: round, peer: peer.name.clone(), rate, held, measured });
            if !held {
                break;
            }
            rate *= ramp.factor;
        }
        Ok(())
    }

    fn hold(
        &self,
        peer: &Peer,
        round: usize,
        hold: &HoldTable,
        load: &Load,
        title: &str,
        table: &mut Table,
    ) -> Result<(), String> {
        let pids = peer.pids();
        let most = most_streams(&pids);
        let steps: Vec<usize> = hold.steps.iter().copied().filter(|step| *step <= most).collect();
        if steps.len() < hold.steps.len() && round == 0 {
            say(&format!("{}: open files allow {most} streams: runs {steps:?} of {:?}\n", peer.name, hold.steps))?;
        }
        let before = self.units.sample_all(&pids)?;
        let mut at = before;
        let held = Hold {
            targets: load.targets.clone(),
            requests: Arc::clone(&load.requests),
            steps,
            watch: load.duration,
            stop: self.stop.clone(),
        };
        live::show(title);
        held.run(|held| {
            let now = self.units.sample_all(&pids)?;
            let spent = now.cpu_seconds - at.cpu_seconds;
            live::show(&format!("{title} · {} of {} streams open", held.open, held.wanted));
            let row = HeldRow {
                number: round,
                peer: peer.name.clone(),
                rss_mib: now.rss_mib,
                rss_before_mib: at.rss_mib,
                cpu_seconds: spent,
                held,
            };
            table.held.push(row);
            at = now;
            Ok(())
        })?;
        live::show("");
        Ok(())
    }
}

/// Whether a step of a ramp was carried: all due requests answered in time.
fn held(outcome: &Outcome, rate: f64, ramp: &RampTable) -> bool {
    outcome.failures() == 0 && outcome.latency.p99_us <= ramp.break_p99_ms * 1000.0 && outcome.per_second >= 0.95 * rate
}

/// How many streams open files allow: one each in this process (and the mock, which has the same limit), two each in a
/// proxy, some to spare.
fn most_streams(pids: &[u32]) -> usize {
    let limit = |pid: &str| open_files(pid).map_or(usize::MAX, |(soft, _)| soft as usize);
    let own = limit("self").saturating_sub(200);
    let theirs = pids.iter().map(|pid| limit(&pid.to_string()).saturating_sub(200) / 2);
    theirs.fold(own, usize::min)
}
