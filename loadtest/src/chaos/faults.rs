//! Faults of Redis under load, cell by cell, as a table.
//!
//! Each cell has three windows: calm, strike (the fault comes a fifth into it) and after (the fault goes on); then the
//! fault ends. "Added" is a window's quantile less the calm one's, which is the median over all calm windows of the run;
//! of several rounds the median counts. Half of the load is one key, which is paid from leases; the other half is 10,000
//! slow callers, each of whose requests asks Redis.

use std::fmt::Write as _;
use std::path::Path;
use std::thread::scope;
use std::time::Duration;

use serde::Serialize;

use super::Options;
use super::pair::{Halves, Pair};
use super::redis::Redis;
use crate::clock;
use crate::compare::say;
use crate::generate::{Outcome, Stop};

/// What befalls Redis and how it ends. A fault that nobody can see (a flush, a reset) ends by itself.
struct Fault {
    name: &'static str,
    strike: fn(&mut Redis) -> Result<(), String>,
    mend: Option<fn(&mut Redis) -> Result<(), String>>,
}

const BOOT: &str = "down at boot";
/// Counts what is let in by policy.
const OPEN: &str = "merido_limits_fail_open_total";

const FAULTS: &[Fault] = &[
    Fault { name: "nothing", strike: |_| Ok(()), mend: None },
    Fault { name: "killed", strike: |r| r.kill(), mend: Some(Redis::start) },
    Fault { name: "frozen", strike: |r| r.signal("STOP"), mend: Some(|r| r.signal("CONT")) },
    Fault {
        name: "frozen for 100 ms",
        strike: |r| {
            r.signal("STOP")?;
            std::thread::sleep(Duration::from_millis(100));
            r.signal("CONT")
        },
        mend: None,
    },
    Fault {
        name: "200 ms slow",
        strike: |r| r.delay(Duration::from_millis(200)),
        mend: Some(|r| r.delay(Duration::ZERO)),
    },
    Fault { name: "restarted empty", strike: |r| r.kill().and_then(|()| r.start()), mend: None },
    Fault { name: "emptied", strike: |r| r.command("FLUSHALL"), mend: None },
    Fault { name: "scripts flushed", strike: |r| r.command("SCRIPT FLUSH"), mend: None },
    Fault {
        name: "read-only replica",
        strike: |r| r.command("REPLICAOF 127.0.0.1 1"),
        mend: Some(|r| r.command("REPLICAOF NO ONE")),
    },
    Fault {
        name: "out of memory",
        strike: |r| r.command("CONFIG SET maxmemory 1"),
        mend: Some(|r| r.command("CONFIG SET maxmemory 0")),
    },
    Fault { name: "loading", strike: Redis::restart_loading, mend: Some(Redis::load_fast) },
    Fault { name: "unable to save", strike: Redis::break_saving, mend: Some(Redis::mend_saving) },
    Fault {
        name: "scripts forbidden",
        strike: |r| r.command("ACL SETUSER default -evalsha"),
        mend: Some(|r| r.command("ACL SETUSER default +evalsha")),
    },
    Fault { name: "connections reset", strike: |r| r.command("CLIENT KILL TYPE normal"), mend: None },
];

/// One row of the table: one half of the load in one cell, over all rounds.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    name: &'static str,
    load: &'static str,
    /// Just before; what is added counts from the median of all.
    calm_p50_us: f64,
    calm_p99_us: f64,
    strike_added_p50_us: f64,
    strike_added_p99_us: f64,
    strike_max_us: f64,
    after_added_p50_us: f64,
    after_added_p99_us: f64,
    after_max_us: f64,
    /// From the fault until both say `down`, at most; none where nothing is to be noticed.
    down_after_ms: Option<u64>,
    /// From its end until both say `ok`, at most.
    ok_after_ms: Option<u64>,
    answered: u64,
    pub(super) failed: u64,
    /// Requests of the whole cell that were let in by policy, without Redis.
    let_in_open: u64,
}

