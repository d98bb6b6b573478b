//! What survives a restart: one face, an embedded engine behind it (and the seam for another).
//!
//! [`Store`] checks, makes ids and keys, hashes and seals; an engine only keeps rows. So no engine ever sees an API key
//! or an account's secret in the clear. Nothing on a request's path calls in here: the catalog comes out by `refresh`,
//! usage goes in by `writer`. When the store is away both wait and retry; known keys go on working.

pub mod audit;
mod embedded;
mod error;
mod master;
pub mod query;
pub mod refresh;
pub mod retention;
pub mod rows;
mod usage;
pub mod usage_query;
pub mod validate;
pub mod writer;

pub use error::{Result, StoreError, StoreErrorKind};
pub use refresh::Refresher;
pub use writer::Writer;

use crate::base::seal::{self, DataKey, MasterKey, SealError, Sealer};
use crate::base::{AccountId, Clock, KeyId, Secret, TokenId, VirtualModelId};
use crate::config::{RouteSpec, Settings};
use crate::state::news::{Herald, Kind, News};
use crate::state::providers;
use embedded::{Deployment, Embedded};
use master::MasterSource;
use rows::{
    AccountInfo, AccountRow, Admissions, Changes, CreatedKey, CustomProvider, KeyInfo, KeySpec, NewAccount, Scope,
    SealedAccount, TokenRow, VirtualModelRow,
};
use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use tokio::sync::Notify;

const CANARY: &[u8] = b"merido";

/// Where the store lies and what opens it.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The data directory.
    pub dir: PathBuf,
    /// The master key, if it is given rather than kept in a file.
    pub master_key: Option<Secret>,
    /// The file, if it is not `dir/master.key`.
    pub master_key_path: Option<PathBuf>,
}

/// Handle to the store; cheap to clone.
#[derive(Clone)]
pub struct Store {
    engine: Embedded,
    seals: Arc<Seals>,
    bell: Arc<Notify>,
    herald: Arc<OnceLock<Herald>>,
}

struct Seals {
    deployment: u64,
    data: DataKey,
    accounts: Sealer,
    builtin: BTreeSet<Box<str>>,
}

impl From<&Settings> for StoreConfig {
    fn from(settings: &Settings) -> Self {
        Self {
            dir: settings.data_dir.clone(),
            master_key: settings.master_key.clone(),
            master_key_path: settings.master_key_path.clone(),
        }
    }
}

impl Store {
    /// Opens the store, making and migrating it as needed, and checks that the master key is its own. Blocks.
    pub fn open(config: &StoreConfig) -> Result<Self> {
        let path = config.master_key_path.clone().unwrap_or_else(|| config.dir.join("master.key"));
        let source = MasterSource { given: config.master_key.clone(), path };
        let mut seals = None;
        let engine = Embedded::open(&config.dir, |found| {
            let (deployment, data, new) = if let Some(found) = found {
                (found.id, unlock(&source.load()?, &found)?, None)
            } else {
                let (new, data) = invent(&source.load_or_create()?)?;
                (new.id, data, Some(new))
            };
            seals = Some(Seals::new(deployment, data)?);
            Ok(new)
        })?;
        let seals = seals.ok_or_else(|| StoreError::corrupt("the store has no deployment"))?;
        Ok(Self { engine, seals: Arc::new(seals), bell: Arc::default(), herald: Arc::default() })
    }

    /// Rings when this handle (or a clone of it) changed the catalog.
    pub fn bell(&self) -> Arc<Notify> {
        Arc::clone(&self.bell)
    }

    /// Tells other instances of each change this handle (or a clone of it) makes to the catalog, from now on.
    pub fn tell_of_changes(&self, herald: Herald) {
        // A second one has nobody else to tell.
        let _ = self.herald.set(herald);
    }

    /// The deployment's id.
    pub fn deployment(&self) -> u64 {
        self.seals.deployment
    }

