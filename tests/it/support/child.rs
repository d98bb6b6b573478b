//! A gateway as a process of its own: for its exit code, its gauges and its log, which tests in one process share.

use super::gateway::{Setup, block_on};
use merido::store::rows::KeySpec;
use merido::store::{Store, StoreConfig};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// The binary, running; killed on drop.
pub struct Child {
    pub addr: SocketAddr,
    process: std::process::Child,
    store: Store,
    _dir: TempDir,
}

impl Child {
    /// Starts the binary on a data directory with the accounts of `setup`; its settings stay the defaults.
    pub fn start(setup: Setup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = setup.prepare(dir.path());
        let mut process = Command::new(env!("CARGO_BIN_EXE_merido"))
            .args(["start", "--port", "0"])
            .env_clear()
            .env("HOME", dir.path())
            .env("MERIDO_DATA_DIR", dir.path())
            .env("MERIDO_LOG_FORMAT", "json")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let addr = loop {
            let line = lines.next().expect("it ended before it served").unwrap();
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            if let Some(addr) = line["fields"]["address"].as_str().or(line["address"].as_str()) {
                break addr.parse().unwrap();
            }
        };
        // Someone must go on reading, or its log would block it.
        std::thread::spawn(move || lines.for_each(drop));
        let store = Store::open(&StoreConfig::from(&settings)).unwrap();
        Self { addr, process, store, _dir: dir }
    }

    /// Makes a key and waits until it is known.
    pub fn key(&self, spec: KeySpec) -> String {
        let key = block_on(self.store.create_key(spec)).unwrap().plain.reveal().to_owned();
        let head = format!("authorization: Bearer {key}\r\n");
        super::eventually("the new key is known", || super::client::get(self.addr, "/v1/models", &head).status == 200);
        key
    }

    /// A metric's value.
    pub fn metric(&self, name: &str) -> f64 {
        super::gateway::metric(self.addr, name)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
