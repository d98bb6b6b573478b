//! Live events of several instances: whoever watches anywhere sees each event exactly once, whatever befalls Redis, the
//! instances or the watcher's connection.

use crate::support::client::{Conn, post_bytes};
use crate::support::gateway::{Setup, TestGateway};
use crate::support::shared::{Kind, Redis, on_both};
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const CHAT: &str = "/v1/chat/completions";
const BODY: &[u8] = br#"{"model":"demo/echo","messages":[{"role":"user","content":"hi"}]}"#;
/// Debug builds on a busy machine of two cores.
const PATIENCE: Duration = Duration::from_secs(120);

/// Several instances of one deployment.
struct Deployment {
    redis: Redis,
    dir: tempfile::TempDir,
    instances: Vec<TestGateway>,
}

impl Deployment {
    fn start(kind: Kind, count: usize) -> Self {
        let (redis, dir) = (Redis::start(kind), tempfile::tempdir().unwrap());
        let mut all = Self { redis, dir, instances: Vec::new() };
        for _ in 0..count {
            let one = all.instance();
            all.instances.push(one);
        }
        all
    }

    fn instance(&self) -> TestGateway {
        Setup::new().redis(&self.redis).with(|s| s.demo = Some(true)).start_in(self.dir.path())
    }

    fn addrs(&self) -> Vec<SocketAddr> {
        self.instances.iter().map(|one| one.addr).collect()
    }
}

/// Somebody who watches; follows by `Last-Event-ID` when told to go elsewhere or when its stream ends.
struct Watcher {
    seen: Arc<Mutex<Seen>>,
    at: Arc<Mutex<SocketAddr>>,
    socket: Arc<Mutex<Option<TcpStream>>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    /// How often, by what the client called the request and by the event's kind.
    events: HashMap<(String, String), u32>,
    gaps: Vec<String>,
    /// By instance.
    instances: BTreeMap<String, u32>,
    last_id: String,
    opened: u32,
}

impl Watcher {
    /// Returns once the stream is open.
    fn open(addr: SocketAddr) -> Self {
        let mut watcher = Self {
            seen: Arc::default(),
            at: Arc::new(Mutex::new(addr)),
            socket: Arc::default(),
            stop: Arc::default(),
            thread: None,
        };
        let (seen, at) = (Arc::clone(&watcher.seen), Arc::clone(&watcher.at));
        let (socket, stop) = (Arc::clone(&watcher.socket), Arc::clone(&watcher.stop));
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::Acquire) {
                let addr = *at.lock();
                let last = seen.lock().last_id.clone();
                if watch(addr, &last, &seen, &socket).is_none() {
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        });
        watcher.thread = Some(thread);
        watcher.opened(1);
        watcher
    }

    fn opened(&self, times: u32) {
        patiently("the stream opens", || self.seen.lock().opened >= times);
    }

    /// Goes on at another instance.
    fn go_to(&self, addr: SocketAddr) {
        let opened = self.seen.lock().opened;
        *self.at.lock() = addr;
        self.hang_up();
        self.opened(opened + 1);
    }

    /// Hangs up, and comes back only when told where.
    fn leave(&self) {
        // Nobody listens there.
        *self.at.lock() = SocketAddr::from(([127, 0, 0, 1], 1));
        self.hang_up();
    }

    fn hang_up(&self) {
        if let Some(socket) = &*self.socket.lock() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// All of `wanted` came, each once, and nothing was said to be missing.
    #[track_caller]
    fn saw_each_once(&self, who: usize, wanted: &[String]) {
        let all = wanted.len() * 2;
        let start = Instant::now();
        while self.seen.lock().events.len() < all && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(20));
        }
        let seen = self.seen.lock();
        let missing = wanted.iter().flat_map(|id| ["started", "completed"].map(|kind| (id.clone(), kind.to_owned())));
        let missing: Vec<_> = missing.filter(|one| !seen.events.contains_key(one)).take(5).collect();
        let twice: Vec<_> = seen.events.iter().filter(|(_, count)| **count > 1).take(5).collect();
        let sums = (seen.events.len(), &seen.instances, &seen.gaps);
        assert!(
            missing.is_empty() && twice.is_empty(),
            "watcher {who}: {missing:?} missing, {twice:?} twice; {sums:?}"
        );
        assert!(seen.gaps.is_empty() && seen.events.len() == all, "watcher {who}: {sums:?}");
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.hang_up();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Reads one stream to its end. What came whole counts, as in a browser.
fn watch(addr: SocketAddr, last: &str, seen: &Mutex<Seen>, slot: &Mutex<Option<TcpStream>>) -> Option<()> {
    let mut socket = TcpStream::connect(addr).ok()?;
    *slot.lock() = Some(socket.try_clone().ok()?);
    let resume = if last.is_empty() { String::new() } else { format!("last-event-id: {last}\r\n") };
    socket.write_all(format!("GET /api/events HTTP/1.1\r\nhost: g\r\n{resume}\r\n").as_bytes()).ok()?;
    let (mut id, mut kind, mut data) = (String::new(), String::new(), String::new());
    for line in BufReader::new(socket).lines() {
        let line = line.ok()?;
        // Lines that are none of these are the response's head and the sizes of its chunks.
        if let Some(value) = line.strip_prefix("id: ") {
            value.clone_into(&mut id);
        } else if let Some(value) = line.strip_prefix("event: ") {
            value.clone_into(&mut kind);
        } else if let Some(value) = line.strip_prefix("data: ") {
            value.clone_into(&mut data);
        } else if line.is_empty() && !id.is_empty() {
            let mut seen = seen.lock();
            if kind.is_empty() {
                seen.opened += 1;
            } else if kind == "gap" {
                seen.gaps.push(format!("{id} {data}"));
            } else {
                let event: Value = serde_json::from_str(&data).unwrap();
                let name = event["client_request_id"].as_str().unwrap().to_owned();
                *seen.instances.entry(event["instance"].as_str().unwrap().to_owned()).or_default() += 1;
                *seen.events.entry((name, std::mem::take(&mut kind))).or_default() += 1;
            }
            seen.last_id = std::mem::take(&mut id);
        }
    }
    Some(())
}