    /// For sub-keys (sessions, dedup copies) and the fingerprint peers compare.
    pub fn data_key(&self) -> &DataKey {
        &self.seals.data
    }

    /// The schema's version: what `migrate` reports.
    pub async fn schema_version(&self) -> Result<u32> {
        self.engine.schema_version().await
    }

    /// Makes an account, and with it the definition of its provider if one is given.
    pub async fn add_account(&self, new: NewAccount) -> Result<AccountInfo> {
        validate::account(&new)?;
        let builtin = self.seals.builtin.contains(new.provider.as_str());
        if builtin && new.define.is_some() {
            let message = format!("`{}` is in the catalogue already: leave its dialect out", new.provider);
            return Err(StoreError::invalid("provider", message));
        }
        let id = AccountId(seal::random_u64()?);
        let info = AccountInfo {
            id,
            provider: new.provider,
            label: new.label.unwrap_or_default(),
            base_url: new.base_url,
            weight: new.weight,
            created_ms: Clock::unix_ms(),
        };
        let sealed = self.seals.accounts.seal(&record(id), new.secret.reveal().as_bytes())?;
        let added = self.engine.add_account(SealedAccount { info, sealed }, new.define, builtin).await;
        self.rung(added)
    }

    /// Changes an account's label, base URL and weight, and its secret when one is given. Its provider stays.
    pub async fn update_account(&self, info: AccountInfo, secret: Option<Secret>) -> Result<()> {
        let define = None;
        let (label, base_url) = (Some(info.label.clone()), info.base_url.clone());
        let checked = secret.clone().unwrap_or_else(|| Secret::new("unchanged"));
        let provider = info.provider.clone();
        validate::account(&NewAccount { provider, label, base_url, weight: info.weight, secret: checked, define })?;
        let sealed =
            secret.map(|secret| self.seals.accounts.seal(&record(info.id), secret.reveal().as_bytes())).transpose()?;
        let updated = self.engine.update_account(info, sealed).await;
        self.rung(updated)
    }

    /// All accounts, without their secrets.
    pub async fn accounts(&self) -> Result<Vec<AccountInfo>> {
        self.engine.accounts().await
    }

    /// Removes an account.
    pub async fn remove_account(&self, id: AccountId) -> Result<()> {
        let removed = self.engine.remove_account(id).await;
        self.rung(removed)
    }

    /// Defines a provider outside the catalogue, or defines it anew.
    pub async fn put_provider(&self, custom: CustomProvider) -> Result<()> {
        validate::custom_provider(&custom)?;
        if self.seals.builtin.contains(custom.name.as_str()) {
            return Err(StoreError::invalid("provider", format!("`{}` is in the catalogue already", custom.name)));
        }
        let put = self.engine.put_provider(custom).await;
        self.rung(put)
    }

    /// Providers outside the catalogue.
    pub async fn providers(&self) -> Result<Vec<CustomProvider>> {
        self.engine.providers().await
    }

    /// Makes a key. What it answers is the only copy of the key itself.
    pub async fn create_key(&self, spec: KeySpec) -> Result<CreatedKey> {
        let created_ms = Clock::unix_ms();
        validate::key(&spec, created_ms)?;
        let info = KeyInfo { id: KeyId(seal::random_u64()?), spec, created_ms };
        let plain = seal::new_api_key()?;
        let added = self.engine.add_key(info.clone(), seal::key_hash(&plain)).await;
        self.rung(added)?;
        Ok(CreatedKey { info, plain: Secret::new(plain) })
    }

    /// All keys.
    pub async fn keys(&self) -> Result<Vec<KeyInfo>> {
        self.engine.keys().await
    }

    /// One key.
    pub async fn key(&self, id: KeyId) -> Result<KeyInfo> {
        self.engine.key(id).await
    }

