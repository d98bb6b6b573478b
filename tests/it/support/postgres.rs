//! A PostgreSQL server of the tests' own: on a socket in a directory of its own, gone with the process that started it.
//!
//! Included by the library's tests and by the integration tests. As root it runs under an unprivileged account, since
//! PostgreSQL refuses root. A shell between us and the server waits on a pipe whose other end we hold: however we end,
//! the pipe closes and the server with it.

#![allow(clippy::disallowed_methods, reason = "a test waits for a server by the wall clock")]
#![allow(unreachable_pub, dead_code, reason = "each of the two test binaries uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test's helper")]

use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A running server; stops when dropped.
pub struct Server {
    dir: tempfile::TempDir,
    bin: PathBuf,
    account: Option<(u32, u32)>,
    options: Vec<String>,
    port: u16,
    running: Option<(Child, ChildStdin)>,
    frozen: bool,
}

/// A PgBouncer in front of a server, in transaction mode; stops when dropped.
pub struct Pooler {
    dir: PathBuf,
    running: Option<(Child, ChildStdin)>,
}

/// The server that all tests of this process share; each takes a database of its own.
pub fn shared() -> &'static Server {
    static SHARED: OnceLock<Server> = OnceLock::new();
    SHARED.get_or_init(|| Server::start(&[]))
}

/// A new empty database on the shared server: its URL.
pub fn database() -> String {
    shared().database()
}

impl Server {
    /// A server of one's own, with settings (`-c` options) of one's own.
    pub fn start(options: &[&str]) -> Self {
        let mut server = Self::make(options);
        server.resume();
        server
    }

