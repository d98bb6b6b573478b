//! `loadtest guard`: what a request costs in instructions and system calls, held against a budget in the repository.
//!
//! The gateway runs under callgrind (or strace) with everything on and one core; the same work is sent to it twice, few
//! requests and many, and the difference divided by the difference is a request's own cost: start, shutdown and idle
//! ticks cancel out. Instructions do not depend on what else the machine does, so a few per cent more are a change of the
//! code. Must never time anything, and never pass what it could not measure: a tool that is missing is an error unless
//! it was not asked for.

mod budget;
mod read;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::compare::{say, until_signalled};
use crate::generate::{Load, Stop};
use crate::peers::{self, Upstream, merido};
use crate::scenario::{self, Work};
use budget::{Budget, Cost};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// merido's binary. Budgets hold for one profile: that of `cargo build --profile quick`.
    #[arg(long, default_value = "target/quick/merido")]
    merido: PathBuf,
    /// The budget; what it does not name is not looked at.
    #[arg(long, default_value = "benches/budget.toml")]
    budget: PathBuf,
    /// Only this work of the budget.
    #[arg(long)]
    only: Option<String>,
    /// What is counted.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["instructions", "syscalls"])]
    count: Vec<Count>,
    /// Requests of the short run; the long one has `--requests` more.
    #[arg(long, default_value_t = 200)]
    first: u64,
    #[arg(long, default_value_t = 1000)]
    requests: u64,
    /// Keep the profiles in this directory (`callgrind_annotate` reads them).
    #[arg(long)]
    keep: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Count {
    /// By valgrind's callgrind, on the thread that serves requests.
    Instructions,
    /// By strace, of all threads.
    Syscalls,
}

pub(crate) fn run(options: &Options) -> Result<(), String> {
    let budget = Budget::read(&options.budget)?;
    let dir = tempfile::Builder::new().prefix("guard-").tempdir().map_err(|error| format!("temp dir: {error}"))?;
    let root = options.keep.clone().unwrap_or_else(|| dir.path().to_owned());
    let stop = Stop::default();
    let over = until_signalled(&stop, || {
        let mut over = Vec::new();
        for (name, allowed) in
            budget.works.iter().filter(|(name, _)| options.only.as_ref().is_none_or(|only| only == *name))
        {
            let work = scenario::work(name)?;
            for count in &options.count {
                let cost = match count {
                    Count::Instructions => instructions(options, &work, &root, &stop)?,
                    Count::Syscalls => syscalls(options, &work, &root, &stop)?,
                };
                let (line, is_over) = allowed.judge(name, &cost, budget.tolerance);
                say(&line)?;
                if is_over {
                    over.push(line);
                }
            }
        }
        Ok::<_, String>(over)
    })?;
    if over.is_empty() {
        return Ok(());
    }
    Err(format!(
        "over budget:\n{}A change that is worth its cost raises the number in {} and says why there.",
        over.concat(),
        options.budget.display()
    ))
}

/// The thread that serves requests is the one whose count grows most; the others' growth is shown beside it.
fn instructions(options: &Options, work: &Work, root: &Path, stop: &Stop) -> Result<Cost, String> {
    let profile = |requests: u64, name: &str| {
        let dir = room(root, &format!("{}-{name}", work.name))?;
        let out = dir.join("callgrind.out");
        let valgrind = ["valgrind", "--tool=callgrind", "--separate-threads=yes", "--quiet", "--dump-line=no"];
        let mut under: Vec<String> = valgrind.map(str::to_owned).to_vec();
        under.push(format!("--callgrind-out-file={}", out.display()));
        drive(options, work, requests, &under, &dir, stop)?;
        read::threads(&dir, "callgrind.out")
    };
    let (few, many) = (profile(options.first, "few")?, profile(options.first + options.requests, "many")?);
    let grown = |thread: &u32| many[thread].saturating_sub(few.get(thread).copied().unwrap_or(0));
    let busiest = many.keys().copied().max_by_key(grown).ok_or("callgrind counted no thread")?;
    let elsewhere: u64 = many.keys().filter(|thread| **thread != busiest).map(grown).sum();
    let each = |count: u64| count as f64 / options.requests as f64;
    Ok(Cost::Instructions { core: each(grown(&busiest)), elsewhere: each(elsewhere) })
}

fn syscalls(options: &Options, work: &Work, root: &Path, stop: &Stop) -> Result<Cost, String> {
    let count = |requests: u64, name: &str| {
        let dir = room(root, &format!("{}-{name}-calls", work.name))?;
        let out = dir.join("strace.out");
        let under = ["strace", "--follow-forks", "--summary-only", "--output"].map(str::to_owned);
        let under = [&under[..], &[out.display().to_string()]].concat();
        drive(options, work, requests, &under, &dir, stop)?;
        let text = std::fs::read_to_string(&out).map_err(|error| format!("{}: {error}", out.display()))?;
        Ok::<_, String>(read::calls(&text))
    };
    // Calls are cheap to count, so chance gets less room.
    let more = options.requests * 4;
    let (few, many) = (count(options.first, "few")?, count(options.first + more, "many")?);
    let each = many.into_iter().map(|(call, count)| {
        let before = few.get(&call).copied().unwrap_or(0);
        (call, count.saturating_sub(before) as f64 / more as f64)
    });
    Ok(Cost::Syscalls(each.filter(|(_, each)| *each >= 0.005).collect()))
}

fn room(root: &Path, name: &str) -> Result<PathBuf, String> {
    let dir = root.join(name);
    std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    Ok(dir)
}

/// A gateway under a tool, with everything on and one core: so many requests over one connection, one after the other,
/// then a clean end, since the tools write when their program ends.
fn drive(
    options: &Options,
    work: &Work,
    requests: u64,
    under: &[String],
    dir: &Path,
    stop: &Stop,
) -> Result<(), String> {
    let (_mock, ready) = peers::mock(&work.mock, None, dir)?;
    let upstream = Upstream { port: ready.port, ca: None };
    let mut basis = scenario::basis("everything-on")?;
    basis.merido.env.insert("MERIDO_WORKERS".to_owned(), "1".to_owned());
    let plan = merido::Plan {
        name: "merido",
        binary: &options.merido,
        upstream: &upstream,
        switches: &basis.merido,
        dir,
        under,
    };
    let mut peer = merido::start(&plan)?;
    let key = peer.keys.first().map(String::as_str);
    let load = Load {
        targets: vec![std::net::SocketAddr::from(([127, 0, 0, 1], peer.ports[0]))],
        requests: Arc::new(work.requests(&peer.model, key, &[])?),
        connections: 1,
        threads: 1,
        spread: Duration::ZERO,
        rate: None,
        duration: Duration::from_secs(300),
        most: requests,
        abort: 0.0,
        stop: stop.clone(),
        begun: Arc::default(),
    };
    let outcome = load.run()?;
    if outcome.answered != requests {
        return Err(format!("{} of {requests} answered: {:?}\n{}", outcome.answered, outcome.failed, peer.tail()));
    }
    let ended = peer.children.iter_mut().all(crate::child::Child::end);
    if ended { Ok(()) } else { Err(format!("merido did not end\n{}", peer.tail())) }
}
