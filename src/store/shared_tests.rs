//! What a store that many instances share must do beyond what every engine must: start together, refuse what is newer,
//! keep its secrets when it is dumped, change its master key under running instances, take an embedded store in.

use super::rows::*;
use super::test_server::{self, run_sql};
use super::tests::{account, config, key, route, row, shared_config, total};
use super::*;
use crate::base::seal::MasterKey;
use std::sync::atomic::{AtomicUsize, Ordering};

fn url(config: &StoreConfig) -> &str {
    config.database_url.as_ref().unwrap().reveal()
}

fn master() -> Secret {
    Secret::new(MasterKey::generate_base64().unwrap())
}

#[test]
fn twenty_starting_at_once_migrate_once_and_agree() {
    let config = shared_config(test_server::database());
    let deployments = parking_lot::Mutex::new(std::collections::BTreeSet::new());
    let failed = AtomicUsize::new(0);
    std::thread::scope(|s| {
        for _ in 0..20 {
            s.spawn(|| match Store::open(&config) {
                Ok(store) => drop(deployments.lock().insert((store.deployment(), store.data_key().fingerprint()))),
                Err(_) => drop(failed.fetch_add(1, Ordering::Relaxed)),
            });
        }
    });
    assert_eq!((failed.into_inner(), deployments.into_inner().len()), (0, 1));
    let versions = run_sql(url(&config), "SELECT version FROM schema_version ORDER BY 1").unwrap();
    assert_eq!(versions, ["1", "2", "3", "4"]);
}

#[test]
fn what_is_newer_or_sealed_under_another_key_is_refused_with_one_clear_error() {
    let good = shared_config(test_server::database());
    drop(Store::open(&good).unwrap());
    let wrong = StoreConfig { master_key: Some(master()), ..good.clone() };
    let refused = Store::open(&wrong).unwrap_err();
    assert!(refused.kind == StoreErrorKind::WrongMasterKey && refused.message.contains("MERIDO_MASTER_KEY"));
    run_sql(url(&good), "INSERT INTO schema_version VALUES (99, 'later', 0)").unwrap();
    let refused = Store::open(&good).unwrap_err();
    assert!(refused.kind == StoreErrorKind::Newer && refused.message.contains("99"), "{refused}");
    let nowhere = shared_config("postgres://merido:hunter2@127.0.0.1:1/none".to_owned());
    let refused = Store::open(&nowhere).unwrap_err();
    assert!(refused.kind == StoreErrorKind::Unavailable && !refused.message.contains("hunter2"), "{refused}");
}

#[tokio::test]
async fn a_dump_holds_no_secret_and_no_key() {
    let config = shared_config(test_server::database());
    let store = Store::open(&config).unwrap();
    let secret = "sk-provider-secret-0123456789";
    store.add_account(account("openai", None)).await.unwrap();
    let made = store.create_key(key("marker-name")).await.unwrap();
    let (_, token) = store.create_token("t", Scope::Admin, None).await.unwrap();
    store.end_repeat([1; 32], Some(b"x")).await.unwrap();
    store.begin_repeat([2; 32], [3; 32]).await.unwrap();
    store.end_repeat([2; 32], Some(made.plain.reveal().as_bytes())).await.unwrap();
    let name = url(&config).rsplit_once('/').unwrap().1;
    let server = test_server::shared();
    let dump = server.program("pg_dump").args(["-U", "merido", "-h"]).arg(server.dir()).arg(name).output().unwrap();
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    let dump = String::from_utf8(dump.stdout).unwrap();
    assert!(dump.contains("marker-name"), "it is the dump");
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    let master = config.master_key.as_ref().unwrap().reveal();
    for hidden in [secret, made.plain.reveal(), &made.plain.reveal()[4..], token.reveal(), master] {
        assert!(!dump.contains(hidden) && !dump.contains(&hex(hidden)));
    }
    assert!(!dump.contains(&"07".repeat(32)), "the master key's bytes");
}