/// What a cell's windows showed in one round.
struct Windows {
    calm: Halves,
    strike: Halves,
    after: Halves,
    down_after_ms: Option<u64>,
    ok_after_ms: Option<u64>,
    let_in_open: u64,
}

/// A cell and what it showed, round by round.
type Cell = (&'static str, Vec<Windows>);

/// All cells.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    [BOOT].into_iter().chain(FAULTS.iter().map(|fault| fault.name))
}

pub(super) fn run(options: &Options, dir: &Path, stop: &Stop, rows: &mut Vec<Row>) -> Result<(), String> {
    let mut cells: Vec<Cell> = names().filter(|name| options.wants(name)).map(|name| (name, Vec::new())).collect();
    let done = rounds(options, dir, stop, &mut cells);
    cells.retain(|(_, rounds)| !rounds.is_empty());
    say(HEADING)?;
    for (index, load) in ["one key", "slow callers"].into_iter().enumerate() {
        let calm = |what| median(cells.iter().flat_map(|(_, all)| all).map(|all| worst(&all.calm[index], what)));
        let baseline = (calm(p50), calm(p99));
        say(&format!("| quiet | {load} | {:.0} | {:.0} | | | | | | | | | | | |\n", baseline.0, baseline.1))?;
        for (name, rounds) in &cells {
            let row = Row::new(name, load, index, rounds, baseline);
            say(&row.line())?;
            rows.push(row);
        }
    }
    done
}

fn rounds(options: &Options, dir: &Path, stop: &Stop, cells: &mut [Cell]) -> Result<(), String> {
    let window = crate::run::seconds(options.seconds)?;
    let rate = crate::run::rate(Some(options.rate))?.unwrap_or(1.0);
    let mut redis = Redis::new(dir)?;
    // Absent at boot: a cell, if it is wanted; in any case a gateway must come up without it.
    let mut pair = Pair::start(&options.merido, &options.env, redis.url(), None, dir)?;
    pair.halves(rate, options.connections, Duration::from_secs(1), stop)?;
    let open = pair.metric(OPEN);
    let boot = cells.iter_mut().find(|(name, _)| *name == BOOT);
    let without = if boot.is_some() { Some(pair.halves(rate, options.connections, window, stop)?) } else { None };
    let let_in_open = (pair.metric(OPEN) - open) as u64;
    redis.start()?;
    let began = clock::now();
    pair.says("ok")?;
    let ok_after_ms = Some((clock::now() - began).as_millis() as u64);
    // Leases, scripts and the slow callers' buckets: what comes first is not what is measured.
    pair.halves(rate, options.connections, window, stop)?;
    if let (Some(without), Some((_, rounds))) = (without, boot) {
        let calm = pair.halves(rate, options.connections, window, stop)?;
        let (strike, after) = (without.clone(), without);
        rounds.push(Windows { calm, strike, after, down_after_ms: None, ok_after_ms, let_in_open });
    }
    for _ in 0..options.rounds {
        for (name, rounds) in &mut *cells {
            let Some(fault) = FAULTS.iter().find(|fault| fault.name == *name) else { continue };
            let windows = cell(fault, options, &mut redis, &pair, (rate, window), stop);
            let windows = windows.map_err(|error| format!("{name}: {error}"))?;
            if stop.is_set() {
                return Ok(());
            }
            rounds.push(windows);
        }
    }
    pair.end();
    Ok(())
}

