//! What ends sessions early. No session is kept: they are sealed tokens that the control plane opens itself.
//!
//! The list of ended ones is bounded: when it is full the epoch rises instead, which ends them all.

use super::call::{ADMIT, WRITE};
use super::values::{params, whole};
use super::{Postgres, Tx};
use crate::store::columns::{self, TOKEN};
use crate::store::decode::key_hash;
use crate::store::engine::ENDED_AT_MOST;
use crate::store::error::Result;
use crate::store::rows::Admissions;

impl Postgres {
    /// Tokens, ended sessions and the epoch, in one consistent look.
    pub(crate) async fn admissions(&self, now_ms: u64) -> Result<Admissions> {
        self.run(ADMIT, move |tx| async move {
            let epoch: i64 = tx.one("SELECT session_epoch FROM meta", &[]).await?.try_get(0)?;
            let mut ended = Vec::new();
            for row in tx.rows("SELECT id FROM ended_sessions WHERE expires_ms > $1", params![whole(now_ms)]).await? {
                ended.push(row.try_get::<_, i64>(0)?.cast_unsigned());
            }
            let mut all = Vec::new();
            for row in tx.rows(&format!("SELECT {TOKEN}, hash FROM tokens"), &[]).await? {
                all.push((key_hash(row.try_get("hash")?)?, columns::token(&row)?));
            }
            Ok(Admissions { session_epoch: epoch.cast_unsigned(), ended, tokens: all })
        })
        .await
    }

    /// Remembers that `id` ended, and forgets those that would have ended by now.
    pub(crate) async fn end_session(&self, id: u64, expires_ms: u64, now_ms: u64) -> Result<()> {
        self.run(WRITE, move |tx| async move {
            tx.execute("DELETE FROM ended_sessions WHERE expires_ms <= $1", params![whole(now_ms)]).await?;
            let sql = "INSERT INTO ended_sessions (id, expires_ms) VALUES ($1, $2) ON CONFLICT DO NOTHING";
            tx.execute(sql, params![id.cast_signed(), whole(expires_ms)]).await?;
            let count: i64 = tx.one("SELECT count(*) FROM ended_sessions", &[]).await?.try_get(0)?;
            if count > ENDED_AT_MOST { tx.next_epoch().await } else { Ok(()) }
        })
        .await
    }

    /// Raises the epoch.
    pub(crate) async fn end_all_sessions(&self) -> Result<()> {
        self.run(WRITE, |tx| async move { tx.next_epoch().await }).await
    }
}

impl Tx {
    async fn next_epoch(&self) -> Result<()> {
        self.execute("UPDATE meta SET session_epoch = session_epoch + 1", &[]).await?;
        self.execute("DELETE FROM ended_sessions", &[]).await?;
        Ok(())
    }
}
