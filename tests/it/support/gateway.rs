//! A gateway in this process, on a free port, with a data directory of its own that ends with it.

use super::provider::Provider;
use super::shared::HasUrl;
use merido::app::Gateway;
use merido::base::Secret;
use merido::config::{AccessLog, RouteSpec, Settings};
use merido::store::rows::{CreatedKey, KeySpec, LoggedRow, NewAccount};
use merido::store::{Store, StoreConfig};
use std::net::SocketAddr;
use std::path::Path;
use tempfile::TempDir;

/// A running gateway and a second handle on its store.
pub struct TestGateway {
    pub addr: SocketAddr,
    gateway: Option<Gateway>,
    store: Option<Store>,
    dir: Option<TempDir>,
}

/// What one is made of.
pub struct Setup {
    pub settings: Settings,
    accounts: Vec<NewAccount>,
}

impl Setup {
    /// Nothing but defaults, a free port and two workers.
    pub fn new() -> Self {
        let settings = Settings { port: 0, workers: 2, access_log: AccessLog::Off, ..Settings::default() };
        Self { settings, accounts: Vec::new() }
    }

    /// One OpenAI account at `provider`.
    pub fn openai(provider: &Provider) -> Self {
        Self::new().account("openai", "a", &provider.openai_url())
    }

    /// One more account.
    pub fn account(mut self, provider: &str, label: &str, url: &str) -> Self {
        self.accounts.push(NewAccount {
            provider: provider.to_owned(),
            label: Some(label.to_owned()),
            base_url: Some(url.to_owned()),
            weight: 1,
            secret: Secret::new(format!("sk-{provider}-{label}")),
            define: None,
        });
        self
    }

    /// One more virtual model.
    pub fn route(mut self, json: serde_json::Value) -> Self {
        let route: RouteSpec = serde_json::from_value(json).unwrap();
        self.settings.routes.push(route);
        self
    }

    /// Changes a setting.
    pub fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// Shares what it knows through `server`. Two with one server and one directory are one deployment.
    pub fn redis(mut self, server: &impl HasUrl) -> Self {
        self.settings.redis_url = Some(Secret::new(server.redis_url()));
        "t".clone_into(&mut self.settings.redis_prefix);
        self
    }

    /// Starts it.
    pub fn start(self) -> TestGateway {
        let dir = tempfile::tempdir().unwrap();
        let mut gateway = self.start_in(dir.path());
        gateway.dir = Some(dir);
        gateway
    }

    /// Puts the accounts into a store in `dir`; the settings that belong to it.
    pub fn prepare(mut self, dir: &Path) -> Settings {
        dir.clone_into(&mut self.settings.data_dir);
        let store = Store::open(&StoreConfig::from(&self.settings)).unwrap();
        for account in self.accounts {
            block_on(store.add_account(account)).unwrap();
        }
        self.settings
    }

    /// Starts it in a directory that stays.
    pub fn start_in(self, dir: &Path) -> TestGateway {
        let settings = self.prepare(dir);
        let store = Store::open(&StoreConfig::from(&settings)).unwrap();
        let gateway = Gateway::start(settings).unwrap();
        TestGateway { addr: gateway.addr(), gateway: Some(gateway), store: Some(store), dir: None }
    }
}

impl TestGateway {
    /// The control plane's own listener.
    pub fn admin_addr(&self) -> SocketAddr {
        self.gateway.as_ref().unwrap().admin_addr().unwrap()
    }

    /// Makes a key and waits until the gateway knows it.
    pub fn key(&self, spec: KeySpec) -> String {
        let created = self.create_key(spec);
        let key = created.plain.reveal().to_owned();
        let head = format!("authorization: Bearer {key}\r\n");
        super::eventually("the gateway knows the new key", || {
            super::client::get(self.addr, "/v1/models", &head).status == 200
        });
        key
    }

    /// Makes a key.
    pub fn create_key(&self, spec: KeySpec) -> CreatedKey {
        block_on(self.store().create_key(spec)).unwrap()
    }

    /// The store, by a handle of its own.
    pub fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    /// All log rows, waiting until there are at least `count`.
    pub fn rows(&self, count: usize) -> Vec<LoggedRow> {
        let mut rows = Vec::new();
        super::eventually("log rows", || {
            rows = block_on(self.store().log_rows(10_000)).unwrap();
            rows.len() >= count
        });
        rows
    }

    /// A metric's value. Tests in one process share them: only differences of one's own names mean anything.
    pub fn metric(&self, name: &str) -> f64 {
        metric(self.addr, name)
    }

    /// Hands out the gateway itself, for tests of its end.
    pub fn take(mut self) -> (Gateway, Store, Option<TempDir>) {
        (self.gateway.take().unwrap(), self.store.take().unwrap(), self.dir.take())
    }
}

impl Drop for TestGateway {
    fn drop(&mut self) {
        if let Some(gateway) = self.gateway.take() {
            gateway.order(merido::app::Order::Cut);
            gateway.wait();
        }
    }
}

/// A key's description: only a name.
pub fn named(name: &str) -> KeySpec {
    KeySpec {
        name: name.to_owned(),
        rpm: None,
        burst: None,
        tpm: None,
        max_parallel: None,
        models: None,
        budget_nanos: None,
        expires_ms: None,
    }
}

/// A metric's value at the gateway there; 0 when it has none of that name.
pub fn metric(addr: SocketAddr, name: &str) -> f64 {
    let text = super::client::get(addr, "/metrics", "").text();
    let line = text.lines().find(|line| line.starts_with(name) && line[name.len()..].starts_with([' ', '{']));
    line.and_then(|line| line.rsplit_once(' ')?.1.parse().ok()).unwrap_or(0.0)
}

/// Runs a future on this thread.
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}
