//! A program the harness started: its output kept, its start awaited, its end ours.
//!
//! Must never end a process it did not start. Dropping a child ends it: first TERM, and KILL when it has not gone after
//! five seconds. A program that does not start says which, why, and the last lines it wrote.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child as Process, Command, Stdio};
use std::time::Duration;

use crate::clock;

/// A running program.
#[derive(Debug)]
pub(crate) struct Child {
    name: String,
    process: Process,
    log: PathBuf,
    patience: Duration,
}

/// How long a program may take until it answers, unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(15);

impl Child {
    /// Starts `command`, its output and errors going to `DIR/NAME.log`.
    pub(crate) fn start(name: &str, command: &mut Command, dir: &Path) -> Result<Self, String> {
        let log = dir.join(format!("{name}.log"));
        let open = || File::create(&log).and_then(|file| Ok((file.try_clone()?, file)));
        let (out, errors) = open().map_err(|error| format!("{}: {error}", log.display()))?;
        let process = command
            .stdin(Stdio::piped())
            .stdout(out)
            .stderr(errors)
            .spawn()
            .map_err(|error| format!("{name} did not start: {}: {error}", command.get_program().display()))?;
        Ok(Self { name: name.to_owned(), process, log, patience: PATIENCE })
    }

    /// For programs that are slow to start.
    pub(crate) fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Everything it wrote so far.
    pub(crate) fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until `ready` answers something. An error when the program ends first or the patience does.
    pub(crate) fn wait<T>(&mut self, what: &str, mut ready: impl FnMut(&Self) -> Option<T>) -> Result<T, String> {
        let begun = clock::now();
        loop {
            if let Some(found) = ready(self) {
                return Ok(found);
            }
            if let Ok(Some(status)) = self.process.try_wait() {
                return Err(format!("{} ended ({status}) before {what}\n{}", self.name, self.tail()));
            }
            if clock::now() - begun > self.patience {
                return Err(format!("{}: no {what} within {:?}\n{}", self.name, self.patience, self.tail()));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The last lines it wrote, for a message.
    pub(crate) fn tail(&self) -> String {
        tail(&self.name, &self.output())
    }
}

impl Child {
    /// Asks it to end and waits as long as its patience; whether it did. A tool under which a program runs (strace) is not
    /// asked, but the program: the tool ends with it.
    pub(crate) fn end(&mut self) -> bool {
        self.term(crate::procfs::innermost(self.process.id()), self.patience)
    }

    fn term(&mut self, pid: u32, patience: Duration) -> bool {
        if !matches!(self.process.try_wait(), Ok(None)) {
            return true;
        }
        // No signal can be sent without a shell or unsafe code; the shell's own `kill` is everywhere.
        let term = format!("kill -TERM {pid}");
        let _ = Command::new("sh").args(["-c", &term]).stdin(Stdio::null()).stderr(Stdio::null()).status();
        let begun = clock::now();
        while clock::now() - begun < patience {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.term(self.process.id(), Duration::from_secs(5)) {
            return;
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs `command` to its end; its standard output, or a message with what it wrote.
pub(crate) fn output(name: &str, command: &mut Command) -> Result<String, String> {
    let done = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{name} did not start: {}: {error}", command.get_program().display()))?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    if done.status.success() {
        return Ok(text);
    }
    let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let errors = String::from_utf8_lossy(&done.stderr);
    Err(format!(
        "`{name} {}` failed ({})\n{}",
        arguments.join(" "),
        done.status,
        tail(name, &format!("{text}{errors}"))
    ))
}

fn tail(name: &str, text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    if lines.is_empty() {
        return format!("  {name} wrote nothing");
    }
    let last: Vec<String> =
        lines[lines.len().saturating_sub(15)..].iter().map(|line| format!("  {name}| {line}")).collect();
    last.join("\n")
}

/// A port nobody has at the moment. Another program may take it before ours does: then that one says so.
pub(crate) fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| format!("no free port: {error}"))?;
    listener.local_addr().map(|address| address.port()).map_err(|error| error.to_string())
}

/// Status of `GET path` on a loopback port, if something answers there.
pub(crate) fn status(port: u16, path: &str) -> Option<u16> {
    get(port, path).map(|(status, _)| status)
}

/// Status and body of `GET path` on a loopback port.
pub(crate) fn get(port: u16, path: &str) -> Option<(u16, String)> {
    ask(port, path, "")
}

/// The same with a key.
pub(crate) fn get_as(port: u16, path: &str, key: &str) -> Option<(u16, String)> {
    ask(port, path, &format!("authorization: Bearer {key}\r\n"))
}

fn ask(port: u16, path: &str, more: &str) -> Option<(u16, String)> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{more}connection: close\r\n\r\n").ok()?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).ok()?;
    let status = reply.split(' ').nth(1)?.parse().ok()?;
    Some((status, reply.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_ends_early_says_what_it_wrote() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such port >&2; exit 3"]);
        let mut child = Child::start("sh", &mut command, dir.path()).unwrap();
        let error = child.wait("answer", |_| None::<()>).unwrap_err();
        assert!(error.contains("before answer") && error.contains("sh| no such port"), "{error}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = Child::start("proxy", &mut Command::new("/no/such/proxy"), dir.path()).unwrap_err();
        assert!(error.contains("proxy did not start: /no/such/proxy"), "{error}");
    }

    #[test]
    fn a_dropped_child_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let child = Child::start("sleep", Command::new("sleep").arg("1000"), dir.path()).unwrap();
        let pid = child.pid();
        drop(child);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}
