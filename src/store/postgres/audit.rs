//! The audit, repeatable requests, and a page of keys.

use super::Postgres;
use super::call::{QUERY, WRITE};
use super::values::{fit, params, whole};
use crate::base::KeyId;
use crate::store::audit::{AuditEntry, AuditRow, Repeat};
use crate::store::columns;
use crate::store::decode::bad_row;
use crate::store::error::Result;
use crate::store::rows::KeyInfo;

/// So many old entries go at once, so that not every insert is a delete, too.
const FORGET_EVERY: i64 = 100;

impl Postgres {
    /// Adds an entry; of more than `keep` the oldest go.
    pub(crate) async fn add_audit(&self, entry: AuditEntry, keep: u64) -> Result<()> {
        self.run(WRITE, move |tx| async move {
            let some = |text: &Option<String>| text.as_deref().map(fit);
            let added = tx
                .one(
                    "INSERT INTO audit (time_ms, actor, actor_id, actor_name, action, target, address, detail)
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING seq",
                    params![
                        whole(entry.time_ms),
                        fit(&entry.actor),
                        some(&entry.actor_id),
                        some(&entry.actor_name),
                        fit(&entry.action),
                        some(&entry.target),
                        some(&entry.address),
                        fit(&entry.detail)
                    ],
                )
                .await?;
            let seq: i64 = added.try_get(0)?;
            if seq % FORGET_EVERY == 0 {
                tx.execute("DELETE FROM audit WHERE seq <= $1", params![seq.saturating_sub(whole(keep))]).await?;
            }
            Ok(())
        })
        .await
    }

    /// The newest entries before `before`, newest first.
    pub(crate) async fn audit_rows(&self, before: Option<u64>, limit: u32) -> Result<Vec<AuditRow>> {
        self.run(QUERY, move |tx| async move {
            let sql = format!("SELECT {} FROM audit WHERE seq < $1 ORDER BY seq DESC LIMIT $2", columns::AUDIT);
            let before = before.map_or(i64::MAX, whole);
            tx.rows(&sql, params![before, i64::from(limit)]).await?.iter().map(columns::audit).collect()
        })
        .await
    }

    /// Keys after that one, in the order they were made.
    pub(crate) async fn keys_page(&self, after: Option<(u64, KeyId)>, limit: u32) -> Result<Vec<KeyInfo>> {
        self.run(QUERY, move |tx| async move {
            let (made, id) = after.map_or((-1, 0), |(made, id)| (whole(made), id.0.cast_signed()));
            let sql = format!(
                "SELECT {} FROM keys WHERE NOT deleted AND (created_ms, id) > ($1, $2) ORDER BY created_ms, id LIMIT $3",
                columns::KEY
            );
            tx.rows(&sql, params![made, id, i64::from(limit)]).await?.iter().map(columns::key).collect()
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
        self.run(WRITE, move |tx| async move {
            tx.execute("DELETE FROM repeats WHERE created_ms < $1", params![whole(oldest_ms)]).await?;
            // Of two at once the second waits here until the first has committed.
            let insert = "INSERT INTO repeats (id, request, created_ms) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
            if tx.execute(insert, params![&id[..], &request[..], whole(now_ms)]).await? == 1 {
                return Ok(Repeat::First);
            }
            let sql = format!("SELECT {} FROM repeats WHERE id = $1", columns::REPEAT);
            let row = tx.maybe(&sql, params![&id[..]]).await?;
            columns::repeat(&row.ok_or_else(|| bad_row("no request that just was there"))?)
        })
        .await
    }

    /// The answer of `id`, or nothing to remember of it.
    pub(crate) async fn end_repeat(&self, id: [u8; 32], answer: Option<Vec<u8>>) -> Result<()> {
        self.run(WRITE, move |tx| async move {
            match answer {
                Some(answer) => {
                    tx.execute("UPDATE repeats SET answer = $2 WHERE id = $1", params![&id[..], answer]).await?
                }
                None => tx.execute("DELETE FROM repeats WHERE id = $1 AND answer IS NULL", params![&id[..]]).await?,
            };
            Ok(())
        })
        .await
    }
}
