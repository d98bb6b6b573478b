//! The program: allocator, arguments, settings, then `app` or one command; an exit code at the end.

use merido::{app, cli};
use std::io::Write as _;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let outcome = match cli::parse(std::env::args_os()) {
        Ok(cli::Command::Start(start)) => app::run(&start),
        Ok(command) => cli::run(command, &mut std::io::stdin().lock(), &mut std::io::stdout().lock()),
        Err(usage) => Err(usage),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Help and version are "failures" with code 0: they go to standard output.
            let text = failure.message.trim_end();
            let _ = if failure.code == 0 {
                writeln!(std::io::stdout(), "{text}")
            } else {
                writeln!(std::io::stderr(), "{text}")
            };
            ExitCode::from(failure.code)
        }
    }
}
