//! The program itself, as a process of its own: for what one can only see from outside, such as its memory.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A running `merido start`; killed when dropped.
pub struct Process {
    pub addr: SocketAddr,
    child: Child,
}

impl Process {
    /// Starts it on a free port with its data in `dir` and nothing of this process' environment but `env`.
    pub fn start(dir: &Path, env: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_merido"));
        command.arg("start").env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.env("MERIDO_DATA_DIR", dir).env("MERIDO_PORT", "0").env("MERIDO_LOG_FORMAT", "json");
        let mut child = command.envs(env.iter().copied()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut log = String::new();
        let addr = loop {
            let Some(line) = lines.next() else { panic!("it ended while starting: {log}") };
            let line = line.unwrap();
            let logged: Option<serde_json::Value> = serde_json::from_str(&line).ok();
            let address = logged.as_ref().and_then(|line| line.pointer("/fields/address").or(line.get("address")));
            if let Some(address) = address.and_then(serde_json::Value::as_str) {
                break address.parse().unwrap();
            }
            log.push_str(&line);
        };
        // Whoever stops reading a pipe stops its writer.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Self { addr, child }
    }

    /// Kilobytes of memory it holds now.
    pub fn resident_kb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
