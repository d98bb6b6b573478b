//! `loadtest chaos`: what an outage of Redis costs two merido under load, cell by cell, as a table.
//!
//! Each cell has three windows: calm, strike (the fault comes a fifth into it) and after (the fault goes on); then the
//! fault ends. "Added" is a window's p99 less the calm one's just before. Must never leave a program running, and must
//! not call a run good in which a request failed: that ends with exit code 1.

mod pair;
mod redis;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::thread::scope;
use std::time::Duration;

use serde::Serialize;

use crate::clock;
use crate::compare::{say, until_signalled};
use crate::generate::{Outcome, Stop};
use pair::Pair;
use redis::Redis;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// merido's binary.
    #[arg(long, default_value = "target/release/merido")]
    merido: PathBuf,
    /// Requests per second over both instances.
    #[arg(long, default_value_t = 2000.0)]
    rate: f64,
    /// Connections to each instance.
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Seconds of each window.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Only cells whose name holds this.
    #[arg(long, default_value = "")]
    only: String,
    /// Further settings of both instances, as `NAME=VALUE`.
    #[arg(long)]
    env: Vec<String>,
    /// Write the table here as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What befalls Redis and how it ends. A fault that nobody can see (a flush, a reset) ends by itself.
struct Fault {
    name: &'static str,
    strike: fn(&mut Redis) -> Result<(), String>,
    mend: Option<fn(&mut Redis) -> Result<(), String>>,
}

const FAULTS: &[Fault] = &[
    Fault { name: "nothing", strike: |_| Ok(()), mend: None },
    Fault { name: "killed", strike: |r| r.kill(), mend: Some(Redis::start) },
    Fault { name: "frozen", strike: |r| r.signal("STOP"), mend: Some(|r| r.signal("CONT")) },
    Fault {
        name: "200 ms slow",
        strike: |r| r.delay(Duration::from_millis(200)),
        mend: Some(|r| r.delay(Duration::ZERO)),
    },
    Fault { name: "restarted empty", strike: |r| r.kill().and_then(|()| r.start()), mend: None },
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
    Fault { name: "connections reset", strike: |r| r.command("CLIENT KILL TYPE normal"), mend: None },
];

/// One row of the table.
#[derive(Debug, Clone, Serialize)]
struct Cell {
    name: String,
    calm_p99_us: f64,
    strike_added_p99_us: f64,
    strike_max_us: f64,
    after_added_p99_us: f64,
    after_max_us: f64,
    /// From the fault until both say `down`; none where nothing is to be noticed.
    down_after_ms: Option<u64>,
    /// From its end until both say `ok`.
    ok_after_ms: Option<u64>,
    answered: u64,
    failed: u64,
}

