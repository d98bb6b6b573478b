//! Who may call, whom we may call, and by which names: keys, accounts, virtual models.
//!
//! Read-mostly. Small tables (accounts, virtual models) are a [`Catalog`] swapped whole and versioned; keys live in
//! stripes, so that one new key among a million costs one insert. Only `store/refresh` publishes.

pub use super::base_url::BaseUrl;
use super::live::Live;
use super::targets::{Route, Seats};
use crate::base::stripes::Stripes;
use crate::base::{AccountId, Dialect, KeyId, ModelId, Now, Secret, VirtualModelId};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Everything that is looked up per request. Shared by all cores.
#[derive(Debug)]
pub struct Directory {
    keys: Stripes<KeyHash, Arc<Key>>,
    tables: RwLock<Arc<Catalog>>,
    version: AtomicU64,
    refreshed: AtomicU64,
    live: Live,
}

/// BLAKE3 of an API key: what the store and the directory know of it.
pub type KeyHash = [u8; 32];

/// A caller's key, as the store describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// Its id.
    pub id: KeyId,
    /// For people.
    pub name: Arc<str>,
    /// Requests per minute; `None`: the default's.
    pub rpm: Option<u32>,
    /// Requests at once; `None`: `rpm`.
    pub burst: Option<u32>,
    /// Tokens per minute.
    pub tpm: Option<u32>,
    /// Requests in flight at most.
    pub max_parallel: Option<u32>,
    /// Models it may ask for (names as clients write them; `*` at the end matches a prefix); `None`: all.
    pub models: Option<Arc<[Box<str>]>>,
    /// Dollars it may spend, in nanodollars.
    pub budget_nanos: Option<i64>,
    /// Unix milliseconds after which it is refused.
    pub expires_unix_ms: Option<u64>,
}

/// A kind of provider: what `config/providers.toml` says, or what `--dialect`, `--base-url` said.
#[derive(Debug, PartialEq)]
pub struct Provider {
    /// `openai`, `groq`, …: the part of `provider/model` before the slash.
    pub name: Box<str>,
    /// What it speaks.
    pub dialect: Dialect,
    /// How its credential travels.
    pub auth: Auth,
    /// Speak HTTP/2 to it.
    pub http2: bool,
    /// Models known to exist, by name.
    pub models: HashMap<Box<str>, Arc<Model>, ahash::RandomState>,
}

/// Which header carries the credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// `authorization: Bearer …`
    Bearer,
    /// `x-api-key: …` (Anthropic)
    XApiKey,
    /// `x-goog-api-key: …` (Gemini)
    XGoogApiKey,
    /// `api-key: …` (Azure)
    ApiKey,
    /// None at all (a server of one's own).
    None,
}

/// A model of a provider.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Its name at the provider.
    pub name: Arc<str>,
    /// Its id in locks and usage.
    pub id: ModelId,
    /// Tokens of context; 0 = unknown.
    pub context: u32,
    /// Tokens of output at most; 0 = unknown.
    pub max_output: u32,
    /// What it costs; `None` = unknown.
    pub price: Option<Price>,
}

/// Picodollars per token ($1 per million tokens = 1,000,000).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Price {
    /// Prompt.
    pub input: u64,
    /// Completion.
    pub output: u64,
    /// Prompt read from the provider's cache.
    pub cache_read: u64,
    /// Prompt written to the provider's cache.
    pub cache_write: u64,
}

/// An account with a provider: a credential and where to use it.
#[derive(Debug)]
pub struct Account {
    /// Its id. 0 is the built-in demo's.
    pub id: AccountId,
    /// With whom.
    pub provider: Arc<Provider>,
    /// For people; unique within a provider.
    pub label: Box<str>,
    /// Share among the accounts of its provider.
    pub weight: u32,
    /// Where it listens.
    pub base: BaseUrl,
    /// The credential, as the header that carries it.
    pub credential: Option<Credential>,
}

/// A header with a credential in it: rendered once, not per request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// The header, in lower case.
    pub header: &'static str,
    /// Its value.
    pub value: Secret,
}

/// A name of ours that stands for several targets.
#[derive(Clone, Debug, PartialEq)]
pub struct VirtualModel {
    /// Its id; 0 for those given by `MERIDO_ROUTES`.
    pub id: VirtualModelId,
    /// What clients ask for.
    pub name: Arc<str>,
    /// How the next target is chosen.
    pub strategy: Strategy,
    /// Requests that stay on one target before `load_balance` moves on; ≥ 1.
    pub sticky: u32,
    /// Where it may go, in order.
    pub targets: Vec<VirtualTarget>,
}

