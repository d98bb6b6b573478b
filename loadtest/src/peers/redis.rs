//! A redis-server of a peer's own, and what it counted.
//!
//! Must never be one that runs already: it starts on a free port, keeps nothing and ends with its owner.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::child::{Child, free_port};

#[derive(Debug)]
pub(crate) struct Redis {
    child: Child,
    pub(crate) port: u16,
}

impl Redis {
    pub(crate) fn start(dir: &Path) -> Result<Self, String> {
        let port = free_port()?;
        let mut command = Command::new("redis-server");
        command
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"])
            .arg(dir);
        let mut child = Child::start("redis-server", &mut command, dir)?;
        child.wait("open port", |_| TcpStream::connect(("127.0.0.1", port)).ok())?;
        Ok(Self { child, port })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Commands it has carried out, those inside scripts and this look's own included.
    pub(crate) fn commands(&self) -> Result<u64, String> {
        let text = self.info("stats").map_err(|error| format!("redis-server: {error}"))?;
        let count = text.lines().find_map(|line| line.strip_prefix("total_commands_processed:"));
        count.and_then(|count| count.trim().parse().ok()).ok_or_else(|| format!("redis-server counts nothing: {text}"))
    }

    fn info(&self, section: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(format!("INFO {section}\r\nQUIT\r\n").as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }
}
