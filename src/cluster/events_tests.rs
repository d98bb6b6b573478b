//! The stream against a real Redis: two instances' buses, what befalls the stream, and what it costs when nobody watches.

use super::*;
use crate::base::metrics::METRICS;
use crate::base::tasks::DrainSwitch;
use crate::base::{Clock, Dialect, RequestId};
use crate::cluster::testing::{RedisCluster, RedisServer};
use crate::state::bus::{Cursor, Done, Event, Next, Position, WARM};
use std::collections::BTreeMap;

const PATIENCE: Duration = Duration::from_secs(60);

/// One instance's end of it.
struct Instance {
    bus: Arc<Bus>,
    peers: Arc<Peers>,
    switch: DrainSwitch,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Instance {
    fn start(url: &str, epoch: u64) -> Self {
        // Readers here are slow: what a ring gives up is another test's.
        let (bus, switch) = (Bus::with_sizes(epoch, 1, 4096, 1 << 18), DrainSwitch::new());
        let connector = Connector::new(url, None).unwrap();
        let name = format!("i{epoch}").into();
        let peers = Arc::<Peers>::default();
        let (names, seen) = (Names::new("t"), Arc::clone(&peers));
        let thread = start(connector, names, Arc::clone(&bus), seen, name, switch.drain()).unwrap();
        Self { bus, peers, switch, thread: Some(thread) }
    }

    /// Events `from` to `to`, as its core and collector would.
    fn emit(&self, from: u64, to: u64) {
        for n in from..=to {
            self.bus.emit(0, event(self.bus.epoch(), n));
            if n % 256 == 0 || n == to {
                self.bus.collect(Clock::now());
            }
        }
    }

    /// Somebody who watches here, once it follows the others.
    fn watch(&self, after: Option<&Position>) -> Cursor {
        let mut cursor = self.bus.subscribe(after);
        let cx = std::task::Context::from_waker(std::task::Waker::noop());
        until("the others are followed", || cursor.ready(&cx));
        cursor.open();
        cursor
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.switch.advance(Phase::Cut);
        let _ = self.thread.take().unwrap().join();
    }
}

fn event(epoch: u64, n: u64) -> Event {
    Event {
        request: RequestId { epoch, n },
        unix_ms: 0,
        client_request_id: None,
        key: None,
        dialect: Dialect::OpenAi,
        stream: false,
        requested_model: "m".into(),
        account: None,
        model: None,
        done: Some(Done::default()),
    }
}

#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Clock::now();
    while !holds() {
        assert!(Clock::now().since(start) < PATIENCE, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a watcher has seen.
#[derive(Default)]
struct Seen {
    events: BTreeMap<(u64, u64), u32>,
    missed: u64,
}

impl Seen {
    fn look(&mut self, cursor: &mut Cursor) {
        loop {
            match cursor.try_next() {
                Next::Event(_, item) => {
                    let request = item.view("").request;
                    *self.events.entry((request.epoch, request.n)).or_default() += 1;
                }
                Next::Gap(missed) => self.missed += missed,
                Next::Wait => return,
            }
        }
    }

    #[track_caller]
    fn until(&mut self, cursor: &mut Cursor, epoch: u64, n: u64) {
        until("an event comes", || {
            self.look(cursor);
            self.events.contains_key(&(epoch, n))
        });
    }

    #[track_caller]
    fn is_whole(&self, epoch: u64, from: u64, to: u64) {
        let of: Vec<_> =
            self.events.iter().filter(|((e, _), _)| *e == epoch).map(|((_, n), count)| (*n, *count)).collect();
        assert_eq!(of, (from..=to).map(|n| (n, 1)).collect::<Vec<_>>());
        assert_eq!(self.missed, 0);
    }
}

fn calls(redis: &RedisServer, name: &str) -> u64 {
    let text = redis.command("INFO commandstats");
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{name}:calls="))?.split(',').next());
    line.map_or(0, |count| count.parse().unwrap())
}

#[test]
fn nobody_watches_nothing_is_read_and_after_a_while_nothing_is_sent_until_somebody_does() {
    let mut redis = RedisServer::start();
    let (a, b) = (Instance::start(&redis.url(), 1), Instance::start(&redis.url(), 2));
    // It stops to send once it has found no mark for a while; from then on it keeps what happened since its last look.
    a.emit(1, 10);
    let mut last = 10;
    until("it sends no more", || {
        let before = calls(&redis, "xadd");
        last += 1;
        a.emit(last, last);
        let looks = calls(&redis, "exists");
        until("it looks again", || calls(&redis, "exists") >= looks + 8);
        calls(&redis, "xadd") == before
    });
    assert_eq!((calls(&redis, "xread"), b.bus.cold()), (0, true));
    // What happens right after the watcher is told that it watches is there, though its writer has not heard of it.
    let mut watcher = b.watch(None);
    a.emit(last + 1, last + 5);
    let mut seen = Seen::default();
    seen.until(&mut watcher, 1, last + 5);
    let first = seen.events.keys().next().unwrap().1;
    assert!(first <= last + 1);
    seen.is_whole(1, first, last + 5);
    assert!(calls(&redis, "xread") > 0);
    until("how far it is behind is known", || b.peers.view().event_lag.is_some());
    assert_eq!(a.peers.view().event_lag, None, "it does not read");
    redis.kill();
    until("nobody knows", || b.peers.view().event_lag.is_none());
}

#[test]
fn a_stream_that_is_lost_in_part_or_whole_is_made_good() {
    let redis = RedisServer::start();
    let (a, b) = (Instance::start(&redis.url(), 1), Instance::start(&redis.url(), 2));
    let mut watcher = b.watch(None);
    let mut seen = Seen::default();
    let resent = METRICS.events_resent.get();
    for round in 0..8 {
        a.emit(round * 100 + 1, round * 100 + 50);
        if round % 2 > 0 {
            seen.until(&mut watcher, 1, round * 100 + 50);
        }
        match round {
            1 | 2 => drop(redis.command("FLUSHALL")),
            3 => drop(redis.command("DEL t:{events}:stream")),
            4 => drop(redis.command("SCRIPT FLUSH")),
            // A replica that had not heard of the end took over.
            5 => drop(redis.command("SET t:{events}:writer:1 301")),
            6 => drop(redis.command("CLIENT KILL TYPE normal")),
            _ => {}
        }
        a.emit(round * 100 + 51, round * 100 + 100);
    }
    seen.until(&mut watcher, 1, 800);
    seen.is_whole(1, 1, 800);
    assert!(METRICS.events_resent.get() > resent);
    // Emptied while nothing happens: it comes again by itself, for whoever comes back.
    redis.command("FLUSHALL");
    until("the stream is there again", || redis.command("XLEN t:{events}:stream").trim() != ":0");
}

#[test]
fn an_outage_costs_bounded_memory_and_what_it_loses_is_told() {
    let mut redis = RedisServer::start();
    let (a, b) = (Instance::start(&redis.url(), 1), Instance::start(&redis.url(), 2));
    let mut watcher = b.watch(None);
    let mut seen = Seen::default();
    a.emit(1, 100);
    seen.until(&mut watcher, 1, 100);
    redis.kill();
    let lost = METRICS.events_lost.get();
    // More than waits for Redis at most.
    a.emit(101, 100 + 300 * 256);
    let last = 100 + 300 * 256;
    redis.revive();
    until("the last one comes", || {
        seen.look(&mut watcher);
        seen.events.contains_key(&(1, last))
    });
    assert!(METRICS.events_lost.get() - lost >= seen.missed && seen.missed > 0);
    assert_eq!(seen.events.len() as u64 + seen.missed, last, "each came or is known to be lost");
    assert!(seen.events.values().all(|count| *count == 1));
}

#[test]
fn on_a_redis_cluster_the_stream_is_followed_to_where_it_moves() {
    let redis = RedisCluster::start();
    let (a, b) = (Instance::start(&redis.url(), 1), Instance::start(&redis.url(), 2));
    let mut watcher = b.watch(None);
    let mut seen = Seen::default();
    a.emit(1, 100);
    seen.until(&mut watcher, 1, 100);
    let keys = ["t:{events}:watch", "t:{events}:stream", "t:{events}:writer:1", "t:{events}:writer:2"];
    let from = redis.owner(keys[0]);
    let to = (from + 1) % 3;
    redis.begin_move(keys[0], to);
    a.emit(101, 200);
    redis.end_move(&keys, from, to);
    a.emit(201, 300);
    seen.until(&mut watcher, 1, 300);
    seen.is_whole(1, 1, 300);
}

#[test]
fn what_others_put_there_is_skipped_and_counted() {
    let redis = RedisServer::start();
    let (a, b) = (Instance::start(&redis.url(), 1), Instance::start(&redis.url(), 2));
    let mut watcher = b.watch(None);
    let (unknown, broken) = (METRICS.events_unknown.get(), METRICS.events_broken.get());
    for line in ["b \u{7f}newer", "b \u{1}short", "x y z \u{1}", "b \u{2}"] {
        redis.command(&format!("XADD t:{{events}}:stream * {line}"));
    }
    a.emit(1, 10);
    let mut seen = Seen::default();
    seen.until(&mut watcher, 1, 10);
    seen.is_whole(1, 1, 10);
    // Other tests of this process may count, too.
    assert!(METRICS.events_unknown.get() >= unknown + 2 && METRICS.events_broken.get() >= broken + 2);
}

#[test]
fn beyond_its_rate_the_started_are_left_out_without_a_gap() {
    let redis = RedisServer::start();
    let (a, b) = (Instance::start(&redis.url(), 1), Instance::start(&redis.url(), 2));
    let mut watcher = b.watch(None);
    let shed = METRICS.events_shed.get();
    for n in 1..=20_000u64 {
        a.bus.emit(0, Event { done: n.is_multiple_of(2).then(Done::default), ..event(1, n) });
        if n.is_multiple_of(256) {
            a.bus.collect(Clock::now());
        }
    }
    a.emit(20_001, 20_001);
    let mut seen = Seen::default();
    seen.until(&mut watcher, 1, 20_001);
    let shed = METRICS.events_shed.get() - shed;
    assert!(shed > 0 && seen.missed == 0, "{shed}");
    assert!((1..=10_000).all(|n| seen.events.contains_key(&(1, n * 2))), "every end is there");
    assert_eq!(seen.events.len() as u64 + shed, 20_001);
}

#[test]
fn the_mark_is_gone_soon_after_the_last_watcher() {
    let redis = RedisServer::start();
    let b = Instance::start(&redis.url(), 2);
    let watcher = b.watch(None);
    assert_eq!(redis.command("EXISTS t:{events}:watch").trim(), ":1");
    b.bus.collect(Clock::now());
    drop(watcher);
    b.bus.collect(Clock::now() + WARM);
    assert!(b.bus.cold());
    let mut reads = 0;
    until("it reads no more", || {
        let before = std::mem::replace(&mut reads, calls(&redis, "xread"));
        std::thread::sleep(Duration::from_millis(1_100));
        before == reads
    });
    until("the mark is gone", || redis.command("EXISTS t:{events}:watch").trim() == ":0");
}
