//! A raw HTTP client: shows what was on the wire, and can stop listening in the middle.

use super::provider::dechunk;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (n, v) = line.split_once(':')?;
            n.eq_ignore_ascii_case(name).then(|| v.trim())
        })
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
}

/// `POST path` with a JSON body and more head lines.
pub fn post(addr: SocketAddr, path: &str, head: &str, body: &[u8]) -> Answer {
    let mut conn = Conn::open(addr);
    conn.send(&post_bytes(path, head, body));
    conn.answer()
}

/// The bytes of it.
pub fn post_bytes(path: &str, head: &str, body: &[u8]) -> Vec<u8> {
    let kind =
        if head.to_ascii_lowercase().contains("content-type:") { "" } else { "content-type: application/json\r\n" };
    let head = format!("POST {path} HTTP/1.1\r\nhost: gateway\r\n{kind}{head}content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// `GET path`.
pub fn get(addr: SocketAddr, path: &str, head: &str) -> Answer {
    let mut conn = Conn::open(addr);
    conn.send(format!("GET {path} HTTP/1.1\r\nhost: gateway\r\n{head}\r\n").as_bytes());
    conn.answer()
}

/// Any method, with a JSON body where `body` is not null.
pub fn request(addr: SocketAddr, method: &str, path: &str, head: &str, body: &serde_json::Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let kind = if body.is_empty() { "" } else { "content-type: application/json\r\n" };
    let mut conn = Conn::open(addr);
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: gateway\r\n{kind}{head}content-length: {length}\r\n\r\n");
    conn.send(&[head.as_bytes(), body.as_bytes()].concat());
    conn.answer()
}

/// A connection whose bytes the test sees one by one.
pub struct Conn {
    socket: TcpStream,
    buffer: Vec<u8>,
}

impl Conn {
    pub fn open(addr: SocketAddr) -> Self {
        Self::on(TcpStream::connect(addr).unwrap())
    }

    /// On a socket that is connected already.
    pub fn on(socket: TcpStream) -> Self {
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { socket, buffer: Vec::new() }
    }

    /// The same with room for a few kilobytes only: what is not read soon stays with the sender.
    pub fn open_narrow(addr: SocketAddr) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(16 << 10).unwrap();
        socket.connect(&addr.into()).unwrap();
        let socket = TcpStream::from(socket);
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { socket, buffer: Vec::new() }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    /// Sends as much as the other end still takes; false when it had closed.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.socket.write_all(bytes).is_ok()
    }

    /// Waits for the other end to close; false when it has not after twenty seconds. What came before is dropped.
    pub fn closes(&mut self) -> bool {
        let mut chunk = [0; 16 << 10];
        loop {
            match self.socket.read(&mut chunk) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(e) => return e.kind() == std::io::ErrorKind::ConnectionReset,
            }
        }
    }

    /// Waits for the other end to close in order; false when it reset the connection. What came before is dropped.
    pub fn ends(&mut self) -> bool {
        let mut chunk = [0; 16 << 10];
        loop {
            match self.socket.read(&mut chunk) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }

    /// One whole answer with a known length; `None` when the connection broke.
    pub fn try_answer(&mut self) -> Option<Answer> {
        while !self.buffer.windows(4).any(|w| w == b"\r\n\r\n") {
            let mut chunk = [0; 16 << 10];
            match self.socket.read(&mut chunk) {
                Ok(0) | Err(_) => return None,
                Ok(n) => self.buffer.extend_from_slice(&chunk[..n]),
            }
        }
        Some(self.answer())
    }

    /// Reads until `needle` has come; everything so far.
    #[track_caller]
    pub fn read_until(&mut self, needle: &str) -> String {
        loop {
            let text = String::from_utf8_lossy(&self.buffer).into_owned();
            if text.contains(needle) {
                return text;
            }
            assert!(self.more() > 0, "the connection ended before `{needle}`: {text}");
        }
    }

    /// Reads and forgets until `needle` has come; how many bytes. For streams too long to be held.
    #[track_caller]
    pub fn skip_to(&mut self, needle: &str) -> usize {
        let mut skipped = 0;
        while !self.buffer.windows(needle.len()).any(|window| window == needle.as_bytes()) {
            let keep = self.buffer.len().min(needle.len());
            skipped += self.buffer.len() - keep;
            self.buffer.drain(..self.buffer.len() - keep);
            assert!(self.more() > 0, "the connection ended before `{needle}`");
            assert!(!self.buffer.ends_with(b": beat\n\n\r\n"), "the stream fell silent before `{needle}`");
        }
        skipped
    }

    /// Waits for more bytes; everything so far.
    #[track_caller]
    pub fn read_more(&mut self) -> String {
        assert!(self.more() > 0, "the connection ended");
        String::from_utf8_lossy(&self.buffer).into_owned()
    }

    fn more(&mut self) -> usize {
        let mut chunk = [0; 16 << 10];
        let n = self.socket.read(&mut chunk).unwrap();
        self.buffer.extend_from_slice(&chunk[..n]);
        n
    }

    /// Everything until the other end closes.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.buffer);
        // A reset after the last byte is an end, too.
        let _ = self.socket.read_to_end(&mut rest);
        rest
    }

    /// One whole answer; the connection can go on.
    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break end + 4;
            }
            assert!(self.more() > 0, "no answer: {}", String::from_utf8_lossy(&self.buffer));
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        let status = head[9..12].parse().unwrap();
        let mut answer = Answer { status, head, body: Vec::new() };
        if answer.header("transfer-encoding").is_some() {
            loop {
                if let Some((body, used)) = dechunk(&self.buffer[end..]) {
                    answer.body = body;
                    self.buffer.drain(..end + used);
                    return answer;
                }
                assert!(self.more() > 0, "the stream broke off: {}", String::from_utf8_lossy(&self.buffer));
            }
        }
        let length: usize = answer.header("content-length").map_or(0, |v| v.parse().unwrap());
        while self.buffer.len() < end + length {
            assert!(self.more() > 0, "the body broke off");
        }
        answer.body = self.buffer[end..end + length].to_vec();
        self.buffer.drain(..end + length);
        answer
    }
}
