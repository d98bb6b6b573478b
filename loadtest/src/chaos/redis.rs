//! A redis-server of our own to which everything happens, behind a relay that can be slow.
//!
//! The relay adds latency to what comes back, not less bandwidth: each piece is stamped and sent on when it is time.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use crate::child::free_port;
use crate::clock;

pub(crate) struct Redis {
    dir: PathBuf,
    port: u16,
    url: String,
    delay_us: Arc<AtomicU64>,
    child: Option<Child>,
}

impl Redis {
    /// One that does not run yet; its relay does.
    pub(crate) fn new(dir: &Path) -> Result<Self, String> {
        let failed = |error: io::Error| format!("relay: {error}");
        let port = free_port()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
        let url = format!("redis://{}", listener.local_addr().map_err(failed)?);
        let delay_us = Arc::<AtomicU64>::default();
        let delay = Arc::clone(&delay_us);
        thread("relay", move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { continue };
                let _ =
                    relay(&client, &server, Arc::default()).and_then(|()| relay(&server, &client, Arc::clone(&delay)));
            }
        })
        .map_err(failed)?;
        Ok(Self { dir: dir.to_owned(), port, url, delay_us, child: None })
    }

    /// Its own address, past the relay.
    pub(crate) fn direct(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The relay's address.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Starts it (again), empty, and waits until it answers.
    pub(crate) fn start(&mut self) -> Result<(), String> {
        self.start_with(&[])
    }

    fn start_with(&mut self, more: &[&str]) -> Result<(), String> {
        let mut command = Command::new("redis-server");
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.arg("--dir").arg(&self.dir).args(more).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().map_err(|error| format!("redis-server did not start: {error}"))?);
        let begun = clock::now();
        while self.ask("ECHO there").is_err() {
            if clock::now() - begun > Duration::from_secs(10) {
                return Err("redis-server does not answer within 10 s".to_owned());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    pub(crate) fn kill(&mut self) -> Result<(), String> {
        if let Some(mut child) = self.child.take() {
            child.kill().and_then(|()| child.wait()).map_err(|error| format!("redis-server: {error}"))?;
        }
        Ok(())
    }

    /// `STOP` or `CONT`.
    pub(crate) fn signal(&mut self, name: &str) -> Result<(), String> {
        let Some(child) = &self.child else { return Err("redis-server does not run".to_owned()) };
        let kill = format!("kill -{name} {}", child.id());
        let done = Command::new("sh").args(["-c", &kill]).status().map_err(|error| format!("{kill}: {error}"))?;
        if done.success() { Ok(()) } else { Err(format!("{kill}: {done}")) }
    }

    #[expect(clippy::unnecessary_wraps, reason = "one of several faults")]
    pub(crate) fn delay(&mut self, by: Duration) -> Result<(), String> {
        self.delay_us.store(by.as_micros() as u64, Ordering::Release);
        Ok(())
    }

    /// Kills it once what it has is on disk and starts it so slowly that it answers LOADING for 20 s.
    pub(crate) fn restart_loading(&mut self) -> Result<(), String> {
        self.command(r#"EVAL "for i = 1, 20000 do redis.call('SET', 'filler' .. i, i) end return 1" 0"#)?;
        self.command("SAVE")?;
        self.kill()?;
        self.start_with(&["--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024"])
    }

    /// Ends a slow start.
    pub(crate) fn load_fast(&mut self) -> Result<(), String> {
        self.command("CONFIG SET key-load-delay 0")?;
        self.until(|redis| redis.command("GET filler1").is_ok())?;
        std::fs::remove_file(self.dir.join("dump.rdb")).map_err(|error| format!("dump.rdb: {error}"))?;
        self.command("FLUSHALL")
    }

    /// Makes saving fail, and writing with it: a directory stands where the file should be.
    pub(crate) fn break_saving(&mut self) -> Result<(), String> {
        std::fs::create_dir(self.dir.join("dump.rdb")).map_err(|error| format!("dump.rdb: {error}"))?;
        self.command("CONFIG SET save \"3600 1\"")?;
        self.command("BGSAVE")?;
        self.until(|redis| redis.ask("INFO persistence").is_ok_and(|said| said.contains("rdb_last_bgsave_status:err")))
    }

    /// Lets it save again.
    pub(crate) fn mend_saving(&mut self) -> Result<(), String> {
        std::fs::remove_dir(self.dir.join("dump.rdb")).map_err(|error| format!("dump.rdb: {error}"))?;
        self.command("BGSAVE")?;
        self.until(|redis| redis.ask("INFO persistence").is_ok_and(|said| said.contains("rdb_last_bgsave_status:ok")))?;
        let _ = std::fs::remove_file(self.dir.join("dump.rdb"));
        self.command("CONFIG SET save \"\"")
    }

    fn until(&mut self, holds: impl Fn(&mut Self) -> bool) -> Result<(), String> {
        let begun = clock::now();
        while !holds(self) {
            if clock::now() - begun > Duration::from_secs(10) {
                return Err("redis-server does not come so far within 10 s".to_owned());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// One command, past the relay; an error reply is an error.
    pub(crate) fn command(&mut self, line: &str) -> Result<(), String> {
        self.ask(line).map(drop)
    }

    /// The same, and its reply as it came.
    pub(crate) fn ask(&mut self, line: &str) -> Result<String, String> {
        let said = || {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            // The end is where the connection ends, whatever the reply's form.
            stream.write_all(format!("{line}\r\nQUIT\r\n").as_bytes())?;
            let mut reply = String::new();
            stream.read_to_string(&mut reply)?;
            Ok(reply.strip_suffix("+OK\r\n").unwrap_or(&reply).to_owned())
        };
        let reply: String = said().map_err(|error: io::Error| format!("redis {line}: {error}"))?;
        if reply.is_empty() || reply.starts_with('-') { Err(format!("redis {line}: {reply}")) } else { Ok(reply) }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// One direction: a thread that reads and stamps, and one that writes when it is time.
fn relay(from: &TcpStream, to: &TcpStream, delay_us: Arc<AtomicU64>) -> io::Result<()> {
    let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
    to.set_nodelay(true)?;
    let (sender, stamped) = mpsc::channel();
    thread("relay-read", move || {
        let mut piece = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from.read(&mut piece) {
            let due = clock::now() + Duration::from_micros(delay_us.load(Ordering::Acquire));
            if sender.send((due, piece[..read].to_vec())).is_err() {
                return;
            }
        }
    })?;
    thread("relay-write", move || {
        for (due, bytes) in stamped {
            std::thread::sleep(due.saturating_duration_since(clock::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    })
}

#[expect(clippy::disallowed_methods, reason = "the relay's threads end with their connections")]
pub(super) fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).stack_size(256 << 10).spawn(work).map(drop)
}