/// How a virtual model chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// In order; the next on failure.
    Failover,
    /// In turn.
    LoadBalance,
    /// By weight.
    Weighted,
    /// Cheapest first.
    CostOptimized,
    /// Fastest first.
    LatencyBased,
}

/// One target of a virtual model.
#[derive(Clone, Debug, PartialEq)]
pub struct VirtualTarget {
    /// Provider's name.
    pub provider: Box<str>,
    /// Model's name at the provider.
    pub model: Box<str>,
    /// The account it is pinned to, by label or id.
    pub account: Option<Box<str>>,
    /// Share under `weighted`; ≥ 1.
    pub weight: u32,
}

/// Accounts and virtual models: small, swapped whole.
#[derive(Debug, Default)]
pub struct Catalog {
    /// Rises with each publication; another instance's means nothing here.
    pub version: u64,
    /// What accounts and virtual models say, without secrets: equal on all instances that serve alike.
    pub digest: u64,
    /// All accounts.
    pub accounts: Vec<Arc<Account>>,
    /// Indices into `accounts` by provider name.
    pub by_provider: HashMap<Box<str>, Vec<Arc<Account>>, ahash::RandomState>,
    /// Virtual models by name.
    pub virtual_models: HashMap<Arc<str>, Arc<VirtualModel>, ahash::RandomState>,
    /// Bare model names that providers with an account offer: whom to ask, when exactly one does.
    pub bare: HashMap<Box<str>, Vec<Arc<Provider>>, ahash::RandomState>,
    /// Accounts with their live records, by provider name. Filled when published.
    pub seats: HashMap<Box<str>, Arc<Seats>, ahash::RandomState>,
    /// Virtual models, resolved. Filled when published.
    pub routes: HashMap<Arc<str>, Arc<Route>, ahash::RandomState>,
}

impl Auth {
    /// `secret` as the header that carries it; `None` where there is nothing to carry.
    pub fn credential(&self, secret: &Secret) -> Option<Credential> {
        let (header, value) = match self {
            Self::None => return None,
            _ if secret.reveal().is_empty() => return None,
            Self::Bearer => ("authorization", Secret::new(format!("Bearer {}", secret.reveal()))),
            Self::XApiKey => ("x-api-key", secret.clone()),
            Self::XGoogApiKey => ("x-goog-api-key", secret.clone()),
            Self::ApiKey => ("api-key", secret.clone()),
        };
        Some(Credential { header, value })
    }
}

impl Strategy {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Failover, "failover"),
        (Self::LoadBalance, "load_balance"),
        (Self::Weighted, "weighted"),
        (Self::CostOptimized, "cost_optimized"),
        (Self::LatencyBased, "latency_based"),
    ];

    /// The strategy of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, n)| *n == name).map(|(s, _)| *s)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(s, _)| *s == self).map_or("failover", |(_, n)| n)
    }
}

impl Directory {
    /// Empty, version 0.
    pub fn new() -> Self {
        Self {
            keys: Stripes::new(256),
            tables: RwLock::new(Arc::default()),
            version: AtomicU64::new(0),
            refreshed: AtomicU64::new(0),
            live: Live::new(),
        }
    }

    /// The key with that hash.
    pub fn key(&self, hash: &KeyHash) -> Option<Arc<Key>> {
        self.keys.get(hash)
    }

    /// One key is new or changed.
    pub fn put_key(&self, hash: KeyHash, key: Key) {
        self.keys.insert(hash, Arc::new(key));
    }

    /// One key is gone.
    pub fn drop_key(&self, hash: &KeyHash) {
        self.keys.remove(hash);
    }

    /// How many keys there are.
    pub fn key_count(&self) -> usize {
        self.keys.len()
    }

    /// The version last published: one relaxed load, to see whether a held [`Catalog`] is still the newest.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The store was read at `now` and everything new in it is here.
    pub fn refreshed(&self, now: Now) {
        self.refreshed.fetch_max(now.as_nanos(), Ordering::Release);
    }

    /// When the store was last read with success: an unknown key is wrong (401) only while this is recent, else it may
    /// be one we could not hear of (503).
    pub fn last_refresh(&self) -> Now {
        Now::from_nanos(self.refreshed.load(Ordering::Acquire))
    }

