//! `loadtest compare`: one load through each proxy in turn, several rounds, everything started here.
//!
//! Interleaved on purpose: a machine's mood changes within minutes, so only what ran side by side is compared, round by
//! round. Must never leave a program running: whatever was started ends with its owner here, on errors and on SIGINT or
//! SIGTERM too. A peer that is not on this machine is said and left out; a program that fails to start or a load without
//! answers ends the comparison with that program's last lines.

mod html;
mod report;
mod text;
mod turn;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::generate::Stop;
use crate::peers::{self, Kind, MODEL, Peer, Site, Upstream, install, merido};
use crate::procfs::Units;
use crate::run::threads;
use crate::scenario::{self, Basis, Work};
use report::{Report, Table};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// merido's binary.
    #[arg(long, default_value = "target/release/merido")]
    merido: PathBuf,
    /// A second merido binary, measured beside the first on the same bases (say, of another commit).
    #[arg(long)]
    merido_other: Option<PathBuf>,
    /// nginx's binary, instead of the one on the PATH.
    #[arg(long)]
    nginx: Option<PathBuf>,
    /// Where `loadtest peers install` put the others.
    #[arg(long, default_value = install::PLACE)]
    peers_dir: PathBuf,
    /// What merido has switched on: a scenario's name or file; several are measured as several merido.
    #[arg(long, default_value = "everything-on")]
    basis: Vec<String>,
    /// What is asked: a scenario's name or file; several are measured one after the other.
    #[arg(long, default_values = ["unary", "sse-burst"])]
    work: Vec<String>,
    /// Who takes part, besides the mock itself (`direct`).
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["nginx", "merido"])]
    peers: Vec<Kind>,
    /// Whom ratios are taken against, by the name its row has; the first row otherwise.
    #[arg(long, default_value = "nginx")]
    against: String,
    /// How the proxies reach the mock; `direct` is always plain.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["plain"])]
    upstream: Vec<Leg>,
    /// merido's instances, instead of what the basis says.
    #[arg(long)]
    instances: Option<usize>,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds per measurement, instead of the scenario's.
    #[arg(long)]
    seconds: Option<f64>,
    /// Connections, instead of the scenario's.
    #[arg(long)]
    connections: Option<usize>,
    /// Workers of the peers and threads of the generator; 0 is one per core.
    #[arg(long, default_value_t = 0)]
    cores: usize,
    /// Write everything measured here as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write everything measured here as one page to look at, with plots; it needs nothing else.
    #[arg(long)]
    html: Option<PathBuf>,
    /// Keep the temporary directory (configurations, logs) and say where it is.
    #[arg(long)]
    keep: bool,
    /// Say which bases and works ride in the binary, and do nothing.
    #[arg(long)]
    list: bool,
}

/// The way from a proxy to the mock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Leg {
    Plain,
    Tls,
}

impl Leg {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Tls => "tls",
        }
    }
}

