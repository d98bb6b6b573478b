//! `loadtest compare`: one load through each proxy in turn, several rounds, everything started here.
//!
//! Interleaved on purpose: a machine's mood changes within minutes, so only what ran side by side is compared, round by
//! round. Must never leave a program running: whatever was started ends with its owner here, on errors and on SIGINT or
//! SIGTERM too. A program that fails to start or a load without answers ends the comparison with that program's last lines.

pub(crate) mod child;
pub(crate) mod merido;
mod nginx;
mod report;
mod scenario;

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::generate::{Load, Stop};
use crate::mock::Ready;
use crate::procfs::Units;
use crate::request::Shape;
use crate::run::{measure, seconds, threads};

use child::Child;
use merido::Merido;
use nginx::{Nginx, Upstream};
use report::{Report, Round, Table};
use scenario::{Basis, Work};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// merido's binary.
    #[arg(long, default_value = "target/release/merido")]
    merido: PathBuf,
    /// nginx's binary.
    #[arg(long, default_value = "nginx")]
    nginx: PathBuf,
    /// What merido has switched on: a scenario's name or file; several are measured as several merido.
    #[arg(long, default_value = "everything-on")]
    basis: Vec<String>,
    /// What is asked: a scenario's name or file; several are measured one after the other.
    #[arg(long, default_values = ["unary", "sse-burst"])]
    work: Vec<String>,
    /// Who takes part, besides the mock itself (`direct`).
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["nginx", "merido"])]
    peers: Vec<Kind>,
    /// How the proxies reach the mock; `direct` is always plain.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["plain"])]
    upstream: Vec<Leg>,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds per measurement, instead of the scenario's.
    #[arg(long)]
    seconds: Option<f64>,
    /// nginx's workers and the generator's threads; 0 is one per core.
    #[arg(long, default_value_t = 0)]
    cores: usize,
    /// Write everything measured here as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Keep the temporary directory (configurations, logs) and say where it is.
    #[arg(long)]
    keep: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    Nginx,
    Merido,
}

/// The way from a proxy to the mock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Leg {
    Plain,
    Tls,
}

/// One of those that take turns: where it listens and which process tree is its.
struct Peer {
    name: String,
    port: u16,
    key: Option<String>,
    model: String,
    /// Held for its process; dropping it ends the program.
    program: Program,
}

enum Program {
    Mock(Child),
    Nginx(Nginx),
    Merido(Merido),
}

impl Peer {
    fn child(&self) -> &Child {
        match &self.program {
            Program::Mock(child) => child,
            Program::Nginx(nginx) => &nginx.child,
            Program::Merido(merido) => &merido.child,
        }
    }
}

