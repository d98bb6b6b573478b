//! The engines behind the one face: a call goes to whichever there is. No engine sees the other.
//!
//! The list below is what an engine must be able to do; the compiler holds both to it, and one test body puts both
//! through the same questions.

use super::audit::{AuditEntry, AuditRow, Repeat};
use super::embedded::Embedded;
use super::error::Result;
use super::postgres::Postgres;
use super::query::{LogCursor, LogSelect, Placed, Spelling};
use super::rows::{
    AccountInfo, Admissions, CustomProvider, KeyInfo, KeySpec, LoggedRow, Pruned, SealedAccount, TokenRow, UsageBatch,
    VirtualModelRow,
};
use super::usage_query::{Names, UsageRow, UsageSelect};
use crate::base::{AccountId, KeyId, RequestId, TokenId, VirtualModelId};
use crate::state::catalog::{Key, KeyHash, VirtualModel};
use crate::state::usage::Total;
use std::sync::Arc;
use std::time::Duration;

/// What keeps the rows.
#[derive(Clone, Debug)]
pub(super) enum Engine {
    Embedded(Embedded),
    Postgres(Postgres),
}

/// The row that makes a store a deployment of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Deployment {
    /// Random.
    pub(super) id: u64,
    /// The data key under the master key.
    pub(super) wrapped_key: Vec<u8>,
    /// A known text sealed under the data key.
    pub(super) canary: Vec<u8>,
}

/// Changes as an engine reads them: secrets still sealed.
#[derive(Debug, Default)]
pub(super) struct RawChanges {
    pub(super) up_to: u64,
    pub(super) more: bool,
    pub(super) providers: Vec<CustomProvider>,
    pub(super) accounts: Vec<(AccountId, Option<SealedAccount>)>,
    pub(super) keys: Vec<(KeyHash, Key)>,
    pub(super) dead_hashes: Vec<KeyHash>,
    pub(super) virtual_models: Vec<(u64, Option<VirtualModelRow>)>,
}

/// Changes a key's spec inside the transaction, so that two changes at once both hold.
pub(super) type Change = Box<dyn FnOnce(&mut KeySpec) -> Result<()> + Send>;

/// Change numbers read at once: bounds memory, and how long a reader holds up what cleans behind it.
pub(super) const WINDOW: i64 = 10_000;
/// Ended sessions remembered one by one.
pub(super) const ENDED_AT_MOST: i64 = 4_096;
/// Rows removed in one transaction.
pub(super) const PRUNE_STEP: u32 = 5_000;

macro_rules! engines {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $kind:ty),*) -> $out:ty;)*) => {
        impl Engine {
            $(
                $(#[$doc])*
                pub(super) async fn $name(&self, $($arg: $kind),*) -> Result<$out> {
                    match self {
                        Self::Embedded(engine) => engine.$name($($arg),*).await,
                        Self::Postgres(engine) => engine.$name($($arg),*).await,
                    }
                }
            )*
        }
    };
}

engines! {
    /// The schema's version.
    fn schema_version() -> u32;
    /// The deployment's row as it is now.
    fn deployment() -> Option<Deployment>;
    /// Replaces the wrapped data key if it is still `old`; whether it was.
    fn rewrap(old: Vec<u8>, new: Vec<u8>) -> bool;
    fn add_account(account: SealedAccount, define: Option<CustomProvider>, builtin: bool) -> AccountInfo;
    fn update_account(info: AccountInfo, sealed: Option<Vec<u8>>) -> ();
    fn accounts() -> Vec<AccountInfo>;
    fn remove_account(id: AccountId) -> ();
    fn put_provider(custom: CustomProvider) -> ();
    fn providers() -> Vec<CustomProvider>;
    fn changes_since(seq: u64) -> RawChanges;
    fn add_key(info: KeyInfo, hash: KeyHash) -> ();
    fn keys() -> Vec<KeyInfo>;
    fn key(id: KeyId) -> KeyInfo;
    fn update_key(id: KeyId, change: Change) -> KeyInfo;
    fn rotate_key(id: KeyId, hash: KeyHash) -> KeyInfo;
    fn revoke_key(id: KeyId) -> ();
    fn put_virtual_model(model: VirtualModel) -> ();
    fn virtual_models() -> Vec<VirtualModelRow>;
    fn remove_virtual_model(id: VirtualModelId) -> ();
    fn enable_virtual_model(id: VirtualModelId, enabled: bool) -> ();
    fn reorder_virtual_models(ids: Vec<VirtualModelId>) -> ();
    fn add_token(token: TokenRow, hash: [u8; 32]) -> ();
    fn tokens() -> Vec<TokenRow>;
    fn token_by_hash(hash: [u8; 32]) -> Option<TokenRow>;
    fn revoke_token(id: TokenId) -> ();
    fn admissions(now_ms: u64) -> Admissions;
    fn end_session(id: u64, expires_ms: u64, now_ms: u64) -> ();
    fn end_all_sessions() -> ();
    fn append(batch: Arc<UsageBatch>) -> usize;
    fn usage_totals() -> Vec<Total>;
    fn spent(since_minute: Option<u32>) -> Vec<(KeyId, i64)>;
    fn log_rows(limit: u32) -> Vec<LoggedRow>;
    fn log(id: RequestId) -> Option<LoggedRow>;
    fn logs(select: LogSelect) -> Vec<Placed>;
    fn log_scan_end(select: LogSelect) -> Option<LogCursor>;
    fn usage(select: UsageSelect) -> Vec<UsageRow>;
    fn names(keys: Vec<KeyId>) -> Names;
    fn prune(before_ms: u64, max_bytes: u64) -> Pruned;
    fn shrink(pages: u32) -> ();
    fn add_audit(entry: AuditEntry, keep: u64) -> ();
    fn audit_rows(before: Option<u64>, limit: u32) -> Vec<AuditRow>;
    fn keys_page(after: Option<(u64, KeyId)>, limit: u32) -> Vec<KeyInfo>;
    fn begin_repeat(id: [u8; 32], request: [u8; 32], now_ms: u64, oldest_ms: u64) -> Repeat;
    fn end_repeat(id: [u8; 32], answer: Option<Vec<u8>>) -> ();
}

impl Engine {
    /// How it spells what differs.
    pub(super) fn spelling(&self) -> Spelling {
        match self {
            Self::Embedded(_) => Spelling { mark: '?', like: "LIKE" },
            Self::Postgres(_) => Spelling { mark: '$', like: "ILIKE" },
        }
    }

    /// How often to look for changes nobody told of. SQLite tells nobody; a look there costs microseconds.
    pub(super) const fn poll(&self) -> Duration {
        match self {
            Self::Embedded(_) => Duration::from_millis(50),
            Self::Postgres(_) => Duration::from_secs(2),
        }
    }
}
