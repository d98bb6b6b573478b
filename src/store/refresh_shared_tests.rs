//! Two instances on one database: what is changed on one is live on the other, by its notification alone, or by looking
//! alone; and no change is missed, whatever the order in which changes commit.

use super::tests::eventually;
use super::*;
use crate::base::seal::key_hash;
use crate::base::tasks::{self, DrainSwitch};
use crate::store::StoreConfig;
use crate::store::test_server::{self, run_sql};
use crate::store::tests::{account, key, shared_config};

struct Instance {
    store: Store,
    directory: Arc<Directory>,
    switch: DrainSwitch,
    running: tokio::task::JoinHandle<()>,
}

impl Instance {
    async fn start(config: &StoreConfig, change: impl FnOnce(&mut Refresher)) -> Self {
        let (store, directory) = (Store::open(config).unwrap(), Arc::<Directory>::default());
        let mut refresher = Refresher::new(store.clone(), Arc::clone(&directory), Sources::default()).unwrap();
        refresher.load().await.unwrap();
        change(&mut refresher);
        let switch = DrainSwitch::new();
        let running = tasks::spawn("refresh", refresher.run(switch.drain(), store.bell()));
        Self { store, directory, switch, running }
    }

    fn knows(&self, plain: &Secret) -> bool {
        self.directory.key(&key_hash(plain.reveal())).is_some()
    }

    async fn stop(self) {
        self.switch.advance(Phase::Cut);
        self.running.await.unwrap();
    }
}

async fn a_key_made_on_one_works_on_the_other_until_it_is_revoked(a: &Instance, b: &Instance) {
    let made = a.store.create_key(key("k")).await.unwrap();
    eventually("the key is there", || b.knows(&made.plain)).await;
    eventually("where it was made, too", || a.knows(&made.plain)).await;
    b.store.add_account(account("openai", Some("x"))).await.unwrap();
    eventually("the account is there", || a.directory.catalog().by_provider.contains_key("openai")).await;
    a.store.revoke_key(made.info.id).await.unwrap();
    eventually("the key is gone", || !b.knows(&made.plain)).await;
}

#[tokio::test]
async fn by_notification_alone() {
    let config = shared_config(test_server::database());
    let never = |refresher: &mut Refresher| refresher.poll = Some(Duration::from_secs(86_400));
    let (a, b) = (Instance::start(&config, never).await, Instance::start(&config, never).await);
    a_key_made_on_one_works_on_the_other_until_it_is_revoked(&a, &b).await;
    // Statements that came from no merido at all.
    let url = config.database_url.clone().unwrap();
    let made = a.store.create_key(key("k")).await.unwrap();
    eventually("the key is there", || b.knows(&made.plain)).await;
    let id = made.info.id.0.cast_signed();
    let sql = format!(
        "BEGIN; UPDATE meta SET change_seq = change_seq + 1;
         UPDATE keys SET rpm = 5, changed_seq = (SELECT change_seq FROM meta) WHERE id = {id}; COMMIT"
    );
    run_sql(url.reveal(), &sql).unwrap();
    let hash = key_hash(made.plain.reveal());
    eventually("its limit is there", || b.directory.key(&hash).is_some_and(|key| key.rpm == Some(5))).await;
    // The listener's connection is cut: what changes meanwhile is there when it is back.
    run_sql(url.reveal(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%merido_catalog%' AND pid <> pg_backend_pid()").unwrap();
    let late = a.store.create_key(key("late")).await.unwrap();
    eventually("the late key is there", || b.knows(&late.plain)).await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn by_looking_alone() {
    let config = shared_config(test_server::database());
    let deaf = |refresher: &mut Refresher| {
        refresher.deaf = true;
        refresher.poll = Some(Duration::from_millis(100));
    };
    let (a, b) = (Instance::start(&config, deaf).await, Instance::start(&config, deaf).await);
    assert!(a.store.poll() <= Duration::from_secs(5), "promised: visible within seconds");
    a_key_made_on_one_works_on_the_other_until_it_is_revoked(&a, &b).await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_change_that_commits_late_is_not_missed_by_who_looked_before() {
    let config = shared_config(test_server::database());
    let url = config.database_url.clone().unwrap();
    let store = Store::open(&config).unwrap();
    let directory = Arc::<Directory>::default();
    let mut refresher = Refresher::new(store.clone(), Arc::clone(&directory), Sources::default()).unwrap();
    refresher.load().await.unwrap();
    // Takes the first number, and is slow.
    let slow = "BEGIN; UPDATE meta SET change_seq = change_seq + 1;
        INSERT INTO keys (id, name, hash, created_ms, changed_seq)
        SELECT 7, 'slow', decode(repeat('ab', 32), 'hex'), 0, change_seq FROM meta; SELECT pg_sleep(1.5); COMMIT";
    let slow = tasks::blocking("slow", {
        let url = url.clone();
        move || run_sql(url.reveal(), slow).unwrap()
    });
    let quick = async {
        let begun = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND state = 'active'
                     AND pid <> pg_backend_pid() AND datname = current_database()";
        eventually("the slow one has its number", || run_sql(url.reveal(), begun).unwrap() == ["1"]).await;
        let quick = store.create_key(key("quick")).await.unwrap();
        refresher.load().await.unwrap();
        assert!(directory.key(&key_hash(quick.plain.reveal())).is_some());
        assert!(directory.key(&[0xab; 32]).is_some(), "the number below is visible before the one above");
    };
    tokio::join!(slow, quick);
}
