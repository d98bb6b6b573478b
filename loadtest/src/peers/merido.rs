//! merido under test: set up through its own command line in a fresh data directory, then started.
//!
//! Must never touch a store but its own: every call gets `MERIDO_DATA_DIR`, and settings of the caller's environment
//! (`MERIDO_*`, provider keys, database and Redis addresses) are taken away. A command that fails shows what it wrote.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Peer, Redis, Upstream, api};
use crate::child::{self, Child, free_port, status};
use crate::clock;
use crate::scenario::Switches;

const PROVIDER_MODEL: &str = "openai/gpt-4o-mini";

/// What is started.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// The row's name in a report.
    pub(crate) name: &'a str,
    pub(crate) binary: &'a Path,
    pub(crate) upstream: &'a Upstream<'a>,
    pub(crate) switches: &'a Switches,
    pub(crate) dir: &'a Path,
    /// A program and its arguments under which each instance runs (say, a profiler); it makes everything slow.
    pub(crate) under: &'a [String],
}

/// Starts as many instances as the basis has, one after the other, on one store.
pub(crate) fn start(plan: &Plan<'_>) -> Result<Peer, String> {
    let Plan { name, binary, upstream, switches, dir, under } = *plan;
    let patience = Duration::from_secs(if under.is_empty() { 15 } else { 120 });
    let dir = dir.join("merido");
    std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let redis = if switches.redis { Some(Redis::start(&dir)?) } else { None };
    let call = Call { binary, dir: &dir, upstream, switches, redis: redis.as_ref().map(|redis| redis.port) };
    for arguments in set_up(upstream, switches) {
        child::output("merido", call.command(0).args(&arguments))?;
    }
    let mut keys = vec![key_from(&child::output("merido", call.command(0).args(key_arguments(switches)))?)?];
    let (mut children, mut ports, mut started_in) = (Vec::new(), Vec::new(), Vec::new());
    for instance in 1..=switches.instances {
        let port = free_port()?;
        let begun = clock::now();
        let mut command = call.command(port);
        if let Some((first, more)) = under.split_first() {
            let mut outer = Command::new(first);
            outer.args(more).arg(binary).envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
            command.get_envs().filter(|(_, value)| value.is_none()).for_each(|(name, _)| {
                outer.env_remove(name);
            });
            command = outer;
        }
        let mut child = Child::start(&format!("merido-{instance}"), command.arg("start"), &dir)?.patience(patience);
        child.wait("200 on /readyz", |_| status(port, "/readyz").filter(|status| *status == 200))?;
        started_in.push(clock::now() - begun);
        if instance == 1 {
            keys.extend(fill(port, upstream, switches)?);
        }
        children.push(child);
        ports.push(port);
    }
    wait_for_keys(&ports, keys.last().map(String::as_str).unwrap_or_default())?;
    let model = if switches.strategy.is_empty() { PROVIDER_MODEL } else { "fast" }.to_owned();
    Ok(Peer {
        name: name.to_owned(),
        version: version(binary)?,
        ports,
        keys,
        model,
        headers: Vec::new(),
        children,
        started_in: started_in.into_iter().min(),
        redis,
    })
}

/// What the basis wants beside the few things the command line made. Answers with the keys.
fn fill(port: u16, upstream: &Upstream<'_>, switches: &Switches) -> Result<Vec<String>, String> {
    let url = base_url(upstream);
    api::post_many(
        port,
        "/api/accounts",
        switches.more_accounts,
        |n| json!({"provider": "openai", "api_key": format!("mock-{n}"), "label": format!("more-{n}"), "base_url": url}),
    )?;
    api::post_many(port, "/api/virtual-models", switches.more_models, |n| {
        let targets = [json!({"model": PROVIDER_MODEL, "account": "a"}), json!({"model": PROVIDER_MODEL})];
        json!({"name": format!("model-{n}"), "strategy": "load_balance", "targets": targets})
    })?;
    let limit = |limit: u64| (limit > 0).then_some(limit);
    let made = api::post_many(
        port,
        "/api/keys",
        switches.more_keys,
        |n| json!({"name": format!("load-{n}"), "rpm": limit(switches.rpm), "tpm": limit(switches.tpm)}),
    )?;
    let key = |made: &Value| made["key"].as_str().map(str::to_owned).ok_or_else(|| format!("no key in {made}"));
    made.iter().map(key).collect()
}

/// Waits until every instance knows the key made last.
fn wait_for_keys(ports: &[u16], key: &str) -> Result<(), String> {
    let begun = clock::now();
    let known = |port: u16| child::get_as(port, "/v1/models", key).is_some_and(|(status, _)| status == 200);
    while !ports.iter().all(|port| known(*port)) {
        if clock::now() - begun > Duration::from_secs(15) {
            return Err("merido does not know its keys after 15 s".to_owned());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
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
    dir: &'a Path,
    upstream: &'a Upstream<'a>,
    switches: &'a Switches,
    redis: Option<u16>,
}

impl Call<'_> {
    /// Port 0 is for commands, which listen nowhere.
    fn command(&self, port: u16) -> Command {
        let mut command = bare(self.binary);
        command
            .env("MERIDO_DATA_DIR", self.dir)
            .env("MERIDO_HOST", "127.0.0.1")
            .env("MERIDO_PORT", port.to_string())
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

fn base_url(upstream: &Upstream<'_>) -> String {
    let scheme = if upstream.ca.is_some() { "https" } else { "http" };
    format!("{scheme}://127.0.0.1:{}/v1", upstream.port)
}

/// Accounts and the virtual model, as command lines.
fn set_up(upstream: &Upstream<'_>, switches: &Switches) -> Vec<Vec<String>> {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let base = base_url(upstream);
    let labels: Vec<char> = ('a'..='z').take(switches.accounts).collect();
    let mut calls: Vec<Vec<String>> = labels
        .iter()
        .map(|label| {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn switches(strategy: &str) -> Switches {
        let text = format!("rpm = 5\ntpm = 0\naccounts = 2\nstrategy = \"{strategy}\"");
        toml::from_str(&text).unwrap()
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
