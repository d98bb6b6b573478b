//! What the refresher promises: another handle's change arrives by itself, only what changed is touched, and a store
//! that is away leaves the directory as it was.

use super::*;
use crate::base::seal::key_hash;
use crate::base::tasks::{self, DrainSwitch};
use crate::store::rows::{KeySpec, NewAccount};
use crate::store::tests::{account, config, key, route};
use crate::store::{StoreErrorKind, embedded};

struct Home {
    dir: tempfile::TempDir,
    store: Store,
    directory: Arc<Directory>,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&config(dir.path())).unwrap();
        Self { dir, store, directory: Arc::default() }
    }

    fn refresher(&self, sources: Sources) -> Refresher {
        Refresher::new(self.store.clone(), Arc::clone(&self.directory), sources).unwrap()
    }

    fn sql(&self, sql: &str) {
        let raw = rusqlite::Connection::open(self.dir.path().join(embedded::FILE)).unwrap();
        raw.execute_batch(sql).unwrap();
    }

    fn accounts(&self) -> Vec<String> {
        let catalog = self.directory.catalog();
        catalog.accounts.iter().map(|a| format!("{}@{}", a.provider.name, a.label)).collect()
    }
}

/// Waits with patience, not with a guess.
pub(in crate::store) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), wait).await.is_ok(), "never: {what}");
}

#[tokio::test]
async fn a_change_by_another_handle_arrives_by_itself() {
    let home = Home::new();
    let refresher = home.refresher(Sources::default());
    let switch = DrainSwitch::new();
    // A bell nobody rings: what arrives was found by looking.
    let running = tasks::spawn("refresh", refresher.run(switch.drain(), Arc::default()));
    let other = Store::open(&config(home.dir.path())).unwrap();
    let made = other.create_key(key("k")).await.unwrap();
    let hash = key_hash(made.plain.reveal());
    let directory = &home.directory;
    eventually("the key is there", || directory.key(&hash).is_some()).await;
    other.update_key(made.info.id, |spec| spec.rpm = Some(3)).await.unwrap();
    eventually("its limit is there", || directory.key(&hash).is_some_and(|k| k.rpm == Some(3))).await;
    other.add_account(account("openai", Some("x"))).await.unwrap();
    eventually("the account is there", || home.accounts() == ["openai@x"]).await;
    let rotated = other.rotate_key(made.info.id).await.unwrap();
    let next = key_hash(rotated.plain.reveal());
    eventually("the new key works, the old one does not", || {
        directory.key(&next).is_some() && directory.key(&hash).is_none()
    })
    .await;
    other.revoke_key(made.info.id).await.unwrap();
    eventually("the key is gone", || directory.key_count() == 0).await;
    switch.advance(Phase::Cut);
    running.await.unwrap();
}

#[tokio::test]
async fn only_tables_that_changed_are_published() {
    let home = Home::new();
    let mut refresher = home.refresher(Sources::default());
    refresher.load().await.unwrap();
    assert_eq!(home.directory.version(), 1, "published at first, empty or not");
    home.store.create_key(key("k")).await.unwrap();
    refresher.load().await.unwrap();
    assert_eq!((home.directory.version(), home.directory.key_count()), (1, 1), "a key swaps no table");
    let id = home.store.add_virtual_model(&route("fast", "openai/m")).await.unwrap();
    refresher.load().await.unwrap();
    assert_eq!(home.directory.version(), 2);
    assert!(home.directory.catalog().virtual_models.contains_key("fast"), "kept although nobody serves it yet");
    home.store.enable_virtual_model(id, false).await.unwrap();
    refresher.load().await.unwrap();
    assert!(home.directory.catalog().virtual_models.is_empty(), "switched off");
}

#[tokio::test]
async fn the_demo_is_there_until_a_real_account_is_or_as_the_settings_say() {
    let home = Home::new();
    let sources = |demo| Sources { demo, ..Sources::default() };
    let mut refresher = home.refresher(sources(None));
    refresher.load().await.unwrap();
    assert_eq!(home.accounts(), ["demo@demo"]);
    assert_eq!(home.directory.catalog().accounts[0].id, AccountId(0));
    assert!(home.directory.catalog().bare.contains_key("echo"));
    home.refresher(sources(Some(false))).load().await.unwrap();
    assert!(home.accounts().is_empty());
    let real = home.store.add_account(account("openai", None)).await.unwrap();
    refresher.load().await.unwrap();
    assert_eq!(home.accounts(), ["openai@default"]);
    home.refresher(sources(Some(true))).load().await.unwrap();
    assert_eq!(home.accounts(), ["openai@default", "demo@demo"]);
    home.store.remove_account(real.id).await.unwrap();
    refresher.load().await.unwrap();
    assert_eq!(home.accounts(), ["demo@demo"], "and it comes back");
}

