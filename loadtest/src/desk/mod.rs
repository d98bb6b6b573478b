//! `loadtest desk`: what dashboards cost. Two merido on one store and one Redis serve a steady load, in turns with nobody
//! watching and with many dashboards open, some of which do not read.
//!
//! Shows, window by window, the requests' times, both gateways' processor time and memory; then what the view costs, that
//! every dashboard that read saw every event, and that those that did not were told of a gap. Fails (exit code 1) when an
//! event was missing without a word, when a request failed, or when nobody was told of a gap who should have been. Must
//! never leave a program running.

mod caller;
mod watcher;
mod world;

use std::path::PathBuf;
use std::thread::scope;
use std::time::Duration;

use serde::Serialize;

use crate::clock;
use crate::compare::{say, until_signalled};
use crate::generate::Stop;
use caller::Calls;
use watcher::{Seen, Watcher};
use world::World;

/// Events that all instances keep for those who are late: who does not read is overtaken after so many.
const RING: u64 = 32_768;
/// Dashboards may take so long to have seen the last event.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// merido's binary.
    #[arg(long, default_value = "target/release/merido")]
    merido: PathBuf,
    /// Requests per second over both instances; each is two events.
    #[arg(long, default_value_t = 500.0)]
    rate: f64,
    /// Dashboards, half of them at each instance.
    #[arg(long, default_value_t = 50)]
    dashboards: usize,
    /// Of these, how many open their stream and never read on.
    #[arg(long, default_value_t = 2)]
    slow: usize,
    /// How long the provider takes to answer, ms.
    #[arg(long, default_value_t = 50)]
    latency_ms: u64,
    /// Seconds of each window.
    #[arg(long, default_value_t = 40.0)]
    seconds: f64,
    /// Pairs of windows: nobody watches, all watch.
    #[arg(long, default_value_t = 2)]
    rounds: usize,
    /// Write what was measured here as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// One window.
#[derive(Debug, Clone, Serialize)]
struct Window {
    dashboards: usize,
    requests: u64,
    failed: u64,
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
    /// Processor time of both gateways, seconds a second.
    cores: f64,
    /// Memory of both together, MiB, a quarter into the window and at its end.
    rss_mib: [f64; 2],
    /// Of the dashboards that read: the fewest and the most `completed` events, and those they were told to have missed.
    seen: Option<[u64; 2]>,
    missed: u64,
    /// What one of them was sent, bytes.
    bytes: u64,
    /// Dashboards that did not read, and how many of them were then told of a gap.
    overtaken: [usize; 2],
}