#[tokio::test]
async fn the_master_key_changes_under_running_instances() {
    let old = shared_config(test_server::database());
    let running = Store::open(&old).unwrap();
    running.add_account(account("openai", None)).await.unwrap();
    let print = running.data_key().fingerprint();
    let new = StoreConfig { master_key: Some(master()), ..old.clone() };
    assert_eq!(
        rotate_master_key(&new).await.unwrap_err().kind,
        StoreErrorKind::WrongMasterKey,
        "the old key is missing"
    );
    let both = StoreConfig { master_key_previous: old.master_key.clone(), ..new.clone() };
    assert_eq!(Store::open(&both).unwrap().data_key().fingerprint(), print, "given both, before");
    assert_eq!(rotate_master_key(&both).await, Ok(Rotated::Given));
    assert_eq!(rotate_master_key(&both).await, Ok(Rotated::Already));
    assert_eq!(Store::open(&both).unwrap().data_key().fingerprint(), print, "given both, after");
    assert_eq!(Store::open(&new).unwrap().data_key().fingerprint(), print, "peers still agree");
    assert_eq!(Store::open(&old).unwrap_err().kind, StoreErrorKind::WrongMasterKey);
    let changes = Store::open(&new).unwrap().changes_since(0).await.unwrap();
    assert!(changes.accounts[0].1.is_some(), "secrets still open");
    running.add_account(account("openai", None)).await.unwrap();
}

#[tokio::test]
async fn the_key_file_is_replaced_and_whatever_ends_it_in_between_the_store_opens() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let print = Store::open(&config).unwrap().data_key().fingerprint();
    let path = dir.path().join("master.key");
    let first = std::fs::read_to_string(&path).unwrap();
    assert_eq!(rotate_master_key(&config).await, Ok(Rotated::File(path.clone())));
    let second = std::fs::read_to_string(&path).unwrap();
    assert_ne!(first, second);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().filter(|e| is_key(e.as_ref().unwrap())).count(), 1);
    // As if it had ended right before the file took its place.
    std::fs::rename(&path, dir.path().join("master.key.next")).unwrap();
    std::fs::write(&path, &first).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(Store::open(&config).unwrap().data_key().fingerprint(), print);
    assert_eq!(rotate_master_key(&config).await, Ok(Rotated::File(path.clone())));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), second, "it goes on where it stopped");
    // From the file to a key that is given.
    let given = StoreConfig { master_key: Some(master()), ..config.clone() };
    assert_eq!(rotate_master_key(&given).await, Ok(Rotated::Given));
    assert_eq!(Store::open(&given).unwrap().data_key().fingerprint(), print);
    assert_eq!(Store::open(&config).unwrap_err().kind, StoreErrorKind::WrongMasterKey);
}

fn is_key(entry: &std::fs::DirEntry) -> bool {
    entry.file_name().to_string_lossy().starts_with("master.key")
}

