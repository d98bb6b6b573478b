//! One test body for every engine: what [`body`] asks of a store each engine must answer alike. Beside it, what is
//! the embedded file's own: nothing readable in its bytes, two processes at once, a crash in the middle.

use super::rows::*;
use super::*;
use crate::base::RequestId;
use crate::config::TargetSpec;
use crate::dialect::Dialect;
use crate::state::catalog::{Auth, Strategy};
use crate::state::usage::{CacheState, Counts, LogRow, Tokens, Total};
use base64::Engine as _;

const SECRET: &str = "sk-provider-secret-0123456789";

pub(super) fn config(dir: &std::path::Path) -> StoreConfig {
    StoreConfig::in_dir(dir)
}

/// A store in a database.
pub(super) fn shared_config(url: String) -> StoreConfig {
    let master_key = Some(Secret::new(base64::engine::general_purpose::STANDARD.encode([7; 32])));
    StoreConfig { database_url: Some(Secret::new(url)), master_key, ..StoreConfig::in_dir("/nowhere".as_ref()) }
}

pub(super) fn account(provider: &str, label: Option<&str>) -> NewAccount {
    NewAccount {
        provider: provider.into(),
        label: label.map(Into::into),
        base_url: None,
        weight: 1,
        secret: Secret::new(SECRET),
        define: None,
    }
}

pub(super) fn key(name: &str) -> KeySpec {
    KeySpec { name: name.into(), ..KeySpec::default() }
}

pub(super) fn route(name: &str, model: &str) -> RouteSpec {
    let targets = vec![TargetSpec { model: model.into(), account: Some("a".into()), weight: Some(3) }];
    RouteSpec { name: name.into(), strategy: "weighted".into(), targets, sticky: Some(2) }
}

pub(super) fn row(n: u64, status: u16) -> LogRow {
    LogRow {
        id: RequestId { epoch: 0xabcd_1234_5678_9abc, n },
        time_ms: 1_000 + n,
        client_request_id: Some("client-1".into()),
        key: None,
        endpoint: crate::dialect::Endpoint::Messages,
        requested_model: "fast".into(),
        account: None,
        model: Some("m".into()),
        status,
        stream: true,
        cache: CacheState::Dedup,
        attempts: 2,
        timeline: Some("[]".into()),
        tokens: Tokens { prompt: 1, completion: 2, cache_read: 3, cache_write: 4, reasoning: 5 },
        cost_nanos: Some(6),
        latency_ms: 7,
        first_byte_ms: Some(8),
        overhead_us: 9,
        error: Some("it broke".into()),
        estimated: true,
        sampled: 10,
    }
}

pub(super) fn total(model: &str, requests: u64) -> Total {
    let tokens = Tokens { prompt: 10, completion: 20, cache_read: 1, cache_write: 2, reasoning: 3 };
    let counts = Counts { requests, errors: 1, tokens, cost_nanos: 40 };
    Total { key: KeyId(u64::MAX), account: AccountId(2), model: model.into(), minute: 29_000_000, counts }
}

fn kind<T: std::fmt::Debug>(done: Result<T>) -> StoreErrorKind {
    done.unwrap_err().kind
}

/// What every engine must do. `open` opens the same (at first empty) deployment each time it is called.
async fn body(open: impl Fn() -> Store) {
    let store = open();
    accounts_and_providers(&store).await;
    keys(&store, &open()).await;
    models_and_tokens(&store).await;
    ended_sessions(&store).await;
    audit_and_repeats(&store).await;
    usage_is_exact_and_idempotent(&store).await;
    query::tests::questions(&store).await;
    let again = open();
    assert_eq!(again.deployment(), store.deployment());
    assert_eq!(again.data_key().fingerprint(), store.data_key().fingerprint());
    assert_eq!(again.accounts().await.unwrap(), store.accounts().await.unwrap());
    assert_eq!(again.keys().await.unwrap(), store.keys().await.unwrap());
}