/// Traffic at all of `addrs` until dropped or `most` requests were answered; 500 a second and instance at most, so that
/// no event is shed.
struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(addrs: &[SocketAddr], name: &str, each: u64) -> Self {
        let (stop, sent) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let one = |place: usize, addr: SocketAddr| {
            let (stop, sent, name) = (Arc::clone(&stop), Arc::clone(&sent), name.to_owned());
            std::thread::spawn(move || {
                let mut conn = Conn::open(addr);
                let mut ids = Vec::new();
                for n in 0..each {
                    if stop.load(Ordering::Acquire) {
                        break;
                    }
                    let id = format!("{name}-{place}-{n}");
                    conn.send(&post_bytes(CHAT, &format!("x-request-id: {id}\r\n"), BODY));
                    assert_eq!(conn.answer().status, 200);
                    ids.push(id);
                    sent.fetch_add(1, Ordering::AcqRel);
                    std::thread::sleep(Duration::from_millis(2));
                }
                ids
            })
        };
        let threads = addrs.iter().enumerate().map(|(place, addr)| one(place, *addr)).collect();
        Self { stop, sent, threads }
    }

    fn reached(&self, count: u64) {
        patiently("requests are answered", || self.sent.load(Ordering::Acquire) >= count);
    }

    /// Names of all requests answered.
    fn all(self) -> Vec<String> {
        self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    }

    fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::Release);
        self.all()
    }
}

