//! A dashboard's stream of live events: read as fast as it comes, or not at all.
//!
//! Counts what it sees by the frames' own marks and keeps nothing of it. Reading costs little, so that what is measured
//! beside it is the gateway. A stream that ends early shows as events that are missing.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::clock;

/// Asked of the kernel for a dashboard that does not read: the less lies in sockets, the sooner it is overtaken.
const SMALL: usize = 4096;
const COMPLETED: &[u8] = b"\nevent: completed\n";
const MISSED: &[u8] = b"{\"missed\":";

/// What one saw.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) completed: u64,
    /// Events it was told to have missed.
    pub(super) missed: u64,
    pub(super) bytes: u64,
}

#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) reads: bool,
    socket: TcpStream,
    completed: AtomicU64,
    missed: AtomicU64,
    bytes: AtomicU64,
}

impl Watcher {
    /// Opened, its first bytes read: what happens from now on is on its way.
    pub(super) fn open(port: u16, reads: bool) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("a dashboard's stream: {error}");
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).map_err(failed)?;
        if !reads {
            socket.set_recv_buffer_size(SMALL).map_err(failed)?;
        }
        socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).map_err(failed)?;
        let mut socket = TcpStream::from(socket);
        socket.set_read_timeout(Some(Duration::from_secs(10))).map_err(failed)?;
        write!(socket, "GET /api/events HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: text/event-stream\r\n\r\n")
            .map_err(failed)?;
        let (mut text, mut piece) = (Vec::new(), [0; 1024]);
        while memchr::memmem::find(&text, b"retry: ").is_none() {
            match socket.read(&mut piece).map_err(failed)? {
                0 => return Err(format!("no live events: {}", String::from_utf8_lossy(&text))),
                read => text.extend_from_slice(&piece[..read]),
            }
        }
        let zero = AtomicU64::default;
        Ok(Self { reads, socket, completed: zero(), missed: zero(), bytes: zero() })
    }

    /// Reads until it is closed.
    pub(super) fn read(&self) {
        let mut counter = Counter::default();
        let (mut socket, mut piece) = (&self.socket, vec![0; 64 << 10]);
        while let Ok(read @ 1..) = socket.read(&mut piece) {
            self.bytes.fetch_add(read as u64, Ordering::Relaxed);
            let (completed, missed) = counter.feed(&piece[..read]);
            self.missed.fetch_add(missed, Ordering::Relaxed);
            self.completed.fetch_add(completed, Ordering::Release);
        }
    }

    /// Requests it knows to have ended.
    pub(super) fn known(&self) -> u64 {
        self.completed.load(Ordering::Acquire)
    }

    pub(super) fn close(&self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    pub(super) fn seen(&self) -> Seen {
        Seen {
            completed: self.known(),
            missed: self.missed.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }

    /// Reads at last: whether it is told of a gap before `patience` ends.
    pub(super) fn finds_a_gap(&self, patience: Duration) -> bool {
        let until = clock::now() + patience;
        let _ = self.socket.set_read_timeout(Some(Duration::from_millis(500)));
        let mut counter = Counter::default();
        let (mut socket, mut piece) = (&self.socket, vec![0; 64 << 10]);
        while clock::now() < until {
            let Ok(read @ 1..) = socket.read(&mut piece) else { return false };
            if counter.feed(&piece[..read]).1 > 0 {
                return true;
            }
        }
        false
    }
}

/// Finds marks that pieces of a stream may cut.
#[derive(Debug, Default)]
struct Counter {
    rest: Vec<u8>,
}

impl Counter {
    /// `completed` events, and how many a `gap` said were missed.
    fn feed(&mut self, piece: &[u8]) -> (u64, u64) {
        self.rest.extend_from_slice(piece);
        // Frames are looked at whole.
        let Some(end) = memchr::memmem::rfind(&self.rest, b"\n\n") else { return (0, 0) };
        let whole = &self.rest[..end + 2];
        let completed = memchr::memmem::find_iter(whole, COMPLETED).count() as u64;
        let number = |at: usize| {
            let digits = whole[at + MISSED.len()..].iter().take_while(|byte| byte.is_ascii_digit());
            digits.fold(0u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0')))
        };
        let missed = memchr::memmem::find_iter(whole, MISSED).map(number).sum();
        self.rest.drain(..=end);
        (completed, missed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_counted_at_every_split() {
        let text = b"id: 1\nevent: started\ndata: {}\n\nid: 2\nevent: completed\ndata: {}\n\nid: 3\nevent: gap\n\
            data: {\"missed\":120}\n\nid: 4\nevent: completed\ndata: {}\n\n";
        for cut in 0..text.len() {
            let mut counter = Counter::default();
            let (a, b) = (counter.feed(&text[..cut]), counter.feed(&text[cut..]));
            assert_eq!((a.0 + b.0, a.1 + b.1), (2, 120), "cut {cut}");
        }
    }
}
