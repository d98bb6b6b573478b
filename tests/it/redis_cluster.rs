//! What befalls a Redis Cluster under two gateways: a master dies and the keys of the others do not notice; slots move
//! and every limit stays what it was. No request fails.

use crate::redis_limits::{ASK, CHAT, Pair, good};
use crate::support::client::{Conn, get, post, post_bytes};
use crate::support::eventually;
use crate::support::gateway::named;
use crate::support::provider::{Provider, chat};
use crate::support::redis_cluster::RedisCluster;
use crate::support::shared::{Kind, Redis};
use merido::config::OnRedisDown;
use merido::store::rows::KeySpec;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Requests one after the other of several keys at both gateways, until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<Vec<u16>>>,
}

impl Load {
    fn start(pair: &Pair, heads: &[String]) -> Self {
        let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let threads = pair.gateways.iter().map(|gateway| {
            let (addr, stop, done) = (gateway.addr, Arc::clone(&stop), Arc::clone(&done));
            let wires: Vec<Vec<u8>> = heads.iter().map(|head| post_bytes(CHAT, head, ASK)).collect();
            std::thread::spawn(move || {
                let (mut conn, mut failed) = (Conn::open(addr), Vec::new());
                for wire in wires.iter().cycle() {
                    if stop.load(Ordering::Acquire) {
                        break;
                    }
                    conn.send(wire);
                    failed.extend(Some(conn.answer().status).filter(|status| *status != 200));
                    done.fetch_add(1, Ordering::AcqRel);
                    std::thread::sleep(Duration::from_millis(2));
                }
                failed
            })
        });
        let threads = threads.collect();
        Self { stop, done, threads }
    }

    /// Waits for so many answers more.
    #[track_caller]
    fn flows(&self, count: u64) {
        let from = self.done.load(Ordering::Acquire);
        eventually("requests are answered", || self.done.load(Ordering::Acquire) >= from + count);
    }

    #[track_caller]
    fn ends_well(self) {
        self.stop.store(true, Ordering::Release);
        let failed: Vec<u16> = self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert_eq!(failed, [0; 0], "of {}", self.done.load(Ordering::Acquire));
    }
}

fn cluster(redis: &mut Redis) -> &mut RedisCluster {
    match redis {
        Redis::Three(cluster) => cluster,
        Redis::One(_) => panic!("a cluster was started"),
    }
}

/// A new key with this limit whose buckets are (or are not) on that node; the name of the buckets, too.
fn key_on(pair: &Pair, redis: &mut Redis, node: impl Fn(usize) -> bool, spec: &KeySpec) -> (String, String) {
    loop {
        let created = pair.gateways[0].create_key(spec.clone());
        let name = format!("t:{{k{}}}:limit:1", created.info.id.0);
        if node(cluster(redis).owner(&name)) {
            let head = format!("authorization: Bearer {}\r\n", created.plain.reveal());
            for gateway in &pair.gateways {
                eventually("both know the key", || get(gateway.addr, "/v1/models", &head).status == 200);
            }
            return (head, name);
        }
    }
}

fn few() -> KeySpec {
    // One a minute: none flows back while a test lasts.
    KeySpec { rpm: Some(1), burst: Some(20), ..named("few") }
}

fn many() -> KeySpec {
    KeySpec { rpm: Some(600_000), ..named("many") }
}

#[test]
fn a_master_that_dies_takes_only_its_own_keys() {
    let (mut redis, provider) = (Redis::start(Kind::ThreeNodes), Provider::new(chat("x")));
    let pair = Pair::new(&provider, &redis, OnRedisDown::Open);
    let heads: Vec<String> = (0..3).map(|node| key_on(&pair, &mut redis, |at| at == node, &many()).0).collect();
    let limited = [0, 1, 2].map(|node| key_on(&pair, &mut redis, |at| at == node, &few()).0);
    let fresh = [0, 1, 2].map(|node| key_on(&pair, &mut redis, |at| at == node, &few()).0);
    for head in &limited {
        assert_eq!(good(&pair.at_once(10, &post_bytes(CHAT, head, ASK))), 10);
    }
    let load = Load::start(&pair, &heads);
    load.flows(60);
    let dead = cluster(&mut redis).nodes[1].addr().to_string();
    cluster(&mut redis).nodes[1].kill();
    load.flows(60);
    for gateway in &pair.gateways {
        eventually("it says which is missing", || {
            let said = get(gateway.addr, "/api/cluster", "").json();
            said["redis"]["reason"].as_str().is_some_and(|reason| reason.contains(&dead))
        });
    }
    for (node, (old, new)) in limited.iter().zip(&fresh).enumerate() {
        // Where it is gone the policy holds: open.
        let (old_left, new_left) = if node == 1 { (40, 40) } else { (10, 20) };
        assert_eq!(good(&pair.at_once(40, &post_bytes(CHAT, old, ASK))), old_left, "node {node}");
        assert_eq!(good(&pair.at_once(40, &post_bytes(CHAT, new, ASK))), new_left, "node {node}");
    }
    cluster(&mut redis).nodes[1].revive();
    cluster(&mut redis).settled();
    for gateway in &pair.gateways {
        eventually("all are there", || get(gateway.addr, "/api/cluster", "").json()["redis"]["state"] == "ok");
    }
    load.flows(60);
    // A node that came back may be unsure of its slots for a moment: then the policy holds a little longer.
    eventually("its keys are limited again", || {
        let (head, _) = key_on(&pair, &mut redis, |at| at == 1, &few());
        good(&pair.at_once(30, &post_bytes(CHAT, &head, ASK))) == 20
    });
    load.ends_well();
}

