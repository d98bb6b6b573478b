//! The program: allocator, arguments, settings, then `app` or one command; an exit code at the end.

use merido::app;
use merido::cli::{self, Command, EXIT_USAGE, Stop};
use merido::config::{Inputs, Settings, load};
use std::io::{BufReader, Write as _};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let Err(stop) = run() else { return ExitCode::SUCCESS };
    // A closed standard output or error is no reason to fail once more.
    let _ = if stop.code == cli::EXIT_OK {
        writeln!(std::io::stdout(), "{}", stop.message)
    } else {
        writeln!(std::io::stderr(), "merido: {}", stop.message)
    };
    ExitCode::from(stop.code)
}

fn run() -> Result<(), Stop> {
    let invocation = cli::parse(std::env::args_os())?;
    let env: Vec<_> = std::env::vars_os().collect();
    let mut inputs = Inputs { config_file: invocation.config, env: &env, ..Inputs::default() };
    match invocation.command {
        Command::Start(start) => {
            (inputs.host, inputs.port) = (start.host, start.port);
            app::run(settings(&inputs)?).map_err(Stop::failure)
        }
        command => {
            inputs.command = true;
            let (settings, mut input) = (settings(&inputs)?, BufReader::new(std::io::stdin()));
            app::command(cli::run(command, &settings, &mut input, &mut std::io::stdout()))
        }
    }
}

/// The settings, or all that is wrong with them.
fn settings(inputs: &Inputs<'_>) -> Result<Settings, Stop> {
    match load(inputs) {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                let _ = writeln!(std::io::stderr(), "merido: warning: {warning}");
            }
            Ok(loaded.settings)
        }
        Err(mistakes) => {
            let list: Vec<String> = mistakes.iter().map(|mistake| format!("  {mistake}")).collect();
            Err(Stop { message: format!("wrong settings:\n{}", list.join("\n")), code: EXIT_USAGE })
        }
    }
}