    /// The newest tables.
    pub fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.tables.read())
    }

    /// The live record of each account; outlives every publication.
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// Resolves the names, swaps the tables, gives them the next version and returns it.
    pub fn publish(&self, mut next: Catalog) -> u64 {
        let mut tables = self.tables.write();
        next.attach(&self.live, &tables);
        next.version = tables.version + 1;
        let version = next.version;
        *tables = Arc::new(next);
        self.version.store(version, Ordering::Release);
        version
    }
}

impl Default for Directory {
    fn default() -> Self {
        Self::new()
    }
}

impl Catalog {
    /// Builds the indices over `accounts` and `virtual_models`.
    pub fn build(accounts: Vec<Arc<Account>>, virtual_models: Vec<VirtualModel>) -> Self {
        let mut catalog = Self { digest: digest(&accounts, &virtual_models), accounts, ..Self::default() };
        for account in &catalog.accounts {
            let siblings = catalog.by_provider.entry(account.provider.name.clone()).or_default();
            siblings.push(Arc::clone(account));
            if siblings.len() == 1 {
                for name in account.provider.models.keys() {
                    catalog.bare.entry(name.clone()).or_default().push(Arc::clone(&account.provider));
                }
            }
        }
        for model in virtual_models {
            catalog.virtual_models.insert(Arc::clone(&model.name), Arc::new(model));
        }
        catalog
    }
}

/// In the order of ids and names: two instances may have read the same rows in another one.
fn digest(accounts: &[Arc<Account>], virtual_models: &[VirtualModel]) -> u64 {
    let mut lines: Vec<String> = accounts
        .iter()
        .map(|one| {
            let Account { id, provider, label, weight, base, credential: _ } = &**one;
            format!(
                "a {id:?} {:?} {:?} {:?} {label:?} {weight} {base:?}",
                provider.name, provider.dialect, provider.http2
            )
        })
        .chain(virtual_models.iter().map(|one| format!("m {one:?}")))
        .collect();
    lines.sort_unstable();
    let mut hasher = blake3::Hasher::new();
    for line in &lines {
        hasher.update(&(line.len() as u64).to_le_bytes()).update(line.as_bytes());
    }
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(first)
}

impl Key {
    /// Whether this key may ask for `model`, by the name the client wrote.
    pub fn allows(&self, model: &str) -> bool {
        self.models.as_ref().is_none_or(|allowed| {
            allowed.iter().any(|name| name.strip_suffix('*').map_or(&**name == model, |head| model.starts_with(head)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_that_read_the_same_rows_agree_on_the_digest_and_secrets_are_not_in_it() {
        let account = |id, label: &str, secret: &str| {
            let provider = Provider {
                name: "openai".into(),
                dialect: Dialect::OpenAi,
                auth: Auth::Bearer,
                http2: false,
                models: HashMap::default(),
            };
            let credential = provider.auth.credential(&Secret::new(secret.to_owned()));
            let base = BaseUrl::parse("https://api.openai.com/v1").unwrap();
            let (id, provider, label) = (AccountId(id), Arc::new(provider), label.into());
            Arc::new(Account { id, provider, label, weight: 1, base, credential })
        };
        let digest = |accounts| Catalog::build(accounts, Vec::new()).digest;
        let both = digest(vec![account(1, "a", "x"), account(2, "b", "x")]);
        assert_eq!(both, digest(vec![account(2, "b", "x"), account(1, "a", "x")]), "in whatever order");
        assert_eq!(both, digest(vec![account(1, "a", "new"), account(2, "b", "x")]), "whatever the secrets");
        assert_ne!(both, digest(vec![account(1, "a", "x")]));
        assert_ne!(both, digest(vec![account(1, "a", "x"), account(2, "c", "x")]));
    }

    #[test]
    fn a_key_allows_names_and_prefixes() {
        let mut key = Key {
            id: KeyId(1),
            name: "k".into(),
            rpm: None,
            burst: None,
            tpm: None,
            max_parallel: None,
            models: None,
            budget_nanos: None,
            expires_unix_ms: None,
        };
        assert!(key.allows("anything"));
        key.models = Some(["fast".into(), "openai/*".into()].into());
        assert!(key.allows("fast") && key.allows("openai/gpt-x") && !key.allows("faster") && !key.allows("groq/x"));
    }
}
