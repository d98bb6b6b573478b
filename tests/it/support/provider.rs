//! A scripted provider: says what it was told to say, keeps what it was told, counts.
//!
//! One thread a connection, blocking sockets: it is slow on purpose and has nothing in common with what it tests.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// What to do with one request.
#[derive(Clone, Debug)]
pub enum Script {
    /// A whole answer: status, extra head lines (`name: value\r\n`), body.
    Reply(u16, String, Vec<u8>),
    /// An event stream, one event a chunk; then, if told so, nothing more without ending it.
    Events(Vec<String>, Then),
    /// Bytes as they are, then the connection closes.
    Raw(Vec<u8>),
    /// Bytes as they are, then nothing more without closing.
    Part(Vec<u8>),
    /// Nothing until the test opens the gate, then this.
    Gated(Arc<AtomicBool>, Box<Self>),
    /// Never answer.
    Stall,
    /// Close without a byte.
    Close,
}

/// How a stream goes on after its events.
#[derive(Clone, Debug)]
pub enum Then {
    /// It ends.
    End,
    /// It waits until the test opens the gate, sends these, and ends.
    Gate(Arc<AtomicBool>, Vec<String>),
    /// It never ends.
    Stall,
    /// The connection breaks.
    Break,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub head: String,
    pub body: Vec<u8>,
}

impl Seen {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (n, v) = line.split_once(':')?;
            n.eq_ignore_ascii_case(name).then(|| v.trim())
        })
    }

    /// Method and path.
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or("")
    }
}

/// A provider on a free port of loopback.
pub struct Provider {
    pub addr: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    scripts: Mutex<VecDeque<Script>>,
    always: Mutex<Script>,
    seen: Mutex<Vec<Seen>>,
    open: AtomicUsize,
    hung_up: AtomicUsize,
    stop: AtomicBool,
}

impl Provider {
    /// Answers every request with `always` once its scripts are used up.
    pub fn new(always: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            scripts: Mutex::default(),
            always: Mutex::new(always),
            seen: Mutex::default(),
            open: AtomicUsize::new(0),
            hung_up: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let inner = Arc::clone(&shared);
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                if inner.stop.load(Ordering::Acquire) {
                    return;
                }
                let Ok(socket) = socket else { continue };
                let inner = Arc::clone(&inner);
                std::thread::spawn(move || {
                    inner.open.fetch_add(1, Ordering::AcqRel);
                    serve(socket, &inner);
                    inner.open.fetch_sub(1, Ordering::AcqRel);
                });
            }
        });
        Self { addr, shared }
    }

    /// Its base URL as an OpenAI-compatible provider.
    pub fn openai_url(&self) -> String {
        format!("http://{}/v1", self.addr)
    }

    /// Its base URL as Anthropic's or Google's.
    pub fn bare_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The next requests are answered so, one each.
    pub fn then(&self, script: Script) -> &Self {
        self.shared.scripts.lock().push_back(script);
        self
    }

    /// From now on.
    pub fn always(&self, script: Script) {
        *self.shared.always.lock() = script;
    }

    /// Scripts not yet used.
    pub fn pending(&self) -> usize {
        self.shared.scripts.lock().len()
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().clone()
    }

    /// How many requests came.
    pub fn calls(&self) -> usize {
        self.shared.seen.lock().len()
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::Acquire)
    }

    /// Requests whose caller hung up before its answer was whole.
    pub fn hung_up(&self) -> usize {
        self.shared.hung_up.load(Ordering::Acquire)
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        let _ = TcpStream::connect(self.addr);
    }
}

fn serve(mut socket: TcpStream, shared: &Shared) {
    socket.set_nodelay(true).unwrap();
    let mut buffer = Vec::new();
    while let Some(seen) = read_request(&mut socket, &mut buffer) {
        shared.seen.lock().push(seen);
        let script = shared.scripts.lock().pop_front().unwrap_or_else(|| shared.always.lock().clone());
        match act(&mut socket, script, shared) {
            Ok(true) => {}
            Ok(false) => return,
            Err(_) => {
                shared.hung_up.fetch_add(1, Ordering::AcqRel);
                return;
            }
        }
    }
}

fn read_request(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Seen> {
    let mut chunk = [0; 16 << 10];
    loop {
        if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end + 4]).into_owned();
            let seen = Seen { head, body: Vec::new() };
            let chunked = seen.header("transfer-encoding").is_some();
            let length: usize = seen.header("content-length").map_or(0, |v| v.parse().unwrap());
            let body_start = end + 4;
            let (body, used) = loop {
                if chunked {
                    if let Some(found) = dechunk(&buffer[body_start..]) {
                        break found;
                    }
                } else if buffer.len() >= body_start + length {
                    break (buffer[body_start..body_start + length].to_vec(), length);
                }
                match socket.read(&mut chunk) {
                    Ok(0) | Err(_) => return None,
                    Ok(n) => buffer.extend_from_slice(&chunk[..n]),
                }
            };
            buffer.drain(..body_start + used);
            return Some(Seen { body, ..seen });
        }
        match socket.read(&mut chunk) {
            Ok(0) | Err(_) => return None,
            Ok(n) => buffer.extend_from_slice(&chunk[..n]),
        }
    }
}

