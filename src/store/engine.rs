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
use crate::base::metrics::METRICS;
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

/// The first word of each line: the counter it is counted by.
macro_rules! engines {
    ($($(#[$doc:meta])* $counter:ident fn $name:ident($($arg:ident: $kind:ty),*) -> $out:ty;)*) => {
        impl Engine {
            $(
                $(#[$doc])*
                pub(super) async fn $name(&self, $($arg: $kind),*) -> Result<$out> {
                    METRICS.$counter.inc();
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
    store_reads fn schema_version() -> u32;
    /// The deployment's row as it is now.
    store_reads fn deployment() -> Option<Deployment>;
    /// Replaces the wrapped data key if it is still `old`; whether it was.
    store_writes fn rewrap(old: Vec<u8>, new: Vec<u8>) -> bool;
    store_writes fn add_account(account: SealedAccount, define: Option<CustomProvider>, builtin: bool) -> AccountInfo;
    store_writes fn update_account(info: AccountInfo, sealed: Option<Vec<u8>>) -> ();
    store_reads fn accounts() -> Vec<AccountInfo>;
    store_writes fn remove_account(id: AccountId) -> ();
    store_writes fn put_provider(custom: CustomProvider) -> ();
    store_reads fn providers() -> Vec<CustomProvider>;
    store_looks fn changes_since(seq: u64) -> RawChanges;
    store_writes fn add_key(info: KeyInfo, hash: KeyHash) -> ();
    store_reads fn keys() -> Vec<KeyInfo>;
    store_reads fn key(id: KeyId) -> KeyInfo;
    store_writes fn update_key(id: KeyId, change: Change) -> KeyInfo;
    store_writes fn rotate_key(id: KeyId, hash: KeyHash) -> KeyInfo;
    store_writes fn revoke_key(id: KeyId) -> ();
    store_writes fn put_virtual_model(model: VirtualModel) -> ();
    store_reads fn virtual_models() -> Vec<VirtualModelRow>;
    store_writes fn remove_virtual_model(id: VirtualModelId) -> ();
    store_writes fn enable_virtual_model(id: VirtualModelId, enabled: bool) -> ();
    store_writes fn reorder_virtual_models(ids: Vec<VirtualModelId>) -> ();
    store_writes fn add_token(token: TokenRow, hash: [u8; 32]) -> ();
    store_reads fn tokens() -> Vec<TokenRow>;
    store_reads fn token_by_hash(hash: [u8; 32]) -> Option<TokenRow>;
    store_writes fn revoke_token(id: TokenId) -> ();
    store_looks fn admissions(now_ms: u64) -> Admissions;
    store_writes fn end_session(id: u64, expires_ms: u64, now_ms: u64) -> ();
    store_writes fn end_all_sessions() -> ();
    store_appends fn append(batch: Arc<UsageBatch>) -> usize;
    store_reads fn usage_totals() -> Vec<Total>;
    store_spent fn spent(since_minute: Option<u32>) -> Vec<(KeyId, i64)>;
    store_reads fn log_rows(limit: u32) -> Vec<LoggedRow>;
    store_reads fn log(id: RequestId) -> Option<LoggedRow>;
    store_reads fn logs(select: LogSelect) -> Vec<Placed>;
    store_reads fn log_scan_end(select: LogSelect) -> Option<LogCursor>;
    store_reads fn usage(select: UsageSelect) -> Vec<UsageRow>;
    store_reads fn names(keys: Vec<KeyId>) -> Names;
    store_prunes fn prune(before_ms: u64, max_bytes: u64) -> Pruned;
    store_prunes fn prune_minutes(before: u32) -> Pruned;
    store_prunes fn shrink(pages: u32) -> ();
    store_writes fn add_audit(entry: AuditEntry, keep: u64) -> ();
    store_reads fn audit_rows(before: Option<u64>, limit: u32) -> Vec<AuditRow>;
    store_reads fn keys_page(after: Option<(u64, KeyId)>, limit: u32) -> Vec<KeyInfo>;
    store_writes fn begin_repeat(id: [u8; 32], request: [u8; 32], now_ms: u64, oldest_ms: u64) -> Repeat;
    store_writes fn end_repeat(id: [u8; 32], answer: Option<Vec<u8>>) -> ();
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
