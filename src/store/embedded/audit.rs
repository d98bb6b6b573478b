//! The audit, repeatable requests, and a page of keys.

use super::{Embedded, first, gathered};
use crate::base::KeyId;
use crate::store::audit::{AuditEntry, AuditRow, Repeat};
use crate::store::columns;
use crate::store::decode::bad_row;
use crate::store::error::Result;
use crate::store::rows::KeyInfo;
use rusqlite::params;

/// So many old entries go at once, so that not every insert is a delete, too.
const FORGET_EVERY: u64 = 100;

impl Embedded {
    /// Adds an entry; of more than `keep` the oldest go.
    pub(crate) async fn add_audit(&self, entry: AuditEntry, keep: u64) -> Result<()> {
        self.write(move |tx| {
            tx.execute(
                "INSERT INTO audit (time_ms, actor, actor_id, actor_name, action, target, address, detail)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                params![
                    entry.time_ms.cast_signed(),
                    entry.actor,
                    entry.actor_id,
                    entry.actor_name,
                    entry.action,
                    entry.target,
                    entry.address,
                    entry.detail
                ],
            )?;
            let seq = tx.last_insert_rowid().cast_unsigned();
            if seq.is_multiple_of(FORGET_EVERY) {
                tx.execute("DELETE FROM audit WHERE seq <= ?1", [seq.saturating_sub(keep).cast_signed()])?;
            }
            Ok(())
        })
        .await
    }

    /// The newest entries before `before`, newest first.
    pub(crate) async fn audit_rows(&self, before: Option<u64>, limit: u32) -> Result<Vec<AuditRow>> {
        self.query(move |tx| {
            let before = before.map_or(i64::MAX, u64::cast_signed);
            let mut select = tx.prepare_cached(&format!(
                "SELECT {} FROM audit WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2",
                columns::AUDIT
            ))?;
            gathered(select.query(params![before, limit])?, columns::audit)
        })
        .await
    }

    /// Keys after that one, in the order they were made.
    pub(crate) async fn keys_page(&self, after: Option<(u64, KeyId)>, limit: u32) -> Result<Vec<KeyInfo>> {
        self.query(move |tx| {
            let (made, id) = after.map_or((-1, 0), |(made, id)| (made.cast_signed(), id.0.cast_signed()));
            let mut select = tx.prepare_cached(&format!(
                "SELECT {} FROM keys WHERE deleted = 0 AND (created_ms, id) > (?1, ?2) ORDER BY created_ms, id LIMIT ?3",
                columns::KEY
            ))?;
            gathered(select.query(params![made, id, limit])?, columns::key)
        })
        .await
    }

    /// Begins `id` unless it is there; forgets what is older than `oldest_ms`.
    pub(crate) async fn begin_repeat(
        &self,
        id: [u8; 32],
        request: [u8; 32],
        now_ms: u64,
        oldest_ms: u64,
    ) -> Result<Repeat> {
        self.write(move |tx| {
            tx.execute("DELETE FROM repeats WHERE created_ms < ?1", [oldest_ms.cast_signed()])?;
            let insert = "INSERT INTO repeats (id, request, created_ms) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
            if tx.execute(insert, params![id, request, now_ms.cast_signed()])? == 1 {
                return Ok(Repeat::First);
            }
            let mut select = tx.prepare_cached(&format!("SELECT {} FROM repeats WHERE id = ?1", columns::REPEAT))?;
            let found = first(select.query([id])?, columns::repeat)?;
            found.ok_or_else(|| bad_row("no request that just was there"))
        })
        .await
    }

    /// The answer of `id`, or nothing to remember of it.
    pub(crate) async fn end_repeat(&self, id: [u8; 32], answer: Option<Vec<u8>>) -> Result<()> {
        self.write(move |tx| {
            match answer {
                Some(answer) => tx.execute("UPDATE repeats SET answer = ?2 WHERE id = ?1", params![id, answer])?,
                None => tx.execute("DELETE FROM repeats WHERE id = ?1 AND answer IS NULL", [id])?,
            };
            Ok(())
        })
        .await
    }
}