#[track_caller]
fn patiently(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn every_watcher_sees_every_event_of_every_instance_once(kind: Kind) {
    let all = Deployment::start(kind, 3);
    let watchers: Vec<_> = all.addrs().into_iter().map(Watcher::open).collect();
    let sent = Load::start(&all.addrs(), "a", 3_334).all();
    assert!(sent.len() >= 10_000);
    for (who, watcher) in watchers.iter().enumerate() {
        watcher.saw_each_once(who, &sent);
        assert_eq!(watcher.seen.lock().instances.len(), 3, "each event names where it happened");
    }
}

fn an_outage_that_empties_redis_loses_and_repeats_nothing(kind: Kind) {
    let mut all = Deployment::start(kind, 3);
    let watchers: Vec<_> = all.addrs().into_iter().map(Watcher::open).collect();
    let load = Load::start(&all.addrs(), "b", u64::MAX);
    load.reached(1_000);
    all.redis.kill();
    // The length of the outage, not a wait for anything.
    std::thread::sleep(Duration::from_secs(3));
    let during = load.sent.load(Ordering::Acquire);
    assert!(during > 1_100, "requests go on without Redis");
    all.redis.revive();
    load.reached(during + 1_000);
    let sent = load.stop();
    for (who, watcher) in watchers.iter().enumerate() {
        watcher.saw_each_once(who, &sent);
    }
}

fn an_emptied_redis_loses_and_repeats_nothing(kind: Kind) {
    let all = Deployment::start(kind, 3);
    let watchers: Vec<_> = all.addrs().into_iter().map(Watcher::open).collect();
    let load = Load::start(&all.addrs(), "c", u64::MAX);
    for n in 1..=5 {
        load.reached(n * 400);
        all.redis.command("FLUSHALL");
    }
    load.reached(2_500);
    let sent = load.stop();
    for (who, watcher) in watchers.iter().enumerate() {
        watcher.saw_each_once(who, &sent);
    }
}

fn an_instance_that_restarts_is_followed_across_it(kind: Kind) {
    let mut all = Deployment::start(kind, 3);
    let watchers: Vec<_> = all.addrs().into_iter().map(Watcher::open).collect();
    let others = Load::start(&all.addrs()[..2], "others", u64::MAX);
    let mut sent = Load::start(&all.addrs()[2..], "old", 500).all();
    // Its own last words, too.
    let (gateway, ..) = all.instances.pop().unwrap().take();
    gateway.stop();
    let reborn = all.instance();
    let addr = reborn.addr;
    all.instances.push(reborn);
    watchers[2].go_to(addr);
    sent.extend(Load::start(&[addr], "new", 500).all());
    sent.extend(others.stop());
    for (who, watcher) in watchers.iter().enumerate() {
        watcher.saw_each_once(who, &sent);
        assert_eq!(watcher.seen.lock().instances.len(), 4);
    }
}

fn a_watcher_goes_from_instance_to_instance_without_loss_or_repetition(kind: Kind) {
    let all = Deployment::start(kind, 3);
    let addrs = all.addrs();
    // The third stays cold between its visits: what it missed comes from the stream.
    let watcher = Watcher::open(addrs[0]);
    let load = Load::start(&addrs, "e", u64::MAX);
    for hop in 1..=9 {
        load.reached(hop as u64 * 200);
        watcher.go_to(addrs[hop % 3]);
    }
    load.reached(2_000);
    let sent = load.stop();
    watcher.saw_each_once(0, &sent);

    // Away while everything happens: all of it is there on return, even where nobody watched.
    watcher.leave();
    let mut wanted = sent;
    wanted.extend(Load::start(&addrs, "away", 300).all());
    watcher.go_to(addrs[2]);
    watcher.saw_each_once(0, &wanted);
}

fn without_watchers_nothing_is_read_and_soon_nothing_sent(kind: Kind) {
    let all = Deployment::start(kind, 2);
    Load::start(&all.addrs(), "idle", 50).all();
    let calls = |name: &str| all.redis.calls(name);
    patiently("writers look for a mark", || calls("exists") > 8);
    assert_eq!(calls("xread"), 0);
    // A new watcher is shown what happened since the writers last looked: they have to look again before it comes.
    let looks = calls("exists");
    patiently("writers forget what nobody watched", || calls("exists") > looks + 6);
    let watcher = Watcher::open(all.addrs()[0]);
    patiently("it reads", || calls("xread") > 0);
    let sent = Load::start(&all.addrs(), "seen", 50).all();
    watcher.saw_each_once(0, &sent);
}

on_both!(
    every_watcher_sees_every_event_of_every_instance_once,
    an_outage_that_empties_redis_loses_and_repeats_nothing,
    an_emptied_redis_loses_and_repeats_nothing,
    an_instance_that_restarts_is_followed_across_it,
    a_watcher_goes_from_instance_to_instance_without_loss_or_repetition,
    without_watchers_nothing_is_read_and_soon_nothing_sent,
);
