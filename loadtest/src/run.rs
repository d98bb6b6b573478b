//! `loadtest run`: one load against one address, its result as text or JSON.
//!
//! Must never report a run without a single answer as a success: that ends with exit code 1.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::generate::{Load, Outcome, Quantiles, Requests, Stop};
use crate::live;
use crate::procfs::{Sample, Units};
use crate::request::Shape;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Where to send, `http://127.0.0.1:PORT[/path]`; the path is `/v1/chat/completions` unless given.
    #[arg(long)]
    url: String,
    /// Model named in the request.
    #[arg(long, default_value = "gpt-4o-mini")]
    model: String,
    /// Sent as `Authorization: Bearer`.
    #[arg(long)]
    key: Option<String>,
    /// Ask for an event stream.
    #[arg(long)]
    stream: bool,
    /// Ask for usage at the end of the stream.
    #[arg(long)]
    include_usage: bool,
    /// Measure each event's delay (the mock must run with `--pace-ms`).
    #[arg(long)]
    event_delay: bool,
    #[arg(long, default_value_t = 930)]
    body_bytes: usize,
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Threads of the closed loop; 0 is one per core.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// The connections of a closed loop begin over so many milliseconds instead of all at once.
    #[arg(long, default_value_t = 0)]
    spread_ms: u64,
    /// Open loop: requests per second. Without it a closed loop at full speed.
    #[arg(long)]
    rate: Option<f64>,
    /// Seconds.
    #[arg(long, default_value_t = 5.0)]
    duration: f64,
    /// Stop after so many requests.
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
    requests: u64,
    /// Share of requests dropped after the first bytes of their reply, 0 to 1.
    #[arg(long, default_value_t = 0.0)]
    abort: f64,
    /// Process whose tree's CPU time and memory are measured.
    #[arg(long)]
    pid: Option<u32>,
    /// Write the result here as JSON; `-` is standard output, instead of the text.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// A run and what the watched process used for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) outcome: Outcome,
    pub(crate) process: Option<Usage>,
    /// What it cost the Redis behind it, when there is one of ours.
    pub(crate) redis: Option<RedisUsage>,
}

/// What a run cost Redis.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct RedisUsage {
    /// Commands as Redis counts them: those inside scripts, too.
    pub(crate) commands_per_request: f64,
    pub(crate) cpu_us_per_request: f64,
    pub(crate) commands: u64,
}

/// CPU time per request and memory of some process trees over one run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Usage {
    pub(crate) cpu_us_per_request: f64,
    pub(crate) cpu_seconds: f64,
    /// At the end.
    pub(crate) rss_mib: f64,
    /// Before the first request.
    pub(crate) rss_before_mib: f64,
    /// CPU seconds of the busiest threads, the busiest first; at most 16.
    pub(crate) threads: Vec<f64>,
}

/// Runs the load while watching process trees. CPU time is divided by every request begun, answered or not: refusals
/// cost too. `around` runs what it is given, and may show how far it has come.
pub(crate) fn measure(
    load: &Load,
    pids: &[u32],
    units: Units,
    around: impl FnOnce(&dyn Fn() -> Result<Outcome, String>) -> Result<Outcome, String>,
) -> Result<Measured, String> {
    let before = units.sample_all(pids)?;
    let outcome = around(&|| load.run())?;
    let after = units.sample_all(pids)?;
    let process = (!pids.is_empty()).then(|| usage(&before, &after, outcome.requests()));
    Ok(Measured { outcome, process, redis: None })
}

fn usage(before: &Sample, after: &Sample, requests: u64) -> Usage {
    let cpu_seconds = (after.cpu_seconds - before.cpu_seconds).max(0.0);
    Usage {
        cpu_us_per_request: cpu_seconds * 1e6 / requests.max(1) as f64,
        cpu_seconds,
        rss_mib: after.rss_mib,
        rss_before_mib: before.rss_mib,
        threads: after.busiest_since(before, 16),
    }
}