/// A whole chunked body, and how many bytes of the wire it took.
pub fn dechunk(wire: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let line = wire[at..].windows(2).position(|w| w == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&wire[at..at + line]).ok()?.trim(), 16).ok()?;
        at += line + 2;
        if wire.len() < at + size + 2 {
            return None;
        }
        body.extend_from_slice(&wire[at..at + size]);
        at += size + 2;
        if size == 0 {
            return Some((body, at));
        }
    }
}

fn act(socket: &mut TcpStream, script: Script, shared: &Shared) -> std::io::Result<bool> {
    match script {
        Script::Reply(status, head, body) => {
            let head = format!("HTTP/1.1 {status} X\r\n{head}content-length: {}\r\n\r\n", body.len());
            socket.write_all(&[head.as_bytes(), &body].concat())?;
            Ok(true)
        }
        Script::Events(events, then) => {
            socket.write_all(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
            )?;
            for event in events {
                socket.write_all(&chunk(&event))?;
            }
            match then {
                Then::End => {}
                Then::Stall => return wait_for_hang_up(socket, shared, None),
                Then::Break => return Ok(false),
                Then::Gate(gate, rest) => {
                    wait_for_hang_up(socket, shared, Some(&gate))?;
                    for event in rest {
                        socket.write_all(&chunk(&event))?;
                    }
                }
            }
            socket.write_all(b"0\r\n\r\n")?;
            Ok(true)
        }
        Script::Raw(bytes) => {
            socket.write_all(&bytes)?;
            Ok(false)
        }
        Script::Part(bytes) => {
            socket.write_all(&bytes)?;
            wait_for_hang_up(socket, shared, None)
        }
        Script::Gated(gate, script) => {
            wait_for_hang_up(socket, shared, Some(&gate))?;
            act(socket, *script, shared)
        }
        Script::Stall => wait_for_hang_up(socket, shared, None),
        Script::Close => Ok(false),
    }
}

fn chunk(event: &str) -> Vec<u8> {
    format!("{:x}\r\n{event}\r\n", event.len()).into_bytes()
}

/// Returns when the gate opens; errs when the caller hangs up.
fn wait_for_hang_up(socket: &mut TcpStream, shared: &Shared, gate: Option<&AtomicBool>) -> std::io::Result<bool> {
    socket.set_read_timeout(Some(Duration::from_millis(10)))?;
    let mut byte = [0];
    loop {
        if gate.is_some_and(|gate| gate.load(Ordering::Acquire)) {
            socket.set_read_timeout(None)?;
            return Ok(true);
        }
        if shared.stop.load(Ordering::Acquire) {
            return Ok(false);
        }
        match socket.peek(&mut byte) {
            Ok(0) => return Err(std::io::ErrorKind::ConnectionReset.into()),
            Ok(_) => std::thread::sleep(Duration::from_millis(5)),
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(e) => return Err(e),
        }
    }
}

/// A chat completion as OpenAI sends it.
pub fn chat(text: &str) -> Script {
    let body = serde_json::json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    });
    Script::Reply(200, "content-type: application/json\r\n".to_owned(), body.to_string().into_bytes())
}

/// An error as OpenAI sends it.
pub fn error(status: u16, code: &str, head: &str) -> Script {
    let body = serde_json::json!({"error": {"message": code, "type": code, "param": null, "code": code}});
    Script::Reply(status, format!("content-type: application/json\r\n{head}"), body.to_string().into_bytes())
}

/// A chat stream's events; `usage` as the last but one when asked for.
pub fn chat_events(words: &[&str], usage: bool) -> Vec<String> {
    let mut events: Vec<String> = words
        .iter()
        .map(|word| {
            let chunk = serde_json::json!({
                "id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini",
                "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": null}],
            });
            format!("data: {chunk}\n\n")
        })
        .collect();
    if usage {
        let chunk = serde_json::json!({
            "id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini", "choices": [],
            "usage": {"prompt_tokens": 11, "completion_tokens": words.len(), "total_tokens": 11 + words.len()},
        });
        events.push(format!("data: {chunk}\n\n"));
    }
    events.push("data: [DONE]\n\n".to_owned());
    events
}
