//! Instances that share a PostgreSQL: one deployment, and what happens while it is away.

mod calls;
mod frozen;
mod load;
mod news;
mod pooler;

use crate::support::client::{Answer, get, post};
use crate::support::eventually;
use crate::support::gateway::block_on;
use crate::support::postgres::{self, Server};
use crate::support::process::{Process, run_with};
use crate::support::provider::{Provider, chat};
use merido::base::Secret;
use merido::store::{Store, StoreConfig};
use serde_json::Value;
use std::path::Path;
use tempfile::TempDir;

const MASTER: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const ASK: &[u8] = br#"{"model":"openai/gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}"#;

/// A database, and a directory for each instance.
struct Cluster {
    url: String,
    dir: TempDir,
}

impl Cluster {
    fn new(url: String, provider: &Provider) -> Self {
        let cluster = Self { url, dir: tempfile::tempdir().unwrap() };
        let url = provider.openai_url();
        cluster.command(&format!("providers add --provider openai --api-key k --base-url {url}"));
        cluster
    }

    fn env(&self) -> Vec<(&str, &str)> {
        vec![("MERIDO_DATABASE_URL", &self.url), ("MERIDO_MASTER_KEY", MASTER), ("MERIDO_REQUIRE_API_KEY", "true")]
    }

    fn home(&self, name: &str) -> std::path::PathBuf {
        let dir = self.dir.path().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    fn command(&self, line: &str) -> Value {
        let said = run_with(&self.home("commands"), line, &self.env(), "");
        assert_eq!(said.code, 0, "{line}: {said:?}");
        serde_json::from_str(&said.out).unwrap_or(Value::Null)
    }

    fn start(&self, name: &str) -> Process {
        self.start_with(name, &[])
    }

    fn start_with(&self, name: &str, more: &[(&str, &str)]) -> Process {
        Process::start(&self.home(name), &[self.env(), more.to_vec()].concat())
    }

    fn store(&self) -> Store {
        let config = StoreConfig {
            database_url: Some(Secret::new(self.url.clone())),
            master_key: Some(Secret::new(MASTER.to_owned())),
            ..StoreConfig::in_dir(Path::new("/nowhere"))
        };
        Store::open(&config).unwrap()
    }

    /// (key id, what its caller sends)
    fn key(&self, more: &str) -> (String, String) {
        let made = self.command(&format!("keys create --name app --json {more}"));
        (
            made["id"].as_str().unwrap().to_owned(),
            format!("authorization: Bearer {}\r\n", made["key"].as_str().unwrap()),
        )
    }

    /// Log rows, and requests in the totals.
    fn counted(&self) -> (usize, u64) {
        let store = self.store();
        let rows = block_on(store.log_rows(1_000_000)).unwrap();
        let mut ids: Vec<_> = rows.iter().map(|row| row.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), rows.len(), "no row twice");
        (rows.len(), block_on(store.usage_totals()).unwrap().iter().map(|total| total.counts.requests).sum())
    }
}

fn ask(gateway: &Process, head: &str) -> Answer {
    post(gateway.addr, "/v1/chat/completions", head, ASK)
}

/// A head with a key that nobody made.
fn stranger() -> String {
    format!("authorization: Bearer mrd_{}\r\n", "Q".repeat(40))
}

fn health(gateway: &Process) -> Value {
    gateway.get("/healthz").json()["store"].clone()
}

