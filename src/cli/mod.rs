//! The command line: arguments, and what each command does to the store.
//!
//! Commands work on the store itself, the same one a running gateway uses; that one notices within 100 ms. Results go
//! to the writer they are given, messages come back as [`Stop`] for `main` to print. No command prints a secret but
//! the one it has just made.

mod args;
mod check;
mod healthcheck;
mod noted;
mod print;
mod run;

pub use args::{
    AddModel, AddProvider, Command, CreateKey, CreateToken, Keys, Listing, Models, Providers, StartArgs, Tokens,
};
pub use run::run;

use crate::store::{StoreError, StoreErrorKind};
use clap::Parser as _;
use clap::error::ErrorKind;
use std::ffi::OsString;
use std::path::PathBuf;

/// Done, or `--help` and `--version`.
pub const EXIT_OK: u8 = 0;
/// It could not be done.
pub const EXIT_FAILURE: u8 = 1;
/// Bad usage or configuration.
pub const EXIT_USAGE: u8 = 64;

/// What the arguments ask for.
#[derive(Debug)]
pub struct Invocation {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// The command; `Start` when none is named.
    pub command: Command,
}

/// Why it ends here: a message (for stdout when `code` is 0, else for stderr) and the exit code.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stop {
    /// For people; ends without a line break.
    pub message: String,
    /// [`EXIT_OK`], [`EXIT_FAILURE`], [`EXIT_USAGE`].
    pub code: u8,
}

/// Reads the arguments, the program's name first. Help and version come back as a [`Stop`] with code 0.
pub fn parse(args: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Invocation, Stop> {
    let cli = args::Cli::try_parse_from(args).map_err(|e| {
        let code = match e.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => EXIT_OK,
            _ => EXIT_USAGE,
        };
        Stop { message: e.to_string().trim_end().to_owned(), code }
    })?;
    let command = match cli.command {
        None => Command::Start(cli.start),
        Some(Command::Start(start)) => {
            let (host, port) = (start.host.or(cli.start.host), start.port.or(cli.start.port));
            Command::Start(StartArgs { host, port })
        }
        Some(_) if cli.start != StartArgs::default() => {
            return Err(Stop::usage("--host and --port belong to `merido start`"));
        }
        Some(other) => other,
    };
    Ok(Invocation { config: cli.config, command })
}

impl Stop {
    /// Bad usage.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: EXIT_USAGE }
    }

    /// A failure.
    pub fn failure(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: EXIT_FAILURE }
    }
}

impl From<StoreError> for Stop {
    fn from(e: StoreError) -> Self {
        let code = if matches!(e.kind, StoreErrorKind::Invalid(_)) { EXIT_USAGE } else { EXIT_FAILURE };
        Self { message: e.to_string(), code }
    }
}

impl From<std::io::Error> for Stop {
    fn from(e: std::io::Error) -> Self {
        Self::failure(format!("cannot write the result: {e}"))
    }
}

#[cfg(test)]
mod tests;
