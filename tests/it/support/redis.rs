//! A real Redis of a test's own: a free port, a directory that ends with it, and all that can befall a server.
//!
//! Stands alone, so that the library's own tests can use it, too. The process is killed when its handle drops.

#![allow(clippy::disallowed_methods, reason = "a test waits for a server by the wall clock")]
#![allow(unreachable_pub, dead_code, reason = "each of the two test binaries uses its own part")]

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A running (or just now dead) server.
pub struct RedisServer {
    addr: SocketAddr,
    dir: TempDir,
    extra: Vec<String>,
    child: Option<Child>,
}

impl RedisServer {
    /// Starts one that keeps nothing.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// The same, with more of its own arguments (`--requirepass x`, …).
    pub fn with(extra: &[&str]) -> Self {
        // Another process may take the port between our look and its start: then the next one is tried.
        let found = (0..20).find_map(|_| Self::try_with(extra));
        found.unwrap_or_else(|| panic!("no Redis would start: is redis-server installed?"))
    }

    /// One try of it.
    pub fn try_with(extra: &[&str]) -> Option<Self> {
        let extra = extra.iter().map(|&one| one.to_owned()).collect();
        let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut server = Self { addr, dir: tempfile::tempdir().unwrap(), extra, child: None };
        server.spawn().then_some(server)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `redis://…`, without a password.
    pub fn url(&self) -> String {
        format!("redis://{}", self.addr)
    }

    /// The unix socket that it listens on, too.
    pub fn socket(&self) -> std::path::PathBuf {
        self.dir.path().join("redis.sock")
    }

    /// Kills it, as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again on the same port, empty.
    #[track_caller]
    pub fn revive(&mut self) {
        self.kill();
        let until = Instant::now() + Duration::from_secs(20);
        while !self.spawn() {
            assert!(Instant::now() < until, "Redis does not come back on {}", self.addr);
        }
    }

    /// Kills it once what it has is on disk, and starts it again slowly: it loads, a moment a key, and answers LOADING until
    /// [`Self::load_fast`].
    #[track_caller]
    pub fn restart_loading(&mut self) {
        self.words(&["EVAL", "for i = 1, 20000 do redis.call('SET', 'filler' .. i, i) end", "0"]);
        assert!(self.command("SAVE").starts_with("+OK"));
        self.kill();
        // 20 s, looking up from it every few keys.
        let slow = ["--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024"];
        self.extra.extend(slow.map(str::to_owned));
        self.revive();
        self.extra.truncate(self.extra.len() - slow.len());
        assert!(self.command("GET filler1").starts_with("-LOADING"));
    }

    /// Ends a slow start.
    #[track_caller]
    pub fn load_fast(&self) {
        self.command("CONFIG SET key-load-delay 0");
        let until = Instant::now() + Duration::from_secs(20);
        while self.command("GET filler1").starts_with("-LOADING") {
            assert!(Instant::now() < until, "it does not end loading");
            std::thread::sleep(Duration::from_millis(5));
        }
        std::fs::remove_file(self.dir.path().join("dump.rdb")).unwrap();
    }

    /// Makes saving fail, and writing with it (MISCONF).
    #[track_caller]
    pub fn break_saving(&self) {
        // A directory stands where the file should be.
        std::fs::create_dir(self.dir.path().join("dump.rdb")).unwrap();
        self.words(&["CONFIG", "SET", "save", "3600 1"]);
        self.saves("err");
        assert!(self.command("SET filler 1").starts_with("-MISCONF"));
    }

    /// Lets it save again.
    #[track_caller]
    pub fn mend_saving(&self) {
        std::fs::remove_dir(self.dir.path().join("dump.rdb")).unwrap();
        self.saves("ok");
        self.words(&["CONFIG", "SET", "save", ""]);
    }

    #[track_caller]
    fn saves(&self, status: &str) {
        let until = Instant::now() + Duration::from_secs(20);
        self.command("BGSAVE");
        while !self.command("INFO persistence").contains(&format!("rdb_last_bgsave_status:{status}")) {
            assert!(Instant::now() < until, "no background save ends with {status}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Freezes it: connections stay open, nothing answers.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    /// Ends the freeze.
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    /// One command (words apart by spaces) over a connection of its own; the raw reply's text.
    #[track_caller]
    pub fn command(&self, line: &str) -> String {
        self.try_command(line).unwrap_or_else(|e| panic!("{line}: {e}"))
    }

    /// The same; its words may hold spaces.
    #[track_caller]
    pub fn words(&self, words: &[&str]) -> String {
        self.try_words(words).unwrap_or_else(|e| panic!("{words:?}: {e}"))
    }

    fn try_command(&self, line: &str) -> std::io::Result<String> {
        self.try_words(&line.split_whitespace().collect::<Vec<_>>())
    }

    fn try_words(&self, words: &[&str]) -> std::io::Result<String> {
        let mut socket = TcpStream::connect_timeout(&self.addr, Duration::from_secs(5))?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut packed = String::new();
        let password = self.extra.iter().skip_while(|word| *word != "--requirepass").nth(1);
        let login = password.map(|password| ["AUTH", password]);
        for words in login.iter().map(|login| &login[..]).chain([words]) {
            let _ = write!(packed, "*{}\r\n", words.len());
            for word in words {
                let _ = write!(packed, "${}\r\n{word}\r\n", word.len());
            }
        }
        // A command after it marks the end of the reply, whatever its form.
        packed.push_str("*2\r\n$4\r\nECHO\r\n$7\r\n.END!.!\r\n");
        socket.write_all(packed.as_bytes())?;
        let mut got = Vec::new();
        let mut piece = [0; 4096];
        let end = b"$7\r\n.END!.!\r\n";
        while !got.ends_with(end) {
            let read = socket.read(&mut piece)?;
            if read == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            got.extend_from_slice(&piece[..read]);
        }
        got.truncate(got.len() - end.len());
        let welcome = if login.is_some() { "+OK\r\n".len() } else { 0 };
        Ok(String::from_utf8_lossy(&got[welcome..]).into_owned())
    }

    /// A field of `INFO`, as a number.
    #[track_caller]
    pub fn info(&self, field: &str) -> f64 {
        let text = self.command("INFO everything");
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':').map(str::trim));
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no number {field} in INFO"))
    }

    fn spawn(&mut self) -> bool {
        let dir = self.dir.path();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &self.addr.port().to_string(), "--save", ""]);
        command.args(["--appendonly", "no", "--daemonize", "no"]).arg("--dir").arg(dir);
        command.arg("--unixsocket").arg(dir.join("redis.sock")).args(&self.extra);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until {
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            if self.try_command("PING").is_ok() {
                self.child = Some(child);
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = child.kill();
        let _ = child.wait();
        false
    }

    fn signal(&self, name: &str) {
        let id = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}
