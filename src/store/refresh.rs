//! Builds and publishes the catalog: nobody else does. Others ring its bell.
//!
//! It looks for change numbers newer than the last it saw and loads only those rows: at each ring of its bell (a change
//! of our own, a notification of the database, a message of another instance), and every now and then by itself.
//! Keys go into the directory one by one; accounts and virtual models are small: they are built anew and swapped.
//! While the store is away the directory stays as it was and its `last_refresh` grows old, which turns "unknown key"
//! from the caller's fault into ours.

use super::rows::{AccountRow, Changes, CustomProvider, VirtualModelRow};
use super::validate::{self, DEMO, ENV_LABEL};
use super::{Result, Store, StoreError};
use crate::base::metrics::METRICS;
use crate::base::tasks::{Backoff, Drain, Phase};
use crate::base::{AccountId, Clock, ModelId, Secret, VirtualModelId};
use crate::config::{RouteSpec, Settings};
use crate::dialect::Dialect;
use crate::state::catalog::{Account, Auth, BaseUrl, Catalog, Directory, Model, Provider, VirtualModel};
use crate::state::providers::{self, ProviderSpec};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// After a failed look, the first wait before the next.
const RETRY: Duration = Duration::from_millis(50);
/// And the longest.
const RETRY_CAP: Duration = Duration::from_secs(1);

/// What comes from the settings rather than from the store.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// (provider, API key) found in the environment.
    pub env_accounts: Vec<(String, Secret)>,
    /// Virtual models given by the settings; they win over stored ones of the same name.
    pub routes: Vec<RouteSpec>,
    /// The demo: always, never, or while there is no real account.
    pub demo: Option<bool>,
}

/// Reads the store, publishes the directory.
#[derive(Debug)]
pub struct Refresher {
    store: Store,
    directory: Arc<Directory>,
    sources: Sources,
    known: BTreeMap<Box<str>, Known>,
    accounts: BTreeMap<AccountId, AccountRow>,
    models: BTreeMap<u64, VirtualModelRow>,
    seq: u64,
    published: bool,
    deaf: bool,
    poll: Option<Duration>,
}

/// A provider and where it listens by default.
#[derive(Debug)]
struct Known {
    provider: Arc<Provider>,
    base: Option<BaseUrl>,
}

impl From<&Settings> for Sources {
    fn from(settings: &Settings) -> Self {
        Self { env_accounts: settings.env_accounts.clone(), routes: settings.routes.clone(), demo: settings.demo }
    }
}

impl Refresher {
    /// Nothing is read yet: call [`Refresher::load`] before the first request.
    pub fn new(store: Store, directory: Arc<Directory>, sources: Sources) -> Result<Self> {
        let builtin = providers::builtin().map_err(StoreError::corrupt)?;
        let known = builtin.into_iter().map(|spec| {
            let ProviderSpec { provider, default_base, .. } = spec;
            (provider.name.clone(), Known { provider, base: default_base })
        });
        Ok(Self {
            store,
            directory,
            sources,
            known: known.collect(),
            accounts: BTreeMap::new(),
            models: BTreeMap::new(),
            seq: 0,
            published: false,
            deaf: false,
            poll: None,
        })
    }

    /// Without hearing what the database tells: only by looking, as behind a pooler that keeps notifications to itself.
    #[must_use]
    pub fn deaf(mut self) -> Self {
        self.deaf = true;
        self
    }

    /// Brings the directory up to date with the store.
    pub async fn load(&mut self) -> Result<()> {
        loop {
            // Read before the store is: "as of then".
            let now = Clock::now();
            let changes = self.store.changes_since(self.seq).await?;
            let more = changes.more;
            let tables = self.take(changes);
            if (tables || !self.published) && !more {
                self.publish();
            }
            if !more {
                self.directory.refreshed(now);
                return Ok(());
            }
            // The tables of an earlier window are published with the last.
            self.published &= !tables;
        }
    }

