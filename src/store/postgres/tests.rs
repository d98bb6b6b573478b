//! Deadlines, TLS in every mode, and a server that goes and comes back.

use super::call::{Manner, QUERY, WRITE};
use super::*;
use crate::store::test_server::{self, Server};
use crate::store::tests::{key, shared_config};
use crate::store::{Engine, Store, StoreConfig, StoreErrorKind};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::net::TcpListener;
use std::time::Duration;

fn engine(store: &Store) -> &Postgres {
    match &store.engine {
        Engine::Postgres(engine) => engine,
        Engine::Embedded(_) => panic!("another engine"),
    }
}

#[tokio::test]
async fn no_call_waits_for_ever() {
    let store = Store::open(&shared_config(test_server::database())).unwrap();
    let engine = engine(&store);
    let begin = "BEGIN; SET LOCAL statement_timeout = 0";
    let slow = engine.run(Manner { begin, work: Duration::from_millis(100), ..WRITE }, |tx| async move {
        tx.rows("SELECT pg_sleep(60)", &[]).await.map(drop)
    });
    assert_eq!(slow.await.unwrap_err().kind, StoreErrorKind::Unavailable);
    let size = engine.inner.pool.status().size;
    store.create_key(key("k")).await.unwrap();
    assert!(engine.inner.pool.status().size <= size.max(1), "its connection was closed, not given back");
    // The server's own timeout ends a statement, and the connection lives on.
    let refused = engine.run(Manner { begin: "BEGIN; SET LOCAL statement_timeout = 50", ..QUERY }, |tx| async move {
        tx.rows("SELECT pg_sleep(60)", &[]).await.map(drop)
    });
    assert!(refused.await.unwrap_err().message.contains("57014"));

    // Somebody who takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://merido@127.0.0.1:{}/x", silent.local_addr().unwrap().port());
    let config = shared_config(url);
    let refused = tasks::blocking("open", move || Store::open(&config).map(drop)).await.unwrap().unwrap_err();
    assert!(refused.kind == StoreErrorKind::Unavailable && refused.message.contains("within"), "{refused}");
}

#[tokio::test]
async fn a_server_that_was_killed_is_used_again_as_soon_as_it_is_back() {
    let mut server = Server::start(&[]);
    let store = Store::open(&shared_config(server.database())).unwrap();
    store.create_key(key("before")).await.unwrap();
    server.kill();
    for _ in 0..3 {
        assert_eq!(store.create_key(key("meanwhile")).await.unwrap_err().kind, StoreErrorKind::Unavailable);
    }
    server.resume();
    store.create_key(key("after")).await.unwrap();
    assert_eq!(store.keys().await.unwrap().len(), 2);
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Certificate and key for `name`.
    fn server(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

#[tokio::test]
async fn every_sslmode_means_what_libpq_means_by_it() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (certificate, key) = ours.server("localhost");
    let server = Server::start_tls(&certificate, &key);
    server.sql("postgres", "CREATE DATABASE tls");
    let dir = tempfile::tempdir().unwrap();
    for (name, authority) in [("ours", &ours), ("theirs", &theirs)] {
        std::fs::write(dir.path().join(name), authority.0.pem()).unwrap();
    }
    let roots =
        |name: &str| format!("&sslrootcert={}", dir.path().join(name).display().to_string().replace('/', "%2F"));
    let open = |host: &str, query: &str| {
        let url = format!("postgres://merido@{host}:{}/tls?{query}", server.port());
        Store::open(&shared_config(url))
    };
    for (host, query, encrypted) in [
        ("127.0.0.1", "sslmode=disable".to_owned(), false),
        ("127.0.0.1", String::new(), true),
        ("127.0.0.1", "sslmode=prefer".to_owned(), true),
        ("127.0.0.1", "sslmode=require".to_owned(), true),
        ("127.0.0.1", format!("sslmode=verify-ca{}", roots("ours")), true),
        ("localhost", format!("sslmode=verify-full{}", roots("ours")), true),
    ] {
        let store = open(host, &query).unwrap_or_else(|e| panic!("{query}: {e}"));
        let ssl = engine(&store).run(QUERY, |tx| async move {
            let row = tx.one("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &[]).await?;
            Ok(row.try_get::<_, bool>(0)?)
        });
        assert_eq!(ssl.await, Ok(encrypted), "{query}");
    }
    for (host, query) in [
        ("127.0.0.1", format!("sslmode=verify-full{}", roots("ours"))),
        ("localhost", format!("sslmode=verify-full{}", roots("theirs"))),
        ("localhost", format!("sslmode=verify-ca{}", roots("theirs"))),
        ("localhost", format!("sslmode=require{}", roots("theirs"))),
    ] {
        let refused = open(host, &query).unwrap_err();
        assert_eq!(refused.kind, StoreErrorKind::Unavailable, "{query}: {refused}");
    }
    let plain = Server::start(&[]);
    let url = |mode: &str| format!("{}?sslmode={mode}", plain.url("postgres"));
    let config =
        |mode: &str| StoreConfig { database_url: Some(Secret::new(url(mode))), ..shared_config(String::new()) };
    assert!(Store::open(&config("prefer")).is_ok(), "falls back");
    assert!(Store::open(&config("require")).is_err());
}
