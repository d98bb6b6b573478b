//! Faults of Redis under load, cell by cell, as a table.
//!
//! Each cell has three windows: calm, strike (the fault comes a fifth into it) and after (the fault goes on); then the
//! fault ends. "Added" is a window's quantile less the calm one's just before. Half of the load is one key, which is
//! paid from leases; the other half is 10,000 slow callers, each of whose requests asks Redis.

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

/// One row of the table: one half of the load in one cell.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    name: String,
    load: &'static str,
    calm_p50_us: f64,
    calm_p99_us: f64,
    strike_added_p50_us: f64,
    strike_added_p99_us: f64,
    strike_max_us: f64,
    after_added_p50_us: f64,
    after_added_p99_us: f64,
    after_max_us: f64,
    /// From the fault until both say `down`; none where nothing is to be noticed.
    down_after_ms: Option<u64>,
    /// From its end until both say `ok`.
    ok_after_ms: Option<u64>,
    answered: u64,
    pub(super) failed: u64,
    /// Requests of the whole cell that were let in by policy, without Redis.
    let_in_open: u64,
}

/// What a cell's windows showed.
struct Windows {
    calm: Halves,
    strike: Halves,
    after: Halves,
    down_after_ms: Option<u64>,
    ok_after_ms: Option<u64>,
    let_in_open: u64,
}

/// All cells.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    FAULTS.iter().map(|fault| fault.name).chain([BOOT])
}

pub(super) fn run(options: &Options, dir: &Path, stop: &Stop, rows: &mut Vec<Row>) -> Result<(), String> {
    let window = crate::run::seconds(options.seconds)?;
    let rate = crate::run::rate(Some(options.rate))?.unwrap_or(1.0);
    say(HEADING)?;
    let mut redis = Redis::new(dir)?;
    // Absent at boot: a cell, if it is wanted; in any case a gateway must come up without it.
    let mut pair = Pair::start(&options.merido, &options.env, redis.url(), None, dir)?;
    pair.halves(rate, options.connections, Duration::from_secs(1), stop)?;
    let open = pair.metric("merido_limits_fail_open_total");
    let without = if options.wants(BOOT) { Some(pair.halves(rate, options.connections, window, stop)?) } else { None };
    let let_in_open = (pair.metric("merido_limits_fail_open_total") - open) as u64;
    redis.start()?;
    let began = clock::now();
    pair.says("ok")?;
    let ok_after_ms = Some((clock::now() - began).as_millis() as u64);
    // Leases, scripts and the slow callers' buckets: what comes first is not what is measured.
    pair.halves(rate, options.connections, window, stop)?;
    if let Some(without) = without {
        let calm = pair.halves(rate, options.connections, window, stop)?;
        let (strike, after) = (without.clone(), without);
        let windows = Windows { calm, strike, after, down_after_ms: None, ok_after_ms, let_in_open };
        file(BOOT, &windows, rows)?;
    }
    for fault in FAULTS.iter().filter(|fault| options.wants(fault.name)) {
        let windows = cell(fault, options, &mut redis, &pair, (rate, window), stop)?;
        if stop.is_set() {
            return Ok(());
        }
        file(fault.name, &windows, rows)?;
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
    let open = pair.metric("merido_limits_fail_open_total");
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
    let let_in_open = (pair.metric("merido_limits_fail_open_total") - open) as u64;
    Ok(Windows { calm, strike, after, down_after_ms, ok_after_ms, let_in_open })
}

fn file(name: &str, windows: &Windows, rows: &mut Vec<Row>) -> Result<(), String> {
    for (index, load) in ["one key", "slow callers"].into_iter().enumerate() {
        let row = Row::new(name, load, index, windows);
        say(&row.line())?;
        rows.push(row);
    }
    Ok(())
}

const HEADING: &str = "\
| what befalls Redis | load | calm p50 µs | p99 | strike: added p50 | p99 | max | after: added p50 | p99 | max | \
down after ms | ok after ms | answered | failed | let in open |
|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|
";

impl Row {
    fn new(name: &str, load: &'static str, half: usize, windows: &Windows) -> Self {
        let [calm, strike, after] = [&windows.calm, &windows.strike, &windows.after].map(|all| &all[half][..]);
        // The worse of the two instances.
        let worst = |of: &[Outcome], what: fn(&Outcome) -> f64| of.iter().map(what).fold(0.0, f64::max);
        let p50 = |of: &[Outcome]| worst(of, |one| one.latency.p50_us);
        let p99 = |of: &[Outcome]| worst(of, |one| one.latency.p99_us);
        let most = |of: &[Outcome]| worst(of, |one| one.latency.max_us);
        let everything = || [calm, strike, after].into_iter().flatten();
        Self {
            name: name.to_owned(),
            load,
            calm_p50_us: p50(calm),
            calm_p99_us: p99(calm),
            strike_added_p50_us: p50(strike) - p50(calm),
            strike_added_p99_us: p99(strike) - p99(calm),
            strike_max_us: most(strike),
            after_added_p50_us: p50(after) - p50(calm),
            after_added_p99_us: p99(after) - p99(calm),
            after_max_us: most(after),
            down_after_ms: windows.down_after_ms,
            ok_after_ms: windows.ok_after_ms,
            answered: everything().map(|one| one.answered).sum(),
            failed: everything().map(Outcome::failures).sum(),
            let_in_open: windows.let_in_open,
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
