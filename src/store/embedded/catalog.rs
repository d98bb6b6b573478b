//! Accounts, providers outside the catalogue, and the reading of what changed.

use super::{Embedded, gathered, next_seq};
use crate::base::{AccountId, Clock};
use crate::store::columns::{self, Columns as _};
use crate::store::decode::{default_label, found, provider_usable};
use crate::store::engine::{RawChanges, WINDOW};
use crate::store::error::{Result, StoreError, StoreErrorKind};
use crate::store::rows::{AccountInfo, CustomProvider, SealedAccount, auth_name};
use rusqlite::{OptionalExtension as _, Transaction, params};

impl Embedded {
    /// Inserts `account`; an empty label becomes the next free `default`, `default-2`, …
    pub(crate) async fn add_account(
        &self,
        account: SealedAccount,
        define: Option<CustomProvider>,
        builtin: bool,
    ) -> Result<AccountInfo> {
        self.write(move |tx| {
            let mut info = account.info;
            let seq = next_seq(tx)?;
            let known = match &define {
                Some(custom) => {
                    put_provider(tx, custom, seq)?;
                    Some(custom.base_url.is_some())
                }
                None => tx
                    .query_row("SELECT base_url IS NOT NULL FROM providers WHERE name = ?1", [&info.provider], |row| {
                        row.get::<_, bool>(0)
                    })
                    .optional()?,
            };
            provider_usable(&info, known, builtin)?;
            if info.label.is_empty() {
                info.label = free_label(tx, &info.provider)?;
            }
            let inserted = tx.execute(
                "INSERT INTO accounts (id, provider, label, base_url, weight, secret, created_ms, changed_seq)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                params![
                    info.id.0.cast_signed(),
                    info.provider,
                    info.label,
                    info.base_url,
                    info.weight,
                    account.sealed,
                    info.created_ms.cast_signed(),
                    seq
                ],
            );
            named(inserted, || format!("{} already has an account labelled `{}`", info.provider, info.label))?;
            Ok(info)
        })
        .await
    }

    /// Changes label, base URL, weight and, when `sealed` is given, the secret.
    pub(crate) async fn update_account(&self, info: AccountInfo, sealed: Option<Vec<u8>>) -> Result<()> {
        self.write(move |tx| {
            let seq = next_seq(tx)?;
            let updated = tx.execute(
                "UPDATE accounts SET label = ?2, base_url = ?3, weight = ?4, secret = coalesce(?5, secret),
                 changed_seq = ?6 WHERE id = ?1 AND deleted = 0",
                params![info.id.0.cast_signed(), info.label, info.base_url, info.weight, sealed, seq],
            );
            let changed =
                named(updated, || format!("{} already has an account labelled `{}`", info.provider, info.label))?;
            found(changed as u64, || format!("account {}", info.id))
        })
        .await
    }

    /// All that are not removed, in the order they were made.
    pub(crate) async fn accounts(&self) -> Result<Vec<AccountInfo>> {
        self.query(|tx| {
            let mut select = tx.prepare_cached(&format!(
                "SELECT {} FROM accounts WHERE deleted = 0 ORDER BY created_ms, id",
                columns::ACCOUNT
            ))?;
            gathered(select.query([])?, columns::account)
        })
        .await
    }

    /// Removes an account; its sealed secret goes with it.
    pub(crate) async fn remove_account(&self, id: AccountId) -> Result<()> {
        self.write(move |tx| {
            let seq = next_seq(tx)?;
            let changed = tx.execute(
                "UPDATE accounts SET deleted = 1, secret = x'', changed_seq = ?2 WHERE id = ?1 AND deleted = 0",
                params![id.0.cast_signed(), seq],
            )?;
            found(changed as u64, || format!("account {id}"))
        })
        .await
    }

    /// Defines a provider, or defines it anew.
    pub(crate) async fn put_provider(&self, custom: CustomProvider) -> Result<()> {
        self.write(move |tx| {
            let seq = next_seq(tx)?;
            put_provider(tx, &custom, seq)
        })
        .await
    }

    /// Providers outside the catalogue.
    pub(crate) async fn providers(&self) -> Result<Vec<CustomProvider>> {
        self.query(|tx| providers_after(tx, -1, i64::MAX)).await
    }

    /// What changed after `seq`, one window of it.
    pub(crate) async fn changes_since(&self, seq: u64) -> Result<RawChanges> {
        self.watch(move |tx| {
            let newest: i64 = tx.prepare_cached("SELECT change_seq FROM meta")?.query_row([], |row| row.get(0))?;
            let seq = seq.cast_signed();
            if newest <= seq {
                return Ok(RawChanges { up_to: newest.cast_unsigned(), ..RawChanges::default() });
            }
            let up_to = newest.min(seq + WINDOW);
            Ok(RawChanges {
                up_to: up_to.cast_unsigned(),
                more: up_to < newest,
                providers: providers_after(tx, seq, up_to)?,
                accounts: accounts_after(tx, seq, up_to)?,
                keys: super::keys::after(tx, seq, up_to, Clock::unix_ms())?,
                // A first look needs no news of what it never knew.
                dead_hashes: if seq == 0 { Vec::new() } else { super::keys::dead_after(tx, seq, up_to)? },
                virtual_models: super::models::after(tx, seq, up_to)?,
            })
        })
        .await
    }
}