#[tokio::test]
async fn an_embedded_store_moves_whole_and_only_into_an_empty_database() {
    let dir = tempfile::tempdir().unwrap();
    let from = StoreConfig { master_key: Some(master()), ..config(dir.path()) };
    let old = Store::open(&from).unwrap();
    let define = CustomProvider {
        name: "mine".into(),
        dialect: crate::base::Dialect::Gemini,
        auth: crate::state::catalog::Auth::XGoogApiKey,
        http2: true,
        base_url: Some("http://127.0.0.1:9/v1".into()),
    };
    old.add_account(NewAccount { define: Some(define), ..account("mine", None) }).await.unwrap();
    let gone = old.add_account(account("openai", Some("gone"))).await.unwrap();
    old.remove_account(gone.id).await.unwrap();
    let made = old.create_key(KeySpec { rpm: Some(5), models: Some(vec!["a".into()]), ..key("kept") }).await.unwrap();
    let revoked = old.create_key(key("revoked")).await.unwrap();
    old.revoke_key(revoked.info.id).await.unwrap();
    old.add_virtual_model(&route("fast", "mine/m")).await.unwrap();
    let (_, token) = old.create_token("t", Scope::Read, None).await.unwrap();
    old.end_session(9, u64::MAX >> 1).await.unwrap();
    let odd = crate::state::usage::LogRow { error: Some("a \0 b".into()), ..row(9_999, 500) };
    let rows = (0..5_000).map(|n| row(n, 200)).chain([odd]).map(Into::into).collect();
    let batch = UsageBatch { writer: 3, number: 4, totals: vec![total("a", 5)], rows };
    old.append(Arc::new(batch.clone())).await.unwrap();

    let target = test_server::database();
    let moved = move_store(&from, &Secret::new(target.clone())).await.unwrap();
    assert!(moved.contains(&("request_log", 5_001)) && moved.contains(&("keys", 2)), "{moved:?}");
    let to = StoreConfig { database_url: Some(Secret::new(target.clone())), ..from.clone() };
    let new = Store::open(&to).unwrap();
    assert_eq!((new.deployment(), new.data_key().fingerprint()), (old.deployment(), old.data_key().fingerprint()));
    assert_eq!(new.accounts().await.unwrap(), old.accounts().await.unwrap());
    assert_eq!(new.providers().await.unwrap(), old.providers().await.unwrap());
    assert_eq!(new.keys().await.unwrap(), old.keys().await.unwrap());
    assert_eq!(new.virtual_models().await.unwrap(), old.virtual_models().await.unwrap());
    assert_eq!(new.admissions().await.unwrap(), old.admissions().await.unwrap());
    assert_eq!(new.usage_totals().await.unwrap(), old.usage_totals().await.unwrap());
    assert_eq!(new.spent().await.unwrap(), old.spent().await.unwrap());
    assert!(new.check_token(token.reveal()).await.unwrap().is_some());
    let (there, here) = (new.log_rows(10_000).await.unwrap(), old.log_rows(10_000).await.unwrap());
    assert_eq!(there[1..], here[1..], "in the same order");
    assert_eq!(there[0].error.as_deref(), Some("a \u{fffd} b"));
    let seen = new.changes_since(0).await.unwrap();
    assert!(seen.keys.iter().any(|(hash, _)| *hash == seal::key_hash(made.plain.reveal())));
    let old_changes = old.changes_since(0).await.unwrap();
    assert_eq!((seen.up_to, seen.accounts), (old_changes.up_to, old_changes.accounts), "the secrets open there");
    assert_eq!(new.append(Arc::new(batch)).await.unwrap(), 0, "a batch stored here is known there");
    new.create_key(key("next")).await.unwrap();
    assert_eq!(new.prune(u64::MAX >> 1, 0).await.unwrap().rows, 5_001, "and its log can be pruned");

    let again = move_store(&from, &Secret::new(target)).await.unwrap_err();
    assert!(again.kind == StoreErrorKind::Conflict && again.message.contains("already"), "{again}");
    let other = shared_config(test_server::database());
    drop(Store::open(&other).unwrap());
    let taken = move_store(&from, other.database_url.as_ref().unwrap()).await.unwrap_err();
    assert_eq!(taken.kind, StoreErrorKind::Conflict);
    let wrong = StoreConfig { master_key: Some(master()), ..from };
    let empty = Secret::new(test_server::database());
    assert_eq!(move_store(&wrong, &empty).await.unwrap_err().kind, StoreErrorKind::WrongMasterKey);
    assert_eq!(run_sql(empty.reveal(), "SELECT count(*) FROM pg_tables WHERE tablename = 'meta'").unwrap(), ["0"]);
}

#[tokio::test]
async fn statements_have_no_name_so_that_a_pooler_may_stand_between() {
    let server = test_server::Server::start(&["log_statement=all", "log_min_duration_statement=0"]);
    let store = Store::open(&shared_config(server.database())).unwrap();
    store.create_key(key("k")).await.unwrap();
    store.changes_since(0).await.unwrap();
    store
        .append(Arc::new(UsageBatch {
            writer: 1,
            number: 1,
            totals: vec![total("a", 1)],
            rows: vec![row(1, 200).into()],
        }))
        .await
        .unwrap();
    let log = server.log();
    assert!(log.contains("execute <unnamed>"), "{log}");
    let named = log.lines().find(|line| line.contains("execute ") && !line.contains("execute <unnamed>"));
    assert_eq!(named, None);
    let session = log.lines().find(|line| line.contains(": SET ") || line.contains("LISTEN"));
    assert_eq!(session, None, "nothing is set beyond a transaction");
}
