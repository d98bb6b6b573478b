//! The open loop: requests are due at a fixed rate, whatever the server does.
//!
//! One blocking thread per connection takes the next due time from a shared counter, sleeps until just before it, spins
//! the rest and sends: finer than an event loop's millisecond timer. When all connections are busy a due request waits,
//! and its latency counts from when it was due. Must never skip a due request: a run too fast for the server ends with
//! long latencies, not with fewer samples. Requests due before the end but not sent within the grace are failures.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::reply::{Progress, Reply};
use super::{GRACE, Load, Tally};
use crate::clock;
use crate::wire::Fault;

/// Woken this long before a request is due; the rest is spun. The kernel's usual timer slack is 50 µs.
const EARLY: Duration = Duration::from_micros(70);
/// Spun in all per second at most, however high the rate: the generator shares its machine with what it measures.
const SPUN: Duration = Duration::from_millis(150);

pub(crate) fn run(load: &Load, rate: f64, begun: Instant) -> io::Result<Vec<Tally>> {
    let next = &*load.begun;
    let total = ((load.duration.as_secs_f64() * rate) as u64).min(load.most);
    std::thread::scope(|scope| {
        let mut running = Vec::with_capacity(load.connections);
        for index in 0..load.connections.max(1) {
            let builder = std::thread::Builder::new().name(format!("load-{index}")).stack_size(256 << 10);
            running.push(builder.spawn_scoped(scope, move || connection(load, rate, begun, next, total, index))?);
        }
        running.into_iter().map(|thread| thread.join().map_err(|_| io::Error::other("thread died"))).collect()
    })
}

fn connection(load: &Load, rate: f64, begun: Instant, next: &AtomicU64, total: u64, index: usize) -> Tally {
    let mut tally = Tally::default();
    let mut patched = Vec::new();
    let early = EARLY.min(SPUN.div_f64(rate));
    let mut buffer = vec![0; 32 << 10];
    let mut open = connect(load, index).ok();
    let give_up = load.ends_at(begun) + GRACE;
    loop {
        let nth = next.fetch_add(1, Ordering::Relaxed);
        if nth >= total || load.stop.is_set() {
            return tally;
        }
        if clock::now() >= give_up {
            tally.failed("unsent at the end");
            continue;
        }
        let due = begun + Duration::from_secs_f64(nth as f64 / rate);
        wait_until(due, early);
        let Ok(stream) = open.take().map_or_else(|| connect(load, index), Ok) else {
            tally.failed("connection refused");
            continue;
        };
        let (form, wire) = load.requests.nth(nth, index, &mut patched);
        match exchange(load, &stream, (form, wire), &mut buffer, due, load.abandons(nth), &mut tally) {
            Ok(true) => open = Some(stream),
            Ok(false) => {}
            Err(fault) => tally.failed(fault),
        }
    }
}

fn connect(load: &Load, index: usize) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(load.target(index))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(GRACE))?;
    Ok(stream)
}

fn wait_until(due: Instant, early: Duration) {
    let left = due.saturating_duration_since(clock::now());
    std::thread::sleep(left.saturating_sub(early));
    while clock::now() < due {
        std::hint::spin_loop();
    }
}

/// One request and its reply. Answers whether the connection may be used again.
fn exchange(
    load: &Load,
    mut stream: &TcpStream,
    (form, wire): (usize, &[u8]),
    buffer: &mut [u8],
    due: Instant,
    abandon: bool,
    tally: &mut Tally,
) -> Result<bool, Fault> {
    stream.write_all(wire).map_err(|_| "connection closed on write")?;
    let asked = load.requests.form(form);
    let mut reply = Reply::new(asked.ending, asked.stamped);
    let (mut filled, mut first_byte) = (0, None);
    loop {
        if filled == buffer.len() {
            return Err("reply head too long");
        }
        let read = stream.read(&mut buffer[filled..]).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "unanswered at the end",
            _ => "connection reset",
        })?;
        if read == 0 {
            return Err(if first_byte.is_some() { "reply cut short" } else { "connection closed" });
        }
        let now = clock::now();
        let first = *first_byte.get_or_insert(now);
        if abandon {
            tally.abandoned();
            return Ok(false);
        }
        filled += read;
        let (used, progress) = reply.feed(&buffer[..filled])?;
        if asked.stamped {
            let wall = clock::wall_us();
            reply.drain_stamps(|sent| tally.event(wall.saturating_sub(sent)));
        }
        match progress {
            Progress::Done { status, keep } => {
                if used < filled {
                    return Err("bytes after the reply");
                }
                if (200..300).contains(&status) {
                    tally.answered(form, now - due, first - due, reply.body);
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
