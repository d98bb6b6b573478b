//! API keys: hashes and limits. A hash that stops being valid is written down as dead in the same transaction.

use super::catalog::named;
use super::{Embedded, first, gathered, next_seq};
use crate::base::KeyId;
use crate::state::catalog::{Key, KeyHash};
use crate::store::columns::{self, Columns as _, KEY};
use crate::store::decode::{catalog_key, found, key_hash, models_json};
use crate::store::engine::Change;
use crate::store::error::{Result, StoreError};
use crate::store::rows::KeyInfo;
use rusqlite::{Transaction, params};

impl Embedded {
    /// Inserts a key.
    pub(crate) async fn add_key(&self, info: KeyInfo, hash: KeyHash) -> Result<()> {
        self.write(move |tx| {
            let seq = next_seq(tx)?;
            let inserted = tx.execute(
                "INSERT INTO keys (id, name, rpm, burst, tpm, max_parallel, models, budget_nanos, expires_ms,
                 created_ms, changed_seq, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
                params![
                    info.id.0.cast_signed(),
                    info.spec.name,
                    info.spec.rpm,
                    info.spec.burst,
                    info.spec.tpm,
                    info.spec.max_parallel,
                    models_json(&info.spec)?,
                    info.spec.budget_nanos,
                    info.spec.expires_ms.map(u64::cast_signed),
                    info.created_ms.cast_signed(),
                    seq,
                    hash
                ],
            );
            named(inserted, || "a key of that id is already there".to_owned())?;
            Ok(())
        })
        .await
    }

    /// All that are not revoked, in the order they were made.
    pub(crate) async fn keys(&self) -> Result<Vec<KeyInfo>> {
        self.query(|tx| {
            let mut select =
                tx.prepare_cached(&format!("SELECT {KEY} FROM keys WHERE deleted = 0 ORDER BY created_ms, id"))?;
            gathered(select.query([])?, columns::key)
        })
        .await
    }

    /// One key.
    pub(crate) async fn key(&self, id: KeyId) -> Result<KeyInfo> {
        self.query(move |tx| one(tx, id)).await
    }

    /// Changes what a key may do.
    pub(crate) async fn update_key(&self, id: KeyId, change: Change) -> Result<KeyInfo> {
        self.write(move |tx| {
            let mut key = one(tx, id)?;
            change(&mut key.spec)?;
            let seq = next_seq(tx)?;
            let spec = &key.spec;
            tx.execute(
                "UPDATE keys SET name = ?2, rpm = ?3, burst = ?4, tpm = ?5, max_parallel = ?6, models = ?7,
                 budget_nanos = ?8, expires_ms = ?9, changed_seq = ?10 WHERE id = ?1",
                params![
                    id.0.cast_signed(),
                    spec.name,
                    spec.rpm,
                    spec.burst,
                    spec.tpm,
                    spec.max_parallel,
                    models_json(spec)?,
                    spec.budget_nanos,
                    spec.expires_ms.map(u64::cast_signed),
                    seq
                ],
            )?;
            Ok(key)
        })
        .await
    }

    /// Gives a key a new hash; the old one is dead from then on.
    pub(crate) async fn rotate_key(&self, id: KeyId, hash: KeyHash) -> Result<KeyInfo> {
        self.write(move |tx| {
            let key = one(tx, id)?;
            let seq = next_seq(tx)?;
            bury(tx, id, seq)?;
            let update = "UPDATE keys SET hash = ?2, changed_seq = ?3 WHERE id = ?1";
            tx.execute(update, params![id.0.cast_signed(), hash, seq])?;
            Ok(key)
        })
        .await
    }

    /// Revokes a key. Its row stays: the log and the totals still name it.
    pub(crate) async fn revoke_key(&self, id: KeyId) -> Result<()> {
        self.write(move |tx| {
            let seq = next_seq(tx)?;
            bury(tx, id, seq)?;
            let update = "UPDATE keys SET deleted = 1, changed_seq = ?2 WHERE id = ?1 AND deleted = 0";
            let changed = tx.execute(update, params![id.0.cast_signed(), seq])?;
            found(changed as u64, || format!("key {id}"))
        })
        .await
    }
}

fn bury(tx: &Transaction<'_>, id: KeyId, seq: i64) -> Result<()> {
    let insert = "INSERT INTO dead_hashes (changed_seq, hash) SELECT ?2, hash FROM keys WHERE id = ?1 AND deleted = 0";
    tx.execute(insert, params![id.0.cast_signed(), seq])?;
    Ok(())
}

/// Keys changed in (`seq`, `up_to`] that are neither revoked nor, at the first look, expired already.
pub(super) fn after(tx: &Transaction<'_>, seq: i64, up_to: i64, now_ms: u64) -> Result<Vec<(KeyHash, Key)>> {
    let mut select = tx.prepare_cached(&format!(
        "SELECT {KEY}, hash FROM keys WHERE changed_seq > ?1 AND changed_seq <= ?2 AND deleted = 0
         ORDER BY changed_seq"
    ))?;
    let mut rows = select.query([seq, up_to])?;
    let mut out = Vec::new();
    while let Some(row) = rows.next()? {
        let info = columns::key(row)?;
        if seq == 0 && info.spec.expires_ms.is_some_and(|at| at <= now_ms) {
            continue;
        }
        out.push((key_hash(row.bytes(10)?)?, catalog_key(info)));
    }
    Ok(out)
}

/// Hashes that died in (`seq`, `up_to`].
pub(super) fn dead_after(tx: &Transaction<'_>, seq: i64, up_to: i64) -> Result<Vec<KeyHash>> {
    let mut select = tx.prepare_cached("SELECT hash FROM dead_hashes WHERE changed_seq > ?1 AND changed_seq <= ?2")?;
    let hashes = select.query_map([seq, up_to], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    Ok(hashes)
}

fn one(tx: &Transaction<'_>, id: KeyId) -> Result<KeyInfo> {
    let mut select = tx.prepare_cached(&format!("SELECT {KEY} FROM keys WHERE id = ?1 AND deleted = 0"))?;
    let key = first(select.query([id.0.cast_signed()])?, columns::key)?;
    key.ok_or_else(|| StoreError::not_found(format!("key {id}")))
}
