//! API keys: hashes and limits. A hash that stops being valid is written down as dead in the same transaction.

use super::call::{QUERY, SURVEY, WRITE};
use super::error::named;
use super::values::{params, whole};
use super::{Postgres, Tx};
use crate::base::KeyId;
use crate::state::catalog::{Key, KeyHash};
use crate::store::columns::{self, Columns as _, KEY};
use crate::store::decode::{catalog_key, found, key_hash, models_json};
use crate::store::engine::Change;
use crate::store::error::{Result, StoreError};
use crate::store::rows::KeyInfo;

impl Postgres {
    /// Inserts a key.
    pub(crate) async fn add_key(&self, info: KeyInfo, hash: KeyHash) -> Result<()> {
        self.run(WRITE, move |tx| async move {
            let seq = tx.next_seq().await?;
            let spec = &info.spec;
            let inserted = tx
                .execute(
                    "INSERT INTO keys (id, name, rpm, burst, tpm, max_parallel, models, budget_nanos, expires_ms,
                     created_ms, changed_seq, hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
                    params![
                        info.id.0.cast_signed(),
                        spec.name,
                        spec.rpm.map(i64::from),
                        spec.burst.map(i64::from),
                        spec.tpm.map(i64::from),
                        spec.max_parallel.map(i64::from),
                        models_json(spec)?,
                        spec.budget_nanos,
                        spec.expires_ms.map(whole),
                        whole(info.created_ms),
                        seq,
                        &hash[..]
                    ],
                )
                .await;
            named(inserted, || "a key of that id is already there".to_owned())?;
            Ok(())
        })
        .await
    }

    /// All that are not revoked, in the order they were made.
    pub(crate) async fn keys(&self) -> Result<Vec<KeyInfo>> {
        self.run(SURVEY, |tx| async move {
            let sql = format!("SELECT {KEY} FROM keys WHERE NOT deleted ORDER BY created_ms, id");
            tx.rows(&sql, &[]).await?.iter().map(columns::key).collect()
        })
        .await
    }

    /// One key.
    pub(crate) async fn key(&self, id: KeyId) -> Result<KeyInfo> {
        self.run(QUERY, move |tx| async move { tx.key(id).await }).await
    }

    /// Changes what a key may do.
    pub(crate) async fn update_key(&self, id: KeyId, change: Change) -> Result<KeyInfo> {
        self.run(WRITE, move |tx| async move {
            // First: whoever else changes it waits here and then reads what we wrote.
            let seq = tx.next_seq().await?;
            let mut key = tx.key(id).await?;
            change(&mut key.spec)?;
            let spec = &key.spec;
            tx.execute(
                "UPDATE keys SET name = $2, rpm = $3, burst = $4, tpm = $5, max_parallel = $6, models = $7,
                 budget_nanos = $8, expires_ms = $9, changed_seq = $10 WHERE id = $1",
                params![
                    id.0.cast_signed(),
                    spec.name,
                    spec.rpm.map(i64::from),
                    spec.burst.map(i64::from),
                    spec.tpm.map(i64::from),
                    spec.max_parallel.map(i64::from),
                    models_json(spec)?,
                    spec.budget_nanos,
                    spec.expires_ms.map(whole),
                    seq
                ],
            )
            .await?;
            Ok(key)
        })
        .await
    }

    /// Gives a key a new hash; the old one is dead from then on.
    pub(crate) async fn rotate_key(&self, id: KeyId, hash: KeyHash) -> Result<KeyInfo> {
        self.run(WRITE, move |tx| async move {
            let seq = tx.next_seq().await?;
            let key = tx.key(id).await?;
            tx.bury(id, seq).await?;
            let sql = "UPDATE keys SET hash = $2, changed_seq = $3 WHERE id = $1";
            tx.execute(sql, params![id.0.cast_signed(), &hash[..], seq]).await?;
            Ok(key)
        })
        .await
    }

    /// Revokes a key. Its row stays: the log and the totals still name it.
    pub(crate) async fn revoke_key(&self, id: KeyId) -> Result<()> {
        self.run(WRITE, move |tx| async move {
            let seq = tx.next_seq().await?;
            tx.bury(id, seq).await?;
            let sql = "UPDATE keys SET deleted = TRUE, changed_seq = $2 WHERE id = $1 AND NOT deleted";
            found(tx.execute(sql, params![id.0.cast_signed(), seq]).await?, || format!("key {id}"))
        })
        .await
    }
}

impl Tx {
    async fn bury(&self, id: KeyId, seq: i64) -> Result<()> {
        let sql = "INSERT INTO dead_hashes (changed_seq, hash) SELECT $2, hash FROM keys WHERE id = $1 AND NOT deleted";
        self.execute(sql, params![id.0.cast_signed(), seq]).await?;
        Ok(())
    }

    /// Keys changed in (`seq`, `up_to`] that are neither revoked nor, at the first look, expired already.
    pub(super) async fn keys_after(&self, seq: i64, up_to: i64, now_ms: u64) -> Result<Vec<(KeyHash, Key)>> {
        let sql = format!(
            "SELECT {KEY}, hash FROM keys WHERE changed_seq > $1 AND changed_seq <= $2 AND NOT deleted
             ORDER BY changed_seq"
        );
        let mut out = Vec::new();
        for row in self.rows(&sql, params![seq, up_to]).await? {
            let info = columns::key(&row)?;
            if seq == 0 && info.spec.expires_ms.is_some_and(|at| at <= now_ms) {
                continue;
            }
            out.push((key_hash(row.bytes(10)?)?, catalog_key(info)));
        }
        Ok(out)
    }

    /// Hashes that died in (`seq`, `up_to`].
    pub(super) async fn dead_after(&self, seq: i64, up_to: i64) -> Result<Vec<KeyHash>> {
        let sql = "SELECT hash FROM dead_hashes WHERE changed_seq > $1 AND changed_seq <= $2";
        self.rows(sql, params![seq, up_to]).await?.iter().map(|row| key_hash(row.bytes(0)?)).collect()
    }

    async fn key(&self, id: KeyId) -> Result<KeyInfo> {
        let sql = format!("SELECT {KEY} FROM keys WHERE id = $1 AND NOT deleted");
        match self.maybe(&sql, params![id.0.cast_signed()]).await? {
            Some(row) => columns::key(&row),
            None => Err(StoreError::not_found(format!("key {id}"))),
        }
    }
}
