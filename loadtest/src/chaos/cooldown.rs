//! How soon a rest that one instance met is honoured by the other, and how soon its end.
//!
//! A provider of its own refuses one call with 429; from the moment the first instance has answered, the second is asked
//! over and over until it refuses without asking the provider. Then an operator ends the rest at the second, and the
//! first is asked until it serves. Nothing else runs: the time is the instances' and Redis', and the question's own.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

use super::Options;
use super::pair::Pair;
use super::redis::Redis;
use crate::clock;
use crate::generate::Stop;

/// A trip that takes longer is not honoured.
const PATIENCE: Duration = Duration::from_secs(10);

/// All trips, in ms.
#[derive(Debug, Serialize)]
pub(super) struct Trips {
    honoured: Spread,
    ended: Spread,
    /// Requests that the second instance still let through, in all trips.
    let_through: u64,
}

#[derive(Debug, Serialize)]
struct Spread {
    count: usize,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

pub(super) fn run(options: &Options, dir: &Path, stop: &Stop) -> Result<Trips, String> {
    let mut redis = Redis::new(dir)?;
    redis.start()?;
    let provider = Provider::start()?;
    let base = format!("http://127.0.0.1:{}/v1", provider.port);
    let mut pair = Pair::start(&options.merido, &options.env, &redis.direct(), Some(&base), dir)?;
    pair.says("ok")?;
    let [mut one, mut other] = pair.ports().map(|port| Client::new(port, pair.unlimited()));
    serves(&mut one)?;
    serves(&mut other)?;
    let (mut honoured, mut ended, mut let_through) = (Vec::new(), Vec::new(), 0);
    for _ in 0..options.trips {
        if stop.is_set() {
            break;
        }
        provider.refuse.store(true, Ordering::Release);
        let refused = one.ask()?;
        if refused != 429 {
            return Err(format!("a refusal came through as {refused}"));
        }
        let (began, calls) = (clock::now(), provider.calls.load(Ordering::Acquire));
        until(|| Ok(other.ask()? == 429))?;
        honoured.push(clock::now() - began);
        let_through += provider.calls.load(Ordering::Acquire) - calls;
        let began = clock::now();
        let status = other.send("DELETE /api/cooldowns/a HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")?;
        if status != 200 {
            return Err(format!("a rest cannot be ended: {status}"));
        }
        serves(&mut one)?;
        ended.push(clock::now() - began);
        serves(&mut other)?;
    }
    pair.end();
    Ok(Trips { honoured: Spread::of(honoured), ended: Spread::of(ended), let_through })
}

impl Trips {
    pub(super) fn table(&self) -> String {
        let row = |name: &str, of: &Spread| {
            format!("| {name} | {} | {:.2} | {:.2} | {:.2} |\n", of.count, of.p50_ms, of.p99_ms, of.max_ms)
        };
        format!(
            "\n| from one instance to the other | trips | p50 ms | p99 | max |\n|---|--:|--:|--:|--:|\n{}{}",
            row("a 429 is honoured", &self.honoured),
            row("an operator's end of it is known", &self.ended)
        )
    }
}

impl Spread {
    fn of(mut took: Vec<Duration>) -> Self {
        took.sort_unstable();
        let at = |share: f64| {
            let index = ((took.len() as f64 * share).ceil() as usize).saturating_sub(1);
            took.get(index).map_or(0.0, |took| took.as_secs_f64() * 1e3)
        };
        Self { count: took.len(), p50_ms: at(0.5), p99_ms: at(0.99), max_ms: at(1.0) }
    }
}

fn serves(client: &mut Client) -> Result<(), String> {
    until(|| Ok(client.ask()? == 200))
}

fn until(mut holds: impl FnMut() -> Result<bool, String>) -> Result<(), String> {
    let began = clock::now();
    while !holds()? {
        if clock::now() - began > PATIENCE {
            return Err(format!("not within {PATIENCE:?}"));
        }
    }
    Ok(())
}

/// One connection to an instance.
struct Client {
    port: u16,
    stream: Option<TcpStream>,
    ask: String,
}

impl Client {
    fn new(port: u16, key: &str) -> Self {
        let body = r#"{"model":"openai/gpt-4o-mini","messages":[]}"#;
        let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
        let length = body.len();
        let ask = format!("{head}authorization: Bearer {key}\r\ncontent-length: {length}\r\n\r\n{body}");
        Self { port, stream: None, ask }
    }

    /// The status of one request.
    fn ask(&mut self) -> Result<u16, String> {
        let ask = self.ask.clone();
        self.send(&ask)
    }

    fn send(&mut self, wire: &str) -> Result<u16, String> {
        self.exchange(wire).map_err(|error| format!("port {}: {error}", self.port))
    }

    fn exchange(&mut self, wire: &str) -> io::Result<u16> {
        let mut stream = if let Some(stream) = self.stream.take() {
            stream
        } else {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream
        };
        stream.write_all(wire.as_bytes())?;
        let (head, _) = message(&mut stream, &mut Vec::new())?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        if !head.contains("connection: close") {
            self.stream = Some(stream);
        }
        status.ok_or_else(|| io::Error::other("no status"))
    }
}

/// Reads one message with a `content-length`; its head and what of it `seen` was.
fn message(stream: &mut TcpStream, seen: &mut Vec<u8>) -> io::Result<(String, usize)> {
    let mut piece = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(seen);
        if let Some(end) = text.find("\r\n\r\n") {
            let head = text[..end].to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
            let whole = end + 4 + length.unwrap_or(0);
            if seen.len() >= whole {
                return Ok((head, whole));
            }
        }
        match stream.read(&mut piece)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => seen.extend_from_slice(&piece[..read]),
        }
    }
}

/// A provider that refuses the next call when told to.
struct Provider {
    port: u16,
    refuse: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
}

impl Provider {
    fn start() -> Result<Self, String> {
        let failed = |error: io::Error| format!("provider: {error}");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        let (refuse, calls) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (refuses, called) = (Arc::clone(&refuse), Arc::clone(&calls));
        super::redis::thread("provider", move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (refuses, called) = (Arc::clone(&refuses), Arc::clone(&called));
                let _ = super::redis::thread("provider-call", move || {
                    let _ = serve(stream, &refuses, &called);
                });
            }
        })
        .map_err(failed)?;
        Ok(Self { port, refuse, calls })
    }
}

fn serve(mut stream: TcpStream, refuse: &AtomicBool, calls: &AtomicU64) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut seen = Vec::new();
    loop {
        let (_, whole) = message(&mut stream, &mut seen)?;
        seen.drain(..whole);
        calls.fetch_add(1, Ordering::AcqRel);
        let (status, body) = if refuse.swap(false, Ordering::AcqRel) {
            (
                "429 Too Many Requests\r\nretry-after: 60",
                r#"{"error":{"message":"slow down","code":"rate_limit_exceeded"}}"#,
            )
        } else {
            (
                "200 OK",
                r#"{"id":"1","object":"chat.completion","created":1,"model":"gpt-4o-mini","choices":[{"index":0,"message":{"role":"assistant","content":"x"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}"#,
            )
        };
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all((head + body).as_bytes())?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_of_two_hundred() {
        let spread = Spread::of((1..=200).map(Duration::from_millis).collect());
        assert_eq!((spread.p50_ms, spread.p99_ms, spread.max_ms), (100.0, 198.0, 200.0));
    }
}
