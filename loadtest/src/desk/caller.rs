//! A steady load on both gateways: each connection sends when a request is due, and times count from then.
//!
//! A request that cannot be sent in time waits, and its wait counts; one that fails is counted and its connection opened
//! anew. Nothing here looks into answers beyond their status and length.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::thread::scope;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::world::World;
use crate::clock;
use crate::generate::Stop;

/// Connections: enough that a provider's time never makes a request wait for another.
const CONNECTIONS: usize = 64;
const BODY: &str = r#"{"model":"openai/gpt-4o-mini","max_tokens":64,"messages":[{"role":"user","content":"Tell me how a relay keeps its costs low."}]}"#;

#[derive(Debug)]
pub(super) struct Calls {
    pub(super) answered: u64,
    pub(super) failed: u64,
    times: Histogram<u64>,
}

impl Calls {
    fn none() -> Result<Self, String> {
        let times = Histogram::new_with_bounds(1, 600_000_000, 3).map_err(|error| error.to_string())?;
        Ok(Self { answered: 0, failed: 0, times })
    }

    /// A quantile, µs.
    pub(super) fn at(&self, quantile: f64) -> f64 {
        self.times.value_at_quantile(quantile) as f64
    }
}

/// `rate` requests a second over both, for so long.
pub(super) fn call(world: &World, rate: f64, lasting: Duration, stop: &Stop) -> Result<Calls, String> {
    let begun = clock::now();
    let each = Duration::from_secs_f64(CONNECTIONS as f64 / crate::run::rate(Some(rate))?.unwrap_or(1.0));
    scope(|threads| {
        let running: Vec<_> = (0..CONNECTIONS)
            .map(|n| {
                let (port, first) = (world.ports[n % 2], each.mul_f64(n as f64 / CONNECTIONS as f64));
                threads.spawn(move || {
                    let (mut calls, mut due, mut line) = (Calls::none()?, begun + first, None);
                    while due < begun + lasting && !stop.is_set() {
                        std::thread::sleep(due.saturating_duration_since(clock::now()));
                        let done = one(&mut line, port, &world.key);
                        if done.is_some() {
                            calls.answered += 1;
                            calls.times.saturating_record((clock::now() - due).as_micros() as u64);
                        } else {
                            calls.failed += 1;
                            line = None;
                        }
                        due += each;
                    }
                    Ok::<_, String>(calls)
                })
            })
            .collect();
        let mut all = Calls::none()?;
        for one in running {
            let calls = one.join().map_err(|_| "a caller's thread died".to_owned())??;
            (all.answered, all.failed) = (all.answered + calls.answered, all.failed + calls.failed);
            all.times += calls.times;
        }
        Ok(all)
    })
}

/// One request, answered with 200 and read whole.
fn one(line: &mut Option<TcpStream>, port: u16, key: &str) -> Option<()> {
    if line.is_none() {
        let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
        socket.set_nodelay(true).ok()?;
        socket.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
        *line = Some(socket);
    }
    let socket = line.as_mut()?;
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    socket.write_all(request.as_bytes()).ok()?;
    let (mut reply, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let read = socket.read(&mut piece).ok().filter(|read| *read > 0)?;
        reply.extend_from_slice(&piece[..read]);
        let Some(end) = memchr::memmem::find(&reply, b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(&reply[..end]).ok()?;
        if !head.starts_with("HTTP/1.1 200 ") {
            return None;
        }
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        })?;
        if reply.len() >= end + 4 + length {
            return Some(());
        }
    }
}