    /// Keeps the directory up to date until streams are cut.
    pub async fn run(mut self, drain: Drain, bell: Arc<Notify>) {
        // Rings by itself whenever anybody commits a change, where the engine can hear of that.
        let _listening = (!self.deaf).then(|| self.store.listen(&bell));
        let poll = self.poll.unwrap_or_else(|| self.store.poll());
        let mut backoff = Backoff::new(RETRY, RETRY_CAP, self.store.deployment());
        let mut wait = poll;
        let mut away = false;
        loop {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = bell.notified() => {}
                () = drain.reached(Phase::Cut) => return,
            }
            match self.load().await {
                Ok(()) => {
                    if std::mem::take(&mut away) {
                        tracing::info!("the store is back");
                        backoff.reset();
                    }
                    wait = poll;
                }
                Err(error) => {
                    METRICS.store_errors.inc();
                    if !std::mem::replace(&mut away, true) {
                        tracing::warn!(%error, "the store cannot be read; the catalog stays as it is");
                    }
                    wait = backoff.wait();
                }
            }
        }
    }

    /// Applies changes to keys at once and to our own tables; whether those changed.
    fn take(&mut self, changes: Changes) -> bool {
        let tables =
            !(changes.providers.is_empty() && changes.accounts.is_empty() && changes.virtual_models.is_empty());
        // First: a hash that died and a key that got a new one may come together.
        for hash in &changes.dead_hashes {
            self.directory.drop_key(hash);
        }
        for (hash, key) in changes.keys {
            self.directory.put_key(hash, key);
        }
        for custom in changes.providers {
            self.known.insert(custom.name.as_str().into(), Known::custom(custom));
        }
        for (id, account) in changes.accounts {
            match account {
                Some(account) => drop(self.accounts.insert(id, account)),
                None => drop(self.accounts.remove(&id)),
            }
        }
        for (id, model) in changes.virtual_models {
            match model {
                Some(model) => drop(self.models.insert(id, model)),
                None => drop(self.models.remove(&id)),
            }
        }
        self.seq = changes.up_to;
        tables
    }

    fn publish(&mut self) {
        self.directory.publish(Catalog::build(self.built_accounts(), self.built_models()));
        self.published = true;
        METRICS.catalog_builds.inc();
    }

    fn built_accounts(&self) -> Vec<Arc<Account>> {
        let mut out = Vec::new();
        for (provider, secret) in &self.sources.env_accounts {
            let id = env_id(provider);
            out.extend(self.account(id, provider, ENV_LABEL, 1, None, secret));
        }
        let mut stored: Vec<&AccountRow> = self.accounts.values().collect();
        stored.sort_by_key(|row| (row.info.created_ms, row.info.id));
        for AccountRow { info, secret } in stored {
            let url = info.base_url.as_deref();
            out.extend(self.account(info.id, &info.provider, &info.label, info.weight, url, secret));
        }
        if self.sources.demo.unwrap_or(out.is_empty()) {
            out.extend(self.demo());
        }
        out
    }

    fn account(
        &self,
        id: AccountId,
        provider: &str,
        label: &str,
        weight: u32,
        url: Option<&str>,
        secret: &Secret,
    ) -> Option<Arc<Account>> {
        let left_out = |why: &str| {
            tracing::warn!(provider, label, "an account is left out: {why}");
            None
        };
        let Some(known) = self.known.get(provider) else { return left_out("its provider is not known") };
        let base = match url.map(BaseUrl::parse) {
            Some(Ok(base)) => base,
            Some(Err(why)) => return left_out(why),
            None => match &known.base {
                Some(base) => base.clone(),
                None => return left_out("its provider has no base URL of its own"),
            },
        };
        let (provider, credential) = (Arc::clone(&known.provider), known.provider.auth.credential(secret));
        Some(Arc::new(Account { id, provider, label: label.into(), weight, base, credential }))
    }

    fn demo(&self) -> Option<Arc<Account>> {
        let provider = self.known.get(DEMO).map_or_else(|| Arc::new(demo_provider()), |k| Arc::clone(&k.provider));
        // Never dialled: the proxy answers for account 0 itself.
        let base = BaseUrl::parse("http://demo.invalid").ok()?;
        Some(Arc::new(Account { id: AccountId(0), provider, label: DEMO.into(), weight: 1, base, credential: None }))
    }

    fn built_models(&self) -> Vec<VirtualModel> {
        let mut out: Vec<VirtualModel> = Vec::new();
        for route in &self.sources.routes {
            match validate::virtual_model(VirtualModelId(0), route) {
                Ok(model) => out.push(model),
                Err(error) => tracing::warn!(route = route.name, %error, "a virtual model of the settings is left out"),
            }
        }
        let given = out.len();
        for row in self.models.values().filter(|row| row.enabled) {
            if out[..given].iter().any(|model| model.name == row.model.name) {
                tracing::warn!(name = &*row.model.name, "the settings' virtual model hides the stored one");
            } else {
                out.push(row.model.clone());
            }
        }
        out
    }
}

impl Known {
    fn custom(custom: CustomProvider) -> Self {
        let base = custom.base_url.as_deref().and_then(|url| BaseUrl::parse(url).ok());
        let CustomProvider { name, dialect, auth, http2, .. } = custom;
        let models = HashMap::default();
        Self { provider: Arc::new(Provider { name: name.into(), dialect, auth, http2, models }), base }
    }
}

/// The same on every instance, so that rests of an account from the environment are shared like any other's.
pub(super) fn env_id(provider: &str) -> AccountId {
    AccountId(ModelId::of(&format!("{ENV_LABEL}/{provider}")).0.max(1))
}

fn demo_provider() -> Provider {
    let echo = Model { name: "echo".into(), id: ModelId::of("echo"), context: 0, max_output: 0, price: None };
    Provider {
        name: DEMO.into(),
        dialect: Dialect::OpenAi,
        auth: Auth::None,
        http2: false,
        models: HashMap::from_iter([("echo".into(), Arc::new(echo))]),
    }
}

#[cfg(test)]
#[path = "refresh_shared_tests.rs"]
mod shared_tests;
#[cfg(test)]
#[path = "refresh_tests.rs"]
pub(super) mod tests;
