//! Runs the steps that are due, in the write lock: of many processes starting at once one migrates and the others find
//! it done.

use crate::base::Clock;
use crate::store::engine::Deployment;
use crate::store::error::Result;
use crate::store::migrations::{Step, due, steps};
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};

const STEPS: &[Step] =
    steps!("embedded": "0001_init", "0002_sessions", "0003_days", "0004_audit", "0005_client_ids", "0006_day_sums");

/// Brings the schema up to date, then lets `found` check the deployment's row, or invent it.
pub(super) fn run<T>(
    connection: &mut Connection,
    found: impl FnOnce(Option<Deployment>) -> Result<(Option<Deployment>, T)>,
) -> Result<T> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    migrate(&tx)?;
    let now = Clock::unix_ms().cast_signed();
    let (new, out) = found(deployment(&tx)?)?;
    if let Some(new) = new {
        tx.execute(
            "INSERT INTO meta (id, deployment, wrapped_key, canary, change_seq, log_bytes, created_ms)
             VALUES (1, ?1, ?2, ?3, 0, 0, ?4)
             ON CONFLICT (id) DO UPDATE SET wrapped_key = excluded.wrapped_key, canary = excluded.canary",
            params![new.id.cast_signed(), new.wrapped_key, new.canary, now],
        )?;
    }
    tx.commit()?;
    Ok(out)
}

fn migrate(tx: &Transaction<'_>) -> Result<()> {
    tx.execute_batch(
        "CREATE TABLE IF NOT EXISTS schema_version
         (version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_ms INTEGER NOT NULL) STRICT",
    )?;
    let done: u32 = tx.query_row("SELECT coalesce(max(version), 0) FROM schema_version", [], |row| row.get(0))?;
    for (version, Step { name, sql }) in due(done, STEPS)? {
        tx.execute_batch(sql)?;
        tx.execute(
            "INSERT INTO schema_version (version, name, applied_ms) VALUES (?1, ?2, ?3)",
            params![version, name, Clock::unix_ms().cast_signed()],
        )?;
    }
    Ok(())
}

fn deployment(tx: &Transaction<'_>) -> Result<Option<Deployment>> {
    let row = tx
        .query_row("SELECT deployment, wrapped_key, canary FROM meta", [], |row| {
            Ok(Deployment { id: row.get::<_, i64>(0)?.cast_unsigned(), wrapped_key: row.get(1)?, canary: row.get(2)? })
        })
        .optional()?;
    Ok(row)
}

impl super::Embedded {
    /// The deployment's row as it is now.
    pub(crate) async fn deployment(&self) -> Result<Option<Deployment>> {
        self.query(deployment).await
    }

    /// Replaces the wrapped data key if it is still `old`; whether it was.
    pub(crate) async fn rewrap(&self, old: Vec<u8>, new: Vec<u8>) -> Result<bool> {
        self.write(move |tx| {
            let update = "UPDATE meta SET wrapped_key = ?2 WHERE wrapped_key = ?1";
            Ok(tx.execute(update, params![old, new])? == 1)
        })
        .await
    }

    /// The schema's version and the steps this binary knows.
    pub(crate) async fn schema_version(&self) -> Result<u32> {
        self.query(|tx| Ok(tx.query_row("SELECT max(version) FROM schema_version", [], |row| row.get(0))?)).await
    }
}

#[cfg(test)]
mod tests {
    use super::super::Embedded;
    use super::*;
    use crate::store::error::StoreErrorKind;

    #[expect(clippy::unnecessary_wraps, clippy::needless_pass_by_value, reason = "the shape `open` asks for")]
    fn invent(found: Option<Deployment>) -> Result<(Option<Deployment>, ())> {
        Ok((found.is_none().then(|| Deployment { id: 7, wrapped_key: vec![1], canary: vec![2] }), ()))
    }

    #[test]
    fn a_newer_database_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        Embedded::open(dir.path(), invent).unwrap();
        let raw = Connection::open(dir.path().join(super::super::FILE)).unwrap();
        raw.execute("INSERT INTO schema_version VALUES (99, 'later', 0)", []).unwrap();
        let refused = Embedded::open(dir.path(), invent).err().unwrap();
        assert_eq!(refused.kind, StoreErrorKind::Newer);
        assert!(refused.message.contains("99"), "{refused}");
    }

    #[test]
    fn many_starting_at_once_migrate_once_and_invent_one_deployment() {
        let dir = tempfile::tempdir().unwrap();
        let invented = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|s| {
            for _ in 0..12 {
                s.spawn(|| {
                    Embedded::open(dir.path(), |found| {
                        if found.is_none() {
                            invented.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        }
                        invent(found)
                    })
                    .unwrap();
                });
            }
        });
        assert_eq!(invented.into_inner(), 1);
    }
}
