//! Two merido on one store and one Redis, with a mock behind them.
//!
//! Must never touch a store or a Redis but its own; both end with their owner here.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread::scope;
use std::time::Duration;

use crate::child::{self, Child, free_port, get, status};
use crate::clock;
use crate::generate::{Load, Outcome, Requests, Stop};
use crate::mock::Ready;
use crate::peers::merido::{bare, key_from};
use crate::request::Shape;

/// How long a state of Redis may take to be said: more, and something is broken.
const PATIENCE: Duration = Duration::from_secs(15);
/// Callers of the slow half, each with a limit of its own.
pub(super) const SLOW: u32 = 10_000;

/// Of one key and of the slow callers: what each instance did.
pub(super) type Halves = [Vec<Outcome>; 2];

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(super) enum Who {
    /// A key that never reaches its limit.
    Unlimited,
    /// A key of 150,000 requests a minute.
    Hot,
    /// A key of 30,000 requests a minute.
    Over,
    /// [`SLOW`] addresses in turn, of 600 a minute each.
    Slow,
}

pub(super) struct Pair {
    instances: Vec<(Child, u16)>,
    keys: Vec<String>,
    _mock: Option<Child>,
}

impl Pair {
    /// Starts both; Redis need not be there. `provider`: the base URL of one that is not the mock.
    pub(super) fn start(
        binary: &Path,
        env: &[String],
        redis: &str,
        provider: Option<&str>,
        dir: &Path,
    ) -> Result<Self, String> {
        let mut mock = None;
        let base = if let Some(base) = provider {
            base.to_owned()
        } else {
            let program = std::env::current_exe().map_err(|error| format!("own path: {error}"))?;
            let mut child = Child::start("mock", Command::new(program).args(["mock", "--until-stdin-closes"]), dir)?;
            let ready: Ready = child.wait("line with its ports", |child| serde_json::from_str(&child.output()).ok())?;
            mock = Some(child);
            format!("http://127.0.0.1:{}/v1", ready.port)
        };
        let data = dir.join("data");
        let merido = || {
            let mut command = bare(binary);
            command.env("MERIDO_DATA_DIR", &data).env("MERIDO_HOST", "127.0.0.1").env("MERIDO_REDIS_URL", redis);
            // Slow callers are addresses, as a trusted proxy names them: 10,000 keys would take a while to make.
            command.env("MERIDO_REQUIRE_API_KEY", "false").env("MERIDO_TRUSTED_PROXIES", "127.0.0.0/8");
            command.env("MERIDO_RATE_LIMIT_RPM", "600").env("MERIDO_ACCESS_LOG", "off");
            command.envs(env.iter().filter_map(|pair| pair.split_once('=')));
            command
        };
        let account = ["providers", "add", "--provider", "openai", "--api-key", "mock", "--label", "a", "--base-url"];
        child::output("merido", merido().args(account).arg(&base))?;
        let mut keys = Vec::new();
        for rpm in ["100000000", "150000", "30000"] {
            let key = ["keys", "create", "--name", "load", "--json", "--rpm", rpm];
            keys.push(key_from(&child::output("merido", merido().args(key))?)?);
        }
        let mut instances = Vec::new();
        for name in ["merido-1", "merido-2"] {
            let port = free_port()?;
            let mut child = Child::start(name, merido().env("MERIDO_PORT", port.to_string()).arg("start"), dir)?;
            child.wait("200 on /readyz", |_| status(port, "/readyz").filter(|status| *status == 200))?;
            instances.push((child, port));
        }
        Ok(Self { instances, keys, _mock: mock })
    }

    pub(super) fn ports(&self) -> [u16; 2] {
        [self.instances[0].1, self.instances[1].1]
    }

    /// A key that never reaches its limit.
    pub(super) fn unlimited(&self) -> &str {
        &self.keys[0]
    }

    /// Ends both; later than this they would have lost Redis first.
    pub(super) fn end(&mut self) {
        self.instances.clear();
    }