pub(crate) fn run(options: &Options) -> Result<(), String> {
    let dir = tempfile::Builder::new().prefix("chaos-").tempdir().map_err(|error| format!("temp dir: {error}"))?;
    let stop = Stop::default();
    let mut cells = Vec::new();
    say(HEADING)?;
    let done = until_signalled(&stop, || all(options, dir.path(), &stop, &mut cells));
    if let Some(file) = &options.json {
        let json = serde_json::to_string_pretty(&cells).map_err(|error| error.to_string())?;
        std::fs::write(file, json).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    done?;
    match cells.iter().map(|cell| cell.failed).sum::<u64>() {
        0 => Ok(()),
        failed => Err(format!("{failed} requests failed")),
    }
}

fn all(options: &Options, dir: &std::path::Path, stop: &Stop, cells: &mut Vec<Cell>) -> Result<(), String> {
    let window = crate::run::seconds(options.seconds)?;
    let rate = crate::run::rate(Some(options.rate))?.unwrap_or(1.0);
    let mut redis = Redis::new(dir)?;
    // Absent at boot: the first cell, if it is wanted; in any case a gateway must come up without it.
    let pair = Pair::start(&options.merido, &options.env, redis.url(), dir)?;
    pair.load(rate, options.connections, Duration::from_secs(1), stop)?;
    if "down at boot".contains(&options.only) {
        let outcome = pair.load(rate, options.connections, window, stop)?;
        redis.start()?;
        let began = clock::now();
        pair.says("ok")?;
        let ok_after_ms = Some((clock::now() - began).as_millis() as u64);
        let calm = pair.load(rate, options.connections, window, stop)?;
        let cell = Cell::new("down at boot", &calm, &outcome, &outcome, None, ok_after_ms);
        say(&cell.line())?;
        cells.push(cell);
    } else {
        redis.start()?;
        pair.says("ok")?;
    }
    for fault in FAULTS.iter().filter(|fault| fault.name.contains(&options.only)) {
        let calm = pair.load(rate, options.connections, window, stop)?;
        let (strike, down_after_ms) = scope(|threads| {
            let load = threads.spawn(|| pair.load(rate, options.connections, window, stop));
            std::thread::sleep(window / 5);
            let began = clock::now();
            let struck = (fault.strike)(&mut redis);
            let down = match (fault.mend, struck) {
                (_, Err(error)) => Err(error),
                (None, Ok(())) => Ok(None),
                (Some(_), Ok(())) => pair.says("down").map(|()| Some((clock::now() - began).as_millis() as u64)),
            };
            let load = load.join().map_err(|_| "the load's thread died".to_owned())?;
            Ok::<_, String>((load?, down?))
        })?;
        let after = pair.load(rate, options.connections, window, stop)?;
        let ok_after_ms = match fault.mend {
            None => None,
            Some(mend) => {
                mend(&mut redis)?;
                let began = clock::now();
                pair.says("ok")?;
                Some((clock::now() - began).as_millis() as u64)
            }
        };
        pair.says("ok")?;
        if stop.is_set() {
            return Err("stopped by a signal".to_owned());
        }
        let cell = Cell::new(fault.name, &calm, &strike, &after, down_after_ms, ok_after_ms);
        say(&cell.line())?;
        cells.push(cell);
    }
    Ok(())
}

const HEADING: &str = "\
| what befalls Redis | calm p99 µs | strike: added p99 | max | after: added p99 | max | down after ms | ok after ms | answered | failed |
|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|
";

impl Cell {
    fn new(
        name: &str,
        calm: &[Outcome],
        strike: &[Outcome],
        after: &[Outcome],
        down_after_ms: Option<u64>,
        ok_after_ms: Option<u64>,
    ) -> Self {
        // The worse of the two instances.
        let p99 = |of: &[Outcome]| of.iter().map(|one| one.latency.p99_us).fold(0.0, f64::max);
        let most = |of: &[Outcome]| of.iter().map(|one| one.latency.max_us).fold(0.0, f64::max);
        let everything = || [calm, strike, after].into_iter().flatten();
        Self {
            name: name.to_owned(),
            calm_p99_us: p99(calm),
            strike_added_p99_us: p99(strike) - p99(calm),
            strike_max_us: most(strike),
            after_added_p99_us: p99(after) - p99(calm),
            after_max_us: most(after),
            down_after_ms,
            ok_after_ms,
            answered: everything().map(|one| one.answered).sum(),
            failed: everything().map(Outcome::failures).sum(),
        }
    }

    fn line(&self) -> String {
        let ms = |ms: Option<u64>| ms.map_or_else(|| "–".to_owned(), |ms| ms.to_string());
        let mut line = String::new();
        let _ = writeln!(
            line,
            "| {} | {:.0} | {:+.0} | {:.0} | {:+.0} | {:.0} | {} | {} | {} | {} |",
            self.name,
            self.calm_p99_us,
            self.strike_added_p99_us,
            self.strike_max_us,
            self.after_added_p99_us,
            self.after_max_us,
            ms(self.down_after_ms),
            ms(self.ok_after_ms),
            self.answered,
            self.failed
        );
        line
    }
}