pub(crate) fn run(options: &Options) -> Result<(), String> {
    if options.list {
        return say(&scenario::list());
    }
    let mut bases = options.basis.iter().map(|name| scenario::basis(name)).collect::<Result<Vec<_>, _>>()?;
    let mut works = options.work.iter().map(|name| scenario::work(name)).collect::<Result<Vec<_>, _>>()?;
    for basis in &mut bases {
        basis.merido.instances = options.instances.unwrap_or(basis.merido.instances);
    }
    for work in &mut works {
        work.load.connections = options.connections.unwrap_or(work.load.connections);
        work.load.seconds = options.seconds.unwrap_or(work.load.seconds);
        crate::run::seconds(work.load.seconds)?;
    }
    if options.rounds == 0 {
        return Err("nothing to do: no rounds".to_owned());
    }
    raise_open_files();
    let dir = tempfile::Builder::new().prefix("loadtest-").tempdir().map_err(|error| format!("temp dir: {error}"))?;
    let path = dir.path().to_owned();
    let mut report = Report::new();
    say(&report.heading())?;
    let stop = Stop::default();
    let measured = until_signalled(&stop, || measure_all(options, &bases, &works, &path, &stop, &mut report));
    if options.keep {
        say(&format!("kept: {}\n", dir.keep().display()))?;
    }
    // What was measured is written even when a later part failed.
    let json = serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?;
    for (file, text) in [(&options.json, &json), (&options.html, &html::page(&json))] {
        if let Some(file) = file {
            std::fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))?;
        }
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
    let units = Units::of_this_machine();
    for leg in &options.upstream {
        for work in works {
            let dir = dir.join(format!("{}-{}", work.name, leg.name()));
            std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
            let peers = start(options, bases, work, *leg, &dir, report)?;
            let mut table = Table::new(work, bases, leg.name(), &peers, &options.against);
            let turns = turn::Turns { work, cores: threads(options.cores), units, stop };
            for round in 0..options.rounds {
                for turn in 0..peers.len() {
                    // Another one goes first in each round.
                    let peer = &peers[(turn + round) % peers.len()];
                    let title = format!("{} {} · round {}/{}", work.name, leg.name(), round + 1, options.rounds);
                    turns.take(peer, round, &title, &mut table)?;
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
fn start(
    options: &Options,
    bases: &[Basis],
    work: &Work,
    leg: Leg,
    dir: &Path,
    report: &mut Report,
) -> Result<Vec<Peer>, String> {
    let ca = dir.join("ca.pem");
    let (mock, ready) = peers::mock(&work.mock, Some(&ca), dir)?;
    let upstream = match (leg, ready.tls_port) {
        (Leg::Tls, Some(port)) => Upstream { port, ca: Some(&ca) },
        _ => Upstream { port: ready.port, ca: None },
    };
    let open_files = crate::procfs::open_files("self").map_or(1024, |(soft, _)| soft.min(100_000) as usize);
    // What nginx reserves memory for: two connections each, and some to spare.
    let most =
        work.load.hold.iter().flat_map(|hold| hold.steps.iter().copied()).fold(work.load.connections, usize::max);
    let open_files = open_files.min(2 * most + 1024);
    let site = Site { upstream: upstream.clone(), cores: threads(options.cores), dir, nginx: &work.nginx, open_files };
    let mut peers = Vec::new();
    for kind in Kind::OTHERS.into_iter().filter(|kind| options.peers.contains(kind)) {
        let name = kind.name();
        if leg == Leg::Tls && !kind.speaks_tls() {
            report.skip(&format!("{name} (tls)"), &format!("{name} is left out over TLS"))?;
            continue;
        }
        let asked = options.nginx.clone().filter(|_| kind == Kind::Nginx);
        let Some(program) = asked.or_else(|| kind.find(&options.peers_dir)) else {
            report.skip(name, &format!("{name} is not here and left out; loadtest peers install {name}"))?;
            continue;
        };
        peers.push(peers::start(kind, &program, &site)?);
    }
    let others = options.merido_other.iter().map(|binary| ("other", binary));
    let binaries = std::iter::once(("", &options.merido)).chain(others);
    for (mark, binary) in binaries.filter(|_| options.peers.contains(&Kind::Merido)) {
        for basis in bases {
            let mut name = if bases.len() > 1 { format!("merido:{}", basis.name) } else { "merido".to_owned() };
            if !mark.is_empty() {
                name = format!("{name} ({mark})");
            }
            let dir = dir.join(format!("{}{mark}", basis.name));
            crate::live::show(&format!("starting {name}"));
            peers.push(merido::start(&merido::Plan {
                name: &name,
                binary,
                upstream: &upstream,
                switches: &basis.merido,
                dir: &dir,
                under: &[],
            })?);
        }
    }
    crate::live::show("");
    for peer in &peers {
        report.versions.insert(peer.name.clone(), peer.version.clone());
    }
    let mut direct = Peer::plain("direct", String::new(), ready.port, mock);
    MODEL.clone_into(&mut direct.model);
    peers.push(direct);
    Ok(peers)
}

/// Lets this process, and whatever it starts, open as many files as the machine allows. What it may not, the work that
/// needs them says.
fn raise_open_files() {
    let own = std::process::id().to_string();
    if let Some((soft, hard)) = crate::procfs::open_files("self").filter(|(soft, hard)| soft < hard) {
        let _ = Command::new("prlimit").args(["--pid", &own, &format!("--nofile={}:{hard}", hard.max(soft))]).status();
    }
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
