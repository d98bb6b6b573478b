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

pub(crate) struct Pair {
    instances: Vec<(Child, u16)>,
    key: String,
    _mock: Child,
}

impl Pair {
    /// Starts both; Redis need not be there. The key has a limit that is never reached, so that every request is decided
    /// by what they share.
    pub(crate) fn start(binary: &Path, env: &[String], redis: &str, dir: &Path) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| format!("own path: {error}"))?;
        let mut mock = Child::start("mock", Command::new(program).args(["mock", "--until-stdin-closes"]), dir)?;
        let ready: Ready = mock.wait("line with its ports", |child| serde_json::from_str(&child.output()).ok())?;
        let data = dir.join("data");
        let merido = || {
            let mut command = bare(binary);
            command.env("MERIDO_DATA_DIR", &data).env("MERIDO_HOST", "127.0.0.1").env("MERIDO_REDIS_URL", redis);
            command.env("MERIDO_REQUIRE_API_KEY", "true").env("MERIDO_ACCESS_LOG", "off");
            command.envs(env.iter().filter_map(|pair| pair.split_once('=')));
            command
        };
        let base = format!("http://127.0.0.1:{}/v1", ready.port);
        let account = ["providers", "add", "--provider", "openai", "--api-key", "mock", "--base-url", &base];
        child::output("merido", merido().args(account))?;
        let key = ["keys", "create", "--name", "load", "--json", "--rpm", "100000000"];
        let key = key_from(&child::output("merido", merido().args(key))?)?;
        let mut instances = Vec::new();
        for name in ["merido-1", "merido-2"] {
            let port = free_port()?;
            let mut child = Child::start(name, merido().env("MERIDO_PORT", port.to_string()).arg("start"), dir)?;
            child.wait("200 on /readyz", |_| status(port, "/readyz").filter(|status| *status == 200))?;
            instances.push((child, port));
        }
        Ok(Self { instances, key, _mock: mock })
    }

    /// An open loop of `rate` over both, for so long; what each of them did.
    pub(crate) fn load(
        &self,
        rate: f64,
        connections: usize,
        duration: Duration,
        stop: &Stop,
    ) -> Result<Vec<Outcome>, String> {
        scope(|threads| {
            let running: Vec<_> = self
                .instances
                .iter()
                .map(|&(_, port)| {
                    let host = format!("127.0.0.1:{port}");
                    let shape = Shape {
                        path: "/v1/chat/completions",
                        host: &host,
                        model: "openai/gpt-4o-mini",
                        key: Some(&self.key),
                        stream: false,
                        include_usage: false,
                        body_bytes: 930,
                        headers: &[],
                    };
                    let load = Load {
                        targets: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))],
                        requests: Arc::new(Requests::one(shape.form("", false))),
                        connections,
                        threads: 1,
                        rate: Some(rate / self.instances.len() as f64),
                        duration,
                        most: u64::MAX,
                        abort: 0.0,
                        stop: stop.clone(),
                        begun: Arc::default(),
                    };
                    threads.spawn(move || load.run())
                })
                .collect();
            running.into_iter().map(|one| one.join().map_err(|_| "a load's thread died".to_owned())?).collect()
        })
    }

    /// Waits until `/healthz` of both says so of Redis.
    pub(crate) fn says(&self, state: &str) -> Result<(), String> {
        let begun = clock::now();
        let wanted = format!("\"redis\":\"{state}\"");
        let told = |port: u16| get(port, "/healthz").is_some_and(|(_, body)| body.contains(&wanted));
        while !self.instances.iter().all(|&(_, port)| told(port)) {
            if clock::now() - begun > PATIENCE {
                let tails: Vec<String> = self.instances.iter().map(|(child, _)| child.tail()).collect();
                return Err(format!("/healthz does not say {wanted} within {PATIENCE:?}\n{}", tails.join("\n")));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}