#[tokio::test]
async fn the_environment_custom_providers_and_given_routes_are_part_of_it() {
    let home = Home::new();
    let sources = Sources {
        env_accounts: vec![("groq".into(), Secret::new("gsk")), ("unheard".into(), Secret::new("x"))],
        routes: vec![route("fast", "groq/given"), RouteSpec { strategy: "dice".into(), ..route("bad", "a/b") }],
        demo: None,
    };
    let custom = CustomProvider {
        name: "mine".into(),
        dialect: Dialect::Gemini,
        auth: Auth::XGoogApiKey,
        http2: false,
        base_url: Some("http://127.0.0.1:9/base/".into()),
    };
    home.store.add_account(NewAccount { define: Some(custom), ..account("mine", None) }).await.unwrap();
    home.store.add_virtual_model(&route("fast", "groq/stored")).await.unwrap();
    home.store.add_virtual_model(&route("slow", "mine/m")).await.unwrap();
    home.refresher(sources).load().await.unwrap();
    assert_eq!(home.accounts(), ["groq@env", "mine@default"], "what cannot be used is left out, no demo");
    let catalog = home.directory.catalog();
    let credential = catalog.accounts[0].credential.as_ref().unwrap();
    assert_eq!((&*catalog.accounts[0].base.host, credential.value.reveal()), ("api.groq.com", "Bearer gsk"));
    let mine = &catalog.by_provider["mine"][0];
    assert_eq!((mine.provider.dialect, mine.base.port, &*mine.base.path), (Dialect::Gemini, 9, "/base"));
    assert_eq!(&*catalog.virtual_models["fast"].targets[0].model, "given", "the settings win");
    assert_eq!(catalog.virtual_models.len(), 2);
}

#[tokio::test]
async fn many_keys_come_in_windows_and_none_is_missed() {
    let home = Home::new();
    let last = home.store.create_key(KeySpec { rpm: Some(1), ..key("first") }).await.unwrap();
    home.sql(
        "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 25001)
         INSERT INTO keys (id, name, hash, created_ms, changed_seq)
         SELECT i, 'k', cast(printf('%032d', i) AS BLOB), 0, i FROM n;
         UPDATE meta SET change_seq = 25001;",
    );
    home.store.add_account(account("openai", Some("late"))).await.unwrap();
    let mut refresher = home.refresher(Sources::default());
    refresher.load().await.unwrap();
    assert_eq!(home.directory.key_count(), 25_001);
    assert_eq!((home.directory.version(), home.accounts()), (1, vec!["openai@late".to_owned()]));
    home.store.revoke_key(last.info.id).await.unwrap();
    refresher.load().await.unwrap();
    assert_eq!(home.directory.key_count(), 25_000);
}

#[tokio::test]
async fn a_store_that_is_away_leaves_everything_as_it_was() {
    let home = Home::new();
    let made = home.store.create_key(key("k")).await.unwrap();
    let mut refresher = home.refresher(Sources::default());
    refresher.load().await.unwrap();
    let good = home.directory.last_refresh();
    home.sql("ALTER TABLE meta RENAME TO away");
    assert!(refresher.load().await.is_err());
    assert_eq!(home.directory.last_refresh(), good, "a failed look is no news");
    assert!(home.directory.key(&key_hash(made.plain.reveal())).is_some());
    home.sql("ALTER TABLE away RENAME TO meta");
    refresher.load().await.unwrap();
    assert!(home.directory.last_refresh() > good);
}

#[tokio::test]
async fn an_account_whose_secret_was_swapped_is_left_out_and_takes_no_other_with_it() {
    let home = Home::new();
    let a = home.store.add_account(account("openai", Some("a"))).await.unwrap();
    home.store.add_account(account("openai", Some("b"))).await.unwrap();
    home.sql(
        "UPDATE accounts SET secret = (SELECT secret FROM accounts WHERE label = 'b') WHERE label = 'a';
         UPDATE meta SET change_seq = change_seq + 1; ",
    );
    home.refresher(Sources::default()).load().await.unwrap();
    assert_eq!(home.accounts(), ["openai@b"]);
    assert_eq!(home.store.remove_account(a.id).await, Ok(()));
    assert_eq!(home.store.remove_account(a.id).await.unwrap_err().kind, StoreErrorKind::NotFound);
}
