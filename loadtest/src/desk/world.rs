//! What the dashboards look at: a mock provider, a Redis, and two merido on one store.
//!
//! All of it its own, on loopback, and ended with its owner here. A program that does not start says so.

use std::io::Read as _;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::clock;
use crate::mock::Ready;
use crate::procfs::{Sample, Units};

/// How long a program may take until it answers.
const PATIENCE: Duration = Duration::from_secs(15);

pub(super) struct World {
    /// Of both gateways.
    pub(super) ports: [u16; 2],
    /// What callers call with; it has a limit that it never reaches, so that both decide by what they share.
    pub(super) key: String,
    gateways: Vec<Owned>,
    units: Units,
    _others: Vec<Owned>,
}

/// Ends with its owner.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl World {
    pub(super) fn start(merido: &Path, latency_ms: u64, dir: &Path) -> Result<Self, String> {
        let own = std::env::current_exe().map_err(|error| format!("own path: {error}"))?;
        let mut mock = Command::new(own);
        mock.args(["mock", "--threads", "1", "--until-stdin-closes", "--latency-ms", &latency_ms.to_string()]);
        let mut mock = start("mock", mock.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let provider = ready(&mut mock)?.port;
        let redis = free_port()?;
        let mut command = Command::new("redis-server");
        command.args(["--port", &redis.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        let server = start("redis-server", command.arg("--dir").arg(dir))?;
        await_that("redis-server answers", || TcpStream::connect((Ipv4Addr::LOCALHOST, redis)).ok())?;
        let command = || {
            let mut command = Command::new(merido);
            for (name, _) in std::env::vars_os() {
                let text = name.to_string_lossy();
                if text.starts_with("MERIDO_") || text.ends_with("_API_KEY") || text.ends_with("_URL") {
                    command.env_remove(&name);
                }
            }
            command.env("MERIDO_DATA_DIR", dir.join("data")).env("MERIDO_HOST", "127.0.0.1");
            command.env("MERIDO_REDIS_URL", format!("redis://127.0.0.1:{redis}")).env("MERIDO_LOG", "warn");
            command
        };
        let base = format!("http://127.0.0.1:{provider}/v1");
        told(command().args(["providers", "add", "--provider", "openai", "--api-key", "mock", "--base-url", &base]))?;
        let made = told(command().args(["keys", "create", "--name", "load", "--json", "--rpm", "100000000"]))?;
        let made: serde_json::Value = serde_json::from_str(&made).map_err(|error| format!("keys create: {error}"))?;
        let key = made["key"].as_str().ok_or("keys create printed no key")?.to_owned();
        let ports = [free_port()?, free_port()?];
        let mut gateways = Vec::new();
        for port in ports {
            gateways.push(start("merido", command().env("MERIDO_PORT", port.to_string()).arg("start"))?);
            await_that("merido is ready", || answers(port, "/readyz", "HTTP/1.1 200"))?;
        }
        for port in ports {
            await_that("both have Redis", || answers(port, "/healthz", "\"redis\":\"ok\""))?;
        }
        Ok(Self { ports, key, gateways, units: Units::of_this_machine(), _others: vec![mock, server] })
    }

    /// Of both gateways together.
    pub(super) fn sample(&self) -> Result<Sample, String> {
        let gateways: Vec<u32> = self.gateways.iter().map(|one| one.0.id()).collect();
        self.units.sample_all(&gateways)
    }
}

fn start(name: &str, command: &mut Command) -> Result<Owned, String> {
    if name != "mock" {
        command.stdin(Stdio::null()).stdout(Stdio::null());
    }
    command.stderr(Stdio::null()).spawn().map(Owned).map_err(|error| format!("{name} did not start: {error}"))
}

/// The line in which the mock says its ports.
fn ready(mock: &mut Owned) -> Result<Ready, String> {
    let (mut line, mut byte) = (Vec::new(), [0]);
    let out = mock.0.stdout.as_mut().ok_or("the mock has no output")?;
    while out.read(&mut byte).is_ok_and(|read| read == 1) && byte != *b"\n" {
        line.push(byte[0]);
    }
    serde_json::from_slice(&line).map_err(|error| format!("the mock did not say its port: {error}"))
}

fn told(command: &mut Command) -> Result<String, String> {
    let done = command.stdin(Stdio::null()).output().map_err(|error| format!("merido did not start: {error}"))?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    Err(format!("merido: {}", String::from_utf8_lossy(&done.stderr).trim()))
}

fn await_that<T>(what: &str, mut holds: impl FnMut() -> Option<T>) -> Result<T, String> {
    let begun = clock::now();
    loop {
        if let Some(found) = holds() {
            return Ok(found);
        }
        if clock::now() - begun > PATIENCE {
            return Err(format!("never happened within {PATIENCE:?}: {what}"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether `GET path` is answered with something that holds `words`.
fn answers(port: u16, path: &str, words: &str) -> Option<()> {
    let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(socket, "GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    socket.read_to_string(&mut text).ok()?;
    text.contains(words).then_some(())
}

fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| format!("no free port: {error}"))?;
    listener.local_addr().map(|address| address.port()).map_err(|error| error.to_string())
}