    /// A counter, over both.
    pub(super) fn metric(&self, name: &str) -> f64 {
        let of = |port: u16| {
            let text = get(port, "/metrics").map(|(_, text)| text).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok());
            line.unwrap_or(0.0)
        };
        self.ports().into_iter().map(of).sum()
    }

    /// An open loop of `rate` over both, half of it one key's, half slow callers', for so long.
    pub(super) fn halves(
        &self,
        rate: f64,
        connections: usize,
        duration: Duration,
        stop: &Stop,
    ) -> Result<Halves, String> {
        scope(|threads| {
            let half = |who| move || self.load(who, rate / 2.0, connections, duration, stop);
            let running = [Who::Unlimited, Who::Slow].map(|who| threads.spawn(half(who)));
            let [hot, slow] = running.map(|one| one.join().map_err(|_| "a load's thread died".to_owned()));
            Ok([hot??, slow??])
        })
    }

    /// An open loop of `rate` over both, for so long; what each of them did.
    pub(super) fn load(
        &self,
        who: Who,
        rate: f64,
        connections: usize,
        duration: Duration,
        stop: &Stop,
    ) -> Result<Vec<Outcome>, String> {
        scope(|threads| {
            let running: Vec<_> = self
                .ports()
                .into_iter()
                .map(|port| {
                    let load = self.of(who, port, rate / 2.0, connections, duration, stop);
                    threads.spawn(move || load?.run())
                })
                .collect();
            running.into_iter().map(|one| one.join().map_err(|_| "a load's thread died".to_owned())?).collect()
        })
    }

    fn of(
        &self,
        who: Who,
        port: u16,
        rate: f64,
        connections: usize,
        duration: Duration,
        stop: &Stop,
    ) -> Result<Load, String> {
        let host = format!("127.0.0.1:{port}");
        let key = match who {
            Who::Unlimited => Some(&self.keys[0]),
            Who::Hot => Some(&self.keys[1]),
            Who::Over => Some(&self.keys[2]),
            Who::Slow => None,
        };
        let addresses: Vec<String> = (0..SLOW).map(address).collect();
        let from = [("x-forwarded-for".to_owned(), address(0))];
        let shape = Shape {
            path: "/v1/chat/completions",
            host: &host,
            model: "openai/gpt-4o-mini",
            key: key.map(String::as_str),
            stream: false,
            include_usage: false,
            body_bytes: 930,
            headers: if key.is_some() { &[] } else { &from },
        };
        let one = Requests::one(shape.form("", false));
        let requests = if key.is_some() { one } else { one.under(&addresses)? };
        Ok(Load {
            targets: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))],
            requests: Arc::new(requests),
            connections,
            threads: 1,
            spread: Duration::ZERO,
            rate: Some(rate),
            duration,
            most: u64::MAX,
            abort: 0.0,
            stop: stop.clone(),
            begun: Arc::default(),
        })
    }

    /// Waits until `/healthz` of both says so of Redis.
    pub(super) fn says(&self, state: &str) -> Result<(), String> {
        let begun = clock::now();
        let wanted = format!("\"redis\":\"{state}\"");
        let told = |port: u16| get(port, "/healthz").is_some_and(|(_, body)| body.contains(&wanted));
        while !self.ports().into_iter().all(told) {
            if clock::now() - begun > PATIENCE {
                let tails: Vec<String> = self.instances.iter().map(|(child, _)| child.tail()).collect();
                return Err(format!("/healthz does not say {wanted} within {PATIENCE:?}\n{}", tails.join("\n")));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

/// Where the nth slow caller is: all as long as each other.
fn address(n: u32) -> String {
    format!("10.1.{}.{}", 100 + n / 100, 100 + n % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slow_caller_is_somebody_else() {
        let all: std::collections::HashSet<String> = (0..SLOW).map(address).collect();
        assert_eq!(all.len(), SLOW as usize);
        assert!(all.iter().all(|one| one.len() == 12 && one.parse::<std::net::Ipv4Addr>().is_ok()));
    }
}