#[test]
fn two_instances_on_one_database_are_one_deployment() {
    let provider = Provider::new(chat("fine"));
    let cluster = Cluster::new(postgres::database(), &provider);
    let (a, b) = (cluster.start("a"), cluster.start("b"));
    let (id, head) = cluster.key("");
    for gateway in [&a, &b] {
        eventually("the new key works", || ask(gateway, &head).status == 200);
    }
    cluster.command(&format!("keys revoke {id}"));
    for gateway in [&a, &b] {
        eventually("the revoked key does not", || ask(gateway, &head).status == 401);
    }
    // A budget spent on one is spent on the other. A model nobody has costs nothing, and is asked for after the money.
    let (_, head) = cluster.key("--budget-usd 0.000000001");
    eventually("the key works", || get(a.addr, "/v1/models", &head).status == 200);
    eventually("there, too", || get(b.addr, "/v1/models", &head).status == 200);
    let probe = |gateway: &Process| {
        post(gateway.addr, "/v1/chat/completions", &head, br#"{"model":"openai/gpt-4o-mini","messages":7}"#).status
    };
    let before = probe(&b);
    assert_ne!(before, 402);
    assert_eq!(ask(&a, &head).status, 200);
    eventually("its money is gone here", || ask(&a, &head).status == 402);
    eventually("and there", || probe(&b) == 402);
    assert!(a.stop().success() && b.stop().success());
    let (rows, requests) = cluster.counted();
    assert_eq!(rows as u64, requests, "every request is in the log and in the totals, of both");
    let said = run_with(&cluster.home("commands"), "check", &cluster.env(), "");
    assert!(said.code == 0 && said.out.contains("postgres://"), "{said:?}");
    let wrong = run_with(
        &cluster.home("commands"),
        "keys list",
        &[("MERIDO_DATABASE_URL", &cluster.url), ("MERIDO_MASTER_KEY", "BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")],
        "",
    );
    assert!(wrong.code == 1 && wrong.err.contains("MERIDO_MASTER_KEY"), "{wrong:?}");
}

#[test]
fn what_was_not_stored_at_the_end_is_stored_by_the_next_process() {
    let provider = Provider::new(chat("fine"));
    let mut server = Server::start(&[]);
    let cluster = Cluster::new(server.database(), &provider);
    let gateway = cluster.start("a");
    let (_, head) = cluster.key("");
    eventually("the key works", || get(gateway.addr, "/v1/models", &head).status == 200);
    for _ in 0..20 {
        assert_eq!(ask(&gateway, &head).status, 200);
    }
    server.kill();
    for _ in 0..20 {
        assert_eq!(ask(&gateway, &head).status, 200);
    }
    let log = gateway.end();
    assert!(log.contains("waits in the data directory"), "{log}");
    server.resume();
    let gateway = cluster.start("a");
    eventually("they are stored", || cluster.counted() == (40, 40));
    assert_eq!(ask(&gateway, &head).status, 200);
    assert!(gateway.stop().success());
    assert_eq!(cluster.counted(), (41, 41));
}

#[test]
fn an_embedded_store_is_moved_by_one_command() {
    let provider = Provider::new(chat("fine"));
    let dir = tempfile::tempdir().unwrap();
    let master = ("MERIDO_MASTER_KEY", MASTER);
    let one = |line: &str, env: &[(&str, &str)]| {
        let said = run_with(dir.path(), line, env, "");
        assert_eq!(said.code, 0, "{line}: {said:?}");
        said
    };
    let url = provider.openai_url();
    one(&format!("providers add --provider openai --api-key k --base-url {url}"), &[master]);
    let key = one("keys create --name app --json", &[master]).json()["key"].as_str().unwrap().to_owned();
    let database = postgres::database();
    let moved = one(&format!("move-store --to {database}"), &[master]);
    assert!(moved.out.contains("1  keys") && moved.out.contains("moved"), "{moved:?}");
    let gateway = Process::start(dir.path(), &[master, ("DATABASE_URL", &database)]);
    assert_eq!(ask(&gateway, &format!("authorization: Bearer {key}\r\n")).status, 200);
    assert!(gateway.stop().success());
    let again = run_with(dir.path(), &format!("move-store --to {database}"), &[master], "");
    assert!(again.code == 1 && again.err.contains("already"), "{again:?}");
    let next = ("MERIDO_MASTER_KEY", "BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    one("rotate-master-key", &[next, ("MERIDO_MASTER_KEY_PREVIOUS", MASTER), ("DATABASE_URL", &database)]);
    let gateway = Process::start(dir.path(), &[next, ("DATABASE_URL", &database)]);
    assert_eq!(ask(&gateway, &format!("authorization: Bearer {key}\r\n")).status, 200);
}
