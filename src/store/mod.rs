//! What survives a restart: one face, and behind it a file of our own or PostgreSQL.
//!
//! [`Store`] checks, makes ids and keys, hashes and seals; an engine only keeps rows. So no engine ever sees an API key
//! or an account's secret in the clear. Nothing on a request's path calls in here: the catalog comes out by `refresh`,
//! usage goes in by `writer`. When the store is away both wait and retry; known keys go on working.

pub mod audit;
mod columns;
mod decode;
mod embedded;
mod engine;
mod error;
mod master;
mod migrations;
mod postgres;
pub mod query;
pub mod refresh;
pub mod retention;
mod rotate;
pub mod rows;
mod seals;
pub mod spending;
mod spill;
mod transfer;
mod usage;
pub mod usage_query;
pub mod validate;
pub mod writer;

pub use error::{Result, StoreError, StoreErrorKind};
pub use refresh::Refresher;
pub use rotate::{Rotated, rotate_master_key};
pub use transfer::{Moved, move_store};
pub use writer::Writer;

use crate::base::seal::{self, DataKey};
use crate::base::{AccountId, Clock, KeyId, Secret, TokenId, VirtualModelId};
use crate::config::{RouteSpec, Settings};
use crate::state::news::{Herald, Kind, News};
use embedded::Embedded;
use engine::Engine;
use master::MasterSource;
use postgres::{Listening, Postgres};
use rows::{
    AccountInfo, AccountRow, Admissions, Changes, CreatedKey, CustomProvider, KeyInfo, KeySpec, NewAccount, Scope,
    SealedAccount, TokenRow, VirtualModelRow,
};
use seals::{Seals, record};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::Notify;

/// Where the store lies and what opens it.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The data directory.
    pub dir: PathBuf,
    /// The database; without one the store is a file in `dir`.
    pub database_url: Option<Secret>,
    /// The master key, if it is given rather than kept in a file.
    pub master_key: Option<Secret>,
    /// The file, if it is not `dir/master.key`.
    pub master_key_path: Option<PathBuf>,
    /// The master key before this one: while keys are being changed, either opens the store.
    pub master_key_previous: Option<Secret>,
}

/// Handle to the store; cheap to clone.
#[derive(Clone)]
pub struct Store {
    engine: Engine,
    seals: Arc<Seals>,
    bell: Arc<Notify>,
    herald: Arc<OnceLock<Herald>>,
}

impl From<&Settings> for StoreConfig {
    fn from(settings: &Settings) -> Self {
        Self {
            dir: settings.data_dir.clone(),
            database_url: settings.database_url.clone(),
            master_key: settings.master_key.clone(),
            master_key_path: settings.master_key_path.clone(),
            master_key_previous: settings.master_key_previous.clone(),
        }
    }
}

impl StoreConfig {
    /// A store of its own in `dir`, its master key in a file beside it.
    pub fn in_dir(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            database_url: None,
            master_key: None,
            master_key_path: None,
            master_key_previous: None,
        }
    }

    fn master(&self) -> MasterSource {
        let path = self.master_key_path.clone().unwrap_or_else(|| self.dir.join("master.key"));
        MasterSource {
            given: self.master_key.clone(),
            previous: self.master_key_previous.clone(),
            also_filed: false,
            path,
        }
    }
}

impl Store {
    /// Opens the store, making and migrating it as needed, and checks that the master key is its own. Blocks.
    pub fn open(config: &StoreConfig) -> Result<Self> {
        Self::open_by(config, config.master())
    }

    fn open_by(config: &StoreConfig, source: MasterSource) -> Result<Self> {
        let settle = move |found| seals::settle(&source, found);
        let (engine, seals) = if let Some(url) = &config.database_url {
            let (engine, seals) = Postgres::open(url, settle)?;
            (Engine::Postgres(engine), seals)
        } else {
            let (engine, seals) = Embedded::open(&config.dir, settle)?;
            (Engine::Embedded(engine), seals)
        };
        Ok(Self { engine, seals: Arc::new(seals), bell: Arc::default(), herald: Arc::default() })
    }

    /// Makes the refresher look at once. This handle (and its clones) ring it after each change of the catalog; so may
    /// whoever hears of one from elsewhere.
    pub fn bell(&self) -> Arc<Notify> {
        Arc::clone(&self.bell)
    }

    /// Tells other instances of each change this handle (or a clone of it) makes to the catalog, from now on. News of
    /// theirs rings [`Store::bell`] only, and so never comes back as ours.
    pub fn tell_of_changes(&self, herald: Herald) {
        // A second one has nobody else to tell.
        let _ = self.herald.set(herald);
    }

    /// Where it is, for people; holds no password.
    pub fn place(&self) -> String {
        match &self.engine {
            Engine::Embedded(engine) => engine.place(),
            Engine::Postgres(engine) => engine.place(),
        }
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

    /// How often to look for changes that nobody told of.
    fn poll(&self) -> Duration {
        self.engine.poll()
    }

    /// Rings `bell` at changes that anybody makes, until what it answers is dropped; where the engine tells of them.
    fn listen(&self, bell: &Arc<Notify>) -> Option<Listening> {
        match &self.engine {
            Engine::Embedded(_) => None,
            Engine::Postgres(engine) => Some(engine.listen(Arc::clone(bell))),
        }
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

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("deployment", &self.seals.deployment).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod shared_tests;
#[cfg(test)]
#[path = "../../tests/it/support/postgres.rs"]
pub(crate) mod test_server;
#[cfg(test)]
mod tests;