fn put_provider(tx: &Transaction<'_>, custom: &CustomProvider, seq: i64) -> Result<()> {
    tx.execute(
        "INSERT INTO providers (name, dialect, auth, http2, base_url, changed_seq) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (name) DO UPDATE SET dialect = excluded.dialect, auth = excluded.auth, http2 = excluded.http2,
         base_url = coalesce(excluded.base_url, base_url), changed_seq = excluded.changed_seq",
        params![custom.name, custom.dialect.name(), auth_name(&custom.auth), custom.http2, custom.base_url, seq],
    )?;
    Ok(())
}

fn providers_after(tx: &Transaction<'_>, seq: i64, up_to: i64) -> Result<Vec<CustomProvider>> {
    let mut select = tx.prepare_cached(&format!(
        "SELECT {} FROM providers WHERE changed_seq > ?1 AND changed_seq <= ?2 ORDER BY changed_seq",
        columns::PROVIDER
    ))?;
    gathered(select.query([seq, up_to])?, columns::provider)
}

fn accounts_after(tx: &Transaction<'_>, seq: i64, up_to: i64) -> Result<Vec<(AccountId, Option<SealedAccount>)>> {
    let mut select = tx.prepare_cached(&format!(
        "SELECT {}, secret, deleted FROM accounts WHERE changed_seq > ?1 AND changed_seq <= ?2 ORDER BY changed_seq",
        columns::ACCOUNT
    ))?;
    gathered(select.query([seq, up_to])?, |row| {
        let (info, sealed) = (columns::account(row)?, row.bytes(6)?);
        Ok((info.id, (!row.flag(7)?).then_some(SealedAccount { info, sealed })))
    })
}

fn free_label(tx: &Transaction<'_>, provider: &str) -> Result<String> {
    let mut taken = tx.prepare_cached("SELECT 1 FROM accounts WHERE provider = ?1 AND label = ?2 AND deleted = 0")?;
    for n in 1u32.. {
        let label = default_label(n);
        if !taken.exists([provider, &label])? {
            return Ok(label);
        }
    }
    Err(StoreError::invalid("label", "every default label is taken"))
}

/// A broken uniqueness, said in the operator's words.
pub(super) fn named<T>(done: rusqlite::Result<T>, conflict: impl FnOnce() -> String) -> Result<T> {
    done.map_err(|e| {
        let e = StoreError::from(e);
        if e.kind == StoreErrorKind::Conflict { StoreError::new(StoreErrorKind::Conflict, conflict()) } else { e }
    })
}
