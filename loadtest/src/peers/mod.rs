//! Who takes part in a comparison: how each is found, configured, started and asked for.
//!
//! Must never use a program that was not asked for, nor touch files outside the comparison's own directory. A peer that
//! is not on this machine is an `Absent`, which the comparison says and goes on without; one that does not start is an
//! error with its last lines.

mod api;
mod envoy;
mod gateways;
mod haproxy;
pub(crate) mod install;
pub(crate) mod merido;
mod nginx;
mod redis;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::child::Child;
use crate::mock::Ready;
use crate::scenario::NginxTable;

pub(crate) use redis::Redis;

/// A program a comparison knows how to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    Nginx,
    Haproxy,
    Envoy,
    Litellm,
    Portkey,
    Merido,
}

impl Kind {
    pub(crate) const OTHERS: [Self; 5] = [Self::Nginx, Self::Haproxy, Self::Envoy, Self::Litellm, Self::Portkey];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
            Self::Litellm => "litellm",
            Self::Portkey => "portkey",
            Self::Merido => "merido",
        }
    }

    /// Whether it can be told to trust the mock's certificate.
    pub(crate) fn speaks_tls(self) -> bool {
        !matches!(self, Self::Litellm | Self::Portkey)
    }

    /// Where its program is: installed by `loadtest peers install`, or on the machine anyway.
    pub(crate) fn find(self, installed: &Path) -> Option<PathBuf> {
        // Some run in a directory of their own: a relative path would be looked for there.
        let own = std::path::absolute(installed).unwrap_or_else(|_| installed.to_owned()).join(self.name());
        match self {
            Self::Nginx | Self::Haproxy => on_path(self.name()),
            Self::Envoy => Some(own.join("bin/envoy")).filter(|file| file.is_file()).or_else(|| on_path("envoy")),
            Self::Litellm => Some(own.join("bin/litellm")).filter(|file| file.is_file()),
            Self::Portkey => {
                Some(own.join("node_modules/@portkey-ai/gateway/build/start-server.js")).filter(|file| file.is_file())
            }
            Self::Merido => None,
        }
    }
}

/// Looks where programs are, and where Debian keeps those of the administrator.
fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    places.map(|place| place.join(name)).find(|file| file.is_file())
}

/// Where a proxy forwards to.
#[derive(Debug, Clone)]
pub(crate) struct Upstream<'a> {
    pub(crate) port: u16,
    /// Authority to trust; `None` is plain HTTP.
    pub(crate) ca: Option<&'a Path>,
}

/// What every peer is told.
#[derive(Debug)]
pub(crate) struct Site<'a> {
    pub(crate) upstream: Upstream<'a>,
    /// Workers or threads of each.
    pub(crate) cores: usize,
    /// The comparison's own directory.
    pub(crate) dir: &'a Path,
    pub(crate) nginx: &'a NginxTable,
    /// Connections on both sides together, with some to spare, as far as open files go.
    pub(crate) open_files: usize,
}

impl Site<'_> {
    /// A directory of the peer's own.
    fn room(&self, name: &str) -> Result<PathBuf, String> {
        let dir = self.dir.join(name);
        std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        Ok(dir)
    }
}

/// One of those that take turns: where it listens, what it wants to hear, which processes are its.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) name: String,
    /// What it says of its version.
    pub(crate) version: String,
    /// One an instance.
    pub(crate) ports: Vec<u16>,
    /// Sent as `Authorization: Bearer`, each in turn; none is sent when there are none.
    pub(crate) keys: Vec<String>,
    pub(crate) model: String,
    /// Further lines of each request's head.
    pub(crate) headers: Vec<(String, String)>,
    /// Held for their processes; dropping them ends the programs.
    pub(crate) children: Vec<Child>,
    /// From the start of the process to its first answer.
    pub(crate) started_in: Option<Duration>,
    /// The Redis that is its alone.
    pub(crate) redis: Option<Redis>,
}

/// The model a plain proxy is asked for.
pub(crate) const MODEL: &str = "gpt-4o-mini";

impl Peer {
    /// One process that wants no key.
    pub(crate) fn plain(name: &str, version: String, port: u16, child: Child) -> Self {
        Self {
            name: name.to_owned(),
            version,
            ports: vec![port],
            keys: Vec::new(),
            model: MODEL.to_owned(),
            headers: Vec::new(),
            children: vec![child],
            started_in: None,
            redis: None,
        }
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.children.iter().map(Child::pid).collect()
    }

    /// The last lines its processes wrote, for a message.
    pub(crate) fn tail(&self) -> String {
        self.children.iter().map(Child::tail).collect::<Vec<_>>().join("\n")
    }
}

/// Starts one that is not merido. `program` is its binary (Portkey's: its script).
pub(crate) fn start(kind: Kind, program: &Path, site: &Site<'_>) -> Result<Peer, String> {
    match kind {
        Kind::Nginx => nginx::start(program, site),
        Kind::Haproxy => haproxy::start(program, site),
        Kind::Envoy => envoy::start(program, site),
        Kind::Litellm => gateways::litellm(program, site),
        Kind::Portkey => gateways::portkey(program, site),
        Kind::Merido => Err("merido is started with a basis".to_owned()),
    }
}

/// The first line a program prints about its version, on either output.
fn version(program: &Path, arguments: &[&str]) -> String {
    let said = Command::new(program).args(arguments).output();
    let Ok(said) = said else { return "of unknown version".to_owned() };
    let text = [said.stdout, said.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    // Some begin with the path they were called by.
    let path = program.to_string_lossy();
    line.strip_prefix(&*path).unwrap_or(line).trim().to_owned()
}

/// The mock provider, as a process of this same program. With `ca`, it also listens with TLS.
pub(crate) fn mock(options: &crate::mock::Options, ca: Option<&Path>, dir: &Path) -> Result<(Child, Ready), String> {
    let program = std::env::current_exe().map_err(|error| format!("own path: {error}"))?;
    let mut command = Command::new(program);
    command.args(["mock", "--until-stdin-closes"]);
    if let Some(ca) = ca {
        command.arg("--tls").arg(ca);
    }
    for (flag, value) in [
        ("--threads", options.threads as u64),
        ("--latency-ms", options.latency_ms),
        ("--status", u64::from(options.status)),
        ("--status-every", options.status_every),
        ("--chunks", options.chunks as u64),
        ("--pace-ms", options.pace_ms),
        ("--reply-bytes", options.reply_bytes as u64),
    ] {
        command.args([flag, &value.to_string()]);
    }
    let mut child = Child::start("mock", &mut command, dir)?;
    let ready = child.wait("line with its ports", |child| serde_json::from_str(&child.output()).ok())?;
    Ok((child, ready))
}
