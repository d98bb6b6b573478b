//! A change of the catalog reaches the other instances by a message, long before they would look.

use crate::support::eventually;
use crate::support::gateway::{Setup, block_on, named};
use crate::support::redis::RedisServer;
use merido::base::bell::Bell;
use merido::base::tasks::{DrainSwitch, Phase};
use merido::cluster::{Cluster, ClusterConfig, Shared};
use merido::state::breakers::Breakers;
use merido::state::catalog::Directory;
use merido::state::delta::Delta;
use merido::state::news::{Herald, Kind, Listener};
use merido::state::outbox::Outbox;
use merido::store::refresh::{Refresher, Sources};
use merido::store::{Store, StoreConfig};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One instance: a store, and the way to the others. It looks into the store when it is rung for, and never else.
struct Instance {
    store: Store,
    directory: Arc<Directory>,
    switch: DrainSwitch,
    cluster: Option<Cluster>,
}

impl Instance {
    fn start(server: &RedisServer, config: &StoreConfig, epoch: u64) -> Self {
        let (store, directory) = (Store::open(config).unwrap(), Arc::new(Directory::new()));
        let bell = Arc::<Bell>::default();
        let (_outbox, tells, asks) = Outbox::<Delta>::open(8, Arc::clone(&bell));
        let (herald, news, _): (Herald, _, _) = Outbox::open(8, Arc::clone(&bell));
        let (_breakers, breakers) = Breakers::open(8, Arc::clone(&bell));
        store.tell_of_changes(herald);
        let changed = store.bell();
        let switch = DrainSwitch::new();
        let settings = Setup::new().redis(server).settings;
        let config = ClusterConfig {
            url: settings.redis_url.unwrap(),
            prefix: settings.redis_prefix,
            deadline: Duration::from_secs(5),
            epoch,
        };
        let shared = Shared {
            bell,
            drain: switch.drain(),
            reach: Arc::default(),
            tells,
            asks,
            directory: Arc::clone(&directory),
            breakers,
            news,
            listeners: vec![Listener::new(Kind::CATALOG, move |_| changed.notify_one())],
        };
        let cluster = Cluster::start(&config, shared).unwrap();
        assert!(block_on(cluster.known(Duration::from_secs(10))));
        Self { store, directory, switch, cluster: Some(cluster) }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.switch.advance(Phase::Cut);
        self.cluster.take().unwrap().wait();
    }
}

#[test]
fn a_key_made_by_one_is_known_by_the_other_by_redis_alone() {
    let (server, dir) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let config = StoreConfig::from(&Setup::new().prepare(dir.path()));
    let (a, b) = (Instance::start(&server, &config, 1), Instance::start(&server, &config, 2));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut refresher = Refresher::new(b.store.clone(), Arc::clone(&b.directory), Sources::default()).unwrap();
    runtime.block_on(refresher.load()).unwrap();
    // What a refresher does when it is rung for; no poll.
    let (bell, drain) = (b.store.bell(), b.switch.drain());
    let refreshing = runtime.spawn(async move {
        loop {
            tokio::select! {
                () = bell.notified() => refresher.load().await.unwrap(),
                () = drain.reached(Phase::Cut) => return,
            }
        }
    });
    let mut took: Vec<Duration> = (0..100)
        .map(|n| {
            let began = Instant::now();
            let made = block_on(a.store.create_key(named(&format!("k{n}")))).unwrap();
            let hash = merido::base::seal::key_hash(made.plain.reveal());
            eventually("b knows the key", || b.directory.key(&hash).is_some());
            began.elapsed()
        })
        .collect();
    took.sort_unstable();
    println!("a key is known elsewhere after p50 {:?}, p99 {:?}, at most {:?}", took[50], took[98], took[99]);
    assert!(took[98] < Duration::from_secs(2), "{took:?}");
    drop(b);
    runtime.block_on(refreshing).unwrap();
}
