//! Live events across instances: one Redis Stream that each instance appends its own events to and reads the others'
//! from, on a thread and connections of their own, so that packing and reading thousands of them delays no answer.
//!
//! - [`writer`] appends while somebody in the cluster watches. Whoever watches sets a mark (a key with TTL); writers look
//!   for it twice a second, and keep what happened since they last found none. So nothing that happens after a
//!   watcher has set its mark is lost, and nothing is sent while nobody watches.
//! - [`reader`] reads while this instance has a watcher ([`Bus::cold`] says when not).
//! - Each batch is appended once, by a script that knows the writer's last number in the stream: a repetition after a
//!   lost reply changes nothing, and a stream that was emptied or lost its end is noticed before anything is appended out of
//!   order; then the writer sends again from where the stream stands.
//!
//! Redis away: the backlog is bounded, the oldest go first, and those who watch are told how many (`gap`).

mod backlog;
mod batch;
mod reader;
mod writer;

use super::call::Script;
use super::call::script;
use super::codec::Names;
use super::connector::Connector;
use crate::base::tasks::{self, Drain, Phase};
use crate::state::bus::Bus;
use crate::state::peers::Peers;
use redis::Value;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::runtime::Builder;

static ADD: Script = script!("events_add.lua");
static WATCH: Script = script!("events_watch.lua");

/// Bound on a round trip. Nobody waits for it, so it is no sign of anything but a dead connection.
const TRIP: Duration = Duration::from_secs(2);

/// From one call that carries events, or brings any, to the next: what happens first goes at once, what follows gathers.
/// Without it each few events would be two calls, more than all else that busy instances ask of Redis.
const PACE: Duration = Duration::from_millis(30);

/// What both ends need.
#[derive(Clone)]
struct Ends {
    connector: Connector,
    names: Names,
    bus: Arc<Bus>,
    /// Where it is said how far behind the others we are.
    peers: Arc<Peers>,
    /// Our name, as people see it.
    instance: Arc<str>,
    drain: Drain,
}

impl Ends {
    /// Whether Redis must not be used, whoever answers there.
    fn alone(&self) -> bool {
        self.connector.alone().load(Ordering::Acquire)
    }
}

/// Starts the thread; it ends soon after shutdown's last phase.
pub(super) fn start(
    connector: Connector,
    names: Names,
    bus: Arc<Bus>,
    peers: Arc<Peers>,
    instance: Arc<str>,
    drain: Drain,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    bus.tap();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let ends = Ends { connector, names, bus, peers, instance, drain };
    tasks::thread("redis-events".to_owned(), move || {
        runtime.block_on(async {
            let end = ends.drain.clone();
            let reading = tasks::spawn("events reader", reader::run(ends.clone()));
            let writing = tasks::spawn("events writer", writer::run(ends));
            end.reached(Phase::Cut).await;
            reading.abort();
            // It sends what is left, bounded.
            let _ = writing.await;
        });
        runtime.shutdown_timeout(Duration::from_millis(100));
    })
}

/// An id of the stream: milliseconds and a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct StreamId {
    ms: u64,
    n: u64,
}

impl StreamId {
    fn parse(text: &[u8]) -> Option<Self> {
        let (ms, n) = std::str::from_utf8(text).ok()?.split_once('-')?;
        Some(Self { ms: ms.parse().ok()?, n: n.parse().ok()? })
    }

    /// Before everything the stream took at `ms` or later.
    fn before(ms: u64) -> Self {
        ms.checked_sub(1).map_or_else(Self::default, |ms| Self { ms, n: u64::MAX })
    }

    fn text(self) -> String {
        format!("{}-{}", self.ms, self.n)
    }
}

fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}

fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        other => std::str::from_utf8(bytes(other)?).ok()?.parse().ok(),
    }
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
