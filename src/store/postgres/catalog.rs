//! Accounts, providers outside the catalogue, and the reading of what changed.

use super::call::{LOOK, QUERY, WRITE};
use super::error::named;
use super::values::{params, whole};
use super::{Postgres, Tx};
use crate::base::{AccountId, Clock};
use crate::store::columns::{self, Columns as _};
use crate::store::decode::{default_label, found, provider_usable};
use crate::store::engine::{RawChanges, WINDOW};
use crate::store::error::{Result, StoreError};
use crate::store::rows::{AccountInfo, CustomProvider, SealedAccount, auth_name};
use tokio_postgres::Row;

impl Postgres {
    /// Inserts `account`; an empty label becomes the next free `default`, `default-2`, …
    pub(crate) async fn add_account(
        &self,
        account: SealedAccount,
        define: Option<CustomProvider>,
        builtin: bool,
    ) -> Result<AccountInfo> {
        self.run(WRITE, move |tx| async move {
            let mut info = account.info;
            let seq = tx.next_seq().await?;
            let known = if let Some(custom) = &define {
                tx.put_provider(custom, seq).await?;
                Some(custom.base_url.is_some())
            } else {
                let sql = "SELECT base_url IS NOT NULL FROM providers WHERE name = $1";
                tx.maybe(sql, params![info.provider]).await?.map(|row| row.try_get(0)).transpose()?
            };
            provider_usable(&info, known, builtin)?;
            if info.label.is_empty() {
                info.label = tx.free_label(&info.provider).await?;
            }
            let inserted = tx
                .execute(
                    "INSERT INTO accounts (id, provider, label, base_url, weight, secret, created_ms, changed_seq)
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
                    params![
                        info.id.0.cast_signed(),
                        info.provider,
                        info.label,
                        info.base_url,
                        i64::from(info.weight),
                        account.sealed,
                        whole(info.created_ms),
                        seq
                    ],
                )
                .await;
            named(inserted, || format!("{} already has an account labelled `{}`", info.provider, info.label))?;
            Ok(info)
        })
        .await
    }

    /// Changes label, base URL, weight and, when `sealed` is given, the secret.
    pub(crate) async fn update_account(&self, info: AccountInfo, sealed: Option<Vec<u8>>) -> Result<()> {
        self.run(WRITE, move |tx| async move {
            let seq = tx.next_seq().await?;
            let updated = tx
                .execute(
                    "UPDATE accounts SET label = $2, base_url = $3, weight = $4, secret = coalesce($5, secret),
                     changed_seq = $6 WHERE id = $1 AND NOT deleted",
                    params![info.id.0.cast_signed(), info.label, info.base_url, i64::from(info.weight), sealed, seq],
                )
                .await;
            let changed =
                named(updated, || format!("{} already has an account labelled `{}`", info.provider, info.label))?;
            found(changed, || format!("account {}", info.id))
        })
        .await
    }

    /// All that are not removed, in the order they were made.
    pub(crate) async fn accounts(&self) -> Result<Vec<AccountInfo>> {
        self.run(QUERY, |tx| async move {
            let sql = format!("SELECT {} FROM accounts WHERE NOT deleted ORDER BY created_ms, id", columns::ACCOUNT);
            tx.rows(&sql, &[]).await?.iter().map(columns::account).collect()
        })
        .await
    }

    /// Removes an account; its sealed secret goes with it.
    pub(crate) async fn remove_account(&self, id: AccountId) -> Result<()> {
        self.run(WRITE, move |tx| async move {
            let seq = tx.next_seq().await?;
            let sql = "UPDATE accounts SET deleted = TRUE, secret = '', changed_seq = $2
                       WHERE id = $1 AND NOT deleted";
            found(tx.execute(sql, params![id.0.cast_signed(), seq]).await?, || format!("account {id}"))
        })
        .await
    }

    /// Defines a provider, or defines it anew.
    pub(crate) async fn put_provider(&self, custom: CustomProvider) -> Result<()> {
        self.run(WRITE, move |tx| async move {
            let seq = tx.next_seq().await?;
            tx.put_provider(&custom, seq).await
        })
        .await
    }

    /// Providers outside the catalogue.
    pub(crate) async fn providers(&self) -> Result<Vec<CustomProvider>> {
        self.run(QUERY, |tx| async move { tx.providers_after(-1, i64::MAX).await }).await
    }

    /// What changed after `seq`, one window of it.
    pub(crate) async fn changes_since(&self, seq: u64) -> Result<RawChanges> {
        self.run(LOOK, move |tx| async move {
            let newest: i64 = tx.one("SELECT change_seq FROM meta", &[]).await?.try_get(0)?;
            let seq = seq.cast_signed();
            if newest <= seq {
                return Ok(RawChanges { up_to: newest.cast_unsigned(), ..RawChanges::default() });
            }
            let up_to = newest.min(seq + WINDOW);
            Ok(RawChanges {
                up_to: up_to.cast_unsigned(),
                more: up_to < newest,
                providers: tx.providers_after(seq, up_to).await?,
                accounts: tx.accounts_after(seq, up_to).await?,
                keys: tx.keys_after(seq, up_to, Clock::unix_ms()).await?,
                // A first look needs no news of what it never knew.
                dead_hashes: if seq == 0 { Vec::new() } else { tx.dead_after(seq, up_to).await? },
                virtual_models: tx.models_after(seq, up_to).await?,
            })
        })
        .await
    }
}

impl Tx {
    async fn put_provider(&self, custom: &CustomProvider, seq: i64) -> Result<()> {
        self.execute(
            "INSERT INTO providers (name, dialect, auth, http2, base_url, changed_seq) VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (name) DO UPDATE SET dialect = excluded.dialect, auth = excluded.auth, http2 = excluded.http2,
             base_url = coalesce(excluded.base_url, providers.base_url), changed_seq = excluded.changed_seq",
            params![custom.name, custom.dialect.name(), auth_name(&custom.auth), custom.http2, custom.base_url, seq],
        )
        .await?;
        Ok(())
    }

    async fn providers_after(&self, seq: i64, up_to: i64) -> Result<Vec<CustomProvider>> {
        let sql = format!(
            "SELECT {} FROM providers WHERE changed_seq > $1 AND changed_seq <= $2 ORDER BY changed_seq",
            columns::PROVIDER
        );
        self.rows(&sql, params![seq, up_to]).await?.iter().map(columns::provider).collect()
    }

    async fn accounts_after(&self, seq: i64, up_to: i64) -> Result<Vec<(AccountId, Option<SealedAccount>)>> {
        let sql = format!(
            "SELECT {}, secret, deleted FROM accounts WHERE changed_seq > $1 AND changed_seq <= $2
             ORDER BY changed_seq",
            columns::ACCOUNT
        );
        let read = |row: &Row| {
            let (info, sealed) = (columns::account(row)?, row.bytes(6)?);
            Ok((info.id, (!row.flag(7)?).then_some(SealedAccount { info, sealed })))
        };
        self.rows(&sql, params![seq, up_to]).await?.iter().map(read).collect()
    }

    async fn free_label(&self, provider: &str) -> Result<String> {
        let sql = "SELECT label FROM accounts WHERE provider = $1 AND NOT deleted";
        let mut taken = std::collections::HashSet::new();
        for row in self.rows(sql, params![provider]).await? {
            taken.insert(row.try_get::<_, String>(0)?);
        }
        let free = (1..=u32::MAX).map(default_label).find(|label| !taken.contains(label));
        free.ok_or_else(|| StoreError::invalid("label", "every default label is taken"))
    }
}