#[test]
fn a_master_that_hangs_costs_nobody_an_answer() {
    let (mut redis, provider) = (Redis::start(Kind::ThreeNodes), Provider::new(chat("x")));
    let pair = Pair::with_deadline(&provider, &redis, OnRedisDown::Open, Duration::from_millis(100));
    let heads: Vec<String> = (0..3).map(|node| key_on(&pair, &mut redis, |at| at == node, &many()).0).collect();
    let load = Load::start(&pair, &heads);
    for node in 0..3 {
        load.flows(30);
        let hangs = cluster(&mut redis).nodes[node].addr().to_string();
        cluster(&mut redis).nodes[node].freeze();
        for gateway in &pair.gateways {
            eventually("it says which hangs", || {
                let said = get(gateway.addr, "/api/cluster", "").json();
                said["redis"]["reason"].as_str().is_some_and(|reason| reason.contains(&hangs))
            });
        }
        load.flows(30);
        cluster(&mut redis).nodes[node].thaw();
        for gateway in &pair.gateways {
            eventually("all are there", || get(gateway.addr, "/api/cluster", "").json()["redis"]["state"] == "ok");
        }
    }
    load.flows(30);
    load.ends_well();
}

#[test]
fn limits_are_exact_while_their_slots_move() {
    let (mut redis, provider) = (Redis::start(Kind::ThreeNodes), Provider::new(chat("x")));
    let pair = Pair::new(&provider, &redis, OnRedisDown::Closed);
    let load = Load::start(&pair, &[key_on(&pair, &mut redis, |_| true, &many()).0]);
    let redirects = pair.gateways[0].metric("merido_redis_redirects_total");

    // Not there yet when its slot begins to move: it is made where the slot goes to (ASK).
    let (head, name) = key_on(&pair, &mut redis, |node| node == 0, &few());
    let wire = post_bytes(CHAT, &head, ASK);
    cluster(&mut redis).begin_move(&name, 2);
    assert_eq!(good(&pair.at_once(30, &wire)), 20);
    let met = pair.gateways[0].metric("merido_redis_redirects_total");
    assert!(met > redirects, "calls were sent on");
    cluster(&mut redis).end_move(&[&name], 0, 2);
    assert_eq!(good(&pair.at_once(30, &wire)), 0, "what was used is known where the slot is now (MOVED)");

    // There already: it stays until it is moved, and is followed then.
    let (head, name) = key_on(&pair, &mut redis, |node| node == 1, &few());
    let wire = post_bytes(CHAT, &head, ASK);
    let use_some = |count: usize| assert_eq!(good(&pair.at_once(count, &wire)), count);
    use_some(5);
    cluster(&mut redis).begin_move(&name, 0);
    use_some(5);
    cluster(&mut redis).send(&name, 1, 0);
    use_some(5);
    cluster(&mut redis).end_move(&[&name], 1, 0);
    assert_eq!(good(&pair.at_once(30, &wire)), 5);
    assert_eq!(post(pair.gateways[0].addr, CHAT, &head, ASK).status, 429);

    // The load's own slot, back and forth under load.
    let busy = key_on(&pair, &mut redis, |node| node == 0, &many());
    let more = Load::start(&pair, &[busy.0]);
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        more.flows(20);
        cluster(&mut redis).begin_move(&busy.1, to);
        more.flows(20);
        cluster(&mut redis).end_move(&[&busy.1], from, to);
    }
    more.flows(20);
    more.ends_well();
    load.ends_well();
}