pub(crate) fn run(options: &Options) -> Result<(), String> {
    let (host, target, path) = address(&options.url)?;
    let shape = Shape {
        path: &path,
        host: &host,
        model: &options.model,
        key: options.key.as_deref(),
        stream: options.stream,
        include_usage: options.include_usage,
        body_bytes: options.body_bytes,
        headers: &[],
    };
    let load = Load {
        targets: vec![target],
        requests: Arc::new(Requests::one(shape.form("", options.event_delay))),
        connections: options.connections,
        threads: threads(options.threads),
        spread: Duration::from_millis(options.spread_ms),
        rate: rate(options.rate)?,
        duration: seconds(options.duration)?,
        most: options.requests,
        abort: options.abort,
        stop: Stop::default(),
        begun: Arc::default(),
    };
    let pids: Vec<u32> = options.pid.into_iter().collect();
    let measured = measure(&load, &pids, Units::of_this_machine(), |what| live::watch(what, "", &load))?;
    let json = || serde_json::to_string_pretty(&measured).map_err(|error| error.to_string());
    let to_stdout = options.json.as_deref().is_some_and(|path| path.as_os_str() == "-");
    let text = if to_stdout { json()? + "\n" } else { describe(&measured) };
    io::stdout().write_all(text.as_bytes()).map_err(|error| error.to_string())?;
    if let Some(path) = options.json.as_deref().filter(|_| !to_stdout) {
        std::fs::write(path, json()?).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    if measured.outcome.answered + measured.outcome.abandoned == 0 {
        return Err(format!("no request was answered: {:?}", measured.outcome.failed));
    }
    Ok(())
}

/// 0 is one per core.
pub(crate) fn threads(asked: usize) -> usize {
    if asked > 0 { asked } else { std::thread::available_parallelism().map_or(1, usize::from) }
}

/// A run lasts longer than nothing and at most an hour.
pub(crate) fn seconds(asked: f64) -> Result<Duration, String> {
    if asked > 0.0 && asked <= 3600.0 {
        Ok(Duration::from_secs_f64(asked))
    } else {
        Err(format!("a run lasts more than 0 and at most 3600 seconds, not {asked}"))
    }
}

/// A rate must be a positive number of requests a second.
pub(crate) fn rate(asked: Option<f64>) -> Result<Option<f64>, String> {
    match asked {
        Some(rate) if !(rate > 0.0 && rate <= 1e6) => {
            Err(format!("a rate is more than 0 and at most 1000000/s, not {rate}"))
        }
        rate => Ok(rate),
    }
}

/// Host header, address and path of an `http://` URL.
fn address(url: &str) -> Result<(String, SocketAddr, String), String> {
    let rest = url.strip_prefix("http://").ok_or_else(|| format!("{url}: only http:// URLs are understood"))?;
    let (host, path) = match rest.find('/') {
        Some(at) if rest.len() > at + 1 => rest.split_at(at),
        Some(at) => (&rest[..at], "/v1/chat/completions"),
        None => (rest, "/v1/chat/completions"),
    };
    let named = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let target = named.to_socket_addrs().map_err(|error| format!("{host}: {error}"))?.next();
    Ok((host.to_owned(), target.ok_or_else(|| format!("{host}: no address"))?, path.to_owned()))
}

/// A run as lines of text.
fn describe(measured: &Measured) -> String {
    let Measured { outcome, process, .. } = measured;
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{} answered in {:.2} s: {:.0}/s; {} abandoned, {} failed",
        outcome.answered,
        outcome.seconds,
        outcome.per_second,
        outcome.abandoned,
        outcome.failures()
    );
    for (reason, count) in &outcome.failed {
        let _ = writeln!(text, "  failed: {reason}: {count}");
    }
    let mut line = |name: &str, of: &Quantiles| {
        if of.count == 0 {
            return;
        }
        let _ = writeln!(
            text,
            "{name:<12} p50 {:>9.0} µs  p90 {:>9.0}  p99 {:>9.0}  p99.9 {:>9.0}  max {:>9.0}",
            of.p50_us, of.p90_us, of.p99_us, of.p999_us, of.max_us
        );
    };
    line("latency", &outcome.latency);
    line("first byte", &outcome.first_byte);
    for (name, of) in &outcome.forms {
        line(name, of);
    }
    if let Some(delay) = &outcome.event_delay {
        line("event delay", delay);
    }
    if let Some(process) = process {
        let _ = writeln!(
            text,
            "process tree: {:.1} µs CPU per request ({:.2} s in all), {:.1} MiB resident",
            process.cpu_us_per_request, process.cpu_seconds, process.rss_mib
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let (host, target, path) = address("http://127.0.0.1:81/v1/messages").unwrap();
        assert_eq!((host.as_str(), target.port(), path.as_str()), ("127.0.0.1:81", 81, "/v1/messages"));
        assert_eq!(address("http://127.0.0.1").unwrap().2, "/v1/chat/completions");
        assert_eq!(address("http://127.0.0.1/").unwrap().1.port(), 80);
        assert!(address("https://127.0.0.1").is_err());
    }

    #[test]
    fn cpu_is_shared_out_over_requests() {
        let at = |cpu_seconds| Sample { cpu_seconds, rss_mib: 5.0, ..Sample::default() };
        let used = usage(&at(1.0), &at(1.5), 10_000);
        assert!((used.cpu_us_per_request - 50.0).abs() < 1e-6);
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(seconds(0.0).is_err() && seconds(f64::NAN).is_err() && rate(Some(-1.0)).is_err());
        assert!(rate(Some(2000.0)).is_ok_and(|rate| rate == Some(2000.0)));
    }
}
