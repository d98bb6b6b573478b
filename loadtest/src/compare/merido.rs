//! merido under test: set up through its own command line in a fresh data directory, then started.
//!
//! Must never touch a store but its own: every call gets `MERIDO_DATA_DIR`, and settings of the caller's environment
//! (`MERIDO_*`, provider keys, database and Redis addresses) are taken away. A command that fails shows what it wrote.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::child::{self, Child, free_port, status};
use super::nginx::Upstream;
use super::scenario::Switches;
use crate::clock;

/// A running merido and what a request to it needs.
#[derive(Debug)]
pub(crate) struct Merido {
    pub(crate) child: Child,
    pub(crate) port: u16,
    pub(crate) key: String,
    pub(crate) model: String,
    /// From the start of the process to its first `200` on `/readyz`.
    pub(crate) started_in: Duration,
    _redis: Option<Child>,
}

const PROVIDER_MODEL: &str = "openai/gpt-4o-mini";

impl Merido {
    pub(crate) fn start(
        binary: &Path,
        upstream: &Upstream<'_>,
        switches: &Switches,
        dir: &Path,
    ) -> Result<Self, String> {
        let dir = dir.join("merido");
        std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let port = free_port()?;
        let redis = if switches.redis { Some(start_redis(&dir)?) } else { None };
        let call = Call { binary, dir: &dir, port, upstream, switches, redis: redis.as_ref().map(|(_, port)| *port) };
        for arguments in set_up(upstream, switches) {
            child::output("merido", call.command().args(&arguments))?;
        }
        let key = key_from(&child::output("merido", call.command().args(key_arguments(switches)))?)?;
        let begun = clock::now();
        let mut child = Child::start("merido", call.command().arg("start"), &dir)?;
        child.wait("200 on /readyz", |_| status(port, "/readyz").filter(|status| *status == 200))?;
        let started_in = clock::now() - begun;
        let model = if switches.strategy.is_empty() { PROVIDER_MODEL } else { "fast" }.to_owned();
        Ok(Self { child, port, key, model, started_in, _redis: redis.map(|(child, _)| child) })
    }
}

/// The line `merido --version` prints.
pub(crate) fn version(binary: &Path) -> Result<String, String> {
    child::output("merido", Command::new(binary).arg("--version")).map(|said| said.trim().to_owned())
}

/// A call of merido that gets nothing of the caller's settings.
pub(crate) fn bare(binary: &Path) -> Command {
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("MERIDO_") || text.ends_with("_API_KEY") || text == "DATABASE_URL" || text == "REDIS_URL" {
            command.env_remove(&name);
        }
    }
    command
}

struct Call<'a> {
    binary: &'a Path,
    dir: &'a PathBuf,
    port: u16,
    upstream: &'a Upstream<'a>,
    switches: &'a Switches,
    redis: Option<u16>,
}

impl Call<'_> {
    fn command(&self) -> Command {
        let mut command = bare(self.binary);
        command
            .env("MERIDO_DATA_DIR", self.dir)
            .env("MERIDO_HOST", "127.0.0.1")
            .env("MERIDO_PORT", self.port.to_string())
            .env("MERIDO_REQUIRE_API_KEY", "true");
        if let Some(ca) = self.upstream.ca {
            command.env("MERIDO_UPSTREAM_CA", ca);
        }
        if let Some(redis) = self.redis {
            command.env("MERIDO_REDIS_URL", format!("redis://127.0.0.1:{redis}"));
        }
        command.envs(&self.switches.env);
        command
    }
}

/// Accounts and the virtual model, as command lines.
fn set_up(upstream: &Upstream<'_>, switches: &Switches) -> Vec<Vec<String>> {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let scheme = if upstream.ca.is_some() { "https" } else { "http" };
    let labels: Vec<char> = ('a'..='z').take(switches.accounts).collect();
    let mut calls: Vec<Vec<String>> = labels
        .iter()
        .map(|label| {
            let base = format!("{scheme}://127.0.0.1:{}/v1", upstream.port);
            words(&format!("providers add --provider openai --api-key mock-{label} --base-url {base} --label {label}"))
        })
        .collect();
    if !switches.strategy.is_empty() {
        let mut model = words(&format!("models add fast --strategy {}", switches.strategy));
        model.extend(labels.iter().flat_map(|label| words(&format!("--target {PROVIDER_MODEL}@{label}"))));
        calls.push(model);
    }
    calls
}

fn key_arguments(switches: &Switches) -> Vec<String> {
    let mut arguments: Vec<String> = ["keys", "create", "--name", "load", "--json"].map(str::to_owned).to_vec();
    for (flag, limit) in [("--rpm", switches.rpm), ("--tpm", switches.tpm)] {
        if limit > 0 {
            arguments.extend([flag.to_owned(), limit.to_string()]);
        }
    }
    arguments
}

/// The key in what `keys create --json` prints.
pub(crate) fn key_from(text: &str) -> Result<String, String> {
    let said: Option<serde_json::Value> = serde_json::from_str(text.trim()).ok();
    let key = said.as_ref().and_then(|said| said.get("key")).and_then(serde_json::Value::as_str);
    key.map(str::to_owned).ok_or_else(|| format!("`merido keys create --json` printed no key: {text:?}"))
}

fn start_redis(dir: &Path) -> Result<(Child, u16), String> {
    let port = free_port()?;
    let mut command = Command::new("redis-server");
    command
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"])
        .arg(dir);
    let mut child = Child::start("redis-server", &mut command, dir)?;
    child.wait("open port", |_| std::net::TcpStream::connect(("127.0.0.1", port)).ok())?;
    Ok((child, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn switches(strategy: &str) -> Switches {
        Switches { rpm: 5, tpm: 0, accounts: 2, strategy: strategy.to_owned(), redis: false, env: [].into() }
    }

    #[test]
    fn two_accounts_and_a_virtual_model() {
        let calls = set_up(&Upstream { port: 9, ca: None }, &switches("weighted"));
        let lines: Vec<String> = calls.iter().map(|call| call.join(" ")).collect();
        assert_eq!(
            lines,
            [
                "providers add --provider openai --api-key mock-a --base-url http://127.0.0.1:9/v1 --label a",
                "providers add --provider openai --api-key mock-b --base-url http://127.0.0.1:9/v1 --label b",
                "models add fast --strategy weighted --target openai/gpt-4o-mini@a --target openai/gpt-4o-mini@b",
            ]
        );
        assert_eq!(set_up(&Upstream { port: 9, ca: None }, &switches("")).len(), 2);
    }

    #[test]
    fn only_limits_that_are_set_are_passed() {
        assert_eq!(key_arguments(&switches("")).join(" "), "keys create --name load --json --rpm 5");
    }

    #[test]
    fn the_key_is_read_from_json() {
        assert_eq!(key_from("{\"id\":1,\"name\":\"load\",\"key\":\"mrd_x\"}\n").as_deref(), Ok("mrd_x"));
        assert!(key_from("oops").unwrap_err().contains("oops"));
    }
}