fn cell(
    fault: &Fault,
    options: &Options,
    redis: &mut Redis,
    pair: &Pair,
    (rate, window): (f64, Duration),
    stop: &Stop,
) -> Result<Windows, String> {
    let open = pair.metric(OPEN);
    let calm = pair.halves(rate, options.connections, window, stop)?;
    let (strike, down_after_ms) = scope(|threads| {
        let load = threads.spawn(|| pair.halves(rate, options.connections, window, stop));
        std::thread::sleep(window / 5);
        let began = clock::now();
        let struck = (fault.strike)(redis);
        let down = match (fault.mend, struck) {
            (_, Err(error)) => Err(error),
            (None, Ok(())) => Ok(None),
            (Some(_), Ok(())) => pair.says("down").map(|()| Some((clock::now() - began).as_millis() as u64)),
        };
        let load = load.join().map_err(|_| "the load's thread died".to_owned())?;
        Ok::<_, String>((load?, down?))
    })?;
    let after = pair.halves(rate, options.connections, window, stop)?;
    let ok_after_ms = match fault.mend {
        None => None,
        Some(mend) => {
            mend(redis)?;
            let began = clock::now();
            pair.says("ok")?;
            Some((clock::now() - began).as_millis() as u64)
        }
    };
    pair.says("ok")?;
    let let_in_open = (pair.metric(OPEN) - open) as u64;
    Ok(Windows { calm, strike, after, down_after_ms, ok_after_ms, let_in_open })
}

const HEADING: &str = "\
| what befalls Redis | load | calm p50 µs | p99 | strike: added p50 | p99 | max | after: added p50 | p99 | max | \
down after ms | ok after ms | answered | failed | let in open |
|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|
";

fn calm(all: &Windows) -> &Halves {
    &all.calm
}

fn strike(all: &Windows) -> &Halves {
    &all.strike
}

fn after(all: &Windows) -> &Halves {
    &all.after
}

fn p50(of: &Outcome) -> f64 {
    of.latency.p50_us
}

fn p99(of: &Outcome) -> f64 {
    of.latency.p99_us
}

/// Of the worse of the two instances.
fn worst(of: &[Outcome], what: fn(&Outcome) -> f64) -> f64 {
    of.iter().map(what).fold(0.0, f64::max)
}

fn median(of: impl Iterator<Item = f64>) -> f64 {
    let mut all: Vec<f64> = of.collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}

impl Row {
    fn new(name: &'static str, load: &'static str, half: usize, rounds: &[Windows], quiet: (f64, f64)) -> Self {
        let over =
            |which: fn(&Windows) -> &Halves, what| median(rounds.iter().map(|all| worst(&which(all)[half], what)));
        let most = |which: fn(&Windows) -> &Halves| {
            rounds.iter().map(|all| worst(&which(all)[half], |one| one.latency.max_us)).fold(0.0, f64::max)
        };
        let everything =
            || rounds.iter().flat_map(|all| [&all.calm, &all.strike, &all.after]).flat_map(|all| &all[half]);
        Self {
            name,
            load,
            calm_p50_us: over(calm, p50),
            calm_p99_us: over(calm, p99),
            strike_added_p50_us: over(strike, p50) - quiet.0,
            strike_added_p99_us: over(strike, p99) - quiet.1,
            strike_max_us: most(strike),
            after_added_p50_us: over(after, p50) - quiet.0,
            after_added_p99_us: over(after, p99) - quiet.1,
            after_max_us: most(after),
            down_after_ms: rounds.iter().filter_map(|all| all.down_after_ms).max(),
            ok_after_ms: rounds.iter().filter_map(|all| all.ok_after_ms).max(),
            answered: everything().map(|one| one.answered).sum(),
            failed: everything().map(Outcome::failures).sum(),
            let_in_open: rounds.iter().map(|all| all.let_in_open).sum(),
        }
    }

    fn line(&self) -> String {
        let ms = |ms: Option<u64>| ms.map_or_else(|| "–".to_owned(), |ms| ms.to_string());
        let mut line = String::new();
        let _ = writeln!(
            line,
            "| {} | {} | {:.0} | {:.0} | {:+.0} | {:+.0} | {:.0} | {:+.0} | {:+.0} | {:.0} | {} | {} | {} | {} | {} |",
            self.name,
            self.load,
            self.calm_p50_us,
            self.calm_p99_us,
            self.strike_added_p50_us,
            self.strike_added_p99_us,
            self.strike_max_us,
            self.after_added_p50_us,
            self.after_added_p99_us,
            self.after_max_us,
            ms(self.down_after_ms),
            ms(self.ok_after_ms),
            self.answered,
            self.failed,
            self.let_in_open
        );
        line
    }
}
