//! What requests cost the one Redis behind two instances: commands, its CPU time, and what is left of a core.
//!
//! Everything counts: limits, heartbeats, live events with somebody watching. *Sent* are commands as they came over a
//! connection, *run* those that scripts ran, too, as `INFO commandstats` has them.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

use super::Options;
use super::pair::{Pair, Who};
use super::redis::{Redis, thread};
use crate::compare::say;
use crate::generate::{Outcome, Stop};

/// Commands that only scripts run, or merido's own ones by name: what is sent but for scripts.
const SENT: &[&str] =
    &["evalsha", "script|load", "publish", "subscribe", "xread", "exists", "zrange", "ping", "asking"];

/// One kind of traffic.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    name: &'static str,
    watched: bool,
    requests: u64,
    per_second: f64,
    refused: u64,
    sent_per_request: f64,
    run_per_request: f64,
    redis_cpu_us_per_1000: f64,
    p50_us: f64,
    p99_us: f64,
    /// Events that the watcher saw, of two a request.
    seen: u64,
    /// What was sent, by name.
    sent: BTreeMap<String, u64>,
    pub(super) failed: u64,
}

/// Name, who asks, whether a dashboard watches.
const KINDS: &[(&str, Who, bool)] = &[
    ("one key at 0.8 of its limit", Who::Hot, false),
    ("10,000 slow callers", Who::Slow, false),
    ("one key at 4 times its limit", Who::Over, false),
    ("one key at 0.8 of its limit, watched", Who::Hot, true),
];

pub(super) fn run(options: &Options, dir: &Path, stop: &Stop, rows: &mut Vec<Row>) -> Result<(), String> {
    let mut redis = Redis::new(dir)?;
    redis.start()?;
    let mut pair = Pair::start(&options.merido, &options.env, &redis.direct(), None, dir)?;
    pair.says("ok")?;
    // Until they have found that nobody watches, they send their events.
    std::thread::sleep(Duration::from_secs(17));
    let window = crate::run::seconds(options.seconds * 4.0)?;
    say(
        "\n| traffic | requests/s | refused | commands sent a request | run a request | Redis CPU µs per 1,000 | p50 µs | p99 | events seen |\n\
        |---|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    )?;
    for &(name, who, watched) in KINDS {
        let watcher = if watched { Some(Watcher::open(pair.ports()[0])?) } else { None };
        // Leases and scripts first.
        pair.load(who, options.rate, options.connections, Duration::from_secs(2), stop)?;
        let (before, cpu, seen) = (calls(&mut redis)?, cpu(&mut redis)?, watcher.as_ref().map_or(0, Watcher::seen));
        let outcomes = pair.load(who, options.rate, options.connections, window, stop)?;
        let (after, cpu) = (calls(&mut redis)?, self::cpu(&mut redis)? - cpu);
        if stop.is_set() {
            return Ok(());
        }
        let mut row = Row::new(name, watched, &outcomes, &before, &after, cpu);
        if let Some(watcher) = &watcher {
            std::thread::sleep(Duration::from_millis(500));
            row.seen = watcher.seen() - seen;
        }
        say(&row.line())?;
        rows.push(row);
    }
    pair.end();
    Ok(())
}

impl Row {
    fn new(
        name: &'static str,
        watched: bool,
        outcomes: &[Outcome],
        before: &BTreeMap<String, u64>,
        after: &BTreeMap<String, u64>,
        cpu: f64,
    ) -> Self {
        let refused = outcomes.iter().map(|one| one.failed.get("status 429").copied().unwrap_or(0)).sum::<u64>();
        let requests = outcomes.iter().map(Outcome::requests).sum::<u64>();
        let ran: BTreeMap<String, u64> = after
            .iter()
            .map(|(name, count)| (name.clone(), count - before.get(name).copied().unwrap_or(0)))
            .filter(|(name, count)| *count > 0 && !["info", "quit", "echo"].contains(&&**name))
            .collect();
        let mut sent: BTreeMap<String, u64> = ran
            .iter()
            .filter(|(name, _)| SENT.contains(&&***name))
            .map(|(name, count)| (name.clone(), *count))
            .collect();
        // The script that appends events looks once itself.
        if let (Some(looks), Some(adds)) = (sent.get_mut("exists"), ran.get("xadd")) {
            *looks = looks.saturating_sub(*adds);
        }
        let of = |all: &BTreeMap<String, u64>| all.values().sum::<u64>() as f64 / requests.max(1) as f64;
        let worst = |what: fn(&Outcome) -> f64| outcomes.iter().map(what).fold(0.0, f64::max);
        Self {
            name,
            watched,
            requests,
            per_second: requests as f64 / outcomes.iter().map(|one| one.seconds).fold(1e-9, f64::max),
            refused,
            sent_per_request: of(&sent),
            run_per_request: of(&ran),
            redis_cpu_us_per_1000: cpu * 1e9 / requests.max(1) as f64,
            p50_us: worst(|one| one.latency.p50_us),
            p99_us: worst(|one| one.latency.p99_us),
            seen: 0,
            sent,
            failed: outcomes.iter().map(Outcome::failures).sum::<u64>() - refused,
        }
    }

    fn line(&self) -> String {
        format!(
            "| {} | {:.0} | {} | {:.4} | {:.4} | {:.0} | {:.0} | {:.0} | {} |\n",
            self.name,
            self.per_second,
            self.refused,
            self.sent_per_request,
            self.run_per_request,
            self.redis_cpu_us_per_1000,
            self.p50_us,
            self.p99_us,
            self.seen
        )
    }
}

/// How often each command ran.
fn calls(redis: &mut Redis) -> Result<BTreeMap<String, u64>, String> {
    let text = redis.ask("INFO commandstats")?;
    let line = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
    };
    Ok(text.lines().filter_map(line).collect())
}

/// Seconds of CPU time it used so far.
fn cpu(redis: &mut Redis) -> Result<f64, String> {
    let text = redis.ask("INFO cpu")?;
    let of = |name: &str| -> f64 {
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0.0)
    };
    Ok(of("used_cpu_user:") + of("used_cpu_sys:"))
}

/// A dashboard: follows the live events of one instance and counts them.
struct Watcher {
    stream: TcpStream,
    seen: Arc<AtomicU64>,
}

impl Watcher {
    fn open(port: u16) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("live events: {error}");
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map_err(failed)?;
        stream.write_all(b"GET /api/events HTTP/1.1\r\nhost: x\r\n\r\n").map_err(failed)?;
        let seen = Arc::<AtomicU64>::default();
        let (counted, mut reading) = (Arc::clone(&seen), stream.try_clone().map_err(failed)?);
        thread("watcher", move || {
            let (mut piece, mut tail) = (vec![0; 64 << 10], Vec::new());
            while let Ok(read @ 1..) = reading.read(&mut piece) {
                tail.extend_from_slice(&piece[..read]);
                let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                let events = tail[..whole]
                    .split(|byte| *byte == b'\n')
                    .filter(|line| line.starts_with(b"event: started") || line.starts_with(b"event: completed"));
                counted.fetch_add(events.count() as u64, Ordering::AcqRel);
                tail.drain(..whole);
            }
        })
        .map_err(failed)?;
        Ok(Self { stream, seen })
    }

    fn seen(&self) -> u64 {
        self.seen.load(Ordering::Acquire)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}