    /// Changes what a key may do. `change` runs inside the transaction: two changes at once both hold.
    pub async fn update_key(&self, id: KeyId, change: impl FnOnce(&mut KeySpec) + Send + 'static) -> Result<KeyInfo> {
        let now = Clock::unix_ms();
        let change = move |spec: &mut KeySpec| {
            let expired = spec.expires_ms;
            change(spec);
            // An expired key may be renamed; only a new expiry must lie ahead.
            let new_expiry = spec.expires_ms != expired;
            validate::key(spec, if new_expiry { now } else { 0 })
        };
        let updated = self.engine.update_key(id, Box::new(change)).await;
        self.rung(updated)
    }

    /// Gives a key a new secret; the old one stops.
    pub async fn rotate_key(&self, id: KeyId) -> Result<CreatedKey> {
        let plain = seal::new_api_key()?;
        let rotated = self.engine.rotate_key(id, seal::key_hash(&plain)).await;
        let info = self.rung(rotated)?;
        Ok(CreatedKey { info, plain: Secret::new(plain) })
    }

    /// Revokes a key.
    pub async fn revoke_key(&self, id: KeyId) -> Result<()> {
        let revoked = self.engine.revoke_key(id).await;
        self.rung(revoked)
    }

    /// Makes a virtual model.
    pub async fn add_virtual_model(&self, spec: &RouteSpec) -> Result<VirtualModelId> {
        let id = VirtualModelId(seal::random_u64()?);
        let put = self.engine.put_virtual_model(validate::virtual_model(id, spec)?).await;
        self.rung(put)?;
        Ok(id)
    }

    /// Replaces a virtual model's name, strategy and targets.
    pub async fn replace_virtual_model(&self, id: VirtualModelId, spec: &RouteSpec) -> Result<()> {
        let model = validate::virtual_model(id, spec)?;
        if !self.virtual_models().await?.iter().any(|row| row.model.id == id) {
            return Err(StoreError::not_found(format!("virtual model {id}")));
        }
        let put = self.engine.put_virtual_model(model).await;
        self.rung(put)
    }

    /// All virtual models, by position.
    pub async fn virtual_models(&self) -> Result<Vec<VirtualModelRow>> {
        self.engine.virtual_models().await
    }

    /// Removes a virtual model.
    pub async fn remove_virtual_model(&self, id: VirtualModelId) -> Result<()> {
        let removed = self.engine.remove_virtual_model(id).await;
        self.rung(removed)
    }

    /// Switches a virtual model on or off.
    pub async fn enable_virtual_model(&self, id: VirtualModelId, enabled: bool) -> Result<()> {
        let switched = self.engine.enable_virtual_model(id, enabled).await;
        self.rung(switched)
    }

    /// Puts the virtual models named first, in that order.
    pub async fn reorder_virtual_models(&self, ids: Vec<VirtualModelId>) -> Result<()> {
        let moved = self.engine.reorder_virtual_models(ids).await;
        self.rung(moved)
    }

    /// Makes a management token; the answer holds the only copy of it.
    pub async fn create_token(&self, name: &str, scope: Scope, expires_ms: Option<u64>) -> Result<(TokenRow, Secret)> {
        validate::name("name", name)?;
        let created_ms = Clock::unix_ms();
        if expires_ms.is_some_and(|at| at <= created_ms) {
            return Err(StoreError::invalid("ttl_seconds", "must lie in the future"));
        }
        let token = TokenRow { id: TokenId(seal::random_u64()?), name: name.to_owned(), scope, created_ms, expires_ms };
        let plain = seal::new_management_token()?;
        self.engine.add_token(token.clone(), seal::token_hash(&plain)).await?;
        Ok((token, Secret::new(plain)))
    }

    /// All management tokens.
    pub async fn tokens(&self) -> Result<Vec<TokenRow>> {
        self.engine.tokens().await
    }

    /// The token a caller sent, if it is one and has not expired.
    pub async fn check_token(&self, plain: &str) -> Result<Option<TokenRow>> {
        if !plain.starts_with("mdm_") {
            return Ok(None);
        }
        let token = self.engine.token_by_hash(seal::token_hash(plain)).await?;
        let now = Clock::unix_ms();
        Ok(token.filter(|token| token.expires_ms.is_none_or(|at| at > now)))
    }

