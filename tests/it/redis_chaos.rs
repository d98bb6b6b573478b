//! Whatever befalls Redis under load over two instances: no request fails, the outage is noticed and its end, too, and
//! nothing is logged per request. What it costs in latency is measured by `loadtest chaos`, not here.

use crate::support::client::{Conn, post_bytes};
use crate::support::eventually;
use crate::support::gateway::{Setup, named};
use crate::support::process::Process;
use crate::support::provider::{Provider, chat};
use crate::support::redis::RedisServer;
use crate::support::slow_proxy::SlowProxy;
use merido::store::rows::KeySpec;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const ASK: &[u8] = br#"{"model":"openai/gpt-4o-mini","messages":[]}"#;
/// Requests per second of each of the load's threads; two threads an instance.
const PACE: u64 = 100;

/// Two instances on one store and one Redis, reached through a proxy that can be slow.
struct Pair {
    instances: [Process; 2],
    server: RedisServer,
    proxy: SlowProxy,
    _provider: Provider,
    _dir: tempfile::TempDir,
    key: String,
}

/// Load until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Vec<String>>>,
}

impl Pair {
    fn start() -> Self {
        let server = RedisServer::start();
        let proxy = SlowProxy::start(server.addr());
        let provider = Provider::new(chat("hello"));
        let dir = tempfile::tempdir().unwrap();
        Setup::openai(&provider).prepare(&dir.path().join("data"));
        let url = proxy.redis_url();
        let env = [("MERIDO_REDIS_URL", &*url), ("MERIDO_ACCESS_LOG", "off")];
        let instances = [Process::start(dir.path(), &env), Process::start(dir.path(), &env)];
        let key = instances[0].key(KeySpec { rpm: Some(600_000), ..named("load") });
        let head = format!("authorization: Bearer {key}\r\n");
        for instance in &instances {
            eventually("the key is known", || {
                crate::support::client::get(instance.addr, "/v1/models", &head).status == 200
            });
        }
        let pair = Self { instances, server, proxy, _provider: provider, _dir: dir, key };
        pair.is("reached", 1.0);
        pair
    }

    #[track_caller]
    fn is(&self, what: &str, up: f64) {
        let state = if up > 0.0 { "ok" } else { "down" };
        for instance in &self.instances {
            eventually(what, || instance.get("/healthz").json()["redis"] == state);
        }
        for instance in &self.instances {
            eventually(what, || {
                instance.metric("merido_redis_servers_up") >= up
                    && (up > 0.0 || instance.metric("merido_redis_servers_up") == 0.0)
            });
        }
    }

    fn load(&self) -> Load {
        let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let threads = self.instances.iter().flat_map(|instance| [instance.addr; 2]).map(|addr| {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            let request = post_bytes("/v1/chat/completions", &format!("authorization: Bearer {}\r\n", self.key), ASK);
            std::thread::spawn(move || {
                let (mut failed, mut conn, began) = (Vec::new(), Conn::open(addr), Instant::now());
                for n in 1.. {
                    if stop.load(Ordering::Acquire) {
                        break;
                    }
                    conn.send(&request);
                    let answer = conn.answer();
                    if answer.status != 200 {
                        failed.push(format!("{}: {}", answer.status, answer.text()));
                    }
                    done.fetch_add(1, Ordering::AcqRel);
                    let due = began + Duration::from_millis(n * 1000 / PACE);
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                }
                failed
            })
        });
        let threads = threads.collect();
        Load { stop, done, threads }
    }

    /// Lines about Redis in both logs: warnings and their ends.
    fn lines(&self) -> usize {
        let about = |line: &&str| line.contains("redis") && (line.contains("WARN") || line.contains("INFO"));
        self.instances.iter().map(|instance| instance.log().lines().filter(about).count()).sum()
    }
}

impl Load {
    /// Waits until so many more requests have been answered: there is load while something is the case.
    #[track_caller]
    fn flows(&self, count: u64) {
        let from = self.done.load(Ordering::Acquire);
        eventually("requests are answered", || self.done.load(Ordering::Acquire) >= from + count);
    }

    fn end(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Release);
        let failed = self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        (self.done.load(Ordering::Acquire), failed)
    }
}

/// What befalls the server, and how it ends.
type Cell = (&'static str, fn(&mut Pair), fn(&mut Pair));

const CELLS: &[Cell] = &[
    ("killed, and back empty", |p| p.server.kill(), |p| p.server.revive()),
    ("frozen", |p| p.server.freeze(), |p| p.server.thaw()),
    ("200 ms slow", |p| p.proxy.delay(Duration::from_millis(200)), |p| p.proxy.delay(Duration::ZERO)),
    (
        "a read-only replica",
        |p| drop(p.server.command("REPLICAOF 127.0.0.1 1")),
        |p| drop(p.server.command("REPLICAOF NO ONE")),
    ),
    (
        "out of memory",
        |p| drop(p.server.command("CONFIG SET maxmemory 1")),
        |p| drop(p.server.command("CONFIG SET maxmemory 0")),
    ),
    ("loading", |p| p.server.restart_loading(), |p| p.server.load_fast()),
    ("unable to save", |p| p.server.break_saving(), |p| p.server.mend_saving()),
    (
        "scripts forbidden",
        |p| drop(p.server.command("ACL SETUSER default -evalsha")),
        |p| drop(p.server.command("ACL SETUSER default +evalsha")),
    ),
];

#[test]
fn no_request_fails_whatever_befalls_redis() {
    let mut pair = Pair::start();
    let load = pair.load();
    load.flows(400);
    let held = pair.instances[0].resident_kb();
    for (name, breaks, heals) in CELLS {
        let before = pair.lines();
        breaks(&mut pair);
        pair.is(&format!("{name}: noticed"), 0.0);
        load.flows(400);
        heals(&mut pair);
        pair.is(&format!("{name}: over"), 1.0);
        load.flows(100);
        let lines = pair.lines() - before;
        // A warning and its end for each connection there is; far fewer than one a request.
        assert!((2..40).contains(&lines), "{name}: {lines} lines\n{}", pair.instances[0].log());
    }
    // These are over before anybody could look: the connection is replaced, the scripts are loaded again.
    let short: &[(&str, fn(&mut Pair))] = &[
        ("reset", |p| drop(p.server.command("CLIENT KILL TYPE normal"))),
        ("scripts flushed", |p| drop(p.server.command("SCRIPT FLUSH"))),
        ("emptied", |p| drop(p.server.command("FLUSHALL"))),
        ("frozen for four deadlines", |p| {
            p.server.freeze();
            std::thread::sleep(Duration::from_millis(100));
            p.server.thaw();
        }),
    ];
    for (name, befalls) in short {
        befalls(&mut pair);
        load.flows(200);
        pair.is(&format!("{name}: over"), 1.0);
    }
    let grown = pair.instances[0].resident_kb().saturating_sub(held);
    let (done, failed) = load.end();
    assert!(failed.is_empty(), "{} of {done} failed: {:?}", failed.len(), failed.first());
    assert!(grown < 64 << 10, "it grew by {grown} KiB over {done} requests");
}