pub(crate) fn run(options: &Options) -> Result<(), String> {
    let bases = options.basis.iter().map(|name| scenario::basis(name)).collect::<Result<Vec<_>, _>>()?;
    let works = options.work.iter().map(|name| scenario::work(name)).collect::<Result<Vec<_>, _>>()?;
    if options.rounds == 0 {
        return Err("nothing to do: no rounds".to_owned());
    }
    let dir = tempfile::Builder::new().prefix("loadtest-").tempdir().map_err(|error| format!("temp dir: {error}"))?;
    let path = dir.path().to_owned();
    let mut report = Report::new(options.peers.contains(&Kind::Nginx).then(|| nginx::version(&options.nginx)));
    if options.peers.contains(&Kind::Merido) {
        report.merido = Some(merido::version(&options.merido)?);
    }
    say(&report.heading())?;
    let stop = Stop::default();
    let measured = until_signalled(&stop, || measure_all(options, &bases, &works, &path, &stop, &mut report));
    if options.keep {
        say(&format!("kept: {}\n", dir.keep().display()))?;
    }
    // What was measured is written even when a later part failed.
    if let Some(file) = &options.json {
        let json = serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?;
        std::fs::write(file, json).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    measured?;
    let failed: u64 = report.tables.iter().map(Table::failures).sum();
    if failed > 0 {
        return Err(format!("{failed} requests failed: these figures do not count"));
    }
    Ok(())
}

fn measure_all(
    options: &Options,
    bases: &[Basis],
    works: &[Work],
    dir: &Path,
    stop: &Stop,
    report: &mut Report,
) -> Result<(), String> {
    for leg in &options.upstream {
        for work in works {
            let dir = dir.join(format!("{}-{leg:?}", work.name).to_lowercase());
            std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
            let peers = start(options, bases, work, *leg, &dir)?;
            let mut table = Table::new(work, bases, *leg, options.seconds.unwrap_or(work.load.seconds));
            for (peer, started) in peers.iter().filter_map(|peer| match &peer.program {
                Program::Merido(merido) => Some((peer, merido.started_in)),
                _ => None,
            }) {
                table.started_ms.insert(peer.name.clone(), started.as_secs_f64() * 1000.0);
            }
            let units = Units::of_this_machine();
            for round in 0..options.rounds {
                for turn in 0..peers.len() {
                    // Another one goes first in each round.
                    let peer = &peers[(turn + round) % peers.len()];
                    table.rounds.push(Round {
                        number: round,
                        peer: peer.name.clone(),
                        measured: one(options, work, peer, units, stop)?,
                    });
                    if stop.is_set() {
                        return Err("stopped by a signal".to_owned());
                    }
                }
            }
            say(&table.text())?;
            report.tables.push(table);
        }
    }
    Ok(())
}

/// Everybody who takes part, started and ready. The mock comes last in the list and so ends last.
fn start(options: &Options, bases: &[Basis], work: &Work, leg: Leg, dir: &Path) -> Result<Vec<Peer>, String> {
    let ca = dir.join("ca.pem");
    let (mock, ready) = start_mock(work, &ca, dir)?;
    let upstream = match (leg, ready.tls_port) {
        (Leg::Tls, Some(port)) => Upstream { port, ca: Some(&ca) },
        _ => Upstream { port: ready.port, ca: None },
    };
    let cores = threads(options.cores);
    let provider_model = "gpt-4o-mini".to_owned();
    let mut peers = Vec::new();
    for kind in [Kind::Nginx, Kind::Merido].into_iter().filter(|kind| options.peers.contains(kind)) {
        if kind == Kind::Nginx {
            let nginx = Nginx::start(&options.nginx, &upstream, &work.nginx, cores, dir)?;
            peers.push(Peer {
                name: "nginx".to_owned(),
                port: nginx.port,
                key: None,
                model: provider_model.clone(),
                program: Program::Nginx(nginx),
            });
            continue;
        }
        for basis in bases {
            let name = if bases.len() > 1 { format!("merido:{}", basis.name) } else { "merido".to_owned() };
            let dir = dir.join(&basis.name);
            let merido = Merido::start(&options.merido, &upstream, &basis.merido, &dir)?;
            peers.push(Peer {
                name,
                port: merido.port,
                key: Some(merido.key.clone()),
                model: merido.model.clone(),
                program: Program::Merido(merido),
            });
        }
    }
    let direct = Peer {
        name: "direct".to_owned(),
        port: ready.port,
        key: None,
        model: provider_model,
        program: Program::Mock(mock),
    };
    peers.push(direct);
    Ok(peers)
}

fn start_mock(work: &Work, ca: &Path, dir: &Path) -> Result<(Child, Ready), String> {
    let mock = &work.mock;
    let program = std::env::current_exe().map_err(|error| format!("own path: {error}"))?;
    let mut command = Command::new(program);
    command.args(["mock", "--until-stdin-closes", "--tls"]).arg(ca);
    for (flag, value) in [
        ("--threads", mock.threads as u64),
        ("--latency-ms", mock.latency_ms),
        ("--status", u64::from(mock.status)),
        ("--status-every", mock.status_every),
        ("--chunks", mock.chunks as u64),
        ("--pace-ms", mock.pace_ms),
        ("--reply-bytes", mock.reply_bytes as u64),
    ] {
        command.args([flag, &value.to_string()]);
    }
    let mut child = Child::start("mock", &mut command, dir)?;
    let ready = child.wait("line with its ports", |child| serde_json::from_str(&child.output()).ok())?;
    Ok((child, ready))
}

/// One peer's turn: warm up, then measure.
fn one(options: &Options, work: &Work, peer: &Peer, units: Units, stop: &Stop) -> Result<crate::run::Measured, String> {
    let host = format!("127.0.0.1:{}", peer.port);
    let shape = Shape {
        path: "/v1/chat/completions",
        host: &host,
        model: &peer.model,
        key: peer.key.as_deref(),
        stream: work.load.stream,
        include_usage: work.load.include_usage,
        body_bytes: work.load.body_bytes,
    };
    let load = Load {
        target: SocketAddr::from((Ipv4Addr::LOCALHOST, peer.port)),
        requests: [shape.wire()].into(),
        ending: shape.ending(),
        stamped: work.load.stream && work.mock.pace_ms > 0,
        connections: work.load.connections,
        threads: threads(options.cores),
        rate: work.load.rate,
        duration: seconds(options.seconds.unwrap_or(work.load.seconds))?,
        most: u64::MAX,
        abort: work.load.abort,
        stop: stop.clone(),
    };
    let told = |error: String| format!("{}: {error}\n{}", peer.name, peer.child().tail());
    if work.load.warmup > 0.0 {
        let warm = Load { duration: Duration::from_secs_f64(work.load.warmup), ..load.clone() }.run().map_err(told)?;
        if warm.answered == 0 && !stop.is_set() {
            return Err(told(format!("no request was answered in the warm-up: {:?}", warm.failed)));
        }
    }
    measure(&load, Some(peer.child().pid()), units).map_err(told)
}

/// Runs `work` while watching for SIGINT and SIGTERM, which set `stop`.
pub(crate) fn until_signalled<T>(stop: &Stop, work: impl FnOnce() -> T) -> T {
    std::thread::scope(|scope| {
        let (done, finished) = oneshot::channel::<()>();
        let watcher = std::thread::Builder::new().name("signals".to_owned());
        // Without the watcher a signal ends this process at once, and children that watch nothing outlive it.
        let _ = watcher.spawn_scoped(scope, move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let (mut interrupt, mut term) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
                tokio::select! {
                    _ = interrupt.recv() => stop.set(),
                    _ = term.recv() => stop.set(),
                    _ = finished => {}
                }
                io::Result::Ok(())
            })
        });
        let outcome = work();
        drop(done);
        outcome
    })
}

pub(crate) fn say(text: &str) -> Result<(), String> {
    let mut out = io::stdout();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| error.to_string())
}