pub(crate) fn run(options: &Options) -> Result<(), String> {
    let dir = tempfile::Builder::new().prefix("desk-").tempdir().map_err(|error| format!("temp dir: {error}"))?;
    let stop = Stop::default();
    let mut windows = Vec::new();
    say(HEADING)?;
    let done = until_signalled(&stop, || {
        let world = World::start(&options.merido, options.latency_ms, dir.path())?;
        // Connections, caches and pages as they are in the middle of a day.
        measure(options, &world, 0, Duration::from_secs(3), &stop)?;
        for round in 0..options.rounds * 2 {
            let many = if round % 2 == 0 { 0 } else { options.dashboards };
            let window = measure(options, &world, many, crate::run::seconds(options.seconds)?, &stop)?;
            say(&window.line())?;
            windows.push(window);
            if stop.is_set() {
                return Err("stopped by a signal".to_owned());
            }
        }
        Ok(())
    });
    if let Some(file) = &options.json {
        let json = serde_json::to_string_pretty(&windows).map_err(|error| error.to_string())?;
        std::fs::write(file, json).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    done?;
    say(&summary(options, &windows))?;
    verdict(options, &windows)
}

fn measure(
    options: &Options,
    world: &World,
    dashboards: usize,
    lasting: Duration,
    stop: &Stop,
) -> Result<Window, String> {
    let slow = options.slow.min(dashboards);
    let watchers: Vec<Watcher> =
        (0..dashboards).map(|n| Watcher::open(world.ports[n % 2], n >= slow)).collect::<Result<_, _>>()?;
    let (calls, spent, rss) = scope(|threads| {
        let reading: Vec<_> = watchers.iter().filter(|one| one.reads).map(|one| threads.spawn(|| one.read())).collect();
        let calling = threads.spawn(|| caller::call(world, options.rate, lasting, stop));
        let (before, begun) = (world.sample()?, clock::now());
        std::thread::sleep(lasting / 4);
        let early = world.sample()?;
        std::thread::sleep(lasting.saturating_sub(clock::now() - begun));
        let (after, took) = (world.sample()?, clock::now() - begun);
        let calls: Calls = calling.join().map_err(|_| "the callers' thread died".to_owned())??;
        // Who reads has seen the last of them, or never will.
        let until = clock::now() + PATIENCE;
        while clock::now() < until
            && watchers.iter().any(|one| one.reads && one.known() < calls.answered + calls.failed)
        {
            std::thread::sleep(Duration::from_millis(20));
        }
        watchers.iter().filter(|one| one.reads).for_each(Watcher::close);
        for one in reading {
            one.join().map_err(|_| "a dashboard's thread died".to_owned())?;
        }
        let spent = (after.cpu_seconds - before.cpu_seconds) / took.as_secs_f64();
        Ok::<_, String>((calls, spent, [early.rss_mib, after.rss_mib]))
    })?;
    let seen: Vec<Seen> = watchers.iter().filter(|one| one.reads).map(Watcher::seen).collect();
    let overtaken = watchers.iter().filter(|one| !one.reads).filter(|one| one.finds_a_gap(PATIENCE)).count();
    Ok(Window {
        dashboards,
        requests: calls.answered + calls.failed,
        failed: calls.failed,
        p50_us: calls.at(0.5),
        p99_us: calls.at(0.99),
        max_us: calls.at(1.0),
        cores: spent,
        rss_mib: rss,
        seen: seen
            .iter()
            .map(|one| one.completed)
            .min()
            .zip(seen.iter().map(|one| one.completed).max())
            .map(Into::into),
        missed: seen.iter().map(|one| one.missed).sum(),
        bytes: seen.iter().map(|one| one.bytes).max().unwrap_or(0),
        overtaken: [slow, overtaken],
    })
}

const HEADING: &str = "\
| dashboards | requests | p50 µs | p99 µs | max µs | gateways' cores | memory MiB: early, end | events seen: least, most | told missed | did not read: told of a gap |
|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|
";

impl Window {
    fn line(&self) -> String {
        let seen = self.seen.map_or_else(|| "–".to_owned(), |[least, most]| format!("{least}, {most}"));
        format!(
            "| {} | {} | {:.0} | {:.0} | {:.0} | {:.3} | {:.1}, {:.1} | {seen} | {} | {}: {} |\n",
            self.dashboards,
            self.requests,
            self.p50_us,
            self.p99_us,
            self.max_us,
            self.cores,
            self.rss_mib[0],
            self.rss_mib[1],
            self.missed,
            self.overtaken[0],
            self.overtaken[1],
        )
    }
}

fn summary(options: &Options, windows: &[Window]) -> String {
    let mean = |watched: bool, of: fn(&Window) -> f64| {
        let those: Vec<f64> = windows.iter().filter(|one| (one.dashboards > 0) == watched).map(of).collect();
        those.iter().sum::<f64>() / those.len().max(1) as f64
    };
    let cost = mean(true, |one| one.cores) - mean(false, |one| one.cores);
    let events = 2.0 * options.rate * options.dashboards as f64;
    let grown = windows.iter().map(|one| one.rss_mib[1] - one.rss_mib[0]).fold(0.0, f64::max);
    let change = |of: fn(&Window) -> f64| (mean(true, of) / mean(false, of) - 1.0) * 100.0;
    format!(
        "\n{:.0} events/s to {} dashboards: {cost:.3} cores of both gateways together, {:.2} µs an event and dashboard; \
         requests p50 {:+.2} %, p99 {:+.2} %; memory grew by at most {grown:.1} MiB within a window.\n",
        2.0 * options.rate,
        options.dashboards,
        cost / events * 1e6,
        change(|one| one.p50_us),
        change(|one| one.p99_us),
    )
}

/// A new dashboard may be shown half a second of the others' past (what they kept for whoever comes): never less than all.
fn verdict(options: &Options, windows: &[Window]) -> Result<(), String> {
    for window in windows {
        if window.failed > 0 {
            return Err(format!("{} requests failed", window.failed));
        }
        if let Some([least, most]) = window.seen
            && window.missed == 0
            && (least < window.requests || most > window.requests + options.rate as u64)
        {
            return Err(format!("{} requests ended; dashboards saw {least} to {most} of them", window.requests));
        }
        let [slow, told] = window.overtaken;
        // What the sockets hold on both sides was sent before the ring could overtake anybody: half as much again.
        if slow != told && window.requests * 2 > RING + RING / 2 {
            return Err(format!("{slow} dashboards did not read, {told} of them were told of a gap"));
        }
    }
    if windows.len() < 2 * options.rounds { Err("not all windows were measured".to_owned()) } else { Ok(()) }
}
