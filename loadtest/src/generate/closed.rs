//! The closed loop: one single-threaded runtime per thread, one task per connection.
//!
//! Must never do work that is not needed to send, check and time a request: at full speed this half shares the machine
//! with what it measures. A failed connection is opened anew; a server that refuses connections is asked again after a
//! short rest, and each try counts as a failure.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::reply::{Progress, Reply};
use super::{GRACE, Load, Tally};
use crate::clock;
use crate::wire::Fault;

/// What a thread's connections share. The lock is never contended: they live on one thread.
struct Thread {
    load: Load,
    ends_at: Instant,
    tally: Mutex<Tally>,
}

/// Room for a reply's head and what one read brings; thousands of connections get less each.
const ROOM: usize = 32 << 10;
const ROOM_OF_MANY: usize = 8 << 10;

pub(crate) fn run(load: &Load, begun: Instant) -> io::Result<Vec<Tally>> {
    let threads = load.threads.clamp(1, load.connections.max(1));
    std::thread::scope(|scope| {
        let mut running = Vec::with_capacity(threads);
        for index in 0..threads {
            let connections: Vec<usize> = (index..load.connections).step_by(threads).collect();
            let thread = Arc::new(Thread {
                load: load.clone(),
                ends_at: load.ends_at(begun),
                tally: Mutex::new(Tally::default()),
            });
            let builder = std::thread::Builder::new().name(format!("load-{index}"));
            running.push(builder.spawn_scoped(scope, move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(all(&thread, &connections));
                let tally = thread.tally.lock().clone();
                io::Result::Ok(tally)
            })?);
        }
        running
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(io::Error::other("thread died"))))
            .collect()
    })
}

async fn all(thread: &Arc<Thread>, connections: &[usize]) {
    let mut running = JoinSet::new();
    for index in connections {
        running.spawn(connection(Arc::clone(thread), *index));
    }
    let rest = thread.ends_at.saturating_duration_since(clock::now()) + GRACE;
    let finished = async { while running.join_next().await.is_some() {} };
    if tokio::time::timeout(rest, finished).await.is_err() {
        for _ in 0..running.len() {
            thread.tally.lock().failed("unanswered at the end");
        }
    }
}

async fn connection(thread: Arc<Thread>, index: usize) {
    let mut buffer = vec![0; if thread.load.connections > 1024 { ROOM_OF_MANY } else { ROOM }];
    let mut patched = Vec::new();
    let target = thread.load.target(index);
    let mut open = None;
    let of_all = index as f64 / thread.load.connections.max(1) as f64;
    tokio::time::sleep(thread.load.spread.mul_f64(of_all)).await;
    loop {
        let start = clock::now();
        let nth = thread.load.begun.fetch_add(1, Ordering::Relaxed);
        if start >= thread.ends_at || nth >= thread.load.most || thread.load.stop.is_set() {
            return;
        }
        let mut stream = match open.take() {
            Some(stream) => stream,
            None => match TcpStream::connect(target).await {
                Ok(stream) if stream.set_nodelay(true).is_ok() => stream,
                _ => {
                    thread.tally.lock().failed("connection refused");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            },
        };
        let (form, wire) = thread.load.requests.nth(nth, index, &mut patched);
        match exchange(&thread, &mut stream, wire, form, &mut buffer, start, thread.load.abandons(nth)).await {
            Ok(true) => open = Some(stream),
            Ok(false) => {}
            Err(fault) => thread.tally.lock().failed(fault),
        }
    }
}

/// One request and its reply. Answers whether the connection may be used again.
async fn exchange(
    thread: &Thread,
    stream: &mut TcpStream,
    wire: &[u8],
    form: usize,
    buffer: &mut [u8],
    start: Instant,
    abandon: bool,
) -> Result<bool, Fault> {
    stream.write_all(wire).await.map_err(|_| "connection closed on write")?;
    let asked = thread.load.requests.form(form);
    let mut reply = Reply::new(asked.ending, asked.stamped);
    let (mut filled, mut first_byte) = (0, None);
    loop {
        if filled == buffer.len() {
            return Err("reply head too long");
        }
        let read = stream.read(&mut buffer[filled..]).await.map_err(|_| "connection reset")?;
        if read == 0 {
            return Err(if first_byte.is_some() { "reply cut short" } else { "connection closed" });
        }
        let now = clock::now();
        let first = *first_byte.get_or_insert(now);
        if abandon {
            thread.tally.lock().abandoned();
            return Ok(false);
        }
        filled += read;
        let (used, progress) = reply.feed(&buffer[..filled])?;
        if asked.stamped {
            let wall = clock::wall_us();
            let mut tally = thread.tally.lock();
            reply.drain_stamps(|sent| tally.event(wall.saturating_sub(sent)));
        }
        match progress {
            Progress::Done { status, keep } => {
                if used < filled {
                    return Err("bytes after the reply");
                }
                let mut tally = thread.tally.lock();
                if (200..300).contains(&status) {
                    tally.answered(form, now - start, first - start, reply.body);
                } else {
                    tally.refused(status);
                }
                return Ok(keep);
            }
            Progress::Body => filled = 0,
            Progress::Head => {}
        }
    }
}
