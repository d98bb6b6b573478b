//! What ends sessions early. No session is kept: they are sealed tokens that the control plane opens itself.
//!
//! The list of ended ones is bounded: when it is full the epoch rises instead, which ends them all.

use super::{Embedded, gathered};
use crate::store::columns::{self, TOKEN};
use crate::store::engine::ENDED_AT_MOST;
use crate::store::error::Result;
use crate::store::rows::Admissions;
use rusqlite::{Transaction, params};

impl Embedded {
    /// Tokens, ended sessions and the epoch, in one consistent look.
    pub(crate) async fn admissions(&self, now_ms: u64) -> Result<Admissions> {
        self.watch(move |tx| {
            let epoch: i64 = tx.prepare_cached("SELECT session_epoch FROM meta")?.query_row([], |row| row.get(0))?;
            let mut select = tx.prepare_cached("SELECT id FROM ended_sessions WHERE expires_ms > ?1")?;
            let ended = select.query_map([now_ms.cast_signed()], |row| row.get::<_, i64>(0).map(i64::cast_unsigned))?;
            let ended = ended.collect::<rusqlite::Result<_>>()?;
            let mut select = tx.prepare_cached(&format!("SELECT {TOKEN}, hash FROM tokens"))?;
            let all = gathered(select.query([])?, |row| Ok((row.get("hash")?, columns::token(row)?)))?;
            Ok(Admissions { session_epoch: epoch.cast_unsigned(), ended, tokens: all })
        })
        .await
    }

    /// Remembers that `id` ended, and forgets those that would have ended by now.
    pub(crate) async fn end_session(&self, id: u64, expires_ms: u64, now_ms: u64) -> Result<()> {
        self.write(move |tx| {
            tx.execute("DELETE FROM ended_sessions WHERE expires_ms <= ?1", [now_ms.cast_signed()])?;
            tx.execute(
                "INSERT OR IGNORE INTO ended_sessions (id, expires_ms) VALUES (?1, ?2)",
                params![id.cast_signed(), expires_ms.cast_signed()],
            )?;
            let count: i64 = tx.query_row("SELECT count(*) FROM ended_sessions", [], |row| row.get(0))?;
            if count > ENDED_AT_MOST { next_epoch(tx) } else { Ok(()) }
        })
        .await
    }

    /// Raises the epoch.
    pub(crate) async fn end_all_sessions(&self) -> Result<()> {
        self.write(next_epoch).await
    }
}

fn next_epoch(tx: &Transaction<'_>) -> Result<()> {
    tx.execute("UPDATE meta SET session_epoch = session_epoch + 1", [])?;
    tx.execute("DELETE FROM ended_sessions", [])?;
    Ok(())
}