async fn accounts_and_providers(store: &Store) {
    let a = store.add_account(account("openai", None)).await.unwrap();
    let b = store.add_account(account("openai", None)).await.unwrap();
    assert_eq!((&*a.label, &*b.label), ("default", "default-2"));
    let c = store.add_account(account("openai", Some("team"))).await.unwrap();
    let taken = store.add_account(account("openai", Some("team"))).await.unwrap_err();
    assert_eq!(taken.kind, StoreErrorKind::Conflict);
    assert!(taken.message.contains("team"), "{taken}");
    assert_eq!(kind(store.add_account(account("unheard", None)).await), StoreErrorKind::Invalid("provider"));
    assert_eq!(kind(store.add_account(account("openai", Some("env"))).await), StoreErrorKind::Invalid("label"));
    let bad = NewAccount { base_url: Some("nowhere".into()), ..account("openai", None) };
    assert_eq!(kind(store.add_account(bad).await), StoreErrorKind::Invalid("base_url"));
    let bad = NewAccount { secret: Secret::new("sk\n"), ..account("openai", None) };
    assert_eq!(kind(store.add_account(bad).await), StoreErrorKind::Invalid("api_key"));

    let define = CustomProvider {
        name: "mine".into(),
        dialect: Dialect::Anthropic,
        auth: Auth::None,
        http2: true,
        base_url: None,
    };
    let demo = CustomProvider { name: "demo".into(), ..define.clone() };
    assert_eq!(kind(store.put_provider(demo).await), StoreErrorKind::Invalid("provider"));
    let bare = NewAccount { define: Some(define.clone()), ..account("mine", None) };
    assert_eq!(kind(store.add_account(bare.clone()).await), StoreErrorKind::Invalid("base_url"));
    assert!(store.providers().await.unwrap().is_empty(), "a refused account defines nothing");
    store.add_account(NewAccount { base_url: Some("http://127.0.0.1:9/v1".into()), ..bare }).await.unwrap();
    assert_eq!(store.providers().await.unwrap(), [define]);

    let moved = AccountInfo { weight: 5, label: "moved".into(), ..c.clone() };
    store.update_account(moved.clone(), None).await.unwrap();
    let changes = store.changes_since(0).await.unwrap();
    let read = changes.accounts.iter().find(|(id, _)| *id == c.id).unwrap().1.clone().unwrap();
    assert_eq!((read.info, read.secret.reveal()), (moved, SECRET), "the secret stays");

    store.remove_account(a.id).await.unwrap();
    assert_eq!(kind(store.remove_account(a.id).await), StoreErrorKind::NotFound);
    let gone = store.changes_since(changes.up_to).await.unwrap();
    assert_eq!(gone.accounts, [(a.id, None)], "a tombstone, and nothing else");
    let same = store.add_account(account("openai", None)).await.unwrap();
    assert_eq!(same.label, "default", "a removed account's label is free again");
}

async fn keys(store: &Store, other: &Store) {
    let seq = store.changes_since(0).await.unwrap().up_to;
    let spec = KeySpec {
        name: "ci".into(),
        rpm: Some(60),
        burst: Some(5),
        tpm: Some(1_000),
        max_parallel: Some(2),
        models: Some(vec!["fast".into(), "openai/*".into()]),
        budget_nanos: Some(1_500_000_000),
        expires_ms: Some(Clock::unix_ms() + 60_000),
    };
    let made = store.create_key(spec.clone()).await.unwrap();
    assert_eq!(other.key(made.info.id).await.unwrap().spec, spec);
    let changes = other.changes_since(seq).await.unwrap();
    let (hash, read) = changes.keys.first().unwrap();
    assert_eq!(*hash, crate::base::seal::key_hash(made.plain.reveal()));
    assert!(read.rpm == spec.rpm && read.expires_unix_ms == spec.expires_ms && read.allows("openai/x"));

    for (field, bad) in [
        ("name", key(" ")),
        ("rpm", KeySpec { rpm: Some(0), ..key("k") }),
        ("models", KeySpec { models: Some(vec![]), ..key("k") }),
        ("budget_usd", KeySpec { budget_nanos: Some(-1), ..key("k") }),
        ("ttl_seconds", KeySpec { expires_ms: Some(1), ..key("k") }),
    ] {
        assert_eq!(kind(store.create_key(bad).await), StoreErrorKind::Invalid(field));
    }

    // Two changes at once, by two handles: both hold.
    let id = made.info.id;
    let (a, b) = tokio::join!(
        store.update_key(id, |spec| spec.rpm = Some(7)),
        other.update_key(id, |spec| spec.name = "renamed".into())
    );
    assert!(a.is_ok() && b.is_ok(), "{a:?} {b:?}");
    let now = store.key(id).await.unwrap().spec;
    assert_eq!((now.rpm, &*now.name), (Some(7), "renamed"));

    let seq = store.changes_since(0).await.unwrap().up_to;
    let twice = (store.rotate_key(id).await.unwrap(), other.rotate_key(id).await.unwrap());
    let changes = store.changes_since(seq).await.unwrap();
    let hash = |plain: &Secret| crate::base::seal::key_hash(plain.reveal());
    assert!(changes.dead_hashes.contains(&hash(&made.plain)) && changes.dead_hashes.contains(&hash(&twice.0.plain)));
    assert_eq!(changes.keys.iter().map(|(h, _)| *h).collect::<Vec<_>>(), [hash(&twice.1.plain)]);

    other.revoke_key(id).await.unwrap();
    assert_eq!(kind(store.revoke_key(id).await), StoreErrorKind::NotFound);
    assert_eq!(kind(store.rotate_key(id).await), StoreErrorKind::NotFound);
    let gone = store.changes_since(changes.up_to).await.unwrap();
    assert_eq!((gone.dead_hashes, gone.keys.len()), (vec![hash(&twice.1.plain)], 0));
    assert!(store.keys().await.unwrap().is_empty() && store.changes_since(0).await.unwrap().keys.is_empty());
    store.create_key(key("stays")).await.unwrap();
}