    /// The same on a free port of loopback as well, with TLS: `certificate` (a chain) and `key`, both PEM.
    pub fn start_tls(certificate: &str, key: &str) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Self::make(&["ssl=on", "ssl_cert_file=server.crt", "ssl_key_file=server.key"]);
        server.options.push(format!("port={port}"));
        server.options.push("listen_addresses=127.0.0.1".to_owned());
        server.port = port;
        for (name, text) in [("server.crt", certificate), ("server.key", key)] {
            let path = server.data().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            if let Some((uid, gid)) = server.account {
                std::os::unix::fs::chown(&path, Some(uid), Some(gid)).unwrap();
            }
        }
        server.resume();
        server
    }

    /// Its port, of the socket's name as well.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn make(options: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("mpg").tempdir_in("/tmp").unwrap();
        let root = dir.path().metadata().unwrap().uid() == 0;
        let account = root.then(|| account().expect("running as root, but neither `postgres` nor `nobody` exists"));
        if let Some((uid, gid)) = account {
            std::os::unix::fs::chown(dir.path(), Some(uid), Some(gid)).unwrap();
        }
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let server = Self { dir, bin: programs(), account, options, port: 5432, running: None, frozen: false };
        let mut initdb = server.program("initdb");
        initdb.args(["-A", "trust", "-U", "merido", "--no-sync", "--locale=C", "-E", "UTF8", "-D"]);
        let made = initdb.arg(server.data()).output().unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        server
    }

    /// Where its socket is.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where its files are.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Starts it (again), and waits until it takes connections.
    pub fn resume(&mut self) {
        assert!(self.running.is_none(), "it runs");
        // QUIT: at once, without so much as a goodbye to its clients.
        let mut shell = self.leashed(&self.bin.join("postgres"), "QUIT", "log");
        shell.arg("-D").arg(self.data());
        // Without `fsync` the machine may lose what was committed, but never the server: it is killed in tests.
        for option in ["fsync=off", "full_page_writes=off", "max_connections=300"] {
            shell.args(["-c", option]);
        }
        for option in ["shared_buffers=64MB", "listen_addresses=", "log_min_messages=log"] {
            shell.args(["-c", option]);
        }
        shell.arg("-c").arg(format!("unix_socket_directories={}", self.dir().display()));
        for option in &self.options {
            shell.args(["-c", option]);
        }
        self.running = Some(unleash(&mut shell));
        let start = Instant::now();
        while self.try_sql("postgres", "SELECT 1").is_err() {
            assert!(start.elapsed() < Duration::from_secs(60), "PostgreSQL does not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Freezes all of it: connections stay open, nothing answers.
    pub fn freeze(&mut self) {
        self.frozen = true;
        self.signal("STOP");
    }

    /// Ends the freeze.
    pub fn thaw(&mut self) {
        if std::mem::take(&mut self.frozen) {
            self.signal("CONT");
        }
    }

    fn signal(&self, name: &str) {
        let written = std::fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
        let first = written.lines().next().unwrap().trim().to_owned();
        let children = std::fs::read_to_string(format!("/proc/{first}/task/{first}/children")).unwrap();
        // The first first: it makes no new ones while the others are told.
        for id in std::iter::once(&*first).chain(children.split_whitespace()) {
            // One that has just ended needs no signal.
            let _ = Command::new("kill").args(["-s", name, id]).stderr(Stdio::null()).status();
        }
    }

    /// A PgBouncer in transaction mode in front of it.
    pub fn pooler(&self) -> Pooler {
        let dir = self.dir().join("pooler");
        std::fs::create_dir(&dir).unwrap();
        if let Some((uid, gid)) = self.account {
            std::os::unix::fs::chown(&dir, Some(uid), Some(gid)).unwrap();
        }
        let text = format!(
            "[databases]\n* = host={} port={} user=merido\n[pgbouncer]\nlisten_addr =\nlisten_port = 6432\n\
             unix_socket_dir = {}\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 8\n\
             max_client_conn = 500\n",
            self.dir().display(),
            self.port,
            dir.display()
        );
        let file = dir.join("pgbouncer.ini");
        std::fs::write(&file, text).unwrap();
        let mut shell = self.leashed(&pgbouncer(), "TERM", "pooler.log");
        let pooler = Pooler { running: Some(unleash(shell.arg(file))), dir };
        let start = Instant::now();
        while run_sql(&pooler.url("postgres"), "SELECT 1").is_err() {
            let log = std::fs::read_to_string(self.dir().join("pooler.log")).unwrap_or_default();
            assert!(start.elapsed() < Duration::from_secs(30), "PgBouncer does not start: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
        pooler
    }

    /// A program that ends, by that signal, when we let go of the shell's input.
    fn leashed(&self, program: &Path, signal: &str, log: &str) -> Command {
        let mut shell = Command::new("/bin/sh");
        self.unprivileged(&mut shell);
        let script = "program=$1; signal=$2; log=$3; shift 3; \"$program\" \"$@\" >>\"$log\" 2>&1 </dev/null & \
                      pid=$!; cat >/dev/null; kill -s \"$signal\" $pid 2>/dev/null; wait $pid";
        shell.args(["-c", script, "sh"]).arg(program).args([signal, log]).current_dir(self.dir());
        shell
    }

    /// Kills it: connections break, its socket is gone, its files stay.
    pub fn kill(&mut self) {
        if let Some((mut child, stdin)) = self.running.take() {
            drop(stdin);
            child.wait().unwrap();
        }
        assert!(UnixStream::connect(self.dir().join(format!(".s.PGSQL.{}", self.port))).is_err(), "it still answers");
    }

    /// A new empty database: its URL.
    pub fn database(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        self.url(&name)
    }

    /// The URL of a database.
    pub fn url(&self, database: &str) -> String {
        let dir = self.dir().display().to_string().replace('/', "%2F");
        format!("postgres://merido@{dir}:{}/{database}", self.port)
    }

    /// Runs statements in a database.
    pub fn sql(&self, database: &str, sql: &str) {
        self.try_sql(database, sql).unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    }

    fn try_sql(&self, database: &str, sql: &str) -> Result<(), tokio_postgres::Error> {
        run_sql(&self.url(database), sql).map(drop)
    }

    /// What it wrote to its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir().join("log")).unwrap_or_default()
    }

    /// One of its programs, to be run as the server's own account.
    pub fn program(&self, name: &str) -> Command {
        let mut program = Command::new(self.bin.join(name));
        self.unprivileged(&mut program);
        program.current_dir(self.dir());
        program
    }

    fn unprivileged(&self, command: &mut Command) {
        if let Some((uid, gid)) = self.account {
            command.uid(uid).gid(gid);
        }
    }
}

impl Pooler {
    /// The URL of a database by way of it.
    pub fn url(&self, database: &str) -> String {
        let dir = self.dir.display().to_string().replace('/', "%2F");
        format!("postgres://merido@{dir}:6432/{database}")
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        if let Some((mut child, stdin)) = self.running.take() {
            drop(stdin);
            let _ = child.wait();
        }
    }
}

fn unleash(shell: &mut Command) -> (Child, ChildStdin) {
    let mut child = shell.stdin(Stdio::piped()).spawn().unwrap();
    let stdin = child.stdin.take().unwrap();
    (child, stdin)
}

fn pgbouncer() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    let found = places.map(|dir| dir.join("pgbouncer")).find(|program| program.exists());
    found.expect("these tests start PgBouncer: install it (Debian: pgbouncer)")
}

impl Drop for Server {
    fn drop(&mut self) {
        // What is frozen takes no signal to end.
        self.thaw();
        if let Some((mut child, mut stdin)) = self.running.take() {
            let _ = stdin.flush();
            drop(stdin);
            let _ = child.wait();
        }
    }
}

/// Runs statements at `url`: the first column of the rows they answer, as text.
pub fn run_sql(url: &str, sql: &str) -> Result<Vec<String>, tokio_postgres::Error> {
    let (url, sql) = (url.to_owned(), sql.to_owned());
    // A thread of its own: callers may be inside a runtime.
    let work = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await?;
            let talk = async {
                let rows = client.simple_query(&sql).await;
                drop(client);
                rows
            };
            let (rows, _) = tokio::join!(talk, connection);
            let texts = rows?.into_iter().filter_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
                _ => None,
            });
            Ok(texts.collect())
        })
    };
    std::thread::Builder::new().spawn(work).unwrap().join().unwrap()
}

/// Where the server's programs are: a Debian keeps them out of the path.
fn programs() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut places: Vec<PathBuf> = debian.map(|entry| entry.path().join("bin")).collect();
    places.sort();
    places.reverse();
    places.extend(std::env::split_paths(&path));
    let here = |dir: &PathBuf| dir.join("initdb").exists() && dir.join("postgres").exists();
    places.into_iter().find(here).expect("these tests start PostgreSQL: install its server (Debian: postgresql)")
}

/// An account to run it as: (uid, gid).
fn account() -> Option<(u32, u32)> {
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    ["postgres", "nobody"].iter().find_map(|name| {
        let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    })
}
