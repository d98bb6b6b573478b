//! The load harness: a mock provider, a generator, and a comparison of merido with other proxies.
//!
//! Must never leave the machine: everything listens on and aims at loopback. Fails with exit code 1 and one sentence
//! on standard error; 64 when the command line is wrong.

mod chaos;
mod child;
mod clock;
mod compare;
mod desk;
mod generate;
mod guard;
mod live;
mod mock;
mod peers;
mod procfs;
mod request;
mod run;
mod scenario;
mod wire;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
#[command(name = "loadtest", version, about = "Load generator, mock provider and proxy comparison; loopback only")]
enum Command {
    /// A provider that answers at once (or as slowly as asked), in every dialect.
    Mock(mock::Options),
    /// One load against one address.
    Run(run::Options),
    /// The same load through nginx and merido in turn, several rounds; prints medians, spreads and the ratio.
    Compare(compare::Options),
    /// Instructions and system calls a request costs, held against a budget.
    Guard(guard::Options),
    /// Which other proxies are here, and how to get them.
    Peers(peers::install::Options),
    /// Two merido and a Redis to which everything happens, under load: failures, waits and how soon it is noticed.
    Chaos(chaos::Options),
    /// What dashboards cost: requests, processor time and memory with and without many of them watching.
    Desk(desk::Options),
}

fn main() -> ExitCode {
    let command = match Command::try_parse() {
        Ok(command) => command,
        Err(error) => {
            let usage = error.use_stderr();
            let _ = error.print();
            return ExitCode::from(if usage { 64 } else { 0 });
        }
    };
    let outcome = match command {
        Command::Mock(options) => mock::serve(&options, announce).map_err(|error| format!("mock: {error}")),
        Command::Run(options) => run::run(&options),
        Command::Compare(options) => compare::run(&options),
        Command::Guard(options) => guard::run(&options),
        Command::Peers(options) => peers::install::run(&options),
        Command::Chaos(options) => chaos::run(&options),
        Command::Desk(options) => desk::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            let _ = writeln!(io::stderr(), "loadtest: {message}");
            ExitCode::FAILURE
        }
    }
}

fn announce(ready: &mock::Ready) -> io::Result<()> {
    let mut out = io::stdout();
    writeln!(out, "{}", serde_json::to_string(ready)?)?;
    out.flush()
}