async fn models_and_tokens(store: &Store) {
    let seq = store.changes_since(0).await.unwrap().up_to;
    let id = store.add_virtual_model(&route("fast", "openai/gpt/x")).await.unwrap();
    assert_eq!(kind(store.add_virtual_model(&route("fast", "openai/m")).await), StoreErrorKind::Conflict);
    let bad = RouteSpec { strategy: "dice".into(), ..route("x", "openai/m") };
    assert_eq!(kind(store.add_virtual_model(&bad).await), StoreErrorKind::Invalid("strategy"));
    for bad in ["", "openai", "/m", "openai/", "open ai/m"] {
        assert_eq!(kind(store.add_virtual_model(&route("x", bad)).await), StoreErrorKind::Invalid("targets"), "{bad}");
    }
    let second = store.add_virtual_model(&route("slow", "groq/m")).await.unwrap();
    store.reorder_virtual_models(vec![second]).await.unwrap();
    store.enable_virtual_model(second, false).await.unwrap();
    let rows = store.virtual_models().await.unwrap();
    assert_eq!(rows.iter().map(|r| (r.model.id, r.enabled)).collect::<Vec<_>>(), [(second, false), (id, true)]);
    let fast = &rows[1].model;
    assert_eq!((fast.strategy, fast.sticky, &*fast.targets[0].model), (Strategy::Weighted, 2, "gpt/x"));
    assert_eq!((fast.targets[0].account.as_deref(), fast.targets[0].weight), (Some("a"), 3));
    store.remove_virtual_model(second).await.unwrap();
    let changed = store.changes_since(seq).await.unwrap().virtual_models;
    assert!(changed.contains(&(second.0, None)) && changed.iter().any(|(of, row)| *of == id.0 && row.is_some()));

    let (token, plain) = store.create_token("ci", Scope::Read, None).await.unwrap();
    assert_eq!(store.check_token(plain.reveal()).await.unwrap(), Some(token.clone()));
    assert_eq!(store.check_token(&plain.reveal().replace("mdm_", "mdm_x")).await.unwrap(), None);
    assert_eq!(store.tokens().await.unwrap(), std::slice::from_ref(&token));
    store.revoke_token(token.id).await.unwrap();
    assert_eq!(store.check_token(plain.reveal()).await.unwrap(), None);
}

