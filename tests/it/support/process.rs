//! The real program in a process of its own: commands run to their end, and gateways that are signalled and waited for.
//!
//! Nothing of the surrounding environment gets in but `PATH`. A process still running when its handle drops is killed.

use super::client::{Answer, get};
use super::eventually;
use super::gateway::{Setup, block_on};
use merido::config::Settings;
use merido::store::rows::KeySpec;
use merido::store::{Store, StoreConfig};
use parking_lot::Mutex;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What a command said and how it ended.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// `merido` with nothing but `dir` as its data directory (made by itself, below the test's own directory).
pub fn merido(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_merido"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("HOME", dir.join("home")).env("MERIDO_DATA_DIR", dir.join("data"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs one command line (words apart by spaces) to its end.
#[track_caller]
pub fn run(dir: &Path, line: &str) -> Said {
    run_with(dir, line, &[], "")
}

/// The same, with an environment and something on stdin.
#[track_caller]
pub fn run_with(dir: &Path, line: &str, env: &[(&str, &str)], stdin: &str) -> Said {
    let mut command = merido(dir);
    let mut child =
        command.args(line.split_whitespace()).envs(env.iter().copied()).stdin(Stdio::piped()).spawn().unwrap();
    // A command that reads nothing may be gone already.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said { code: status.code().unwrap_or(-1), out: text(stdout), err: text(stderr) }
}

/// The same, and it must go well.
#[track_caller]
pub fn ok(dir: &Path, line: &str) -> Said {
    let said = run(dir, line);
    assert_eq!(said.code, 0, "merido {line}: {said:?}");
    said
}

/// A gateway in a process of its own.
pub struct Process {
    pub addr: SocketAddr,
    /// From the process' start until it listened.
    pub took: Duration,
    child: Child,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
    data: PathBuf,
    /// Its own, if it was given none.
    dir: Option<TempDir>,
}

impl Process {
    /// Starts one in a directory of its own with the accounts of `setup`; its settings stay the defaults.
    #[track_caller]
    pub fn of(setup: Setup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        setup.prepare(&dir.path().join("data"));
        let mut process = Self::start(dir.path(), &[]);
        process.dir = Some(dir);
        process
    }

    /// Starts one on a free port with more variables, and waits until it serves.
    #[track_caller]
    pub fn start(dir: &Path, env: &[(&str, &str)]) -> Self {
        let began = Instant::now();
        let mut command = merido(dir);
        command.args(["start", "--port", "0"]).env("MERIDO_LOG_FORMAT", "json").env("MERIDO_WORKERS", "2");
        let mut child = command.envs(env.iter().copied()).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (kept, stderr) = (Arc::clone(&log), BufReader::new(child.stderr.take().unwrap()));
        let reader = std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                kept.lock().push_str(&(line + "\n"));
            }
        });
        let mut process = Self {
            addr: ([127, 0, 0, 1], 0).into(),
            took: Duration::ZERO,
            child,
            log,
            reader: Some(reader),
            data: dir.join("data"),
            dir: None,
        };
        eventually("the process serves", || {
            assert!(process.child.try_wait().unwrap().is_none(), "it ended: {}", process.log());
            // Whatever form its log has.
            let found = process.log.lock().lines().filter(|line| line.contains("serving")).find_map(|line| {
                let (_, port) = line.split_once("127.0.0.1:")?;
                let port = port.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
                Some(([127, 0, 0, 1], port).into())
            });
            process.addr = found.unwrap_or(process.addr);
            found.is_some()
        });
        process.took = began.elapsed();
        process
    }

    /// All it has logged.
    pub fn log(&self) -> String {
        self.log.lock().clone()
    }

    /// Makes a key and waits until it is known.
    #[track_caller]
    pub fn key(&self, spec: KeySpec) -> String {
        let settings = Settings { data_dir: self.data.clone(), ..Settings::default() };
        let store = Store::open(&StoreConfig::from(&settings)).unwrap();
        let key = block_on(store.create_key(spec)).unwrap().plain.reveal().to_owned();
        let head = format!("authorization: Bearer {key}\r\n");
        eventually("the new key is known", || get(self.addr, "/v1/models", &head).status == 200);
        key
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kilobytes of memory it holds now.
    pub fn resident_kb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Sends it a signal (`TERM`, `INT`, `KILL`).
    #[track_caller]
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// Waits until it has logged `text`.
    #[track_caller]
    pub fn logged(&self, text: &str) {
        eventually(&format!("`{text}` in the log"), || self.log.lock().contains(text));
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(mut self) -> ExitStatus {
        let mut status = None;
        eventually("the process ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// TERM, and the end; all it ever logged.
    #[track_caller]
    pub fn end(mut self) -> String {
        let (log, reader) = (Arc::clone(&self.log), self.reader.take().unwrap());
        assert!(self.stop().success());
        reader.join().unwrap();
        let log = log.lock();
        log.clone()
    }

    /// TERM, and the end.
    #[track_caller]
    pub fn stop(self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    /// `GET path`.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        get(self.addr, path, "")
    }

    /// A metric's value, all its series summed up.
    #[track_caller]
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").text();
        let series =
            text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])));
        let values: Vec<f64> = series.map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap()).collect();
        assert!(!values.is_empty(), "no metric {name}");
        values.iter().sum()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Only while it has not been waited for: its id is still its own.
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
