//! The wiring to other instances: a change of the catalog reaches them by a message, long before they would look.

use super::*;
use crate::base::tasks::Phase;
use crate::base::{Clock, Secret, seal};
use crate::cluster::testing::RedisServer;
use crate::config::Settings;
use crate::state::catalog::Directory;
use crate::store::refresh::{Refresher, Sources};
use crate::store::rows::KeySpec;
use crate::store::{Store, StoreConfig};

/// One instance's parts, wired as they are in service, and the way to the others.
fn joined(server: &RedisServer, dir: &std::path::Path, switch: &DrainSwitch) -> (Parts, WaysOut) {
    let settings = Settings {
        data_dir: dir.to_owned(),
        redis_url: Some(Secret::new(server.url())),
        redis_deadline: Duration::from_secs(5),
        ..Settings::default()
    };
    let store = Store::open(&StoreConfig::from(&settings)).unwrap();
    let parts = Parts::new(Arc::new(settings), Arc::new(Directory::new()), store).unwrap();
    let ways = parts.ways_out(Arc::default(), Sayings::none(), &Bus::new(parts.epoch, 1), switch).unwrap();
    (parts, ways)
}

#[test]
fn a_key_made_by_one_is_known_by_the_other_by_redis_alone() {
    let (server, dir) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let switch = DrainSwitch::new();
    let ((a, to_b), (b, to_a)) = (joined(&server, dir.path(), &switch), joined(&server, dir.path(), &switch));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    for ways in [&to_a, &to_b] {
        assert!(runtime.block_on(ways.cluster.as_ref().unwrap().known(Duration::from_secs(10))));
    }
    let mut refresher = Refresher::new(b.store.clone(), Arc::clone(&b.directory), Sources::default()).unwrap();
    runtime.block_on(refresher.load()).unwrap();
    // What a refresher does when it is rung for; and never by itself.
    let (bell, drain) = (b.store.bell(), switch.drain());
    let work = async move {
        loop {
            tokio::select! {
                () = bell.notified() => refresher.load().await.unwrap(),
                () = drain.reached(Phase::Cut) => return,
            }
        }
    };
    let refreshing = crate::base::tasks::spawn_on(runtime.handle(), "refresh", work);
    let spec = |n| KeySpec {
        name: format!("k{n}"),
        rpm: None,
        burst: None,
        tpm: None,
        max_parallel: None,
        models: None,
        budget_nanos: None,
        expires_ms: None,
    };
    let mut took: Vec<Duration> = (0..100)
        .map(|n| {
            let began = Clock::now();
            let made = runtime.block_on(a.store.create_key(spec(n))).unwrap();
            let hash = seal::key_hash(made.plain.reveal());
            while b.directory.key(&hash).is_none() {
                assert!(Clock::now().since(began) < Duration::from_secs(20), "b never hears of key {n}");
                std::thread::yield_now();
            }
            Clock::now().since(began)
        })
        .collect();
    took.sort_unstable();
    println!("a key is known elsewhere after p50 {:?}, p99 {:?}, at most {:?}", took[50], took[98], took[99]);
    assert!(took[98] < Duration::from_secs(2), "{took:?}");
    switch.advance(Phase::Cut);
    runtime.block_on(refreshing).unwrap();
    for ways in [to_a, to_b] {
        ways.cluster.unwrap().wait();
    }
}