async fn audit_and_repeats(store: &Store) {
    let entry = |n: u64| audit::AuditEntry {
        time_ms: n,
        actor: "token".into(),
        actor_id: Some("tok_1".into()),
        actor_name: None,
        action: format!("key.create \0 {n}"),
        target: None,
        address: Some("::1".into()),
        detail: "{}".into(),
    };
    for n in 1..=250 {
        store.engine.add_audit(entry(n), 50).await.unwrap();
    }
    let newest = store.audit_rows(None, 3).await.unwrap();
    assert_eq!(newest.iter().map(|row| row.entry.time_ms).collect::<Vec<_>>(), [250, 249, 248]);
    let all = store.audit_rows(Some(newest[2].seq), 1_000).await.unwrap();
    assert!((90..=150).contains(&all.len()) && all[0].entry.time_ms == 247, "{}", all.len());
    assert_eq!(store.begin_repeat([1; 32], [2; 32]).await.unwrap(), audit::Repeat::First);
    assert_eq!(store.begin_repeat([1; 32], [3; 32]).await.unwrap(), audit::Repeat::Pending { request: [2; 32] });
    store.end_repeat([1; 32], Some(b"made")).await.unwrap();
    let again = audit::Repeat::Answered { request: [2; 32], answer: b"made".to_vec() };
    assert_eq!(store.begin_repeat([1; 32], [2; 32]).await.unwrap(), again);
    let first = store.keys_page(None, 1).await.unwrap();
    let rest = store.keys_page(first.first().map(|key| (key.created_ms, key.id)), 100).await.unwrap();
    assert_eq!(first.len() + rest.len(), store.keys().await.unwrap().len());
}

async fn ended_sessions(store: &Store) {
    let engine = &store.engine;
    engine.end_session(u64::MAX, 100, 10).await.unwrap();
    engine.end_session(u64::MAX, 100, 10).await.unwrap();
    assert_eq!(engine.admissions(99).await.unwrap().ended, [u64::MAX]);
    assert!(engine.admissions(100).await.unwrap().ended.is_empty());
    for id in 0..engine::ENDED_AT_MOST {
        engine.end_session(id.cast_unsigned(), 1_000, 500).await.unwrap();
    }
    assert_eq!(engine.admissions(500).await.unwrap().session_epoch, 0);
    engine.end_session(9_999_999, 1_000, 500).await.unwrap();
    let after = engine.admissions(500).await.unwrap();
    assert_eq!((after.session_epoch, after.ended.len()), (1, 0), "too many: all are over");
    engine.end_all_sessions().await.unwrap();
    assert_eq!(engine.admissions(500).await.unwrap().session_epoch, 2);
}

async fn usage_is_exact_and_idempotent(store: &Store) {
    let batch = |number, rows: Vec<LogRow>| {
        let rows = rows.into_iter().map(Into::into).collect();
        Arc::new(UsageBatch { writer: 9, number, totals: vec![total("a", 5), total("b", 1)], rows })
    };
    assert_eq!(store.append(batch(1, vec![row(1, 200), row(2, 500)])).await.unwrap(), 2);
    assert_eq!(store.append(batch(1, vec![row(1, 200), row(2, 500)])).await.unwrap(), 0, "sent again: nothing");
    assert_eq!(store.append(batch(2, vec![row(2, 500), row(3, 200)])).await.unwrap(), 1, "one of them is known");
    let totals = store.usage_totals().await.unwrap();
    assert_eq!(totals.iter().map(|t| (&*t.model, t.counts.requests)).collect::<Vec<_>>(), [("a", 10), ("b", 2)]);
    let mut twice = total("a", 5).counts;
    twice.add(&total("a", 5).counts);
    assert_eq!((totals[0].counts, totals[0].key), (twice, KeyId(u64::MAX)));
    let rows = store.log_rows(10).await.unwrap();
    assert_eq!(rows.iter().map(|r| r.id.n).collect::<Vec<_>>(), [3, 2, 1], "newest first");
    let printed: RequestId = row(2, 0).id.to_string().parse().unwrap();
    let read = store.log(printed).await.unwrap().unwrap();
    let wrote = row(2, 500);
    assert_eq!((read.status, read.tokens, read.cost_nanos, read.stream), (500, wrote.tokens, 6, true));
    assert_eq!((&*read.endpoint, &*read.dialect, &*read.cache), ("messages", "anthropic", "dedup"));
    assert_eq!((read.first_byte_ms, read.error.as_deref(), read.sampled), (Some(8), Some("it broke"), 10));
    assert_eq!((read.latency_ms, read.overhead_us, read.attempts, read.estimated), (7, 9, 2, true));

    let rows = (100..140).map(|n| row(n, 200)).collect();
    store.append(batch(3, rows)).await.unwrap();
    assert_eq!(store.prune(1_002, u64::MAX).await.unwrap(), Pruned { rows: 1, more: false }, "by age");
    assert_eq!(store.log_rows(100).await.unwrap().len(), 42);
    let pruned = store.prune(0, 4_000).await.unwrap();
    let left = store.log_rows(100).await.unwrap();
    assert!(left.len() as u64 + pruned.rows == 42 && (5..20).contains(&left.len()), "by size: {pruned:?}");
    assert!(left.iter().all(|r| r.id.n > 120), "the oldest go first");
    assert_eq!(store.prune(u64::MAX >> 1, u64::MAX).await.unwrap().rows as usize, left.len());
    assert_eq!(store.prune(u64::MAX >> 1, 0).await.unwrap().rows, 0);
    assert_eq!(store.usage_totals().await.unwrap()[0].counts.requests, 15, "totals outlive their rows");
    store.shrink().await.unwrap();
}