    /// Revokes a management token.
    pub async fn revoke_token(&self, id: TokenId) -> Result<()> {
        self.engine.revoke_token(id).await
    }

    /// Who may come in to the control plane now.
    pub async fn admissions(&self) -> Result<Admissions> {
        self.engine.admissions(Clock::unix_ms()).await
    }

    /// Session `id` is over, though it would have gone on until `expires_ms`.
    pub async fn end_session(&self, id: u64, expires_ms: u64) -> Result<()> {
        self.engine.end_session(id, expires_ms, Clock::unix_ms()).await
    }

    /// All sessions made so far are over.
    pub async fn end_all_sessions(&self) -> Result<()> {
        self.engine.end_all_sessions().await
    }

    /// What changed in the catalog after `seq` (0: everything), one window of it. An account whose secret does not
    /// open is reported as gone and logged: one bad row must not stop the others.
    pub async fn changes_since(&self, seq: u64) -> Result<Changes> {
        let raw = self.engine.changes_since(seq).await?;
        let open = |(id, account): (AccountId, Option<SealedAccount>)| (id, account.and_then(|a| self.opened(a)));
        Ok(Changes {
            up_to: raw.up_to,
            more: raw.more,
            providers: raw.providers,
            accounts: raw.accounts.into_iter().map(open).collect(),
            keys: raw.keys,
            dead_hashes: raw.dead_hashes,
            virtual_models: raw.virtual_models,
        })
    }

    fn opened(&self, account: SealedAccount) -> Option<AccountRow> {
        let id = account.info.id;
        let plain = self.seals.accounts.open(&record(id), &account.sealed).ok();
        let Some(secret) = plain.and_then(|bytes| String::from_utf8(bytes).ok()) else {
            tracing::error!(%id, label = account.info.label, "an account's secret cannot be opened: it is left out");
            return None;
        };
        Some(AccountRow { info: account.info, secret: Secret::new(secret) })
    }

    fn rung<T>(&self, done: Result<T>) -> Result<T> {
        if done.is_ok() {
            self.bell.notify_one();
            if let Some(herald) = self.herald.get() {
                herald.tell(News::new(Kind::CATALOG, []));
            }
        }
        done
    }
}

impl Seals {
    fn new(deployment: u64, data: DataKey) -> Result<Self> {
        let builtin = providers::builtin().map_err(StoreError::corrupt)?;
        Ok(Self {
            deployment,
            accounts: data.sealer("accounts")?,
            data,
            builtin: builtin.into_iter().map(|spec| spec.provider.name.clone()).collect(),
        })
    }
}

fn invent(master: &MasterKey) -> Result<(Deployment, DataKey)> {
    let id = seal::random_u64()?;
    let data = DataKey::generate()?;
    let wrapped_key = master.wrap(&data, &id.to_le_bytes())?;
    let canary = data.sealer("canary")?.seal(&id.to_le_bytes(), CANARY)?;
    Ok((Deployment { id, wrapped_key, canary }, data))
}

fn unlock(master: &MasterKey, found: &Deployment) -> Result<DataKey> {
    let bound = found.id.to_le_bytes();
    let opened = || -> Result<DataKey, SealError> {
        let data = master.unwrap_key(&found.wrapped_key, &bound)?;
        let canary = data.sealer("canary")?.open(&bound, &found.canary)?;
        if canary == CANARY { Ok(data) } else { Err(SealError::Unreadable) }
    };
    opened().map_err(|_| {
        let message = "the master key is not the one this store was sealed with: give the right one in \
                       MERIDO_MASTER_KEY or MERIDO_MASTER_KEY_PATH";
        StoreError::new(StoreErrorKind::WrongMasterKey, message)
    })
}

fn record(id: AccountId) -> Vec<u8> {
    format!("accounts/{id}").into_bytes()
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("deployment", &self.seals.deployment).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