#[tokio::test]
async fn the_embedded_engine_does_what_every_engine_must() {
    let dir = tempfile::tempdir().unwrap();
    body(|| Store::open(&config(dir.path())).unwrap()).await;
}

#[tokio::test]
async fn the_postgres_engine_does_what_every_engine_must() {
    let config = shared_config(test_server::database());
    body(|| Store::open(&config).unwrap()).await;
}

#[tokio::test]
async fn the_postgres_engine_does_so_behind_a_pooler_that_keeps_no_session() {
    let server = test_server::Server::start(&[]);
    let pooler = server.pooler();
    server.sql("postgres", "CREATE DATABASE pooled");
    let config = shared_config(pooler.url("pooled"));
    body(|| Store::open(&config).unwrap()).await;
}

#[tokio::test]
async fn no_secret_lies_readable_in_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&config(dir.path())).unwrap();
    store.add_account(account("openai", None)).await.unwrap();
    let key = store.create_key(key("marker-name")).await.unwrap();
    let (_, token) = store.create_token("t", Scope::Admin, None).await.unwrap();
    let mut names = 0;
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let holds = |text: &str| bytes.windows(text.len()).any(|w| w == text.as_bytes());
        for secret in [SECRET, key.plain.reveal(), &key.plain.reveal()[4..], token.reveal()] {
            assert!(!holds(secret), "{}", path.display());
        }
        names += usize::from(holds("marker-name"));
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o077, 0, "{} is ours alone", path.display());
    }
    assert!(names > 0, "the scan would have seen it");
}

#[tokio::test]
async fn a_wrong_or_lost_master_key_is_one_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(&config(dir.path())).unwrap());
    let other = crate::base::seal::MasterKey::generate_base64().unwrap();
    let wrong = StoreConfig { master_key: Some(Secret::new(other)), ..config(dir.path()) };
    let refused = Store::open(&wrong).unwrap_err();
    assert_eq!(refused.kind, StoreErrorKind::WrongMasterKey);
    assert!(refused.message.contains("MERIDO_MASTER_KEY"), "{refused}");
    std::fs::remove_file(dir.path().join("master.key")).unwrap();
    assert_eq!(Store::open(&config(dir.path())).unwrap_err().kind, StoreErrorKind::WrongMasterKey);
    assert!(!dir.path().join("master.key").exists(), "no new key is made over sealed secrets");
}

#[tokio::test]
async fn an_unfinished_transaction_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&config(dir.path())).unwrap();
    store.create_key(key("kept")).await.unwrap();
    let copy = tempfile::tempdir().unwrap();
    {
        let mut raw = rusqlite::Connection::open(dir.path().join(embedded::FILE)).unwrap();
        let tx = raw.transaction().unwrap();
        tx.execute("UPDATE keys SET name = 'half'", []).unwrap();
        tx.execute("UPDATE meta SET change_seq = 99", []).unwrap();
        // Spills the open transaction's pages into the journal, then the machine "dies": the copy is what it leaves.
        tx.execute_batch("PRAGMA cache_spill = 1; PRAGMA cache_size = 1").unwrap();
        for n in 0..2_000 {
            tx.execute("INSERT INTO writers VALUES (?1, 1, 1)", [n]).unwrap();
        }
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let entry = entry.unwrap();
            // The shared index is memory of processes that are gone.
            if entry.file_name() != "merido.db-shm" {
                std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
            }
        }
    }
    let reopened = Store::open(&config(copy.path())).unwrap();
    assert_eq!(reopened.keys().await.unwrap()[0].spec.name, "kept");
    assert_eq!(reopened.changes_since(0).await.unwrap().up_to, 1);
}
